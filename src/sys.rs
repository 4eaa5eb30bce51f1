//! One function per Linux call that rt0 uses, with the names and argument order of section 2 of the manual.
//!
//! This is the only caller of the machine's stubs. What differs by machine in the way a call is made (mmap's forms, the
//! two widths of a timespec) ends here; everything above sees one call. For a call that is not here, there is
//! [`syscall`]. Numbers of calls and flags are the machine's, as the crate `linux-raw-sys` has them (in `general`); rt0
//! uses it and does not export it.
//!
//! Every function returns the kernel's own [`Errno`]; the documentation names those that a correct caller can meet.

mod form;
mod process;
mod release;

use core::ffi::CStr;
use core::ptr::{null, null_mut};
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};

use linux_raw_sys::general as k;
use static_assertions::{assert_eq_align, assert_eq_size};

use crate::arch::{Arch, CloneArgs, Cpu, Mmap, Restorer, Timed};
use crate::errno::{Errno, Result};
use form::{Form, Preference};

pub(crate) use process::*;
pub use process::{kill, pipe};

/// A file descriptor's number.
pub type RawFd = i32;

/// A moment or a span, as the kernel takes it on every machine.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timespec {
    /// Seconds.
    pub tv_sec: i64,
    /// Nanoseconds, 0..=999,999,999.
    pub tv_nsec: i64,
}

assert_eq_size!(Timespec, k::__kernel_timespec);
assert_eq_align!(Timespec, k::__kernel_timespec);
const _: () = assert!(memoffset::offset_of!(Timespec, tv_nsec) == memoffset::offset_of!(k::__kernel_timespec, tv_nsec));

impl Timespec {
    /// A moment from a kernel that has 32 bits for the seconds. Read as unsigned, they last until 2106; no clock of the
    /// kernel shows a time before its zero.
    pub(crate) fn from_narrow(narrow: k::__kernel_old_timespec) -> Timespec {
        Timespec { tv_sec: narrow.tv_sec as u32 as i64, tv_nsec: narrow.tv_nsec as i64 }
    }
}

/// An open file, closed when dropped.
#[derive(Debug)]
pub struct OwnedFd(RawFd);

impl OwnedFd {
    /// Takes over an open descriptor.
    ///
    /// In handlers: yes.
    ///
    /// # Safety
    ///
    /// 1. `fd` is open, and nobody else will close it.
    pub const unsafe fn from_raw_fd(fd: RawFd) -> OwnedFd {
        OwnedFd(fd)
    }

    /// Its number, for a call; it stays open and owned.
    ///
    /// In handlers: yes.
    pub const fn as_raw_fd(&self) -> RawFd {
        self.0
    }

    /// Its number, no longer owned.
    ///
    /// In handlers: yes.
    pub const fn into_raw_fd(self) -> RawFd {
        let fd = self.0;
        core::mem::forget(self);
        fd
    }
}

impl Drop for OwnedFd {
    fn drop(&mut self) {
        // The descriptor is gone whatever close(2) says; its errors report what an earlier write lost.
        // SAFETY: 1. close touches no memory, and the number is ours.
        let _ = unsafe { call!(__NR_close, self.0 as usize) };
    }
}

/// `Errno::check` of a stub, chosen by the number of arguments.
macro_rules! call {
    ($nr:ident $(, $arg:expr)*) => { call!(@ k::$nr as usize $(, $arg)*) };
    (@ $nr:expr) => { Errno::check(Cpu::syscall0($nr)) };
    (@ $nr:expr, $a:expr) => { Errno::check(Cpu::syscall1($nr, $a)) };
    (@ $nr:expr, $a:expr, $b:expr) => { Errno::check(Cpu::syscall2($nr, $a, $b)) };
    (@ $nr:expr, $a:expr, $b:expr, $c:expr) => { Errno::check(Cpu::syscall3($nr, $a, $b, $c)) };
    (@ $nr:expr, $a:expr, $b:expr, $c:expr, $d:expr) => { Errno::check(Cpu::syscall4($nr, $a, $b, $c, $d)) };
    (@ $nr:expr, $a:expr, $b:expr, $c:expr, $d:expr, $e:expr) => {
        Errno::check(Cpu::syscall5($nr, $a, $b, $c, $d, $e))
    };
    (@ $nr:expr, $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f:expr) => {
        Errno::check(Cpu::syscall6($nr, $a, $b, $c, $d, $e, $f))
    };
}
use call;

/// An address as the kernel takes it: the kernel reads or writes there, so its provenance is exposed.
fn at<T: ?Sized>(pointer: *const T) -> usize {
    pointer.expose_provenance()
}

/// syscall(2): any call, by its number on this machine.
///
/// What the kernel returns as -4095..=-1 is an error. Of a few calls it is not: getuid(2),
/// geteuid(2), getgid(2), getegid(2), setfsuid(2) and setfsgid(2) cannot fail, and on 32-bit machines
/// ids from 2^32 - 4095 on look like errors. Those come back as ids, all but 2^32 - 1, which is no
/// id. (So of these calls there, only `EPERM` can be told if a filter refuses them.)
///
/// In handlers: yes.
///
/// # Safety
///
/// 1. The call, with these arguments, does nothing to memory or to this process that the caller may not do.
pub unsafe fn syscall(nr: usize, args: [usize; 6]) -> Result<usize> {
    let [a, b, c, d, e, f] = args;
    // SAFETY: 1. is our caller's.
    result_of(nr, unsafe { Cpu::syscall6(nr, a, b, c, d, e, f) })
}

/// What the raw result of a call means: see [`syscall`].
#[inline]
pub(crate) fn result_of(nr: usize, ret: isize) -> Result<usize> {
    const NO_ID: isize = -1;
    match Errno::check(ret) {
        Err(_) if usize::BITS == 32 && ret != NO_ID && Cpu::CREDENTIALS.ids.contains(&(nr as u32)) => Ok(ret as usize),
        done => done,
    }
}

// Files.

/// read(2): the number of bytes read, 0 at the end. `EINTR`, `EAGAIN`, `EBADF`, `EIO`, `EISDIR`.
///
/// In handlers: yes.
pub fn read(fd: RawFd, buf: &mut [u8]) -> Result<usize> {
    // SAFETY: 1. The kernel writes into `buf` only.
    unsafe { call!(__NR_read, fd as usize, at(buf), buf.len()) }
}

/// pread(2): as [`read`], from `offset` bytes after the file's start, whatever its position is. `ESPIPE` for what has no
/// positions, `EINVAL` for an offset above `i64::MAX`.
///
/// In handlers: yes.
pub fn pread(fd: RawFd, buf: &mut [u8], offset: u64) -> Result<usize> {
    const { assert!(usize::BITS == 32 || !Cpu::EVEN_PAIRS, "64-bit registers need no pairs") };
    let (fd, to, len) = (fd as usize, at(buf), buf.len());
    if usize::BITS == 64 {
        // SAFETY: 1. The kernel writes into `buf` only.
        return unsafe { call!(__NR_pread64, fd, to, len, offset as usize) };
    }
    let (high, low) = ((offset >> 32) as usize, offset as usize);
    let (first, second) = if cfg!(target_endian = "big") { (high, low) } else { (low, high) };
    if Cpu::EVEN_PAIRS {
        // SAFETY: 1. As above.
        unsafe { call!(__NR_pread64, fd, to, len, 0, first, second) }
    } else {
        // SAFETY: 1. As above.
        unsafe { call!(__NR_pread64, fd, to, len, first, second) }
    }
}

/// write(2): the number of bytes written, which may be fewer. `EINTR`, `EAGAIN`, `EBADF`, `EIO`, `ENOSPC`, `EPIPE`.
///
/// In handlers: yes.
pub fn write(fd: RawFd, buf: &[u8]) -> Result<usize> {
    // SAFETY: 1. The kernel only reads `buf`.
    unsafe { call!(__NR_write, fd as usize, at(buf), buf.len()) }
}

/// openat(2) relative to the working directory. `ENOENT`, `EACCES`, `EMFILE`, `EINTR`, … Flags are the machine's `O_*`.
///
/// In handlers: yes.
pub fn open(path: &CStr, flags: u32, mode: u32) -> Result<OwnedFd> {
    // SAFETY: 1. The kernel only reads the path.
    let fd = unsafe { call!(__NR_openat, AT_FDCWD, at(path.as_ptr()), (flags | LARGE) as usize, mode as usize) }?;
    Ok(OwnedFd(fd as RawFd))
}

const AT_FDCWD: usize = k::AT_FDCWD as isize as usize;

/// Without it a 32-bit kernel refuses files of 2 GiB and more; a 64-bit one needs no flag.
const LARGE: u32 = if usize::BITS == 32 { k::O_LARGEFILE } else { 0 };

/// The `O_*` flags of openat(2) that differ by machine.
pub mod flags {
    use linux_raw_sys::general as k;

    /// Open for reading.
    pub const O_RDONLY: u32 = k::O_RDONLY;
    /// Open for writing.
    pub const O_WRONLY: u32 = k::O_WRONLY;
    /// Open for both.
    pub const O_RDWR: u32 = k::O_RDWR;
    /// Make it if there is none.
    pub const O_CREAT: u32 = k::O_CREAT;
    /// Fail if there is one.
    pub const O_EXCL: u32 = k::O_EXCL;
    /// Cut it to nothing.
    pub const O_TRUNC: u32 = k::O_TRUNC;
    /// Every write goes to the end.
    pub const O_APPEND: u32 = k::O_APPEND;
    /// Close it on execve(2).
    pub const O_CLOEXEC: u32 = k::O_CLOEXEC;
}

/// getdents64(2): entries of a folder, for [`dirents`]; 0 bytes at the end. `EINVAL` if not one fits.
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

/// readlinkat(2) relative to the working directory: the bytes of the link's text, cut to `buf`. `ENOENT`, `EACCES`, …
pub(crate) fn readlink(path: &CStr, buf: &mut [u8]) -> Result<usize> {
    // SAFETY: 1. The kernel reads the path and writes into `buf`.
    unsafe { call!(__NR_readlinkat, AT_FDCWD, at(path.as_ptr()), at(buf), buf.len()) }
}

/// statx(2) relative to the working directory: how many links a file has. `ENOENT`, `EACCES`, …; `ENOSYS` before
/// Linux 4.11.
pub(crate) fn statx_links(path: &CStr) -> Result<usize> {
    let mut found = core::mem::MaybeUninit::<k::statx>::uninit();
    let (flags, mask) = (k::AT_STATX_SYNC_AS_STAT as usize, k::STATX_NLINK as usize);
    // SAFETY: 1. The kernel reads the path and writes the structure.
    unsafe { call!(__NR_statx, AT_FDCWD, at(path.as_ptr()), flags, mask, at(found.as_mut_ptr())) }?;
    // SAFETY: the kernel has written all of it.
    Ok(unsafe { found.assume_init() }.stx_nlink as usize)
}

/// unshare(2) of the thread group, which changes nothing: an error means that the calling thread
/// may not be the only one of its process. `EINVAL` if there is another, or one that has ended and
/// was not taken away yet (`check_unshare_flags` in kernel/fork.c); what a filter says.
pub(crate) fn unshare_thread_group() -> Result<()> {
    // SAFETY: 1. It touches no memory, and changes nothing of a process with one thread.
    unsafe { call!(__NR_unshare, k::CLONE_THREAD as usize) }.map(drop)
}

/// dup(2). `EBADF` if `fd` is not open, `EMFILE`.
///
/// In handlers: yes.
pub fn dup(fd: RawFd) -> Result<OwnedFd> {
    // SAFETY: 1. It touches no memory.
    let copy = unsafe { call!(__NR_dup, fd as usize) }?;
    Ok(OwnedFd(copy as RawFd))
}

/// ppoll(2) that asks for nothing and does not wait: the kernel fills in `POLLNVAL` for what is not open, and errors.
/// `EINVAL` if `fds` has more entries than `RLIMIT_NOFILE`, `ENOSYS` where a filter or the kernel lacks the call.
pub(crate) fn poll_now(fds: &mut [k::pollfd]) -> Result<usize> {
    let mut zero = [0u64; 2]; // A zero span in either width; the kernel writes back what is left of it.
    let nr = match Cpu::PPOLL {
        Timed::Wide(nr) | Timed::Split { narrow: nr, .. } => nr as usize,
    };
    // SAFETY: 1. The kernel writes the `revents` of `fds` and the span; no signal mask is given.
    unsafe { call!(@ nr, at(fds), fds.len(), at(&raw mut zero), 0, 0) }
}

// Memory.

/// mmap(2). `ENOMEM`, `EINVAL`, `EAGAIN`, `EPERM`; `EINVAL` also for an `offset` that is no multiple of 4096.
///
/// # Safety
///
/// 1. With `MAP_FIXED`, whatever lay at `addr..addr + len` may vanish.
pub(crate) unsafe fn mmap(addr: *mut u8, len: usize, prot: u32, flags: u32, fd: RawFd, offset: u64) -> Result<*mut u8> {
    let mut args = [at(addr), len, prot as usize, flags as usize, fd as usize, 0];
    let unit = match Cpu::MMAP {
        Mmap::Units4096(_) => 4096,
        Mmap::Bytes(_) | Mmap::Block(_) => 1,
    };
    args[5] = usize::try_from(offset / unit).map_err(|_| Errno::EOVERFLOW)?;
    if !offset.is_multiple_of(unit) {
        return Err(Errno::EINVAL);
    }
    let base = match Cpu::MMAP {
        Mmap::Bytes(nr) | Mmap::Units4096(nr) => {
            // SAFETY: 1. is our caller's; without MAP_FIXED the kernel chooses memory that nobody has.
            unsafe { syscall(nr as usize, args) }
        }
        Mmap::Block(nr) => {
            // SAFETY: 1. As above; the kernel only reads the block.
            unsafe { call!(@ nr as usize, at(&raw const args)) }
        }
    }?;
    Ok(core::ptr::with_exposed_provenance_mut(base))
}

/// munmap(2). `EINVAL`; `ENOMEM` when a hole would need one mapping more than `vm.max_map_count`.
///
/// # Safety
///
/// 1. Nobody uses `addr..addr + len` again.
pub(crate) unsafe fn munmap(addr: *mut u8, len: usize) -> Result<()> {
    // SAFETY: 1. is our caller's.
    unsafe { call!(__NR_munmap, at(addr), len) }.map(drop)
}

/// Unmaps pages, and returns whether they are gone.
///
/// Taken out of the middle of what the kernel sees as one mapping, they leave two; a process that has
/// as many as it may is refused that (`ENOMEM`). Then their memory goes back, and the addresses stay
/// taken. No refusal is worth the end of the process.
///
/// # Safety
///
/// 1. The range is whole pages, private and anonymous, and nothing uses them again.
pub(crate) unsafe fn unmap_or_empty(base: *mut u8, len: usize) -> bool {
    // SAFETY: 1. is our caller's.
    if unsafe { munmap(base, len) }.is_ok() {
        return true;
    }
    // SAFETY: 1. is our caller's.
    let empty = |advice| unsafe { madvise(base, len, advice) };
    // Locked pages have an advice of their own, since Linux 5.18, which needs no other mappings.
    let _ = empty(k::MADV_DONTNEED)
        .or_else(|_| empty(k::MADV_DONTNEED_LOCKED))
        .or_else(|_| munlock(base, len).and_then(|()| empty(k::MADV_DONTNEED)));
    false
}

/// mprotect(2). `EINVAL`, `ENOMEM`, `EACCES`.
///
/// # Safety
///
/// 1. Nobody uses `addr..addr + len` in a way that `prot` forbids.
pub(crate) unsafe fn mprotect(addr: *mut u8, len: usize, prot: u32) -> Result<()> {
    // SAFETY: 1. is our caller's.
    unsafe { call!(__NR_mprotect, at(addr), len, prot as usize) }.map(drop)
}

/// mremap(2): the mapping's bytes at its new address and of its new length, where 0 is no flag and `MREMAP_MAYMOVE`
/// allows another address. `ENOMEM`; `EFAULT` if the range is not one mapping, `EINVAL`.
///
/// # Safety
///
/// 1. Nobody uses `addr..addr + old_len` again, but what still lies there afterwards.
pub(crate) unsafe fn mremap(addr: *mut u8, old_len: usize, new_len: usize, flags: u32) -> Result<*mut u8> {
    // SAFETY: 1. is our caller's.
    let base = unsafe { call!(__NR_mremap, at(addr), old_len, new_len, flags as usize) }?;
    Ok(core::ptr::with_exposed_provenance_mut(base))
}

/// madvise(2). `EINVAL` for advice that this kernel does not know or cannot follow there, `ENOMEM` where nothing is
/// mapped, `ENOSYS` where the kernel is built without it, `EAGAIN`.
///
/// # Safety
///
/// 1. Some advice drops what is in `addr..addr + len`: then nobody relies on it.
pub(crate) unsafe fn madvise(addr: *mut u8, len: usize, advice: u32) -> Result<()> {
    // SAFETY: 1. is our caller's.
    unsafe { call!(__NR_madvise, at(addr), len, advice as usize) }.map(drop)
}

/// munlock(2). `ENOMEM` when that would need one mapping more than `vm.max_map_count`.
pub(crate) fn munlock(addr: *mut u8, len: usize) -> Result<()> {
    // SAFETY: 1. Memory that may be paged out has the same contents.
    unsafe { call!(__NR_munlock, at(addr), len) }.map(drop)
}

/// Whether the kernel can read a word at `addr`, a multiple of 4. It says so without a fault.
///
/// The call is futex(2), `FUTEX_CMP_REQUEUE`, which reads the word, wakes no thread and moves none. Any program that
/// joins threads may call futex(2), and every tool that emulates system calls leaves the access to the kernel. (Valgrind
/// writes the old mask of rt_sigprocmask(2) by itself, and died of a fault there.)
///
/// # Safety
///
/// 1. No thread waits on a futex at `addr`.
pub(crate) unsafe fn can_read(addr: *const u8) -> bool {
    let op = k::FUTEX_CMP_REQUEUE | private_flag(false);
    // SAFETY: 1. is our caller's; the kernel reads the word, or finds that it cannot.
    let asked = futex(|_, nr| unsafe { call!(@ nr, at(addr), op as usize, 0, 0, at(addr), 0) });
    asked != Err(Errno::EFAULT)
}

/// prctl(2) with `PR_SET_VMA_ANON_NAME`: the name that /proc/self/maps shows for anonymous memory; since Linux 5.17,
/// where configured. `EINVAL` for a name of 80 bytes or more or with characters that it does not take, and where there
/// are no names; `EBADF` for memory that is a file's.
pub(crate) fn prctl_set_vma_name(addr: *mut u8, len: usize, name: &CStr) -> Result<()> {
    use linux_raw_sys::prctl::{PR_SET_VMA, PR_SET_VMA_ANON_NAME};
    let (set, what) = (PR_SET_VMA as usize, PR_SET_VMA_ANON_NAME as usize);
    // SAFETY: 1. The kernel only reads the name.
    unsafe { call!(__NR_prctl, set, what, at(addr), len, at(name.as_ptr())) }.map(drop)
}

/// mincore(2) of one byte: `Ok` if `addr` is a page's first byte in a mapping, `EINVAL` if it is not a page's first,
/// `ENOMEM` if nothing is mapped there.
pub(crate) fn mincore(addr: *const u8) -> Result<()> {
    let mut resident = 0u8;
    // SAFETY: 1. The kernel writes one byte per page of the one-byte range.
    unsafe { call!(__NR_mincore, at(addr), 1, at(&raw mut resident)) }.map(drop)
}

// Processes and threads.

/// exit_group(2): ends the process with the low 8 bits of `status`.
///
/// Where a filter forbids the call, the process ends by `SIGKILL`. Where that is forbidden too, or does
/// nothing (to the first process of a PID namespace), the calling thread ends, at worst by a trap.
///
/// In handlers: yes.
pub fn exit_group(status: i32) -> ! {
    // SAFETY: 1. Ending the process is always allowed.
    let _ = unsafe { call!(__NR_exit_group, status as usize) };
    // SAFETY: 1. As above.
    let _ = unsafe { call!(__NR_kill, getpid() as usize, k::SIGKILL as usize) };
    // SAFETY: 1. As above: this thread was to end, and with it what it has borrowed.
    let _ = unsafe { call!(__NR_exit, status as usize) };
    // SAFETY: 1. to 3. Nothing is unmapped: the kernel refuses a length of 0.
    unsafe { Cpu::unmap_and_exit(null_mut(), 0) }
}

/// exit(2): ends this thread only. Where a filter forbids the call, the process ends with a message:
/// other threads would wait for this one's end for ever.
///
/// # Safety
///
/// 1. Nothing on this thread's stack is borrowed by anyone.
pub(crate) unsafe fn exit(status: i32) -> ! {
    // SAFETY: 1. is our caller's.
    let refused = unsafe { call!(__NR_exit, status as usize) };
    die("exit of a thread", refused.err().unwrap_or(Errno::EINVAL))
}

/// A child's first function. It gets what [`clone`] was given for it, runs on the child's own
/// stack, and all signals are blocked.
pub(crate) type Entry = unsafe extern "C" fn(arg: *mut u8) -> !;

/// What a child starts with, at the high end of its stack.
#[repr(C, align(16))]
struct Start {
    entry: Entry,
    arg: *mut u8,
}

/// clone(2) of a thread or of a process that begins with `entry(arg)`: the child's id. `EAGAIN`,
/// `ENOMEM`, `EPERM`, `EINVAL`. `args.start` is not looked at.
///
/// # Safety
///
/// 1. `args.stack` is the high end, 16-aligned, of a stack that nothing else uses, with at least
///    320 bytes below it.
/// 2. The conditions 2 to 4 of [`Arch::clone`].
/// 3. `entry` may be called with `arg` in the child.
pub(crate) unsafe fn clone(args: CloneArgs, entry: Entry, arg: *mut u8) -> Result<u32> {
    let start = args.stack.cast::<Start>().wrapping_sub(1);
    // SAFETY: by 1., this is memory of the child's stack, aligned, and no other code uses it.
    unsafe { start.write(Start { entry, arg }) };
    let args = CloneArgs { stack: start.cast(), start: start.cast(), ..args };
    // SAFETY: 1. by our 1., less one `Start`. 2. to 4. by our 2.
    Errno::check(unsafe { Cpu::clone(&args) }).map(|tid| tid as u32)
}

/// The door from [`Arch::clone`]: the child's first Rust, on its own stack, with all signals blocked.
///
/// # Safety
///
/// 1. `start` is the [`Start`] that [`clone`] left for this child.
pub(crate) unsafe extern "C" fn rust_clone(start: *mut u8) -> ! {
    // SAFETY: by 1., it was written before the clone, and lies above this child's frames.
    let Start { entry, arg } = unsafe { start.cast::<Start>().read() };
    // SAFETY: by 3. of `clone`.
    unsafe { entry(arg) }
}

/// set_tid_address(2): the word that the kernel clears at this thread's end, or null for none.
/// Returns the thread's id. Only a filter can refuse it; then the word is the one from before.
///
/// # Safety
///
/// 1. The word outlives the thread.
pub(crate) unsafe fn set_tid_address(word: *mut u32) -> Result<u32> {
    // SAFETY: 1. is our caller's.
    unsafe { call!(__NR_set_tid_address, at(word)) }.map(|tid| tid as u32)
}

/// clone(2) of a process with a copy of everything, as fork(2): the child's id, and 0 in the child.
/// `EAGAIN`, `ENOMEM`.
///
/// # Safety
///
/// 1. The child does only what a process may do whose other threads vanished at this instant.
pub(crate) unsafe fn fork() -> Result<u32> {
    // SAFETY: 1. is our caller's.
    Errno::check(unsafe { Cpu::fork() }).map(|pid| pid as u32)
}

/// getpid(2).
///
/// In handlers: yes.
#[inline]
pub fn getpid() -> u32 {
    // SAFETY: 1. It touches nothing, and it cannot fail.
    unsafe { Cpu::syscall0(k::__NR_getpid as usize) as u32 }
}

/// getppid(2).
///
/// In handlers: yes.
#[inline]
pub fn getppid() -> u32 {
    // SAFETY: 1. It touches nothing, and it cannot fail.
    unsafe { Cpu::syscall0(k::__NR_getppid as usize) as u32 }
}

/// gettid(2).
///
/// In handlers: yes.
#[inline]
pub fn gettid() -> u32 {
    // SAFETY: 1. It touches nothing, and it cannot fail.
    unsafe { Cpu::syscall0(k::__NR_gettid as usize) as u32 }
}

/// sched_yield(2).
///
/// In handlers: yes.
pub fn sched_yield() {
    // On Linux it cannot fail.
    // SAFETY: 1. It touches nothing.
    let _ = unsafe { call!(__NR_sched_yield) };
}

/// getrandom(2): random bytes into the start of `buf`, and how many; all of up to 256, unless interrupted while it waits
/// for the generator to be seeded, once after boot. `EINTR`; `EAGAIN` with `GRND_NONBLOCK` if it would wait; `ENOSYS`
/// before Linux 3.17; `EINVAL` for unknown flags.
pub(crate) fn getrandom(buf: &mut [u8], flags: u32) -> Result<usize> {
    // SAFETY: 1. The kernel writes into `buf` only.
    unsafe { call!(__NR_getrandom, at(buf), buf.len(), flags as usize) }
}

/// sched_getaffinity(2) of the thread `tid`, 0 for the calling one: a bit per processor, and how many bytes the kernel
/// wrote; the rest of `mask` is left alone. `EINVAL` if `mask` has no room for all processors that the kernel can have,
/// `ESRCH`.
///
/// In handlers: yes.
pub fn sched_getaffinity(tid: u32, mask: &mut [usize]) -> Result<usize> {
    // SAFETY: 1. The kernel writes into `mask` only.
    unsafe { call!(__NR_sched_getaffinity, tid as usize, size_of_val(mask), at(mask)) }
}

/// sched_setaffinity(2) of the thread `tid`, 0 for the calling one. `EINVAL` if `mask` has no processor that the thread
/// may use, `EPERM`, `ESRCH`.
///
/// In handlers: yes.
pub fn sched_setaffinity(tid: u32, mask: &[usize]) -> Result<()> {
    // SAFETY: 1. The kernel only reads `mask`.
    unsafe { call!(__NR_sched_setaffinity, tid as usize, size_of_val(mask), at(mask)) }.map(drop)
}

/// prctl(2) with `PR_SET_NAME`: the calling thread's name; the kernel takes the first 15 bytes.
pub(crate) fn prctl_set_name(name: &[u8; 16]) {
    // It cannot fail with a readable name.
    // SAFETY: 1. The kernel only reads the name, and no more of it.
    let _ = unsafe { call!(__NR_prctl, linux_raw_sys::prctl::PR_SET_NAME as usize, at(name.as_ptr())) };
}

/// tgkill(2). `ESRCH`, `EINVAL`, `EPERM`, `EAGAIN` (a real-time signal over `RLIMIT_SIGPENDING`).
///
/// In handlers: yes.
pub fn tgkill(tgid: u32, tid: u32, sig: u32) -> Result<()> {
    // SAFETY: 1. A signal to a thread of one's own or of another process is not a memory access; what its action does
    // is the affair of whoever installed it.
    unsafe { call!(__NR_tgkill, tgid as usize, tid as usize, sig as usize) }.map(drop)
}

/// prlimit(2) of this process: the soft limit, `None` for unlimited. `ENOSYS` where a filter forbids the call.
pub(crate) fn getrlimit(resource: u32) -> Result<Option<u64>> {
    let mut limits = [0u64; 2]; // Soft and hard, as struct rlimit64.
    // SAFETY: 1. The kernel writes `limits` only.
    unsafe { call!(__NR_prlimit64, 0, resource as usize, 0, at(&raw mut limits)) }?;
    Ok(Some(limits[0]).filter(|soft| *soft != k::RLIM64_INFINITY as u64))
}

// Signals: see `crate::signal` for the typed form.

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
        // SAFETY: 1. is our caller's; the structs are of this machine's layout. To return there is what a handler must do.
        Restorer::Argument(f) => unsafe { call!(__NR_rt_sigaction, sig as usize, at(new), at(old), f as usize, size) },
        // SAFETY: 1. As above.
        _ => unsafe { call!(__NR_rt_sigaction, sig as usize, at(new), at(old), size) },
    }
    .map(drop)
}

/// rt_sigprocmask(2): sets the calling thread's mask as `how` says and returns the mask before it. It fails only for a
/// bad
/// `how` or a set of the wrong size, which would be rt0's own mistake.
///
/// # Safety
///
/// 1. What the signals' handlers do is sound where a signal becomes deliverable.
pub(crate) unsafe fn rt_sigprocmask(how: u32, new: &k::kernel_sigset_t) -> k::kernel_sigset_t {
    let mut old = *new;
    // SAFETY: 1. is our caller's; the sets are of this machine's size.
    let done =
        unsafe { call!(__NR_rt_sigprocmask, how as usize, at(new), at(&raw mut old), size_of::<k::kernel_sigset_t>()) };
    done.unwrap_or_else(|errno| die("rt_sigprocmask", errno));
    old
}

/// sigaltstack(2): sets the calling thread's signal stack, if `new` is given; `old` is the one before. `ENOMEM` if it
/// is smaller than the kernel's least, `EPERM` on the stack itself.
///
/// # Safety
///
/// 1. `new` is memory for nothing else, as long as it is this thread's signal stack.
pub(crate) unsafe fn sigaltstack(new: Option<&k::sigaltstack>, old: Option<&mut k::sigaltstack>) -> Result<()> {
    let new = new.map_or(null(), |new| new as *const k::sigaltstack);
    let old = old.map_or(null_mut(), |old| old as *mut k::sigaltstack);
    // SAFETY: 1. is our caller's; the kernel writes `old`.
    unsafe { call!(__NR_sigaltstack, at(new), at(old)) }.map(drop)
}

// Time, and calls that wait.

/// clock_gettime(2). `EINVAL` for a clock that does not exist.
pub(crate) fn clock_gettime(clock: i32) -> Result<Timespec> {
    static FORM: Preference = Preference::new();
    timed(Cpu::CLOCK_GETTIME, &FORM, |form, nr| match form {
        Form::Wide => {
            let mut now = Timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: 1. The kernel writes `now` only.
            unsafe { call!(@ nr, clock as usize, at(&raw mut now)) }?;
            Ok(now)
        }
        Form::Narrow => {
            let mut now = k::__kernel_old_timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: 1. The kernel writes `now` only.
            unsafe { call!(@ nr, clock as usize, at(&raw mut now)) }?;
            Ok(Timespec::from_narrow(now))
        }
    })
}

/// clock_nanosleep(2) until `deadline` on `clock`. `EINTR` when a handler ran, `EINVAL`.
///
/// With 32 bits of seconds (kernels before 5.1 on 32-bit machines) a far deadline is cut to the last that fits, so it may
/// return early: look at the clock and call again.
pub(crate) fn clock_nanosleep_until(clock: i32, deadline: &Timespec) -> Result<()> {
    clock_nanosleep(clock, k::TIMER_ABSTIME, deadline)
}

/// clock_nanosleep(2) for a span of the monotonic clock; less if a handler runs (`EINTR`), and nothing says how much.
pub(crate) fn nanosleep(span: &Timespec) -> Result<()> {
    clock_nanosleep(k::CLOCK_MONOTONIC as i32, 0, span)
}

fn clock_nanosleep(clock: i32, flags: u32, time: &Timespec) -> Result<()> {
    let nr_and_time = |nr, time| {
        // SAFETY: 1. The kernel only reads the time.
        unsafe { call!(@ nr, clock as usize, flags as usize, time, 0) }.map(drop)
    };
    static FORM: Preference = Preference::new();
    timed(Cpu::CLOCK_NANOSLEEP, &FORM, |form, nr| match form {
        Form::Wide => nr_and_time(nr, at(time)),
        Form::Narrow => nr_and_time(nr, at(&narrow(time))),
    })
}

/// Names the CPU-time clock of a thread of this process, for [`clock_gettime`] and [`timer_create`]: what
/// pthread_getcpuclockid(3) does. The clock starts at zero with the thread.
pub(crate) fn cpu_clock(tid: u32) -> i32 {
    const CPUCLOCK_SCHED: u32 = 2; // These two are in no header of the kernel's: time/posix-timers.h.
    const CPUCLOCK_PERTHREAD_MASK: u32 = 4;
    (!tid << 3 | CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED) as i32
}

// The kernel reads 64 bytes, whatever the union in them is used for (SIGEV_MAX_SIZE in
// asm-generic/siginfo.h).
const _: () = assert!(size_of::<k::sigevent>() == 64, "timer_create reads beyond the struct");

/// timer_create(2) of a timer that sends `sig`, with `value`, to the thread `tid` of this process (`SIGEV_THREAD_ID`):
/// its number. `EAGAIN` over `RLIMIT_SIGPENDING` or where an emulator has no more, `EINVAL` for a thread that ended,
/// `ENOSYS`, `EPERM` by a filter.
pub(crate) fn timer_create(clock: i32, tid: u32, sig: u32, value: usize) -> Result<i32> {
    let mut event = k::sigevent {
        sigev_value: k::sigval { sival_ptr: core::ptr::without_provenance_mut(value) },
        sigev_signo: sig as i32,
        sigev_notify: k::SIGEV_THREAD_ID as i32,
        _sigev_un: k::sigevent__bindgen_ty_1 { _pad: [0; _] },
    };
    event._sigev_un._tid = tid as i32;
    let mut timer = 0i32;
    // SAFETY: 1. The kernel reads the event and writes the number; a signal is no memory access.
    unsafe { call!(__NR_timer_create, clock as usize, at(&raw const event), at(&raw mut timer)) }?;
    Ok(timer)
}

/// timer_settime(2) with `TIMER_ABSTIME`: the timer goes off at `first` of its clock, at once if that has passed, and
/// every `interval` from there.
pub(crate) fn timer_settime_abs(timer: i32, interval: Timespec, first: Timespec) -> Result<()> {
    let nr_and_times = |nr, times| {
        // SAFETY: 1. The kernel only reads the two times.
        unsafe { call!(@ nr, timer as usize, k::TIMER_ABSTIME as usize, times, 0) }.map(drop)
    };
    let times = [interval, first]; // struct itimerspec
    static FORM: Preference = Preference::new();
    timed(Cpu::TIMER_SETTIME, &FORM, |form, nr| match form {
        Form::Wide => nr_and_times(nr, at(&times)),
        Form::Narrow => nr_and_times(nr, at(&times.map(|time| narrow(&time)))),
    })
}

/// timer_delete(2). `EINVAL` if there is no such timer.
pub(crate) fn timer_delete(timer: i32) -> Result<()> {
    // SAFETY: 1. It touches no memory.
    unsafe { call!(__NR_timer_delete, timer as usize) }.map(drop)
}

/// setitimer(2) of `ITIMER_PROF`: `SIGPROF` after the process has run for `first`, and every `interval` from there;
/// both zero for none. Times are cut to whole microseconds.
pub(crate) fn setitimer_prof(interval: Timespec, first: Timespec) -> Result<()> {
    let old =
        |time: Timespec| k::__kernel_old_timeval { tv_sec: time.tv_sec as _, tv_usec: (time.tv_nsec / 1000) as _ };
    let times = k::__kernel_old_itimerval { it_interval: old(interval), it_value: old(first) };
    // SAFETY: 1. The kernel only reads the two times.
    unsafe { call!(__NR_setitimer, k::ITIMER_PROF as usize, at(&raw const times), 0) }.map(drop)
}

/// futex(2), `FUTEX_WAIT_BITSET`, with an absolute deadline on CLOCK_MONOTONIC. `EAGAIN` if the word does not hold
/// `expected`, `EINTR`, `ETIMEDOUT`; `Ok` may be spurious.
pub(crate) fn futex_wait(
    word: &AtomicU32,
    shared: bool,
    expected: u32,
    deadline: Option<&Timespec>,
    bits: u32,
) -> Result<()> {
    let op = k::FUTEX_WAIT_BITSET | private_flag(shared);
    let nr_and_time = |nr, time| {
        // SAFETY: 1. The kernel reads the word and the deadline.
        unsafe { call!(@ nr, at(word.as_ptr()), op as usize, expected as usize, time, 0, bits as usize) }.map(drop)
    };
    futex(|form, nr| match (form, deadline) {
        (_, None) => nr_and_time(nr, 0),
        (Form::Wide, Some(deadline)) => nr_and_time(nr, at(deadline)),
        (Form::Narrow, Some(deadline)) => nr_and_time(nr, at(&narrow(deadline))),
    })
}

/// Makes futex(2) in the form that answers.
#[inline(always)]
fn futex<T>(call: impl FnMut(Form, usize) -> Result<T>) -> Result<T> {
    static FORM: Preference = Preference::new();
    timed(Cpu::FUTEX, &FORM, call)
}

/// Whether the word at `address` holds `value`: no for an address where nothing can be read, or that
/// no word has.
///
/// The call is futex(2), `FUTEX_CMP_REQUEUE` of no waiters: it compares, wakes no thread and moves
/// none. (A wait that is over at once would say it too, but sets a timer: some 20 µs on a virtual
/// machine.) Where a filter refuses that, rt_sigprocmask(2) tells whether it can be read.
pub(crate) fn holds(address: *const AtomicU32, value: u32) -> bool {
    let op = (k::FUTEX_CMP_REQUEUE | k::FUTEX_PRIVATE_FLAG) as usize;
    let compared = futex(|_, nr| {
        // SAFETY: 1. The kernel reads the word; it says EFAULT where it cannot.
        unsafe { call!(@ nr, at(address), op, 0, 0, at(address), value as usize) }
    });
    match compared {
        Ok(_) => true,
        Err(Errno::EAGAIN | Errno::EFAULT) => false,
        Err(_) if !address.is_aligned() => false,
        Err(_) => {
            const NO_HOW: usize = 0x7fff; // The kernel reads the set first, and then refuses this.
            // SAFETY: 1. The kernel reads a set there, or says EFAULT; it changes nothing.
            let read = unsafe { call!(__NR_rt_sigprocmask, NO_HOW, at(address), 0, size_of::<k::kernel_sigset_t>()) };
            // SAFETY: aligned, and the kernel has just read it.
            read == Err(Errno::EINVAL) && unsafe { (*address).load(Relaxed) } == value
        }
    }
}

/// What every waiter and every wake has in common, unless it says otherwise.
pub(crate) const FUTEX_ANY: u32 = k::FUTEX_BITSET_MATCH_ANY;

/// futex(2), `FUTEX_WAKE`, or `FUTEX_WAKE_BITSET` for waiters that have one of certain `bits`: how many were woken.
/// `EFAULT` if nothing is mapped there.
///
/// It takes a pointer, not a reference: a waiter that saw the new value may have freed the word meanwhile.
pub(crate) fn futex_wake(word: *const AtomicU32, shared: bool, count: u32, bits: u32) -> Result<usize> {
    futex(|_, nr| {
        if bits == FUTEX_ANY {
            let op = k::FUTEX_WAKE | private_flag(shared);
            // SAFETY: 1. The kernel takes the address as a name of a queue; it reads no memory
            // through it that could be wrong.
            unsafe { call!(@ nr, at(word), op as usize, count as usize) }
        } else {
            let op = k::FUTEX_WAKE_BITSET | private_flag(shared);
            // SAFETY: 1. As above.
            unsafe { call!(@ nr, at(word), op as usize, count as usize, 0, 0, bits as usize) }
        }
    })
}

/// futex(2), `FUTEX_REQUEUE`, private: lets one thread that waits on `from` wait on `to` from now on, and wakes none. How
/// many there were to move, 0 or 1. `EFAULT` if nothing is mapped there.
pub(crate) fn futex_requeue(from: *const AtomicU32, to: *const AtomicU32) -> Result<usize> {
    let op = k::FUTEX_REQUEUE | private_flag(false);
    // SAFETY: 1. As for a wake, the addresses are names of queues.
    futex(|_, nr| unsafe { call!(@ nr, at(from), op as usize, 0, 1, at(to)) })
}

fn private_flag(shared: bool) -> u32 {
    if shared { 0 } else { k::FUTEX_PRIVATE_FLAG }
}

/// Ends the process over a failure that can only be rt0's own mistake or a kernel without what every Linux has: a line
/// on stderr and `SIGABRT`, without the formatting machinery and without a working thread pointer.
#[cold]
pub(crate) fn die(what: &str, errno: Errno) -> ! {
    #[inline(never)]
    fn say(text: &[u8]) {
        let _ = write(2, text); // Nobody is left to hear of a failure here.
    }
    let mut end = [0; 21];
    let [number @ .., newline] = &mut end;
    let first = digits(errno.raw().into(), false, number);
    *newline = b'\n';
    say(b"rt0: fatal: ");
    say(what.as_bytes());
    say(b" failed with errno ");
    say(end.get(first..).unwrap_or_default());
    // No handler comes between the questions for the ids and their use, where it could fork.
    let mut blocked = k::kernel_sigset_t { sig: [!0; _] };
    let set_mask = |set: &k::kernel_sigset_t| {
        // Not `rt_sigprocmask`, which comes here when it is refused.
        // SAFETY: 1. The kernel reads the set. A handler for SIGABRT may run at any instruction.
        let _ = unsafe { call!(__NR_rt_sigprocmask, k::SIG_SETMASK as usize, at(set), 0, size_of_val(set)) };
    };
    set_mask(&blocked);
    let _ = tgkill(getpid(), gettid(), k::SIGABRT);
    blocked.sig[0] &= !(1 << (k::SIGABRT - 1));
    set_mask(&blocked);
    exit_group(128 + k::SIGABRT as i32) // Where the signal is caught.
}

/// Puts a number's digits, in base 10 or in hexadecimal, at the end of `buf`, as far as they fit (20 are enough), and
/// says where they begin: for messages in programs that need no formatting otherwise, which is 3 KiB.
pub(crate) fn digits(mut number: usize, hexadecimal: bool, buf: &mut [u8]) -> usize {
    let base = if hexadecimal { 16 } else { 10 };
    let mut first = buf.len();
    for digit in buf.iter_mut().rev() {
        *digit = (number % base) as u8;
        *digit += if *digit < 10 { b'0' } else { b'a' - 10 };
        number /= base;
        first -= 1;
        if number == 0 {
            break;
        }
    }
    first
}

/// Makes a call that takes a time, in the form that answers: `call` gets the form and its number.
/// Costs nothing on 64-bit machines.
#[inline(always)]
fn timed<T>(machines: Timed, preference: &Preference, mut call: impl FnMut(Form, usize) -> Result<T>) -> Result<T> {
    match machines {
        Timed::Wide(nr) => call(Form::Wide, nr as usize),
        Timed::Split { wide, narrow } => preference.make(kernel_has_wide_time(), |form| match form {
            Form::Wide => call(form, wide as usize),
            Form::Narrow => call(form, narrow as usize),
        }),
    }
}

/// Whether the kernel's version promises the 64-bit-time calls of 32-bit machines, which came with
/// Linux 5.1 all at once. Decided on first use. Only where the version cannot be read, a call that
/// changes nothing is tried.
#[cold]
fn ask_for_wide_time() -> bool {
    match kernel_release() {
        Ok(version) => version >= (5, 1),
        Err(_) => match Cpu::FUTEX {
            Timed::Wide(_) => true,
            Timed::Split { wide, .. } => {
                let word = 0u32;
                let op = (k::FUTEX_WAKE | k::FUTEX_PRIVATE_FLAG) as usize;
                // SAFETY: 1. Wakes nobody on a word of our own.
                let woken = unsafe { call!(@ wide as usize, at(&raw const word), op, 0) };
                woken != Err(Errno::ENOSYS)
            }
        },
    }
}

fn kernel_has_wide_time() -> bool {
    const UNKNOWN: u8 = 0;
    const NARROW: u8 = 1;
    const WIDE: u8 = 2;
    static FOUND: AtomicU8 = AtomicU8::new(UNKNOWN);
    // Relaxed: the answer is all there is, and threads that ask at once find the same.
    match FOUND.load(Relaxed) {
        UNKNOWN => {
            let wide = ask_for_wide_time();
            FOUND.store(if wide { WIDE } else { NARROW }, Relaxed);
            wide
        }
        found => found == WIDE,
    }
}

fn narrow(time: &Timespec) -> k::__kernel_old_timespec {
    k::__kernel_old_timespec {
        tv_sec: time.tv_sec.clamp(0, i32::MAX as i64) as _, // Early is allowed to all our waits; never is not.
        tv_nsec: i32::try_from(time.tv_nsec).unwrap_or(-1) as _, // None that would be valid.
    }
}

/// uname(2): the running kernel's version. `EINVAL` if its release string has no `major.minor`.
fn kernel_release() -> Result<(u32, u32)> {
    // SAFETY: the struct is bytes, for which all zeros are valid.
    let mut uts: linux_raw_sys::system::new_utsname = unsafe { core::mem::zeroed() };
    // SAFETY: 1. The kernel writes `uts` only.
    unsafe { call!(__NR_uname, at(&raw mut uts)) }?;
    release::parse(&uts.release.map(|c| c as u8)).ok_or(Errno::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_has_a_version() {
        assert!(kernel_release().unwrap() >= (2, 6));
    }

    #[test]
    fn pread_reads_at_any_offset() {
        let file = open(c"/proc/self/exe", k::O_RDONLY | k::O_CLOEXEC, 0).unwrap();
        let mut bytes = [0; 4];
        assert_eq!(pread(file.as_raw_fd(), &mut bytes, 0), Ok(4));
        assert_eq!(&bytes, b"\x7fELF");
        assert_eq!(pread(file.as_raw_fd(), &mut bytes, 1 << 40), Ok(0));
        assert_eq!(pread(file.as_raw_fd(), &mut bytes, u64::MAX), Err(Errno::EINVAL));
    }
}
