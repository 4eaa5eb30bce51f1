//! Processors and pages: affinity, the quotas of control groups, and what holds where nothing can be known.
#![no_std]
#![no_main]

use core::ffi::CStr;
use core::num::NonZero;
use core::ptr::null;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use linux_raw_sys::general as k;
use rt0::cpu::{self, CpuSet};
use rt0::{Errno, sys, thread};
use rt0_tests::seccomp::{self, Verdict};
use rt0_tests::{read_file, skip, tests};

/// Descriptors that are open.
fn open_files() -> usize {
    (0..256).filter(|fd| sys::dup(*fd).is_ok()).count()
}

/// A namespace of mounts that only this process sees.
fn own_mounts() {
    let unshare = |flags: u32| {
        // SAFETY: 1. The process has one thread, and loses nothing that it has.
        unsafe { sys::syscall(k::__NR_unshare as usize, [flags as usize, 0, 0, 0, 0, 0]) }
    };
    if unshare(k::CLONE_NEWNS).or_else(|_| unshare(k::CLONE_NEWUSER | k::CLONE_NEWNS)).is_err() {
        skip("neither namespaces of mounts nor of users are to be had");
    }
    // What is mounted from now on stays here.
    mount(None, c"/", None, k::MS_REC | k::MS_PRIVATE);
}

fn mount(source: Option<&CStr>, target: &CStr, kind: Option<&CStr>, flags: u32) {
    let [source, kind] = [source, kind].map(|text| text.map_or(null(), |text| text.as_ptr()).expose_provenance());
    let args = [source, target.as_ptr().expose_provenance(), kind, flags as usize, 0, 0];
    // SAFETY: 1. In a namespace of our own; the kernel reads the strings.
    if let Err(errno) = unsafe { sys::syscall(k::__NR_mount as usize, args) } {
        assert!([Errno::EPERM, Errno::EACCES, Errno::ENOSYS].contains(&errno), "mounting on {target:?}: {errno}");
        skip("mounting is not allowed");
    }
}

fn empty(folder: &CStr) {
    mount(Some(c"none"), folder, Some(c"tmpfs"), 0);
}

fn make_folder(path: &CStr) {
    let args = [k::AT_FDCWD as isize as usize, path.as_ptr().expose_provenance(), 0o755, 0, 0, 0];
    // SAFETY: 1. The kernel reads the path.
    unsafe { sys::syscall(k::__NR_mkdirat as usize, args) }.unwrap();
}

fn write(path: &CStr, text: &[u8]) {
    let flags = sys::flags::O_WRONLY | sys::flags::O_CREAT | sys::flags::O_TRUNC | sys::flags::O_CLOEXEC;
    let file = sys::open(path, flags, 0o644).unwrap();
    rt0::io::write_all(file.as_raw_fd(), text).unwrap();
}

/// Files in place of the kernel's: what it says of the process's groups and of mounts.
fn pretend(group: &[u8], mounts: &[u8]) {
    own_mounts();
    empty(c"/tmp");
    write(c"/tmp/cgroup", group);
    write(c"/tmp/mountinfo", mounts);
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

/// This many of the first processors; skips the test if the thread may use fewer.
fn processors(count: usize) -> CpuSet {
    let all = cpu::affinity().unwrap();
    if all.len() < count {
        skip("fewer processors than the test needs");
    }
    let mut set = CpuSet::new();
    all.iter().take(count).for_each(|processor| set.insert(processor).unwrap());
    set
}

tests! {
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
            // A new thread has it from this one.
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
        // Beside one that exists it is passed over.
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
        let (files, mappings) = (open_files(), rt0_tests::mappings());
        for _ in 0..1000 {
            assert_eq!(cpu::count(), first);
        }
        assert_eq!((open_files(), rt0_tests::mappings()), (files, mappings));
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
        // One for each file of each group, and no other's.
        let mut buf = [0; 16384];
        let groups = read_file(c"/proc/self/cgroup", &mut buf).map_or(0, |text| {
            text.split(|byte| *byte == b'\n').map(|line| line.iter().filter(|byte| **byte == b'/').count()).max().unwrap_or(0)
        });
        assert!(kept <= 2 * (groups + 1), "{kept} descriptors for {groups} groups");
    }

    fn a_tighter_quota_of_a_group_above_limits_the_count() {
        let _ = processors(2);
        pretend(b"0::/a/b\n", b"1 1 0:7 / /tmp/my\\040groups rw - cgroup2 none rw\n");
        make_folder(c"/tmp/my groups");
        make_folder(c"/tmp/my groups/a");
        make_folder(c"/tmp/my groups/a/b");
        write(c"/tmp/my groups/a/b/cpu.max", b"max 100000\n");
        write(c"/tmp/my groups/a/cpu.max", b"50000 100000\n");
        assert_eq!((quota_percent(), cpu::count().get()), (Some(50), 1));
        // And it is followed, up and down.
        write(c"/tmp/my groups/a/cpu.max", b"150000 100000\n");
        assert_eq!((quota_percent(), cpu::count().get()), (Some(150), 2));
        write(c"/tmp/my groups/a/b/cpu.max", b"1000 100000\n");
        assert_eq!((quota_percent(), cpu::count().get()), (Some(1), 1));
        write(c"/tmp/my groups/a/b/cpu.max", b"0 100000\n");
        assert_eq!((quota_percent(), cpu::count().get()), (Some(0), 1));
        for none in [&b"rubbish"[..], b"", b"max", b"1 0\n", b"-1 100000\n", &[b'9'; 1000]] {
            write(c"/tmp/my groups/a/b/cpu.max", none);
            assert_eq!(quota_percent(), Some(150));
        }
    }

    fn a_quota_of_version_1_limits_the_count() {
        let _ = processors(2);
        pretend(b"3:cpu,cpuacct:/docker/a\n0::/\n", b"1 1 0:7 /docker/a /tmp/cpu rw - cgroup none rw,cpu,cpuacct\n");
        make_folder(c"/tmp/cpu");
        write(c"/tmp/cpu/cpu.cfs_quota_us", b"-1\n");
        write(c"/tmp/cpu/cpu.cfs_period_us", b"100000\n");
        assert_eq!(quota_percent(), None);
        write(c"/tmp/cpu/cpu.cfs_quota_us", b"100000\n");
        assert_eq!((quota_percent(), cpu::count().get()), (Some(100), 1));
    }

    fn without_proc_the_count_is_the_affinity_and_a_later_proc_is_seen() {
        own_mounts();
        empty(c"/proc");
        assert_eq!((cpu::quota(), cpu::count().get()), (None, cpu::affinity().unwrap().len()));
        empty(c"/tmp");
        make_folder(c"/proc/self");
        write(c"/proc/self/cgroup", b"0::/\n");
        write(c"/proc/self/mountinfo", b"1 1 0:7 / /tmp rw - cgroup2 none rw\n");
        write(c"/tmp/cpu.max", b"70000 100000");
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

    fn the_page_size_is_the_kernels(env) {
        let page = cpu::page_size();
        assert!(page.is_power_of_two() && page >= 4096);
        assert_eq!(env.auxv().get(6), Some(page)); // AT_PAGESZ
    }

    fn pread_has_all_64_bits_of_its_offset_in_their_places() {
        let file = sys::open(c"/proc/self/exe", sys::flags::O_RDONLY | sys::flags::O_CLOEXEC, 0).unwrap();
        let mut bytes = [0; 4];
        assert_eq!(sys::pread(file.as_raw_fd(), &mut bytes, 0), Ok(4));
        assert_eq!(&bytes, b"\x7fELF");
        assert_eq!(sys::pread(file.as_raw_fd(), &mut bytes[..3], 1), Ok(3));
        assert_eq!(&bytes[..3], b"ELF");
        // Far behind its end; if a half were lost, at its beginning.
        for offset in [1 << 32, 1 << 33, 0x7fff_ffff_0000_0000] {
            assert_eq!(sys::pread(file.as_raw_fd(), &mut bytes, offset), Ok(0), "{offset:#x}");
        }
        assert_eq!(sys::pread(file.as_raw_fd(), &mut bytes, u64::MAX), Err(Errno::EINVAL));
        // The position is where it was.
        assert_eq!(sys::read(file.as_raw_fd(), &mut bytes), Ok(4));
        assert_eq!(&bytes, b"\x7fELF");
    }
}
