//! z/Architecture.

use super::{Flow, Instruction};

/// Number in r1, unless `svc` contains it.
pub fn s390x(code: &[u8], offset: usize, at: u64) -> Option<Instruction> {
    let length = match code.get(offset)? >> 6 {
        0 => 2,
        1 | 2 => 4,
        _ => 6,
    };
    let mut wide = [0; 6];
    wide[..length].copy_from_slice(code.get(offset..offset + length)?);
    let [operation, second, b2, b3, b4, last] = wide;
    let (r1, low) = (second >> 4, second & 15);
    let near = at.wrapping_add_signed(i64::from(i16::from_be_bytes([b2, b3])) * 2);
    let far = at.wrapping_add_signed(i64::from(i32::from_be_bytes([b2, b3, b4, last])) * 2);
    let masked = |target: u64| match r1 {
        0 => Flow::Next,
        15 => Flow::Jump(target),
        _ => Flow::Branch(target),
    };
    let flow = match (operation, low, last) {
        (0x0a, ..) if second == 0 => Flow::SystemCall,              // svc 0
        (0x00, ..) => Flow::End,                                    // An invalid instruction.
        (0xa7, 4, _) => masked(near),                               // brc
        (0xc0, 4, _) => masked(far),                                // brcl
        (0xa7, 5, _) => Flow::Call(near),                           // bras
        (0xc0, 5, _) => Flow::Call(far),                            // brasl
        (0xa7, 6 | 7, _) | (0x84 | 0x85, ..) => Flow::Branch(near), // brct, brctg, brxh, brxle
        // brxhg, brxlg; compares that branch to an address.
        (0xec, _, 0x44 | 0x45 | 0x64 | 0x65 | 0x76 | 0x77 | 0x7c..=0x7f) => Flow::Branch(near),
        (0x07, 0, _) => Flow::Next, // bcr to no register: a barrier or nothing
        (0x07, to, _) => match (r1, to) {
            (0, _) => Flow::Next,
            (15, 14) if !loads_r14_from_a_table(&code[..offset]) => Flow::Return,
            (15, _) => Flow::Indirect,
            (_, 14) => Flow::ConditionalReturn,
            _ => Flow::ConditionalIndirect,
        },
        (0x47, ..) if r1 != 0 => {
            if r1 == 15 {
                Flow::Indirect
            } else {
                Flow::ConditionalIndirect
            }
        } // bc
        _ => Flow::Next,
    };
    let writes_r1 = match (operation, low, last) {
        (0x18 | 0x41 | 0x48 | 0x58, ..) => true,        // lr, la, lh, l
        (0xa5, 12..=15, _) | (0xa7, 8..=11, _) => true, // llihh to llill; lhi, lghi, ahi, aghi
        (0xc0, 0 | 1 | 14 | 15, _) => true,             // larl, lgfi, llihf, llilf
        (0xc4, 2 | 4..=6 | 8 | 12..=14, _) => true,     // Loads from a relative address.
        // lg, lgf, lgh, llgf, ly, lay, lb, lgb, lhy, llgc, llgh, llc, llh
        (0xe3, _, 0x04 | 0x14..=0x16 | 0x58 | 0x71 | 0x76..=0x78 | 0x90 | 0x91 | 0x94 | 0x95) => true,
        (0xeb, _, 0x0c | 0x0d | 0xde | 0xdf) => true, // srlg, sllg, srlk, sllk
        (0xec, _, 0x51 | 0x55 | 0x59 | 0xd8 | 0xd9) => true, // risblg, risbg, risbgn, ahik, aghik
        _ => false,
    };
    let number = |register: u8| register == 1;
    let sets = match (operation, low, last) {
        // lmg, lmy, lm: a range of registers, which may wrap around.
        (0xeb, to, 0x04 | 0x98) | (0x98, to, _) => {
            if r1 <= to {
                (r1..=to).contains(&1)
            } else {
                r1 <= 1 || to >= 1
            }
        }
        // lgr, lgfr, lgbr, lghr, llgfr, llgcr, llghr, lbr, lhr, llcr, llhr: the register is in the
        // fourth byte.
        (0xb9, ..) if matches!(second, 0x04 | 0x06 | 0x07 | 0x14 | 0x16 | 0x26 | 0x27 | 0x84 | 0x85 | 0x94 | 0x95) => {
            number(b3 >> 4)
        }
        _ => writes_r1 && number(r1),
    };
    Some(flow.instruction(length, sets))
}

/// Whether the last instructions of `code` load r14, where s390x keeps the address to return to,
/// from a table of jumps: then `br %r14` is no return. Only such a load has an index register.
fn loads_r14_from_a_table(code: &[u8]) -> bool {
    // As far as the compiler moves the load up. Instructions begin at even addresses.
    let before = &code[code.len().saturating_sub(48) & !1..];
    let mut last = before.windows(6).step_by(2).rev().filter(|bytes| {
        let restores = bytes[0] == 0xeb && bytes[1] & 15 == 15 && bytes[5] == 0x04; // lmg to %r15
        restores || (bytes[0] == 0xe3 && bytes[1] >> 4 == 14 && bytes[5] == 0x04) // lg %r14
    });
    last.next().is_some_and(|bytes| bytes[0] == 0xe3 && bytes[1] & 15 != 0)
}
