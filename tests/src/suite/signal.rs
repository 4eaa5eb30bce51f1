//! Signals: the handler is reached and left, with this machine's layouts.

mod death;
mod info;
mod stack;

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};

use rt0::signal::{self, Action, Flags, Handler, How, Info, SigSet, Signal, mask, raise, sigaction};
use rt0::{Errno, sys, thread};
use rt0_tests::files::pipe;
use rt0_tests::{emulated, read_file, skip, wait_until};

static LAST: AtomicU32 = AtomicU32::new(0);
static COUNT: AtomicUsize = AtomicUsize::new(0);
static TID: AtomicU32 = AtomicU32::new(0);

extern "C" fn note(signal: i32) {
    LAST.store(signal as u32, Relaxed);
    TID.store(sys::gettid(), Relaxed);
    COUNT.fetch_add(1, Relaxed);
}

/// A debugger stops here; see xtask/src/test/tools.rs.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rt0_debuggers_stop_here() {
    COUNT.fetch_add(1, Relaxed);
}

fn install(signal: Signal, action: Action) -> Action {
    // SAFETY: 1. The tests' handlers only touch atomics.
    unsafe { sigaction(signal, action) }.unwrap()
}

rt0::test_module! {
    a_handler_reads_and_writes_the_interrupted_registers_by_name,
    a_handler_gets_the_number_and_returns,
    a_handler_of_the_plain_form_returns,
    a_handler_of_the_form_with_info_returns,
    a_handler_runs_on_the_thread_that_was_signalled,
    registers_survive_a_handler,
    the_old_action_is_what_was_set_before,
    an_action_that_is_set_again_is_what_it_was,
    a_handler_that_is_reset_runs_once,
    a_signal_that_is_not_deferred_interrupts_its_own_handler,
    a_blocked_signal_waits_until_it_is_let_through,
    the_mask_of_an_action_holds_while_its_handler_runs,
    restart_decides_whether_a_read_goes_on,
    sigkill_and_sigstop_cannot_be_caught,
    a_number_that_no_program_may_use_is_no_signal,
    every_signal_that_can_be_caught_is_delivered_by_its_number,
    a_closure_that_captures_nothing_will_do,
    handlers_of_different_signals_nest,
    a_handler_is_left_alone_until_it_returns_unless_its_mask_says_otherwise,
    a_thread_that_is_signalled_handles_it_itself,
    info::*,
    stack::*,
    death::*,
}

fn a_handler_reads_and_writes_the_interrupted_registers_by_name() {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    fn look(info: &Info) {
        let mut has = [false; 2];
        let mut count = 0;
        for (name, place) in info.registers() {
            assert_eq!(info.register_place(name), Some(place), "{name} is there once");
            // SAFETY: it lies in the frame of this handler.
            let value = unsafe { place.read_unaligned() };
            has[0] |= value == info.pc();
            has[1] |= value == info.sp();
            // What is written is what lies there; the last write leaves all as it was.
            for written in [!value, value] {
                // SAFETY: the place lies in this handler's frame; the handler does not return
                // before the old value is back.
                unsafe { place.write_unaligned(written) };
                // SAFETY: the place lies in this handler's frame.
                assert_eq!(unsafe { place.read_unaligned() }, written);
            }
            count += 1;
        }
        assert_eq!(has, [true; 2], "the program counter and the stack pointer are among them");
        assert_eq!(info.register_place("no such register"), None);
        COUNT.store(count, Relaxed);
    }
    install(Signal::SIGUSR1, Action::info(look));
    signal::raise(Signal::SIGUSR1).unwrap();
    assert!(COUNT.load(Relaxed) >= 10, "{COUNT:?}");
}

fn a_handler_gets_the_number_and_returns() {
    install(Signal::SIGUSR1, Action::call(note));
    for round in 1..=100 {
        raise(Signal::SIGUSR1).unwrap();
        assert_eq!((COUNT.load(Relaxed), LAST.load(Relaxed)), (round, Signal::SIGUSR1.raw()));
    }
    assert_eq!(thread::current().name(), Some("main"), "the thread pointer survives");
}

/// Some machines have two signal frames, each with its own return; debuggers unwind both.
fn a_handler_of_the_plain_form_returns() {
    extern "C" fn plain(_: i32) {
        rt0_debuggers_stop_here();
    }
    install(Signal::SIGUSR1, Action::call(plain));
    raise(Signal::SIGUSR1).unwrap();
    assert_eq!(COUNT.load(Relaxed), 1);
}

fn a_handler_of_the_form_with_info_returns() {
    install(Signal::SIGUSR1, Action::info(|_| rt0_debuggers_stop_here()));
    raise(Signal::SIGUSR1).unwrap();
    assert_eq!(COUNT.load(Relaxed), 1);
}

fn a_handler_runs_on_the_thread_that_was_signalled() {
    install(Signal::SIGUSR2, Action::call(note));
    let tid = thread::spawn(|| {
        raise(Signal::SIGUSR2).unwrap();
        sys::gettid()
    });
    assert_eq!(tid.unwrap().join(), TID.load(Relaxed));
    assert_ne!(TID.load(Relaxed), sys::gettid());
}

fn registers_survive_a_handler() {
    install(Signal::SIGUSR1, Action::call(note));
    let (mut int, mut float) = (1u64, 1.0f64);
    for round in 0..1000u64 {
        int = int.wrapping_mul(6364136223846793005).wrapping_add(round);
        float = float * 1.0001 + round as f64;
        raise(Signal::SIGUSR1).unwrap();
    }
    let (mut int_again, mut float_again) = (1u64, 1.0f64);
    for round in 0..1000u64 {
        int_again = int_again.wrapping_mul(6364136223846793005).wrapping_add(round);
        float_again = float_again * 1.0001 + round as f64;
    }
    assert_eq!((int, float.to_bits()), (int_again, float_again.to_bits()));
}

fn the_old_action_is_what_was_set_before() {
    let mask: SigSet = [Signal::SIGTERM, Signal::SIGUSR2].into_iter().collect();
    let old = install(Signal::SIGUSR1, Action { mask, restart: false, ..Action::call(note) });
    assert!(matches!(old.handler, Handler::Default), "{old:?}");
    let old =
        install(Signal::SIGUSR1, Action { handler: Handler::Ignore, mask, restart: true, flags: Flags::SA_ONSTACK });
    let Handler::Call(handler) = old.handler else { panic!("{old:?}") };
    assert_eq!(handler as usize, note as extern "C" fn(i32) as usize);
    assert!(old.mask.contains(Signal::SIGTERM) && old.mask.contains(Signal::SIGUSR2));
    assert!(!old.mask.contains(Signal::SIGINT) && !old.restart);
    raise(Signal::SIGUSR1).unwrap();
    let old = install(Signal::SIGUSR1, Action::call(note));
    assert!(matches!(old.handler, Handler::Ignore) && old.restart, "{old:?}");
}

fn an_action_that_is_set_again_is_what_it_was() {
    let flags = Flags::SA_NODEFER | Flags::SA_RESETHAND | Flags::SA_NOCLDSTOP | Flags::SA_NOCLDWAIT;
    let mask: SigSet = [Signal::SIGTERM].into_iter().collect();
    for flags in [flags, Flags::empty(), Flags::SA_NODEFER, Flags::SA_ONSTACK | Flags::SA_RESETHAND] {
        for restart in [true, false] {
            install(Signal::SIGCHLD, Action { flags, restart, mask, ..Action::call(note) });
            let old = install(Signal::SIGCHLD, Action::DEFAULT);
            install(Signal::SIGCHLD, old);
            let again = signal::action_of(Signal::SIGCHLD).unwrap();
            assert_eq!((again.flags, again.restart), (flags, restart));
            assert!(matches!(again.handler, Handler::Call(_)) && again.mask.contains(Signal::SIGTERM));
        }
    }
}

fn a_handler_that_is_reset_runs_once() {
    install(Signal::SIGURG, Action { flags: Flags::SA_RESETHAND, ..Action::call(note) });
    raise(Signal::SIGURG).unwrap();
    raise(Signal::SIGURG).unwrap(); // By default it does nothing.
    assert_eq!(COUNT.load(Relaxed), 1);
    assert!(matches!(signal::action_of(Signal::SIGURG).unwrap().handler, Handler::Default));
}

fn a_signal_that_is_not_deferred_interrupts_its_own_handler() {
    extern "C" fn nest(_: i32) {
        if COUNT.fetch_add(1, Relaxed) == 0 {
            raise(Signal::SIGUSR1).unwrap();
            TID.store(COUNT.load(Relaxed) as u32, Relaxed);
        }
    }
    let action = Action { mask: SigSet::empty(), flags: Flags::SA_NODEFER, ..Action::call(nest) };
    install(Signal::SIGUSR1, action);
    raise(Signal::SIGUSR1).unwrap();
    assert_eq!(TID.load(Relaxed), 2, "the second came while the first ran");
}

fn a_blocked_signal_waits_until_it_is_let_through() {
    install(Signal::SIGUSR1, Action::call(note));
    let set: SigSet = [Signal::SIGUSR1].into_iter().collect();
    assert!(!mask(How::Block, &set).contains(Signal::SIGUSR1));
    raise(Signal::SIGUSR1).unwrap();
    assert_eq!(COUNT.load(Relaxed), 0);
    assert!(mask(How::Unblock, &set).contains(Signal::SIGUSR1));
    assert_eq!(COUNT.load(Relaxed), 1);
    mask(How::Set, &set);
    assert!(mask(How::Set, &SigSet::empty()).contains(Signal::SIGUSR1));
}

fn the_mask_of_an_action_holds_while_its_handler_runs() {
    static SEEN: AtomicU32 = AtomicU32::new(0);
    extern "C" fn look(_: i32) {
        let now = mask(How::Block, &SigSet::empty());
        let bits = [Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2].map(|signal| now.contains(signal));
        SEEN.store(bits.iter().fold(0, |bits, bit| bits << 1 | *bit as u32), Relaxed);
    }
    let mask: SigSet = [Signal::SIGTERM].into_iter().collect();
    install(Signal::SIGUSR1, Action { mask, ..Action::call(look) });
    raise(Signal::SIGUSR1).unwrap();
    assert_eq!(SEEN.load(Relaxed), 0b110, "SIGTERM and the signal itself, not SIGUSR2");
}

fn restart_decides_whether_a_read_goes_on() {
    for restart in [true, false] {
        install(Signal::SIGUSR1, Action { restart, ..Action::call(note) });
        let [read, write] = pipe();
        let (pid, tid) = (sys::getpid(), sys::gettid());
        let other = thread::spawn(move || {
            let before = COUNT.load(Relaxed);
            while COUNT.load(Relaxed) < before + 20 {
                sys::tgkill(pid, tid, Signal::SIGUSR1.raw()).unwrap();
                thread::sleep(core::time::Duration::from_millis(2));
            }
            sys::write(rt0_tests::numbered(write), b"x").unwrap();
        });
        let first = sys::read(rt0_tests::numbered(read), &mut [0; 1]);
        if restart {
            assert_eq!(first, Ok(1));
        } else {
            assert_eq!(first, Err(Errno::EINTR));
            assert_eq!(rt0::io::read(rt0_tests::numbered(read), &mut [0; 1]), Ok(1));
        }
        other.unwrap().join();
    }
}

fn sigkill_and_sigstop_cannot_be_caught() {
    for signal in [Signal::SIGKILL, Signal::SIGSTOP] {
        // SAFETY: 1. Refused.
        assert_eq!(unsafe { sigaction(signal, Action::call(note)) }.err(), Some(Errno::EINVAL));
    }
}

fn a_number_that_no_program_may_use_is_no_signal() {
    for number in [0, 32, 33, 129, 200, u32::MAX] {
        assert_eq!(Signal::from_raw(number), None);
    }
    let all: SigSet = (0..=200).filter_map(Signal::from_raw).collect();
    mask(How::Set, &all);
    let blocked = mask(How::Set, &SigSet::empty());
    assert!(blocked.contains(Signal::SIGTERM) && !blocked.contains(Signal::SIGKILL));
    mask(How::Set, &SigSet::full());
    assert_eq!(status_line("SigBlk:") & 0x1_8000_0000, 0, "32 and 33 stay open");
    assert_ne!(status_line("SigBlk:"), 0);
}

fn every_signal_that_can_be_caught_is_delivered_by_its_number() {
    let numbers = (1..=128).filter_map(Signal::from_raw);
    let mut caught = 0;
    for signal in numbers.filter(|signal| ![Signal::SIGKILL, Signal::SIGSTOP].contains(signal)) {
        // SAFETY: 1. The handler only touches atomics.
        let delivered = unsafe { sigaction(signal, Action::call(note)) }.and_then(|_| raise(signal));
        match delivered {
            Ok(()) => {
                caught += 1;
                assert_eq!((LAST.load(Relaxed), COUNT.load(Relaxed)), (signal.raw(), caught), "{signal:?}");
            }
            // qemu-user reserves some of the host's signals, and lacks some of MIPS' 128.
            Err(errno) => assert!(emulated() && errno == Errno::EINVAL, "{signal:?}: {errno}"),
        }
    }
    assert!(caught >= 50, "{caught}");
}

fn a_closure_that_captures_nothing_will_do() {
    install(
        Signal::SIGUSR1,
        Action::info(|info| {
            LAST.store(info.number() as u32, Relaxed);
        }),
    );
    raise(Signal::SIGUSR1).unwrap();
    assert_eq!(LAST.load(Relaxed), Signal::SIGUSR1.raw());
}

fn handlers_of_different_signals_nest() {
    static DEPTH: AtomicU32 = AtomicU32::new(0);
    extern "C" fn inner(_: i32) {
        DEPTH.fetch_add(10, Relaxed);
    }
    extern "C" fn outer(_: i32) {
        raise(Signal::SIGUSR2).unwrap();
        DEPTH.fetch_add(1, Relaxed);
    }
    install(Signal::SIGUSR2, Action::call(inner));
    install(Signal::SIGUSR1, Action { mask: SigSet::empty(), ..Action::call(outer) });
    raise(Signal::SIGUSR1).unwrap();
    assert_eq!(DEPTH.load(Relaxed), 11);
}

fn a_handler_is_left_alone_until_it_returns_unless_its_mask_says_otherwise() {
    static STEPS: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];
    static STEP: AtomicUsize = AtomicUsize::new(0);
    fn step(which: u32) {
        STEPS[STEP.fetch_add(1, Relaxed)].store(which, Relaxed);
    }
    extern "C" fn inner(_: i32) {
        step(2);
    }
    extern "C" fn outer(_: i32) {
        raise(Signal::SIGUSR2).unwrap();
        step(1);
    }
    install(Signal::SIGUSR2, Action::call(inner));
    install(Signal::SIGUSR1, Action::call(outer));
    raise(Signal::SIGUSR1).unwrap();
    assert_eq!(STEPS.each_ref().map(|step| step.load(Relaxed)), [1, 2]);
}

fn a_thread_that_is_signalled_handles_it_itself() {
    static TIDS: [AtomicU32; 8] = [const { AtomicU32::new(0) }; 8];
    static WRONG: AtomicU32 = AtomicU32::new(0);
    static WANTED: AtomicU32 = AtomicU32::new(0);
    static STOP: AtomicBool = AtomicBool::new(false);
    extern "C" fn check(_: i32) {
        WRONG.fetch_add((sys::gettid() != WANTED.load(Relaxed)) as u32, Relaxed);
        COUNT.fetch_add(1, Relaxed);
    }
    install(Signal::SIGUSR1, Action::call(check));
    let threads = TIDS.each_ref().map(|slot| {
        thread::spawn(move || {
            slot.store(sys::gettid(), Relaxed);
            while !STOP.load(Relaxed) {
                thread::sleep(core::time::Duration::from_millis(5));
            }
        })
        .unwrap()
    });
    wait_until("all to run", || TIDS.iter().all(|tid| tid.load(Relaxed) != 0));
    for round in 0..50 {
        let tid = TIDS[round % TIDS.len()].load(Relaxed);
        WANTED.store(tid, Relaxed);
        sys::tgkill(sys::getpid(), tid, Signal::SIGUSR1.raw()).unwrap();
        wait_until("its handler", || COUNT.load(Relaxed) == round + 1);
    }
    assert_eq!(WRONG.load(Relaxed), 0);
    STOP.store(true, Relaxed);
    threads.into_iter().for_each(|thread| thread.join());
}

fn skip_because(errno: Errno, what: &str) -> ! {
    match errno {
        Errno::ENOSYS | Errno::EINVAL => skip(match what {
            "namespaces" => "no namespaces here",
            _ => "no seccomp filters here",
        }),
        Errno::EPERM | Errno::ENOSPC => skip("not allowed here"),
        _ => panic!("{what}: {errno}"),
    }
}

/// The hexadecimal number after `name` in /proc/thread-self/status: a set of the first 64 signals
/// (MIPS has 128).
fn status_line(name: &str) -> u64 {
    let mut buf = [0; 4096];
    let status = read_file(c"/proc/thread-self/status", &mut buf).unwrap();
    let text = core::str::from_utf8(status).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    u128::from_str_radix(line.trim(), 16).unwrap() as u64
}
