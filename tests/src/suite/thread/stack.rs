//! The stack of a thread.

use core::hint::black_box;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rt0::signal::{self, Action, Signal};
use rt0::test::Expect;
use rt0::thread::{self, Builder, spawn};

rt0::test_module! {
    a_thread_says_where_its_stack_is,
    a_stack_of_no_size_is_large_enough_to_run,
    a_stack_of_hardly_any_size_runs_a_closure_and_a_handler,
    a_small_stack_has_room_for_a_large_closure_and_a_large_result,
    a_stack_has_the_size_that_was_asked_for,
    overflowing_a_stack_meets_the_guard_page => Expect::signal(11),
    overaligned_closures_and_results_are_aligned,
}

fn a_thread_says_where_its_stack_is() {
    assert_eq!(thread::current().stack(), None, "the main thread's is the kernel's to grow");
    let other = Builder::new().stack_size(100 << 10).spawn(|| {
        let local = 0u8;
        let stack = thread::current().stack().unwrap();
        assert!(stack.contains(&(&raw const local).addr()) && stack.len() >= 100 << 10);
        // All of it can be read, and nothing below is part of it.
        for address in stack.clone().step_by(4096) {
            // SAFETY: it is this thread's stack, and below the frames nothing is written
            // meanwhile.
            black_box(unsafe { core::ptr::with_exposed_provenance::<u8>(address).read_volatile() });
        }
        stack
    });
    let other = other.unwrap();
    let (handle, stack) = (other.thread().clone(), other.thread().stack());
    assert_eq!(Some(other.join()), stack);
    assert_eq!(handle.stack(), stack, "also after its end");
}

fn a_stack_of_no_size_is_large_enough_to_run() {
    let work = || [1u8; 1000].iter().map(|n| *n as u32).sum::<u32>();
    assert_eq!(Builder::new().stack_size(0).spawn(work).unwrap().join(), 1000);
}

fn a_stack_of_hardly_any_size_runs_a_closure_and_a_handler() {
    #[inline(never)]
    fn use_stack() -> usize {
        core::hint::black_box([1u8; 2 << 10]).iter().map(|n| *n as usize).sum()
    }
    static HANDLED: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn handle(_: i32) {
        HANDLED.fetch_add(use_stack(), Relaxed);
    }
    // SAFETY: 1. It writes an atomic.
    unsafe { signal::sigaction(Signal::SIGUSR1, Action::call(handle)) }.unwrap();
    for size in [0, 1, 4095, 4096, 4097, 8 << 10, (16 << 10) - 1, 16 << 10, (16 << 10) + 1, 64 << 10] {
        HANDLED.store(0, Relaxed);
        let thread = Builder::new().name("small").stack_size(size).spawn(move || {
            let used = use_stack();
            signal::raise(Signal::SIGUSR1).unwrap();
            used
        });
        assert_eq!((thread.unwrap().join(), HANDLED.load(Relaxed)), (2 << 10, 2 << 10), "a stack of {size}");
    }
}

fn a_small_stack_has_room_for_a_large_closure_and_a_large_result() {
    let captured = core::hint::black_box([3u8; 60_000]);
    let thread = Builder::new().stack_size(0).spawn(move || captured);
    assert!(thread.unwrap().join().iter().all(|n| *n == 3));
}

fn a_stack_has_the_size_that_was_asked_for() {
    fn use_stack(kib: usize) -> usize {
        let frame = core::hint::black_box([1u8; 1024]);
        if kib == 0 { 0 } else { use_stack(kib - 1) + frame[kib % 1024] as usize }
    }
    // An eighth of the stack, because unoptimised frames hold more than their array.
    assert_eq!(Builder::new().stack_size(32 << 20).spawn(|| use_stack(4 << 10)).unwrap().join(), 4 << 10);
}

fn overflowing_a_stack_meets_the_guard_page() {
    #[allow(unconditional_recursion)]
    fn forever(n: usize) -> usize {
        let frame = core::hint::black_box([n as u8; 256]);
        forever(core::hint::black_box(n + 1)) + frame[n % 256] as usize
    }
    // Otherwise the stack of a thread right below would be overwritten.
    let _neighbours = [(); 4].map(|()| spawn(thread::park).unwrap());
    spawn(|| forever(0)).unwrap().join();
}

fn overaligned_closures_and_results_are_aligned() {
    #[repr(align(256))]
    struct Aligned(u8);
    // More than a page. (Not 64 KiB: for such locals LLVM clears the stack pointer on MIPS.)
    #[repr(align(16384))]
    struct Huge(u8);
    fn is_aligned<T>(value: &T) -> bool {
        core::hint::black_box(&raw const *value).addr().is_multiple_of(align_of::<T>())
    }
    let (aligned, huge) = (Aligned(1), Huge(2));
    let result = Builder::new().stack_size(1 << 20).spawn(move || {
        assert!(is_aligned(&aligned) && is_aligned(&huge));
        Aligned(aligned.0 + huge.0)
    });
    let result = result.unwrap().join();
    assert!(is_aligned(&result));
    assert_eq!(result.0, 3);
}
