//! Others' crates in one program on rt0: each does what it is there for, and says so in a line.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::ptr::{NonNull, null_mut};

use crossbeam_queue::ArrayQueue;
use dlmalloc::Dlmalloc;
use rt0::adapters::allocator::Allocator;
use rt0::mapping::Pages;
use rt0::{Env, println, thread};
use sha2::Digest;

rt0::entry!(main);

#[global_allocator]
static ALLOCATOR: Allocator = Allocator::new();

fn main(_: Env) -> i32 {
    for (name, works) in [
        ("crossbeam-queue", queue as fn() -> bool),
        ("dlmalloc", heap),
        ("inventory", collected_at_start),
        ("linkme", collected_by_the_linker),
        ("miniz_oxide", compression),
        ("serde_json", json),
        ("sha2", digest),
    ] {
        if !works() {
            println!("{name} does not work");
            return 1;
        }
        println!("{name} works");
    }
    0
}

/// Every number that one thread puts in comes out on the other.
fn queue() -> bool {
    const LAST: u32 = 1000;
    let queue = ArrayQueue::new(8);
    thread::scope(|scope| {
        let producer = scope.spawn(|| {
            for mut n in 1..=LAST {
                while let Err(back) = queue.push(n) {
                    n = back;
                    thread::yield_now();
                }
            }
        });
        if producer.is_err() {
            return false;
        }
        let mut next = 1;
        while next <= LAST {
            match queue.pop() {
                Some(n) if n == next => next += 1,
                Some(_) => return false,
                None => thread::yield_now(),
            }
        }
        true
    })
}

/// dlmalloc's source of memory: rt0's pages. (Its own one for Linux calls libc.)
struct Source;

// SAFETY: memory is of the kernel's, and of no one else until it is freed.
unsafe impl dlmalloc::Allocator for Source {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        Pages.allocate(size).map_or((null_mut(), 0, 0), |pages| (pages.cast().as_ptr(), pages.len(), 0))
    }

    fn remap(&self, _: *mut u8, _: usize, _: usize, _: bool) -> *mut u8 {
        null_mut() // It allocates and copies then.
    }

    fn free_part(&self, start: *mut u8, old: usize, new: usize) -> bool {
        self.free(start.wrapping_add(new), old - new)
    }

    fn free(&self, start: *mut u8, size: usize) -> bool {
        let pages = NonNull::new(start).map(|start| NonNull::slice_from_raw_parts(start, size));
        // SAFETY: 1. dlmalloc gives back what it was given, and uses it no more.
        pages.is_some_and(|pages| unsafe { Pages.free(pages) }.is_ok())
    }

    fn can_release_part(&self, _: u32) -> bool {
        true
    }

    fn allocates_zeros(&self) -> bool {
        true
    }

    fn page_size(&self) -> usize {
        // The largest of any machine's.
        64 << 10
    }
}

/// What is written into small and large blocks is there until they are freed.
fn heap() -> bool {
    let mut heap = Dlmalloc::new_with_allocator(Source);
    let sizes = [1, 24, 4000, 70_000, 300_000];
    let mut blocks = [null_mut(); 5];
    for (block, size) in blocks.iter_mut().zip(sizes) {
        // SAFETY: the size is not zero, and the alignment is a power of two.
        *block = unsafe { heap.malloc(size, 16) };
        if block.is_null() {
            return false;
        }
        // SAFETY: the block has this size.
        unsafe { block.write_bytes(size as u8, size) };
    }
    blocks.iter().zip(sizes).all(|(block, size)| {
        // SAFETY: it was written above.
        let last = unsafe { block.wrapping_add(size - 1).read() };
        // SAFETY: it comes from this heap, with this size and alignment, and is not used again.
        unsafe { heap.free(*block, size, 16) };
        last == size as u8
    })
}

struct Collected(u32);

inventory::collect!(Collected);
inventory::submit!(Collected(40));
inventory::submit!(Collected(2));

/// Constructors have run before main.
fn collected_at_start() -> bool {
    inventory::iter::<Collected>.into_iter().map(|item| item.0).sum::<u32>() == 42
}

#[linkme::distributed_slice]
static SLICE: [u32];
#[linkme::distributed_slice(SLICE)]
static FORTY: u32 = 40;
#[linkme::distributed_slice(SLICE)]
static TWO: u32 = 2;

/// The linker script has a place for the slice, and its ends.
fn collected_by_the_linker() -> bool {
    SLICE.iter().sum::<u32>() == 42
}

fn compression() -> bool {
    let text: Vec<u8> = (0..20_000u32).map(|n| (n % 251) as u8).collect();
    let packed = miniz_oxide::deflate::compress_to_vec(&text, 6);
    packed.len() < text.len() / 10 && miniz_oxide::inflate::decompress_to_vec(&packed).is_ok_and(|back| back == text)
}

fn json() -> bool {
    let value: Result<serde_json::Value, _> = serde_json::from_str(r#"{ "n": [1, 2.5, "three"], "none": null }"#);
    value.is_ok_and(|value| value["n"][1] == 2.5 && format!("{}", value["n"]) == "[1,2.5,\"three\"]")
}

/// The digest of a million letters `a`: FIPS 180-2, B.3.
fn digest() -> bool {
    let mut hasher = sha2::Sha256::new();
    let part = vec![b'a'; 1000];
    (0..1000).for_each(|_| hasher.update(&part));
    let hex: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    hex == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
}
