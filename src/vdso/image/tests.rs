//! Images as linkers lay them out, unusual layouts, and 100,000 broken images.

extern crate std;
use std::vec;
use std::vec::Vec;

use super::*;

/// The parts of an image.
#[derive(Clone, Copy)]
struct Recipe {
    wide: bool,
    big: bool,
    /// The address that the image was linked for.
    base: u64,
    /// The tables that have an address in the dynamic section, in the order in which they lie in
    /// the image.
    tables: &'static [Table],
    symbols: &'static [Symbol],
    /// The versions, from number 2 on; number 1 names the file itself.
    versions: &'static [&'static str],
    /// The file offset of the code.
    text: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Table {
    Hash,
    /// On s390x the words of the hash table have 64 bits.
    WideHash,
    GnuHash,
    Symbols,
    Strings,
    SymbolVersions,
    Versions,
    /// Something without a tag in the dynamic section.
    Note,
}
use Table::*;

#[derive(Clone, Copy)]
struct Symbol {
    name: &'static str,
    info: u8,
    section: u16,
    /// The offset from the start of the code, or another value.
    value: u64,
    version: u16,
}

const GLOBAL_FUNC: u8 = 0x12;
const WEAK_FUNC: u8 = 0x22;
const LOCAL_FUNC: u8 = 0x02;
const GLOBAL_OBJECT: u8 = 0x11;
const GLOBAL_NOTYPE: u8 = 0x10;

const fn function(name: &'static str, value: u64) -> Symbol {
    Symbol { name, info: GLOBAL_FUNC, section: 12, value, version: 2 }
}

const NULL: Symbol = Symbol { name: "", info: 0, section: 0, value: 0, version: 0 };

/// Names at both ends and in the middle, a name that is part of another, a version's own symbol.
const SYMBOLS: &[Symbol] = &[
    NULL,
    function("clock", 0x10),
    function("clock_gettime64", 0x20),
    Symbol { name: "LINUX_2.6", info: GLOBAL_OBJECT, section: elf::SHN_ABS, value: 0, version: 2 },
    function("clock_gettime", 0x30),
    Symbol { info: WEAK_FUNC, ..function("weak", 0x40) },
    Symbol { info: GLOBAL_NOTYPE, ..function("typeless", 0x50) },
    function("getrandom", 0x60),
];

const VERSIONS: &[&str] = &["LINUX_2.6"];

const PLAIN: Recipe = Recipe {
    wide: true,
    big: false,
    base: 0,
    tables: &[Hash, GnuHash, Symbols, Strings, SymbolVersions, Versions],
    symbols: SYMBOLS,
    versions: VERSIONS,
    text: 0x800,
};

/// An image under construction.
struct Writer {
    recipe: Recipe,
    out: Vec<u8>,
}

impl Writer {
    fn number(&mut self, value: u64, bytes: usize) -> &mut Self {
        match self.recipe.big {
            true => self.out.extend(&value.to_be_bytes()[8 - bytes..]),
            false => self.out.extend(&value.to_le_bytes()[..bytes]),
        }
        self
    }

    fn half(&mut self, value: u16) -> &mut Self {
        self.number(value.into(), 2)
    }

    fn long(&mut self, value: usize) -> &mut Self {
        self.number(value as u64, 4)
    }

    fn word(&mut self, value: u64) -> &mut Self {
        self.number(value, if self.recipe.wide { 8 } else { 4 })
    }

    fn pad(&mut self, to: usize) {
        assert!(self.out.len() <= to, "{:#x} bytes, {to:#x} wanted", self.out.len());
        self.out.resize(to, 0);
    }

    fn program_header(&mut self, kind: u32, place: usize, size: usize) {
        let address = self.recipe.base.wrapping_add(place as u64);
        self.long(kind as usize);
        if self.recipe.wide {
            self.long(5).word(place as u64).word(address).word(address).word(size as u64).word(size as u64).word(8);
        } else {
            self.word(place as u64).word(address).word(address).word(size as u64).word(size as u64).long(5).word(8);
        }
    }
}

fn build(recipe: Recipe) -> Vec<u8> {
    let count = recipe.symbols.len();
    let mut names = vec![0];
    let mut name = |text: &str| {
        let at = names.len();
        names.extend(text.bytes().chain([0]));
        at
    };
    let symbol_names: Vec<usize> =
        recipe.symbols.iter().map(|symbol| if symbol.name.is_empty() { 0 } else { name(symbol.name) }).collect();
    let version_names: Vec<usize> = ["linux-vdso.so.1"].iter().chain(recipe.versions).map(|text| name(text)).collect();

    let mut tables = Writer { recipe, out: Vec::new() };
    let start = 0x100;
    let mut dynamic = vec![(14, 1), (elf::DT_SYMENT as u64, if recipe.wide { 24 } else { 16 })];
    for &table in recipe.tables {
        tables.pad(tables.out.len().next_multiple_of(8));
        let address = recipe.base.wrapping_add((start + tables.out.len()) as u64);
        let tag = match table {
            Hash | WideHash => {
                let bytes = if table == WideHash { 8 } else { 4 };
                // No bucket: the parser must not divide by their number.
                tables.number(0, bytes).number(count as u64, bytes).out.extend(vec![0; count * bytes]);
                Some(elf::DT_HASH)
            }
            GnuHash => {
                tables.long(0).long(1).long(0).long(0);
                Some(elf::DT_GNU_HASH)
            }
            Symbols => {
                for (symbol, &name) in recipe.symbols.iter().zip(&symbol_names) {
                    let at = recipe.base.wrapping_add(recipe.text as u64).wrapping_add(symbol.value);
                    tables.long(name);
                    if recipe.wide {
                        tables.out.extend([symbol.info, 0]);
                        tables.half(symbol.section).word(at).word(16);
                    } else {
                        tables.word(at).word(16).out.extend([symbol.info, 0]);
                        tables.half(symbol.section);
                    }
                }
                Some(elf::DT_SYMTAB)
            }
            Strings => {
                tables.out.extend(&names);
                Some(elf::DT_STRTAB)
            }
            SymbolVersions => {
                for symbol in recipe.symbols {
                    tables.half(symbol.version);
                }
                Some(elf::DT_VERSYM)
            }
            Versions => {
                for (index, &name) in version_names.iter().enumerate() {
                    let flags = if index == 0 { elf::VER_FLG_BASE } else { 0 };
                    let next = if index + 1 == version_names.len() { 0 } else { 28 };
                    tables.half(1).half(flags).half(index as u16 + 1).half(1).long(0).long(20).long(next);
                    tables.long(name).long(0);
                }
                Some(elf::DT_VERDEF)
            }
            Note => {
                tables.out.extend([0xAA; 40]);
                None
            }
        };
        dynamic.extend(tag.map(|tag| (tag as u64, address)));
    }
    dynamic.extend([(0x6fff_fffd, version_names.len() as u64), (0, 0)]);

    let mut image = Writer { recipe, out: Vec::new() };
    let place = (start + tables.out.len()).next_multiple_of(8);
    let dynamic_size = dynamic.len() * if recipe.wide { 16 } else { 8 };
    let (class, data) = (if recipe.wide { 2 } else { 1 }, if recipe.big { 2 } else { 1 });
    let (header, program_header) = if recipe.wide { (64, 56) } else { (52, 32) };
    image.out.extend([0x7f, b'E', b'L', b'F', class, data, 1, 0]);
    image.pad(16);
    image.half(3).half(0).long(1).word(0).word(header).word(0).long(0);
    image.half(header as u16).half(program_header).half(3).half(0).half(0).half(0);
    image.program_header(0x6474_e551, 0, 0);
    image.program_header(elf::PT_LOAD, 0, recipe.text + 0x100);
    image.program_header(elf::PT_DYNAMIC, place, dynamic_size);
    image.pad(start);
    image.out.extend(&tables.out);
    image.pad(place);
    for (tag, value) in dynamic {
        image.word(tag).word(value);
    }
    image.pad(recipe.text + 0x100);
    image.out
}

/// Looks a name up in an image of this class and byte order.
fn look_up(recipe: Recipe, image: &[u8], name: &str, versions: &[&str]) -> Option<usize> {
    fn of<const WIDE: bool, const BIG: bool>(image: &[u8], name: &str, versions: &[&str]) -> Option<usize> {
        Image::<WIDE, BIG>::parse(image)?.function(name, versions)
    }
    match (recipe.wide, recipe.big) {
        (true, true) => of::<true, true>(image, name, versions),
        (true, false) => of::<true, false>(image, name, versions),
        (false, true) => of::<false, true>(image, name, versions),
        (false, false) => of::<false, false>(image, name, versions),
    }
}

fn len(recipe: Recipe, start: &[u8]) -> Option<usize> {
    match (recipe.wide, recipe.big) {
        (true, true) => Image::<true, true>::len(start),
        (true, false) => Image::<true, false>::len(start),
        (false, true) => Image::<false, true>::len(start),
        (false, false) => Image::<false, false>::len(start),
    }
}

/// [`PLAIN`] in every class and byte order.
fn machines() -> impl Iterator<Item = Recipe> {
    [(true, true), (true, false), (false, true), (false, false)]
        .map(|(wide, big)| Recipe { wide, big, ..PLAIN })
        .into_iter()
}

/// Every function of [`SYMBOLS`] is found where it lies, and nothing else is.
fn all_is_found(recipe: Recipe) {
    let image = build(recipe);
    assert_eq!(len(recipe, &image), Some(image.len()));
    for symbol in recipe.symbols.iter().filter(|symbol| symbol.info != 0) {
        let expected = (symbol.section != elf::SHN_ABS).then_some(recipe.text + symbol.value as usize);
        let what = (symbol.name, recipe.wide, recipe.big, recipe.base, recipe.tables);
        assert_eq!(look_up(recipe, &image, symbol.name, VERSIONS), expected, "{what:x?}");
    }
    for absent in ["", "c", "clock_", "lock", "gettime", "clock_gettime6", "clock_gettime644", "no such name"] {
        assert_eq!(look_up(recipe, &image, absent, VERSIONS), None, "{absent:?}");
    }
}

#[test]
fn every_class_byte_order_and_address_is_read() {
    for recipe in machines() {
        // Linked at 0, or at the addresses of 32-bit kernels, old 64-bit kernels and emulators.
        for base in [0, 0x1000, 0xffff_e000, 0x7fff_f7fc_1000, 0xffff_ffff_ff70_0000, u64::MAX - 0xfff] {
            all_is_found(Recipe { base, ..recipe });
        }
    }
}

#[test]
fn every_kind_and_order_of_tables_is_read() {
    let orders: [&[Table]; 11] = [
        &[Hash, Symbols, Strings, SymbolVersions, Versions],
        &[GnuHash, Symbols, Strings, SymbolVersions, Versions],
        &[WideHash, Symbols, Strings, SymbolVersions, Versions],
        &[Symbols, Strings, SymbolVersions, Versions], // No hash at all.
        &[Symbols, SymbolVersions, Versions, GnuHash, Hash, Strings],
        &[Symbols, Note, Hash, GnuHash, Strings, SymbolVersions, Versions],
        &[Strings, Versions, SymbolVersions, Hash, GnuHash, Symbols], // Nothing behind the symbols.
        &[Strings, Versions, SymbolVersions, Symbols, Note],
        &[Hash, GnuHash, Symbols, Strings],                 // No versions.
        &[Hash, GnuHash, Symbols, Strings, Versions],       // None that a symbol could have.
        &[Hash, GnuHash, Symbols, Strings, SymbolVersions], // Versions without definitions.
    ];
    for recipe in machines() {
        orders.iter().for_each(|tables| all_is_found(Recipe { tables, ..recipe }));
    }
}

#[test]
fn code_on_another_page_is_found_whatever_the_page_size() {
    for recipe in machines() {
        for text in [0x1000, 0x4000, 0x10000, 0x8_0000] {
            all_is_found(Recipe { text, ..recipe });
        }
    }
}

#[test]
fn a_version_must_be_one_of_those_wanted() {
    const SYMBOLS: &[Symbol] = &[
        NULL,
        Symbol { version: 2, ..function("old", 0x10) },
        Symbol { version: 3, ..function("new", 0x20) },
        Symbol { version: 3 | 0x8000, ..function("hidden", 0x30) },
        Symbol { version: 1, ..function("of_the_file", 0x40) },
        Symbol { version: 0, ..function("local_version", 0x50) },
        Symbol { version: 2, ..function("twice", 0x60) },
        Symbol { version: 3, ..function("twice", 0x70) },
    ];
    for recipe in machines() {
        let recipe = Recipe { symbols: SYMBOLS, versions: &["LINUX_2.6.15", "LINUX_5.11"], ..recipe };
        let image = build(recipe);
        let find =
            |name: &str, versions: &[&str]| look_up(recipe, &image, name, versions).map(|place| place - recipe.text);
        assert_eq!(find("old", &["LINUX_2.6.15"]), Some(0x10));
        assert_eq!(find("new", &["LINUX_2.6.15"]), None);
        assert_eq!(find("new", &["LINUX_5.11"]), Some(0x20));
        assert_eq!(find("hidden", &["LINUX_5.11"]), Some(0x30));
        assert_eq!(find("twice", &["LINUX_2.6.15"]), Some(0x60));
        assert_eq!(find("twice", &["LINUX_5.11"]), Some(0x70));
        assert_eq!(find("old", &["LINUX_2.6.1", "LINUX_2.6.15x", "LINUX_2.6.15"]), Some(0x10));
        for absent in ["LINUX_2.6", "LINUX_2.6.155", "", "linux-vdso.so.1"] {
            assert_eq!(find("old", &[absent]), None, "{absent:?}");
        }
        assert_eq!(find("old", &[]), None);
        for unversioned in ["of_the_file", "local_version"] {
            assert_eq!(find(unversioned, &["LINUX_2.6.15", "LINUX_5.11"]), None);
        }
    }
}

#[test]
fn only_a_global_function_defined_in_the_image_is_found() {
    const SYMBOLS: &[Symbol] = &[
        NULL,
        Symbol { info: LOCAL_FUNC, ..function("local", 0x10) },
        Symbol { info: GLOBAL_OBJECT, ..function("object", 0x20) },
        Symbol { section: elf::SHN_UNDEF, ..function("undefined", 0x30) },
        Symbol { section: elf::SHN_ABS, ..function("absolute", 0x40) },
        function("behind", 0x100), // The image ends there.
        function("before", (-0x801i64) as u64),
        function("far", 1 << 40),
        Symbol { name: "", ..function("", 0x50) }, // Its name is erased, as Arm's kernel does.
        function("last", 0xff),
    ];
    for recipe in machines() {
        let recipe = Recipe { symbols: SYMBOLS, ..recipe };
        let image = build(recipe);
        for name in ["local", "object", "undefined", "absolute", "behind", "before"] {
            assert_eq!(look_up(recipe, &image, name, VERSIONS), None, "{name}");
        }
        assert_eq!(look_up(recipe, &image, "last", VERSIONS), Some(recipe.text + 0xff));
        let far = look_up(recipe, &image, "far", VERSIONS);
        assert_eq!(far, if recipe.wide { None } else { Some(recipe.text) }, "32 bits do not have the 40th");
    }
}

#[test]
fn what_is_no_image_of_this_class_and_byte_order_is_refused() {
    for recipe in machines() {
        let image = build(recipe);
        for other in machines().filter(|other| (other.wide, other.big) != (recipe.wide, recipe.big)) {
            assert_eq!(look_up(other, &image, "clock", VERSIONS), None);
        }
        for byte in 0..6 {
            let mut image = image.clone();
            image[byte] ^= 0x40;
            assert_eq!((look_up(recipe, &image, "clock", VERSIONS), len(recipe, &image)), (None, None), "byte {byte}");
        }
        for junk in [&b""[..], b"\x7fELF", &[0; 4096], &[0xff; 4096], b"#!/bin/sh\n"] {
            assert_eq!((look_up(recipe, junk, "clock", VERSIONS), len(recipe, junk)), (None, None));
        }
    }
}

#[test]
fn an_image_cut_short_has_what_lies_in_it_or_nothing() {
    for recipe in machines() {
        let image = build(recipe);
        let whole = look_up(recipe, &image, "getrandom", VERSIONS);
        for end in 0..image.len() {
            let found = look_up(recipe, &image[..end], "getrandom", VERSIONS);
            assert!(found.is_none() || (found == whole && found < Some(end)), "{end}: {found:?}");
        }
    }
}

/// A pseudo-random sequence, the same in each run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// Damages an image in one of several ways.
fn damage(image: &mut Vec<u8>, numbers: &mut Numbers) {
    /// Where headers and tables lie; damage to the code would show nothing.
    const TABLES: usize = 0x480;
    let at = numbers.below(TABLES.min(image.len().max(1)));
    let words = [0, 1, 2, 8, 24, 0x1000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, u64::MAX, u64::MAX - 7, 1 << 63];
    let word = words[numbers.below(words.len())];
    let size = [1, 2, 4, 8][numbers.below(4)];
    let end = (at + size).min(image.len());
    match numbers.below(6) {
        0 => image.truncate(at),
        1 => image[at..end].copy_from_slice(&word.to_le_bytes()[..end - at]),
        2 => image[at..end].copy_from_slice(&word.to_be_bytes()[8 - (end - at)..]),
        3 => image[at..end].iter_mut().for_each(|byte| *byte = numbers.next() as u8),
        4 => image[at..end].iter_mut().for_each(|byte| *byte = byte.wrapping_add(1)),
        _ => {
            let from = numbers.below(TABLES.min(image.len()));
            let len = numbers.below(64).min(image.len() - from.max(at));
            image.copy_within(from..from + len, at);
        }
    }
}

#[test]
fn a_hundred_thousand_damaged_images_are_read_to_an_end() {
    let mut numbers = Numbers(0x9E37_79B9_7F4A_7C15);
    let orders: [&[Table]; 3] = [PLAIN.tables, &[Symbols, Strings], &[Strings, Versions, SymbolVersions, Symbols]];
    let images: Vec<_> = machines()
        .flat_map(|recipe| orders.map(|tables| Recipe { tables, base: 0x1000, ..recipe }))
        .map(|recipe| (recipe, build(recipe)))
        .collect();
    let mut found = 0;
    for round in 0..100_000 {
        let (recipe, whole) = &images[round % images.len()];
        let mut image = whole.clone();
        for _ in 0..=numbers.below(4) {
            if !image.is_empty() {
                damage(&mut image, &mut numbers);
            }
        }
        let _ = len(*recipe, &image);
        for name in ["clock_gettime", "getrandom", ""] {
            if let Some(place) = look_up(*recipe, &image, name, VERSIONS) {
                assert!(place < image.len(), "round {round}: {place:#x} of {:#x}", image.len());
                found += 1;
            }
        }
    }
    assert!(found > 20_000, "{found}: the damage goes so far that nothing is read any more");
}
