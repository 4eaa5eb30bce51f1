//! Signals: the handler is reached and left, with this machine's layouts.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

use linux_raw_sys::general as k;
use rt0::signal::{Action, Handler, How, SigSet, Signal, mask, raise, sigaction};
use rt0::{Errno, sys, thread};
use rt0_tests::tests;

static LAST: AtomicU32 = AtomicU32::new(0);
static COUNT: AtomicUsize = AtomicUsize::new(0);
static TID: AtomicU32 = AtomicU32::new(0);

extern "C" fn note(signal: i32) {
    LAST.store(signal as u32, Relaxed);
    TID.store(sys::gettid(), Relaxed);
    COUNT.fetch_add(1, Relaxed);
}

fn install(signal: Signal, action: Action) -> Action {
    // SAFETY: 1. The tests' handlers only touch atomics.
    unsafe { sigaction(signal, action) }.unwrap()
}

tests! {
    fn a_handler_gets_the_number_and_returns() {
        install(Signal::SIGUSR1, Action::call(note));
        for round in 1..=100 {
            raise(Signal::SIGUSR1).unwrap();
            assert_eq!((COUNT.load(Relaxed), LAST.load(Relaxed)), (round, Signal::SIGUSR1.raw()));
        }
        assert_eq!(thread::current().name(), Some("main"), "the thread pointer survives");
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
        let old = install(Signal::SIGUSR1, Action { handler: Handler::Ignore, mask, restart: true });
        let Handler::Call(handler) = old.handler else { panic!("{old:?}") };
        assert_eq!(handler as usize, note as extern "C" fn(i32) as usize);
        assert!(old.mask.contains(Signal::SIGTERM) && old.mask.contains(Signal::SIGUSR2));
        assert!(!old.mask.contains(Signal::SIGINT) && !old.restart);
        raise(Signal::SIGUSR1).unwrap();
        let old = install(Signal::SIGUSR1, Action::call(note));
        assert!(matches!(old.handler, Handler::Ignore) && old.restart, "{old:?}");
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
            let mut fds = [0i32; 2];
            let at = (&raw mut fds).expose_provenance();
            // SAFETY: 1. The kernel writes the two numbers.
            unsafe { sys::syscall(k::__NR_pipe2 as usize, [at, 0, 0, 0, 0, 0]) }.unwrap();
            let (read, write) = (fds[0], fds[1]);
            let (pid, tid) = (sys::getpid(), sys::gettid());
            let other = thread::spawn(move || {
                let before = COUNT.load(Relaxed);
                while COUNT.load(Relaxed) < before + 20 {
                    sys::tgkill(pid, tid, Signal::SIGUSR1.raw()).unwrap();
                    thread::sleep(core::time::Duration::from_millis(2));
                }
                sys::write(write, b"x").unwrap();
            });
            let first = sys::read(read, &mut [0; 1]);
            if restart {
                assert_eq!(first, Ok(1));
            } else {
                assert_eq!(first, Err(Errno::EINTR));
                assert_eq!(rt0::io::read(read, &mut [0; 1]), Ok(1));
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

    #[keys("signal=15")]
    fn an_unhandled_signal_ends_the_process_by_it() {
        raise(Signal::SIGTERM).unwrap();
        thread::park();
    }
}
