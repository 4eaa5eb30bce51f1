//! Descriptors, and the calls on files.

use core::ffi::CStr;

use linux_raw_sys::general as k;

use super::form::{Form, Preference, narrow, timed};
use super::{AsFd, OwnedFd, RawFd, Timespec, at, call};
use crate::arch::{Arch, Cpu, Timed};
use crate::errno::{Errno, Result};

/// The number of a descriptor, as an argument.
fn number(fd: &impl AsFd) -> usize {
    fd.as_fd().as_raw_fd() as usize
}

/// The descriptor that a call has just opened.
fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: 1. No other code knows its number.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// read(2): the number of bytes read, 0 at the end. `EINTR`, `EAGAIN`, `EBADF`, `EIO`, `EISDIR`.
///
/// In handlers: yes.
pub fn read(fd: impl AsFd, buf: &mut [u8]) -> Result<usize> {
    // SAFETY: 1. The kernel writes into `buf` only.
    unsafe { call!(__NR_read, number(&fd), at(buf), buf.len()) }
}

/// pread(2): as [`read`], from `offset` bytes after the file's start; the file's position does not
/// matter and stays. `ESPIPE` for a pipe or a socket, `EINVAL` for an offset above `i64::MAX`.
///
/// ```no_run
/// use linux_raw_sys::general::O_RDONLY;
/// use rt0::sys;
///
/// let file = sys::open(c"/proc/self/exe", O_RDONLY, 0)?;
/// let mut ident = [0; 16];
/// assert_eq!(sys::pread(&file, &mut ident, 0)?, 16);
/// # Ok::<(), rt0::Errno>(())
/// ```
///
/// In handlers: yes.
pub fn pread(fd: impl AsFd, buf: &mut [u8], offset: u64) -> Result<usize> {
    const { assert!(usize::BITS == 32 || !Cpu::EVEN_PAIRS, "64-bit registers need no pairs") };
    let (fd, to, len) = (number(&fd), at(buf), buf.len());
    if usize::BITS == 64 {
        // SAFETY: 1. The kernel writes into `buf` only.
        return unsafe { call!(__NR_pread64, fd, to, len, offset as usize) };
    }
    let (high, low) = ((offset >> 32) as usize, offset as usize);
    let (first, second) = if cfg!(target_endian = "big") { (high, low) } else { (low, high) };
    if Cpu::EVEN_PAIRS {
        // SAFETY: 1. The kernel writes into `buf` only.
        unsafe { call!(__NR_pread64, fd, to, len, 0, first, second) }
    } else {
        // SAFETY: 1. The kernel writes into `buf` only.
        unsafe { call!(__NR_pread64, fd, to, len, first, second) }
    }
}

/// write(2): the number of bytes written, which may be fewer. `EINTR`, `EAGAIN`, `EBADF`, `EIO`,
/// `ENOSPC`, `EPIPE`.
///
/// In handlers: yes.
pub fn write(fd: impl AsFd, buf: &[u8]) -> Result<usize> {
    // SAFETY: 1. The kernel only reads `buf`.
    unsafe { call!(__NR_write, number(&fd), at(buf), buf.len()) }
}

/// openat(2) relative to the working directory. `ENOENT`, `EACCES`, `EMFILE`, `EINTR`, … Flags are
/// the machine's `O_*`.
///
/// In handlers: yes.
pub fn open(path: &CStr, flags: u32, mode: u32) -> Result<OwnedFd> {
    // SAFETY: 1. The kernel only reads the path.
    let fd = unsafe { call!(__NR_openat, AT_FDCWD, at(path.as_ptr()), (flags | LARGE) as usize, mode as usize) }?;
    Ok(owned(fd as RawFd))
}

const AT_FDCWD: usize = k::AT_FDCWD as isize as usize;

/// Without it a 32-bit kernel refuses files of 2 GiB and more; a 64-bit one needs no flag.
const LARGE: u32 = if usize::BITS == 32 { k::O_LARGEFILE } else { 0 };

/// All `O_*` flags that openat(2) takes, with this machine's values, but two: [`open`] adds
/// `O_LARGEFILE` where it is needed, and `O_ASYNC` has an effect in fcntl(2) only.
pub mod flags {
    use linux_raw_sys::general as k;

    /// Open for reading.
    pub const O_RDONLY: u32 = k::O_RDONLY;
    /// Open for writing.
    pub const O_WRONLY: u32 = k::O_WRONLY;
    /// Open for both.
    pub const O_RDWR: u32 = k::O_RDWR;
    /// Only name a file: neither read nor write it, but pass the descriptor to calls that take one
    /// for a place.
    pub const O_PATH: u32 = k::O_PATH;

    /// Create the file if it does not exist.
    pub const O_CREAT: u32 = k::O_CREAT;
    /// With `O_CREAT`: fail if the file exists.
    pub const O_EXCL: u32 = k::O_EXCL;
    /// Create a file without a name in the folder that is named; with `O_WRONLY` or `O_RDWR`.
    pub const O_TMPFILE: u32 = k::O_TMPFILE;
    /// Truncate the file to length 0.
    pub const O_TRUNC: u32 = k::O_TRUNC;

    /// Fail unless it is a folder.
    pub const O_DIRECTORY: u32 = k::O_DIRECTORY;
    /// Fail if the last part of the path is a symbolic link.
    pub const O_NOFOLLOW: u32 = k::O_NOFOLLOW;
    /// A terminal does not become the controlling terminal of the process.
    pub const O_NOCTTY: u32 = k::O_NOCTTY;
    /// Close the descriptor on execve(2).
    pub const O_CLOEXEC: u32 = k::O_CLOEXEC;

    /// Write always at the end of the file.
    pub const O_APPEND: u32 = k::O_APPEND;
    /// Neither opening nor reading and writing waits: `EAGAIN` instead.
    pub const O_NONBLOCK: u32 = k::O_NONBLOCK;
    /// A write returns when the data is on the device, with the metadata that reading it needs.
    pub const O_DSYNC: u32 = k::O_DSYNC;
    /// A write returns when data and metadata are on the device.
    pub const O_SYNC: u32 = k::O_SYNC;
    /// Read and write past the page cache; open(2) says what must be aligned.
    pub const O_DIRECT: u32 = k::O_DIRECT;
    /// Reading does not change the time of the last access. `EPERM` unless the process owns the
    /// file.
    pub const O_NOATIME: u32 = k::O_NOATIME;
}

/// getdents64(2): entries of a folder, for [`dirents`]; 0 bytes at the end. `EINVAL` if not one
/// fits.
pub(crate) fn getdents64(fd: RawFd, buf: &mut [u8]) -> Result<usize> {
    // SAFETY: 1. The kernel writes into `buf` only.
    unsafe { call!(__NR_getdents64, fd as usize, at(buf), buf.len()) }
}

/// The names of the entries that [`getdents64`] filled in.
pub(crate) fn dirents(mut filled: &[u8]) -> impl Iterator<Item = &CStr> {
    const NAME: usize = memoffset::offset_of!(k::linux_dirent64, d_name);
    const LEN: usize = memoffset::offset_of!(k::linux_dirent64, d_reclen);
    core::iter::from_fn(move || {
        let len = u16::from_ne_bytes([*filled.get(LEN)?, *filled.get(LEN + 1)?]);
        let (entry, rest) = filled.split_at_checked(len.into())?;
        filled = rest;
        CStr::from_bytes_until_nul(entry.get(NAME..)?).ok()
    })
}

/// readlinkat(2) relative to the working directory: the bytes of the link's text, cut to `buf`.
/// `ENOENT`, `EACCES`, …
pub(crate) fn readlink(path: &CStr, buf: &mut [u8]) -> Result<usize> {
    // SAFETY: 1. The kernel reads the path and writes into `buf`.
    unsafe { call!(__NR_readlinkat, AT_FDCWD, at(path.as_ptr()), at(buf), buf.len()) }
}

/// statx(2) relative to the working directory: how many links a file has. `ENOENT`, `EACCES`, …;
/// `ENOSYS` before Linux 4.11.
pub(crate) fn statx_links(path: &CStr) -> Result<usize> {
    let mut found = core::mem::MaybeUninit::<k::statx>::uninit();
    let (flags, mask) = (k::AT_STATX_SYNC_AS_STAT as usize, k::STATX_NLINK as usize);
    // SAFETY: 1. The kernel reads the path and writes the structure.
    unsafe { call!(__NR_statx, AT_FDCWD, at(path.as_ptr()), flags, mask, at(found.as_mut_ptr())) }?;
    // SAFETY: the kernel has written all of it.
    Ok(unsafe { found.assume_init() }.stx_nlink as usize)
}

/// dup(2). `EBADF` if `fd` is not open, `EMFILE`.
///
/// In handlers: yes.
pub fn dup(fd: impl AsFd) -> Result<OwnedFd> {
    // SAFETY: 1. It touches no memory.
    let copy = unsafe { call!(__NR_dup, number(&fd)) }?;
    Ok(owned(copy as RawFd))
}

/// ppoll(2) without waiting: the kernel reports `POLLNVAL` for each descriptor that is not open,
/// and errors. `EINVAL` if `fds` has more entries than `RLIMIT_NOFILE`; `ENOSYS` from a filter, or
/// a kernel without the call.
pub(crate) fn poll_now(fds: &mut [k::pollfd]) -> Result<usize> {
    // A zero span in either width; the kernel writes back what is left of it.
    let mut zero = [0u64; 2];
    let nr = match Cpu::PPOLL {
        Timed::Wide(nr) | Timed::Split { narrow: nr, .. } => nr as usize,
    };
    // SAFETY: 1. The kernel writes the `revents` of `fds` and the span; no signal mask is given.
    unsafe { call!(@ nr, at(fds), fds.len(), at(&raw mut zero), 0, 0) }
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
    // SAFETY: 1. Just opened.
    let write = unsafe { OwnedFd::from_raw_fd(fds[1]) };
    Ok((read, write))
}

/// dup3(2): makes `new` a copy of `old`; a descriptor `new` that was open is closed. `flags` is 0
/// or `O_CLOEXEC`. `EBADF`, also for a `new` above the limit; `EINVAL` if both are the same.
///
/// # Safety
///
/// 1. No other code uses the descriptor that was open as `new`.
pub(crate) unsafe fn dup3(old: RawFd, new: RawFd, flags: u32) -> Result<()> {
    // SAFETY: the caller guarantees 1; it touches no memory.
    unsafe { call!(__NR_dup3, old as usize, new as usize, flags as usize) }.map(drop)
}

/// ppoll(2) for at most `timeout`, or without a limit: the number of `fds` with an event, 0 after
/// the timeout. `EINTR`, `EINVAL` if `fds` has more entries than `RLIMIT_NOFILE`.
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

/// eventfd2(2), close-on-exec and non-blocking, with the counter at 0. `EMFILE`, `ENFILE`,
/// `ENOMEM`.
pub(crate) fn eventfd() -> Result<OwnedFd> {
    // SAFETY: 1. It touches no memory.
    let fd = unsafe { call!(__NR_eventfd2, 0, (k::EFD_CLOEXEC | k::EFD_NONBLOCK) as usize) }?;
    // SAFETY: 1. Just opened.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pread_reads_at_any_offset() {
        let file = open(c"/proc/self/exe", k::O_RDONLY | k::O_CLOEXEC, 0).unwrap();
        let mut bytes = [0; 4];
        assert_eq!(pread(&file, &mut bytes, 0), Ok(4));
        assert_eq!(&bytes, b"\x7fELF");
        assert_eq!(pread(&file, &mut bytes, 1 << 40), Ok(0));
        assert_eq!(pread(&file, &mut bytes, u64::MAX), Err(Errno::EINVAL));
    }
}
