//! Rights that a process gives up: ids and groups, `no_new_privs`, seccomp filters, Landlock.

use linux_raw_sys::{general as k, prctl};

use super::{Error, Result, syscall};
use crate::arch::{Arch, Cpu};
use crate::errno::Errno;
use crate::sys;

/// setuid(2) of the process.
///
/// ```no_run
/// use rt0::all_threads::{self, Error};
///
/// // Group first: a user without rights may not change it.
/// all_threads::setgid(1000).map_err(Error::errno_or_abort)?;
/// all_threads::setuid(1000).map_err(Error::errno_or_abort)?;
/// # Ok::<(), rt0::Errno>(())
/// ```
///
/// In handlers: no, it waits for threads that start and end.
pub fn setuid(uid: u32) -> Result<()> {
    // SAFETY: 1. It touches no memory.
    unsafe { syscall(Cpu::CREDENTIALS.setuid as usize, [uid as usize, 0, 0, 0, 0, 0]) }.map(drop)
}

/// setgid(2) of the process.
///
/// In handlers: no, it waits for threads that start and end.
pub fn setgid(gid: u32) -> Result<()> {
    // SAFETY: 1. It touches no memory.
    unsafe { syscall(Cpu::CREDENTIALS.setgid as usize, [gid as usize, 0, 0, 0, 0, 0]) }.map(drop)
}

/// setgroups(2) of the process.
///
/// In handlers: no, it waits for threads that start and end.
pub fn setgroups(gids: &[u32]) -> Result<()> {
    let args = [gids.len(), gids.as_ptr().expose_provenance(), 0, 0, 0, 0];
    // SAFETY: 1. The kernel only reads the ids.
    unsafe { syscall(Cpu::CREDENTIALS.setgroups as usize, args) }.map(drop)
}

/// setreuid(2) of the process: real and effective user. `u32::MAX` leaves one as it is.
///
/// In handlers: no, it waits for threads that start and end.
pub fn setreuid(real: u32, effective: u32) -> Result<()> {
    let args = [real as usize, effective as usize, 0, 0, 0, 0];
    // SAFETY: 1. It touches no memory.
    unsafe { syscall(Cpu::CREDENTIALS.setreuid as usize, args) }.map(drop)
}

/// seteuid(3) of the process: the effective user alone. `EINVAL` for `u32::MAX`, which is no id.
///
/// In handlers: no, it waits for threads that start and end.
pub fn seteuid(effective: u32) -> Result<()> {
    if effective == u32::MAX {
        return Err(Error::Refused(Errno::EINVAL));
    }
    setresuid(u32::MAX, effective, u32::MAX)
}

/// setregid(2) of the process: real and effective group. `u32::MAX` leaves one as it is.
///
/// In handlers: no, it waits for threads that start and end.
pub fn setregid(real: u32, effective: u32) -> Result<()> {
    let args = [real as usize, effective as usize, 0, 0, 0, 0];
    // SAFETY: 1. It touches no memory.
    unsafe { syscall(Cpu::CREDENTIALS.setregid as usize, args) }.map(drop)
}

/// setegid(3) of the process: the effective group alone. `EINVAL` for `u32::MAX`, which is no id.
///
/// In handlers: no, it waits for threads that start and end.
pub fn setegid(effective: u32) -> Result<()> {
    if effective == u32::MAX {
        return Err(Error::Refused(Errno::EINVAL));
    }
    setresgid(u32::MAX, effective, u32::MAX)
}

/// setresuid(2) of the process: real, effective and saved user. `u32::MAX` leaves one as it is.
///
/// In handlers: no, it waits for threads that start and end.
pub fn setresuid(real: u32, effective: u32, saved: u32) -> Result<()> {
    let args = [real as usize, effective as usize, saved as usize, 0, 0, 0];
    // SAFETY: 1. It touches no memory.
    unsafe { syscall(Cpu::CREDENTIALS.setresuid as usize, args) }.map(drop)
}

/// setresgid(2) of the process: real, effective and saved group. `u32::MAX` leaves one as it is.
///
/// In handlers: no, it waits for threads that start and end.
pub fn setresgid(real: u32, effective: u32, saved: u32) -> Result<()> {
    let args = [real as usize, effective as usize, saved as usize, 0, 0, 0];
    // SAFETY: 1. It touches no memory.
    unsafe { syscall(Cpu::CREDENTIALS.setresgid as usize, args) }.map(drop)
}

/// prctl(2), `PR_SET_NO_NEW_PRIVS`, of the process: no execve(2) gives it more rights, for good.
///
/// In handlers: no, it waits for threads that start and end.
pub fn set_no_new_privs() -> Result<()> {
    // SAFETY: 1. It touches no memory.
    unsafe { syscall(k::__NR_prctl as usize, [prctl::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0, 0]) }.map(drop)
}

/// An instruction of a seccomp filter: struct sock_filter.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterStep {
    /// What it does.
    pub code: u16,
    /// How many instructions to skip if its condition is met.
    pub jt: u8,
    /// How many instructions to skip if not.
    pub jf: u8,
    /// Its operand.
    pub k: u32,
}

/// seccomp(2), `SECCOMP_SET_MODE_FILTER`: a filter on all threads, by the kernel itself
/// (`SECCOMP_FILTER_FLAG_TSYNC`), so all or none. Either [`set_no_new_privs`] was called or the
/// caller has CAP_SYS_ADMIN, else `EACCES`. `ESRCH`, a thread has a filter of its own that the
/// caller has not; `EINVAL`, the filter makes no sense; `ENOSYS`, an emulator.
///
/// In handlers: yes.
///
/// # Safety
///
/// 1. What the filter lets a call return is what the kernel could return: rt0 and the program
///    believe it.
pub unsafe fn seccomp(filter: &[FilterStep]) -> Result<()> {
    #[repr(C)]
    struct Program(u16, *const FilterStep); // struct sock_fprog
    const SET_MODE_FILTER: usize = 1; // linux/seccomp.h, which linux-raw-sys leaves out.
    const FLAG_TSYNC: usize = 1;
    let len = filter.len().try_into().map_err(|_| Errno::EINVAL)?;
    filter.as_ptr().expose_provenance();
    let program = Program(len, filter.as_ptr());
    let args = [SET_MODE_FILTER, FLAG_TSYNC, (&raw const program).expose_provenance(), 0, 0, 0];
    // SAFETY: 1. The kernel only reads the filter, and the caller guarantees what it does (1).
    match unsafe { sys::syscall(k::__NR_seccomp as usize, args) }? {
        0 => Ok(()),
        // The id of a thread that has a filter of its own; as with TSYNC_ESRCH.
        _tid => Err(Error::Refused(Errno::ESRCH)),
    }
}

/// landlock_restrict_self(2) of the process, with `flags` as there. Linux 7.0 does it itself
/// (`LANDLOCK_RESTRICT_SELF_TSYNC`); before, each thread does.
///
/// In handlers: no, it waits for threads that start and end.
pub fn landlock_restrict_self(ruleset: impl sys::AsFd, flags: u32) -> Result<()> {
    const TSYNC: u32 = 1 << 3; // linux/landlock.h, newer than linux-raw-sys.
    let nr = k::__NR_landlock_restrict_self as usize;
    let ruleset = ruleset.as_fd().as_raw_fd();
    let args = |flags: u32| [ruleset as usize, flags as usize, 0, 0, 0, 0];
    // SAFETY: 1. It touches no memory.
    match unsafe { sys::syscall(nr, args(flags | TSYNC)) } {
        // A kernel that does not know the flag, or a mistake that it will find again.
        // SAFETY: 1. It touches no memory.
        Err(Errno::EINVAL) => unsafe { syscall(nr, args(flags & !TSYNC)) }.map(drop),
        done => Ok(done.map(drop)?),
    }
}
