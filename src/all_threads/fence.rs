//! A fence of two unequal halves: free on the side that passes often, a system call on the other.
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

/// The half for the side that passes often; see [`heavy_fence`]. No instruction: it keeps the
/// compiler from moving accesses across.
///
/// In handlers: yes.
#[inline(always)]
pub fn light_fence() {
    compiler_fence(SeqCst);
}

/// The half for the rare side: with [`light_fence`] on the other threads, as if each of them and
/// the caller had passed a full fence (`fence(SeqCst)`).
///
/// Some microseconds, by membarrier(2); where that is missing, some for each thread. Errors are
/// then those of [`syscall`], as for a thread that was made past rt0.
///
/// In handlers: no, it waits for threads that start and end.
///
/// ```ignore
/// // A reader:                            // The reclaimer:
/// mark.store(true, Relaxed);              pointer.store(null, Relaxed);
/// light_fence();                          heavy_fence()?;
/// let seen = pointer.load(Relaxed);       if !mark.load(Acquire) { free() }
/// ```
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
        // SAFETY: 1. It asks, and each thread gets the same answer.
        Err(_) => unsafe { syscall(k::__NR_getpid as usize, [0; 6]) }.map(drop),
    }
}
