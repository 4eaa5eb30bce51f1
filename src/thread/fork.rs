//! fork(2) in a process of several threads, and how rt0 notices a child that was forked by a raw
//! system call.
//!
//! Properties, and how they are achieved:
//!
//! 1. *A child is noticed before it relies on its parent's threads:* each use of the list of
//!    threads, and each wait for another thread, begins with [`has_forked`]. It reads a word of a
//!    page that the kernel wipes in a forked child (`MADV_WIPEONFORK`, Linux 4.14). Where there is
//!    no such page, it asks for the process's id each time.
//! 2. *A child that shares memory is not a forked child* (`CLONE_VM` without `CLONE_THREAD`,
//!    vfork(2)): its page is not wiped. Where there is no such page, it would be taken for one. So
//!    such a child must call nothing that uses this module.
//! 3. *A thread of the parent is not a thread of the child:* each block has the generation in which
//!    its thread was started. A child begins the next generation and writes it into its own
//!    thread's block. A thread of an older generation has no id here (`Block::tid` is 0).
//! 4. *What the child's thread may borrow stays mapped:* the child cannot know what its thread
//!    borrows from the stack of a thread that does not exist there. So the own reference of such a
//!    thread to its mapping is never released, unless the thread had released it before the fork.

use core::ptr::null_mut;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use linux_raw_sys::general as k;

use super::List;
use crate::auxv::page_size;
use crate::errno::Result;
use crate::once_word::OncePtr;
use crate::sys;

/// Which side of a [`fork`] the caller is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "both processes continue from here"]
pub enum Fork {
    /// The process that called; the child's id is for waitid(2).
    Parent {
        /// The child's id.
        child: u32,
    },
    /// The new process.
    Child,
}

/// fork(2): a child process with a copy of everything, in which the calling thread is the only one.
///
/// The fork happens while no other thread is in the middle of a start, an end or a call on all
/// threads, and with all signals blocked. The parent handles a signal that arrives meanwhile after
/// the fork. In the child:
///
/// - Everything of rt0 works, on this thread and on those that it starts: `spawn`, scopes, joins,
///   `interrupt`, `signal`, `all_threads`, profiles, random bytes, another fork.
/// - The parent's other threads do not exist. For them `interrupt` and `signal` fail with `ESRCH`,
///   and a join behaves as for a thread that ended without a result, unless the result was written
///   before the fork. The end of a scope that counted one panics. Their stacks stay mapped, because
///   this thread may borrow from them; those of threads that had ended are used again.
/// - No profile runs, because timers are not inherited, and samples that were not drained are
///   dropped. Interrupts that were not yet delivered to this thread count as seen.
/// - If the thread is the main one, `main` continues, and its return ends the process. If it is
///   another, the end of its closure ends the process with status 0, after the threads that it
///   started have ended too.
///
/// The program's own state is copied as it is, as POSIX says: a lock that another thread held stays
/// locked for ever, and data that it was changing is half changed.
///
/// A child that the program forks by a raw system call is noticed when it first uses rt0's threads,
/// and all this holds there too. But other threads of the parent may have been in the middle of any
/// function of rt0 then. A child that shares its parent's memory (vfork(2), `CLONE_VM`) must call
/// nothing of `thread`, `all_threads` or `profile`.
///
/// Errors: `EAGAIN`, a limit on processes is reached; `ENOMEM`.
///
/// ```no_run
/// use rt0::thread::{self, Fork};
///
/// // SAFETY: 1. There is one thread. 2. The child prints nothing.
/// match unsafe { thread::fork() }? {
///     Fork::Parent { child } => rt0::println!("started {child}"),
///     Fork::Child => rt0::process::exit(0),
/// }
/// # Ok::<(), rt0::Errno>(())
/// ```
///
/// In handlers: no.
///
/// # Safety
///
/// 1. The child does not wait for another thread of the parent, and uses no data that another
///    thread may have been changing, except by types made for it (rt0's threads, and atomics).
/// 2. What must happen once is done by one process only: writing a buffer, removing a file, passing
///    on a result through memory or files that both share.
pub unsafe fn fork() -> Result<Fork> {
    // SAFETY: 1. The caller guarantees 1 and 2.
    List::with(|list| unsafe { list.fork() }).map(|pid| match pid {
        0 => Fork::Child,
        child => Fork::Parent { child },
    })
}

static GENERATION: AtomicU32 = AtomicU32::new(0);

/// The id of the process whose threads the list contains. 0 before there is a list.
static PROCESS: AtomicU32 = AtomicU32::new(0);

/// A word that is 1 in this process and 0 in a forked child; null where there is none.
static MARK: OncePtr<AtomicU32> = OncePtr::new();

/// How many forks there are between the process that was started and this one.
pub(super) fn generation() -> u32 {
    GENERATION.load(Relaxed) // It changes when there is one thread.
}

/// Whether this process is a fork of the one that called [`remember`].
pub(super) fn has_forked() -> bool {
    // SAFETY: the page stays.
    match unsafe { MARK.get().as_ref() } {
        Some(mark) => mark.load(Relaxed) == 0,
        // Without a list there is nothing that a fork would make wrong.
        None => PROCESS.load(Relaxed) != 0 && PROCESS.load(Relaxed) != sys::getpid(),
    }
}

/// Remembers this process as the list's: the first one, or a child that was forked from the one
/// remembered before. It has one thread.
pub(super) fn remember(is_child: bool) {
    PROCESS.store(sys::getpid(), Relaxed);
    GENERATION.fetch_add(u32::from(is_child), Relaxed);
    if MARK.get().is_null() && !is_child {
        MARK.publish(wiped_page().unwrap_or_default().cast());
    }
    // SAFETY: the page stays.
    if let Some(mark) = unsafe { MARK.get().as_ref() } {
        mark.store(1, Relaxed);
    }
}

/// A page that a forked child finds zeroed. An emulator may accept every advice and follow none. If
/// it accepts even a number that is not an advice, its answer is not trusted.
fn wiped_page() -> Result<*mut u8> {
    const NO_ADVICE: u32 = 0x7fff_ffff;
    let flags = k::MAP_PRIVATE | k::MAP_ANONYMOUS;
    // SAFETY: 1. Not MAP_FIXED.
    let page = unsafe { sys::mmap(null_mut(), page_size(), k::PROT_READ | k::PROT_WRITE, flags, -1, 0) }?;
    // SAFETY: 1. Nothing is on the page.
    let is_wiped = unsafe { sys::madvise(page, page_size(), k::MADV_WIPEONFORK) };
    let is_wiped = is_wiped.and_then(|()| {
        // SAFETY: 1. Nothing is on the page.
        match unsafe { sys::madvise(page, page_size(), NO_ADVICE) } {
            Ok(()) => Err(crate::errno::Errno::EINVAL),
            Err(_) => Ok(page),
        }
    });
    if is_wiped.is_err() {
        // SAFETY: 1. No other code has the page.
        let _ = unsafe { sys::munmap(page, page_size()) };
    }
    is_wiped
}
