//! Decodes instructions, machine by machine, as far as [`super`] needs: does it make a system call,
//! does it write the register of the call's number, which instructions may follow?
//!
//! The known forms that write the register are those that compilers use to load, copy and compute
//! integers. Each list is incomplete on the safe side. Source: the machines' manuals.

mod aarch64;
mod arm;
mod loongarch64;
mod powerpc;
mod riscv;
mod s390x;
mod sparc64;

pub use aarch64::aarch64;
pub use arm::{arm, thumb};
pub use loongarch64::loongarch64;
pub use powerpc::powerpc;
pub use riscv::riscv;
pub use s390x::s390x;
pub use sparc64::sparc64;

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
