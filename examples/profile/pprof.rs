//! A pprof file, profile.proto of github.com/google/pprof: a protobuf message. Its fields may come
//! in any order and may be repeated, so it can be written incrementally. Readers accept it plain or
//! compressed with gzip.

use core::ffi::CStr;

use heapless::Vec;
use heapless::index_set::FnvIndexSet;
use rt0::profile::{DEPTH, Sample};
use rt0::{Errno, io, sys};

/// Field numbers of `Profile` and its parts.
mod field {
    pub const SAMPLE_TYPE: u32 = 1;
    pub const SAMPLE: u32 = 2;
    pub const MAPPING: u32 = 3;
    pub const LOCATION: u32 = 4;
    pub const STRING: u32 = 6;
    pub const PERIOD_TYPE: u32 = 11;
    pub const PERIOD: u32 = 12;
}

/// One sample with the deepest stack is the largest message.
type Message = Vec<u8, { (DEPTH + 8) * 10 }>;

/// Profiles refer to a string by its index among the fields `STRING`; the first must be empty.
const STRINGS: [&str; 5] = ["", "samples", "count", "cpu", "nanoseconds"];

pub struct Writer {
    file: sys::OwnedFd,
    piece: Vec<u8, 4096>,
    /// The addresses that the file contains as locations; the address is the id.
    known: FnvIndexSet<usize, 4096>,
    mappings: Vec<(usize, usize), 16>,
    strings: u64,
    period: u64,
}

impl Writer {
    pub fn create(path: &CStr, hz: u32) -> Result<Writer, Errno> {
        let mut writer = Writer {
            file: super::create(path)?,
            piece: Vec::new(),
            known: FnvIndexSet::new(),
            mappings: Vec::new(),
            strings: 0,
            period: 1_000_000_000 / u64::from(hz),
        };
        for text in STRINGS {
            writer.string(text.as_bytes())?;
        }
        let value_type = |what: u64, unit: u64| message(&[(1, what), (2, unit)]);
        writer.bytes(field::SAMPLE_TYPE, &value_type(1, 2))?;
        writer.bytes(field::SAMPLE_TYPE, &value_type(3, 4))?;
        writer.bytes(field::PERIOD_TYPE, &value_type(3, 4))?;
        writer.put(&message(&[(field::PERIOD, writer.period)]))?;
        writer.mappings()?;
        Ok(writer)
    }

    pub fn sample(&mut self, sample: &Sample) -> Result<(), Errno> {
        let mut text = Message::new();
        for (depth, address) in sample.stack.iter().enumerate() {
            // A location is an address within the call; a return address is behind it.
            let inside = address - (depth != 0) as usize;
            if self.location(inside)? {
                put_number(&mut text, 1, inside as u64);
            }
        }
        let weight = u64::from(sample.weight);
        put_number(&mut text, 2, weight);
        put_number(&mut text, 2, weight * self.period);
        self.bytes(field::SAMPLE, &text)
    }

    pub fn finish(&mut self) -> Result<(), Errno> {
        io::write_all(&self.file, &self.piece)?;
        self.piece.clear();
        Ok(())
    }

    /// Adds the address to the file if it is new; false if there are too many.
    fn location(&mut self, address: usize) -> Result<bool, Errno> {
        match self.known.insert(address) {
            Ok(false) => Ok(true),
            Ok(true) => {
                let within = self.mappings.iter().position(|(start, end)| (*start..*end).contains(&address));
                let mapping = within.map_or(0, |index| index as u64 + 1);
                let location = message(&[(1, address as u64), (2, mapping), (3, address as u64)]);
                self.bytes(field::LOCATION, &location).map(|()| true)
            }
            Err(_) => Ok(false),
        }
    }

    /// Writes the mappings of code, from the lines of proc_pid_maps(5):
    /// `00400000-00452000 r-xp 00000000 08:02 173521 /usr/bin/program`.
    fn mappings(&mut self) -> Result<(), Errno> {
        let alignment = super::symbols::alignment_of_code()? as u64;
        let maps = sys::open(c"/proc/self/maps", sys::flags::O_RDONLY | sys::flags::O_CLOEXEC, 0)?;
        let (mut text, mut filled) = ([0; 16 << 10], 0);
        while let 1.. = io::read(&maps, &mut text[filled..]).inspect(|count| filled += count)? {}
        for line in text[..filled].split(|byte| *byte == b'\n').filter_map(|line| core::str::from_utf8(line).ok()) {
            let mut words = line.split_ascii_whitespace();
            let (Some(range), Some(rights), Some(offset)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let name = words.nth(2).map_or("", |name| &line[name.as_ptr().addr() - line.as_ptr().addr()..]);
            let number = |text| usize::from_str_radix(text, 16).unwrap_or(0);
            if let (Some((start, end)), true) = (range.split_once('-'), rights.contains('x'))
                && self.mappings.push((number(start), number(end))).is_ok()
            {
                let id = self.mappings.len() as u64;
                let (mut start, end, mut offset) = (number(start) as u64, number(end) as u64, number(offset) as u64);
                // `go tool pprof` expects a program's code where its headers say, which may be
                // aligned to more than this kernel's page.
                let below = start % alignment;
                if !name.is_empty() && below <= offset {
                    (start, offset) = (start - below, offset - below);
                }
                let mapping = message(&[(1, id), (2, start), (3, end), (4, offset), (5, self.strings)]);
                self.string(name.as_bytes())?;
                self.bytes(field::MAPPING, &mapping)?;
            }
        }
        Ok(())
    }

    fn string(&mut self, text: &[u8]) -> Result<(), Errno> {
        self.strings += 1;
        self.bytes(field::STRING, text)
    }

    /// Writes a field that is a message or a string.
    fn bytes(&mut self, field: u32, bytes: &[u8]) -> Result<(), Errno> {
        const LENGTH_DELIMITED: u64 = 2;
        let mut head = Message::new();
        put_varint(&mut head, u64::from(field) << 3 | LENGTH_DELIMITED);
        put_varint(&mut head, bytes.len() as u64);
        self.put(&head)?;
        self.put(bytes)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        for part in bytes.chunks(512) {
            if self.piece.len() + part.len() > self.piece.capacity() {
                self.finish()?;
            }
            self.piece.extend_from_slice(part).map_err(|_| Errno::EFBIG)?;
        }
        Ok(())
    }
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
    message.push(byte).expect("a message has room for the deepest sample");
}
