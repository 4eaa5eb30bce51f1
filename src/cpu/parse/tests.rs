extern crate std;
use std::string::String;
use std::vec;
use std::vec::Vec;

use super::*;
use crate::errno::Errno;

/// A generator for the tests: xorshift64, the same sequence in each run.
pub(crate) struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as usize % end
    }

    /// One of the texts, possibly with bytes changed, removed or inserted, or with its end doubled
    /// or cut off.
    pub fn mutated(&mut self, texts: &[&[u8]]) -> Vec<u8> {
        const TELLING: &[u8] = b"\n \\/.:,-0179\0\xffmacpu";
        let mut text = texts[self.below(texts.len())].to_vec();
        for _ in 0..self.below(4) {
            let at = self.below(text.len() + 1);
            let byte = if self.below(4) == 0 { self.below(256) as u8 } else { TELLING[self.below(TELLING.len())] };
            match self.below(5) {
                0 => text.truncate(at),
                1 => text.insert(at, byte),
                2 if at < text.len() => drop(text.remove(at)),
                3 if at < text.len() => text[at] = byte,
                _ => {
                    let part = text[at..].to_vec();
                    text.extend_from_slice(&part);
                }
            }
        }
        text
    }
}

#[test]
fn the_group_is_that_of_the_controller_cpu_or_of_version_2() {
    for (line, expected) in [
        ("0::/", Some((Version::V2, "/"))),
        ("0::/a/b c:d", Some((Version::V2, "/a/b c:d"))),
        ("0::/../..", Some((Version::V2, "/../.."))),
        ("0::/a (deleted)", Some((Version::V2, "/a (deleted)"))),
        ("4:cpu:/a", Some((Version::V1, "/a"))),
        ("4:cpu,cpuacct:/a", Some((Version::V1, "/a"))),
        ("4:cpuacct,cpu:/a:b", Some((Version::V1, "/a:b"))),
        ("12:memory,cpu,pids:/", Some((Version::V1, "/"))),
        ("4:cpuset:/a", None),
        ("4:cpuacct:/a", None),
        ("4:xcpu,cpux:/a", None),
        ("1:name=cpu:/a", None),
        ("1::/a", None),
        ("", None),
        ("0", None),
        ("0:", None),
        ("0::", None),
        ("0::a", None),
        ("4:cpu:", None),
        ("4:cpu", None),
        (":::", None),
    ] {
        let expected = expected.map(|(version, path)| (version, path.as_bytes()));
        assert_eq!(cgroup_line(line.as_bytes()), expected, "{line:?}");
    }
}

#[test]
fn lists_have_whole_items_only() {
    for list in ["cpu", "a,cpu", "cpu,b", "a,cpu,b"] {
        assert!(has_item(list.as_bytes(), b"cpu"), "{list}");
    }
    for list in ["", ",", "cpux", "xcpu", "cpu acct", "a,cpux", "xcpu,b", "CPU"] {
        assert!(!has_item(list.as_bytes(), b"cpu"), "{list}");
    }
}

#[test]
fn a_mount_has_a_root_a_point_and_a_kind() {
    let mount = |line: &'static str| {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        mount_line(line.as_bytes()).map(|mount| (text(mount.root), text(mount.point), mount.version))
    };
    for (line, root, point, version) in [
        ("35 23 0:30 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw", "/", "/sys/fs/cgroup", Some(Version::V2)),
        ("35 23 0:30 /a /b rw - cgroup2 none rw,nsdelegate", "/a", "/b", Some(Version::V2)),
        ("35 23 0:30 /a /b rw a:1 b:2 c - cgroup2 none rw", "/a", "/b", Some(Version::V2)),
        ("35 23 0:30 / /b rw - cgroup none rw,cpu,cpuacct", "/", "/b", Some(Version::V1)),
        ("35 23 0:30 / /b rw - cgroup cpu cpu", "/", "/b", Some(Version::V1)),
        ("35 23 0:30 / /b rw - cgroup cpu rw,cpuset", "/", "/b", None),
        ("35 23 0:30 / /b rw,cpu - cgroup none rw", "/", "/b", None),
        ("35 23 0:30 / /b\\040- rw - tmpfs cgroup2 rw", "/", "/b\\040-", None),
        ("35 23 0:30 / /b rw - ext4  rw", "/", "/b", None), // A source without a name.
    ] {
        assert_eq!(mount(line), Some((root.into(), point.into(), version)), "{line}");
    }
    for line in
        ["", "-", "a b c d e", "35 23 0:30 / /b rw", "35 23 0:30 / /b rw -", "35 23 0:30 / /b rw - cgroup2 none"]
    {
        assert_eq!(mount(line), None, "{line}");
    }
}

#[test]
fn three_octal_digits_after_a_backslash_are_a_byte() {
    let mut room = [0; 32];
    let mut text = Text::new(&mut room);
    for (escaped, plain) in [
        ("", &b""[..]),
        ("/a", b"/a"),
        ("\\040", b" "),
        ("/a\\040b\\011c\\012d\\134e\\043", b"/a b\tc\nd\\e#"),
        ("\\377\\001", b"\xff\x01"),
        ("\\1340401", b"\\0401"),
    ] {
        assert_eq!(unescape(escaped.as_bytes(), &mut text), Some(()), "{escaped}");
        assert_eq!(text.bytes(), plain, "{escaped}");
    }
    for bad in ["\\", "a\\", "\\0", "\\04", "\\08 ", "\\400", "\\777", "\\04x", "\\x40", "\\ 40", "\\\\", "\\000"] {
        assert_eq!(unescape(bad.as_bytes(), &mut text), None, "{bad}");
    }
    assert_eq!(unescape(&[b'x'; 32], &mut text), Some(()));
    assert_eq!(unescape(&[b'x'; 33], &mut text), None);
}

#[test]
fn what_the_kernel_escapes_comes_back() {
    let mut random = Random(88172645463325252);
    let mut room = [0; 64];
    let mut text = Text::new(&mut room);
    for _ in 0..5000 {
        let plain: Vec<u8> = (0..random.below(60)).map(|_| b" \t\n\\#/ab\xC3\xBC"[random.below(10)]).collect();
        let mut escaped = Vec::new();
        for byte in &plain {
            match byte {
                b' ' | b'\t' | b'\n' | b'\\' | b'#' => {
                    escaped.extend(std::format!("\\{byte:03o}").bytes());
                }
                byte => escaped.push(*byte),
            }
        }
        assert_eq!(unescape(&escaped, &mut text), Some(()));
        assert_eq!(text.bytes(), plain);
    }
}

#[test]
fn a_group_lies_below_the_roots_above_it() {
    let at = |path: &'static str| Some(Below::At(path.as_bytes()));
    for (root, path, expected) in [
        ("/", "/", at("")),
        ("/", "/a", at("/a")),
        ("/", "/a/b", at("/a/b")),
        ("/a", "/a", at("")),
        ("/a", "/a/b", at("/b")),
        ("/a/b", "/a/b/c/d", at("/c/d")),
        ("/a", "/ab", None),
        ("/a/b", "/a", None),
        ("/a", "/", None),
        ("/b", "/a/b", None),
        // Seen from within a namespace.
        ("/..", "/..", at("")),
        ("/..", "/../b", at("/b")),
        ("/../b", "/../b/c", at("/c")),
        ("/../..", "/../../b", at("/b")),
        ("/..", "/", Some(Below::Somewhere)),
        ("/..", "/a", Some(Below::Somewhere)),
        ("/../..", "/../b", Some(Below::Somewhere)),
        ("/", "/..", None),
        ("/", "/../b", None),
        ("/a", "/../a", None),
        ("/../b", "/a", None),
        ("/../b", "/../c", None),
        // Names that begin with dots.
        ("/..a", "/..a/b", at("/b")),
        ("/", "/..a", at("/..a")),
    ] {
        assert_eq!(below(root.as_bytes(), path.as_bytes()), expected, "{path} below {root}");
    }
}

#[test]
fn version_2_states_quota_and_period() {
    let quota = |quota_us, period_us| Some(Quota { quota_us, period_us });
    for (text, expected) in [
        ("max 100000\n", None),
        ("max\n", None),
        ("100000 100000\n", quota(100_000, 100_000)),
        ("150000 100000", quota(150_000, 100_000)),
        ("0 100000\n", quota(0, 100_000)),
        ("18446744073709551615 4294967295\n", quota(u64::MAX, u32::MAX)),
        ("", None),
        ("\n", None),
        ("100000\n", None),
        ("100000 0\n", None),
        ("100000 max\n", None),
        ("-1 100000\n", None),
        ("+1 100000\n", None),
        ("1 2 3\n", None),
        ("1  2\n", None),
        (" 1 2\n", None),
        ("1 2 \n", None),
        ("1 2\n\n", None),
        ("1\n2\n", None),
        ("1.5 100000\n", None),
        ("0x10 100000\n", None),
        ("18446744073709551616 100000\n", None),
        ("1 4294967296\n", None),
    ] {
        assert_eq!(v2_quota(text.as_bytes()), expected, "{text:?}");
    }
    assert_eq!(v2_quota(b"\xff\xfe \0\n"), None);
}

#[test]
fn version_1_states_them_in_two_files() {
    let quota = |quota_us, period_us| Some(Quota { quota_us, period_us });
    for (quota_text, period_text, expected) in [
        ("-1\n", "100000\n", None),
        ("-100\n", "100000\n", None),
        ("100000\n", "100000\n", quota(100_000, 100_000)),
        ("150000", "50000", quota(150_000, 50_000)),
        ("0\n", "100000\n", quota(0, 100_000)),
        ("100000\n", "0\n", None),
        ("100000\n", "", None),
        ("", "100000\n", None),
        ("\n", "\n", None),
        ("max\n", "100000\n", None),
        ("12 34\n", "100000\n", None),
        ("100000\n", "-1\n", None),
        ("9999999999999999999999\n", "100000\n", None),
    ] {
        assert_eq!(v1_quota(quota_text.as_bytes(), period_text.as_bytes()), expected, "{quota_text:?} {period_text:?}");
    }
}

#[test]
fn numbers_are_digits_and_fit() {
    for (text, expected) in [
        ("0", Some(0)),
        ("00012", Some(12)),
        ("18446744073709551615", Some(u64::MAX)),
        ("18446744073709551616", None),
        ("99999999999999999999999999", None),
        ("", None),
        ("-1", None),
        ("1a", None),
        ("a", None),
        ("1 ", None),
        ("1_0", None),
    ] {
        assert_eq!(decimal(text.as_bytes()), expected, "{text:?}");
    }
}

#[test]
fn a_huge_page_is_a_power_of_two() {
    for (text, expected) in [
        ("2097152\n", Some(2 << 20)),
        ("2097152", Some(2 << 20)), // Without a newline the last digit still counts.
        ("33554432\n", Some(32 << 20)),
        ("0\n", None),
        ("1\n", None),
        ("2097151\n", None),
        ("-2097152\n", None),
        ("", None),
        ("\n", None),
        ("2 MiB\n", None),
        ("36893488147419103232\n", None),
    ] {
        assert_eq!(huge_page_size(text.as_bytes()), expected, "{text:?}");
    }
}

/// All lines of `text` that fit, read in pieces.
fn lines(text: &[u8], room: usize, mut piece: impl FnMut() -> usize) -> Vec<Vec<u8>> {
    let (mut rest, mut buf, mut lines) = (text, vec![0; room], Vec::new());
    let mut reader = Lines::new(&mut buf, |buf| {
        let (now, later) = rest.split_at(piece().min(rest.len()).min(buf.len()));
        buf[..now.len()].copy_from_slice(now);
        rest = later;
        Ok(now.len())
    });
    while let Some(line) = reader.next().unwrap() {
        lines.push(line.to_vec());
    }
    assert_eq!(reader.next(), Ok(None), "after the end is the end");
    lines
}

#[test]
fn lines_come_whole_or_not_at_all() {
    for (text, expected) in [
        ("", &[][..]),
        ("\n", &[""]),
        ("a", &["a"]),
        ("a\n", &["a"]),
        ("a\nb", &["a", "b"]),
        ("\n\nc\n", &["", "", "c"]),
        ("1234567\n8\n", &["1234567", "8"]),
        ("12345678\n9\n", &["9"]),
        ("a\n123456789012345678901234567\nb", &["a", "b"]),
        ("a\n12345678", &["a"]),
        ("a\n1234567", &["a", "1234567"]),
    ] {
        for piece in 1..10 {
            assert_eq!(lines(text.as_bytes(), 8, || piece), expected.iter().map(|l| l.as_bytes()).collect::<Vec<_>>());
        }
    }
    assert_eq!(Lines::new(&mut [0; 8], |_| Err(Errno::EIO)).next(), Err(Errno::EIO));
    assert!(lines(b"abc\ndef\n", 0, || 1).is_empty());
}

#[test]
fn lines_of_any_text_in_any_pieces_are_what_splitting_it_gives() {
    let mut random = Random(0xC0FF_EE00_DEAD_BEEF);
    for _ in 0..20_000 {
        let text: Vec<u8> = (0..random.below(80)).map(|_| b"\nab"[random.below(3)]).collect();
        let room = 1 + random.below(12);
        let mut expected: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
        if expected.last().is_some_and(|last| last.is_empty()) {
            expected.pop(); // The empty text after the last newline.
        }
        // A line needs room for its newline, except the last.
        let ends = text.last() == Some(&b'\n');
        let count = expected.len();
        let mut index = 0;
        expected.retain(|line| {
            index += 1;
            line.len() < room || (index == count && !ends && line.len() < room)
        });
        let mut pieces = Random(random.0 | 1);
        assert_eq!(lines(&text, room, || 1 + pieces.below(9)), expected, "{text:?} in {room}");
    }
}

/// Any bytes: every parser returns, and its result is part of its input.
#[test]
fn mutated_lines_end_in_some_result() {
    let seeds: [&[u8]; 8] = [
        b"4:cpu,cpuacct:/docker/c0ffee",
        b"0::/user.slice/session.scope",
        b"35 23 0:30 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw,nsdelegate",
        b"36 23 0:31 /a\\040b /c\\134d rw - cgroup cgroup rw,cpu",
        b"150000 100000\n",
        b"max 100000\n",
        b"2097152\n",
        b"/../../a/..b/c",
    ];
    let mut random = Random(0x0DDB_1A5E_5BAD_5EED);
    let mut room = [0; 128];
    let mut text = Text::new(&mut room);
    for _ in 0..200_000 {
        let line = random.mutated(&seeds);
        let other = random.mutated(&seeds);
        if let Some((_, path)) = cgroup_line(&line) {
            assert!(path.starts_with(b"/") && line.ends_with(path));
        }
        if let Some(mount) = mount_line(&line) {
            assert!(!mount.root.contains(&b' ') && !mount.point.contains(&b' '));
        }
        if unescape(&line, &mut text).is_some() {
            assert!(text.bytes().len() <= line.len() && !text.bytes().contains(&0));
        }
        if let Some(Below::At(rest)) = below(&line, &other) {
            assert!(other.ends_with(rest) && (rest.is_empty() || rest.starts_with(b"/")));
        }
        for quota in [v2_quota(&line), v1_quota(&line, &other)].into_iter().flatten() {
            assert!(quota.period_us > 0);
        }
        assert!(huge_page_size(&line).is_none_or(usize::is_power_of_two));
        let room = 1 + random.below(40);
        for line in lines(&line, room, || 7) {
            assert!(line.len() < room && !line.contains(&b'\n'));
        }
    }
}
