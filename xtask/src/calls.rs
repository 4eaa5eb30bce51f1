//! An additional check of every program: it sets the number's register anew for each system call.
//!
//! A kernel that restarts a call through its restart block writes `restart_syscall` into the
//! register that held the number, and a tracer may write anything there. A loop that sets the
//! number once, before its first iteration, would then make another call than intended. So every
//! path to a system call, from the function's entry or from another system call, must contain an
//! instruction that writes the number's register.
//!
//! The check, for each function that makes a system call:
//!
//! 1. Every instruction is decoded as far as needed: whether it writes the register, and which
//!    instructions may follow. An unknown instruction counts as writing nothing, so a gap in a
//!    decoder causes a false alarm, never a missed fault.
//! 2. A call returns to the instruction after it with the register unchanged, unless the called
//!    function has no path to a return. No machine passes an argument in the number's register, so
//!    at a function's entry the number is not set.
//! 3. A jump through a register may lead to every target of another jump in the function, and to
//!    every instruction that no other falls through to. A case of a jump table that is reached
//!    otherwise only by falling through is missed.
//! 4. Bytes that the machine's ABI marks as data among the code (`$d`) are not code.
//! 5. A system call that no known path reaches is a fault too, and so is a program without one:
//!    nothing is skipped silently.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use anyhow::{Result, bail};
use cargo_rt0::elf as facts;
use cargo_rt0::targets::{self, Elf};
use object::{Object, ObjectSection, ObjectSymbol, SectionKind, SymbolKind, elf};

pub mod decode;
#[cfg(test)]
mod tests;

use decode::{Decoder, Instruction, Target};

/// The state of the number's register on a path: not set since the function's entry, left by a
/// system call, or set.
const UNSET: u8 = 1;
const LEFT_BY_A_CALL: u8 = 2;
const SET: u8 = 4;

/// The message for a program without a system call: every program ends by one, so the check found
/// no code.
const NONE: &str = "no system call was found in it";

/// Checks the facts of a program for this machine, and, if these hold, this check: only then are
/// the instructions those of the machine.
pub fn check_program(path: &Path, target: &targets::Target) -> Result<()> {
    facts::check(path, target)?;
    let broken = violations(&std::fs::read(path)?, &target.elf).unwrap_or_else(|error| vec![error]);
    if !broken.is_empty() {
        bail!("{} ({}): {}", path.display(), target.name, broken.join("; "));
    }
    Ok(())
}

/// The functions of this ELF file that make a system call whose number may not be set. `Err` names
/// a machine without a decoder.
pub fn violations(data: &[u8], elf: &Elf) -> Result<Vec<String>, String> {
    // The number's register is also the result's: the compiler knows that each call writes it.
    if matches!(elf.machine, elf::EM_X86_64 | elf::EM_386 | elf::EM_MIPS) {
        return Ok(Vec::new());
    }
    let (mut found, mut any) = (Vec::new(), false);
    for mut functions in functions(data, elf)? {
        find_what_returns(&mut functions);
        any |= functions.values().flat_map(|function| function.code.values()).any(|i| i.system_call);
        for (&start, function) in &functions {
            for (at, why) in check(&functions, start, function) {
                found.push(format!("the system call at {at:#x} in {}: {why}", function.name));
            }
        }
    }
    if !any {
        found.push(NONE.to_string());
    }
    Ok(found)
}

/// All code of this ELF file, decoded: the functions of each section, and the code between them.
/// `Err` names a machine without a decoder.
pub fn functions<'a>(data: &'a [u8], elf: &Elf) -> Result<Vec<Functions<'a>>, String> {
    let decoder: Decoder = match elf.machine {
        elf::EM_AARCH64 => decode::aarch64,
        elf::EM_ARM => decode::arm,
        elf::EM_RISCV if elf.bits == 64 => decode::riscv::<64>,
        elf::EM_RISCV => decode::riscv::<32>,
        elf::EM_LOONGARCH => decode::loongarch64,
        elf::EM_S390 => decode::s390x,
        elf::EM_PPC | elf::EM_PPC64 if elf.big_endian => decode::powerpc::<true>,
        elf::EM_PPC | elf::EM_PPC64 => decode::powerpc::<false>,
        elf::EM_SPARCV9 => decode::sparc64,
        other => return Err(format!("no decoder for the instructions of machine {other}")),
    };
    let file = object::File::parse(data).map_err(|error| format!("malformed: {error}"))?;
    let mut all = Vec::new();
    for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
        let code = section.data().map_err(|error| format!("malformed: {error}"))?;
        let (start, end) = (section.address(), section.address() + code.len() as u64);
        // Functions, and the code between them.
        let mut parts = BTreeMap::from([(start, (decoder, "no function"))]);
        let mut kinds = BTreeMap::new();
        for symbol in file.symbols().filter(|s| (start..end).contains(&s.address())) {
            let address = symbol.address();
            let name = symbol.name_bytes().ok().and_then(|name| std::str::from_utf8(name).ok()).unwrap_or("?");
            match name.get(..2) {
                Some("$d") => _ = kinds.insert(address, false),
                Some("$a" | "$t" | "$x") => _ = kinds.insert(address, true),
                _ if symbol.kind() == SymbolKind::Text && symbol.size() != 0 => {
                    // On Arm an odd address means a Thumb function.
                    let thumb = elf.machine == elf::EM_ARM && address % 2 == 1;
                    let (from, decoder) =
                        if thumb { (address - 1, decode::thumb as Decoder) } else { (address, decoder) };
                    parts.insert(from, (decoder, name));
                    parts.entry(from + symbol.size()).or_insert((decoder, "no function"));
                }
                _ => {}
            }
        }
        let mut functions = BTreeMap::new();
        let ends = parts.keys().skip(1).copied().chain([end]);
        for ((&from, &(decoder, name)), to) in parts.iter().zip(ends).filter(|&((&from, _), to)| from < to) {
            let is_code = |at: u64| kinds.range(..=at).next_back().is_none_or(|(_, &is_code)| is_code);
            let bytes = &code[(from - start) as usize..(to.min(end) - start) as usize];
            functions.insert(from, Function::new(name, decoder, bytes, from..to, is_code));
        }
        all.push(functions);
    }
    Ok(all)
}

/// A function, or code outside all functions.
pub struct Function<'a> {
    /// Its symbol.
    pub name: &'a str,
    end: u64,
    /// Its bytes in the file.
    pub bytes: &'a [u8],
    /// Its instructions, by their addresses.
    pub code: BTreeMap<u64, Instruction>,
    /// Whether there is a path from its entry to a return.
    returns: bool,
}

impl<'a> Function<'a> {
    /// Decodes the code in this range of addresses.
    pub fn new(
        name: &'a str,
        decoder: Decoder,
        bytes: &'a [u8],
        range: Range<u64>,
        is_code: impl Fn(u64) -> bool,
    ) -> Function<'a> {
        let code = decoded(decoder, bytes, range.start, is_code);
        Function { name, end: range.end, bytes, code, returns: false }
    }
}

/// Functions by their addresses.
pub type Functions<'a> = BTreeMap<u64, Function<'a>>;

/// Whether a call of `address` may return: only a function without a path to a return does not. (A
/// call may skip a function's first instructions.)
fn returns(functions: &Functions, address: u64) -> bool {
    let function = functions.range(..=address).next_back().map(|(_, function)| function);
    function.is_none_or(|function| address >= function.end || function.returns)
}

/// Sets [`Function::returns`]. At first no function returns; each iteration finds functions that
/// return because of those found before.
fn find_what_returns(functions: &mut Functions) {
    loop {
        let mut found = Vec::new();
        for (&start, function) in functions.iter().filter(|(_, function)| !function.returns) {
            let mut seen = BTreeSet::new();
            let mut work = vec![start];
            let mut path_to_return = false;
            while let (Some(at), false) = (work.pop(), path_to_return) {
                let Some(instruction) = function.code.get(&at) else {
                    // A tail call.
                    path_to_return = !(start..function.end).contains(&at) && returns(functions, at);
                    continue;
                };
                if seen.insert(at) {
                    path_to_return = instruction.returns || instruction.target == Target::Unknown;
                    work.extend(after(functions, at, instruction));
                    work.extend(if let Target::Address(to) = instruction.target { Some(to) } else { None });
                }
            }
            if path_to_return {
                found.push(start);
            }
        }
        if found.is_empty() {
            return;
        }
        for start in found {
            functions.entry(start).and_modify(|function| function.returns = true);
        }
    }
}

/// The address of the next instruction, if the program may continue there.
fn after(functions: &Functions, at: u64, instruction: &Instruction) -> Option<u64> {
    let comes_back = instruction.calls.is_none_or(|called| returns(functions, called));
    (instruction.falls_through && comes_back).then_some(at + instruction.length as u64)
}

fn decoded(decoder: Decoder, code: &[u8], start: u64, is_code: impl Fn(u64) -> bool) -> BTreeMap<u64, Instruction> {
    let mut instructions = BTreeMap::new();
    let mut offset = 0;
    while offset < code.len() {
        let at = start + offset as u64;
        let Some(instruction) = decoder(code, offset, at) else { break };
        offset += instruction.length;
        if is_code(at) {
            instructions.insert(at, instruction);
        }
    }
    instructions
}

/// The system calls of the function at `start` whose number may not be set, and why.
fn check(functions: &Functions, start: u64, function: &Function) -> Vec<(u64, &'static str)> {
    let instructions = &function.code;
    if !instructions.values().any(|i| i.system_call) {
        return Vec::new();
    }

    // The possible targets of a jump through a register: see 3.
    let mut orphans = BTreeSet::new();
    let mut leaders = BTreeSet::new();
    let mut falls_through = true;
    for (&at, instruction) in instructions {
        if !falls_through {
            orphans.insert(at);
        }
        falls_through = after(functions, at, instruction).is_some();
        if let Target::Address(target) = instruction.target {
            leaders.insert(target);
        }
    }

    let mut states: BTreeMap<u64, u8> = BTreeMap::new();
    let mut work = vec![(start, UNSET)];
    while let Some((at, state)) = work.pop() {
        let Some(instruction) = instructions.get(&at) else { continue }; // It leaves the function.
        let known = states.entry(at).or_default();
        if *known | state == *known {
            continue;
        }
        *known |= state;
        let state = match instruction {
            Instruction { system_call: true, .. } => LEFT_BY_A_CALL,
            Instruction { sets_number: true, .. } => SET,
            _ => *known,
        };
        work.extend(after(functions, at, instruction).map(|next| (next, state)));
        match instruction.target {
            Target::None => {}
            Target::Address(target) => work.push((target, state)),
            Target::Unknown => {
                work.extend(orphans.iter().map(|&to| (to, state)));
                if state & LEFT_BY_A_CALL != 0 {
                    work.extend(leaders.iter().map(|&to| (to, LEFT_BY_A_CALL)));
                }
            }
        }
    }

    let calls = instructions.iter().filter(|(_, i)| i.system_call);
    let broken = calls.filter_map(|(&at, _)| match states.get(&at) {
        None => Some((at, "no path to it is known")),
        Some(state) if state & LEFT_BY_A_CALL != 0 => {
            Some((at, "another system call can be followed by it, and its number is not set again between them"))
        }
        Some(state) if state & UNSET != 0 => Some((at, "the function can reach it without setting its number")),
        Some(_) => None,
    });
    broken.collect()
}
