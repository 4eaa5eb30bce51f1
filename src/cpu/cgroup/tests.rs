extern crate std;
use std::format;
use std::string::String;
use std::vec;
use std::vec::Vec;

use super::fake::{Open, Tree};
use super::search::PATH_MAX;
use super::*;

const GROUP: &str = "/proc/self/cgroup";
const MOUNTS: &str = "/proc/self/mountinfo";
/// A usual machine of version 2.
const V2: &str = "22 1 0:21 / /proc rw - proc proc rw\n\
                  35 23 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
/// A usual machine of version 1, with version 2 beside it for systemd.
const V1: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
                  32 31 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                  33 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n\
                  34 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpuacct,cpu\n";

fn open(tree: &mut Tree) -> Result<Option<Vec<Level<Open>>>> {
    let mut scratch = vec![0; SCRATCH];
    let Some(walk) = find(tree, &mut scratch)? else {
        return Ok(None);
    };
    let (most, mut levels) = (walk.levels(), Vec::new());
    walk.open_all(tree, |level| levels.push(level))?;
    assert!(levels.len() <= most, "{} levels where {most} were foretold", levels.len());
    Ok(Some(levels))
}

/// Quota and period in ms; `None` is no limit.
fn limit(tree: &mut Tree) -> Option<(u64, u32)> {
    let levels = open(tree).ok()??;
    tightest(tree, &levels).map(|quota| (quota.quota_us / 1000, quota.period_us / 1000))
}

#[test]
fn version_2_is_limited_by_its_own_group() {
    let mut tree = Tree::new(&[(GROUP, "0::/a/b\n"), (MOUNTS, V2)]);
    assert_eq!(limit(&mut tree), None);
    tree.write("/sys/fs/cgroup/a/b/cpu.max", b"max 100000\n");
    assert_eq!(limit(&mut tree), None);
    tree.write("/sys/fs/cgroup/a/b/cpu.max", b"150000 100000\n");
    assert_eq!(limit(&mut tree), Some((150, 100)));
}

#[test]
fn a_tighter_group_above_counts_at_any_height() {
    for (group, a, root, expected) in [
        ("max 100000\n", "max 100000\n", "max 100000\n", None),
        ("400000 100000\n", "max 100000\n", "max 100000\n", Some((400, 100))),
        ("400000 100000\n", "200000 100000\n", "max 100000\n", Some((200, 100))),
        ("max 100000\n", "200000 100000\n", "300000 100000\n", Some((200, 100))),
        ("400000 100000\n", "max 100000\n", "10000 20000\n", Some((10, 20))),
        ("400000 100000\n", "rubbish", "", Some((400, 100))),
    ] {
        let mut tree = Tree::new(&[
            (GROUP, "0::/a/b/c\n"),
            (MOUNTS, V2),
            ("/sys/fs/cgroup/a/b/c/cpu.max", group),
            ("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
            ("/sys/fs/cgroup/a/cpu.max", a),
            ("/sys/fs/cgroup/cpu.max", root),
        ]);
        assert_eq!(limit(&mut tree), expected);
    }
}

#[test]
fn groups_above_the_mount_do_not_show_and_others_do_not_count() {
    let mut tree = Tree::new(&[
        (GROUP, "0::/a/b\n"),
        (MOUNTS, "1 2 0:3 /a /here rw - cgroup2 cgroup2 rw\n"),
        ("/here/b/cpu.max", "400000 100000\n"),
        ("/here/cpu.max", "300000 100000\n"),
        ("/cpu.max", "100000 100000\n"),
        ("/here/b/c/cpu.max", "100000 100000\n"),
        ("/here/a/b/cpu.max", "100000 100000\n"),
    ]);
    assert_eq!(limit(&mut tree), Some((300, 100)));
}

#[test]
fn version_1_is_limited_by_two_files_of_each_group() {
    let mut tree = Tree::new(&[
        (GROUP, "5:cpuset:/other\n4:cpu,cpuacct:/a/b\n1:name=systemd:/s\n0::/u\n"),
        (MOUNTS, V1),
        ("/sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_quota_us", "-1\n"),
        ("/sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_period_us", "100000\n"),
        ("/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "-1\n"),
        ("/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "50000\n"),
        ("/sys/fs/cgroup/unified/u/cpu.max", "1000 1000\n"), // No kernel has both.
    ]);
    assert_eq!(limit(&mut tree), None);
    tree.write("/sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_quota_us", b"300000\n");
    assert_eq!(limit(&mut tree), Some((300, 100)));
    tree.write("/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", b"100000\n");
    assert_eq!(limit(&mut tree), Some((100, 50)));
    tree.remove("/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us"); // Half a limit is no limit.
    assert_eq!(limit(&mut tree), Some((300, 100)));
}

#[test]
fn a_container_of_version_1_that_sees_the_hosts_path_finds_its_group_at_the_mount_point() {
    let mut tree = Tree::new(&[
        (GROUP, "4:cpu:/docker/c0ffee\n"),
        (MOUNTS, "9 8 0:7 /docker/c0ffee /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n"),
        ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "250000\n"),
        ("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
    ]);
    assert_eq!(limit(&mut tree), Some((250, 100)));
}

#[test]
fn in_a_namespace_the_own_group_is_the_root() {
    let mut tree = Tree::new(&[
        (GROUP, "0::/\n"),
        (MOUNTS, "9 8 0:7 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n"),
        ("/sys/fs/cgroup/cpu.max", "250000 100000\n"),
    ]);
    assert_eq!(limit(&mut tree), Some((250, 100)));
}

#[test]
fn in_a_namespace_an_older_mount_shows_a_group_above_whose_limit_counts() {
    // unshare(CLONE_NEWCGROUP), with the file systems mounted before it.
    let mut tree = Tree::new(&[
        (GROUP, "0::/\n"),
        (MOUNTS, "9 8 0:7 /../.. /sys/fs/cgroup ro - cgroup2 cgroup rw\n"),
        ("/sys/fs/cgroup/cpu.max", "250000 100000\n"),
    ]);
    assert_eq!(limit(&mut tree), Some((250, 100)));
    // Moved to a sibling of the namespace's group.
    tree.write(GROUP, b"0::/../beside\n");
    assert_eq!(limit(&mut tree), Some((250, 100)));
    tree.write(MOUNTS, b"9 8 0:7 /.. /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
    tree.write("/sys/fs/cgroup/beside/cpu.max", b"100000 100000\n");
    assert_eq!(limit(&mut tree), Some((100, 100)));
    // Outside all mounts.
    tree.write(MOUNTS, b"9 8 0:7 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
    assert_eq!(limit(&mut tree), None);
}

#[test]
fn the_mount_that_shows_most_is_taken_and_a_covered_one_is_not() {
    let files = [
        (GROUP, "0::/a/b\n"),
        ("/part/b/cpu.max", "400000 100000\n"),
        ("/whole/a/b/cpu.max", "400000 100000\n"),
        ("/whole/a/cpu.max", "200000 100000\n"),
        ("/part/cpu.max", "100000 100000\n"),
    ];
    let mut tree = Tree::new(&files);
    let (part, whole) =
        ("1 1 0:7 /a /part rw - cgroup2 none rw\n", "2 1 0:7 / /whole rw opt:1 opt:2 - cgroup2 none rw\n");
    let elsewhere = "3 1 0:7 /z /elsewhere rw - cgroup2 none rw\n";
    for lines in [[part, whole, elsewhere], [whole, elsewhere, part]] {
        tree.write(MOUNTS, lines.concat().as_bytes());
        assert_eq!(limit(&mut tree), Some((200, 100)));
    }
    let cover = "4 2 0:9 / /whole rw - tmpfs tmpfs rw\n";
    for lines in [[part, whole, cover], [whole, cover, part], [cover, whole, part]] {
        tree.write(MOUNTS, lines.concat().as_bytes());
        assert_eq!(limit(&mut tree), Some((100, 100)));
    }
}

#[test]
fn a_mount_is_covered_as_the_kernel_goes() {
    // The group is limited to 4 at /sys/fs/cgroup, and to 2 at /other.
    let tree = |mounts: &[&str]| {
        Tree::new(&[
            (GROUP, "0::/a\n"),
            (MOUNTS, &mounts.concat()),
            ("/sys/fs/cgroup/a/cpu.max", "400000 100000\n"),
            ("/other/a/cpu.max", "200000 100000\n"),
        ])
    };
    let (root, sys) = ("20 1 0:5 / / rw - ext4 disk rw\n", "21 20 0:6 / /sys rw - sysfs sysfs rw\n");
    let (own, other) =
        ("30 21 0:7 / /sys/fs/cgroup rw - cgroup2 none rw\n", "31 20 0:7 / /other rw - cgroup2 none rw\n");
    let here = [root, sys, own, other];
    assert_eq!(limit(&mut tree(&here)), Some((400, 100)));
    let with = |more: &str, lines: [&str; 4]| {
        let [a, b, c, d] = lines;
        [[a, b, c, d, more], [more, a, b, c, d]].map(|lines| limit(&mut tree(&lines)))
    };
    for covers in [
        "40 30 0:8 / /sys/fs/cgroup rw - tmpfs none rw\n", // On the mount itself.
        "40 21 0:8 / /sys/fs rw - tmpfs none rw\n",        // At a folder on the path to it.
        "40 21 0:8 / /sys rw - tmpfs none rw\n",           // On its parent.
        "40 20 0:8 / /sys rw - tmpfs none rw\n",
    ] {
        assert_eq!(with(covers, here), [Some((200, 100)); 2], "{covers}");
    }
    for does_not in [
        "40 30 0:8 / /sys/fs/cgroup/a/b rw - tmpfs none rw\n", // Below it.
        "40 21 0:8 / /sys/fs/cg rw - tmpfs none rw\n",         // Next to the path to it.
        "40 20 0:8 / /sys/fs rw - tmpfs none rw\n",            // Covered by /sys itself.
        "40 20 0:8 / / rw - tmpfs none rw\n",                  // The process is below.
        "40 50 0:8 / /sys/fs/cgroup rw - tmpfs none rw\n",     // Under a mount that is not listed.
    ] {
        assert_eq!(with(does_not, here), [Some((400, 100)); 2], "{does_not}");
    }
    // On top of another of its kind, whichever was listed first.
    let below = "30 21 0:7 /z /sys/fs/cgroup rw - cgroup2 none rw\n";
    let on_top = "35 30 0:7 / /sys/fs/cgroup rw - cgroup2 none rw\n";
    assert_eq!(with(on_top, [root, sys, below, ""]), [Some((400, 100)); 2]);
    assert_eq!(with(on_top, [root, sys, own, ""]), [Some((400, 100)); 2]);
    let on_top = "35 30 0:7 /z /sys/fs/cgroup rw - cgroup2 none rw\n";
    assert_eq!(with(on_top, [root, sys, own, ""]), [None; 2]);
    // A mount on top of the root is not visible, and a cycle does not hang.
    let over_root = "22 20 0:9 / / rw - tmpfs none rw\n";
    assert_eq!(limit(&mut tree(&[root, over_root, "31 22 0:7 / /other rw - cgroup2 none rw\n"])), None);
    let circle = ["1 2 0:7 / /other rw - cgroup2 none rw\n", "2 1 0:7 / /x rw - tmpfs none rw\n"];
    assert_eq!(limit(&mut tree(&circle)), None);
}

#[test]
fn mount_points_are_unescaped() {
    let mut tree = Tree::new(&[
        (GROUP, "0::/a b/c:d\n"),
        (MOUNTS, "1 1 0:7 /a\\040b /my\\040groups\\134\\011 rw - cgroup2 none rw\n"),
        ("/my groups\\\t/c:d/cpu.max", "400000 100000\n"),
    ]);
    assert_eq!(limit(&mut tree), Some((400, 100)));
}

#[test]
fn without_proc_or_a_mount_there_is_no_limit() {
    assert_eq!(open(&mut Tree::new(&[])).err(), Some(Errno::ENOENT));
    assert_eq!(open(&mut Tree::new(&[(GROUP, "0::/\n")])).err(), Some(Errno::ENOENT));
    for (group, mounts) in [
        ("", V2),
        ("0::/a\n", ""),
        ("0::/a\n", "\n\n"),
        ("rubbish", V2),
        ("4:cpuset:/a\n", V1),
        ("4:cpu:/a\n", V2),
        ("0::/a\n", "1 1 0:7 /b /c rw - cgroup2 none rw\n"),
        ("0::/ab\n", "1 1 0:7 /a /c rw - cgroup2 none rw\n"),
    ] {
        assert!(open(&mut Tree::new(&[(GROUP, group), (MOUNTS, mounts)])).unwrap().is_none(), "{group:?} {mounts:?}");
    }
}

#[test]
fn limits_that_change_are_followed_and_those_of_a_removed_group_are_none() {
    let mut tree = Tree::new(&[(GROUP, "0::/a\n"), (MOUNTS, V2), ("/sys/fs/cgroup/a/cpu.max", "max 100000\n")]);
    let levels = open(&mut tree).unwrap().unwrap();
    assert_eq!(tightest(&mut tree, &levels), None);
    tree.write("/sys/fs/cgroup/a/cpu.max", b"50000 100000\n");
    assert_eq!(tightest(&mut tree, &levels), Some(Quota { quota_us: 50_000, period_us: 100_000 }));
    tree.write("/sys/fs/cgroup/a/cpu.max", b"");
    assert_eq!(tightest(&mut tree, &levels), None);
    tree.write("/sys/fs/cgroup/a/cpu.max", &[b'1'; 64]);
    assert_eq!(tightest(&mut tree, &levels), None);
    tree.remove("/sys/fs/cgroup/a/cpu.max");
    assert_eq!(tightest(&mut tree, &levels), None);
}

#[test]
fn running_out_of_descriptors_leaves_none_open_and_is_told() {
    let mut tree = Tree::new(&[
        (GROUP, "0::/a/b\n"),
        (MOUNTS, V2),
        ("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
        ("/sys/fs/cgroup/a/cpu.max", "max 100000\n"),
    ]);
    for count in 0..6 {
        tree.refuse_open_after(count, Errno::EMFILE);
        assert_eq!(open(&mut tree).err(), Some(Errno::EMFILE), "after {count}");
        assert_eq!(tree.open_files(), 0);
    }
    tree.refuse_open_after(6, Errno::EMFILE);
    let levels = open(&mut tree).unwrap().unwrap();
    assert_eq!((levels.len(), tree.open_files()), (2, 2));
}

#[test]
fn long_lines_and_paths_are_passed_over_but_not_what_lies_above() {
    let deep: String = (0..500).map(|_| "/eightand").collect();
    let options = "x,".repeat(70_000);
    let mut tree = Tree::new(&[
        (GROUP, &format!("0::{}/b\n", &deep[..4000])),
        (MOUNTS, &format!("1 1 0:1 / /o rw - overlay none {options}\n{V2}")),
        ("/sys/fs/cgroup/eightand/cpu.max", "70000 100000\n"),
    ]);
    for at_once in [usize::MAX, 1000, 1] {
        tree.read_at_once(at_once);
        assert_eq!(limit(&mut tree), Some((70, 100)), "{at_once} at once");
    }
    // The group's path has the maximal length; with the mount point in front it exceeds what
    // open(2) accepts.
    tree.write(GROUP, format!("0::{}\n", &deep[..4095]).as_bytes());
    assert_eq!(limit(&mut tree), Some((70, 100)));
    tree.write(GROUP, format!("0::{deep}\n").as_bytes());
    assert_eq!(limit(&mut tree), None);
}

#[test]
fn a_small_scratch_is_an_error_and_no_overflow() {
    let mut tree = Tree::new(&[(GROUP, "0::/a\n"), (MOUNTS, V2)]);
    for size in [0, 1, PATH_MAX, 8 * PATH_MAX - 1] {
        assert!(find(&mut tree, &mut vec![0; size]).is_err(), "{size}");
    }
    // No line fits into an empty buffer.
    assert!(find(&mut tree, &mut vec![0; 8 * PATH_MAX]).unwrap().is_none());
}

/// Any bytes in any of the files: the search returns within its limits and leaves no file open.
#[test]
fn mutated_files_end_in_some_result() {
    let own: [&[u8]; 4] = [b"0::/a/b\n", b"4:cpu,cpuacct:/a/b\n0::/x\n", b"0::/../x\n", b"0::/\n"];
    let mounts: [&[u8]; 4] = [
        V2.as_bytes(),
        V1.as_bytes(),
        b"1 1 0:7 /.. /sys/fs/cgroup rw a b - cgroup2 none rw\n",
        b"1 1 0:7 /a\\040 /sys\\040 rw - cgroup none cpu\n",
    ];
    let limits: [&[u8]; 4] = [b"max 100000\n", b"150000 100000\n", b"-1\n", b"100000\n"];
    let mut random = parse::Random(0x1234_5678_9ABC_DEF1);
    let mut scratch = vec![0; SCRATCH];
    let (mut found, mut limited) = (0, 0);
    for round in 0..20_000 {
        let mut tree = Tree::new(&[]);
        tree.write(GROUP, &random.mutated(&own));
        tree.write(MOUNTS, &random.mutated(&mounts));
        for folder in ["/sys/fs/cgroup", "/sys/fs/cgroup/a", "/sys/fs/cgroup/a/b", "/sys/fs/cgroup/cpu,cpuacct/a/b"] {
            for file in ["cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us"] {
                tree.write(&format!("{folder}/{file}"), &random.mutated(&limits));
            }
        }
        tree.read_at_once(1 + random.below(100));
        let mut levels = Vec::new();
        if let Some(walk) = find(&mut tree, &mut scratch).unwrap() {
            let most = walk.levels();
            walk.open_all(&mut tree, |level| levels.push(level)).unwrap();
            assert!(levels.len() <= most, "round {round}");
            found += 1;
        }
        if let Some(quota) = tightest(&mut tree, &levels) {
            assert!(quota.period_us > 0 && quota.floor() <= quota.ceil());
            limited += 1;
        }
        drop(levels);
        assert_eq!(tree.open_files(), 0);
    }
    // Enough mutated inputs still parse.
    assert!(found > 1000 && limited > 100, "{found} found, {limited} limited");
}
