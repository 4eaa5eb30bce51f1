//! Signals: see [`crate::signal`] for the typed form.

use core::ptr::{null, null_mut};

use linux_raw_sys::general as k;

use super::form::{Form, Preference, narrow, timed};
use super::{Timespec, at, call, die, getpid, syscall};
use crate::arch::{Arch, Cpu, Restorer};
use crate::errno::{Errno, Result};

/// rt_sigaction(2). `EINVAL` for a number that does not exist or cannot be caught.
///
/// # Safety
///
/// 1. The handler in `new` may run at any instruction of any thread.
pub(crate) unsafe fn rt_sigaction(
    sig: u32,
    new: Option<&<Cpu as Arch>::Sigaction>,
    old: Option<&mut <Cpu as Arch>::Sigaction>,
) -> Result<()> {
    let new = new.map_or(null(), |new| new as *const _);
    let old = old.map_or(null_mut(), |old| old as *mut _);
    let size = size_of::<k::kernel_sigset_t>();
    match Cpu::RESTORER {
        // SAFETY: the caller guarantees 1; the structs are of this machine's layout. To return
        // there is what a handler must do.
        Restorer::Argument(f) => unsafe { call!(__NR_rt_sigaction, sig as usize, at(new), at(old), f as usize, size) },
        // SAFETY: the caller guarantees 1; the structs are of this machine's layout.
        _ => unsafe { call!(__NR_rt_sigaction, sig as usize, at(new), at(old), size) },
    }
    .map(drop)
}

/// rt_sigprocmask(2): sets the calling thread's mask as `how` says and returns the mask before it.
/// It fails only for a bad `how` or a set of the wrong size, which would be rt0's own mistake.
///
/// # Safety
///
/// 1. If a signal becomes deliverable here, its handler may run here.
pub(crate) unsafe fn rt_sigprocmask(how: u32, new: &k::kernel_sigset_t) -> k::kernel_sigset_t {
    let mut old = *new;
    // SAFETY: the caller guarantees 1; the sets are of this machine's size.
    let done =
        unsafe { call!(__NR_rt_sigprocmask, how as usize, at(new), at(&raw mut old), size_of::<k::kernel_sigset_t>()) };
    done.unwrap_or_else(|errno| die("rt_sigprocmask", errno));
    old
}

/// sigaltstack(2): sets the calling thread's signal stack, if `new` is given; `old` is the one
/// before. `ENOMEM` if it is smaller than the kernel's minimum, `EPERM` if the caller runs on it.
///
/// # Safety
///
/// 1. As long as `new` is this thread's signal stack, its memory is mapped and used for nothing
///    else.
/// 2. It is large enough for the handlers that run on it.
pub(crate) unsafe fn sigaltstack(new: Option<&k::sigaltstack>, old: Option<&mut k::sigaltstack>) -> Result<()> {
    let new = new.map_or(null(), |new| new as *const k::sigaltstack);
    let old = old.map_or(null_mut(), |old| old as *mut k::sigaltstack);
    // SAFETY: the caller guarantees 1; the kernel writes `old`.
    unsafe { call!(__NR_sigaltstack, at(new), at(old)) }.map(drop)
}

/// kill(2): `pid` is a process's id, 0 for the caller's group, -1 for all processes, or the
/// negative id of a group. Signal 0 only checks whether it exists. `ESRCH`, `EPERM`, `EINVAL`.
///
/// In handlers: yes.
pub fn kill(pid: i32, sig: u32) -> Result<()> {
    // SAFETY: 1. A signal is no memory access; and the code that installed its action
    // vouched for it.
    unsafe { call!(__NR_kill, pid as usize, sig as usize) }.map(drop)
}

/// The size of a set, as the calls that take one ask for it.
const SET: usize = size_of::<k::kernel_sigset_t>();

/// rt_sigtimedwait(2): takes a pending signal of `set`, or waits for one, for at most `timeout` or
/// without a limit, and returns the kernel's information about it. `EAGAIN` after the timeout;
/// `EINTR` when a handler of another signal ran.
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

/// rt_sigsuspend(2): blocks exactly `mask` until a handler has run, then restores the mask before.
/// Returns `EINTR`, unless a filter refuses the call.
///
/// # Safety
///
/// 1. The handlers of signals that become deliverable may run here.
pub(crate) unsafe fn rt_sigsuspend(mask: &k::kernel_sigset_t) -> Errno {
    // SAFETY: the caller guarantees 1; the kernel reads the set.
    unsafe { call!(__NR_rt_sigsuspend, at(mask), SET) }.err().unwrap_or(Errno::EINTR)
}

/// rt_sigqueueinfo(2) with `SI_QUEUE`, as sigqueue(3): `value` comes with the signal. `EAGAIN` over
/// `RLIMIT_SIGPENDING`, `ESRCH`, `EPERM`, `EINVAL`.
pub(crate) fn rt_sigqueueinfo(pid: u32, sig: u32, value: usize) -> Result<()> {
    // SAFETY: the struct is numbers, for which all zeros are valid.
    let mut info: k::siginfo_t = unsafe { core::mem::zeroed() };
    let mut rt = k::__sifields__bindgen_ty_3 {
        _pid: getpid() as _,
        _uid: getuid(),
        _sigval: k::sigval { sival_ptr: core::ptr::null_mut() },
    };
    rt._sigval.sival_ptr = core::ptr::without_provenance_mut(value);
    // SAFETY: all signals have this part.
    let head = unsafe { &mut info.__bindgen_anon_1.__bindgen_anon_1 };
    head.si_signo = sig as i32;
    head.si_code = k::SI_QUEUE;
    head._sifields._rt = rt;
    // SAFETY: 1. The kernel reads `info`. A signal is no memory access.
    unsafe { call!(__NR_rt_sigqueueinfo, pid as usize, sig as usize, at(&raw const info)) }.map(drop)
}

/// getuid(2), of 32 bits on every machine.
fn getuid() -> u32 {
    // SAFETY: 1. It touches no memory; it cannot fail.
    unsafe { syscall(Cpu::CREDENTIALS.getuid as usize, [0; 6]) }.unwrap_or(0) as u32
}
