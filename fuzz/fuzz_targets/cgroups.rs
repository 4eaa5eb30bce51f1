//! The search for a process's control groups, and the parsers of their files, on any bytes: they do
//! not panic, they end, and each result is a valid quota.
//!
//! `cargo +nightly fuzz run cgroups -- -dict=fuzz/cgroups.dict`; the input is the size of reads,
//! and the texts of the files, separated by NULs: /proc/self/cgroup, /proc/self/mountinfo, then the
//! groups' files.
#![no_main]

use std::ffi::CStr;

use libfuzzer_sys::fuzz_target;

// The source files instead of the crate, which would add a second memcpy to a program with libc;
// and the items that they use, as far as the search for groups needs them.
#[allow(dead_code)]
#[path = "../../src/cpu/cgroup.rs"]
mod cgroup;
#[allow(dead_code)]
#[path = "../../src/errno.rs"]
mod errno;
#[allow(dead_code)]
#[path = "../../src/cpu/parse.rs"]
mod parse;

/// As in src/cpu.rs.
#[derive(Clone, Copy)]
struct Quota {
    quota_us: u64,
    period_us: u32,
}

impl Quota {
    fn tighter(self, other: Quota) -> Quota {
        assert!(self.period_us > 0 && other.period_us > 0);
        if other.quota_us < self.quota_us { other } else { self }
    }
}

mod mapping {
    pub struct Mapping;

    impl Mapping {
        pub fn new(_: usize) -> crate::errno::Result<Mapping> {
            unreachable!()
        }
        pub fn as_ptr(&self) -> *mut u8 {
            unreachable!()
        }
        pub fn len(&self) -> usize {
            unreachable!()
        }
    }
}

mod sys {
    use crate::errno::Result;

    pub struct OwnedFd;

    impl OwnedFd {
        pub fn as_raw_fd(&self) -> i32 {
            unreachable!()
        }
    }

    pub fn open(_: &std::ffi::CStr, _: u32, _: u32) -> Result<OwnedFd> {
        unreachable!()
    }

    pub fn pread(_: i32, _: &mut [u8], _: u64) -> Result<usize> {
        unreachable!()
    }
}

use errno::{Errno, Result};

/// The input's texts as files.
struct Texts<'a> {
    parts: &'a [&'a [u8]],
    at_once: usize,
}

impl<'a> cgroup::Files for Texts<'a> {
    type File = &'a [u8];

    fn open(&mut self, path: &CStr) -> Result<&'a [u8]> {
        let part = match path.to_bytes() {
            b"/proc/self/cgroup" => self.parts.first(),
            b"/proc/self/mountinfo" => self.parts.get(1),
            other => self.parts.get(2 + other.len() % 5),
        };
        part.copied().ok_or(Errno::ENOENT)
    }

    fn read_at(&mut self, file: &&'a [u8], buf: &mut [u8], offset: u64) -> Result<usize> {
        let rest = file.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(buf.len()).min(self.at_once);
        buf[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((at_once, texts)) = bytes.split_first() else { return };
    let parts: Vec<&[u8]> = texts.split(|byte| *byte == 0).collect();
    let mut files = Texts { parts: &parts, at_once: usize::from(*at_once).max(1) };
    // Sometimes little memory, so that lines and paths do not fit.
    let mut scratch = vec![0; cgroup::SCRATCH - usize::from(*at_once % 2) * (55 << 10)];
    if let Ok(Some(walk)) = cgroup::find(&mut files, &mut scratch) {
        let (most, mut levels) = (walk.levels(), Vec::new());
        let _ = walk.open_all(&mut files, |level| levels.push(level));
        assert!(levels.len() <= most);
        let _ = cgroup::tightest(&mut files, &levels);
    }
    for part in &parts {
        let _ = (parse::huge_page_size(part), parse::v2_quota(part));
        let mut room = [0; 16];
        let _ = parse::unescape(part, &mut parse::Text::new(&mut room));
    }
});
