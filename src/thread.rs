//! Threads: clone(2), with the stacks, the closure and its result, the thread's TLS and its block
//! in one mapping.
//!
//! ```text
//!     low                                                                                    high
//!     │ guard │ signal stack │ guard │ stack ◄── grows down │ name │ Launch<F, T> │ TLS + block │
//! ```
//!
//! No allocator is needed. Properties of every thread, and how they are achieved:
//!
//! 1. *A thread with a handle is complete:* its parent writes everything before clone(2), and the
//!    kernel writes the tid word before either side runs (`CLONE_PARENT_SETTID`).
//! 2. *No handler runs on an incomplete thread:* the parent blocks all signals around clone(2), so
//!    the child starts with all signals blocked. The child unblocks them when its block, its signal
//!    stack and its name are in place, and blocks them again before it gives its memory away. (The
//!    signal stack stays registered with the kernel, which uses it only to run a handler.)
//! 3. *The mapping lives as long as any thread can access it:* `Lifecycle::refs` counts the thread
//!    itself, its [`JoinHandle`] and each [`Thread`]. The owner that takes the count to 0 puts the
//!    mapping into the stack cache (`stack.rs`). If the cache is full it is unmapped: by the thread
//!    itself as its last act, without a stack (`Arch::unmap_and_exit`); by any other owner after
//!    (4).
//! 4. *No stack is reused or unmapped while it is in use:* the kernel clears the tid word after the
//!    thread's last instruction, with a shared wake (`CLONE_CHILD_CLEARTID`). Joining, unmapping
//!    and reusing look at that word, never at a wait's result. A thread that unmaps itself takes
//!    the word's address from the kernel first; otherwise the kernel would write to whatever is
//!    mapped there by then. The wake may come after another thread got the memory: that is a
//!    spurious wake, and the waiter checks the word again.
//! 5. *The result is dropped once:* `Lifecycle::state` decides by one compare-exchange on each
//!    side. A thread that finishes while joinable leaves the result to the handle; a detached one
//!    drops it.
//! 6. *A failed spawn leaves nothing:* mapping and closure are owned by values that undo
//!    themselves.
//!
//! `models` runs `lifecycle.rs` and `cache.rs`, on which 3 to 5 depend, in every order.
//!
//! The main thread's block is static, and its end is the end of the process. A thread that
//! [`Builder::spawn_on`] starts on memory of the program's has all but the stack in its mapping.
//!
//! A stack that overflows reaches the guard below it, and the process ends by SIGSEGV with a line
//! that says so. The reporter and the main thread's signal stack are installed by the first
//! [`spawn`], or earlier by [`report_overflows`]. What a guard catches depends on the machine:
//!
//! - x86, x86_64, aarch64, s390x, PowerPC: frames of any size. There the compiler makes a function
//!   touch each page of a large frame, and a guard is one page.
//! - ARM, RISC-V, LoongArch, MIPS, SPARC: frames of less than 64 KiB, which is the size of a guard.
//!   A larger frame skips the guard if the program accesses nothing in the part that overlaps it.
//!
//! Code of another compiler may step over a guard of one page: C does, unless it is compiled with
//! `-fstack-clash-protection`. The main thread's own stack has no guard of rt0's; the kernel keeps
//! 256 pages below it free of other mappings.
//!
//! [`scope()`] starts threads that may borrow; [`thread_local!`](crate::thread_local!) gives each
//! thread values of its own.
//!
//! All threads are in a list (`list.rs`), which `all_threads` goes through. A module that keeps
//! something of each thread declares a part (`part.rs`) and registers hooks (`hooks.rs`).

mod affinity;
mod block;
mod builder;
mod cache;
mod fork;
mod gate;
mod handle;
mod hooks;
mod interrupt;
mod latch;
mod lifecycle;
mod list;
#[doc(hidden)]
pub mod local;
#[cfg(all(loom, test))]
mod models;
mod overflow;
mod part;
mod scope;
mod stack;
mod start;

use core::num::NonZeroUsize;
use core::sync::atomic::AtomicU32;
use core::time::Duration;

use crate::errno::{Errno, Result};
use crate::time::{ClockId, Instant};
use crate::{cpu, futex, sys};

#[cfg(feature = "panic-handler")]
pub(crate) use block::name_for_messages;
pub(crate) use block::{Block, block_in_handler, block_in_report, end_main, set_up_main, stack_guard, this_block};
pub use builder::{Builder, spawn};
pub use fork::{Fork, fork};
pub use handle::{JoinHandle, Thread, ThreadId};
pub(crate) use hooks::{Hooks, register};
pub use interrupt::Generation;
pub(crate) use list::{List, ListLock, notice_fork};
pub use local::{AccessError, LocalKey};
pub use overflow::report_overflows;
pub(crate) use overflow::{
    describe as describe_overflow, end_by, is_sent, main_stack_end, overflowed, reporter as overflow_reporter,
};
pub(crate) use part::{Part, part};
pub use scope::{Scope, ScopedJoinHandle, scope};
pub use stack::{limit_stack_cache, trim_stack_cache};

/// How many threads can run at once, as [`cpu::count`] finds it. It never fails; the `Result` is
/// std's.
///
/// In handlers: yes.
pub fn available_parallelism() -> Result<NonZeroUsize> {
    Ok(cpu::count())
}

/// The calling thread.
///
/// In handlers: yes.
#[must_use]
pub fn current() -> Thread {
    // SAFETY: 1. The running thread has a reference of its own.
    unsafe { Thread::of(this_block()) }
}

/// Finds the threads that run: the main thread, and those that rt0 started and that have not ended.
/// Puts handles of them at the start of `threads`, as many as fit, and `None` behind them; returns
/// how many threads run. They may have ended, and others begun, when it returns.
///
/// ```no_run
/// use rt0::thread;
///
/// let mut threads = [const { None }; 16];
/// let count = thread::running(&mut threads);
/// for thread in threads.iter().flatten() {
///     rt0::println!("{:?}", thread.name());
/// }
/// # let _ = count;
/// ```
///
/// In handlers: no, it waits for threads that start and end.
pub fn running(threads: &mut [Option<Thread>]) -> usize {
    threads.fill(None); // Before the list is closed: dropping a handle may unmap memory.
    List::with(|list| {
        let mut places = threads.iter_mut();
        let mut count = 0;
        // SAFETY: a block stays as long as it is linked.
        for block in list.iter().filter(|block| !unsafe { block.as_ref() }.is_gone()) {
            count += 1;
            if let Some(place) = places.next() {
                // SAFETY: 1. A thread that is linked has its own reference.
                *place = Some(unsafe { Thread::of(block) });
            }
        }
        count
    })
}

/// The identity of the calling thread: `current().id()`, without counting a reference.
///
/// ```no_run
/// use rt0::thread::{self, Thread, ThreadId};
///
/// let this: Thread = thread::current();
/// let id: ThreadId = thread::current_id();
/// assert_eq!(this.id(), id);
/// ```
///
/// In handlers: yes.
#[must_use]
pub fn current_id() -> ThreadId {
    // SAFETY: a running thread's block stays.
    ThreadId::of_number(unsafe { this_block().as_ref() }.number)
}

/// Whether the calling thread is unwinding after a panic. Always false: a panic ends the process
/// and runs no destructors. It is here for code that asks.
///
/// ```no_run
/// assert!(!rt0::thread::panicking());
/// ```
///
/// In handlers: yes.
#[must_use]
pub const fn panicking() -> bool {
    false
}

/// Lets other threads run: sched_yield(2).
///
/// ```no_run
/// use core::sync::atomic::{AtomicBool, Ordering};
///
/// static READY: AtomicBool = AtomicBool::new(false);
/// while !READY.load(Ordering::Acquire) {
///     rt0::thread::yield_now(); // Only where a wait is not possible.
/// }
/// ```
///
/// In handlers: yes.
pub fn yield_now() {
    sys::sched_yield();
}

/// Sleeps for at least `duration`, by the monotonic clock; signal handlers that run meanwhile do
/// not shorten it.
///
/// In handlers: no, it waits.
pub fn sleep(duration: Duration) {
    match Instant::now().checked_add(duration) {
        Some(deadline) => sleep_until(deadline),
        None => loop {
            sleep(Duration::from_secs(u32::MAX.into())); // Beyond the clock's end: sleep for ever.
        },
    }
}

/// Sleeps until `deadline` at least, by the monotonic clock; returns at once if it is past. Signal
/// handlers that run meanwhile do not shorten it.
///
/// ```no_run
/// use rt0::thread;
/// use rt0::time::{Duration, Instant};
///
/// let mut next = Instant::now();
/// loop {
///     // … once a second, without drift …
///     next += Duration::from_secs(1);
///     thread::sleep_until(next);
/// }
/// ```
///
/// In handlers: no, it waits.
pub fn sleep_until(deadline: Instant) {
    while Instant::now() < deadline {
        match sys::clock_nanosleep_until(ClockId::CLOCK_MONOTONIC.raw(), &deadline.deadline()) {
            Ok(()) | Err(Errno::EINTR) => {} // Early, or a handler ran.
            // A filter forbids it. A futex wait on a word that no other thread has ends by the
            // same clock.
            Err(_) => _ = futex::wait_until(&AtomicU32::new(0), 0, deadline),
        }
    }
}

/// Waits until the calling thread's [`Thread`] is unparked; returns at once if that happened since
/// the last park.
///
/// ```no_run
/// use rt0::sync::atomic::{AtomicBool, Ordering};
/// use rt0::thread;
///
/// static READY: AtomicBool = AtomicBool::new(false);
///
/// let waiter = thread::spawn(|| while !READY.load(Ordering::Acquire) {
///     thread::park();
/// })?;
/// READY.store(true, Ordering::Release);
/// waiter.thread().unpark();
/// waiter.join();
/// # Ok::<(), rt0::Errno>(())
/// ```
///
/// In handlers: no, it waits.
pub fn park() {
    park_until(None);
}

/// [`park`], for at most `timeout`.
///
/// ```no_run
/// use rt0::thread;
/// use rt0::time::Duration;
///
/// let waiter = thread::spawn(|| thread::park_timeout(Duration::from_secs(1)))?;
/// waiter.thread().unpark();
/// waiter.join();
/// # Ok::<(), rt0::Errno>(())
/// ```
///
/// In handlers: no, it waits.
pub fn park_timeout(timeout: Duration) {
    park_until(Instant::now().checked_add(timeout));
}

fn park_until(deadline: Option<Instant>) {
    // SAFETY: a running thread's block stays.
    unsafe { this_block().as_ref() }.parker.park_with(deadline);
}
