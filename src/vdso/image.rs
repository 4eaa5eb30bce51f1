//! Reads the symbols of a vDSO's ELF image. Total on any bytes: it does not panic, does not read
//! outside the image, and each loop is bounded by the image's size.
//!
//! ```text
//!     ELF header ─▶ program headers ─┬─ first PT_LOAD: virtual address minus file offset
//!                                    └─ PT_DYNAMIC ─▶ SYMTAB, STRTAB; VERSYM and VERDEF, if any
//! ```
//!
//! A vDSO has about a dozen symbols, and rt0 looks up three, once each: a linear search. The hash
//! tables, whose kind differs between images (s390x has one of its own), only tell where the
//! symbols end.
//!
//! Any machine can read both classes and both byte orders, for the tests. A program contains one of
//! the four.
//!
//! Sources: elf(5), vdso(7); Ulrich Drepper, *ELF Symbol Versioning*.

use linux_raw_sys::elf;
use memoffset::offset_of;

/// An image of 64-bit class (`WIDE`) or 32-bit, and of either byte order.
pub(crate) struct Image<'a, const WIDE: bool, const BIG: bool> {
    bytes: Bytes<'a, WIDE, BIG>,
    /// Where the symbol table starts, and where the next table starts.
    symbols: (usize, usize),
    /// Where the string table starts.
    strings: usize,
    /// Where the symbols' versions and the version definitions start; `None` if the image has no
    /// versions.
    versions: Option<(usize, usize)>,
    /// Virtual address minus file offset.
    bias: usize,
}

/// An image of this machine.
pub(crate) type Native<'a> = Image<'a, { usize::BITS == 64 }, { cfg!(target_endian = "big") }>;

impl<'a, const WIDE: bool, const BIG: bool> Image<'a, WIDE, BIG> {
    /// The image's length in bytes, by its headers, which `start` must contain.
    pub(crate) fn len(start: &[u8]) -> Option<usize> {
        let bytes = Bytes::<WIDE, BIG>(start);
        let load = bytes.program_header(elf::PT_LOAD)?;
        bytes.word(load, Layout::<WIDE>::P_OFFSET)?.checked_add(bytes.word(load, Layout::<WIDE>::P_FILESZ)?)
    }

    /// Finds the tables. `None` if this is no image of this class and byte order, or one without
    /// dynamic symbols.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let bytes = Bytes::<WIDE, BIG>(bytes);
        let load = bytes.program_header(elf::PT_LOAD)?;
        let bias = bytes.word(load, Layout::<WIDE>::P_VADDR)?.wrapping_sub(bytes.word(load, Layout::<WIDE>::P_OFFSET)?);
        let place = |address: usize| Layout::<WIDE>::wrap(address.wrapping_sub(bias));

        let (mut symbols, mut strings, mut of_symbols, mut definitions) = (None, None, None, None);
        let (mut hash, mut gnu_hash) = (None, None);
        let dynamic = bytes.program_header(elf::PT_DYNAMIC)?;
        let start = bytes.word(dynamic, Layout::<WIDE>::P_OFFSET)?;
        for index in 0..bytes.word(dynamic, Layout::<WIDE>::P_FILESZ)? / Layout::<WIDE>::DYN_SIZE {
            let entry = start.checked_add(index * Layout::<WIDE>::DYN_SIZE)?;
            let table = match bytes.word(entry, 0)? {
                elf::DT_NULL => break,
                elf::DT_SYMTAB => &mut symbols,
                elf::DT_STRTAB => &mut strings,
                elf::DT_VERSYM => &mut of_symbols,
                elf::DT_VERDEF => &mut definitions,
                elf::DT_HASH => &mut hash,
                elf::DT_GNU_HASH => &mut gnu_hash,
                _ => continue,
            };
            *table = Some(place(bytes.word(entry, Layout::<WIDE>::D_VAL)?));
        }
        let (symbols, strings) = (symbols?, strings?);
        // No tag gives the number of symbols, but another table follows them. If that is a table
        // without a tag here, the search also reads that table's bytes, and finds no name in them.
        let after = [Some(strings), of_symbols, definitions, hash, gnu_hash].into_iter().flatten();
        let end = after.filter(|table| *table > symbols).min().unwrap_or(usize::MAX).min(bytes.0.len());
        Some(Image { bytes, symbols: (symbols, end), strings, versions: of_symbols.zip(definitions), bias })
    }

    /// The file offset of the function with this name. If the image has versions, the function must
    /// have one of `versions`.
    pub(crate) fn function(&self, name: &str, versions: &[&str]) -> Option<usize> {
        let version = match self.versions {
            None => None,
            Some((of_symbols, definitions)) => Some((of_symbols, self.version(definitions, versions)?)),
        };
        let (start, end) = self.symbols;
        let count = end.saturating_sub(start) / Layout::<WIDE>::SYM_SIZE;
        let index = (0..count).find(|&index| {
            let symbol = start + index * Layout::<WIDE>::SYM_SIZE;
            self.is_function(symbol) == Some(true)
                && self.bytes.long(symbol, 0).is_some_and(|offset| self.is_name(offset, name))
                && version.is_none_or(|(of_symbols, version)| {
                    self.bytes.half(of_symbols, 2 * index).is_some_and(|found| found & VERSION == version)
                })
        })?;
        let address = self.bytes.word(start + index * Layout::<WIDE>::SYM_SIZE, Layout::<WIDE>::ST_VALUE)?;
        let place = Layout::<WIDE>::wrap(address.wrapping_sub(self.bias));
        (place < self.bytes.0.len()).then_some(place)
    }

    /// Whether the symbol is defined here, global, and a function (or untyped, as on PowerPC).
    fn is_function(&self, symbol: usize) -> Option<bool> {
        let info = self.bytes.byte(symbol, Layout::<WIDE>::ST_INFO)?;
        let section = self.bytes.half(symbol, Layout::<WIDE>::ST_SHNDX)?;
        Some(
            matches!(info & 0xf, elf::STT_FUNC | elf::STT_NOTYPE)
                && matches!(info >> 4, elf::STB_GLOBAL | elf::STB_WEAK)
                && !matches!(section, elf::SHN_UNDEF | elf::SHN_ABS),
        )
    }

    /// The number of the first version with one of these names.
    fn version(&self, definitions: usize, names: &[&str]) -> Option<u16> {
        let mut definition = definitions;
        loop {
            let name = definition.checked_add(self.bytes.long(definition, offset_of!(elf::Elf_Verdef, vd_aux))?)?;
            let name = self.bytes.long(name, offset_of!(elf::Elf_Verdaux, vda_name))?;
            // The base definition names the file, not a version.
            let base = self.bytes.half(definition, offset_of!(elf::Elf_Verdef, vd_flags))? & elf::VER_FLG_BASE != 0;
            if !base && names.iter().any(|wanted| self.is_name(name, wanted)) {
                return Some(self.bytes.half(definition, offset_of!(elf::Elf_Verdef, vd_ndx))? & VERSION);
            }
            definition = match self.bytes.long(definition, offset_of!(elf::Elf_Verdef, vd_next))? {
                0 => return None,
                next => definition.checked_add(next)?, // Always forward, so the loop ends.
            };
        }
    }

    /// Whether the string at `offset` of the string table is `name`.
    #[inline(never)]
    fn is_name(&self, offset: usize, name: &str) -> bool {
        let text = self.strings.checked_add(offset).and_then(|at| self.bytes.0.get(at..));
        text.and_then(|text| text.strip_prefix(name.as_bytes())).is_some_and(|rest| rest.first() == Some(&0))
    }
}

/// The bits of a symbol's version that hold its number; the other bit hides the symbol from
/// linkers.
const VERSION: u16 = 0x7fff;

/// Reads numbers: the field at `offset` of the structure at `place`. `None` outside the bytes.
struct Bytes<'a, const WIDE: bool, const BIG: bool>(&'a [u8]);

impl<const WIDE: bool, const BIG: bool> Bytes<'_, WIDE, BIG> {
    fn field<const N: usize>(&self, place: usize, offset: usize) -> Option<[u8; N]> {
        let mut field = *self.0.get(place.checked_add(offset)?..)?.first_chunk()?;
        if BIG != cfg!(target_endian = "big") {
            field.reverse();
        }
        Some(field)
    }

    fn byte(&self, place: usize, offset: usize) -> Option<u8> {
        self.field(place, offset).map(u8::from_ne_bytes)
    }

    #[inline(never)]
    fn half(&self, place: usize, offset: usize) -> Option<u16> {
        self.field(place, offset).map(u16::from_ne_bytes)
    }

    #[inline(never)]
    fn long(&self, place: usize, offset: usize) -> Option<usize> {
        self.field(place, offset).map(|field| u32::from_ne_bytes(field) as usize)
    }

    /// A number of the class's word size.
    #[inline(never)]
    fn word(&self, place: usize, offset: usize) -> Option<usize> {
        match WIDE {
            true => usize::try_from(u64::from_ne_bytes(self.field(place, offset)?)).ok(),
            false => self.long(place, offset),
        }
    }

    /// The file offset of the first program header of this type.
    #[inline(never)]
    fn program_header(&self, p_type: u32) -> Option<usize> {
        let class = if WIDE { 2 } else { 1 };
        let data = if BIG { 2 } else { 1 };
        if !self.0.starts_with(&elf::ELFMAG) || self.0.get(elf::EI_CLASS..=elf::EI_DATA)? != [class, data] {
            return None;
        }
        let start = self.word(0, Layout::<WIDE>::E_PHOFF)?;
        let size = self.half(0, Layout::<WIDE>::E_PHENTSIZE)?;
        let mut headers = (0..self.half(0, Layout::<WIDE>::E_PHNUM)?)
            .map_while(|index| start.checked_add(usize::from(index) * usize::from(size)));
        headers.find(|&header| self.long(header, 0) == Some(p_type as usize))
    }
}

/// Offsets and sizes that depend on the class.
struct Layout<const WIDE: bool>;

impl<const WIDE: bool> Layout<WIDE> {
    const E_PHOFF: usize = Self::either(28, 32);
    const E_PHENTSIZE: usize = Self::either(42, 54);
    const E_PHNUM: usize = Self::either(44, 56);
    const P_OFFSET: usize = Self::either(4, 8);
    const P_VADDR: usize = Self::either(8, 16);
    const P_FILESZ: usize = Self::either(16, 32);
    const D_VAL: usize = Self::either(4, 8);
    const DYN_SIZE: usize = Self::either(8, 16);
    const ST_VALUE: usize = Self::either(4, 8);
    const ST_INFO: usize = Self::either(12, 4);
    const ST_SHNDX: usize = Self::either(14, 6);
    const SYM_SIZE: usize = Self::either(16, 24);

    const fn either(narrow: usize, wide: usize) -> usize {
        if WIDE { wide } else { narrow }
    }

    /// Truncates an address to the class's word size.
    const fn wrap(address: usize) -> usize {
        if WIDE { address } else { address as u32 as usize }
    }
}

// Checks the column of this machine's class.
const _: () = {
    type Native = Layout<{ usize::BITS == 64 }>;
    assert!(Native::E_PHOFF == offset_of!(elf::Elf_Ehdr, e_phoff));
    assert!(Native::E_PHENTSIZE == offset_of!(elf::Elf_Ehdr, e_phentsize));
    assert!(Native::E_PHNUM == offset_of!(elf::Elf_Ehdr, e_phnum));
    assert!(Native::P_OFFSET == offset_of!(elf::Elf_Phdr, p_offset));
    assert!(Native::P_VADDR == offset_of!(elf::Elf_Phdr, p_vaddr));
    assert!(Native::P_FILESZ == offset_of!(elf::Elf_Phdr, p_filesz));
    assert!(Native::D_VAL == offset_of!(elf::Elf_Dyn, d_un) && Native::DYN_SIZE == size_of::<elf::Elf_Dyn>());
    assert!(Native::ST_VALUE == offset_of!(elf::Elf_Sym, st_value));
    assert!(Native::ST_INFO == offset_of!(elf::Elf_Sym, st_info));
    assert!(Native::ST_SHNDX == offset_of!(elf::Elf_Sym, st_shndx));
    assert!(Native::SYM_SIZE == size_of::<elf::Elf_Sym>());
};

#[cfg(fuzzing)]
pub(super) mod fuzz;
#[cfg(test)]
mod tests;
