//! Limits on a process: an operation that needs more fails or uses less, but never ends the
//! process.

use core::ffi::CStr;
use core::ptr::null;
use core::sync::atomic::{
    AtomicUsize,
    Ordering::{Acquire, Release},
};
use core::time::Duration;

use linux_raw_sys::general as k;
use rt0::mapping::{Mapping, Protection};
use rt0::test::Expect;
use rt0::thread::{self, Builder, JoinHandle, limit_stack_cache, spawn};
use rt0::{Env, Errno, all_threads, cpu, sys};
use rt0_tests::memory::{kib, status_kib};
use rt0_tests::processes::is_root;
use rt0_tests::{Ended, fork, skip, wait_for};

/// Sets both limits: prlimit(2).
fn limit(resource: u32, value: u64) {
    let limits = [value; 2];
    let args = [0, resource as usize, (&raw const limits).expose_provenance(), 0, 0, 0];
    // SAFETY: 1. The kernel reads the limits.
    unsafe { sys::syscall(k::__NR_prlimit64 as usize, args) }.expect("prlimit64");
}

/// Runs `N` threads at the same time; their stacks are cached.
fn at_once<const N: usize>() {
    static GO: AtomicUsize = AtomicUsize::new(0);
    let threads: [JoinHandle<()>; N] = [(); N].map(|()| {
        spawn(|| {
            while GO.load(Acquire) == 0 {
                thread::park_timeout(Duration::from_millis(1));
            }
        })
        .unwrap()
    });
    GO.store(1, Release);
    threads.into_iter().for_each(JoinHandle::join);
}

#[inline(never)]
fn use_stack(kib: usize) -> usize {
    let frame = core::hint::black_box([1u8; 1024]);
    if kib == 0 { 0 } else { use_stack(kib - 1) + frame[kib % 1024] as usize }
}

/// mlockall(2) of pages as they are first accessed. Skips the test if that is not allowed.
fn lock_all(flags: u32) {
    // SAFETY: 1. It changes what may be paged out.
    if unsafe { sys::syscall(k::__NR_mlockall as usize, [(flags | k::MCL_ONFAULT) as usize, 0, 0, 0, 0, 0]) }.is_err() {
        skip("this user may not lock so much memory");
    }
}

/// Pages that differ from their neighbours, until the kernel allows no more mappings.
fn use_up_mappings() -> Mapping {
    let page = cpu::page_size();
    let many = Mapping::reserve(page * 140_000).unwrap();
    let at = |index: usize| many.protect(index * page..(index + 1) * page, Protection::READ);
    if (0..70_000).all(|index| at(2 * index).is_ok()) {
        skip("there is no limit to mappings here");
    }
    // Each of those calls added two mappings; this one adds one, if one is left.
    let _ = at(139_999);
    many
}

/// Runs this program again, as `name` with an additional argument, with these descriptors closed
/// and this limit on descriptors.
fn start_again(name: &CStr, closed: impl Iterator<Item = usize>, files: u64) -> Ended {
    let pid = fork().expect("fork");
    if pid == 0 {
        let path = c"/proc/self/exe".as_ptr();
        let args = [path, name.as_ptr(), c"again".as_ptr(), null()];
        for fd in closed {
            // SAFETY: 1. The descriptor is the child's own.
            let _ = unsafe { sys::syscall(k::__NR_close as usize, [fd, 0, 0, 0, 0, 0]) };
        }
        limit(k::RLIMIT_NOFILE, files);
        args.iter().for_each(|arg| _ = arg.expose_provenance());
        let exec = [path.expose_provenance(), (&raw const args).expose_provenance(), (&raw const args[3]).addr()];
        // SAFETY: 1. The kernel reads the strings; a new program begins.
        let _ = unsafe { sys::syscall(k::__NR_execve as usize, [exec[0], exec[1], exec[2], 0, 0, 0]) };
        sys::exit_group(99);
    }
    wait_for(pid)
}

rt0::test_module! {
    a_start_takes_the_address_space_of_kept_stacks =>
        Expect::success().native("an emulator's own address space counts too"),
    a_start_takes_the_mappings_of_kept_stacks =>
        Expect::success().native("an emulator has mappings of its own"),
    locked_memory_that_cannot_be_unmapped_goes_back_and_nothing_ends =>
        Expect::success().native("an emulator has mappings of its own"),
    a_limit_on_locked_memory_is_an_error_of_a_start =>
        Expect::success().native("it takes another user"),
    a_start_opens_the_standard_descriptors_that_its_limit_allows =>
        Expect::success().native("an emulator opens files for itself"),
}

fn a_start_takes_the_address_space_of_kept_stacks() {
    at_once::<16>();
    let used = status_kib("VmSize:") as u64;
    limit(k::RLIMIT_AS, (used + 64) << 10);
    assert_eq!(Builder::new().stack_size(8 << 20).spawn(|| use_stack(2 << 10)).unwrap().join(), 2 << 10);
    assert_eq!(Builder::new().stack_size(256 << 20).spawn(|| ()).err(), Some(Errno::ENOMEM));
    assert_eq!(spawn(|| 7).unwrap().join(), 7);
}

fn a_start_takes_the_mappings_of_kept_stacks() {
    lock_all(k::MCL_FUTURE); // Then guards are separate mappings.
    at_once::<16>();
    let many = use_up_mappings();
    let threads = [(); 2].map(|()| Builder::new().stack_size(1 << 20).spawn(|| use_stack(100)).unwrap());
    assert_eq!(threads.map(JoinHandle::join), [100; 2]);
    drop(many);
}

fn locked_memory_that_cannot_be_unmapped_goes_back_and_nothing_ends() {
    static STAGE: AtomicUsize = AtomicUsize::new(0);
    static USED: AtomicUsize = AtomicUsize::new(0);
    limit_stack_cache(0, 0);
    let until = |stage| {
        move || {
            use_stack(500);
            USED.fetch_add(1, Release);
            while STAGE.load(Acquire) < stage {
                thread::park_timeout(Duration::from_millis(1));
            }
        }
    };
    let [first, middle, last] = [2, 1, 2].map(|stage| spawn(until(stage)).unwrap());
    let page = cpu::page_size();
    let mut low = Mapping::new(3 * page).unwrap();
    let mut between = low.split_off(page).unwrap();
    let _high = between.split_off(page).unwrap();
    rt0_tests::wait_until("the stacks to be used", || USED.load(Acquire) == 3);
    lock_all(k::MCL_CURRENT | k::MCL_FUTURE);
    let many = use_up_mappings();
    // RssAnon of the status is inexact: before Linux 6.2 each thread counts up to 63 pages for
    // itself.
    let resident = || kib(c"/proc/self/smaps_rollup", "Anonymous:");
    let before = resident();
    STAGE.store(1, Release);
    middle.join();
    drop(between);
    let after = resident();
    assert!(after + 300 <= before, "{before} KiB, then {after}");
    assert!(spawn(|| ()).is_err(), "guards need mappings");
    drop(many);
    STAGE.store(2, Release);
    first.join();
    last.join();
    spawn(|| ()).unwrap().join();
}

fn a_limit_on_locked_memory_is_an_error_of_a_start() {
    if !is_root() {
        skip("only root can lower its own limits and then its rights");
    }
    limit(k::RLIMIT_MEMLOCK, 4 << 20);
    all_threads::setuid(54321).unwrap();
    // SAFETY: 1. It changes what may be paged out.
    unsafe { sys::syscall(k::__NR_mlockall as usize, [k::MCL_FUTURE as usize, 0, 0, 0, 0, 0]) }.unwrap();
    assert_eq!(Builder::new().stack_size(16 << 20).spawn(|| ()).err(), Some(Errno::EAGAIN));
    assert_eq!(Builder::new().stack_size(1 << 20).spawn(|| 7).unwrap().join(), 7);
}

fn a_start_opens_the_standard_descriptors_that_its_limit_allows(env: Env) {
    if env.args().nth(2).is_some() {
        let closed = (0..3).filter(|fd| sys::dup(rt0_tests::numbered(*fd)).err() == Some(Errno::EBADF)).count();
        sys::exit_group(closed as i32);
    }
    let name = c"limits::a_start_opens_the_standard_descriptors_that_its_limit_allows";
    for files in 0..=3 {
        for closed in 0..8usize {
            let descriptors = || (0..3usize).filter(|fd| closed >> fd & 1 == 1);
            let end = start_again(name, descriptors(), files as u64);
            // If a standard descriptor cannot be opened, the process ends: the next file would
            // take its number.
            let expected = if descriptors().all(|fd| fd < files) { Ended::Exit(0) } else { Ended::Signal(k::SIGABRT) };
            assert_eq!(end, expected, "limit {files}, closed {closed:03b}");
        }
    }
}
