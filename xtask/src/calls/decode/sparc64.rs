//! SPARC V9.

use super::{Flow, Instruction, bytes, field, signed};

/// Number in %g1. A branch counts as taken before the instruction in its delay slot writes the
/// register, and the instruction after the slot may follow: this gives more paths than exist.
pub fn sparc64(code: &[u8], offset: usize, at: u64) -> Option<Instruction> {
    let word = u32::from_be_bytes(bytes(code, offset)?);
    let (form, rd, middle) = (word >> 30, field(word, 25, 5), field(word, 19, 6));
    let to = |offset, bits| at.wrapping_add_signed(signed(offset, bits) * 4);
    let flow = match (form, field(word, 22, 3)) {
        _ if word == 0x91d0_206d => Flow::SystemCall, // ta 0x6d
        _ if word == 0x91d0_2005 => Flow::End,        // ta 5
        (0, 0) => Flow::End,                          // illtrap
        (0, 1 | 5) => Flow::Branch(to(word, 19)),     // bpcc, fbpfcc
        (0, 2 | 6) => Flow::Branch(to(word, 22)),     // bicc, fbfcc
        (0, 3) => Flow::Branch(to(field(word, 20, 2) << 14 | word & 0x3fff, 16)), // bpr
        // jmpl: ret and retl, others.
        (2, _) if middle == 0x38 && rd == 0 => match word & 0x0007_ffff {
            0x0003_e008 | 0x0007_e008 => Flow::ConditionalReturn,
            _ => Flow::ConditionalIndirect,
        },
        _ => Flow::Next,
    };
    let writes = match form {
        0 => field(word, 22, 3) == 4, // sethi
        // Of registers; shifts, sdivx, popc.
        2 => middle < 0x20 || matches!(middle, 0x25..=0x27 | 0x2d | 0x2e),
        // Loads of integers, ldstub.
        3 => matches!(middle, 0x00..=0x02 | 0x08..=0x0b | 0x0d),
        _ => false,
    };
    Some(flow.instruction(4, writes && rd == 1))
}
