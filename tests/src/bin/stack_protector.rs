//! Functions with stack protectors: compiled by rustc for every machine, and by the C compiler
//! where build.rs found one.
//!
//! It is a program of its own, because of these objects, and because its first constructor looks at
//! the guard.
#![no_std]
#![no_main]

use core::ffi::{c_char, c_int};
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use linux_raw_sys::general as k;
use rt0::stack_protector::guard;
use rt0::{Env, thread};
use rt0_tests::{Ended, often, stderr_of};

type Callback = unsafe extern "C" fn(*mut u8);
type Protected = unsafe extern "C" fn(Callback);

unsafe extern "C" {
    fn rt0_test_protected_by_rustc(f: Callback);
    #[cfg(protected_by_cc)]
    fn rt0_test_protected_by_cc(f: Callback);
    #[cfg(protected_by_cc)]
    fn rt0_test_protected_by_cc_pic(f: Callback);
}

/// Each calls its argument with the address of an array of 64 bytes in its frame.
const PROTECTED: &[Protected] = &[
    rt0_test_protected_by_rustc,
    #[cfg(protected_by_cc)]
    rt0_test_protected_by_cc,
    #[cfg(protected_by_cc)]
    rt0_test_protected_by_cc_pic,
];

const ARRAY: usize = 64;

/// The guard that the program's first constructor saw.
static OF_CONSTRUCTOR: AtomicUsize = AtomicUsize::new(0);

#[used]
#[unsafe(link_section = ".init_array.00000")]
static FIRST: extern "C" fn(c_int, *const *const c_char, *const *const c_char) = first;

extern "C" fn first(_: c_int, _: *const *const c_char, _: *const *const c_char) {
    OF_CONSTRUCTOR.store(guard_now(), Relaxed);
    call_all(nothing);
}

fn guard_now() -> usize {
    // SAFETY: it is this thread's word, or the variable, which no code writes now.
    unsafe { guard().read_volatile() }
}

fn call_all(f: Callback) {
    for protected in PROTECTED {
        // SAFETY: this file's callbacks write only to the array; otherwise the process ends.
        unsafe { protected(f) };
    }
}

unsafe extern "C" fn nothing(_: *mut u8) {}

/// Writes to the array, and starts a thread that also calls protected functions.
unsafe extern "C" fn fill_and_spawn(array: *mut u8) {
    // SAFETY: the array has this length.
    unsafe { array.write_bytes(0x5a, ARRAY) };
    thread::spawn(|| call_all(nothing)).unwrap().join();
}

/// Changes every byte of the 32 beyond the array.
unsafe extern "C" fn overwrite(array: *mut u8) {
    for at in ARRAY..ARRAY + 32 {
        let byte = array.wrapping_add(at);
        // SAFETY: the frames of this function's callers are there, so it is readable.
        let changed = !unsafe { byte.read_volatile() };
        // SAFETY: none: the test is that the write is detected.
        unsafe { byte.write_volatile(changed) };
    }
}

/// Changes the guard itself, as if rt0 stored other data there.
unsafe extern "C" fn change_guard(_: *mut u8) {
    // SAFETY: it is this thread's, or no other thread reads it.
    unsafe { guard().write_volatile(!guard_now()) };
}

/// Checks that a child which calls a protected function with `f` dies with the message.
fn is_found(f: Callback) {
    for (index, &protected) in PROTECTED.iter().enumerate() {
        for in_thread in [false, true] {
            let mut buf = [0; 512];
            // SAFETY: this file's callbacks write only to the array; otherwise the process ends.
            let call = move || unsafe { protected(f) };
            let child = || if in_thread { thread::spawn(call).unwrap().join() } else { call() };
            let (text, ended) = stderr_of(child, &mut buf);
            assert_eq!(ended, Ended::Signal(k::SIGABRT), "{index}: {text}");
            let line = "rt0: fatal: stack smashing detected: a function wrote beyond an array on its stack\n";
            assert_eq!(text, line, "{index}");
        }
    }
}

rt0::tests! {
    a_protected_function_may_call_back_and_start_threads,
    the_guard_is_the_same_in_every_thread_and_not_zero,
    the_guard_is_the_same_in_a_constructor,
    the_guard_is_made_of_what_the_kernel_gave,
    what_a_thread_does_leaves_the_guard_alone,
    an_array_that_is_written_beyond_ends_the_process_with_a_line,
    a_guard_that_changes_under_a_running_function_ends_the_process,
}

fn a_protected_function_may_call_back_and_start_threads() {
    for _ in 0..often(20) {
        call_all(fill_and_spawn);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| call_all(fill_and_spawn)).unwrap();
            }
        });
    }
}

fn the_guard_is_the_same_in_every_thread_and_not_zero() {
    let of_main = guard_now();
    assert_ne!(of_main, 0);
    assert_eq!(of_main.to_ne_bytes()[0], 0, "the first byte ends a string");
    for _ in 0..often(40) {
        let of_child = thread::spawn(|| (guard_now(), thread::spawn(guard_now).unwrap().join())).unwrap().join();
        assert_eq!(of_child, (of_main, of_main));
    }
    assert_eq!(guard_now(), of_main);
}

/// The guard is set before the first constructor.
fn the_guard_is_the_same_in_a_constructor() {
    assert_eq!(OF_CONSTRUCTOR.load(Relaxed), guard_now());
}

fn the_guard_is_made_of_what_the_kernel_gave(env: Env) {
    const AT_RANDOM: usize = 25;
    let address = env.auxv().get(AT_RANDOM).expect("AT_RANDOM");
    let random = core::ptr::with_exposed_provenance::<[u8; size_of::<usize>()]>(address);
    // SAFETY: the kernel put 16 bytes there.
    let mut random = unsafe { *random };
    random[0] = 0;
    assert_eq!(guard_now(), usize::from_ne_bytes(random));
}

/// Parking, waiting, interrupting and naming write to the thread's block, but not to the ABI's
/// words.
fn what_a_thread_does_leaves_the_guard_alone() {
    let of_main = guard_now();
    let busy = thread::Builder::new()
        .name("busy")
        .spawn(|| {
            rt0::random::fill(&mut [0; 8]).unwrap();
            thread::park();
            guard_now()
        })
        .unwrap();
    busy.thread().unpark();
    assert_eq!(busy.join(), of_main);
    thread::park_timeout(core::time::Duration::from_millis(1));
    rt0::random::fill(&mut [0; 8]).unwrap();
    rt0::thread::report_overflows().unwrap();
    assert_eq!(guard_now(), of_main);
}

fn an_array_that_is_written_beyond_ends_the_process_with_a_line() {
    is_found(overwrite);
}

/// So rt0 sets the word that compiled code reads.
fn a_guard_that_changes_under_a_running_function_ends_the_process() {
    is_found(change_guard);
}
