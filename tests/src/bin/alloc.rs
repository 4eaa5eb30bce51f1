//! Ordinary programs with an allocator: what `alloc` and the compiler require of a runtime.
//!
//! It is a program of its own, because a program has one allocator.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::alloc::{GlobalAlloc, Layout};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use alloc::{format, vec};
use core::hint::black_box;
use core::ptr::{NonNull, null_mut};

use rt0::mapping::Pages;
use rt0::sync::Mutex;
use rt0::test::Expect;
use rt0::thread;

rt0::tests! {
    collections_and_strings_are_those_of_alloc,
    threads_share_what_is_counted_and_hand_over_what_is_boxed,
    a_vector_grows_to_many_pages_and_keeps_its_contents,
    arithmetic_that_machines_leave_to_the_compilers_library_is_there,
    an_allocation_that_cannot_be_had_ends_with_101 => Expect::panic("memory allocation of"),
}

fn collections_and_strings_are_those_of_alloc() {
    let mut map = BTreeMap::new();
    for number in 0..10_000u32 {
        map.insert(number.to_string(), vec![number; 3]);
    }
    assert_eq!(map.len(), 10_000);
    assert_eq!(map["777"], [777; 3]);
    let mut keys: Vec<&String> = map.keys().collect();
    keys.sort_by_key(|key| (key.len(), *key));
    assert_eq!(keys[9_999], "9999");
    let text = format!("{:>8}|{:#x}|{:?}", "right", 255, Some(1.5));
    assert_eq!(text, "   right|0xff|Some(1.5)");
    let deque: VecDeque<_> = text.bytes().rev().collect();
    assert_eq!(deque.iter().rev().copied().collect::<Vec<u8>>(), text.as_bytes());
}

fn threads_share_what_is_counted_and_hand_over_what_is_boxed() {
    let words = Arc::new(Mutex::new(Vec::new()));
    let threads: Vec<_> = (0..8)
        .map(|number| {
            let words = words.clone();
            thread::spawn(move || {
                for turn in 0..100 {
                    words.lock().push(format!("{number}.{turn}"));
                }
                vec![number; 1000]
            })
        })
        .map(|spawned| spawned.expect("a thread"))
        .collect();
    for (number, thread) in threads.into_iter().enumerate() {
        assert_eq!(thread.join(), vec![number; 1000]);
    }
    let mut words = Arc::into_inner(words).expect("all have ended").into_inner();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), 800);
}

fn a_vector_grows_to_many_pages_and_keeps_its_contents() {
    let mut numbers = Vec::new();
    for number in 0..300_000u32 {
        numbers.push(number);
    }
    assert!(numbers.iter().copied().eq(0..300_000));
    numbers.truncate(10);
    numbers.shrink_to_fit();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
}

fn arithmetic_that_machines_leave_to_the_compilers_library_is_there() {
    assert_eq!(black_box(12.5f64) % black_box(5.0), 2.5);
    assert_eq!(black_box(12.5f32) % black_box(5.0), 2.5);
    assert_eq!(black_box(u128::MAX) / black_box(3), 0x5555_5555_5555_5555_5555_5555_5555_5555);
    assert_eq!(black_box(i128::MIN) % black_box(1000), -728);
    assert_eq!(black_box(u64::MAX) / black_box(10), 1_844_674_407_370_955_161);
    assert_eq!(black_box(1u128 << 100) as f64, 1.2676506002282294e30);
    assert_eq!(black_box(-1e30f64) as i128, -1_000_000_000_000_000_019_884_624_838_656);
    assert_eq!(black_box(i64::MAX).checked_mul(black_box(2)), None);
    assert_eq!(black_box(1u64) << black_box(40), 1_099_511_627_776);
}

fn an_allocation_that_cannot_be_had_ends_with_101() {
    let _ = black_box(Vec::<u8>::with_capacity(isize::MAX as usize));
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
