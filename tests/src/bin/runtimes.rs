//! What language runtimes ask of threads and processors: instructions that they write.
#![no_std]
#![no_main]

use core::hint::black_box;
use core::sync::atomic::{AtomicUsize, Ordering};

use rt0::mapping::{Mapping, Protection};
use rt0::{cpu, thread};
use rt0_tests::{often, wait_until};

rt0::tests! {
    written_instructions_run_and_rewritten_ones_too,
    written_instructions_run_on_another_thread,
    any_range_can_be_flushed,
}

// Instructions.

extern "C" fn one() -> u32 {
    1
}

extern "C" fn two() -> u32 {
    2
}

/// Enough for these functions; what follows them in the program is copied along.
const CODE_LEN: usize = 64;

/// Copies a function that uses nothing but its registers to `to`, and flushes.
fn write_code(function: extern "C" fn() -> u32, to: *mut u8) {
    let from = black_box(function) as *const u8;
    // SAFETY: a function's code is readable, and `to` has room.
    unsafe { to.copy_from_nonoverlapping(from, CODE_LEN) };
    // SAFETY: just written.
    cpu::flush_instructions(unsafe { core::slice::from_raw_parts(to, CODE_LEN) }).unwrap();
}

fn call(code: *mut u8) -> u32 {
    // SAFETY: `write_code` put a function of this type there.
    let function = unsafe { core::mem::transmute::<*mut u8, extern "C" fn() -> u32>(black_box(code)) };
    function()
}

fn executable_memory() -> Mapping {
    let memory = Mapping::new(cpu::page_size()).unwrap();
    memory.protect(.., Protection::READ_WRITE | Protection::EXECUTE).unwrap();
    memory
}

fn written_instructions_run_and_rewritten_ones_too() {
    let memory = executable_memory();
    for _ in 0..often(200) {
        write_code(one, memory.as_ptr());
        assert_eq!(call(memory.as_ptr()), 1);
        write_code(two, memory.as_ptr());
        assert_eq!(call(memory.as_ptr()), 2);
    }
    // Never writable and executable at once.
    for (function, result) in [(one as extern "C" fn() -> u32, 1), (two, 2)] {
        memory.protect(.., Protection::READ_WRITE).unwrap();
        write_code(function, memory.as_ptr());
        memory.protect(.., Protection::READ | Protection::EXECUTE).unwrap();
        assert_eq!(call(memory.as_ptr()), result);
    }
}

fn written_instructions_run_on_another_thread() {
    let memory = executable_memory();
    let (base, places) = (memory.as_ptr().expose_provenance(), cpu::page_size() / CODE_LEN);
    let place = move |number: usize| core::ptr::with_exposed_provenance_mut(base + number * CODE_LEN);
    static WRITTEN: AtomicUsize = AtomicUsize::new(0);
    let reader = thread::spawn(move || {
        for number in 0..places {
            wait_until("code", || WRITTEN.load(Ordering::Acquire) > number);
            assert_eq!(call(place(number)), 1 + number as u32 % 2);
        }
    })
    .unwrap();
    for number in 0..places {
        write_code(if number % 2 == 0 { one } else { two }, place(number));
        WRITTEN.store(number + 1, Ordering::Release);
    }
    reader.join();
}

fn any_range_can_be_flushed() {
    let memory = executable_memory();
    let len = memory.len();
    // SAFETY: committed, and nothing writes to it.
    let bytes = unsafe { core::slice::from_raw_parts(memory.as_ptr(), len) };
    for range in [0..0, 0..1, 1..2, 3..300, len - 1..len, len..len, 63..64, 64..65, 0..len] {
        assert_eq!(cpu::flush_instructions(&bytes[range.clone()]), Ok(()), "{range:?}");
    }
    assert_eq!(cpu::flush_instructions(&[]), Ok(()));
}
