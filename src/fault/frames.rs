//! The frames of a thread, from what a handler interrupted.

use core::ops::Range;
use core::ptr::with_exposed_provenance;

use super::Text;
use crate::arch::{Arch, Cpu, Restorer};
use crate::auxv::page_size;
use crate::profile::{DEPTH, walk};
use crate::signal::Info;
use crate::sys;
use crate::thread::{self, Block};

/// A pc, and the addresses at which its callers continue.
pub(super) struct Frames {
    pub(super) addresses: [usize; DEPTH],
    pub(super) depth: usize,
}

impl Frames {
    /// The frames of the calling thread, which the handler with this `info` interrupted.
    pub(super) fn of(info: &Info) -> Frames {
        let bounds = bounds(thread::block_in_report(), info.sp());
        let page = !(page_size() - 1);
        let mut readable = None;
        let mut read = |address: usize| {
            if readable != Some(address & page) {
                if !sys::holds_any(with_exposed_provenance(address & page)) {
                    return None;
                }
                readable = Some(address & page);
            }
            // SAFETY: the kernel has read from this page; volatile: any variable may lie there.
            Some(unsafe { with_exposed_provenance::<usize>(address).read_volatile() })
        };
        let mut frames = Frames { addresses: [0; DEPTH], depth: 0 };
        let (pc, fp) = (info.pc(), info.fp());
        if !sys::holds_any(with_exposed_provenance(pc & page)) {
            // The program jumped to an address without code. The frame is still the caller's.
            let at_sp = || bounds.start.is_multiple_of(size_of::<usize>()).then(|| read(bounds.start)).flatten();
            if let Some(caller) = info.link().or_else(at_sp) {
                frames.add(pc);
                frames.add_chain([caller, fp], &bounds, &mut read);
                return frames;
            }
        }
        // On machines where a function's return address is stored in its caller's frame, a function
        // that calls no other keeps it in the register. Then the register points into the caller,
        // otherwise into the function itself.
        let link = info.link().filter(|_| Cpu::FRAMES.as_ref().is_some_and(|shape| shape.in_callers));
        let Some(link) = link else {
            frames.add_chain([pc, fp], &bounds, &mut read);
            return frames;
        };
        let mut chain = Frames { addresses: [0; DEPTH], depth: 0 };
        chain.add_chain([pc, fp], &bounds, &mut read);
        frames.add(pc);
        if chain.addresses.get(1) != Some(&link) {
            frames.add(link);
        }
        chain.addresses.iter().take(chain.depth).skip(1).for_each(|address| frames.add(*address));
        // The unset return address in its frame ended the chain.
        if chain.depth == 1
            && let Some(caller) = bounds.contains(&fp).then(|| read(fp & !(size_of::<usize>() - 1))).flatten()
        {
            frames.depth = 1;
            frames.add_chain([link, caller], &bounds, &mut read);
        }
        frames
    }

    fn add(&mut self, address: usize) {
        if let Some(room) = self.addresses.get_mut(self.depth) {
            *room = address;
            self.depth += 1;
        }
    }

    fn add_chain(&mut self, start: [usize; 2], bounds: &Range<usize>, read: impl FnMut(usize) -> Option<usize>) {
        let mut addresses = [0; DEPTH];
        let depth = walk(Cpu::FRAMES.as_ref(), start, bounds, read, &mut addresses);
        addresses.iter().take(depth).for_each(|address| self.add(*address));
    }

    /// Writes a line for each frame: the pc, then the last byte of each caller's call instruction.
    pub(super) fn write(&self, text: &mut Text) {
        let past_call = Cpu::FRAMES.as_ref().map_or(1, |frames| frames.past_call);
        for (index, &address) in self.addresses.iter().take(self.depth).enumerate() {
            let is_called = index > 0 && !is_restorer(address);
            let shown = if is_called { address.wrapping_sub(past_call) } else { address };
            text.text("    0x").number(shown, true).text("\n");
        }
    }
}

/// Whether a handler returns to this address. No call instruction precedes it.
fn is_restorer(address: usize) -> bool {
    match Cpu::RESTORER {
        Restorer::Kernels => false,
        Restorer::Field { with_info, plain, .. } => [with_info as usize, plain as usize].contains(&address),
        Restorer::Argument(restorer) => restorer as usize == address,
    }
}

/// The addresses that a chain beginning at `sp` may pass: up to the end of the thread's stack, also
/// from its signal stack. On a stack that the program made itself, and on a thread that rt0 did not
/// start: 8 MiB.
fn bounds(block: Option<&Block>, sp: usize) -> Range<usize> {
    const OF_OTHERS: usize = 8 << 20;
    let end = match block {
        Some(block) if block.stack.is_empty() => thread::main_stack_end(),
        Some(block) => Some(block.stack.end),
        None => None,
    };
    let within = end.filter(|end| block.is_some() && sp < *end);
    sp..within.unwrap_or_else(|| sp.saturating_add(OF_OTHERS))
}
