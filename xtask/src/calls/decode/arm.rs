//! Arm: A32, and of Thumb the system call.

use super::{Flow, Instruction, bytes, field, signed};

/// Number in r7; A32. A pair of writes under opposite conditions, by which compilers select one of
/// two values, counts as one write, at its second half.
pub fn arm(code: &[u8], offset: usize, at: u64) -> Option<Instruction> {
    /// The largest distance of the two halves, in instructions.
    const APART: usize = 16;
    const NUMBER: Option<u32> = Some(7);
    let word = u32::from_le_bytes(bytes(code, offset)?);
    let (flow, writes) = arm_parts(word, at);
    let condition = word >> 28;
    let mut sets = writes == NUMBER && condition == ALWAYS;
    if writes == NUMBER && condition < ALWAYS {
        // Search backwards for the other half; stop at instructions that change the flags or the
        // control flow.
        for back in 1..=APART.min(offset / 4) {
            let word = u32::from_le_bytes(bytes(code, offset - 4 * back)?);
            let (flow, writes) = arm_parts(word, at - 4 * back as u64);
            sets = writes == NUMBER && word >> 28 == condition ^ 1;
            let changes_flags = match field(word, 25, 3) {
                0b000 | 0b001 => word & 1 << 20 != 0,
                0b111 => true,
                _ => false,
            };
            if sets || changes_flags || !matches!(flow, Flow::Next) {
                break;
            }
        }
    }
    Some(flow.instruction(4, sets))
}

/// The condition that always holds; those below come in pairs of opposites.
const ALWAYS: u32 = 14;

/// An instruction's control flow, and the register that it writes if its condition holds.
fn arm_parts(word: u32, at: u64) -> (Flow, Option<u32>) {
    let (condition, rd) = (word >> 28, field(word, 12, 4));
    let always = condition == ALWAYS;
    let indirect = if always { Flow::Indirect } else { Flow::ConditionalIndirect };
    let end = if always { Flow::Return } else { Flow::ConditionalReturn };
    if condition == 15 {
        return (Flow::Next, None); // Later extensions, and blx, which returns.
    }
    let (mut flow, mut writes) = (Flow::Next, None);
    match field(word, 25, 3) {
        0b000 if word & 0x0fff_ffd0 == 0x012f_ff10 => {
            flow = match (word & 0x20 != 0, word & 15) {
                (true, _) => Flow::Next, // blx
                (false, 14) => end,      // bx lr
                (false, _) => indirect,
            }
        }
        0b000 if word & 0x90 == 0x90 => {
            // Multiplications, which have their destination elsewhere; ldrh, ldrsb, ldrsh.
            writes = match field(word, 5, 2) {
                0 => (field(word, 24, 4) == 0).then_some(field(word, 16, 4)),
                _ => (word & 1 << 20 != 0).then_some(rd),
            }
        }
        0b000 | 0b001 => {
            let (operation, flags) = (field(word, 21, 4), word & 1 << 20 != 0);
            writes = match operation {
                // movw, movt; otherwise mrs and the like
                8 | 10 if !flags => (word & 1 << 25 != 0).then_some(rd),
                // clz
                8..=11 => (operation == 11 && word & 0x0fff_0ff0 == 0x016f_0f10).then_some(rd),
                _ => Some(rd),
            };
            if writes == Some(15) {
                flow = if word & 0x0fff_ffff == 0x01a0_f00e { end } else { indirect }; // mov pc, lr
            }
        }
        0b010 | 0b011 if word & 1 << 25 == 0 || word & 1 << 4 == 0 => {
            writes = (word & 1 << 20 != 0).then_some(rd); // ldr, ldrb
            if writes == Some(15) {
                // ldr pc, [sp], #4
                flow = if word & 0x0fff_ffff == 0x049d_f004 { end } else { indirect };
            }
        }
        0b011 if word & 0xfff0_00f0 == 0xe7f0_00f0 => flow = Flow::End, // udf
        0b100 if word & 1 << 20 != 0 => {
            writes = (word & 1 << 7 != 0).then_some(7); // ldm, pop
            if word & 1 << 15 != 0 {
                flow = end;
            }
        }
        0b101 => {
            let to = at.wrapping_add_signed(8 + signed(word, 24) * 4);
            flow = match (word & 1 << 24 != 0, always) {
                (true, true) => Flow::Call(to), // bl
                (true, false) => Flow::Next,    // It is conditional.
                (false, true) => Flow::Jump(to),
                (false, false) => Flow::Branch(to),
            };
        }
        0b111 if word & 1 << 24 != 0 => flow = Flow::SystemCall, // svc
        0b111 if word & 0x0010_0010 == 0x0010_0010 => writes = Some(rd), // mrc
        _ => {}
    }
    (flow, writes)
}

/// Arm's other instruction set, which some of the compiler's own functions use. They make no system
/// call, so only that instruction is decoded here, and one would be a fault.
pub fn thumb(code: &[u8], offset: usize, _: u64) -> Option<Instruction> {
    let half = u16::from_le_bytes(bytes(code, offset)?);
    let flow = if half >> 8 == 0xdf { Flow::SystemCall } else { Flow::Next };
    Some(flow.instruction(if half >> 11 >= 0b11101 { 4 } else { 2 }, false))
}
