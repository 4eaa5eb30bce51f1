//! Processes: starting programs, waiting for them, sending signals to them. As in std, without an
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
//! in the parent's memory, on a stack of its own, until it calls execve(2) or ends. Meanwhile the
//! thread that started it waits in clone(2). So the cost does not grow with the parent's memory.
//!
//! Properties, and how they are achieved:
//!
//! 1. *No handler runs in the child:* the parent blocks every signal around clone(2), rt0's own
//!    too. The child sets the default action for all signals with a handler before it unblocks any.
//! 2. *The child writes only to its own memory:* its stack, and what `launch.rs` prepared for it.
//!    It takes no lock, and does not access the current thread's block.
//! 3. *Code of the program runs on a copy of the memory:* with a [`pre_exec`](Command::pre_exec)
//!    hook the child is made as by fork(2). (Also, unshare(2) refuses a user namespace to a process
//!    that shares memory.) The same holds if credentials change. With shared memory the change
//!    would make the parent undumpable too, and the new user could stop the child and thereby the
//!    parent.
//! 4. *The parent gets the child's error:* if memory is shared, the child stores there why it could
//!    not execute the program. Otherwise it writes the reason to a close-on-exec pipe, which is
//!    closed without a byte when the program is executed. Some emulators and valgrind treat a
//!    clone(2) with these flags as fork(2). So each child gets a pipe until one was seen to share
//!    memory: such a child has set a word there when clone(2) returns.
//! 5. *A failed spawn leaves nothing:* a child that could not execute its program is reaped,
//!    mapping and descriptors are owned by values that release them, and the mask is restored.
//! 6. *A descriptor is inherited only on request:* every descriptor that rt0 opens is
//!    close-on-exec. One that the program opened without that flag is inherited, as with any
//!    execve(2).
//! 7. *No other process is signalled or waited for in place of a child:* a [`Child`] has a
//!    descriptor of its process (pidfd_open(2), Linux 5.4). On older kernels its id is used only
//!    until it was reaped through this handle.
//!
//! While the child shares memory, the thread that started it waits in clone(2) and handles no
//! signal but SIGKILL. A call on all threads (`all_threads`) that begins meanwhile waits until the
//! child has executed its program or ended. That is short, unless another process stops the child
//! there (SIGSTOP to its group or its id, a tracer, a frozen cgroup), or the program lies on a file
//! system that does not answer. Then the spawn returns when the child continues or is killed; a
//! killed one is a child that died by that signal. The other threads run meanwhile.
//!
//! A child that is not waited for stays a zombie until this process ends. If `SIGCHLD` is ignored,
//! the kernel reaps children by itself. Then waiting for a child returns `ECHILD` after its end.
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

/// Ends the process by `SIGABRT`, also if that is blocked, ignored or caught; see
/// [`signal::die_from`].
///
/// ```no_run
/// rt0::process::abort() // For a core dump; the status is that of SIGABRT.
/// ```
///
/// In handlers: yes.
pub fn abort() -> ! {
    signal::die_from(Signal::SIGABRT)
}

/// This process's id: getpid(2).
///
/// In handlers: yes.
#[must_use]
pub fn id() -> u32 {
    sys::getpid()
}

/// kill(2): sends `signal` to the process `pid`. For a child use [`Child::signal`], which never
/// signals another process that got the child's id.
///
/// Errors: `ESRCH`, there is no such process; `EPERM`, this process may not signal it; `EINVAL`,
/// `pid` is 0 or above `i32::MAX`.
///
/// In handlers: yes.
pub fn kill(pid: u32, signal: Signal) -> Result<()> {
    sys::kill(number(pid)?, signal.raw())
}

/// kill(2): sends `signal` to each process of the group `group`. Errors: those of [`kill`]; also
/// `EINVAL` for group 1, which kill(2) cannot name.
///
/// In handlers: yes.
pub fn kill_group(group: u32, signal: Signal) -> Result<()> {
    match number(group)? {
        1 => Err(Errno::EINVAL), // -1 is every process.
        group => sys::kill(-group, signal.raw()),
    }
}

/// rt_sigqueueinfo(2), as sigqueue(3): sends `signal` to the process `pid`, with a value that its
/// handler gets by [`Siginfo::value`](signal::Siginfo::value).
///
/// Errors: those of [`kill`]; `EAGAIN`, as many signals are pending as `RLIMIT_SIGPENDING` allows
/// this user.
///
/// ```no_run
/// use rt0::process;
/// use rt0::signal::Signal;
///
/// process::sigqueue(process::id(), Signal::SIGUSR1, 42)?; // A handler reads it: `Info::value`.
/// # Ok::<(), rt0::Errno>(())
/// ```
///
/// In handlers: yes.
pub fn sigqueue(pid: u32, signal: Signal, value: usize) -> Result<()> {
    number(pid)?;
    sys::rt_sigqueueinfo(pid, signal.raw(), value)
}

/// A process's id as kill(2) takes it.
fn number(pid: u32) -> Result<i32> {
    i32::try_from(pid).ok().filter(|pid| *pid > 0).ok_or(Errno::EINVAL)
}
