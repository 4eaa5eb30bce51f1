//! One system call on every thread: sets for the whole process what the kernel keeps per thread
//! (credentials, capabilities, `no_new_privs`, …).
//!
//! ```text
//!     the caller                                      each other thread
//!     block the program's signals, close the list
//!     the call here; refused? no other thread makes it
//!     write the request, then for each thread:
//!       asked = ASKED, tgkill ────────────────────▶   handler: the call; answer = its result
//!     wait for `REMAINING` to be 0  ◀──────────────   the last one to answer wakes the caller
//!     compare, look at /proc/self/task
//!     open the list, unblock
//! ```
//!
//! Properties, and how they are achieved:
//!
//! 1. *Every thread makes the call, once:* a thread is in the list before it runs, and until it
//!    runs nothing of the program any more. [`spawn`](crate::thread::spawn()) links it before
//!    clone(2) and stays inside the list's gate for both. A thread unlinks itself inside the gate
//!    when its closure is done. The caller closes the gate, which waits for the threads inside;
//!    while it is closed, only the threads in the list could miss the call. A thread that starts
//!    later descends from one that made the call, and inherits what the call set. `asked` lets a
//!    handler answer once, however many signals come.
//! 2. *No incomplete thread is signalled:* clone(2) writes a thread's id into its block before its
//!    parent leaves the gate. The thread starts with every signal blocked, and unblocks the
//!    reserved ones when it has its signal stack. Until then the request waits, and the caller with
//!    it.
//! 3. *No ended thread is signalled:* a thread in the list cannot end, because it has to pass the
//!    closed gate first.
//! 4. *A thread that waits at the gate can answer:* in that wait only the program's signals are
//!    blocked. Otherwise two callers at once, or a caller and a thread that spawns or ends, would
//!    wait for each other. A thread inside the gate may block everything, as spawn does around
//!    clone(2): no thread is asked while it is inside.
//! 5. *No circular waits:* inside the gate everything is blocked, so no handler runs there, and the
//!    only wait is for the latch, whose holder does not wait. The thread that has closed the gate
//!    blocks the program's signals, so no handler of the program runs on it and needs the gate;
//!    rt0's own handlers never do. It waits for the threads inside, for answers, which need no gate
//!    (4), and for threads to end that have unlinked themselves; for nothing else.
//! 6. *The request is complete when it is read:* it is written before `asked` is set (release), and
//!    read after `asked` was seen (acquire). Answers are written before `REMAINING` is counted
//!    down, and read after it was seen at 0. The next request waits until no mailbox is asked or
//!    answering.
//! 7. *Every wait for an answer ends:* before any thread makes the call, one signal to the caller
//!    itself shows that signals arrive at all (an emulator may lack them) and can be queued
//!    (`RLIMIT_SIGPENDING`). A thread that cannot be signalled after that, or that a filter kills
//!    in its call, counts as a mismatch. Each request is answered once: the exchange from `ASKED`
//!    decides which side answers.
//! 8. *A killed caller blocks no other:* a thread that waits opens the gate that it closed
//!    (`gate.rs`, 5). The next caller takes back the requests that threads have not seen, and waits
//!    for those that they are answering. Then some threads have made the killed caller's call, and
//!    others have not.
//!
//! `model.rs` explores every order in which callers, a spawning thread, its child and an ending
//! thread may take these steps, and shows that each of the rules 1 to 4 is needed. The gate has
//! models of its own (`thread/models/`).
//!
//! Limits: if a thread is stopped, or blocks signal 33 by a raw system call, the caller waits until
//! it answers. (In that wait a signal whose action is the default, such as SIGTERM, still ends the
//! process.) A call that blocks, blocks all threads. A setting that the return from a handler
//! restores (rt_sigprocmask(2), sigaltstack(2)) changes on the caller only. A call whose result
//! differs from thread to thread (gettid(2)) is always a mismatch. Other threads' system calls are
//! interrupted and restarted, except those that signal(7) lists as never restarted, which fail with
//! `EINTR`.
//!
//! The kernel's own workers in a process (of io_uring, vhost) make no calls, and rt0 does not ask
//! them. The kernel lets them work with the credentials that the process had when the ring or the
//! request was made. So a program that drops rights closes its rings first.

mod fence;
#[cfg(test)]
mod model;
mod outcome;
mod proc;
mod rights;

use core::cell::UnsafeCell;
use core::sync::atomic::{
    AtomicU32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use core::time::Duration;

use crate::errno::{self, Errno};
use crate::signal::{self, ALL_THREADS, Info};
use crate::thread::{self, Hooks, List, this_block};
use crate::{futex, sys};
use outcome::FirstOf;

pub use fence::{heavy_fence, light_fence};
pub use outcome::{Divergence, Error, Mismatch};
pub use rights::{
    FilterStep, landlock_restrict_self, seccomp, set_no_new_privs, setegid, seteuid, setgid, setgroups, setregid,
    setresgid, setresuid, setreuid, setuid,
};

/// A call on all threads: what it returned on the caller, or what went wrong.
pub type Result<T> = core::result::Result<T, Error>;

/// Makes the system call `nr` on every thread of the process, the calling one first, and returns
/// what it returned there.
///
/// If the kernel refuses it on the calling thread, no other thread makes it: [`Error::Refused`]. If
/// another thread's result is not the caller's, or there is a thread that rt0 does not know, the
/// process is in a state that no call can undo: [`Error::Diverged`]. A program that must not
/// continue then calls [`Error::errno_or_abort`].
///
/// Errors besides the call's own: `EOPNOTSUPP` where signal 33 cannot be caught or sent (some
/// emulators); `EAGAIN`, as many signals are on their way as `RLIMIT_SIGPENDING` allows this user.
///
/// A filter that kills for calls that it does not name has to allow those that count threads:
/// unshare(2) with `CLONE_THREAD`, which changes nothing, if there is one thread; and statx(2). If
/// these say that there are more threads than rt0 knows: openat(2), getdents64(2), read(2) and
/// readlinkat(2) in /proc/self/task.
///
/// ```no_run
/// use linux_raw_sys::{general as k, prctl};
/// use rt0::all_threads::{self, Error};
///
/// let args = [prctl::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0, 0];
/// // SAFETY: 1. It accesses no memory.
/// match unsafe { all_threads::syscall(k::__NR_prctl as usize, args) } {
///     Ok(_) => {}
///     Err(Error::Refused(errno)) => rt0::println!("no thread has it: {errno}"),
///     Err(other) => panic!("{other}"), // It names the threads.
/// }
/// ```
///
/// In handlers: no, it waits for threads that start and end.
///
/// # Safety
///
/// 1. The call with these arguments is sound on every thread: it does nothing to memory or to the
///    process that the caller has no right to do.
pub unsafe fn syscall(nr: usize, args: [usize; 6]) -> Result<usize> {
    thread::register(&HOOKS);
    signal::end_inherited_blocks(); // Not while the list is closed: what it unblocks stays so.
    List::with(|list| {
        install_handler()?;
        // SAFETY: the caller guarantees 1.
        unsafe { with_list(list, nr, args) }
    })
}

/// # Safety
///
/// 1. Condition 1 of [`syscall`].
unsafe fn with_list(list: &List<'_>, nr: usize, args: [usize; 6]) -> Result<usize> {
    list.remove_ended();
    let this = this_block();
    // SAFETY: a block stays as long as it is linked. Only atomics of another thread's are accessed.
    let others = || list.iter().filter(move |block| *block != this).map(|block| unsafe { &*block.as_ptr() });
    let count = others().count() as u32;
    if count > 0 {
        probe_delivery()?;
    }
    // SAFETY: the caller guarantees the same (1).
    let expected = unsafe { sys::syscall(nr, args) }?;

    for thread in others() {
        MAILBOX.of(thread).take_back(list, || thread.tid() == 0);
    }
    // SAFETY: no thread is asked, so none reads it (6).
    unsafe { REQUEST.0.get().write((nr, args)) };
    REMAINING.store(count, Relaxed);
    let process = sys::getpid();
    for thread in others() {
        match thread.tid() {
            0 => MAILBOX.of(thread).put_answer(expected), // It ended in the list: not a mismatch.
            tid => MAILBOX.of(thread).ask(process, tid),
        }
    }
    let mut left = REMAINING.load(Acquire);
    while left != 0 {
        if futex::wait_a_while(&REMAINING, left, sys::FUTEX_ANY) {
            // A thread without an id was killed in its call, and will not answer.
            others().filter(|thread| thread.tid() == 0).for_each(|thread| MAILBOX.of(thread).answer_for_killed());
            list.let_signals_through();
        }
        // Acquire pairs with the release of every answer: they all count down this word.
        left = REMAINING.load(Acquire);
    }

    let mut differing = FirstOf::default();
    for thread in others() {
        let got = MAILBOX.of(thread).answer.load(Relaxed);
        if got != expected {
            differing.add((thread.tid(), got));
        }
    }
    let alive = others().filter(|thread| thread.tid() != 0).count();
    let is_listed = |tid| tid == sys::gettid() || others().any(|thread| thread.tid() == tid);
    let unlisted = proc::unlisted(is_listed, alive + 1, list);
    match differing.total() + unlisted.total() {
        0 => Ok(expected),
        _ => Err(Error::Diverged(Divergence { nr, expected, differing, unlisted })),
    }
}

/// The call to make. Written while the list is closed and no thread is asked.
static REQUEST: Request = Request(UnsafeCell::new((0, [0; 6])));

struct Request(UnsafeCell<(usize, [usize; 6])>);

// SAFETY: property 6.
unsafe impl Sync for Request {}

/// The number of threads that have not answered. The last one wakes the caller.
static REMAINING: AtomicU32 = AtomicU32::new(0);

thread::part! {
    /// Each thread's.
    static MAILBOX: Mailbox;
}

static HOOKS: Hooks = Hooks { start: None, end: None, fork: Some(|_, this| MAILBOX.of(this).renew()) };

/// A thread's part in a call on all threads.
struct Mailbox {
    /// ```text
    /// IDLE ── ask ──▶ ASKED ── handler ──▶ ANSWERING ── answered ──▶ IDLE
    /// ```
    asked: AtomicU32,
    /// The raw result.
    answer: AtomicUsize,
}

const IDLE: u32 = 0;
const ASKED: u32 = 1;
const ANSWERING: u32 = 2;

impl Mailbox {
    const fn new() -> Mailbox {
        Mailbox { asked: AtomicU32::new(IDLE), answer: AtomicUsize::new(0) }
    }

    /// Clears the request of an earlier caller that was killed before it had all answers. A request
    /// that the thread has not seen is taken back; one that it is answering is waited for (6, 8).
    fn take_back(&self, list: &List<'_>, is_gone: impl Fn() -> bool) {
        for tries in 1u64.. {
            if self.asked.load(Acquire) == IDLE || self.make_idle(ASKED) || is_gone() && self.make_idle(ANSWERING) {
                return;
            }
            // The last answer to the previous call may be a few instructions away. If that call's
            // caller was killed, it may take as long as the call.
            thread::sleep(Duration::from_micros(tries.min(10_000)));
            if tries.is_multiple_of(64) {
                list.let_signals_through();
            }
        }
    }

    /// Makes it idle if it is in `state`; returns whether it was.
    fn make_idle(&self, state: u32) -> bool {
        self.asked.compare_exchange(state, IDLE, Acquire, Relaxed).is_ok()
    }

    fn ask(&self, process: u32, tid: u32) {
        self.asked.store(ASKED, Release); // The request comes before: see `answer`.
        if let Err(errno) = send(process, tid)
            // A stray signal may have made it answer nevertheless.
            && self.make_idle(ASKED)
        {
            self.put_answer(raw(Err(errno)));
        }
    }

    /// Answers for a thread that was killed in its call or before, unless it has answered.
    fn answer_for_killed(&self) {
        if self.make_idle(ASKED) || self.make_idle(ANSWERING) {
            self.put_answer(raw(Err(Errno::ESRCH)));
        }
    }

    /// Stores the answer and counts it. Between the count and `IDLE` there is no system call, in
    /// which the thread could be killed.
    fn put_answer(&self, result: usize) {
        self.answer.store(result, Relaxed);
        // Release: the answer is written before.
        let is_last = REMAINING.fetch_sub(1, Release) == 1;
        self.asked.store(IDLE, Release);
        if is_last {
            futex::wake(&REMAINING, 1);
        }
    }

    /// Resets it, in a forked child.
    fn renew(&self) {
        self.asked.store(IDLE, Relaxed);
    }
}

/// The handler: makes the call on this thread and stores its answer.
extern "C" fn answer(_: i32) {
    let Some(block) = thread::block_in_handler() else { return };
    let mailbox = MAILBOX.of(block);
    // Acquire pairs with the release in `ask`. A signal that rt0 did not send finds nothing to do.
    if mailbox.asked.compare_exchange(ASKED, ANSWERING, Acquire, Relaxed).is_ok() {
        // SAFETY: written before this thread was asked, and not written again until it has
        // answered.
        let (nr, args) = unsafe { REQUEST.0.get().read() };
        // SAFETY: the caller of `syscall` guarantees it for each thread (1).
        mailbox.put_answer(raw(unsafe { sys::syscall(nr, args) }));
    }
}

fn raw(result: errno::Result<usize>) -> usize {
    result.unwrap_or_else(|errno| -(errno.raw() as isize) as usize)
}

/// Signals a thread. While the queue of signals is full it retries, for about 200 ms.
fn send(process: u32, tid: u32) -> errno::Result<()> {
    for tries in 1..=20 {
        match sys::tgkill(process, tid, ALL_THREADS) {
            Err(Errno::EAGAIN) => thread::sleep(Duration::from_millis(tries)),
            sent => return sent,
        }
    }
    Err(Errno::EAGAIN)
}

/// Signals the calling thread, which has nothing to answer, to see whether signals arrive (7).
fn probe_delivery() -> Result<()> {
    send(sys::getpid(), sys::gettid())
        .map_err(|errno| Error::Refused(if errno == Errno::EINVAL { Errno::EOPNOTSUPP } else { errno }))
}

/// Installs a handler that calls [`answer_for`], in place of [`answer`]. The list is closed.
///
/// # Safety
///
/// 1. Condition 1 of [`signal::sigaction`].
pub(crate) unsafe fn catch_with_info<F: Fn(&Info) + Copy + 'static>(handler: F) -> errno::Result<()> {
    // SAFETY: the caller guarantees 1.
    unsafe { signal::catch_reserved_with_info(ALL_THREADS, handler) }
}

/// [`answer`], for another handler of the same signal.
pub(crate) fn answer_for(info: &Info) {
    answer(info.number());
}

/// Installs the handler, unless one is installed. The list is closed, so this does not replace the
/// handler of [`catch_with_info`].
fn install_handler() -> Result<()> {
    // SAFETY: 1. The handler accesses its own thread's atomics, and makes the call that the caller
    // of `syscall` vouched for.
    Ok(unsafe { signal::catch_reserved(ALL_THREADS, answer, true) }?)
}
