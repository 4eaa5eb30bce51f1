//! The instructions of each machine, as far as [`super`] needs them: which access to memory is an
//! instruction, and which order does it have?
//!
//! No gap here hides a fault. An unknown barrier, or an unknown access outside the encodings for
//! atomic accesses, counts as nothing: at worst a false alarm. An unknown instruction within these
//! encodings is [`Kind::Unknown`], and a function with one is refused. The source is the machines'
//! manuals.

use cargo_rt0::targets::Elf;
use object::elf;

use super::Order;

/// What an instruction does to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Which access.
    pub kind: Kind,
    /// Later accesses come after it. For a barrier: they come after the accesses before it.
    pub acquires: bool,
    /// Earlier accesses come before it. For a barrier: they come before the accesses after it.
    pub releases: bool,
}

/// The kinds of accesses to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// None that is known.
    None,
    /// An ordinary one.
    Plain { loads: bool, stores: bool },
    /// One half of an exclusive pair, or an atomic one as a whole.
    Exclusive { loads: bool, stores: bool },
    /// No access, but an order of others.
    Barrier,
    /// Perhaps an atomic one: the encoding is among theirs, and not known here.
    Unknown,
}

impl Access {
    /// None.
    pub const NONE: Access = Access { kind: Kind::None, acquires: false, releases: false };

    const UNKNOWN: Access = Access { kind: Kind::Unknown, ..Access::NONE };

    const LOAD: Access = Access { kind: Kind::Plain { loads: true, stores: false }, ..Access::NONE };
    const STORE: Access = Access { kind: Kind::Plain { loads: false, stores: true }, ..Access::NONE };

    const fn exclusive(loads: bool, stores: bool, acquires: bool, releases: bool) -> Access {
        Access { kind: Kind::Exclusive { loads, stores }, acquires, releases }
    }

    const fn barrier(acquires: bool, releases: bool) -> Access {
        Access { kind: Kind::Barrier, acquires, releases }
    }

    /// Whether it has this order.
    pub fn has(self, order: Order) -> bool {
        match order {
            Order::Acquire => self.acquires,
            Order::Release => self.releases,
        }
    }
}

/// What an instruction does with condition bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing that is known.
    None,
    /// The bit has this value from here on.
    Sets(u32, bool),
    /// Nothing is known about these bits from here on: the first one, and how many.
    Changes(u32, u32),
    /// It runs only if the bit has the wanted value. With `learns`, later instructions that test
    /// the bit get the same answer.
    Asks { bit: u32, wanted: bool, learns: bool },
    /// The same, and if it runs it changes all bits.
    AsksAndChanges { bit: u32, wanted: bool },
}

impl Condition {
    /// Whether it runs only under a condition.
    pub fn asks(self) -> bool {
        matches!(self, Condition::Asks { .. } | Condition::AsksAndChanges { .. })
    }
}

/// How one machine's instructions are read.
#[derive(Clone, Copy)]
pub struct Machine {
    /// What an instruction does to memory.
    pub access: fn(code: &[u8]) -> Access,
    /// What an instruction does with condition bits.
    pub condition: fn(code: &[u8]) -> Condition,
}

pub const AARCH64: Machine = Machine { access: aarch64, condition: |_| Condition::None };
pub const ARM: Machine = Machine { access: arm, condition: arm_condition };
pub const RISCV: Machine = Machine { access: riscv, condition: |_| Condition::None };
pub const POWERPC: Machine = Machine { access: powerpc::<true>, condition: powerpc_condition::<true> };
pub const POWERPC_LITTLE: Machine = Machine { access: powerpc::<false>, condition: powerpc_condition::<false> };

/// The readers for a machine with a weak memory order; `None` for another, or if its instructions
/// are not known here.
pub fn machine(elf: &Elf) -> Option<Machine> {
    Some(match elf.machine {
        elf::EM_AARCH64 => AARCH64,
        elf::EM_ARM => ARM,
        elf::EM_RISCV => RISCV,
        elf::EM_PPC | elf::EM_PPC64 if elf.big_endian => POWERPC,
        elf::EM_PPC | elf::EM_PPC64 => POWERPC_LITTLE,
        _ => return None,
    })
}

/// The instruction's word; for a short instruction, its 16 bits.
fn little(code: &[u8]) -> u32 {
    match *code {
        [a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
        [a, b] => u16::from_le_bytes([a, b]).into(),
        _ => 0,
    }
}

/// Arm Architecture Reference Manual, C4.1.94, "Loads and stores": of the whole group, what is not
/// known is perhaps atomic.
pub fn aarch64(code: &[u8]) -> Access {
    let word = little(code);
    let bit = |at: u32| word >> at & 1 == 1;
    // What an atomic operation loads into the zero register is not ordered.
    let discards = word & 31 == 31;
    match word {
        // dmb: all; of loads; of stores. (Inner shareable, or further.)
        _ if word & 0xffff_f0ff == 0xd503_30bf => match word >> 8 & 15 {
            0b1011 | 0b1111 => Access::barrier(true, true),
            0b1001 | 0b1101 => Access::barrier(true, false),
            _ => Access::NONE,
        },
        _ if word & 0x0a00_0000 != 0x0800_0000 => Access::NONE, // Not in the group.
        _ if word & 0x3f00_0000 == 0x0800_0000 => match (bit(23), bit(21), bit(22)) {
            (false, true, load) if !bit(31) => Access::exclusive(true, true, load, bit(15)), // casp
            // ldxr, ldaxr; stxr, stlxr; of pairs, too
            (false, _, true) => Access::exclusive(true, false, bit(15), false),
            (false, _, false) => Access::exclusive(false, true, false, bit(15)),
            (true, true, load) => Access::exclusive(true, true, load, bit(15)), // cas
            (true, false, true) => Access { acquires: bit(15), ..Access::LOAD }, // ldar
            (true, false, false) => Access { releases: bit(15), ..Access::STORE }, // stlr
        },
        // ldapr; ldapur, stlur
        _ if word & 0x3fff_fc00 == 0x38bf_c000 => Access { acquires: true, ..Access::LOAD },
        _ if word & 0x3f20_0c00 == 0x1900_0000 => match word >> 22 & 3 {
            0 => Access { releases: true, ..Access::STORE },
            _ => Access { acquires: true, ..Access::LOAD },
        },
        // ldadd and its kin; swp
        _ if word & 0x3f20_8c00 == 0x3820_0000 || word & 0x3f20_fc00 == 0x3820_8000 => {
            Access::exclusive(true, true, bit(23) && !discards, bit(22))
        }
        // Other atomic operations, on registers and on vectors.
        _ if word & 0x3b20_0c00 == 0x3820_0000 => Access::UNKNOWN,
        _ if word & 0xff20_0400 == 0xf820_0400 => Access::LOAD, // ldraa, ldrab
        // Of one register, general or of vectors.
        _ if word & 0x3a00_0000 == 0x3800_0000 => match word >> 22 & 3 {
            0 => Access::STORE,
            _ => Access::LOAD,
        },
        // Of pairs; from the pool of constants; of several vectors; of tags. No lock's word is
        // accessed by these.
        _ if word & 0x3a00_0000 == 0x2800_0000
            || word & 0x3b00_0000 == 0x1800_0000
            || word & 0xbe00_0000 == 0x0c00_0000
            || word & 0xff20_0000 == 0xd920_0000 =>
        {
            Access::NONE
        }
        _ => Access::UNKNOWN,
    }
}

/// Arm Architecture Reference Manual for ARMv7-A, A5 and A8, and of the AArch32 state of ARMv8;
/// ARMv6's barrier is an operation of coprocessor 15. Thumb code is not known here.
pub fn arm(code: &[u8]) -> Access {
    if code.len() == 2 {
        return Access::UNKNOWN; // Nearly each function of Thumb has a short instruction.
    }
    let word = little(code);
    let load = word & 1 << 20 != 0;
    match word {
        _ if word & 0xffff_fff0 == 0xf57f_f050 => match word & 15 {
            0b1011 | 0b1111 => Access::barrier(true, true), // dmb ish, dmb sy
            _ => Access::NONE,
        },
        _ if word & 0x0fff_0fff == 0x0e07_0fba => Access::barrier(true, true), // mcr p15
        _ if word >> 28 == 15 => Access::NONE,                                 // pld
        // The synchronization primitives.
        _ if word & 0x0f00_00f0 == 0x0100_0090 => match (word >> 23 & 1, word >> 8 & 15) {
            (1, 0b1111) => Access::exclusive(load, !load, false, false), // ldrex, strex
            (1, 0b1110) => Access::exclusive(load, !load, load, !load),  // ldaex, stlex
            (1, 0b1100) if load => Access { acquires: true, ..Access::LOAD }, // lda
            (1, 0b1100) => Access { releases: true, ..Access::STORE },   // stl
            _ => Access::UNKNOWN,                                        // swp
        },
        _ if word & 0x0c00_0000 == 0x0400_0000 && word & 0x0200_0010 != 0x0200_0010 => {
            if load { Access::LOAD } else { Access::STORE } // ldr, str, of bytes too
        }
        _ if word & 0x0e00_0090 == 0x0000_0090 && word & 0x60 != 0 => {
            if load { Access::LOAD } else { Access::STORE } // ldrh, strh
        }
        _ => Access::NONE,
    }
}

/// A condition and its opposite differ in their lowest bit.
fn arm_condition(code: &[u8]) -> Condition {
    let word = little(code);
    let (bit, wanted) = (word >> 29, word >> 28 & 1 == 0);
    // The S bit is set. (This also matches a load of 16 bits, which does no harm.)
    let compares = word & 0x0c10_0000 == 0x0010_0000;
    // msr, vmrs
    let others = word & 0x0fb0_f000 == 0x0320_f000 || word & 0x0fff_ffff == 0x0ef1_fa10;
    match (word >> 28, compares || others) {
        (15, _) | (14, false) => Condition::None,
        (14, true) => Condition::Changes(0, 8),
        (_, false) => Condition::Asks { bit, wanted, learns: true },
        (_, true) => Condition::AsksAndChanges { bit, wanted },
    }
}

/// The RISC-V Instruction Set Manual, "A" and `fence`.
pub fn riscv(code: &[u8]) -> Access {
    let word = little(code);
    if code.len() == 2 {
        return match (word & 3, word >> 13) {
            (0 | 2, 2 | 3) => Access::LOAD,  // c.lw, c.ld, c.lwsp, c.ldsp
            (0 | 2, 6 | 7) => Access::STORE, // c.sw, c.sd, c.swsp, c.sdsp
            _ => Access::NONE,
        };
    }
    let (acquires, releases) = (word & 1 << 26 != 0, word & 1 << 25 != 0);
    match word & 0x7f {
        0x03 => Access::LOAD,
        0x23 => Access::STORE,
        0x2f => match (word >> 27, word >> 12 & 7) {
            (0b00010, 2 | 3) => Access::exclusive(true, false, acquires, false), // lr
            (0b00011, 2 | 3) => Access::exclusive(false, true, false, releases), // sc
            // amoadd, amoswap, amoxor, amocas, amoor, amoand; amomin, amomax
            (0 | 1 | 4 | 5 | 8 | 12 | 16 | 20 | 24 | 28, 0..=3) => Access::exclusive(true, true, acquires, releases),
            _ => Access::UNKNOWN,
        },
        0x0f if word >> 12 & 7 == 0 => {
            // Which accesses before it are ordered, and which after it: reads and writes.
            let (before, after) = (word >> 24 & 3, word >> 20 & 3);
            Access::barrier(before & 2 != 0 && after == 3, before == 3 && after & 1 != 0)
        }
        _ => Access::NONE,
    }
}

/// Power ISA, book II, 4.5 and 4.6: `sync`, `lwsync`, `isync`, which is behind a branch on what was
/// loaded, the reservations and the atomic accesses.
pub fn powerpc<const BIG: bool>(code: &[u8]) -> Access {
    let Ok(word) = <[u8; 4]>::try_from(code) else { return Access::NONE };
    let word = if BIG { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) };
    match (word >> 26, word >> 1 & 0x3ff) {
        (31, 598) => match word >> 21 & 3 {
            0 | 1 => Access::barrier(true, true),
            _ => Access::NONE,
        },
        (19, 150) => Access::barrier(true, false),
        // lwarx, lbarx, ldarx, lharx, lqarx; stwcx., stqcx., stdcx., stbcx., sthcx.
        (31, 20 | 52 | 84 | 116 | 276) => Access::exclusive(true, false, false, false),
        (31, 150 | 182 | 214 | 694 | 726) => Access::exclusive(false, true, false, false),
        (31, 582 | 614) => Access::exclusive(true, true, false, false), // lwat, ldat
        (31, 710 | 742) => Access::exclusive(false, true, false, false), // stwat, stdat
        // Beside them in the manual's table of opcodes: ldbrx, stdbrx; lvsl, lvsr; icbt, dcbst,
        // dcbf, dcbtst, dcbt, lwbrx, tlbsync, stwbrx, lhbrx, eieio, sthbrx, icbi, dcbz.
        (31, 532 | 660 | 6 | 38 | 22 | 54 | 86 | 246 | 278 | 534 | 566 | 662 | 790 | 854 | 918 | 982 | 1014) => {
            Access::NONE
        }
        (31, extended) if matches!(extended & 31, 6 | 20 | 22) => Access::UNKNOWN,
        // lwz, lbz, lhz, lha, ld; ldx, lwzx, lbzx, lhzx; then the stores of the same sizes.
        (32..=35 | 40..=43 | 58, _) | (31, 21 | 23 | 87 | 279) => Access::LOAD,
        (36..=39 | 44..=45 | 62, _) | (31, 149 | 151 | 215 | 407) => Access::STORE,
        _ => Access::NONE,
    }
}

/// Branches, and the operations on bits of the condition register by which the compiler sets one.
fn powerpc_condition<const BIG: bool>(code: &[u8]) -> Condition {
    let Ok(word) = <[u8; 4]>::try_from(code) else { return Condition::None };
    let word = if BIG { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) };
    let [first, second, third] = [21, 16, 11].map(|at| word >> at & 31);
    let same = first == second && second == third;
    match (word >> 26, word >> 1 & 0x3ff) {
        (19, 289) if same => Condition::Sets(first, true),  // crset
        (19, 193) if same => Condition::Sets(first, false), // crclr
        (19, 33 | 129 | 193 | 225 | 257 | 289 | 417 | 449) => Condition::Changes(first, 1),
        (10 | 11, _) | (31, 0 | 32) | (19, 0) => Condition::Changes(first & !3, 4), // cmp, mcrf
        (31, 144) => Condition::Changes(0, 32),                                     // mtcrf
        // bc, bclr, bcctr on a bit alone. Other instructions may write these bits without being
        // known here, so nothing is learned.
        (16, _) | (19, 16 | 528) if first & 0b10100 == 0b00100 => {
            Condition::Asks { bit: second, wanted: first & 0b01000 != 0, learns: false }
        }
        // The branch also depends on the count register.
        (16, _) | (19, 16 | 528) if first & 0b10100 != 0b10100 => {
            Condition::Asks { bit: u32::MAX, wanted: true, learns: false }
        }
        _ => Condition::None,
    }
}
