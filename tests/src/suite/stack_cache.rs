//! The cache of stacks: ended threads leave them to new threads.

use core::hint::black_box;
use core::sync::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use core::time::Duration;

use linux_raw_sys::general as k;
use linux_raw_sys::prctl::PR_SET_NO_NEW_PRIVS;
use rt0::mapping::{Mapping, Protection};
use rt0::signal::{self, Action, Signal};
use rt0::sys;
use rt0::test::Expect;
use rt0::thread::{self, Builder, JoinHandle, limit_stack_cache, scope, spawn, trim_stack_cache};
use rt0_tests::memory::status_kib;
use rt0_tests::seccomp::{Verdict, filter};
use rt0_tests::{
    Ended, emulated, fork, mappings, often, read_file, skip, thousands, vm_size_kib, wait_for, wait_for_mappings_to_go,
    wait_until,
};

/// An address in the calling thread's mapping.
fn here() -> usize {
    signal::signal_stack().expect("every thread has one").base.addr()
}

/// The size of one cached stack of the default kind. Empties the cache.
fn size_of_one() -> usize {
    spawn(|| ()).unwrap().join();
    trim_stack_cache();
    spawn(|| ()).unwrap().join();
    trim_stack_cache()
}

/// Runs `N` threads at the same time.
fn at_once<const N: usize>(builder: Builder<'_>) {
    static GO: AtomicUsize = AtomicUsize::new(0);
    let go = GO.load(Relaxed);
    let wait = move || {
        while GO.load(Acquire) == go {
            thread::yield_now();
        }
    };
    let threads: [JoinHandle<()>; N] = [(); N].map(|()| builder.spawn(wait).unwrap());
    GO.store(go + 1, Release);
    threads.into_iter().for_each(JoinHandle::join);
}

/// The memory in KiB that is no file's: RssAnon.
fn resident_kib() -> usize {
    status_kib("RssAnon:")
}

/// Whether this kernel supports marks for guard pages.
fn guards_are_marks() -> bool {
    let page = rt0::cpu::page_size();
    let memory = Mapping::new(page).unwrap();
    let mark = [memory.as_ptr().expose_provenance(), page, k::MADV_GUARD_INSTALL as usize, 0, 0, 0];
    // SAFETY: 1. No code uses the page.
    !emulated() && unsafe { sys::syscall(k::__NR_madvise as usize, mark) }.is_ok()
}

/// The number of mappings that the kernel sees, including cached stacks.
fn lines_of_maps() -> usize {
    let mut buf = [0; 64 << 10];
    read_file(c"/proc/self/maps", &mut buf).expect("/proc").iter().filter(|byte| **byte == b'\n').count()
}

static LISTENER: AtomicUsize = AtomicUsize::new(0);

/// From now on this thread's exit(2) waits for the holder of the listener: seccomp_unotify(2).
fn hold_exits() {
    const SET_MODE_FILTER: usize = 1;
    const NEW_LISTENER: usize = 8;
    #[repr(C)]
    struct Instruction(u16, u8, u8, u32); // struct sock_filter
    #[repr(C)]
    struct Program(u16, *const Instruction); // struct sock_fprog
    let instructions = [
        Instruction(0x20, 0, 0, 0), // The call's number.
        Instruction(0x15, 0, 1, k::__NR_exit),
        Instruction(0x06, 0, 0, 0x7fc0_0000), // SECCOMP_RET_USER_NOTIF
        Instruction(0x06, 0, 0, 0x7fff_0000), // SECCOMP_RET_ALLOW
    ];
    let program = Program(4, (&raw const instructions).cast());
    (&raw const instructions).expose_provenance();
    let no_new_privs = [PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0, 0];
    // SAFETY: 1. It only restricts this thread.
    unsafe { sys::syscall(k::__NR_prctl as usize, no_new_privs) }.unwrap();
    let args = [SET_MODE_FILTER, NEW_LISTENER, (&raw const program).expose_provenance(), 0, 0, 0];
    // SAFETY: 1. The kernel reads the program.
    match unsafe { sys::syscall(k::__NR_seccomp as usize, args) } {
        Ok(listener) => LISTENER.store(listener, Release),
        Err(_) => skip("no filters that another thread answers for here"),
    }
}

fn wait_for_listener() -> usize {
    wait_until("the filter", || LISTENER.load(Acquire) != 0);
    LISTENER.swap(0, Relaxed)
}

/// Waits until a thread makes a held call; returns the notification's id.
fn next_exit(listener: usize) -> u64 {
    const RECEIVE: usize = 0xc050_2100; // SECCOMP_IOCTL_NOTIF_RECV
    let mut notification = [0u64; 10]; // struct seccomp_notif
    let args = [listener, RECEIVE, (&raw mut notification).expose_provenance(), 0, 0, 0];
    // SAFETY: 1. The kernel writes the notification.
    unsafe { sys::syscall(k::__NR_ioctl as usize, args) }.unwrap();
    notification[0]
}

fn let_exit(listener: usize, held: u64) {
    const SEND: usize = 0xc018_2101; // SECCOMP_IOCTL_NOTIF_SEND
    #[repr(C)]
    struct Response(u64, i64, i32, u32); // struct seccomp_notif_resp
    let mut response = Response(held, 0, 0, 1); // SECCOMP_USER_NOTIF_FLAG_CONTINUE
    let args = [listener, SEND, (&raw mut response).expose_provenance(), 0, 0, 0];
    // SAFETY: 1. The kernel reads the response.
    unsafe { sys::syscall(k::__NR_ioctl as usize, args) }.unwrap();
}

/// Ends the process by SIGALRM if it still runs after this time.
fn end_after(time: Duration) {
    let zero = || k::__kernel_old_timeval { tv_sec: 0, tv_usec: 0 };
    let value = k::__kernel_old_timeval { tv_sec: time.as_secs() as _, tv_usec: 0 };
    let timer = k::__kernel_old_itimerval { it_interval: zero(), it_value: value };
    let args = [k::ITIMER_REAL as usize, (&raw const timer).expose_provenance(), 0, 0, 0, 0];
    // SAFETY: 1. The kernel reads the times.
    unsafe { sys::syscall(k::__NR_setitimer as usize, args) }.expect("setitimer");
}

#[inline(never)]
fn use_stack(kib: usize) -> usize {
    let frame = black_box([1u8; 1024]);
    if kib == 0 { 0 } else { use_stack(kib - 1) + frame[kib % 1024] as usize }
}

rt0::test_module! {
    the_next_thread_runs_where_the_last_one_did,
    a_thread_that_starts_after_one_ended_makes_no_mapping_and_gives_none_back,
    a_limit_of_0_turns_the_cache_off,
    no_more_is_kept_than_the_limits_say,
    a_kept_stack_serves_its_own_size_only,
    the_memory_of_a_deep_stack_is_given_back_at_once,
    kept_stacks_take_little_memory,
    a_kept_stack_has_its_guard_page_and_its_signal_stack_still =>
        Expect::signal(11).stderr("has overflowed its stack"),
    handlers_run_on_the_signal_stack_of_a_kept_one,
    a_handle_keeps_its_threads_mapping_from_the_next_thread,
    a_closure_and_a_name_are_the_new_threads_own,
    a_forked_child_uses_its_copy,
    a_forked_child_waits_for_no_thread_that_was_leaving_its_stack =>
        Expect::success()
            .native("it takes a filter that lets another thread answer for the kernel"),
    the_stacks_of_many_threads_are_one_mapping_where_guards_are_marks,
    where_no_more_mappings_are_allowed_a_thread_ends_and_gives_its_memory_back,
    thousands_of_threads_without_the_cache_leave_nothing => Expect::success().alone(),
    threads_that_come_and_go_while_limits_change_lose_nothing => Expect::success().alone(),
}

fn the_next_thread_runs_where_the_last_one_did() {
    let first = spawn(here).unwrap().join();
    for _ in 0..often(500) {
        assert_eq!(spawn(here).unwrap().join(), first);
        assert_eq!(scope(|s| s.spawn(here).unwrap().join()), first);
    }
}

fn a_thread_that_starts_after_one_ended_makes_no_mapping_and_gives_none_back() {
    static ENDED: AtomicUsize = AtomicUsize::new(0);
    at_once::<8>(Builder::new());
    // A new mapping would need guard pages.
    filter(&[k::__NR_mprotect, k::__NR_munmap, k::__NR_madvise], Verdict::Kill, Verdict::Allow);
    for round in 1..=200 {
        spawn(|| ()).unwrap().join();
        Builder::new().name("named").spawn(|| ()).unwrap().join();
        drop(spawn(|| ENDED.fetch_add(1, Relaxed)).unwrap());
        wait_until("the detached thread", || ENDED.load(Relaxed) == round);
    }
}

fn a_limit_of_0_turns_the_cache_off() {
    for (stacks, bytes) in [(0, usize::MAX), (usize::MAX, 0)] {
        spawn(|| ()).unwrap().join();
        limit_stack_cache(stacks, bytes);
        spawn(|| ()).unwrap().join();
        assert_eq!(trim_stack_cache(), 0);
        limit_stack_cache(64, usize::MAX);
    }
}

fn no_more_is_kept_than_the_limits_say() {
    let one = size_of_one();
    assert!(one >= 2 << 20, "{one}");
    limit_stack_cache(3, usize::MAX);
    at_once::<8>(Builder::new());
    assert_eq!(trim_stack_cache(), 3 * one);
    limit_stack_cache(usize::MAX, 2 * one + one / 2);
    at_once::<8>(Builder::new());
    assert_eq!(trim_stack_cache(), 2 * one);
    limit_stack_cache(usize::MAX, usize::MAX);
    at_once::<80>(Builder::new().stack_size(64 << 10));
    let most = trim_stack_cache();
    at_once::<1>(Builder::new().stack_size(64 << 10));
    assert_eq!(most, 64 * trim_stack_cache());
    assert_eq!(trim_stack_cache(), 0);
}

fn a_kept_stack_serves_its_own_size_only() {
    let small = Builder::new().stack_size(64 << 10);
    let first = small.spawn(here).unwrap().join();
    let large = Builder::new().stack_size(16 << 20).spawn(|| (here(), use_stack(2 << 10))).unwrap().join();
    assert_eq!(large.1, 2 << 10);
    assert_eq!(small.spawn(here).unwrap().join(), first);
    // Closure and result count too: this closure needs more pages.
    let captured = [7u8; 20_000];
    assert_eq!(small.spawn(move || captured.iter().map(|n| *n as usize).sum::<usize>()).unwrap().join(), 140_000);
}

fn the_memory_of_a_deep_stack_is_given_back_at_once() {
    // Room for the frames of an unoptimised program.
    let deep = || Builder::new().stack_size(16 << 20).spawn(|| use_stack(1 << 10)).unwrap().join();
    if emulated() {
        assert_eq!([deep(), deep()], [1 << 10; 2]);
        return;
    }
    spawn(|| ()).unwrap().join();
    let before = resident_kib();
    (0..4).for_each(|_| assert_eq!(deep(), 1 << 10));
    let after = resident_kib();
    assert!(after < before + 400, "{before} KiB, then {after}");
}

fn kept_stacks_take_little_memory() {
    if emulated() {
        return;
    }
    at_once::<64>(Builder::new());
    let kept = resident_kib();
    assert!(trim_stack_cache() > 0);
    let none = resident_kib();
    // Each keeps at least one page of stack, and the pages of its block and its signal stack.
    let each = 12 + rt0::cpu::page_size() / 1024;
    assert!(kept <= none + 64 * each, "{kept} KiB, {none} without");
}

fn a_kept_stack_has_its_guard_page_and_its_signal_stack_still() {
    #[allow(unconditional_recursion)]
    fn forever(n: usize) -> usize {
        let frame = black_box([n as u8; 256]);
        forever(black_box(n + 1)) + frame[n % 256] as usize
    }
    let first = spawn(here).unwrap().join();
    let again = spawn(move || {
        assert_eq!(here(), first);
        forever(0)
    });
    again.unwrap().join();
}

fn handlers_run_on_the_signal_stack_of_a_kept_one() {
    static AT: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn note(_: i32) {
        let local = 0u8;
        AT.store(black_box(&raw const local).addr(), Relaxed);
    }
    // SAFETY: 1. It writes an atomic.
    unsafe { signal::sigaction(Signal::SIGUSR1, Action::call(note)) }.unwrap();
    for _ in 0..3 {
        let stack = spawn(|| {
            signal::raise(Signal::SIGUSR1).unwrap();
            let stack = signal::signal_stack().expect("every thread has one");
            stack.base.addr()..stack.base.addr() + stack.size
        });
        assert!(stack.unwrap().join().contains(&AT.load(Relaxed)));
    }
}

fn a_handle_keeps_its_threads_mapping_from_the_next_thread() {
    let handle = Builder::new().name("kept").spawn(here).unwrap();
    let kept = handle.thread().clone();
    let first = handle.join();
    assert_ne!(Builder::new().name("next").spawn(here).unwrap().join(), first);
    assert_eq!(kept.name(), Some("kept"));
    drop(kept);
    at_once::<2>(Builder::new());
}

fn a_closure_and_a_name_are_the_new_threads_own() {
    static DROPS: AtomicUsize = AtomicUsize::new(0);
    struct Counted(usize);
    impl Drop for Counted {
        fn drop(&mut self) {
            DROPS.fetch_add(1, Relaxed);
        }
    }
    let rounds = often(300);
    for round in 0..rounds {
        let captured = Counted(round);
        let name = ["a", "longer", ""][round % 3];
        let handle = Builder::new().name(name).spawn(move || {
            assert_eq!(thread::current().name(), Some(name));
            captured
        });
        assert_eq!(handle.unwrap().join().0, round);
        assert!(spawn(|| thread::current().name().is_none()).unwrap().join());
    }
    assert_eq!(DROPS.load(Relaxed), rounds);
}

fn a_forked_child_uses_its_copy() {
    if emulated() {
        // Seen on MIPS and s390x.
        skip("qemu-user hangs in a thread that starts after a fork, on some machines");
    }
    at_once::<4>(Builder::new());
    let first = spawn(here).unwrap().join();
    let pid = fork().expect("fork");
    if pid == 0 {
        let same = (0..100).all(|_| spawn(here).unwrap().join() == first);
        limit_stack_cache(0, 0);
        sys::exit_group(if same { 0 } else { 1 });
    }
    assert_eq!(spawn(here).unwrap().join(), first);
    assert_eq!(wait_for(pid), Ended::Exit(0));
}

fn a_forked_child_waits_for_no_thread_that_was_leaving_its_stack() {
    for keeps in [true, false] {
        let leaving = spawn(hold_exits).unwrap();
        let listener = wait_for_listener();
        let held = next_exit(listener);
        // Its closure has returned, it has dropped its reference, and it is in exit(2).
        assert!(leaving.is_finished());
        let pid = fork().expect("fork");
        if pid == 0 {
            end_after(Duration::from_secs(10)); // Not 0.
            if !keeps {
                limit_stack_cache(0, 0);
            }
            drop(leaving);
            (0..100).for_each(|_| spawn(|| ()).unwrap().join());
            limit_stack_cache(0, 0);
            sys::exit_group(0);
        }
        assert_eq!(wait_for(pid), Ended::Exit(0), "keeps: {keeps}");
        let_exit(listener, held);
        leaving.join();
    }
}

fn the_stacks_of_many_threads_are_one_mapping_where_guards_are_marks() {
    if !guards_are_marks() {
        skip("this kernel has no marks for guard pages");
    }
    at_once::<1>(Builder::new()); // The first one's setup stays.
    static GO: AtomicBool = AtomicBool::new(false);
    let before = lines_of_maps();
    let threads = [(); 100].map(|()| {
        spawn(|| {
            while !GO.load(Acquire) {
                thread::park_timeout(Duration::from_millis(1));
            }
        })
        .unwrap()
    });
    let with_them = lines_of_maps();
    GO.store(true, Release);
    threads.into_iter().for_each(JoinHandle::join);
    assert!(with_them <= before + 20, "{before}, then {with_them}");
}

fn where_no_more_mappings_are_allowed_a_thread_ends_and_gives_its_memory_back() {
    if !guards_are_marks() {
        skip("a stack is a mapping of its own here, which can always be taken away");
    }
    static STAGE: AtomicUsize = AtomicUsize::new(0);
    limit_stack_cache(0, 0);
    let until = |stage| {
        move || {
            use_stack(200);
            while STAGE.load(Acquire) < stage {
                thread::park_timeout(Duration::from_millis(1));
            }
        }
    };
    let [first, middle, last] = [2, 1, 2].map(|stage| spawn(until(stage)).unwrap());
    // Pages that differ from their neighbours, until the kernel allows no more.
    let page = rt0::cpu::page_size();
    // Reserved and never written, they use no memory, whatever the page size.
    let many = Mapping::reserve(page * 140_000).unwrap();
    let refused = (0..70_000).find(|index| {
        let at = 2 * index * page;
        many.protect(at..at + page, Protection::READ).is_err()
    });
    if refused.is_none() {
        skip("there is no limit to mappings here");
    }
    // Each of those calls added two mappings; this one adds one, if one is left.
    let _ = many.protect(page * 139_999.., Protection::READ);
    let before = resident_kib();
    STAGE.store(1, Release);
    middle.join();
    assert!(resident_kib() + 100 <= before, "{before} KiB, then {}", resident_kib());
    drop(many);
    STAGE.store(2, Release);
    first.join();
    last.join();
}

fn thousands_of_threads_without_the_cache_leave_nothing() {
    limit_stack_cache(0, 0);
    (0..100).for_each(|_| spawn(|| ()).unwrap().join());
    let (maps, size) = (mappings(), vm_size_kib());
    for round in 0..thousands() {
        let handle = spawn(|| ()).unwrap();
        if round % 8 == 0 { drop(handle) } else { handle.join() }
    }
    wait_for_mappings_to_go(maps + 2);
    if !emulated() {
        wait_until("VmSize to be flat", || vm_size_kib() <= size + 2 * 2052);
    }
}

fn threads_that_come_and_go_while_limits_change_lose_nothing() {
    static STOP: AtomicBool = AtomicBool::new(false);
    static STARTED: AtomicUsize = AtomicUsize::new(0);
    static ENDED: AtomicUsize = AtomicUsize::new(0);
    spawn(|| ()).unwrap().join();
    let before = mappings();
    let rounds = often(2000);
    scope(|s| {
        for worker in 0..3 {
            s.spawn(move || {
                for round in 0..rounds {
                    let builder = Builder::new().stack_size([512 << 10, 2 << 20][(round + worker) % 2]);
                    STARTED.fetch_add(1, Relaxed);
                    let work = move || {
                        let mark = round ^ here();
                        if round % 100 == 0 {
                            use_stack(40);
                        }
                        ENDED.fetch_add(1, Relaxed);
                        (mark ^ here(), round)
                    };
                    let handle = builder.spawn(work).unwrap();
                    if round % 3 == 0 { drop(handle) } else { assert_eq!(handle.join(), (round, round)) }
                }
            })
            .unwrap();
        }
        let trims = s.spawn(|| {
            while !STOP.load(Relaxed) {
                for (stacks, bytes) in [(0, 0), (1, usize::MAX), (64, 8 << 20), (64, usize::MAX)] {
                    limit_stack_cache(stacks, bytes);
                    thread::sleep(Duration::from_micros(300));
                }
            }
        });
        wait_until("the workers", || STARTED.load(Relaxed) == 3 * rounds);
        STOP.store(true, Relaxed);
        trims.unwrap().join();
    });
    wait_until("every thread to end", || ENDED.load(Relaxed) == 3 * rounds);
    wait_for_mappings_to_go(before + 2);
}
