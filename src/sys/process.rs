//! The calls that start, end and wait for processes, and those that send and wait for signals.

use core::convert::Infallible;
use core::ffi::{CStr, c_char};

use linux_raw_sys::general as k;

use super::{Form, OwnedFd, Preference, RawFd, Timespec, at, call, narrow, syscall, timed};
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
    // SAFETY: 1. and 2. are our caller's; the kernel reads the strings.
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

/// waitid(2) with `options`: `None` if `WNOHANG` is among them and no such child has changed.
/// `ECHILD` if there is no such child (any more), `EINTR`, `EINVAL`.
pub(crate) fn waitid(which: Which, options: u32) -> Result<Option<Waited>> {
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

/// kill(2): `pid` as there: a process, 0 for the own group, -1 for all, or the negative number of a
/// group. Signal 0 only asks. `ESRCH`, `EPERM`, `EINVAL`.
///
/// In handlers: yes.
pub fn kill(pid: i32, sig: u32) -> Result<()> {
    // SAFETY: 1. A signal is no memory access; what its action does is the affair of the code that
    // installed it.
    unsafe { call!(__NR_kill, pid as usize, sig as usize) }.map(drop)
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
    // SAFETY: 1. As for `kill`; the kernel makes the siginfo_t itself.
    unsafe { call!(__NR_pidfd_send_signal, fd as usize, sig as usize, 0, 0) }.map(drop)
}

/// pipe2(2), close-on-exec: the end to read from and the end to write to. `EMFILE`, `ENFILE`.
///
/// In handlers: yes.
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0 as RawFd; 2];
    // SAFETY: 1. The kernel writes the two numbers.
    unsafe { call!(__NR_pipe2, at(&raw mut fds), k::O_CLOEXEC as usize) }?;
    // SAFETY: 1. Just opened.
    let read = unsafe { OwnedFd::from_raw_fd(fds[0]) };
    // SAFETY: 1. As above.
    let write = unsafe { OwnedFd::from_raw_fd(fds[1]) };
    Ok((read, write))
}

/// dup3(2): makes `new` a copy of `old`, and closes what `new` was. `flags` is 0 or `O_CLOEXEC`.
/// `EBADF`, also for a `new` above the limit; `EINVAL` if both are the same.
///
/// # Safety
///
/// 1. No other code relies on what `new` was.
pub(crate) unsafe fn dup3(old: RawFd, new: RawFd, flags: u32) -> Result<()> {
    // SAFETY: 1. is our caller's; it touches no memory.
    unsafe { call!(__NR_dup3, old as usize, new as usize, flags as usize) }.map(drop)
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

/// ppoll(2) for `timeout`, or without end: how many of `fds` have something to report, 0 after the
/// timeout. `EINTR`, `EINVAL` if `fds` has more entries than `RLIMIT_NOFILE`.
///
/// With 32 bits of seconds (kernels before 5.1 on 32-bit machines) a long timeout is cut to the
/// longest that fits.
pub(crate) fn ppoll(fds: &mut [k::pollfd], timeout: Option<&Timespec>) -> Result<usize> {
    let nr_and_time = |nr: usize, time: usize, fds: &mut [k::pollfd]| {
        // SAFETY: 1. The kernel writes the `revents` of `fds` and the time; no signal mask is
        // given.
        unsafe { call!(@ nr, at(fds), fds.len(), time, 0, 0) }
    };
    static FORM: Preference = Preference::new();
    timed(Cpu::PPOLL, &FORM, |form, nr| match (form, timeout) {
        (_, None) => nr_and_time(nr, 0, fds),
        // The kernel writes what is left of the time to it, so it gets a copy.
        (Form::Wide, Some(timeout)) => {
            let mut timeout = *timeout;
            nr_and_time(nr, at(&raw mut timeout), fds)
        }
        (Form::Narrow, Some(timeout)) => {
            let mut timeout = narrow(timeout);
            nr_and_time(nr, at(&raw mut timeout), fds)
        }
    })
}

/// The size of a set, as the calls that take one ask for it.
const SET: usize = size_of::<k::kernel_sigset_t>();

/// rt_sigtimedwait(2): takes a signal of `set` that is pending, or waits for one, for `timeout` or
/// without end; what the kernel says about it. `EAGAIN` after the timeout; `EINTR` when a handler
/// of another signal ran.
///
/// With 32 bits of seconds (kernels before 5.1 on 32-bit machines) a long timeout is cut to the
/// longest that fits.
pub(crate) fn rt_sigtimedwait(set: &k::kernel_sigset_t, timeout: Option<&Timespec>) -> Result<k::siginfo_t> {
    // SAFETY: the struct is numbers, for which all zeros are valid.
    let mut info: k::siginfo_t = unsafe { core::mem::zeroed() };
    let to = at(&raw mut info);
    let nr_and_time = |nr: usize, time: usize| {
        // SAFETY: 1. The kernel reads the set and the time, and writes `info`.
        unsafe { call!(@ nr, at(set), to, time, SET) }
    };
    static FORM: Preference = Preference::new();
    timed(Cpu::SIGTIMEDWAIT, &FORM, |form, nr| match (form, timeout) {
        (_, None) => nr_and_time(nr, 0),
        (Form::Wide, Some(timeout)) => nr_and_time(nr, at(timeout)),
        (Form::Narrow, Some(timeout)) => nr_and_time(nr, at(&narrow(timeout))),
    })?;
    Ok(info)
}

/// rt_sigpending(2): the signals that are blocked and pending, for the thread or the process.
pub(crate) fn rt_sigpending() -> Result<k::kernel_sigset_t> {
    let mut set = k::kernel_sigset_t { sig: [0; _] };
    // SAFETY: 1. The kernel writes the set.
    unsafe { call!(__NR_rt_sigpending, at(&raw mut set), SET) }?;
    Ok(set)
}

/// rt_sigsuspend(2): blocks exactly `mask` until a handler ran, then what was blocked before.
/// Always `EINTR`, but for a filter.
///
/// # Safety
///
/// 1. The handlers of what becomes deliverable are sound here.
pub(crate) unsafe fn rt_sigsuspend(mask: &k::kernel_sigset_t) -> Errno {
    // SAFETY: 1. is our caller's; the kernel reads the set.
    unsafe { call!(__NR_rt_sigsuspend, at(mask), SET) }.err().unwrap_or(Errno::EINTR)
}

/// rt_sigqueueinfo(2) with `SI_QUEUE`, as sigqueue(3): `value` comes with the signal. `EAGAIN` over
/// `RLIMIT_SIGPENDING`, `ESRCH`, `EPERM`, `EINVAL`.
pub(crate) fn rt_sigqueueinfo(pid: u32, sig: u32, value: usize) -> Result<()> {
    // SAFETY: the struct is numbers, for which all zeros are valid.
    let mut info: k::siginfo_t = unsafe { core::mem::zeroed() };
    let mut rt = k::__sifields__bindgen_ty_3 {
        _pid: super::getpid() as _,
        _uid: getuid(),
        _sigval: k::sigval { sival_ptr: core::ptr::null_mut() },
    };
    rt._sigval.sival_ptr = core::ptr::without_provenance_mut(value);
    // SAFETY: all signals have this part.
    let head = unsafe { &mut info.__bindgen_anon_1.__bindgen_anon_1 };
    head.si_signo = sig as i32;
    head.si_code = k::SI_QUEUE;
    head._sifields._rt = rt;
    // SAFETY: 1. The kernel reads `info`; as for `kill`.
    unsafe { call!(__NR_rt_sigqueueinfo, pid as usize, sig as usize, at(&raw const info)) }.map(drop)
}

/// getuid(2), of 32 bits on every machine.
fn getuid() -> u32 {
    // SAFETY: 1. It touches no memory; it cannot fail.
    unsafe { syscall(Cpu::CREDENTIALS.getuid as usize, [0; 6]) }.unwrap_or(0) as u32
}

/// eventfd2(2), close-on-exec and non-blocking, with the counter at 0. `EMFILE`, `ENFILE`,
/// `ENOMEM`.
pub(crate) fn eventfd() -> Result<OwnedFd> {
    // SAFETY: 1. It touches no memory.
    let fd = unsafe { call!(__NR_eventfd2, 0, (k::EFD_CLOEXEC | k::EFD_NONBLOCK) as usize) }?;
    // SAFETY: 1. Just opened.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}
