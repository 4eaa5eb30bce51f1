//! The handler of SIGPROF: one sample for each tick.

use core::ops::Range;
use core::sync::atomic::{
    AtomicUsize,
    Ordering::{Acquire, Relaxed},
};

use linux_raw_sys::general as k;

use super::session::{LOST, PROCESS_TIMER, SLOT};
use super::{DEPTH, stack, ticks};
use crate::arch::{Arch, Cpu};
use crate::signal::Info;
use crate::sys;
use crate::thread::{self, Block};

/// The handler.
pub(super) fn tick(info: &Info) {
    let Some(block) = thread::block_in_handler() else {
        // The thread is not rt0's: it has no ring, and only the process's timer.
        if info.timer().is_none() && info.code() == k::SI_KERNEL as i32 && PROCESS_TIMER.load(Relaxed) != 0 {
            LOST.fetch_add(1, Relaxed);
        }
        return;
    };
    let slot = SLOT.of(block);
    // Acquire pairs with the release in `profile`.
    let weight = match (slot.token.load(Acquire), info.timer()) {
        (0, None) if info.code() == k::SI_KERNEL as i32 && PROCESS_TIMER.load(Relaxed) != 0 => 1,
        (token, Some(timer)) if token != 0 && timer.value == token => {
            let weight = timer.overrun.saturating_add(1);
            slot.counted.add(weight);
            weight
        }
        _ => return,
    };
    let Some(ring) = slot.ring() else {
        ticks::add_saturating(&LOST, weight);
        return;
    };
    let mut frames = [0; DEPTH];
    let bounds = readable(block, info.sp());
    // Volatile, because any variable may lie there.
    // SAFETY: within the bounds, so it is mapped and lies on this thread's own stack.
    let read = |address| Some(unsafe { core::ptr::with_exposed_provenance::<usize>(address).read_volatile() });
    let depth = stack::walk(Cpu::FRAMES.as_ref(), [info.pc(), info.fp()], &bounds, read, &mut frames);
    ring.push(block.tid(), weight, &frames[..depth]);
}

/// The end of the main thread's stack, and how much of it may be read; 0 if unknown.
static MAIN_STACK: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];

pub(super) fn store_main_stack() {
    /// The kernel keeps 128 MiB below the stack's end free, whatever the limit.
    const NOTHING_ELSE_WITHIN: u64 = 64 << 20;
    let limit = sys::getrlimit(k::RLIMIT_STACK).ok().flatten().unwrap_or(NOTHING_ELSE_WITHIN);
    MAIN_STACK[0].store(thread::main_stack_end().unwrap_or(0), Relaxed);
    MAIN_STACK[1].store(limit.min(NOTHING_ELSE_WITHIN) as usize, Relaxed);
}

/// The part of the stack that is in use and certainly mapped: from the stack pointer up, on the one
/// of the thread's stacks that it points into. Empty if the program runs on a stack that it made
/// itself.
fn readable(block: &Block, sp: usize) -> Range<usize> {
    let signal = block.signal_stack.base.addr()..block.signal_stack.base.addr() + block.signal_stack.size;
    let main = {
        let [end, len] = [MAIN_STACK[0].load(Relaxed), MAIN_STACK[1].load(Relaxed)];
        if block.stack.is_empty() { end.saturating_sub(len)..end } else { 0..0 }
    };
    let stacks = [&block.stack, &signal, &main];
    stacks.into_iter().find(|stack| stack.contains(&sp)).map_or(0..0, |stack| sp..stack.end)
}
