//! Processors and pages: affinity, the quotas of control groups, and the answers if nothing can be
//! known.

use core::num::NonZero;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use linux_raw_sys::general as k;
use rt0::cpu::{self, CpuSet};
use rt0::{Env, Errno, sys, thread};
use rt0_tests::files::{empty, make_folder, mount, own_mounts, remove_folder, write};
use rt0_tests::seccomp::{self, Verdict};
use rt0_tests::text::Text;
use rt0_tests::{Ended, assert_mappings, fork, mappings, read_file, skip, wait_for, wait_until};

/// The number of open descriptors.
fn open_files() -> usize {
    (0..256).filter(|fd| sys::dup(rt0_tests::numbered(*fd)).is_ok()).count()
}

/// Replaces the kernel's files about the process's groups and about mounts.
fn pretend(group: &[u8], mounts: &[u8]) {
    own_mounts();
    empty(c"/tmp");
    write(c"/tmp/cgroup", group).unwrap();
    write(c"/tmp/mountinfo", mounts).unwrap();
    mount(Some(c"/tmp/cgroup"), c"/proc/self/cgroup", None, k::MS_BIND);
    mount(Some(c"/tmp/mountinfo"), c"/proc/self/mountinfo", None, k::MS_BIND);
    let mut buf = [0; 4096];
    if read_file(c"/proc/self/cgroup", &mut buf) != Ok(group) {
        skip("the emulator has a file of its own");
    }
}

fn quota_percent() -> Option<u128> {
    cpu::quota().map(|quota| quota.time().as_micros() * 100 / quota.period().as_micros())
}

/// The first `count` processors that the thread may use; skips the test if there are fewer.
fn processors(count: usize) -> CpuSet {
    let all = cpu::affinity().unwrap();
    if all.len() < count {
        skip("fewer processors than the test needs");
    }
    let mut set = CpuSet::new();
    all.iter().take(count).for_each(|processor| set.insert(processor).unwrap());
    set
}

/// Real control groups: one made for a test, and below it the groups `one` and `two`.
struct Groups {
    top: Text,
    version_1: bool,
}

const MEMBERS: [&str; 3] = ["", "/one", "/two"];

impl Groups {
    /// Makes the groups; skips the test if that is not allowed or there is no controller of
    /// processor time.
    fn make() -> Groups {
        for mount in ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup"] {
            let groups = Groups {
                top: Text::of(format_args!("{mount}/rt0-test-{}", sys::getpid())),
                version_1: mount != "/sys/fs/cgroup",
            };
            let let_through = |folder: &str| {
                let file = Text::of(format_args!("{folder}/cgroup.subtree_control"));
                groups.version_1 || write(file.as_c(), b"+cpu").is_ok()
            };
            let_through(mount);
            if make_folder(groups.top.as_c()).is_err() {
                continue;
            }
            let_through(groups.path("").as_str());
            let made = MEMBERS[1..].iter().all(|member| make_folder(groups.path(member).as_c()).is_ok());
            if made && MEMBERS.iter().all(|member| groups.limit(member, None).is_ok()) {
                return groups;
            }
            groups.remove();
        }
        skip("no control group that limits time can be made here")
    }

    fn path(&self, member: &str) -> Text {
        Text::of(format_args!("{}{member}", self.top.as_str()))
    }

    fn write(&self, member: &str, file: &str, text: &Text) -> Result<(), Errno> {
        let path = Text::of(format_args!("{}/{file}", self.path(member).as_str()));
        let file = sys::open(path.as_c(), sys::flags::O_WRONLY | sys::flags::O_CLOEXEC, 0)?;
        rt0::io::write_all(&file, text.as_str().as_bytes())
    }

    /// Sets a quota of `percent` of a processor, or none.
    fn limit(&self, member: &str, percent: Option<u32>) -> Result<(), Errno> {
        let quota = percent.map(|percent| Text::of(format_args!("{}", percent * 1000)));
        if self.version_1 {
            return self.write(member, "cpu.cfs_quota_us", &quota.unwrap_or(Text::of(format_args!("-1"))));
        }
        let quota = quota.unwrap_or(Text::of(format_args!("max")));
        self.write(member, "cpu.max", &Text::of(format_args!("{} 100000", quota.as_str())))
    }

    /// Moves this process to a group.
    fn enter(&self, member: &str) {
        self.write(member, "cgroup.procs", &Text::of(format_args!("{}", sys::getpid()))).expect("moving a process");
    }

    /// Runs `child` in a child process in the group `one`, then removes the groups.
    fn with_child(self, child: fn(&Groups)) {
        let pid = fork().expect("fork");
        if pid == 0 {
            self.enter("/one");
            if cpu::quota().is_some() {
                skip("something above has a quota already");
            }
            child(&self);
            sys::exit_group(0);
        }
        let ended = wait_for(pid);
        self.remove();
        match ended {
            Ended::Exit(0) => {}
            Ended::Exit(77) => sys::exit_group(77),
            other => panic!("{other:?}"),
        }
    }

    fn remove(&self) {
        for member in MEMBERS.iter().rev() {
            // Its last process may still be ending.
            wait_until("a group to be empty", || remove_folder(self.path(member).as_c()) != Err(Errno::EBUSY));
        }
    }
}

rt0::test_module! {
    the_count_is_that_of_the_affinity_or_less,
    the_count_follows_the_affinity,
    affinity_is_a_threads_own,
    an_affinity_of_none_that_exist_is_einval,
    a_mask_without_room_is_einval,
    where_the_affinity_is_not_told_the_count_is_1,
    without_files_there_is_no_quota_and_no_huge_page,
    counting_again_opens_nothing_and_keeps_nothing,
    threads_that_count_at_once_agree_and_keep_one_set_of_descriptors,
    a_tighter_quota_of_a_group_above_limits_the_count,
    the_kernels_own_groups_limit_the_count_each_at_its_level,
    a_process_that_is_moved_keeps_looking_at_the_group_it_was_in,
    a_process_that_was_moved_before_it_asked_has_the_new_groups_quota,
    a_quota_of_version_1_limits_the_count,
    without_proc_the_count_is_the_affinity_and_a_later_proc_is_seen,
    the_huge_page_size_is_read_once,
    without_sys_the_huge_page_size_is_unknown,
    the_page_size_is_the_kernels,
    pread_has_all_64_bits_of_its_offset_in_their_places,
}

fn the_count_is_that_of_the_affinity_or_less() {
    let affinity = cpu::affinity().unwrap();
    assert!(!affinity.is_empty());
    let count = cpu::count();
    assert!(count.get() <= affinity.len());
    assert_eq!(thread::available_parallelism(), Ok(count));
    match cpu::quota() {
        Some(quota) => assert_eq!(count.get(), affinity.len().min(quota.ceil().max(1))),
        None => assert_eq!(count.get(), affinity.len()),
    }
}

fn the_count_follows_the_affinity() {
    let before = cpu::affinity().unwrap();
    for wanted in 1..=before.len().min(4) {
        let set = processors(wanted);
        cpu::set_affinity(&set).unwrap();
        assert_eq!(cpu::affinity().unwrap(), set);
        assert!(cpu::count().get() <= wanted);
        // A new thread inherits it.
        assert_eq!(thread::spawn(|| cpu::affinity().unwrap()).unwrap().join(), set);
        cpu::set_affinity(&before).unwrap();
    }
    assert_eq!(cpu::affinity().unwrap(), before);
}

fn affinity_is_a_threads_own() {
    let one = processors(1);
    let before = cpu::affinity().unwrap();
    let theirs = thread::spawn(|| {
        cpu::set_affinity(&processors(1)).unwrap();
        (cpu::affinity().unwrap(), cpu::count())
    });
    assert_eq!(theirs.unwrap().join(), (one, NonZero::<usize>::MIN));
    assert_eq!(cpu::affinity().unwrap(), before);
}

fn an_affinity_of_none_that_exist_is_einval() {
    let before = cpu::affinity().unwrap();
    assert_eq!(cpu::set_affinity(&CpuSet::new()), Err(Errno::EINVAL));
    let mut set = CpuSet::new();
    set.insert(500_000).unwrap();
    assert_eq!(cpu::set_affinity(&set), Err(Errno::EINVAL));
    // It is ignored next to one that exists.
    set.insert(before.iter().next().unwrap()).unwrap();
    cpu::set_affinity(&set).unwrap();
    assert_eq!((cpu::affinity().unwrap().len(), cpu::count().get()), (1, 1));
}

fn a_mask_without_room_is_einval() {
    assert_eq!(sys::sched_getaffinity(0, &mut []), Err(Errno::EINVAL));
    assert_eq!(sys::sched_getaffinity(i32::MAX as u32, &mut [0; 1024]), Err(Errno::ESRCH));
}

fn where_the_affinity_is_not_told_the_count_is_1() {
    seccomp::filter(&[k::__NR_sched_getaffinity], Verdict::Refuse(Errno::ENOSYS), Verdict::Allow);
    assert_eq!(cpu::affinity().err(), Some(Errno::ENOSYS));
    assert_eq!(cpu::count().get(), 1);
}

fn without_files_there_is_no_quota_and_no_huge_page() {
    seccomp::filter(&[k::__NR_openat], Verdict::Refuse(Errno::EACCES), Verdict::Allow);
    assert_eq!((cpu::quota(), cpu::huge_page_size()), (None, None));
    assert_eq!(cpu::count().get(), cpu::affinity().unwrap().len());
}

fn counting_again_opens_nothing_and_keeps_nothing() {
    let first = cpu::count();
    let (files, before) = (open_files(), mappings());
    for _ in 0..1000 {
        assert_eq!(cpu::count(), first);
    }
    assert_eq!(open_files(), files);
    assert_mappings(before..=before);
}

fn threads_that_count_at_once_agree_and_keep_one_set_of_descriptors() {
    static GO: AtomicBool = AtomicBool::new(false);
    let before = open_files();
    let threads = [(); 8].map(|()| {
        thread::spawn(|| {
            while !GO.load(Relaxed) {
                thread::yield_now();
            }
            (cpu::count(), cpu::quota())
        })
        .unwrap()
    });
    GO.store(true, Relaxed);
    let found = threads.map(|thread| thread.join());
    let kept = open_files() - before;
    assert_eq!(found, [(cpu::count(), cpu::quota()); 8]);
    assert_eq!(open_files() - before, kept);
    // One descriptor for each file of each group, and no others.
    let mut buf = [0; 16384];
    let groups = read_file(c"/proc/self/cgroup", &mut buf).map_or(0, |text| {
        text.split(|byte| *byte == b'\n')
            .map(|line| line.iter().filter(|byte| **byte == b'/').count())
            .max()
            .unwrap_or(0)
    });
    assert!(kept <= 2 * (groups + 1), "{kept} descriptors for {groups} groups");
}

fn a_tighter_quota_of_a_group_above_limits_the_count() {
    let _ = processors(2);
    pretend(b"0::/a/b\n", b"1 1 0:7 / /tmp/my\\040groups rw - cgroup2 none rw\n");
    make_folder(c"/tmp/my groups").unwrap();
    make_folder(c"/tmp/my groups/a").unwrap();
    make_folder(c"/tmp/my groups/a/b").unwrap();
    write(c"/tmp/my groups/a/b/cpu.max", b"max 100000\n").unwrap();
    write(c"/tmp/my groups/a/cpu.max", b"50000 100000\n").unwrap();
    assert_eq!((quota_percent(), cpu::count().get()), (Some(50), 1));
    // A changed limit is seen, up and down.
    write(c"/tmp/my groups/a/cpu.max", b"150000 100000\n").unwrap();
    assert_eq!((quota_percent(), cpu::count().get()), (Some(150), 2));
    write(c"/tmp/my groups/a/b/cpu.max", b"1000 100000\n").unwrap();
    assert_eq!((quota_percent(), cpu::count().get()), (Some(1), 1));
    write(c"/tmp/my groups/a/b/cpu.max", b"0 100000\n").unwrap();
    assert_eq!((quota_percent(), cpu::count().get()), (Some(0), 1));
    for none in [&b"rubbish"[..], b"", b"max", b"1 0\n", b"-1 100000\n", &[b'9'; 1000]] {
        write(c"/tmp/my groups/a/b/cpu.max", none).unwrap();
        assert_eq!(quota_percent(), Some(150));
    }
}

fn the_kernels_own_groups_limit_the_count_each_at_its_level() {
    let _ = processors(2);
    Groups::make().with_child(|groups| {
        let limits = |above: Option<u32>, own: Option<u32>| {
            // Version 1 refuses a group a larger limit than its parent's.
            groups.limit("/one", None).unwrap();
            groups.limit("", above).unwrap();
            groups.limit("/one", own).unwrap();
            (quota_percent(), cpu::count().get())
        };
        assert_eq!(limits(Some(50), None), (Some(50), 1), "the group above");
        assert_eq!(limits(Some(150), Some(25)), (Some(25), 1), "its own");
        assert_eq!(limits(None, Some(150)), (Some(150), 2), "its own alone");
        assert_eq!(limits(Some(101), None), (Some(101), 2), "rounded up");
        assert_eq!(limits(None, None).0, None);
    });
}

/// As documented. A process whose first call is in the new group uses the new group.
fn a_process_that_is_moved_keeps_looking_at_the_group_it_was_in() {
    Groups::make().with_child(|groups| {
        groups.limit("/one", Some(30)).unwrap();
        groups.limit("/two", Some(70)).unwrap();
        groups.enter("/two");
        assert_eq!(quota_percent(), Some(30));
        groups.limit("", Some(80)).unwrap();
        assert_eq!(quota_percent(), Some(30));
        // When that group is removed, the groups above it still count.
        remove_folder(groups.path("/one").as_c()).unwrap();
        assert_eq!(quota_percent(), Some(80));
    });
}

fn a_process_that_was_moved_before_it_asked_has_the_new_groups_quota() {
    let groups = Groups::make();
    groups.limit("/one", Some(30)).unwrap();
    groups.limit("/two", Some(70)).unwrap();
    let pid = fork().unwrap();
    if pid == 0 {
        groups.enter("/one");
        groups.enter("/two");
        let quota = quota_percent();
        sys::exit_group(if quota.is_some_and(|quota| quota < 70) { 77 } else { (quota != Some(70)) as i32 });
    }
    let ended = wait_for(pid);
    groups.remove();
    match ended {
        Ended::Exit(77) => skip("something above has a quota already"),
        ended => assert_eq!(ended, Ended::Exit(0)),
    }
}

fn a_quota_of_version_1_limits_the_count() {
    let _ = processors(2);
    pretend(b"3:cpu,cpuacct:/docker/a\n0::/\n", b"1 1 0:7 /docker/a /tmp/cpu rw - cgroup none rw,cpu,cpuacct\n");
    make_folder(c"/tmp/cpu").unwrap();
    write(c"/tmp/cpu/cpu.cfs_quota_us", b"-1\n").unwrap();
    write(c"/tmp/cpu/cpu.cfs_period_us", b"100000\n").unwrap();
    assert_eq!(quota_percent(), None);
    write(c"/tmp/cpu/cpu.cfs_quota_us", b"100000\n").unwrap();
    assert_eq!((quota_percent(), cpu::count().get()), (Some(100), 1));
}

fn without_proc_the_count_is_the_affinity_and_a_later_proc_is_seen() {
    own_mounts();
    empty(c"/proc");
    assert_eq!((cpu::quota(), cpu::count().get()), (None, cpu::affinity().unwrap().len()));
    empty(c"/tmp");
    make_folder(c"/proc/self").unwrap();
    write(c"/proc/self/cgroup", b"0::/\n").unwrap();
    write(c"/proc/self/mountinfo", b"1 1 0:7 / /tmp rw - cgroup2 none rw\n").unwrap();
    write(c"/tmp/cpu.max", b"70000 100000").unwrap();
    if cpu::quota().is_none() && rt0_tests::emulated() {
        skip("the emulator has a /proc/self of its own");
    }
    assert_eq!((quota_percent(), cpu::count().get()), (Some(70), 1));
}

fn the_huge_page_size_is_read_once() {
    let size = cpu::huge_page_size();
    assert!(size.is_none_or(|size| size.is_power_of_two() && size > cpu::page_size()), "{size:?}");
    own_mounts();
    empty(c"/sys");
    assert_eq!(cpu::huge_page_size(), size);
}

fn without_sys_the_huge_page_size_is_unknown() {
    own_mounts();
    empty(c"/sys");
    assert_eq!(cpu::huge_page_size(), None);
}

fn the_page_size_is_the_kernels(env: Env) {
    let page = cpu::page_size();
    assert!(page.is_power_of_two() && page >= 4096);
    assert_eq!(env.auxv().get(6), Some(page)); // AT_PAGESZ
}

fn pread_has_all_64_bits_of_its_offset_in_their_places() {
    let file = sys::open(c"/proc/self/exe", sys::flags::O_RDONLY | sys::flags::O_CLOEXEC, 0).unwrap();
    let mut bytes = [0; 4];
    assert_eq!(sys::pread(&file, &mut bytes, 0), Ok(4));
    assert_eq!(&bytes, b"\x7fELF");
    assert_eq!(sys::pread(&file, &mut bytes[..3], 1), Ok(3));
    assert_eq!(&bytes[..3], b"ELF");
    // Far behind the end; if half of the offset were lost, at the start.
    for offset in [1 << 32, 1 << 33, 0x7fff_ffff_0000_0000] {
        assert_eq!(sys::pread(&file, &mut bytes, offset), Ok(0), "{offset:#x}");
    }
    assert_eq!(sys::pread(&file, &mut bytes, u64::MAX), Err(Errno::EINVAL));
    // The position has not changed.
    assert_eq!(sys::read(&file, &mut bytes), Ok(4));
    assert_eq!(&bytes, b"\x7fELF");
}
