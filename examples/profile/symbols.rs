//! The names of the program's functions, from its own file: elf(5). They are mangled; `rustfilt`
//! demangles them.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use heapless::Vec;
use linux_raw_sys::elf::Elf_Ehdr;
use rt0::{Errno, io, sys};

pub struct Symbols {
    /// Sorted by address.
    functions: Vec<Function, 4096>,
    names: [u8; 512 << 10],
}

struct Function {
    start: usize,
    size: usize,
    name: usize,
}

impl Symbols {
    /// The function that contains the address.
    pub fn name(&self, address: usize) -> Option<&str> {
        let after = self.functions.partition_point(|function| function.start <= address);
        let function = self.functions.get(after.checked_sub(1)?)?;
        let name = self.names.get(function.name..)?.split(|byte| *byte == 0).next()?;
        if address - function.start < function.size { core::str::from_utf8(name).ok() } else { None }
    }
}

/// Too large for a stack.
static SYMBOLS: Room = Room(UnsafeCell::new(Symbols { functions: Vec::new(), names: [0; _] }));

struct Room(UnsafeCell<Symbols>);

// SAFETY: `of_program` returns a reference only once.
unsafe impl Sync for Room {}

/// Reads the symbols, for the first caller only. `None` if there are none or too many.
pub fn of_program() -> Option<&'static Symbols> {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    if TAKEN.swap(1, Relaxed) != 0 {
        return None;
    }
    // SAFETY: only the first caller gets here.
    let symbols = unsafe { &mut *SYMBOLS.0.get() };
    read(symbols).ok()?;
    Some(symbols)
}

#[repr(C)]
struct Section {
    _name: u32,
    kind: u32,
    _flags: usize,
    _address: usize,
    offset: usize,
    size: usize,
    link: u32,
    _info: u32,
    _align_and_entry: [usize; 2],
}

const SYMBOL_TABLE: u32 = 2;

#[cfg(target_pointer_width = "64")]
#[repr(C)]
struct Symbol {
    name: u32,
    info: u8,
    _other: [u8; 3],
    value: usize,
    size: usize,
}

#[cfg(target_pointer_width = "32")]
#[repr(C)]
struct Symbol {
    name: u32,
    value: usize,
    size: usize,
    info: u8,
    _other: [u8; 3],
}

const FUNCTION: u8 = 2;

fn read(symbols: &mut Symbols) -> Result<(), Errno> {
    let header: Elf_Ehdr = File::open_at(0)?.next()?;
    let section = |index: usize| -> Result<Section, Errno> {
        File::open_at(header.e_shoff + index * size_of::<Section>())?.next()
    };
    for index in 0..usize::from(header.e_shnum) {
        let table = section(index)?;
        if table.kind != SYMBOL_TABLE {
            continue;
        }
        let names = section(table.link as usize)?;
        let room = symbols.names.get_mut(..names.size).ok_or(Errno::EFBIG)?;
        File::open_at(names.offset)?.fill(room)?;
        let mut file = File::open_at(table.offset)?;
        for _ in 0..table.size / size_of::<Symbol>() {
            let Symbol { name, info, value, size, .. } = file.next()?;
            if info & 0xf == FUNCTION {
                let function = Function { start: value, size, name: name as usize };
                symbols.functions.push(function).map_err(|_| Errno::EFBIG)?;
            }
        }
        symbols.functions.sort_unstable_by_key(|function| function.start);
        return Ok(());
    }
    Err(Errno::ENOENT)
}

/// The program's file, read sequentially.
struct File {
    file: sys::OwnedFd,
    piece: [u8; 4096],
    /// The part of the buffer that is not used yet.
    left: core::ops::Range<usize>,
}

impl File {
    fn open_at(mut offset: usize) -> Result<File, Errno> {
        let file = sys::open(c"/proc/self/exe", sys::flags::O_RDONLY | sys::flags::O_CLOEXEC, 0)?;
        let mut file = File { file, piece: [0; _], left: 0..0 };
        while offset > 0 {
            let skipped = offset.min(512);
            file.fill(&mut [0; 512][..skipped])?;
            offset -= skipped;
        }
        Ok(file)
    }

    fn fill(&mut self, buf: &mut [u8]) -> Result<(), Errno> {
        let mut filled = 0;
        while filled < buf.len() {
            if self.left.is_empty() {
                self.left = 0..io::read(&self.file, &mut self.piece)?;
                if self.left.is_empty() {
                    return Err(Errno::ENODATA);
                }
            }
            let count = self.left.len().min(buf.len() - filled);
            buf[filled..filled + count].copy_from_slice(&self.piece[self.left.start..self.left.start + count]);
            self.left.start += count;
            filled += count;
        }
        Ok(())
    }

    /// Reads a struct.
    fn next<T: Plain>(&mut self) -> Result<T, Errno> {
        let mut value = MaybeUninit::<T>::zeroed();
        // SAFETY: the bytes of `value`, which are initialised to zeros.
        let bytes = unsafe { core::slice::from_raw_parts_mut(value.as_mut_ptr().cast(), size_of::<T>()) };
        self.fill(bytes)?;
        // SAFETY: any bytes are a `Plain`.
        Ok(unsafe { value.assume_init() })
    }
}

/// Structs of elf(5): any bytes are a valid value.
///
/// # Safety
///
/// 1. Any bytes are a valid value of the type.
unsafe trait Plain {}

// SAFETY: 1. All its fields are integers.
unsafe impl Plain for Elf_Ehdr {}
// SAFETY: 1. All its fields are integers.
unsafe impl Plain for Section {}
// SAFETY: 1. All its fields are integers.
unsafe impl Plain for Symbol {}
