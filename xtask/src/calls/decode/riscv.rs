//! RISC-V, 32 and 64 bits.

use super::{Flow, Instruction, bytes, field, signed};

/// Number in a7, which is x17.
pub fn riscv<const BITS: u32>(code: &[u8], offset: usize, at: u64) -> Option<Instruction> {
    const A7: u32 = 17;
    let half = u32::from(u16::from_le_bytes(bytes(code, offset)?));
    if half & 3 != 3 {
        return Some(riscv_compressed::<BITS>(half, at));
    }
    let word = u32::from_le_bytes(bytes(code, offset)?);
    let (rd, rs1) = (field(word, 7, 5), field(word, 15, 5));
    let flow = match word & 0x7f {
        0x73 if word == 0x0000_0073 => Flow::SystemCall,                 // ecall
        0x73 if word == 0x0010_0073 || word == 0xc000_1073 => Flow::End, // ebreak, unimp
        0x63 => {
            let offset =
                field(word, 31, 1) << 12 | field(word, 7, 1) << 11 | field(word, 25, 6) << 5 | field(word, 8, 4) << 1;
            Flow::Branch(at.wrapping_add_signed(signed(offset, 13)))
        }
        0x6f => {
            let offset = field(word, 31, 1) << 20
                | field(word, 12, 8) << 12
                | field(word, 20, 1) << 11
                | field(word, 21, 10) << 1;
            let to = at.wrapping_add_signed(signed(offset, 21));
            if rd == 0 { Flow::Jump(to) } else { Flow::Call(to) }
        }
        0x67 => {
            // After `auipc` of the same register the target is known.
            let before = offset.checked_sub(4).and_then(|offset| bytes(code, offset)).map(u32::from_le_bytes);
            let from = before.filter(|before| before & 0xfff == 0x17 | rs1 << 7);
            let from = from.map(|before| (at - 4).wrapping_add_signed(i64::from((before & 0xffff_f000) as i32)));
            match (from.map(|from| from.wrapping_add_signed(signed(word >> 20, 12))), rd) {
                (Some(to), 0) => Flow::Jump(to),
                (Some(to), _) => Flow::Call(to),
                (None, 0) if rs1 == 1 => Flow::Return,
                (None, 0) => Flow::Indirect,
                (None, _) => Flow::Next,
            }
        }
        _ => Flow::Next,
    };
    let writes = matches!(word & 0x7f, 0x03 | 0x13 | 0x17 | 0x1b | 0x2f | 0x33 | 0x37 | 0x3b)
        || word & 0x7f == 0x73 && field(word, 12, 3) != 0;
    Some(flow.instruction(4, writes && rd == A7))
}

fn riscv_compressed<const BITS: u32>(half: u32, at: u64) -> Instruction {
    let (operation, rd, rs2) = (field(half, 13, 3), field(half, 7, 5), field(half, 2, 5));
    let bit = |from: u32, to: u32| field(half, from, 1) << to;
    let flow = match (half & 3, operation) {
        _ if half == 0 || half == 0x9002 => Flow::End, // c.unimp, c.ebreak
        (1, 5) | (1, 1) if operation == 5 || BITS == 32 => {
            let offset = bit(12, 11) | bit(11, 4) | field(half, 9, 2) << 8 | bit(8, 10) | bit(7, 6) | bit(6, 7);
            let offset = offset | field(half, 3, 3) << 1 | bit(2, 5);
            let to = at.wrapping_add_signed(signed(offset, 12));
            // c.j; c.jal, on 32 bits only.
            if operation == 5 { Flow::Jump(to) } else { Flow::Call(to) }
        }
        (1, 6 | 7) => {
            let offset =
                bit(12, 8) | field(half, 10, 2) << 3 | field(half, 5, 2) << 6 | field(half, 3, 2) << 1 | bit(2, 5);
            Flow::Branch(at.wrapping_add_signed(signed(offset, 9)))
        }
        (2, 4) if half & 1 << 12 == 0 && rs2 == 0 => {
            if rd == 1 {
                Flow::Return
            } else {
                Flow::Indirect
            }
        } // c.jr
        _ => Flow::Next,
    };
    let writes = match (half & 3, operation) {
        (1, 0 | 2 | 3) | (2, 0 | 2) => true, // c.addi, c.li, c.lui, c.slli, c.lwsp
        (1, 1) | (2, 3) => BITS == 64,       // c.addiw, c.ldsp
        (2, 4) => rs2 != 0,                  // c.mv, c.add
        _ => false,
    };
    flow.instruction(2, writes && rd == 17)
}
