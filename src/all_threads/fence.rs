//! A fence of two unequal halves: free on the frequent side, a system call on the rare side.
//!
//! Two threads that each store one word and then load the other's must not both find the old value.
//! That takes a full fence between store and load on both sides. Where one side is a fast path and
//! the other is rare (a reader's mark and a collector, a hazard pointer and a reclaimer), the first
//! calls [`light_fence`] and the second [`heavy_fence`]:
//!
//! 1. *Before and after*: for each thread there is a moment during a heavy fence such that what the
//!    thread did before it happens before the heavy fence returns, and what the caller did before
//!    the heavy fence happens before what the thread does after it. A light fence keeps the
//!    thread's own accesses on their sides of that moment.
//! 2. *By the kernel*: membarrier(2), private expedited (Linux 4.14), interrupts the processors
//!    that run this process.
//! 3. *Else by a signal*: where the call is missing or refused, the reserved signal interrupts each
//!    thread, as for any call on all threads. Its handler acquires what the caller released, and
//!    releases to the caller what the thread did.

use core::sync::atomic::{Ordering::SeqCst, compiler_fence, fence};

use linux_raw_sys::general as k;

use super::{Result, syscall};
use crate::errno::Errno;
use crate::sys;

/// The half for the frequent side; see [`heavy_fence`]. It is no instruction: it only keeps the
/// compiler from moving accesses across.
///
/// In handlers: yes.
#[inline(always)]
pub fn light_fence() {
    compiler_fence(SeqCst);
}

/// The half for the rare side. Together with [`light_fence`] on the other threads it has the effect
/// of a full fence (`fence(SeqCst)`) on each of them and on the caller.
///
/// It takes a few microseconds, by membarrier(2). If that call is missing, it takes a few for each
/// thread, and the errors are those of [`syscall`]: for example, rt0 did not start a thread.
///
/// ```no_run
/// use core::ptr::null_mut;
/// use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering::{Acquire, Relaxed, Release}};
/// use rt0::all_threads::{self, heavy_fence, light_fence};
///
/// static READS: AtomicBool = AtomicBool::new(false);
/// static SHARED: AtomicPtr<u32> = AtomicPtr::new(null_mut());
///
/// /// Often, on one thread: no instruction for the order of the two accesses.
/// fn read(f: impl FnOnce(*mut u32)) {
///     READS.store(true, Relaxed);
///     light_fence();
///     f(SHARED.load(Acquire));
///     READS.store(false, Release);
/// }
///
/// /// Seldom, on another: afterwards no reader has the old value, or `READS` says that one has.
/// fn replace(new: *mut u32) -> all_threads::Result<Option<*mut u32>> {
///     let old = SHARED.swap(new, Release);
///     heavy_fence()?;
///     Ok((!READS.load(Acquire)).then_some(old))
/// }
/// ```
///
/// In handlers: no, it waits for threads that start and end.
pub fn heavy_fence() -> Result<()> {
    use k::membarrier_cmd::{
        MEMBARRIER_CMD_PRIVATE_EXPEDITED as BARRIER, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED as REGISTER,
    };
    fence(SeqCst); // The caller's own.
    let done = match sys::membarrier(BARRIER) {
        // The first of this process.
        Err(Errno::EPERM) => sys::membarrier(REGISTER).and_then(|()| sys::membarrier(BARRIER)),
        done => done,
    };
    match done {
        Ok(()) => Ok(()),
        // SAFETY: 1. The call changes nothing, and returns the same on each thread.
        Err(_) => unsafe { syscall(k::__NR_getpid as usize, [0; 6]) }.map(drop),
    }
}
