//! The signal stack that every thread has.

mod vectors;

use core::hint::black_box;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use core::time::Duration;

use linux_raw_sys::general as k;
use rt0::signal::{Action, Info, Signal, SignalStack, raise, sigaltstack, signal_stack};
use rt0::sync::Mutex;
use rt0::{Env, Errno, println, sys, thread};
use rt0_tests::files::pipe;
use rt0_tests::{alarm_after, often};

use super::{install, note};
use vectors::{Numbers, Registers, widest, work};

rt0::test_module! {
    a_signal_stack_has_room_for_the_processors_registers_and_a_handler,
    a_handler_that_uses_vectors_leaves_those_of_the_interrupted_code_alone,
    a_handler_has_16_kib_beside_the_frames_of_two_signals,
    handlers_run_on_the_signal_stack_of_their_thread,
    a_signal_stack_takes_no_memory_until_it_is_used,
    a_signal_stack_that_is_too_small_is_refused,
    a_signal_stack_in_use_cannot_be_changed,
}

fn a_signal_stack_has_room_for_the_processors_registers_and_a_handler(env: Env) {
    const AT_MINSIGSTKSZ: usize = 51;
    let least = (env.auxv().get(AT_MINSIGSTKSZ).unwrap_or(0) + (16 << 10)).max(32 << 10);
    let threads = thread::spawn(|| signal_stack().expect("a signal stack").size).unwrap().join();
    let mains = signal_stack().expect("main's, with the first spawn").size;
    assert!(threads >= least && mains >= least, "{threads} {mains} {least}");
}

fn a_handler_that_uses_vectors_leaves_those_of_the_interrupted_code_alone(env: Env) {
    static HANDLED: AtomicUsize = AtomicUsize::new(0);
    static WRONG: AtomicUsize = AtomicUsize::new(0);
    static WIDEST: Mutex<Registers> = Mutex::new(Registers::Ordinary);
    const START: [Numbers; 2] = [[1.0; 64], [-1e6; 64]];
    static RIGHT: Mutex<[Numbers; 2]> = Mutex::new(START);
    fn check(which: usize, registers: Registers, right: &Numbers) {
        let same = work(registers, black_box(START[which])) == *right;
        WRONG.fetch_add(usize::from(!same), Relaxed);
    }
    fn interrupt(info: &Info) {
        // Nothing else has these two while signals come.
        let (registers, right) = (*WIDEST.try_lock().unwrap(), RIGHT.try_lock().unwrap()[1]);
        check(1, registers, &right);
        assert!(info.pc() != 0 && info.sp() != 0);
        HANDLED.fetch_add(1, Relaxed);
        // Not before: where all is slow, the interrupted code would come to nothing.
        alarm_after(PERIOD);
    }
    const PERIOD: Duration = Duration::from_micros(200);
    let registers = widest(env);
    println!("{registers:?}");
    // The same whichever registers they are in.
    let right = START.map(|start| work(Registers::Ordinary, start));
    assert_eq!(START.map(|start| work(registers, start)), right);
    (*WIDEST.lock(), *RIGHT.lock()) = (registers, right);
    install(Signal::SIGALRM, Action::info(interrupt));
    let enough = often(400);
    alarm_after(PERIOD);
    while HANDLED.load(Relaxed) < enough {
        check(0, registers, &right[0]);
    }
    alarm_after(Duration::ZERO);
    assert_eq!(WRONG.load(Relaxed), 0);
}

fn a_handler_has_16_kib_beside_the_frames_of_two_signals(env: Env) {
    static LEFT: AtomicUsize = AtomicUsize::new(0);
    static USED: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn look(_: i32) {
        let local = 0u8;
        let (here, stack) = (black_box(&raw const local).addr(), signal_stack().expect("a signal stack"));
        LEFT.store(here - stack.base.addr(), Relaxed);
        USED.store(stack.base.addr() + stack.size - here, Relaxed);
    }
    const OWN: usize = 2 << 10; // What `look` and what calls it have on the stack.
    let registers = widest(env);
    install(Signal::SIGUSR1, Action::call(look));
    let here = move || {
        // In use, and so part of what is saved.
        black_box(work(registers, [1.0; 64]));
        raise(Signal::SIGUSR1).unwrap();
        (LEFT.load(Relaxed), USED.load(Relaxed))
    };
    let given = env.auxv().get(linux_raw_sys::auxvec::AT_MINSIGSTKSZ as usize);
    for (left, used) in [here(), thread::spawn(here).unwrap().join()] {
        println!("{registers:?}: {used} used, {left} left, AT_MINSIGSTKSZ {given:?}");
        let frame = given.unwrap_or(used);
        assert!(used <= frame + OWN, "the kernel's frame is larger than it says");
        assert!(left + OWN >= frame + (16 << 10), "{left}");
    }
}

fn handlers_run_on_the_signal_stack_of_their_thread() {
    static WHERE: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn look(_: i32) {
        let local = 0u8;
        WHERE.store(black_box(&raw const local).addr(), Relaxed);
    }
    fn check() -> SignalStack {
        let stack = signal_stack().expect("a signal stack");
        raise(Signal::SIGUSR1).unwrap();
        let low = stack.base.addr();
        assert!((low..low + stack.size).contains(&WHERE.load(Relaxed)), "{stack:?}");
        assert!(stack.size >= 32 << 10);
        assert!(has_guard_below(low), "{stack:?}");
        stack
    }
    install(Signal::SIGUSR1, Action::call(look));
    let mains = check();
    for _ in 0..3 {
        assert_ne!(thread::spawn(|| check().base.addr()).unwrap().join(), mains.base.addr());
    }
}

fn a_signal_stack_takes_no_memory_until_it_is_used() {
    fn resident() -> usize {
        let stack = signal_stack().expect("a signal stack");
        let mut pages = [0u8; 1024];
        let at = (&raw mut pages).expose_provenance();
        // SAFETY: 1. The kernel writes a byte for each page of the stack, which is a few dozen.
        unsafe { sys::syscall(k::__NR_mincore as usize, [stack.base.addr(), stack.size, at, 0, 0, 0]) }.unwrap();
        pages.iter().filter(|page| **page & 1 != 0).count()
    }
    let (before, after) = thread::spawn(|| {
        let before = resident();
        install(Signal::SIGUSR1, Action::call(note));
        raise(Signal::SIGUSR1).unwrap();
        (before, resident())
    })
    .unwrap()
    .join();
    assert_eq!(before, 0);
    assert!((1..=4).contains(&after), "{after}");
}

fn a_signal_stack_that_is_too_small_is_refused() {
    let mut small = [0u8; 512];
    // SAFETY: 1. Refused.
    let set = unsafe { sigaltstack(Some(SignalStack { base: small.as_mut_ptr(), size: small.len() })) };
    assert_eq!(set, Err(Errno::ENOMEM));
}

fn a_signal_stack_in_use_cannot_be_changed() {
    static GOT: AtomicBool = AtomicBool::new(false);
    extern "C" fn change(_: i32) {
        // SAFETY: 1. Refused.
        GOT.store(unsafe { sigaltstack(None) } == Err(Errno::EPERM), Relaxed);
    }
    install(Signal::SIGUSR1, Action::call(change));
    raise(Signal::SIGUSR1).unwrap();
    assert!(GOT.load(Relaxed));
    // SAFETY: 1. Nothing runs on it.
    let before = unsafe { sigaltstack(None) }.unwrap();
    assert!(before.is_some() && signal_stack().is_none());
}

/// Whether the byte at `address` is readable and the byte below it is not; the kernel checks this
/// without a fault.
fn has_guard_below(address: usize) -> bool {
    let [_, end] = pipe();
    // SAFETY: 1. The kernel reads a byte, or finds that it cannot.
    let write = |at| unsafe { sys::syscall(k::__NR_write as usize, [end as usize, at, 1, 0, 0, 0]) };
    write(address - 1) == Err(Errno::EFAULT) && write(address) == Ok(1)
}
