//! `cargo xtask symbolize PROGRAM`: adds names, files and lines to the addresses in a report of a
//! fault, or in a dump of threads.
//!
//! A frame is a line of blanks, `0x` and hexadecimal digits. All other lines are copied unchanged.
//! The program may be for any machine: its ELF header says which.

use std::borrow::Cow;
use std::fs;
use std::io::{BufRead, Write};
use std::path::Path;

use addr2line::Context;
use addr2line::gimli::{DwarfSections, EndianSlice, RunTimeEndian, SectionId};
use anyhow::{Context as _, Result, bail, ensure};
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol, SymbolKind};

/// Copies `from` to `to`, and adds names, files and lines of `program` to each frame.
pub fn run(program: &Path, from: impl BufRead, mut to: impl Write) -> Result<()> {
    let data = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let symbols = Symbols::of(&data).with_context(|| format!("{} has no names to tell", program.display()))?;
    for line in from.split(b'\n') {
        let line = line.context("cannot read the report")?;
        to.write_all(&line)?;
        if let Some(address) = address_of(&line) {
            symbols.write(address, &mut to)?;
        }
        writeln!(to)?;
    }
    Ok(to.flush()?)
}

/// The address of a line that is a frame.
fn address_of(line: &[u8]) -> Option<u64> {
    let line = std::str::from_utf8(line).ok()?;
    let digits = line.trim().strip_prefix("0x").filter(|_| line.starts_with([' ', '\t']))?;
    u64::from_str_radix(digits, 16).ok()
}

/// What is known of a program's addresses from its file.
struct Symbols<'a> {
    lines: Context<EndianSlice<'a, RunTimeEndian>>,
    /// Address, size and name of each function, by address.
    functions: Vec<(u64, u64, &'a str)>,
    /// The addresses that the program occupies.
    segments: Vec<(u64, u64)>,
}

impl<'a> Symbols<'a> {
    fn of(data: &'a [u8]) -> Result<Symbols<'a>> {
        let file = object::File::parse(data).context("it is no ELF file")?;
        let endian = if file.is_little_endian() { RunTimeEndian::Little } else { RunTimeEndian::Big };
        let section = |id: SectionId| -> Result<&'a [u8]> {
            let Some(section) = file.section_by_name(id.name()) else { return Ok(&[]) };
            let is_plain = section.compressed_file_range()?.format == object::CompressionFormat::None;
            ensure!(is_plain, "its section {} is compressed", id.name());
            Ok(section.data()?)
        };
        let sections = DwarfSections::load(section)?;
        let dwarf = sections.borrow(|data| EndianSlice::new(data, endian));
        let lines = Context::from_dwarf(dwarf).context("its line tables cannot be read")?;
        let text = file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text);
        let mut functions: Vec<_> = text.filter_map(|s| Some((s.address(), s.size(), s.name().ok()?))).collect();
        functions.sort_unstable();
        if functions.is_empty() && file.section_by_name(".debug_line").is_none() {
            bail!("it is stripped: neither symbols nor line tables; give the file that the linker made");
        }
        let segments = file.segments().map(|s| (s.address(), s.address().saturating_add(s.size()))).collect();
        Ok(Symbols { lines, functions, segments })
    }

    /// Writes the function, file and line of an address. Each inlined function has its own line,
    /// the innermost one first.
    fn write(&self, address: u64, to: &mut impl Write) -> Result<()> {
        if !self.segments.iter().any(|(start, end)| (*start..*end).contains(&address)) {
            write!(to, " (not in this program)")?;
            return Ok(());
        }
        let mut found = self.lines.find_frames(address).skip_all_loads().context("its line tables are damaged")?;
        let mut frames = Vec::new();
        while let Some(frame) = found.next()? {
            let name = frame.function.as_ref().and_then(|function| Some(function.demangle().ok()?.into_owned()));
            let place = frame.location.as_ref().and_then(|place| Some(format!(" at {}:{}", place.file?, place.line?)));
            frames.push((name, place.unwrap_or_default()));
        }
        // The last one is not inlined. Its symbol has the whole path; the debug information may
        // have only a part.
        let symbol = self.function(address).map(Cow::into_owned);
        match frames.last_mut() {
            Some((name, _)) => *name = symbol.or(name.take()),
            None => frames.push((symbol, String::new())),
        }
        for (index, (name, place)) in frames.iter().enumerate() {
            let how = if index > 0 { "\n      inlined into" } else { "" };
            write!(to, "{how} {}{place}", name.as_deref().unwrap_or("??"))?;
        }
        Ok(())
    }

    /// The function of the symbol table that an address lies in.
    fn function(&self, address: u64) -> Option<Cow<'a, str>> {
        let after = self.functions.partition_point(|(start, ..)| *start <= address);
        let (start, size, name) = self.functions.get(after.checked_sub(1)?)?;
        (address - start < *size).then(|| addr2line::demangle_auto(Cow::Borrowed(name), None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_lines_of_blanks_and_an_address() {
        assert_eq!(address_of(b"    0x2031f4"), Some(0x20_31f4));
        assert_eq!(address_of(b"\t0xffffffffffffffff \r"), Some(u64::MAX));
        for other in [
            "0x2031f4",
            "rax 0x0000000000000008  rbx 0x0000000000000000",
            "    2031f4",
            "    0x",
            "    0x10000000000000000",
            "thread 'main' (tid 1) got SIGSEGV: address not mapped to object (SEGV_MAPERR), address 0x8, pc 0x2031f4",
        ] {
            assert_eq!(address_of(other.as_bytes()), None, "{other}");
        }
        assert_eq!(address_of(b"    0x20\xff"), None);
    }

    #[test]
    fn this_programs_own_function_has_its_name_file_and_line() {
        let own = std::env::current_exe().expect("this program");
        let data = fs::read(&own).expect("this program");
        let symbols = Symbols::of(&data).expect("it has symbols");
        let (address, ..) = *symbols.functions.iter().find(|f| f.2.contains("address_of")).expect("a function above");
        let (mut told, text) = (Vec::new(), format!("before\n    {address:#x}\n    {:#x}\n", u64::MAX));
        run(&own, text.as_bytes(), &mut told).expect("no error");
        let told = String::from_utf8(told).expect("text");
        assert!(told.starts_with("before\n    0x"), "{told}");
        assert!(told.contains("symbolize::address_of") && told.contains("symbolize.rs:"), "{told}");
        assert!(told.ends_with("    0xffffffffffffffff (not in this program)\n"), "{told}");
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        let error = run(Path::new("/nowhere"), &b""[..], Vec::new()).expect_err("no such file");
        assert!(format!("{error:#}").starts_with("cannot read /nowhere: No such file"), "{error:#}");
        let source = crate::repository::root().join("xtask/src/symbolize.rs");
        let error = run(&source, &b""[..], Vec::new()).expect_err("no program");
        assert!(format!("{error:#}").contains("it is no ELF file"), "{error:#}");
    }
}
