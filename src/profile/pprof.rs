//! A profile in the format of pprof, which `go tool pprof` and other tools read: profile.proto of
//! github.com/google/pprof, a protobuf message, plain or compressed with gzip. Its fields may come
//! in any order and be repeated, so it is written while samples come in.
//!
//! 1. *Nothing grows*: samples are written, not kept. Of the addresses that were written as
//!    locations the writer remembers some. An address that it has forgotten becomes one more
//!    location with a number of its own, and readers add up locations of the same address.
//! 2. *Mappings are the program's code and the vDSO's*, by their own headers: /proc is not needed.
//!    An address outside both, as of code that the program made, has a location without a mapping.

use core::ffi::CStr;
use core::ops::Range;
use core::{ptr, slice};

use heapless::Vec;
use linux_raw_sys::auxvec;
use linux_raw_sys::elf::{Elf_Phdr, PF_X, PT_LOAD};

use super::{DEPTH, MAX_HZ, Sample};
use crate::errno::{Errno, Result};
use crate::{auxv, io, vdso};

/// Writes a profile to a descriptor. A writer has some 20 KiB, and allocates nothing.
///
/// ```no_run
/// use rt0::profile::{self, pprof};
/// use rt0::sys::{self, flags};
///
/// let flags = flags::O_WRONLY | flags::O_CREAT | flags::O_TRUNC | flags::O_CLOEXEC;
/// let mut writer = pprof::Writer::new(sys::open(c"profile.pb", flags, 0o644)?, 100)?;
/// profile::start(100)?;
/// // … what is to be profiled; in between, as when all is done:
/// let mut written = Ok(());
/// let _drained = profile::drain(|sample| {
///     written = written.and_then(|()| writer.sample(&sample));
/// })?;
/// written?;
/// writer.finish()?;
/// # Ok::<(), rt0::Errno>(())
/// ```
///
/// `go tool pprof -top PROGRAM profile.pb` shows the functions and their shares. A sample's callers
/// are there if the program was compiled with `-Cforce-frame-pointers=yes`.
#[must_use = "without `finish` a part of the profile is not written"]
#[derive(Debug)]
pub struct Writer<F: io::AsFd> {
    fd: F,
    piece: Vec<u8, 4096>,
    /// Locations that were written. An address has one place here, which it shares with others.
    known: [Location; KNOWN],
    locations: u64,
    /// Of the mapping with number 1, 2, and so on.
    mappings: Vec<Range<usize>, 4>,
    strings: u64,
    /// In nanoseconds.
    period: u64,
}

#[derive(Clone, Copy, Debug)]
struct Location {
    address: usize,
    /// 0: none.
    id: u64,
}

/// The locations that a writer remembers.
const KNOWN: usize = 1024;

/// Field numbers of `Profile`, and of its parts.
mod field {
    pub const SAMPLE_TYPE: u32 = 1;
    pub const SAMPLE: u32 = 2;
    pub const MAPPING: u32 = 3;
    pub const LOCATION: u32 = 4;
    pub const STRING: u32 = 6;
    pub const PERIOD_TYPE: u32 = 11;
    pub const PERIOD: u32 = 12;

    pub const VALUE_TYPE_KIND: u32 = 1;
    pub const VALUE_TYPE_UNIT: u32 = 2;
    pub const SAMPLE_LOCATION: u32 = 1;
    pub const SAMPLE_VALUE: u32 = 2;
    pub const MAPPING_ID: u32 = 1;
    pub const MAPPING_START: u32 = 2;
    pub const MAPPING_LIMIT: u32 = 3;
    pub const MAPPING_OFFSET: u32 = 4;
    pub const MAPPING_FILE: u32 = 5;
    pub const LOCATION_ID: u32 = 1;
    pub const LOCATION_MAPPING: u32 = 2;
    pub const LOCATION_ADDRESS: u32 = 3;
}

/// The most bytes of a number and its field, and of one sample with the deepest stack.
const NUMBER: usize = 11;
type Message = Vec<u8, { (DEPTH + 2) * NUMBER }>;

/// Profiles refer to a string by its index among the fields `STRING`. The first must be empty.
const STRINGS: [&str; 5] = ["", "samples", "count", "cpu", "nanoseconds"];

impl<F: io::AsFd> Writer<F> {
    /// Begins a profile in what `fd` refers to, a file or a pipe, of `hz` samples a second as
    /// [`start`](super::start) was told.
    ///
    /// Errors: `EINVAL`, `hz` is 0 or above [`MAX_HZ`]; those of write(2).
    ///
    /// In handlers: no.
    pub fn new(fd: F, hz: u32) -> Result<Writer<F>> {
        if !(1..=MAX_HZ).contains(&hz) {
            return Err(Errno::EINVAL);
        }
        let mut writer = Writer {
            fd,
            piece: Vec::new(),
            known: [Location { address: 0, id: 0 }; KNOWN],
            locations: 0,
            mappings: Vec::new(),
            strings: 0,
            period: 1_000_000_000 / u64::from(hz),
        };
        for text in STRINGS {
            writer.string(text.as_bytes())?;
        }
        let value_type = |kind, unit| message(&[(field::VALUE_TYPE_KIND, kind), (field::VALUE_TYPE_UNIT, unit)]);
        let (samples, nanoseconds) = (value_type(1, 2), value_type(3, 4));
        writer.bytes(field::SAMPLE_TYPE, &samples)?;
        writer.bytes(field::SAMPLE_TYPE, &nanoseconds)?;
        writer.bytes(field::PERIOD_TYPE, &nanoseconds)?;
        writer.put(&message(&[(field::PERIOD, writer.period)]))?;
        writer.map_program()?;
        writer.map_vdso()?;
        Ok(writer)
    }

    /// Adds a sample; of a stack of the caller's own making, the first [`DEPTH`] addresses. After
    /// an error, one of write(2), the profile is not complete.
    ///
    /// In handlers: no.
    pub fn sample(&mut self, sample: &Sample<'_>) -> Result<()> {
        let mut text = Message::new();
        for (depth, address) in sample.stack.iter().take(DEPTH).enumerate() {
            // A location is an address within the call; a return address is behind it.
            let id = self.location(address.wrapping_sub((depth != 0) as usize))?;
            put_number(&mut text, field::SAMPLE_LOCATION, id);
        }
        let weight = u64::from(sample.weight);
        put_number(&mut text, field::SAMPLE_VALUE, weight);
        put_number(&mut text, field::SAMPLE_VALUE, weight * self.period);
        self.bytes(field::SAMPLE, &text)
    }

    /// Writes what is left, and returns the descriptor. The errors are those of write(2).
    ///
    /// In handlers: no.
    pub fn finish(mut self) -> Result<F> {
        self.flush()?;
        Ok(self.fd)
    }

    /// The number of a location with this address, which it writes if need be.
    fn location(&mut self, address: usize) -> Result<u64> {
        let place = address.wrapping_mul(SCATTER) >> (usize::BITS - KNOWN.ilog2());
        let known = self.known[place];
        if known.id != 0 && known.address == address {
            return Ok(known.id);
        }
        self.locations += 1;
        let id = self.locations;
        let mapping =
            self.mappings.iter().position(|range| range.contains(&address)).map_or(0, |index| index as u64 + 1);
        let location = message(&[
            (field::LOCATION_ID, id),
            (field::LOCATION_MAPPING, mapping),
            (field::LOCATION_ADDRESS, address as u64),
        ]);
        self.bytes(field::LOCATION, &location)?;
        self.known[place] = Location { address, id };
        Ok(id)
    }

    /// Writes the mapping of the program's code. `go tool pprof` expects it where the headers say,
    /// from a multiple of the segment's alignment on.
    fn map_program(&mut self) -> Result<()> {
        let vector = auxv::of_process();
        let get = |tag: u32| vector.get(tag as usize).filter(|value| *value != 0);
        let (Some(headers), Some(count)) = (get(auxvec::AT_PHDR), get(auxvec::AT_PHNUM)) else { return Ok(()) };
        let headers = ptr::with_exposed_provenance::<Elf_Phdr>(headers);
        // SAFETY: the kernel says that the program's headers, so many, are there. They stay and do
        // not change: the linker script puts them into a read-only segment.
        let headers = unsafe { slice::from_raw_parts(headers, count) };
        let code = headers.iter().filter(|header| header.p_type == PT_LOAD && header.p_flags & PF_X != 0);
        for header in code {
            let (start, offset) = (header.p_vaddr as usize, header.p_offset as usize);
            let before = start % (header.p_align as usize).max(1);
            let range = start - before..start + header.p_memsz as usize;
            self.mapping(range, offset.saturating_sub(before), file_name())?;
        }
        Ok(())
    }

    fn map_vdso(&mut self) -> Result<()> {
        let Some(image) = vdso::image(auxv::of_process()) else { return Ok(()) };
        let range = image.as_ptr_range();
        self.mapping(range.start.addr()..range.end.addr(), 0, b"[vdso]")
    }

    fn mapping(&mut self, range: Range<usize>, offset: usize, file: &[u8]) -> Result<()> {
        if self.mappings.push(range.clone()).is_err() {
            return Ok(()); // Locations there have no mapping.
        }
        let mapping = message(&[
            (field::MAPPING_ID, self.mappings.len() as u64),
            (field::MAPPING_START, range.start as u64),
            (field::MAPPING_LIMIT, range.end as u64),
            (field::MAPPING_OFFSET, offset as u64),
            (field::MAPPING_FILE, self.strings),
        ]);
        self.string(file)?;
        self.bytes(field::MAPPING, &mapping)
    }

    fn string(&mut self, text: &[u8]) -> Result<()> {
        self.strings += 1;
        self.bytes(field::STRING, text)
    }

    /// Writes a field that is a message or a string.
    fn bytes(&mut self, field: u32, bytes: &[u8]) -> Result<()> {
        const LENGTH_DELIMITED: u64 = 2;
        let mut head = Message::new();
        put_varint(&mut head, u64::from(field) << 3 | LENGTH_DELIMITED);
        put_varint(&mut head, bytes.len() as u64);
        self.put(&head)?;
        self.put(bytes)
    }

    fn put(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if self.piece.is_full() {
                self.flush()?;
            }
            let (part, rest) = bytes.split_at(bytes.len().min(self.piece.capacity() - self.piece.len()));
            let _ = self.piece.extend_from_slice(part); // It has room.
            bytes = rest;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        io::write_all(&self.fd, &self.piece)?;
        self.piece.clear();
        Ok(())
    }
}

/// An odd multiplier without a pattern: the top bits of the product depend on all of the address.
const SCATTER: usize = 0x9e37_79b9_7f4a_7c15_u64 as usize;

/// The name by which the program was started; execve(2).
fn file_name() -> &'static [u8] {
    let name = auxv::of_process().get(auxvec::AT_EXECFN as usize).filter(|name| *name != 0);
    let Some(name) = name else { return b"" };
    // SAFETY: the kernel says that the name is there, with a zero byte behind it. It is above the
    // main thread's stack, where rt0 does not write.
    unsafe { CStr::from_ptr(ptr::with_exposed_provenance(name)) }.to_bytes()
}

fn message(numbers: &[(u32, u64)]) -> Message {
    let mut message = Message::new();
    numbers.iter().for_each(|(field, value)| put_number(&mut message, *field, *value));
    message
}

fn put_number(message: &mut Message, field: u32, value: u64) {
    put_varint(message, u64::from(field) << 3);
    put_varint(message, value);
}

/// Seven bits per byte, the lowest first; the top bit means that more follow.
fn put_varint(message: &mut Message, mut value: u64) {
    while value > 0x7f {
        put_byte(message, value as u8 | 0x80);
        value >>= 7;
    }
    put_byte(message, value as u8);
}

fn put_byte(message: &mut Message, byte: u8) {
    let _ = message.push(byte); // It has room for the deepest sample.
}
