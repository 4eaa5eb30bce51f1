//! `cargo xtask bench --bytes`: what the bytes of rt0's small programs are, function by function.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use cargo_rt0::tell;
use object::{Object, ObjectSection, ObjectSymbol, SectionKind, SymbolKind};

use super::programs::{self, EMITTED, Tools};

/// Prints a table for each program that does something.
pub fn run(tools: &Tools) -> Result<ExitCode> {
    let measured = programs::small_of_rt0(tools)?;
    let named = programs::small_with_symbols(tools)?;
    for ((name, measured), named) in EMITTED[1..].iter().zip(&measured).zip(&named).skip(1) {
        let rows = rows(measured, named).with_context(|| named.display().to_string())?;
        tell!("{name}: {} bytes", rows.iter().map(|(size, _)| size).sum::<u64>());
        rows.iter().for_each(|(size, what)| tell!("{size:>7}  {what}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// The parts of the file `measured`, the largest first. The names of the functions come from the
/// same program with symbols, `named`.
fn rows(measured: &Path, named: &Path) -> Result<Vec<(u64, String)>> {
    let data = fs::read(named)?;
    let file = object::File::parse(&*data)?;
    // Identical functions may share an address.
    let functions: BTreeMap<_, _> = file
        .symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0)
        .map(|symbol| Ok((symbol.address(), (symbol.size(), symbol.name()?.to_string()))))
        .collect::<Result<_>>()?;
    let loaded = file.sections().filter(|section| matches!(section.kind(), SectionKind::Text | SectionKind::Data));
    let places: Vec<_> = loaded.filter_map(|section| section.file_range()).collect();
    let headers = places.iter().map(|(start, _)| *start).min().context("it has no code")?;
    let end = places.iter().map(|(start, size)| start + size).max().context("it has no code")?;
    let code: u64 = functions.values().map(|(size, _)| size).sum();
    let mut rows: Vec<_> = functions
        .into_values()
        .map(|(size, name)| (size, addr2line::demangle_auto(name.into(), None).into_owned()))
        .collect();
    rows.push((headers, "(headers)".to_string()));
    rows.push((end - headers - code, "(constants, and gaps for alignment)".to_string()));
    rows.push((fs::metadata(measured)?.len() - end, "(zeros where the linker has section headers)".to_string()));
    rows.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
    Ok(rows)
}
