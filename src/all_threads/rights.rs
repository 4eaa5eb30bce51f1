//! Dropping rights of the process: ids and groups, `no_new_privs`, seccomp filters, Landlock.

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
/// // Groups first: a user without rights may not change them.
/// all_threads::setgroups(&[]).map_err(Error::errno_or_abort)?;
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

/// seteuid(3) of the process: only the effective user. `EINVAL` for `u32::MAX`, which is not an id.
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
/// ```no_run
/// use rt0::all_threads::{self, Error};
///
/// // Drop rights for a while: real and saved user stay.
/// all_threads::seteuid(1000).map_err(Error::errno_or_abort)?;
/// all_threads::setegid(1000).map_err(Error::errno_or_abort)?;
/// // For good: all ids.
/// all_threads::setresgid(1000, 1000, 1000).map_err(Error::errno_or_abort)?;
/// all_threads::setresuid(1000, 1000, 1000).map_err(Error::errno_or_abort)?;
/// // The same by the older calls, which also set the saved ids.
/// all_threads::setregid(1000, 1000).map_err(Error::errno_or_abort)?;
/// all_threads::setreuid(1000, 1000).map_err(Error::errno_or_abort)?;
/// # Ok::<(), rt0::Errno>(())
/// ```
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

/// prctl(2), `PR_SET_NO_NEW_PRIVS`, of the process: no execve(2) ever gives it more rights.
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

/// seccomp(2), `SECCOMP_SET_MODE_FILTER`: a filter on all threads. The kernel itself installs it on
/// all or none (`SECCOMP_FILTER_FLAG_TSYNC`).
///
/// Errors: `EACCES`, [`set_no_new_privs`] was not called and the caller does not have
/// CAP_SYS_ADMIN; `ESRCH`, another thread has a filter that the caller does not have; `EINVAL`, the
/// filter is invalid; `ENOSYS`, an emulator does not provide the call.
///
/// ```no_run
/// use rt0::all_threads::{self, Error, FilterStep};
///
/// /// `BPF_RET | BPF_K` of `SECCOMP_RET_ALLOW`: this filter allows everything.
/// const ALLOW: [FilterStep; 1] = [FilterStep { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 }];
///
/// all_threads::set_no_new_privs().map_err(Error::errno_or_abort)?;
/// // SAFETY: 1. It changes no result.
/// unsafe { all_threads::seccomp(&ALLOW) }.map_err(Error::errno_or_abort)?;
/// # Ok::<(), rt0::Errno>(())
/// ```
///
/// In handlers: yes.
///
/// # Safety
///
/// 1. If the filter chooses the result of a call, it is one that the kernel could return: rt0 and
///    the program rely on it.
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

/// landlock_restrict_self(2) of the process, with the call's `flags`. Linux 7.0 restricts all
/// threads itself (`LANDLOCK_RESTRICT_SELF_TSYNC`); before, each thread makes the call.
///
/// ```no_run
/// use linux_raw_sys::general::__NR_landlock_create_ruleset;
/// use rt0::all_threads::{self, Error};
/// use rt0::sys::{self, OwnedFd};
///
/// /// The first word of struct landlock_ruleset_attr: no file may be executed.
/// static EXECUTE: u64 = 1;
///
/// let args = [(&raw const EXECUTE).expose_provenance(), size_of::<u64>(), 0, 0, 0, 0];
/// // SAFETY: the kernel reads the word.
/// let ruleset = unsafe { sys::syscall(__NR_landlock_create_ruleset as usize, args) }?;
/// // SAFETY: 1. It is new.
/// let ruleset = unsafe { OwnedFd::from_raw_fd(ruleset as i32) };
/// all_threads::set_no_new_privs().map_err(Error::errno_or_abort)?;
/// all_threads::landlock_restrict_self(&ruleset, 0).map_err(Error::errno_or_abort)?;
/// # Ok::<(), rt0::Errno>(())
/// ```
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
