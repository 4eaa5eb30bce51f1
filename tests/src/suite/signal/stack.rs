//! The signal stack that every thread has.

mod vectors;

use core::hint::black_box;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use core::time::Duration;

use linux_raw_sys::general as k;
use rt0::signal::{Action, Info, Signal, SignalStack, raise, sigaltstack, signal_stack};
use rt0::sync::Mutex;
use rt0::{Env, Errno, fault, println, sys, thread};
use rt0_tests::files::pipe;
use rt0_tests::reports::{ROOM, Report, has_frames};
use rt0_tests::{Ended, alarm_after, often, skip, stderr_of};

use super::{install, note};
use vectors::{COUNT, Number, Numbers, Registers, vectors, widest, work};

rt0::test_module! {
    a_signal_stack_has_room_for_the_processors_registers_and_a_handler,
    a_handler_that_computes_leaves_the_numbers_of_the_interrupted_code_alone,
    a_handler_that_uses_vectors_leaves_those_of_the_interrupted_code_alone,
    a_fault_of_code_with_vectors_in_use_has_its_frames,
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

fn a_handler_that_computes_leaves_the_numbers_of_the_interrupted_code_alone() {
    handlers_leave_alone(Registers::Ordinary);
}

fn a_handler_that_uses_vectors_leaves_those_of_the_interrupted_code_alone(env: Env) {
    for_each_vectors(env, handlers_leave_alone);
}

fn a_fault_of_code_with_vectors_in_use_has_its_frames(env: Env) {
    /// Not by a system call, which may forget the vectors.
    #[inline(never)]
    fn fault_with(registers: Registers) -> Numbers {
        const NOWHERE: *const u8 = core::ptr::without_provenance(0x5008);
        let mut numbers = work(registers, start(0));
        // SAFETY: none; the test wants the fault.
        numbers.0[0] += Number::from(unsafe { NOWHERE.read_volatile() });
        numbers
    }
    #[inline(never)]
    fn outer(registers: Registers) -> Numbers {
        black_box(fault_with(black_box(registers)))
    }
    if !has_frames() {
        skip("no chain of frames on this machine, or the emulator keeps none");
    }
    for_each_vectors(env, |registers| {
        let mut buf = [0; ROOM];
        let child = || {
            fault::explain().unwrap();
            black_box(outer(registers));
        };
        let (text, ended) = stderr_of(child, &mut buf);
        assert_eq!(ended, Ended::Signal(k::SIGSEGV), "{text}");
        assert!(Report { text }.is_called_by(outer as *const () as usize), "{text}");
    });
}

/// What the work starts from: small integers, each another.
fn start(which: usize) -> Numbers {
    Numbers(core::array::from_fn(|at| (which * COUNT + at) as Number))
}

fn for_each_vectors(env: Env, check: impl Fn(Registers)) {
    if vectors::NAMES.is_empty() {
        skip("no vectors on this machine but the registers that every program uses");
    }
    if vectors(env).next().is_none() {
        skip("this processor, or its kernel, has no vectors but the registers that every program uses");
    }
    for registers in vectors(env) {
        println!("{registers:?}");
        check(registers);
    }
}

/// Asserts that signals change no number in these registers, although their handler uses them too.
fn handlers_leave_alone(registers: Registers) {
    static HANDLED: AtomicUsize = AtomicUsize::new(0);
    static WRONG: AtomicUsize = AtomicUsize::new(0);
    static HANDLERS: Mutex<Option<(Registers, Numbers)>> = Mutex::new(None);
    fn check(which: usize, registers: Registers, right: &Numbers) {
        let same = work(registers, black_box(start(which))) == *right;
        WRONG.fetch_add(usize::from(!same), Relaxed);
    }
    fn interrupt(info: &Info) {
        // Nothing else has it while signals come.
        let (registers, right) = HANDLERS.try_lock().unwrap().unwrap();
        check(1, registers, &right);
        assert!(info.pc() != 0 && info.sp() != 0);
        HANDLED.fetch_add(1, Relaxed);
        // Not before: where all is slow, the interrupted code would come to nothing.
        alarm_after(PERIOD);
    }
    const PERIOD: Duration = Duration::from_micros(200);
    // The same whichever registers they are in.
    let [right, handlers] = [0, 1].map(|which| work(Registers::Ordinary, start(which)));
    assert_eq!([0, 1].map(|which| work(registers, start(which))), [right, handlers]);
    *HANDLERS.lock() = Some((registers, handlers));
    install(Signal::SIGALRM, Action::info(interrupt));
    let enough = often(400);
    HANDLED.store(0, Relaxed);
    alarm_after(PERIOD);
    while HANDLED.load(Relaxed) < enough {
        check(0, registers, &right);
    }
    alarm_after(Duration::ZERO);
    assert_eq!(WRONG.load(Relaxed), 0, "{registers:?}");
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
        black_box(work(registers, start(0)));
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
