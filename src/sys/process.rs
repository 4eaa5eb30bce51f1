//! The calls that start and wait for processes.

use core::convert::Infallible;
use core::ffi::{CStr, c_char};

use linux_raw_sys::general as k;

use super::{OwnedFd, RawFd, at, call};
use crate::arch::{Arch, Cpu};
use crate::errno::{Errno, Result};

/// execve(2): replaces the program of this process. It returns only if it failed: `E2BIG`,
/// `EACCES`, `EAGAIN`, `EINVAL`, `ELOOP`, `ENAMETOOLONG`, `ENOENT`, `ENOEXEC`, `ENOMEM`, `ENOTDIR`,
/// `EPERM`, `ETXTBSY`, …
///
/// # Safety
///
/// 1. `argv` and `envp` are arrays of pointers to C strings, each with a null behind its last.
/// 2. The process may be replaced: no other thread of it has something to finish.
pub(crate) unsafe fn execve(path: &CStr, argv: *const *const c_char, envp: *const *const c_char) -> Result<Infallible> {
    // SAFETY: the caller guarantees 1 and 2; the kernel reads the strings.
    match unsafe { call!(__NR_execve, at(path.as_ptr()), at(argv), at(envp)) } {
        Err(errno) => Err(errno),
        Ok(_) => Err(Errno::ENOSYS), // No kernel does that; a filter may.
    }
}

/// A child's change of state, as waitid(2) reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waited {
    pub pid: u32,
    /// One of `CLD_*`.
    pub code: i32,
    /// The exit status or the signal.
    pub status: i32,
}

/// Which children [`waitid`] waits for.
#[derive(Clone, Copy)]
pub(crate) enum Which {
    Any,
    Pid(u32),
    /// Since Linux 5.4; `EINVAL` before.
    PidFd(RawFd),
}

/// waitid(2) for the end of a child, with `options` besides `WEXITED`: `None` if `WNOHANG` is among
/// them and no such child has ended. `ECHILD` if there is no such child (any more), `EINTR`,
/// `EINVAL`.
///
/// The kernel reports the stop of a child that this process traces although it was not asked to
/// (`wait_task_stopped` in kernel/exit.c). Such a child has not ended.
pub(crate) fn waitid(which: Which, options: u32) -> Result<Option<Waited>> {
    loop {
        match wait_for_change(which, options | k::WEXITED)? {
            Some(Waited { code, .. }) if matches!(code as u32, k::CLD_TRAPPED | k::CLD_STOPPED) => {}
            change => return Ok(change),
        }
    }
}

fn wait_for_change(which: Which, options: u32) -> Result<Option<Waited>> {
    let (kind, id) = match which {
        Which::Any => (k::P_ALL, 0),
        Which::Pid(pid) => (k::P_PID, pid as usize),
        Which::PidFd(fd) => (k::P_PIDFD, fd as usize),
    };
    // SAFETY: the struct is numbers, for which all zeros are valid.
    let mut info: k::siginfo_t = unsafe { core::mem::zeroed() };
    // SAFETY: 1. The kernel writes `info` only.
    unsafe { call!(__NR_waitid, kind as usize, id, at(&raw mut info), options as usize, 0) }?;
    // SAFETY: all signals have this part, and it is numbers.
    let head = unsafe { info.__bindgen_anon_1.__bindgen_anon_1 };
    // SAFETY: waitid writes the part for SIGCHLD, or leaves the zeros.
    let child = unsafe { head._sifields._sigchld };
    Ok((head.si_signo != 0).then_some(Waited { pid: child._pid as u32, code: head.si_code, status: child._status }))
}

/// pidfd_open(2), close-on-exec: `ESRCH`, `EMFILE`; `ENOSYS` before Linux 5.3.
pub(crate) fn pidfd_open(pid: u32) -> Result<OwnedFd> {
    // SAFETY: 1. It touches no memory.
    let fd = unsafe { call!(__NR_pidfd_open, pid as usize, 0) }?;
    // SAFETY: 1. Just opened.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// pidfd_send_signal(2): `ESRCH` if the process has been reaped, `EPERM`, `EINVAL`; `ENOSYS` before
/// Linux 5.1.
pub(crate) fn pidfd_send_signal(fd: RawFd, sig: u32) -> Result<()> {
    // SAFETY: 1. A signal is no memory access; the kernel makes the siginfo_t itself.
    unsafe { call!(__NR_pidfd_send_signal, fd as usize, sig as usize, 0, 0) }.map(drop)
}

/// chdir(2). `ENOENT`, `ENOTDIR`, `EACCES`, …
pub(crate) fn chdir(path: &CStr) -> Result<()> {
    // SAFETY: 1. The kernel only reads the path.
    unsafe { call!(__NR_chdir, at(path.as_ptr())) }.map(drop)
}

/// setsid(2). `EPERM` if the process leads a group.
pub(crate) fn setsid() -> Result<()> {
    // SAFETY: 1. It touches no memory.
    unsafe { call!(__NR_setsid) }.map(drop)
}

/// setpgid(2) of this process: 0 makes it the leader of a new group. `EPERM`, `EINVAL`.
pub(crate) fn setpgid(group: u32) -> Result<()> {
    // SAFETY: 1. It touches no memory.
    unsafe { call!(__NR_setpgid, 0, group as usize) }.map(drop)
}

/// setgroups(2) of the calling thread. `EPERM`, `EINVAL` for too many.
pub(crate) fn setgroups(gids: &[u32]) -> Result<()> {
    // SAFETY: 1. The kernel only reads the ids.
    unsafe { call!(@ Cpu::CREDENTIALS.setgroups as usize, gids.len(), at(gids.as_ptr())) }.map(drop)
}

/// setgid(2) of the calling thread. `EPERM`, `EINVAL`.
pub(crate) fn setgid(gid: u32) -> Result<()> {
    // SAFETY: 1. It touches no memory.
    unsafe { call!(@ Cpu::CREDENTIALS.setgid as usize, gid as usize) }.map(drop)
}

/// setuid(2) of the calling thread. `EPERM`, `EINVAL`, `EAGAIN`.
pub(crate) fn setuid(uid: u32) -> Result<()> {
    // SAFETY: 1. It touches no memory.
    unsafe { call!(@ Cpu::CREDENTIALS.setuid as usize, uid as usize) }.map(drop)
}

/// Whether geteuid(2) says 0. (The oldest machines' call cuts ids to 16 bits, and no other to 0.)
pub(crate) fn is_root() -> bool {
    // SAFETY: 1. It touches no memory.
    let uid = unsafe { call!(__NR_geteuid) };
    uid == Ok(0)
}

/// prctl(2), `PR_SET_NO_NEW_PRIVS`, of the calling thread. `EINVAL` before Linux 3.5.
pub(crate) fn set_no_new_privs() -> Result<()> {
    // SAFETY: 1. It touches no memory.
    unsafe { call!(__NR_prctl, linux_raw_sys::prctl::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0) }.map(drop)
}
