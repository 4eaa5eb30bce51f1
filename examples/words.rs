//! The most frequent words of a file, or of standard input: a program with a heap, from an
//! allocator of its own over the kernel's pages.
//!
//! ```text
//! words [FILE [COUNT]]     the COUNT most frequent words, ten if it is not given
//! ```
//!
//! A word is what stands between white space. Words of one frequency come in the order of their
//! bytes. rt0's feature `allocator` has an allocator for programs that want none of their own.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::alloc::{GlobalAlloc, Layout};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::ffi::CStr;
use core::ptr::{NonNull, null_mut};

use rt0::io::{self, AsFd, stdin, stdout};
use rt0::mapping::Pages;
use rt0::sync::Mutex;
use rt0::sys::flags::{O_CLOEXEC, O_RDONLY};
use rt0::{Env, eprintln, sys};

rt0::entry!(main);

fn main(env: Env) -> i32 {
    let mut args = env.args().skip(1);
    let file = args.next();
    let count = args.next().map_or(Some(10), |count| count.to_str().ok()?.parse().ok());
    let Some(count) = count else {
        eprintln!("usage: words [FILE [COUNT]]");
        return 2;
    };
    match print_most_frequent(file, count) {
        Ok(()) => 0,
        Err(errno) => {
            eprintln!("words: {errno}");
            1
        }
    }
}

fn print_most_frequent(file: Option<&CStr>, count: usize) -> rt0::Result<()> {
    let text = match file {
        Some(file) => read_all(sys::open(file, O_RDONLY | O_CLOEXEC, 0)?)?,
        None => read_all(stdin())?,
    };
    let mut words = BTreeMap::<&[u8], usize>::new();
    for word in text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
        *words.entry(word).or_default() += 1;
    }
    let mut words: Vec<_> = words.into_iter().collect();
    // Stable: words of one frequency stay in their order.
    words.sort_by_key(|&(_, frequency)| Reverse(frequency));
    let mut lines = Vec::new();
    for (word, frequency) in words.into_iter().take(count) {
        lines.extend_from_slice(format!("{frequency} ").as_bytes());
        lines.extend_from_slice(word);
        lines.push(b'\n');
    }
    stdout().write_all(&lines)
}

fn read_all(file: impl AsFd) -> rt0::Result<Vec<u8>> {
    let mut text = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        match io::read(&file, &mut chunk)? {
            0 => return Ok(text),
            len => text.extend_from_slice(&chunk[..len]),
        }
    }
}

/// A minimal allocator: blocks whose sizes are powers of two, in free lists, cut from whole pages
/// of the kernel.
struct Blocks {
    free: [*mut Free; usize::BITS as usize],
    rest: (*mut u8, usize),
}

struct Free(*mut Free);

/// The bytes taken from the kernel at a time.
const CHUNK: usize = 1 << 20;

// SAFETY: it owns the blocks that it points to.
unsafe impl Send for Blocks {}

impl Blocks {
    /// Takes a block of `size`, a power of two that is at least the alignment; null if there is no
    /// memory.
    fn take(&mut self, size: usize) -> *mut u8 {
        let list = &mut self.free[size.trailing_zeros() as usize];
        // SAFETY: free blocks belong to the allocator, and start with their link.
        if let Some(first) = unsafe { list.as_ref() } {
            return core::mem::replace(list, first.0).cast();
        }
        if size > CHUNK {
            return Pages.allocate(size).map_or(null_mut(), |pages| pages.cast().as_ptr());
        }
        // Blocks have different sizes: skip to the next multiple of `size`.
        let skipped = self.rest.0.addr().wrapping_neg() & (size - 1);
        if self.rest.1 < size + skipped {
            match Pages.allocate(2 * CHUNK) {
                Ok(pages) => self.rest = (pages.cast().as_ptr(), pages.len()),
                Err(_) => return null_mut(),
            }
            return self.take(size);
        }
        let block = self.rest.0.wrapping_add(skipped);
        self.rest = (block.wrapping_add(size), self.rest.1 - size - skipped);
        block
    }

    /// # Safety
    ///
    /// 1. The block was taken with this size, and no code uses it again.
    unsafe fn put(&mut self, block: *mut u8, size: usize) {
        if size > CHUNK {
            let pages = NonNull::slice_from_raw_parts(NonNull::new(block).expect("a block"), size);
            // SAFETY: 1. By 1.
            return unsafe { Pages.free(pages) }.expect("munmap");
        }
        let list = &mut self.free[size.trailing_zeros() as usize];
        // SAFETY: the block is free (1), large enough and aligned for a link.
        unsafe { block.cast::<Free>().write(Free(*list)) };
        *list = block.cast();
    }
}

struct Allocator(Mutex<Blocks>);

impl Allocator {
    fn size(layout: Layout) -> usize {
        // A size is at most isize::MAX, so this does not overflow.
        layout.size().max(layout.align()).max(size_of::<Free>()).next_power_of_two()
    }
}

// SAFETY: each block is aligned to its size, and belongs to the caller until it is put back.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() > 4096 {
            return null_mut(); // Pages have no larger alignment.
        }
        self.0.lock().take(Allocator::size(layout))
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: 1. The caller guarantees it.
        unsafe { self.0.lock().put(block, Allocator::size(layout)) };
    }
}

#[global_allocator]
static ALLOCATOR: Allocator =
    Allocator(Mutex::new(Blocks { free: [null_mut(); usize::BITS as usize], rest: (null_mut(), 0) }));
