//! Restartable sequences: rseq(2), by which the kernel tells each thread its processor.
//!
//! A runtime with data per processor (an allocator's caches, counters, run queues) registers its
//! threads. Then [`cpu_id`], [`node_id`] and [`mm_cid`] are loads, and the runtime's own assembly
//! may use the [`Area`] for critical sections that the kernel restarts.
//!
//! Properties, and how they are achieved:
//!
//! 1. *The area is mapped as long as the kernel writes to it:* it is a part of the thread's own
//!    memory, and a thread that ends unregisters it before it leaves the list of threads. If a
//!    filter refuses that, the memory stays for ever.
//! 2. *Every kernel accepts the area:* it has 32 bytes at a multiple of 32, as in the first version
//!    of the call, which newer kernels accept too. They fill in as many of its fields as
//!    `AT_RSEQ_FEATURE_SIZE` says.
//! 3. *A thread that is not registered gets the same values from getcpu(2)*, except [`mm_cid`].
//! 4. *A forked child's thread stays registered*, with its copy of the area: the kernel keeps the
//!    registration of a thread that forks. A child that shares memory (vfork(2), the hook of
//!    [`process::Command`](crate::process::Command)) is not registered; there the loads return what
//!    the kernel last wrote for the parent's thread.
//!
//! Source: kernel/rseq.c and include/uapi/linux/rseq.h of Linux; there is no man page.

use core::cell::UnsafeCell;
use core::mem::{forget, offset_of};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use linux_raw_sys::auxvec;

use crate::errno::{Errno, Result};
use crate::thread::{self, Block, Hooks};
use crate::{auxv, sys};

/// The kernel's `struct rseq`, in its first version of 32 bytes. The kernel writes the fields
/// whenever the thread continues after it was preempted or got a signal.
///
/// ```no_run
/// use core::sync::atomic::Ordering::Relaxed;
/// use rt0::rseq::{self, Area};
///
/// rseq::register(0)?;
/// if let Some(area) = rseq::area() {
///     // SAFETY: it is mapped as long as this thread runs.
///     let area: &Area = unsafe { area.as_ref() };
///     rt0::println!("processor {}", area.cpu_id.load(Relaxed));
/// }
/// rt0::println!("node {}, concurrency id {:?}", rseq::node_id()?, rseq::mm_cid());
/// rseq::unregister()?;
/// # Ok::<(), rt0::Errno>(())
/// ```
#[repr(C, align(32))]
#[derive(Debug)]
pub struct Area {
    /// The processor that the thread runs on; 0 before it is registered. A critical section begins
    /// with it.
    pub cpu_id_start: AtomicU32,
    /// The processor that the thread runs on; 0 before it is registered, `u32::MAX` after it was
    /// unregistered. A critical section compares it.
    pub cpu_id: AtomicU32,
    /// Address of the `struct rseq_cs` of the current critical section, or 0. Only the thread
    /// itself may write it, by one store; on 32-bit machines to the half with the low bits.
    pub rseq_cs: UnsafeCell<u64>,
    /// 0.
    pub flags: AtomicU32,
    /// The NUMA node of the processor; 0 if the kernel does not have the field.
    pub node_id: AtomicU32,
    /// See [`mm_cid`]; 0 if the kernel does not have the field.
    pub mm_cid: AtomicU32,
    end: [u32; 1],
}

const _: () = assert!(size_of::<Area>() == 32 && offset_of!(Area, mm_cid) == 24, "the kernel's struct rseq");

/// A thread's area and its registration.
struct Slot {
    area: Area,
    is_registered: AtomicU32,
    signature: AtomicU32,
}

// SAFETY: it has atomics, and the critical section's word, of which it gives out only the address.
unsafe impl Sync for Slot {}

impl Slot {
    const fn new() -> Slot {
        Slot {
            area: Area {
                cpu_id_start: AtomicU32::new(0),
                cpu_id: AtomicU32::new(0),
                rseq_cs: UnsafeCell::new(0),
                flags: AtomicU32::new(0),
                node_id: AtomicU32::new(0),
                mm_cid: AtomicU32::new(0),
                end: [0],
            },
            is_registered: AtomicU32::new(0),
            signature: AtomicU32::new(0),
        }
    }

    // Relaxed, here and below: only the thread itself writes and reads it, and its handlers.
    fn is_registered(&self) -> bool {
        self.is_registered.load(Relaxed) != 0
    }

    fn unregister(&self) -> Result<()> {
        let signature = self.signature.load(Relaxed);
        // SAFETY: 1. The kernel stops writing to it.
        unsafe { sys::rseq((&raw const self.area).cast_mut().cast(), size_of::<Area>(), true, signature) }?;
        self.is_registered.store(0, Relaxed);
        Ok(())
    }
}

thread::part! {
    static SLOT: Slot;
}

static HOOKS: Hooks = Hooks { start: None, end: Some(|_, thread| end(thread)), fork: None };

/// Unregisters a thread that ends (1). For a thread that was killed nothing is necessary: the
/// kernel does not write to the area any more.
fn end(thread: &Block) {
    let slot = SLOT.of(thread);
    let is_own = core::ptr::eq(thread, thread::this_block().as_ptr());
    if is_own && slot.is_registered() && slot.unregister().is_err() {
        forget(thread::current()); // A reference that keeps the memory.
    }
}

/// Registers the calling thread. The kernel restarts a critical section only if `signature` is in
/// the 4 bytes before its abort handler; a runtime without such sections passes any number.
///
/// Errors: `EBUSY`, the thread is registered; `EPERM`, it is registered with another signature;
/// `EINVAL`, other code has registered an area for it; `ENOSYS`, before Linux 4.18, on a kernel
/// built without the call, or under qemu-user.
///
/// ```no_run
/// use rt0::rseq;
///
/// let _ = rseq::register(0); // If it fails, the ids come from getcpu(2).
/// let counter = rseq::cpu_id()? as usize % 64;
/// # Ok::<(), rt0::Errno>(())
/// ```
///
/// In handlers: yes.
pub fn register(signature: u32) -> Result<()> {
    thread::register(&HOOKS);
    SLOT.with(|slot| {
        // SAFETY: 1. The area is the kernel's until it is unregistered, which the thread's end
        // does.
        unsafe { sys::rseq((&raw const slot.area).cast_mut().cast(), size_of::<Area>(), false, signature) }?;
        slot.signature.store(signature, Relaxed);
        slot.is_registered.store(1, Relaxed);
        Ok(())
    })
}

/// Ends the registration of the calling thread; the end of the thread does it by itself. `EINVAL`
/// if the thread is not registered.
///
/// In handlers: yes, but not in one that may have interrupted a critical section.
pub fn unregister() -> Result<()> {
    SLOT.with(|slot| if slot.is_registered() { slot.unregister() } else { Err(Errno::EINVAL) })
}

/// The calling thread's area, for assembly; `None` if the thread is not registered. It lasts as
/// long as the thread.
///
/// In handlers: yes.
#[must_use]
pub fn area() -> Option<NonNull<Area>> {
    SLOT.with(|slot| slot.is_registered().then(|| NonNull::from_ref(&slot.area)))
}

/// The processor on which the calling thread runs. When the caller uses the number, the thread may
/// run on another one. A load if the thread is registered, otherwise getcpu(2). Errors: `ENOSYS`;
/// others from a filter.
///
/// In handlers: yes.
#[inline]
pub fn cpu_id() -> Result<u32> {
    SLOT.with(|slot| match slot.is_registered() {
        true => Ok(slot.area.cpu_id.load(Relaxed)),
        false => sys::getcpu().map(|(cpu, _)| cpu),
    })
}

/// The NUMA node of the processor on which the calling thread runs. A load if the thread is
/// registered and the kernel has the field (Linux 6.3), otherwise getcpu(2). Errors: `ENOSYS`;
/// others from a filter.
///
/// In handlers: yes.
pub fn node_id() -> Result<u32> {
    SLOT.with(|slot| match slot.is_registered() && has_field(offset_of!(Area, node_id)) {
        true => Ok(slot.area.node_id.load(Relaxed)),
        false => sys::getcpu().map(|(_, node)| node),
    })
}

/// The concurrency id of the calling thread: no other thread of the process that runs now has it,
/// and it is below the number of the process's threads and of its processors. A process with few
/// threads on many processors uses it as the index of its data. `None` if the thread is not
/// registered, or the kernel does not have the field (before Linux 6.3).
///
/// In handlers: yes.
#[must_use]
pub fn mm_cid() -> Option<u32> {
    let has_it = has_field(offset_of!(Area, mm_cid));
    SLOT.with(|slot| (slot.is_registered() && has_it).then(|| slot.area.mm_cid.load(Relaxed)))
}

/// Whether the kernel fills in the field of 4 bytes at `offset`.
fn has_field(offset: usize) -> bool {
    let features = auxv::of_process().get(auxvec::AT_RSEQ_FEATURE_SIZE as usize);
    features.is_some_and(|size| size >= offset + size_of::<u32>())
}
