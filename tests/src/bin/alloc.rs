//! Ordinary programs with an allocator: what `alloc` and the compiler require of a runtime.
//!
//! It is a program of its own, because a program has one allocator.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use alloc::{format, vec};
use core::hint::black_box;

use rt0::adapters::allocator::Allocator;
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

#[global_allocator]
static ALLOCATOR: Allocator = Allocator::new();
