//! LoongArch, 64 bits.

use super::{Flow, Instruction, bytes, field, signed};

/// Number in $a7, which is $r11.
pub fn loongarch64(code: &[u8], offset: usize, at: u64) -> Option<Instruction> {
    let word = u32::from_le_bytes(bytes(code, offset)?);
    let (rd, rj) = (word & 31, field(word, 5, 5));
    let offset16 = field(word, 10, 16);
    let to = |offset, bits| at.wrapping_add_signed(signed(offset, bits) * 4);
    let flow = match word >> 26 {
        _ if word & 0xffff_8000 == 0x002b_0000 => Flow::SystemCall, // syscall
        _ if word & 0xffff_8000 == 0x002a_0000 => Flow::End,        // break
        0x10..=0x12 => Flow::Branch(to(offset16 | rd << 16, 21)),   // beqz, bnez, bceqz
        0x13 => {
            // After `pcaddu18i` of the same register the target is known.
            let before = offset.checked_sub(4).and_then(|offset| bytes(code, offset)).map(u32::from_le_bytes);
            let from = before.filter(|before| before & 0xfe00_001f == 0x1e00_0000 | rj);
            let from = from.map(|before| (at - 4).wrapping_add_signed(signed(before >> 5, 20) << 18));
            match (from.map(|from| from.wrapping_add_signed(signed(offset16, 16) * 4)), rd) {
                (Some(to), 0) => Flow::Jump(to),
                (Some(to), _) => Flow::Call(to),
                (None, 0) if rj == 1 => Flow::Return,
                (None, 0) => Flow::Indirect,
                (None, _) => Flow::Next,
            }
        }
        0x14 => Flow::Jump(to(offset16 | field(word, 0, 10) << 16, 26)), // b
        0x15 => Flow::Call(to(offset16 | field(word, 0, 10) << 16, 26)), // bl
        0x16..=0x1b => Flow::Branch(to(offset16, 16)),
        _ => Flow::Next,
    };
    let writes = match word >> 24 {
        // Of registers, shifts, fields; except asrt, break, syscall.
        0x00 => !matches!(word >> 16, 0x0001 | 0x002a | 0x002b),
        // Of immediates; from addu16i.d to pcaddu18i.
        0x02 | 0x03 | 0x10..=0x1f => true,
        0x20 | 0x22 | 0x24 | 0x26 => true,                              // ll, ldptr
        0x28 | 0x2a => matches!(word >> 22, 0xa0..=0xa3 | 0xa8..=0xaa), // ld.b to ld.wu
        0x38 => matches!(word >> 18 & 0x3f, 0..=3 | 8..=10) && field(word, 15, 3) == 0, // ldx
        _ => false,
    };
    Some(flow.instruction(4, writes && rd == 11))
}
