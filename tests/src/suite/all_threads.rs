//! One system call on every thread.

mod crowd;
mod fence;
mod refused;
mod rights;

use core::sync::atomic::{
    AtomicBool, AtomicU32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use core::time::Duration;

use linux_raw_sys::{general as k, prctl};
use rt0::all_threads::{self, Error};
use rt0::signal::{How, SigSet, Signal, mask};
use rt0::test::Expect;
use rt0::thread::{self, Builder, JoinHandle, spawn};
use rt0::{Errno, futex, sys};
use rt0_tests::files::pipe;
use rt0_tests::seccomp::filter_calls;
use rt0_tests::{in_raw_child, mappings, skip, wait_until};

const KEEPCAPS: [usize; 2] = [prctl::PR_SET_KEEPCAPS as usize, prctl::PR_GET_KEEPCAPS as usize];

/// A flag that the kernel keeps per thread; it needs no rights and has no effect here.
fn set_flag_on_all(value: usize) -> all_threads::Result<usize> {
    // SAFETY: 1. It touches no memory.
    unsafe { all_threads::syscall(k::__NR_prctl as usize, [KEEPCAPS[0], value, 0, 0, 0, 0]) }
}

fn flag() -> usize {
    // SAFETY: 1. It only asks.
    unsafe { sys::syscall(k::__NR_prctl as usize, [KEEPCAPS[1], 0, 0, 0, 0, 0]) }.unwrap()
}

/// A counter in the kernel: an eventfd(2).
fn counter() -> usize {
    // SAFETY: 1. A new descriptor.
    unsafe { sys::syscall(k::__NR_eventfd2 as usize, [0, k::O_NONBLOCK as usize, 0, 0, 0, 0]) }.unwrap()
}

/// Makes every thread increment the counter: this shows that each thread makes the call once.
fn count_all(counter: usize) -> all_threads::Result<usize> {
    static ONE: u64 = 1;
    // SAFETY: 1. The kernel reads the number.
    unsafe { all_threads::syscall(k::__NR_write as usize, [counter, (&raw const ONE).expose_provenance(), 8, 0, 0, 0]) }
}

fn counted(counter: usize) -> u64 {
    let mut number = [0; 8];
    assert_eq!(sys::read(rt0_tests::numbered(counter as i32), &mut number), Ok(8));
    u64::from_ne_bytes(number)
}

/// The number of tasks that the kernel lists for this process.
fn tasks() -> usize {
    let folder = sys::open(c"/proc/self/task", k::O_RDONLY | k::O_DIRECTORY, 0).unwrap();
    let mut names = [0u8; 4096];
    let args = [folder.as_raw_fd() as usize, names.as_mut_ptr().expose_provenance(), names.len(), 0, 0, 0];
    // SAFETY: 1. The kernel writes the entries.
    let filled = unsafe { sys::syscall(k::__NR_getdents64 as usize, args) }.unwrap();
    let (mut entries, mut at) = (0, 0);
    while at < filled {
        at += usize::from(u16::from_ne_bytes([names[at + 16], names[at + 17]])); // d_reclen
        entries += 1;
    }
    entries - 2
}

/// How often this thread slept voluntarily in `f`: this reveals a wait in steps of a millisecond,
/// however slow the machine is.
fn naps_of(f: impl FnOnce()) -> usize {
    let naps = || {
        let mut usage = [0usize; 64]; // struct rusage; `ru_nvcsw` is its last but one field.
        let at = (&raw mut usage).expose_provenance();
        // SAFETY: 1. The kernel writes the structure.
        unsafe { sys::syscall(k::__NR_getrusage as usize, [k::RUSAGE_THREAD as usize, at, 0, 0, 0, 0]) }.unwrap();
        usage[core::mem::offset_of!(k::rusage, ru_nvcsw) / size_of::<usize>()]
    };
    let before = naps();
    f();
    naps() - before
}

/// Threads that sleep until they are released.
struct Sleepers<const N: usize> {
    threads: [JoinHandle<usize>; N],
}

static LET_GO: AtomicU32 = AtomicU32::new(0);

impl<const N: usize> Sleepers<N> {
    fn start() -> Sleepers<N> {
        static RUNNING: AtomicUsize = AtomicUsize::new(0);
        let before = RUNNING.load(Relaxed);
        LET_GO.store(0, Relaxed);
        let threads = core::array::from_fn(|_| {
            Builder::new()
                .stack_size(0)
                .spawn(|| {
                    RUNNING.fetch_add(1, Relaxed);
                    while LET_GO.load(Acquire) == 0 {
                        let _ = futex::wait(&LET_GO, 0);
                    }
                    flag()
                })
                .unwrap()
        });
        wait_until("all to run", || RUNNING.load(Relaxed) == before + N);
        Sleepers { threads }
    }

    /// Each thread's flag at its end.
    fn end(self) -> [usize; N] {
        LET_GO.store(1, Release);
        futex::wake_all(&LET_GO);
        self.threads.map(|thread| thread.join())
    }
}

fn skip_without(errno: Errno, reason: &str) {
    if [Errno::ENOSYS, Errno::EINVAL].contains(&errno) {
        skip(reason);
    }
}

/// A test of a thread that rt0 did not start.
const NATIVE: Expect = Expect::success().native("qemu-user makes no such thread");

rt0::test_module! {
    alone_it_is_a_plain_call,
    every_thread_makes_the_call_once,
    each_thread_that_is_there_has_what_was_set,
    a_thread_that_waits_in_read_makes_the_call_and_goes_on_waiting,
    it_works_from_another_thread_than_main,
    it_works_where_the_program_blocks_every_signal,
    a_thread_that_dies_of_the_call_is_not_waited_for,
    a_thread_that_was_killed_has_no_result_to_join =>
        Expect::panic("a thread ended without a result"),
    a_thread_of_the_kernels_own_is_no_thread_of_the_program,
    a_thread_that_rt0_did_not_start_is_reported_at_once => NATIVE,
    a_thread_that_rt0_did_not_start_is_reported_by_a_process_of_many_groups => NATIVE,
    a_signal_33_from_other_code_changes_nothing,
    a_change_of_the_mask_is_the_callers_alone,
    refused::*,
    rights::*,
    crowd::*,
    fence::*,
}

fn alone_it_is_a_plain_call() {
    assert_eq!(set_flag_on_all(1).unwrap(), 0);
    assert_eq!(flag(), 1);
    // SAFETY: 1. It only asks.
    assert_eq!(unsafe { all_threads::syscall(k::__NR_getpid as usize, [0; 6]) }.unwrap(), sys::getpid() as usize);
}

fn every_thread_makes_the_call_once() {
    let counter = counter();
    let sleepers = Sleepers::<10>::start();
    for _ in 0..100 {
        assert_eq!(count_all(counter).unwrap(), 8);
        assert_eq!(counted(counter), 11);
    }
    set_flag_on_all(1).unwrap();
    assert_eq!(sleepers.end(), [1; 10]);
}

/// Threads start and end between the calls, and each live thread has the value that the last
/// call set.
fn each_thread_that_is_there_has_what_was_set() {
    const THREADS: usize = 11;
    static ROUND: AtomicU32 = AtomicU32::new(0);
    static LOOKING: AtomicU32 = AtomicU32::new(0);
    /// The number of threads that will answer the next round.
    static STAYING: AtomicU32 = AtomicU32::new(0);
    static ANSWERS: AtomicU32 = AtomicU32::new(0);
    static RIGHT: AtomicU32 = AtomicU32::new(0);
    fn answer_each_round(mine: usize) {
        let mut seen = ROUND.load(Acquire);
        STAYING.fetch_add(1, Relaxed);
        LOOKING.fetch_add(1, Release);
        loop {
            let round = ROUND.load(Acquire);
            if round == seen {
                let _ = futex::wait(&ROUND, round);
                continue;
            }
            seen = round;
            let is_last = round as usize == 2 * THREADS || mine % 5 == 4 && round as usize > 2 * mine + 2;
            STAYING.fetch_sub(is_last as u32, Relaxed);
            RIGHT.fetch_add((flag() == (round & 1) as usize) as u32, Relaxed);
            ANSWERS.fetch_add(1, Release);
            if is_last {
                return;
            }
        }
    }
    let mut threads = [const { None }; THREADS];
    for (launch, thread) in threads.iter_mut().enumerate() {
        *thread = Some(spawn(move || answer_each_round(launch)).unwrap());
        wait_until("the thread to look", || LOOKING.load(Acquire) as usize > launch);
        for value in [1, 0] {
            set_flag_on_all(value).unwrap();
            let staying = STAYING.load(Relaxed);
            RIGHT.store(0, Relaxed);
            ANSWERS.store(0, Relaxed);
            assert_eq!(ROUND.fetch_add(1, Release) & 1, 1 - value as u32);
            futex::wake_all(&ROUND);
            wait_until("every thread to answer", || ANSWERS.load(Acquire) == staying);
            assert_eq!(RIGHT.load(Relaxed), staying, "all read {value}");
        }
    }
    threads.into_iter().flatten().for_each(|thread| thread.join());
}

fn a_thread_that_waits_in_read_makes_the_call_and_goes_on_waiting() {
    let fds = pipe();
    static TID: AtomicU32 = AtomicU32::new(0);
    let reader = spawn(move || {
        TID.store(sys::gettid(), Relaxed);
        (sys::read(rt0_tests::numbered(fds[0]), &mut [0; 1]), flag())
    })
    .unwrap();
    wait_until("the reader", || TID.load(Relaxed) != 0);
    thread::sleep(Duration::from_millis(20));
    for _ in 0..100 {
        set_flag_on_all(1).unwrap();
    }
    assert!(!reader.is_finished());
    // SAFETY: 1. The test's own.
    unsafe { sys::syscall(k::__NR_close as usize, [fds[1] as usize, 0, 0, 0, 0, 0]) }.unwrap();
    assert_eq!(reader.join(), (Ok(0), 1));
}

fn it_works_from_another_thread_than_main() {
    let counter = counter();
    let sleepers = Sleepers::<5>::start();
    spawn(move || {
        set_flag_on_all(1).unwrap();
        assert_eq!(count_all(counter).unwrap(), 8);
        assert_eq!((counted(counter), flag()), (7, 1));
    })
    .unwrap()
    .join();
    assert_eq!(flag(), 1);
    assert_eq!(sleepers.end(), [1; 5]);
}

fn it_works_where_the_program_blocks_every_signal() {
    let counter = counter();
    let before = mask(How::Set, &SigSet::full());
    let sleepers = Sleepers::<5>::start();
    assert_eq!(count_all(counter).unwrap(), 8);
    assert_eq!(counted(counter), 6);
    assert!(mask(How::Set, &before).contains(Signal::SIGTERM));
    sleepers.end();
}

/// A filter kills the thread in its handler.
fn a_thread_that_dies_of_the_call_is_not_waited_for() {
    static READY: AtomicBool = AtomicBool::new(false);
    let sleepers = Sleepers::<2>::start();
    let doomed = spawn(|| {
        if let Err(errno) = filter_calls(&[k::__NR_prctl], 0) {
            skip_without(errno, "no seccomp filters here");
        }
        READY.store(true, Relaxed);
        loop {
            thread::sleep(Duration::from_millis(10));
        }
    })
    .unwrap();
    wait_until("the filter", || READY.load(Relaxed));
    let Err(Error::Diverged(divergence)) = set_flag_on_all(1) else { panic!("no divergence") };
    assert_eq!(divergence.mismatch_count(), 1);
    assert_eq!(divergence.mismatches().next().unwrap().got, Err(Errno::ESRCH));
    drop::<JoinHandle<()>>(doomed);
    let before = mappings();
    set_flag_on_all(1).unwrap();
    assert!(mappings() < before, "its memory is given back");
    assert_eq!(sleepers.end(), [1; 2]);
}

fn a_thread_that_was_killed_has_no_result_to_join() {
    let doomed = spawn(|| {
        if let Err(errno) = filter_calls(&[k::__NR_getppid], 0) {
            skip_without(errno, "no seccomp filters here");
        }
        // SAFETY: 1. The filter kills this thread.
        let _ = unsafe { sys::syscall(k::__NR_getppid as usize, [0; 6]) };
    });
    doomed.unwrap().join();
}

fn a_thread_of_the_kernels_own_is_no_thread_of_the_program() {
    #[repr(C)]
    struct Params([u32; 30]); // struct io_uring_params
    let mut params = Params([0; 30]);
    params.0[2] = 2; // flags: IORING_SETUP_SQPOLL, a kernel thread in this process.
    let ring = [4, (&raw mut params).expose_provenance(), 0, 0, 0, 0];
    // SAFETY: 1. The kernel fills in the parameters.
    if let Err(errno) = unsafe { sys::syscall(k::__NR_io_uring_setup as usize, ring) } {
        if errno == Errno::EPERM {
            skip("io_uring is forbidden here");
        }
        skip_without(errno, "no io_uring here");
        panic!("{errno}");
    }
    wait_until("the kernel's thread", || tasks() == 2);
    let sleepers = Sleepers::<2>::start();
    assert!(naps_of(|| (0..10).for_each(|turn| assert_eq!(set_flag_on_all(turn % 2).unwrap(), 0))) < 500);
    assert_eq!(sleepers.end(), [1; 2]);
}

fn a_thread_that_rt0_did_not_start_is_reported_at_once() {
    spawn(|| ()).unwrap().join();
    is_reported_at_once();
}

/// The kernel shows a process's groups before the mask, in more than a page.
fn a_thread_that_rt0_did_not_start_is_reported_by_a_process_of_many_groups() {
    spawn(|| ()).unwrap().join();
    let groups: [u32; 2000] = core::array::from_fn(|n| 100_000 + n as u32);
    if let Err(error) = all_threads::setgroups(&groups) {
        assert!(matches!(error, Error::Refused(Errno::EPERM | Errno::EINVAL)), "{error}");
        skip("only root, outside of small namespaces of users, has many groups");
    }
    is_reported_at_once();
}

/// The child of a clone(2) that bypasses rt0 and shares everything. Its parent waits until it
/// ends, as with vfork(2), so the parent is a thread that the child does not know and that
/// answers nothing.
fn is_reported_at_once() {
    static PARENT: AtomicU32 = AtomicU32::new(0);
    PARENT.store(sys::gettid(), Relaxed);
    let flags = k::CLONE_VM | k::CLONE_SIGHAND | k::CLONE_THREAD | k::CLONE_VFORK;
    in_raw_child(flags, || {
        let naps = naps_of(|| {
            let Err(Error::Diverged(divergence)) = set_flag_on_all(1) else { panic!("no divergence") };
            assert_eq!((divergence.mismatch_count(), divergence.unlisted()), (0, &[PARENT.load(Relaxed)][..]));
        });
        assert!(naps < 50, "{naps}");
    });
}

fn a_signal_33_from_other_code_changes_nothing() {
    let counter = counter();
    let sleepers = Sleepers::<2>::start();
    count_all(counter).unwrap();
    for _ in 0..10 {
        sys::tgkill(sys::getpid(), sys::gettid(), 33).unwrap();
    }
    assert_eq!(counted(counter), 3);
    sleepers.end();
}

/// The return from a handler restores the mask.
fn a_change_of_the_mask_is_the_callers_alone() {
    static SEEN: AtomicU32 = AtomicU32::new(0);
    static CALLED: AtomicBool = AtomicBool::new(false);
    let other = spawn(|| {
        SEEN.store(1, Relaxed);
        wait_until("the call", || CALLED.load(Relaxed));
        mask(How::Block, &SigSet::empty()).contains(Signal::SIGUSR1)
    })
    .unwrap();
    wait_until("the thread", || SEEN.load(Relaxed) == 1);
    let set = [0xffu8; 16];
    let size = size_of::<k::kernel_sigset_t>();
    let args = [k::SIG_BLOCK as usize, (&raw const set).expose_provenance(), 0, size, 0, 0];
    // SAFETY: 1. The kernel reads the set.
    unsafe { all_threads::syscall(k::__NR_rt_sigprocmask as usize, args) }.unwrap();
    CALLED.store(true, Relaxed);
    assert!(!other.join());
}
