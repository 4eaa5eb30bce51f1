//! How a thread starts, runs its closure and ends.

use core::ptr::{NonNull, null_mut};

use linux_raw_sys::general as k;

use super::block::Block;
use super::builder::Ready;
use super::list::{self, InsideGate};
use super::stack;
use crate::arch::CloneArgs;
use crate::errno::{Errno, Result};
use crate::signal::{self, Blocked};
use crate::sys;

/// Clones the thread, with all signals blocked (2). While the kernel returns `EAGAIN` it retries,
/// 20 times, 1 to 20 ms apart: a thread that has just ended may still count against a limit.
pub(super) fn start(&Ready { block, stack, thread_pointer, mask, .. }: &Ready) -> Result<()> {
    const FLAGS: u32 = k::CLONE_VM
        | k::CLONE_FS
        | k::CLONE_FILES
        | k::CLONE_SIGHAND
        | k::CLONE_THREAD
        | k::CLONE_SYSVSEM // qemu-user refuses threads without it.
        | k::CLONE_SETTLS
        | k::CLONE_PARENT_SETTID
        | k::CLONE_CHILD_CLEARTID;
    let mut tries = 0;
    loop {
        let before = signal::block_everything();
        // SAFETY: no other thread has the block until it is linked.
        unsafe { (*block.as_ptr()).mask = mask.map_or(before.without_reserved(), |mask| Blocked::of(&mask)) };
        let inside = InsideGate::enter(&before);
        inside.link(block);
        let args = CloneArgs {
            flags: FLAGS as usize,
            stack,
            // SAFETY: the caller's references keep the block.
            tid: unsafe { block.as_ref() }.lifecycle.tid_word(),
            tls: thread_pointer,
            start: null_mut(),
        };
        // SAFETY: 1. The stack was carved with this alignment and is fresh. 2. The word and the
        // thread pointer lie in the mapping, which the caller leaves to the block's references; all
        // signals are blocked. 3. The block is the new thread's.
        let cloned = unsafe { sys::clone(args, rust_thread, block.as_ptr().cast()) };
        if cloned.is_err() {
            inside.unlink(block);
        } // Otherwise it runs, and may have left the list already.
        drop(inside);
        before.restore();
        match cloned {
            Ok(_) => return Ok(()),
            Err(Errno::EAGAIN) if tries < 20 => {
                tries += 1;
                // Not `sleep`, which would link the clocks into every program that spawns. A
                // handler may shorten it.
                let _ = sys::nanosleep(&sys::Timespec { tv_sec: 0, tv_nsec: tries * 1_000_000 });
            }
            Err(errno) => return Err(errno),
        }
    }
}

/// The thread's first function, on its own stack, with all signals blocked.
///
/// # Safety
///
/// 1. `block` is this thread's, and all of it was written before the clone.
unsafe extern "C" fn rust_thread(block: *mut u8) -> ! {
    let block = block.cast::<Block>();
    // SAFETY: this thread's own reference keeps it until `release` (1). Other threads access only
    // its atomics, and its cells by the rules that stand beside them.
    let this = unsafe { &*block };
    // Only a filter can refuse it. Then handlers run on the thread's stack, and an overflow ends
    // the process without its line.
    // SAFETY: 1. The signal stack is a part of the thread's mapping that has no other use.
    let _ = unsafe { signal::set_signal_stack(this.signal_stack) };
    if let Some(set_kernel_name) = this.set_kernel_name {
        set_kernel_name(this);
    }
    list::call_start_hooks(this);
    this.mask.restore();
    if let Some(run) = this.run.get() {
        // SAFETY: `launch` holds what `run` expects, and `run` is called once.
        unsafe { run(this) };
    }
    this.destructors.run();
    let before = signal::block_everything();
    this.interrupts.end(this, &before);
    InsideGate::enter(&before).leave_for_good();
    let (base, len) = this.mapping;
    // SAFETY: 1. This was the last reference, and the thread only ends from here on.
    if this.lifecycle.release() && !unsafe { stack::keep(NonNull::from_ref(this)) } {
        // SAFETY: 1. The pointer is null, so the kernel writes nothing at the thread's end.
        if unsafe { sys::set_tid_address(null_mut()) }.is_ok() {
            // SAFETY: 1. No reference is left, so no other thread accesses the mapping. 2. All
            // signals are blocked. 3. The kernel has no tid word any more, by the line above.
            unsafe { sys::unmap_and_exit(base, len) }
        }
        // A filter refused it. The mapping stays, because the kernel will clear the word in it.
    }
    // SAFETY: 1. Every other user of this stack waits until the tid word is clear.
    unsafe { sys::exit(0) }
}

/// Calls the closure and passes on its result.
///
/// # Safety
///
/// 1. `this.launch` holds an `F` and has room for a `T`. Nothing else takes the `F`.
pub(super) unsafe fn run<F: FnOnce() -> T, T>(this: &Block) {
    // SAFETY: 1. It is read once.
    let closure = unsafe { this.launch.get().cast::<F>().read() };
    // SAFETY: 1. The closure was taken above.
    unsafe { finish(this, closure()) };
}

/// Writes the result for the handle, or drops it if the thread is detached (5).
///
/// # Safety
///
/// 1. `this` is the calling thread's block. `this.launch` has space for a `T` and holds no value.
unsafe fn finish<T>(this: &Block, result: T) {
    let room = this.launch.get().cast::<T>();
    // SAFETY: the caller guarantees the space (1).
    unsafe { room.write(result) };
    if !this.lifecycle.finish() {
        // SAFETY: written above; the thread was detached, so no handle takes the result.
        unsafe { room.drop_in_place() };
    }
}

/// Tells the kernel the calling thread's name. The kernel keeps 15 bytes; the name is cut at a
/// character's end.
pub(super) fn set_kernel_name(this: &Block) {
    let name = this.name().unwrap_or_default();
    let mut cut = [0; 16];
    for (to, from) in cut.iter_mut().zip(name[..name.floor_char_boundary(15)].bytes()) {
        *to = from;
    }
    sys::prctl_set_name(&cut);
}
