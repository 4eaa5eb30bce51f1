//! Power, 32 and 64 bits, in either byte order.

use super::{Flow, Instruction, bytes, field, signed};

/// Number in r0; 32 and 64 bits.
pub fn powerpc<const BIG: bool>(code: &[u8], offset: usize, at: u64) -> Option<Instruction> {
    let word = bytes(code, offset)?;
    let word = if BIG { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) };
    let (rt, ra, extended) = (field(word, 21, 5), field(word, 16, 5), field(word, 1, 10));
    let (links, always) = (word & 1 == 1, rt & 0b10100 == 0b10100);
    let base = if word & 2 == 0 { at } else { 0 };
    let flow = match word >> 26 {
        _ if word == 0x4400_0002 => Flow::SystemCall, // sc
        _ if word == 0x7fe0_0008 => Flow::End,        // trap
        18 if links => Flow::Call(base.wrapping_add_signed(signed(word & 0x03ff_fffc, 26))), // bl
        16 if links => Flow::Next,
        18 => Flow::Jump(base.wrapping_add_signed(signed(word & 0x03ff_fffc, 26))), // b
        16 => {
            let to = base.wrapping_add_signed(signed(word & 0xfffc, 16));
            if always { Flow::Jump(to) } else { Flow::Branch(to) } // bc
        }
        19 if extended == 16 && !links => {
            if always {
                Flow::Return
            } else {
                Flow::ConditionalReturn
            }
        } // blr
        19 if extended == 528 && !links => {
            if always {
                Flow::Indirect
            } else {
                Flow::ConditionalIndirect
            }
        } // bctr
        _ => Flow::Next,
    };
    let sets = match word >> 26 {
        // Of an immediate, including li; loads.
        7 | 8 | 12..=15 | 32..=35 | 40..=43 | 58 => rt == 0,
        20 | 21 | 23..=30 => ra == 0, // Rotations; of an immediate and bits.
        // isel, lwzx, ldx, lbzx, lhzx, lhax, lwax, mfspr, mfcr, add, subf, neg, mullw, mulld,
        // lwarx, ldarx
        31 if extended & 31 == 15 => rt == 0,
        31 if matches!(extended, 20 | 21 | 23 | 84 | 87 | 279 | 341 | 343 | 339 | 19 | 266 | 40 | 104 | 235 | 233) => {
            rt == 0
        }
        // and, andc, nor, eqv, xor, orc, or, nand; slw, sld, srw, srd, sraw, srawi; extsh, extsb,
        // extsw; cntlzw, cntlzd
        31 if matches!(
            extended,
            28 | 60 | 124 | 284 | 316 | 412 | 444 | 476 | 24 | 27 | 536 | 539 | 792 | 824 | 922 | 954 | 986 | 26 | 58
        ) =>
        {
            ra == 0
        }
        _ => false,
    };
    Some(flow.instruction(4, sets))
}
