//! fork(2) in a process of several threads, and how a child is noticed that was forked past rt0.
//!
//! 1. *A child is noticed before it relies on what is its parent's.* Every way to the list of
//!    threads, and every wait for another thread, begins with [`has_forked`]. Where the kernel
//!    wipes a page in a forked child (`MADV_WIPEONFORK`, Linux 4.14) a word of such a page tells;
//!    else the process's id does, which is asked for each time.
//! 2. *A child that shares memory is no forked child* (`CLONE_VM` without `CLONE_THREAD`,
//!    vfork(2)). Its page is not wiped. Where there is no such page it would be taken for one: it
//!    may call nothing of this module's users.
//! 3. *A thread of the parent is not one of the child.* Each block has the generation in which its
//!    thread was started. A child begins the next one and stamps its own thread's block with it. A
//!    thread of an older generation has no id here (`Block::tid` is 0).
//! 4. *What may be borrowed stays.* The child cannot know what on the stack of a vanished thread
//!    its own thread borrows. So such a thread's own reference to its mapping stays for ever,
//!    unless it had given it up itself before.

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
#[must_use = "both sides go on from here"]
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
/// It is made at a moment when no other thread is half-way through a start, an end or a call on all
/// threads, and with all signals blocked; a signal that comes meanwhile is handled afterwards, by
/// the parent. In the child:
///
/// - Everything of rt0 works, on this thread and on those that it starts: `spawn`, scopes, joins,
///   `interrupt`, `signal`, `all_threads`, profiles, random bytes, another fork.
/// - The parent's other threads are gone without a trace. `interrupt` and `signal` say `ESRCH` for
///   them. A join of one is as documented for a thread that ended without a result, unless its
///   result was there already. The end of a scope that counted one panics. Their stacks stay
///   mapped, for this thread may borrow from them; those of threads that had ended are used again.
/// - A profile does not go on, for timers are not inherited; samples that were not drained are
///   dropped. Interrupts that were on their way to this thread are counted as seen.
/// - When the thread is the main one, `main` goes on and its return ends the process. When it is
///   another, the end of its closure ends the process with status 0, once the threads that it
///   started have ended too.
///
/// What the other threads held of the program's own stays held, as POSIX has it: a lock that
/// another thread had is locked for ever, and what it was changing is half changed.
///
/// A child that the program forks by a system call of its own is noticed when it first uses rt0's
/// threads, and heals in the same way; other threads may then have been half-way through anything
/// of rt0's. A child that shares its parent's memory (vfork(2), `CLONE_VM`) must call nothing of
/// `thread`, `all_threads` or `profile`.
///
/// May not be called in a handler. Errors: `EAGAIN`, a limit on processes is reached; `ENOMEM`.
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
/// 1. The child relies on no other thread to do something, and uses nothing that another thread may
///    have been changing, unless that is made for it (rt0's threads are, and atomics).
/// 2. What must not be done twice is done on one side only: buffers written, files removed, results
///    handed over by what is shared between processes.
pub unsafe fn fork() -> Result<Fork> {
    // SAFETY: 1. The caller guarantees it (1).
    List::with(|list| unsafe { list.fork() }).map(|pid| match pid {
        0 => Fork::Child,
        child => Fork::Parent { child },
    })
}

static GENERATION: AtomicU32 = AtomicU32::new(0);

/// The process that the list of threads is of. 0 before there is one.
static PROCESS: AtomicU32 = AtomicU32::new(0);

/// A word that is 1 in this process and 0 in a forked child; null where there is none.
static MARK: OncePtr<AtomicU32> = OncePtr::new();

/// How many forks lie between this process and the one that was started.
pub(super) fn generation() -> u32 {
    GENERATION.load(Relaxed) // It changes when there is one thread.
}

/// Whether this process was forked since it was remembered.
pub(super) fn has_forked() -> bool {
    // SAFETY: the page stays.
    match unsafe { MARK.get().as_ref() } {
        Some(mark) => mark.load(Relaxed) == 0,
        // A process without a list has nothing that could be another's.
        None => PROCESS.load(Relaxed) != 0 && PROCESS.load(Relaxed) != sys::getpid(),
    }
}

/// Remembers this process, which is a child of the one that was remembered or the first. It has one
/// thread.
pub(super) fn remember(is_child: bool) {
    PROCESS.store(sys::getpid(), Relaxed);
    GENERATION.fetch_add(u32::from(is_child), Relaxed);
    if MARK.get().is_null() && !is_child {
        MARK.publish(wiped_page().unwrap_or(null_mut()).cast());
    }
    // SAFETY: the page stays.
    if let Some(mark) = unsafe { MARK.get().as_ref() } {
        mark.store(1, Relaxed);
    }
}

/// A page that a forked child finds zeroed. An emulator may take every advice and follow none: one
/// that takes even what is no advice is not believed.
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
        // SAFETY: 1. It is given to no other code.
        let _ = unsafe { sys::munmap(page, page_size()) };
    }
    is_wiped
}
