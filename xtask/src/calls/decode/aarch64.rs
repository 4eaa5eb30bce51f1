//! AArch64, in either byte order of its data.

use super::{Flow, Instruction, bytes, field, signed};

/// Number in x8.
pub fn aarch64(code: &[u8], offset: usize, at: u64) -> Option<Instruction> {
    let word = u32::from_le_bytes(bytes(code, offset)?); // In big-endian programs too.
    let to = |low, bits| at.wrapping_add_signed(signed(word >> low, bits) * 4);
    let flow = match word {
        _ if word & 0xffe0_001f == 0xd400_0001 => Flow::SystemCall, // svc
        _ if word & 0xfc00_0000 == 0x1400_0000 => Flow::Jump(to(0, 26)), // b
        _ if word & 0xfc00_0000 == 0x9400_0000 => Flow::Call(to(0, 26)), // bl
        _ if word & 0xff00_0000 == 0x5400_0000 => Flow::Branch(to(5, 19)), // b.cond, bc.cond
        _ if word & 0x7e00_0000 == 0x3400_0000 => Flow::Branch(to(5, 19)), // cbz, cbnz
        _ if word & 0x7e00_0000 == 0x3600_0000 => Flow::Branch(to(5, 14)), // tbz, tbnz
        _ if word & 0xffff_fc1f == 0xd61f_0000 => Flow::Indirect,   // br
        _ if word & 0xffff_fc1f == 0xd65f_0000 => Flow::Return,     // ret
        _ if word >> 16 == 0 || word & 0xffe0_001f == 0xd420_0000 => Flow::End, // udf, brk
        _ => Flow::Next,
    };
    let (first, second) = (word & 31 == 8, field(word, 10, 5) == 8);
    let sets = match field(word, 25, 4) {
        0b1000 | 0b1001 => first, // Of an immediate.
        0b0101 | 0b1101 => {
            // Of registers, except conditional compares and instructions that write only flags.
            let flags =
                word & 0x3fe0_0000 == 0x3a40_0000 || word & 0x3fe0_0000 == 0x3a00_0000 && field(word, 10, 6) != 0;
            first && !flags
        }
        // Loads of integers: literal, one register, a pair, exclusive.
        0b0100 | 0b0110 | 0b1100 | 0b1110 if word & 1 << 26 == 0 => match field(word, 27, 3) {
            0b011 => first && field(word, 24, 2) == 0 && field(word, 30, 2) != 3,
            0b111 => first && field(word, 22, 2) != 0 && !(field(word, 30, 2) == 3 && field(word, 22, 2) == 2),
            0b101 => (first || second) && field(word, 22, 1) == 1,
            0b001 => first && field(word, 24, 2) == 0 && field(word, 21, 2) == 2,
            _ => false,
        },
        _ => first && word & 0xfff0_0000 == 0xd530_0000, // mrs
    };
    Some(flow.instruction(4, sets))
}
