//! Decodes instructions, machine by machine, as far as [`super`] needs: does it make a system call,
//! does it write the register of the call's number, which instructions may follow?
//!
//! The known forms that write the register are those that compilers use to load, copy and compute
//! integers. Each list is incomplete on the safe side. Source: the machines' manuals.

/// One instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Its length in bytes.
    pub length: usize,
    /// It makes a system call whose number is in the register.
    pub system_call: bool,
    /// It writes the number's register unconditionally.
    pub sets_number: bool,
    /// The next instruction may follow: true for a conditional branch and a call.
    pub falls_through: bool,
    /// Where else the program may continue.
    pub target: Target,
    /// The function that it calls, if the address is known.
    pub calls: Option<u64>,
    /// It may return from the function.
    pub returns: bool,
}

/// The target of a jump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// No target, or one outside the function.
    None,
    /// This address.
    Address(u64),
    /// An address in a register.
    Unknown,
}

/// Decodes the instruction at `offset` of a function's code, which lies at `at`. `None`: the code
/// ends within it.
pub type Decoder = fn(code: &[u8], offset: usize, at: u64) -> Option<Instruction>;

/// An instruction by its effect on control flow.
#[derive(Clone, Copy)]
enum Flow {
    Next,
    SystemCall,
    Branch(u64),
    Jump(u64),
    Indirect,
    ConditionalIndirect,
    Call(u64),
    Return,
    ConditionalReturn,
    End,
}

impl Flow {
    fn instruction(self, length: usize, sets_number: bool) -> Instruction {
        let (falls_through, target) = match self {
            Flow::Next | Flow::SystemCall | Flow::Call(_) | Flow::ConditionalReturn => (true, Target::None),
            Flow::Branch(to) => (true, Target::Address(to)),
            Flow::Jump(to) => (false, Target::Address(to)),
            Flow::Indirect => (false, Target::Unknown),
            Flow::ConditionalIndirect => (true, Target::Unknown),
            Flow::Return | Flow::End => (false, Target::None),
        };
        Instruction {
            length,
            system_call: matches!(self, Flow::SystemCall),
            sets_number,
            falls_through,
            target,
            calls: if let Flow::Call(to) = self { Some(to) } else { None },
            returns: matches!(self, Flow::Return | Flow::ConditionalReturn),
        }
    }
}

/// The low `bits` of `value`, with their sign.
fn signed(value: u32, bits: u32) -> i64 {
    i64::from((value << (32 - bits)) as i32 >> (32 - bits))
}

/// `word`'s bits from `low` on, `count` of them.
fn field(word: u32, low: u32, count: u32) -> u32 {
    word >> low & ((1 << count) - 1)
}

fn bytes<const N: usize>(code: &[u8], offset: usize) -> Option<[u8; N]> {
    code.get(offset..offset + N)?.try_into().ok()
}

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
