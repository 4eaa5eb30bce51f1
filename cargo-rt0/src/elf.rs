//! The facts that must hold for every program before it is started: what "static, no libc, no
//! surprises" means.
//!
//! They also prevent that the emulator of one machine starts a program for another one.

use std::path::Path;

use anyhow::{Context, Result, bail};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader, Sym};
use object::write::elf::{self as write, Writer};
use object::{Endianness, FileKind, elf};

use crate::targets::{Elf, TARGETS, Target};

/// Checks the file at `path` against the table's row; the error names the file and every fact that
/// does not hold.
pub fn check(path: &Path, target: &Target) -> Result<()> {
    let data = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let broken = violations(&data, &target.elf);
    if !broken.is_empty() {
        // Cargo does not notice if a file that it wrote has changed.
        let replaced = [WRONG_MACHINE, NO_ELF, MALFORMED].iter().any(|fact| broken[0].starts_with(fact));
        let mend = if replaced { "; something else wrote to this folder: remove it and build again" } else { "" };
        bail!("{} ({}): {}{mend}", path.display(), target.name, broken.join("; "));
    }
    Ok(())
}

/// The beginning of the messages that say that the file is not as cargo wrote it.
const WRONG_MACHINE: &str = "it is a program for";
const NO_ELF: &str = "not an ELF file";
const MALFORMED: &str = "malformed";

/// The machine with this number, if the table has it.
fn machine_name(number: u16) -> String {
    let row = TARGETS.iter().find(|t| t.elf.machine == number);
    row.map_or(format!("machine {number}"), |t| format!("{} (machine {number})", t.name))
}

/// Everything that is wrong with this ELF file.
fn violations(data: &[u8], expected: &Elf) -> Vec<String> {
    let found = match FileKind::parse(data) {
        Ok(FileKind::Elf32) => violations_of::<elf::FileHeader32<Endianness>>(data, expected, 32),
        Ok(FileKind::Elf64) => violations_of::<elf::FileHeader64<Endianness>>(data, expected, 64),
        _ => return vec![NO_ELF.to_string()],
    };
    found.unwrap_or_else(|e| vec![format!("{MALFORMED}: {e}")])
}

fn violations_of<H: FileHeader<Endian = Endianness>>(
    data: &[u8],
    expected: &Elf,
    bits: u8,
) -> object::Result<Vec<String>> {
    let header = H::parse(data)?;
    let endian = header.endian()?;
    let mut broken = Vec::new();
    let mut fact = |holds: bool, otherwise: String| {
        if !holds {
            broken.push(otherwise);
        }
    };

    let (machine, flags) = (header.e_machine(endian), header.e_flags(endian));
    let (is, should_be) = (machine_name(machine), machine_name(expected.machine));
    fact(machine == expected.machine, format!("{WRONG_MACHINE} {is}, not for {should_be}"));
    fact(bits == expected.bits, format!("class is {bits} bits, not {}", expected.bits));
    let big = endian == Endianness::Big;
    fact(big == expected.big_endian, format!("byte order is {endian:?}, the other one is expected"));
    let (mask, value) = expected.flags;
    fact(flags & mask == value, format!("e_flags are {flags:#x}, of which {mask:#x} must be {value:#x}"));
    let kind = header.e_type(endian);
    fact(
        kind == elf::ET_EXEC,
        format!("type is {kind}, not ET_EXEC: it was not linked with -Crelocation-model=static"),
    );

    let mut stack = false;
    let mut pages: Vec<(u64, u64, u32)> = Vec::new();
    for segment in header.program_headers(endian, data)? {
        let flags = segment.p_flags(endian);
        let (address, size): (u64, u64) = (segment.p_vaddr(endian).into(), segment.p_memsz(endian).into());
        match segment.p_type(endian) {
            elf::PT_INTERP => fact(false, "PT_INTERP: it asks for a dynamic loader".to_string()),
            elf::PT_DYNAMIC => fact(false, "PT_DYNAMIC: it is dynamically linked".to_string()),
            elf::PT_GNU_STACK => {
                stack = true;
                fact(flags & elf::PF_X == 0, "PT_GNU_STACK: the stack is executable".to_string());
            }
            elf::PT_LOAD => {
                let align: u64 = segment.p_align(endian).into();
                let offset: u64 = segment.p_offset(endian).into();
                let at = format!("LOAD at {address:#x}");
                fact(
                    flags & (elf::PF_W | elf::PF_X) != elf::PF_W | elf::PF_X,
                    format!("{at}: writable and executable"),
                );
                fact(align >= expected.page, format!("{at}: aligned to {align:#x}, not to {:#x}", expected.page));
                let page = align.max(1);
                fact(
                    address % page == offset % page,
                    format!("{at}: file offset {offset:#x} does not fit its alignment"),
                );
                // Two segments on one page would both get the second one's protection.
                let (first, last) = (address / expected.page, (address + size.max(1) - 1) / expected.page);
                let shared = pages.iter().any(|&(a, b, f)| f != flags && first <= b && a <= last);
                fact(!shared, format!("{at}: shares a page with a segment of another protection"));
                pages.push((first, last, flags));
            }
            _ => {}
        }
    }
    fact(stack, "no PT_GNU_STACK: an old kernel would make the stack executable".to_string());
    fact(!pages.is_empty(), "no LOAD segment".to_string());

    let sections = header.sections(endian, data)?;
    let symbols = sections.symbols(endian, data, elf::SHT_SYMTAB)?;
    for symbol in symbols.iter().skip(1).filter(|s| s.is_undefined(endian)) {
        let name = symbols.symbol_name(endian, symbol)?;
        fact(name.is_empty(), format!("undefined symbol {}", String::from_utf8_lossy(name)));
    }
    for section in sections.iter().filter(|s| s.sh_type(endian) == elf::SHT_DYNAMIC) {
        fact(false, format!("a dynamic section at {:#x}", Into::<u64>::into(section.sh_addr(endian))));
    }
    Ok(broken)
}

/// An ELF file made by hand: only headers and the bytes of `code`, which follow them.
pub struct Image<'a> {
    /// Machine, class and byte order; `page` is the alignment of every segment.
    pub elf: &'a Elf,
    /// `ET_…`.
    pub kind: u16,
    /// Type, flags and address of each segment; each covers the whole file.
    pub segments: &'a [(u32, u32, u64)],
    /// What follows the headers; execution starts there.
    pub code: &'a [u8],
}

impl Image<'_> {
    /// The file's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let Elf { machine, bits, big_endian, flags, page } = *self.elf;
        let endian = if big_endian { Endianness::Big } else { Endianness::Little };
        let mut bytes = Vec::new();
        let mut writer = Writer::new(endian, bits == 64, &mut bytes);
        writer.reserve_file_header();
        writer.reserve_program_headers(self.segments.len() as u32);
        let code = writer.reserve(self.code.len(), 1) as u64;
        let size = writer.reserved_len() as u64;
        let base = self.segments.iter().find(|segment| segment.0 == elf::PT_LOAD).map_or(0, |segment| segment.2);
        let header = write::FileHeader {
            os_abi: 0,
            abi_version: 0,
            e_type: self.kind,
            e_machine: machine,
            e_entry: base + code,
            e_flags: flags.1,
        };
        writer.write_file_header(&header).expect("the file has fewer bytes than a header can tell");
        writer.write_align_program_headers();
        for &(p_type, p_flags, address) in self.segments {
            writer.write_program_header(&write::ProgramHeader {
                p_type,
                p_flags,
                p_offset: 0,
                p_vaddr: address,
                p_paddr: address,
                p_filesz: size,
                p_memsz: size,
                p_align: page,
            });
        }
        writer.write(self.code);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const R: u32 = elf::PF_R;
    const W: u32 = elf::PF_W;
    const X: u32 = elf::PF_X;
    const CODE: (u32, u32, u64) = (elf::PT_LOAD, R | X, 0x1_0000);
    const DATA: (u32, u32, u64) = (elf::PT_LOAD, R | W, 0x2_0000);
    const STACK: (u32, u32, u64) = (elf::PT_GNU_STACK, R | W, 0);

    fn mips() -> Elf {
        Elf { machine: elf::EM_MIPS, bits: 32, big_endian: true, flags: (0xf000, 0x1000), page: 0x1_0000 }
    }

    fn x86_64() -> Elf {
        Elf { machine: elf::EM_X86_64, bits: 64, big_endian: false, flags: (0, 0), page: 0x1000 }
    }

    fn found(elf: Elf, kind: u16, segments: &[(u32, u32, u64)], expected: &Elf) -> String {
        violations(&Image { elf: &elf, kind, segments, code: &[0; 8] }.bytes(), expected).join("; ")
    }

    #[test]
    fn a_static_program_of_either_class_and_byte_order_passes() {
        assert_eq!(found(mips(), elf::ET_EXEC, &[CODE, DATA, STACK], &mips()), "");
        assert_eq!(found(x86_64(), elf::ET_EXEC, &[CODE, DATA, STACK], &x86_64()), "");
    }

    #[test]
    fn a_program_for_another_machine_is_refused() {
        let said = found(x86_64(), elf::ET_EXEC, &[CODE, STACK], &mips());
        for part in [
            "it is a program for x86_64 (machine 62), not for mips (machine 8)",
            "class is 64 bits",
            "byte order",
            "e_flags",
            "aligned to 0x1000",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }

    #[test]
    fn each_forbidden_thing_is_named() {
        for (segments, part) in [
            (&[CODE, STACK, (elf::PT_INTERP, R, 0)][..], "PT_INTERP"),
            (&[CODE, STACK, (elf::PT_DYNAMIC, R, 0)], "PT_DYNAMIC"),
            (&[CODE, (elf::PT_GNU_STACK, R | W | X, 0)], "stack is executable"),
            (&[CODE], "no PT_GNU_STACK"),
            (&[STACK], "no LOAD"),
            (&[(elf::PT_LOAD, R | W | X, 0x1_0000), STACK], "writable and executable"),
            (&[CODE, (elf::PT_LOAD, R | W, 0x1_0008), STACK], "shares a page"),
            (&[(elf::PT_LOAD, R | X, 0x1_0008), STACK], "does not fit its alignment"),
        ] {
            let said = found(x86_64(), elf::ET_EXEC, segments, &x86_64());
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(found(x86_64(), elf::ET_DYN, &[CODE, STACK], &x86_64()).contains("not ET_EXEC"));
    }

    #[test]
    fn bytes_that_are_no_elf_file_are_an_error_not_a_panic() {
        assert_eq!(violations(b"#!/bin/sh\n", &mips()), ["not an ELF file"]);
        let whole = Image { elf: &mips(), kind: elf::ET_EXEC, segments: &[CODE, STACK], code: &[] }.bytes();
        for len in 0..whole.len() {
            assert!(!violations(&whole[..len], &mips()).is_empty(), "cut at {len}");
        }
    }
}
