//! Threads and what the kernel keeps for each, and the end of the process.

use core::ptr::null_mut;

use linux_raw_sys::general as k;

use super::{at, call, die};
use crate::arch::{Arch, CloneArgs, Cpu};
use crate::errno::{Errno, Result};

/// exit_group(2): ends the process with the low 8 bits of `status`.
///
/// If a filter forbids the call, the process ends by `SIGKILL`. If that is forbidden too, or has no
/// effect (on the first process of a PID namespace), the calling thread ends, in the last resort by
/// a trap.
///
/// In handlers: yes.
pub fn exit_group(status: i32) -> ! {
    // SAFETY: 1. Ending the process is always allowed.
    let _ = unsafe { call!(__NR_exit_group, status as usize) };
    // SAFETY: 1. Ending the process is always allowed.
    let _ = unsafe { call!(__NR_kill, getpid() as usize, k::SIGKILL as usize) };
    // SAFETY: 1. The process was meant to end, with everything that this thread has borrowed.
    let _ = unsafe { call!(__NR_exit, status as usize) };
    // SAFETY: 1. to 3. Nothing is unmapped: the kernel refuses a length of 0.
    unsafe { Cpu::unmap_and_exit(null_mut(), 0) }
}

/// exit(2): ends this thread only. If a filter forbids the call, the process ends with a message:
/// other threads would wait for ever for this one's end.
///
/// # Safety
///
/// 1. No other thread borrows from this thread's stack.
pub(crate) unsafe fn exit(status: i32) -> ! {
    // SAFETY: the caller guarantees 1.
    let refused = unsafe { call!(__NR_exit, status as usize) };
    die("exit of a thread", refused.err().unwrap_or(Errno::EINVAL))
}

/// Unmaps the memory that the calling thread's stack lies in, and ends the thread.
///
/// # Safety
///
/// 1. The conditions of [`Arch::unmap_and_exit`].
pub(crate) unsafe fn unmap_and_exit(base: *mut u8, len: usize) -> ! {
    // SAFETY: the caller guarantees the same conditions.
    unsafe { Cpu::unmap_and_exit(base, len) }
}

/// Sets the calling thread's thread pointer. Errors: those of arch_prctl(2), set_thread_area(2) and
/// the like; only a filter causes them.
///
/// # Safety
///
/// 1. The conditions of [`Arch::set_thread_pointer`].
#[inline(always)] // At the start nothing else may run before it.
pub(crate) unsafe fn set_thread_pointer(to: *mut u8) -> Result<()> {
    // SAFETY: 1. The caller guarantees the same.
    Errno::check(unsafe { Cpu::set_thread_pointer(to) }).map(drop)
}

/// A child's first function. It gets the `arg` of [`clone`], and runs on the child's own stack with
/// all signals blocked.
pub(crate) type Entry = unsafe extern "C" fn(arg: *mut u8) -> !;

/// The child's first function and its argument, at the high end of its stack.
#[repr(C, align(16))]
struct Start {
    entry: Entry,
    arg: *mut u8,
}

/// clone(2) of a thread or of a process that begins with `entry(arg)`: the child's id. `EAGAIN`,
/// `ENOMEM`, `EPERM`, `EINVAL`. `args.start` is ignored.
///
/// # Safety
///
/// 1. `args.stack` is the high end, 16-aligned, of a stack that nothing else uses, with at least
///    320 bytes below it.
/// 2. The conditions 2 to 4 of [`Arch::clone`].
/// 3. `entry` may be called with `arg` in the child.
pub(crate) unsafe fn clone(args: CloneArgs, entry: Entry, arg: *mut u8) -> Result<u32> {
    let start = args.stack.cast::<Start>().wrapping_sub(1);
    // SAFETY: by 1, this is memory of the child's stack, aligned, and no other code uses it.
    unsafe { start.write(Start { entry, arg }) };
    let args = CloneArgs { stack: start.cast(), start: start.cast(), ..args };
    // SAFETY: 1. By 1, less one `Start`. 2. to 4. The caller guarantees these (2).
    Errno::check(unsafe { Cpu::clone(&args) }).map(|tid| tid as u32)
}

/// Called by the assembly of [`Arch::clone`] in the child, on its own stack, with all signals
/// blocked.
///
/// # Safety
///
/// 1. `start` is the [`Start`] that [`clone`] left for this child.
pub(crate) unsafe extern "C" fn rust_clone(start: *mut u8) -> ! {
    // SAFETY: by 1, it was written before the clone, and lies above this child's frames.
    let Start { entry, arg } = unsafe { start.cast::<Start>().read() };
    // SAFETY: the caller of `clone` guarantees it (3).
    unsafe { entry(arg) }
}

/// set_tid_address(2): sets the word that the kernel clears at this thread's end; null for none.
/// Returns the thread's id. Only a filter can refuse it; then the word before stays set.
///
/// # Safety
///
/// 1. The word outlives the thread.
pub(crate) unsafe fn set_tid_address(word: *mut u32) -> Result<u32> {
    // SAFETY: the caller guarantees 1.
    unsafe { call!(__NR_set_tid_address, at(word)) }.map(|tid| tid as u32)
}

/// clone(2) of a process with a copy of everything, as fork(2): the child's id, and 0 in the child.
/// `EAGAIN`, `ENOMEM`.
///
/// # Safety
///
/// 1. The child relies on no other thread, and on no data that another thread was changing.
pub(crate) unsafe fn fork() -> Result<u32> {
    // SAFETY: the caller guarantees 1.
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

/// unshare(2) of the thread group, which changes nothing: an error means that the calling thread
/// may not be the only one of its process. `EINVAL` if there is another, or one that has ended and
/// was not taken away yet (`check_unshare_flags` in kernel/fork.c); what a filter says.
pub(crate) fn unshare_thread_group() -> Result<()> {
    // SAFETY: 1. It touches no memory, and changes nothing of a process with one thread.
    unsafe { call!(__NR_unshare, k::CLONE_THREAD as usize) }.map(drop)
}

/// sched_getaffinity(2) of the thread `tid`, 0 for the calling one: a bit per processor, and how
/// many bytes the kernel wrote; the rest of `mask` is left alone. `EINVAL` if `mask` has no room
/// for all processors that the kernel can have, `ESRCH`.
///
/// In handlers: yes.
pub fn sched_getaffinity(tid: u32, mask: &mut [usize]) -> Result<usize> {
    // SAFETY: 1. The kernel writes into `mask` only.
    unsafe { call!(__NR_sched_getaffinity, tid as usize, size_of_val(mask), at(mask)) }
}

/// sched_setaffinity(2) of the thread `tid`, 0 for the calling one. `EINVAL` if `mask` has no
/// processor that the thread may use, `EPERM`, `ESRCH`.
///
/// ```no_run
/// use rt0::sys;
///
/// let mut mask = [0usize; 16];
/// let len = sys::sched_getaffinity(0, &mut mask)?; // In bytes.
/// sys::sched_setaffinity(0, &mask[..len / size_of::<usize>()])?;
/// sys::sched_yield();
/// # Ok::<(), rt0::Errno>(())
/// ```
///
/// In handlers: yes.
pub fn sched_setaffinity(tid: u32, mask: &[usize]) -> Result<()> {
    // SAFETY: 1. The kernel only reads `mask`.
    unsafe { call!(__NR_sched_setaffinity, tid as usize, size_of_val(mask), at(mask)) }.map(drop)
}

/// getcpu(2): the processor that the calling thread runs on, and its NUMA node. Only a filter can
/// refuse it.
pub(crate) fn getcpu() -> Result<(u32, u32)> {
    let (mut cpu, mut node) = (0u32, 0u32);
    // SAFETY: 1. The kernel writes the two numbers only.
    unsafe { call!(__NR_getcpu, at(&raw mut cpu), at(&raw mut node), 0) }.map(|_| (cpu, node))
}

/// rseq(2): registers the calling thread's area of `len` bytes, or unregisters it. `EBUSY`, `EPERM`
/// or `EINVAL` if one is registered; `EINVAL` also for an area of another size or alignment than
/// the kernel wants, and if none is; `ENOSYS` before Linux 4.18.
///
/// # Safety
///
/// 1. The kernel may write to the area until it is unregistered or the thread has ended.
pub(crate) unsafe fn rseq(area: *mut u8, len: usize, unregister: bool, signature: u32) -> Result<()> {
    const RSEQ_FLAG_UNREGISTER: usize = 1; // linux/rseq.h; missing in linux-raw-sys.
    let flags = if unregister { RSEQ_FLAG_UNREGISTER } else { 0 };
    // SAFETY: the caller guarantees 1.
    unsafe { call!(__NR_rseq, at(area), len, flags, signature as usize) }.map(drop)
}

/// prctl(2) with `PR_SET_NAME`: the calling thread's name; the kernel takes the first 15 bytes.
pub(crate) fn prctl_set_name(name: &[u8; 16]) {
    // It cannot fail with a readable name.
    // SAFETY: 1. The kernel only reads the name, and no more of it.
    let _ = unsafe { call!(__NR_prctl, linux_raw_sys::prctl::PR_SET_NAME as usize, at(name.as_ptr())) };
}

/// tgkill(2). `ESRCH`, `EINVAL`, `EPERM`, `EAGAIN` (a real-time signal over `RLIMIT_SIGPENDING`).
///
/// ```no_run
/// use rt0::sys;
///
/// let parent = sys::getppid();
/// let is_alive = sys::tgkill(parent, parent, 0).is_ok(); // Signal 0 is not sent.
/// ```
///
/// In handlers: yes.
pub fn tgkill(tgid: u32, tid: u32, sig: u32) -> Result<()> {
    // SAFETY: 1. A signal is no memory access, and the code that installed its action vouched for
    // it.
    unsafe { call!(__NR_tgkill, tgid as usize, tid as usize, sig as usize) }.map(drop)
}

/// prlimit(2) of this process: the soft limit, `None` for unlimited. `ENOSYS` where a filter
/// forbids the call.
pub(crate) fn getrlimit(resource: u32) -> Result<Option<u64>> {
    let mut limits = [0u64; 2]; // Soft and hard, as struct rlimit64.
    // SAFETY: 1. The kernel writes `limits` only.
    unsafe { call!(__NR_prlimit64, 0, resource as usize, 0, at(&raw mut limits)) }?;
    Ok(Some(limits[0]).filter(|soft| *soft != k::RLIM64_INFINITY as u64))
}

/// membarrier(2): `ENOSYS` before Linux 4.3 and where a kernel is built without it, `EINVAL` for a
/// command that it does not know, `EPERM` for one that the process has not registered for.
pub(crate) fn membarrier(command: k::membarrier_cmd) -> Result<()> {
    // SAFETY: 1. It touches no memory.
    unsafe { call!(__NR_membarrier, command as usize, 0, 0) }.map(drop)
}
