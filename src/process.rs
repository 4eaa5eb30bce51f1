//! Processes: starting programs, waiting for them, signals to them. std's shape, without an
//! allocator.
//!
//! ```no_run
//! use rt0::process::Command;
//!
//! let mut child = Command::new(c"ls").args(&[c"-l", c"/"]).spawn()?;
//! let status = child.wait()?;
//! # Ok::<(), rt0::Errno>(())
//! ```
//!
//! A child is made by clone(2) with `CLONE_VM` and `CLONE_VFORK`, as posix_spawn(3) does: it runs
//! in the parent's memory, on a stack of its own, until it calls execve(2) or ends; meanwhile the
//! thread that started it waits in clone(2). So the price does not grow with the parent's memory.
//! What holds:
//!
//! 1. *No handler runs in the child.* The parent blocks every signal around clone(2), rt0's own
//!    too. The child sets all caught signals to their defaults before it unblocks any.
//! 2. *The child writes to its own memory only*: its stack, and what `launch.rs` laid there for it.
//!    It takes no lock, and does not ask for the current thread.
//! 3. *Code of the program runs in memory of its own.* With a [`pre_exec`](Command::pre_exec) hook
//!    the child has a copy of the memory, as after fork(2). (unshare(2) refuses a user namespace to
//!    a process that shares memory.) So it has with credentials: a change of them makes shared
//!    memory undumpable for the parent too, and gives the new user the right to stop the child, and
//!    by that the parent.
//! 4. *A failure is the parent's error.* The child says why it could not execute the program
//!    through shared memory. Where memory is not shared it does so through a close-on-exec pipe,
//!    which ends without a word when the program is executed. A child that shares memory has set a
//!    word there when clone(2) returns; until that was seen once, each child has a pipe: emulators
//!    and valgrind make clone(2) with these flags a fork(2).
//! 5. *A failed spawn leaves nothing*: the child that could not execute its program is reaped,
//!    mapping and descriptors are closed by values that own them, and the mask is as before.
//! 6. *A descriptor is inherited only if it was asked for.* All that rt0 opens is close-on-exec;
//!    what the program opened otherwise is inherited, as with every exec.
//! 7. *No process is signalled or waited for in place of a child that is gone*: a [`Child`] has a
//!    descriptor of its process (pidfd_open(2)) where the kernel has these (Linux 5.4); before, its
//!    number is used only until it was reaped through this handle.
//!
//! While the child shares memory, the thread that started it takes no signals: a call on all
//! threads (`all_threads`) that begins meanwhile waits until the child has executed its program or
//! ended.
//!
//! A child that was not waited for stays a zombie until this process ends. Where `SIGCHLD` is
//! ignored the kernel reaps children by itself: then waiting for one returns `ECHILD`, when it has
//! ended.
//!
//! Sources: execve(2), clone(2), vfork(2), waitid(2), pidfd_open(2), posix_spawn(3), exec(3); the
//! kernel's kernel/fork.c, kernel/exit.c and commit_creds in kernel/cred.c.

mod child;
mod command;
mod launch;
mod search;
mod status;

pub use child::{Child, try_wait_any, wait_any};
pub use command::{Command, Stdio};
pub use status::ExitStatus;

use crate::errno::{Errno, Result};
use crate::signal::{self, Signal};
use crate::sys;

/// Ends the process with the low 8 bits of `code`: exit_group(2). No destructor runs.
///
/// In handlers: yes.
pub fn exit(code: i32) -> ! {
    sys::exit_group(code)
}

/// Ends the process by `SIGABRT`, also where that is blocked, ignored or caught; see
/// [`signal::die_from`].
///
/// In handlers: yes.
pub fn abort() -> ! {
    signal::die_from(Signal::SIGABRT)
}

/// This process's number: getpid(2).
///
/// In handlers: yes.
#[must_use]
pub fn id() -> u32 {
    sys::getpid()
}

/// kill(2): sends `signal` to the process `pid`. For a child, [`Child::signal`] is safe against a
/// number that was given to another process meanwhile.
///
/// Errors: `ESRCH`, there is no such process; `EPERM`; `EINVAL` for a `pid` of 0 or above
/// `i32::MAX`.
///
/// In handlers: yes.
pub fn kill(pid: u32, signal: Signal) -> Result<()> {
    sys::kill(number(pid)?, signal.raw())
}

/// kill(2): sends `signal` to each process of the group `group`. Errors as of [`kill`]; `EINVAL`
/// also for group 1, which kill(2) has no way to name.
///
/// In handlers: yes.
pub fn kill_group(group: u32, signal: Signal) -> Result<()> {
    match number(group)? {
        1 => Err(Errno::EINVAL), // -1 is every process.
        group => sys::kill(-group, signal.raw()),
    }
}

/// rt_sigqueueinfo(2), as sigqueue(3): sends `signal` to the process `pid`, with a value that
/// [`Siginfo::value`](signal::Siginfo::value) tells there.
///
/// Errors as of [`kill`]; `EAGAIN`, as many signals are on their way as `RLIMIT_SIGPENDING` allows
/// this user.
///
/// In handlers: yes.
pub fn sigqueue(pid: u32, signal: Signal, value: usize) -> Result<()> {
    number(pid)?;
    sys::rt_sigqueueinfo(pid, signal.raw(), value)
}

/// A process's number as kill(2) takes it.
fn number(pid: u32) -> Result<i32> {
    i32::try_from(pid).ok().filter(|pid| *pid > 0).ok_or(Errno::EINVAL)
}
