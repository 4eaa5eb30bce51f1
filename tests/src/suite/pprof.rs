//! Profiles in pprof's format: what a reader of the format finds in them.

use linux_raw_sys::general as k;
use rt0::mapping::Mapping;
use rt0::profile::{DEPTH, MAX_HZ, Sample, pprof::Writer};
use rt0::sys::{self, OwnedFd, flags};
use rt0::{Env, Errno};
use rt0_tests::skip;

rt0::test_module! {
    a_profile_has_its_units_samples_and_mappings,
    each_sample_refers_to_locations_that_are_there_once,
    the_deepest_stack_is_written_whole,
    an_address_that_is_seen_again_is_one_location,
    what_cannot_be_written_is_an_error,
}

/// A value of a field: profile.proto has numbers, and messages or strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    fn number(self) -> u64 {
        let Value::Number(number) = self else { panic!("no number: {self:?}") };
        number
    }

    fn bytes(self) -> &'a [u8] {
        let Value::Bytes(bytes) = self else { panic!("no bytes: {self:?}") };
        bytes
    }
}

/// The fields of a message, in their order: protobuf's encoding.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn varint(&mut self) -> u64 {
        let mut number = 0;
        for shift in (0..).step_by(7) {
            let (first, rest) = self.0.split_first().expect("a number ends");
            self.0 = rest;
            number |= u64::from(first & 0x7f).checked_shl(shift).expect("64 bits");
            if first & 0x80 == 0 {
                break;
            }
        }
        number
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, Value<'a>);

    fn next(&mut self) -> Option<(u64, Value<'a>)> {
        if self.0.is_empty() {
            return None;
        }
        let tag = self.varint();
        let number = self.varint();
        let value = match tag & 7 {
            0 => Value::Number(number),
            2 => {
                let (bytes, rest) = self.0.split_at(number as usize);
                self.0 = rest;
                Value::Bytes(bytes)
            }
            other => panic!("wire type {other}"),
        };
        Some((tag >> 3, value))
    }
}

/// A profile, by the fields of `Profile`.
#[derive(Clone, Copy)]
struct Profile<'a>(&'a [u8]);

impl<'a> Profile<'a> {
    fn all(self, field: u64) -> impl Iterator<Item = Value<'a>> {
        Fields(self.0).filter(move |(found, _)| *found == field).map(|(_, value)| value)
    }

    fn messages(self, field: u64) -> impl Iterator<Item = Message<'a>> {
        self.all(field).map(|value| Message(value.bytes()))
    }

    fn string(self, index: u64) -> &'a [u8] {
        self.all(6).nth(index as usize).expect("a string").bytes()
    }

    fn samples(self) -> impl Iterator<Item = Message<'a>> {
        self.messages(2)
    }

    /// The address of the one location with this number.
    fn location(self, id: u64) -> Message<'a> {
        let mut found = self.messages(4).filter(|location| location.number(1) == id);
        let location = found.next().expect("a location");
        assert!(id != 0 && found.next().is_none(), "two locations have the number {id}");
        location
    }
}

#[derive(Clone, Copy)]
struct Message<'a>(&'a [u8]);

impl<'a> Message<'a> {
    fn numbers(self, field: u64) -> impl Iterator<Item = u64> + use<'a> {
        Fields(self.0).filter(move |(found, _)| *found == field).map(|(_, value)| value.number())
    }

    fn number(self, field: u64) -> u64 {
        self.numbers(field).next().expect("the field")
    }
}

const HZ: u32 = 100;
const PERIOD: u64 = 10_000_000;

/// A file in memory.
fn file() -> OwnedFd {
    let name = c"profile".as_ptr().expose_provenance();
    // SAFETY: 1. The kernel reads the name.
    match unsafe { sys::syscall(k::__NR_memfd_create as usize, [name, 0, 0, 0, 0, 0]) } {
        // SAFETY: it is new.
        Ok(fd) => unsafe { OwnedFd::from_raw_fd(fd as i32) },
        Err(_) => skip("no files in memory here"),
    }
}

/// Writes a profile, and passes it to `look`.
fn with_profile(write: impl FnOnce(&mut Writer<OwnedFd>), look: impl FnOnce(Profile)) {
    const MOST: usize = 1 << 20;
    let mut writer = Writer::new(file(), HZ).unwrap();
    write(&mut writer);
    let file = writer.finish().unwrap();
    let memory = Mapping::new(MOST).unwrap();
    // SAFETY: readable and writable zeros, which nothing else uses.
    let buf = unsafe { core::slice::from_raw_parts_mut(memory.as_ptr(), MOST) };
    let mut len = 0;
    while let count @ 1.. = sys::pread(&file, &mut buf[len..], len as u64).unwrap() {
        len += count;
    }
    assert!(len < MOST);
    look(Profile(&buf[..len]));
}

#[inline(never)]
extern "C" fn function_of_the_program() {}

fn a_profile_has_its_units_samples_and_mappings(env: Env) {
    let function = function_of_the_program as extern "C" fn() as usize;
    let stack = [function, function + 1, 0x11];
    let write = |writer: &mut Writer<OwnedFd>| writer.sample(&Sample { tid: 1, weight: 3, stack: &stack }).unwrap();
    with_profile(write, |profile| {
        assert_eq!(profile.string(0), b"");
        let units = profile.messages(1).map(|unit| [unit.number(1), unit.number(2)].map(|index| profile.string(index)));
        assert!(units.eq([[b"samples".as_slice(), b"count"], [b"cpu", b"nanoseconds"]]));
        assert_eq!(profile.all(12).next(), Some(Value::Number(PERIOD)));
        assert_eq!(profile.samples().count(), 1);
        let sample = profile.samples().next().unwrap();
        assert!(sample.numbers(2).eq([3, 3 * PERIOD]));
        let addresses = sample.numbers(1).map(|id| profile.location(id).number(3) as usize);
        assert!(addresses.eq([function, function, 0x10]), "return addresses are behind the call");
        let mappings = sample.numbers(1).map(|id| profile.location(id).number(2));
        assert!(mappings.eq([1, 1, 0]), "no mapping has the last one");
        let mapping = profile.messages(3).next().unwrap();
        let [id, start, limit] = [1, 2, 3].map(|field| mapping.number(field) as usize);
        assert!(id == 1 && (start..limit).contains(&function));
        assert_eq!(Some(profile.string(mapping.number(5))), env.args().next().map(|name| name.to_bytes()));
        assert!(profile.messages(3).skip(1).all(|mapping| profile.string(mapping.number(5)) == b"[vdso]"));
    });
}

/// Addresses from 64 KiB on.
fn address(index: usize) -> usize {
    0x1_0000 + 12 * index
}

fn each_sample_refers_to_locations_that_are_there_once() {
    // More than a writer remembers, again and again.
    const ADDRESSES: usize = 1500;
    const ROUNDS: usize = 2;
    let write = |writer: &mut Writer<OwnedFd>| {
        for index in 0..ROUNDS * ADDRESSES {
            writer.sample(&Sample { tid: 1, weight: 1, stack: &[address(index % ADDRESSES)] }).unwrap();
        }
    };
    with_profile(write, |profile| {
        // A reader's table: numbers begin with 1, and a location comes before its samples.
        let memory = Mapping::new(ROUNDS * ADDRESSES * size_of::<u64>()).unwrap();
        // SAFETY: zeros, aligned, which nothing else uses.
        let table = unsafe { core::slice::from_raw_parts_mut(memory.as_ptr().cast::<u64>(), ROUNDS * ADDRESSES) };
        let mut samples = 0;
        for (field, value) in Fields(profile.0) {
            match field {
                4 => {
                    let location = Message(value.bytes());
                    let place = &mut table[location.number(1) as usize - 1];
                    assert_eq!(*place, 0, "a number that is taken");
                    *place = location.number(3);
                }
                2 => {
                    let id = Message(value.bytes()).number(1) as usize;
                    assert_eq!(table[id - 1], address(samples % ADDRESSES) as u64, "sample {samples}");
                    samples += 1;
                }
                _ => {}
            }
        }
        assert_eq!(samples, ROUNDS * ADDRESSES);
    });
}

fn the_deepest_stack_is_written_whole() {
    let stack: [usize; DEPTH] = core::array::from_fn(|depth| usize::MAX - depth);
    let write = |writer: &mut Writer<OwnedFd>| {
        writer.sample(&Sample { tid: u32::MAX, weight: u32::MAX, stack: &stack }).unwrap();
    };
    with_profile(write, |profile| {
        let sample = profile.samples().next().unwrap();
        let addresses = sample.numbers(1).map(|id| profile.location(id).number(3));
        assert!(addresses.eq((0..DEPTH).map(|depth| (usize::MAX - depth - usize::from(depth != 0)) as u64)));
        assert!(sample.numbers(2).eq([u32::MAX as u64, u32::MAX as u64 * PERIOD]));
    });
}

fn an_address_that_is_seen_again_is_one_location() {
    let write = |writer: &mut Writer<OwnedFd>| {
        for _ in 0..100 {
            writer.sample(&Sample { tid: 1, weight: 1, stack: &[address(0)] }).unwrap();
        }
    };
    with_profile(write, |profile| {
        assert_eq!(profile.messages(4).count(), 1);
        assert_eq!(profile.samples().count(), 100);
    });
}

fn what_cannot_be_written_is_an_error() {
    for hz in [0, MAX_HZ + 1] {
        assert_eq!(Writer::new(file(), hz).err(), Some(Errno::EINVAL));
    }
    let full = || sys::open(c"/dev/full", flags::O_WRONLY | flags::O_CLOEXEC, 0);
    if full().is_err() {
        skip("no /dev/full here");
    }
    let mut writer = Writer::new(full().unwrap(), HZ).unwrap();
    assert_eq!(writer.finish().err(), Some(Errno::ENOSPC));
    writer = Writer::new(full().unwrap(), HZ).unwrap();
    let mut written = Ok(());
    for index in 0..1000 {
        written = written.and_then(|()| writer.sample(&Sample { tid: 1, weight: 1, stack: &[address(index)] }));
    }
    assert_eq!(written, Err(Errno::ENOSPC));
}
