//! Processes that end by a signal.

use core::sync::atomic::Ordering::Relaxed;

use linux_raw_sys::general as k;
use rt0::signal::{self, Action, How, SigSet, Signal, mask, raise};
use rt0::test::Expect;
use rt0::{Errno, sys, thread};
use rt0_tests::seccomp::{Verdict, filter, need_filters};
use rt0_tests::{Ended, SKIPPED, emulated, fork, skip, wait_for};

use super::{COUNT, install, note, skip_because};

rt0::test_module! {
    an_unhandled_signal_ends_the_process_by_it => Expect::signal(15),
    dying_from_a_signal_that_is_caught_and_blocked_is_dying_by_it => Expect::signal(15),
    dying_from_the_last_signal_is_never_taken_for_success,
    a_way_back_from_a_handler_that_is_refused_ends_the_process,
    a_signal_that_does_not_end_a_process_becomes_its_status,
    the_first_process_of_a_namespace_dies_with_128_and_the_number,
    a_handler_that_panics_ends_the_process_with_101 => Expect::panic("thread 'main' panicked at "),
    handle_or_die_and_nothing_between,
}

fn an_unhandled_signal_ends_the_process_by_it() {
    raise(Signal::SIGTERM).unwrap();
    thread::park();
}

fn dying_from_a_signal_that_is_caught_and_blocked_is_dying_by_it() {
    install(Signal::SIGTERM, Action::call(note));
    mask(How::Set, &SigSet::full());
    let _others = [(); 3].map(|()| thread::spawn(thread::park).unwrap());
    thread::spawn(|| signal::die_from(Signal::SIGTERM)).unwrap().join()
}

/// The kernel reports the number in seven bits; MIPS' last signal has eight, and those seven
/// are 0, as for a process that exited with 0.
fn dying_from_the_last_signal_is_never_taken_for_success() {
    let last = (1..=200).filter_map(Signal::from_raw).next_back().unwrap();
    let pid = fork().unwrap();
    if pid == 0 {
        signal::die_from(last);
    }
    let (number, ended) = (last.raw(), wait_for(pid));
    let expected = if number < 128 { Ended::Signal(number) } else { Ended::Exit(255) };
    // qemu reserves the last one or two.
    assert!(ended == expected || emulated() && ended == Ended::Exit(128 + number), "{number}: {ended:?}");
}

/// It does not run into the function behind it.
fn a_way_back_from_a_handler_that_is_refused_ends_the_process() {
    #[cfg(any(target_arch = "x86", target_arch = "arm", target_arch = "s390x"))]
    const RETURNS: [u32; 2] = [k::__NR_rt_sigreturn, k::__NR_sigreturn];
    #[cfg(not(any(target_arch = "x86", target_arch = "arm", target_arch = "s390x")))]
    const RETURNS: [u32; 1] = [k::__NR_rt_sigreturn];
    if cfg!(any(
        target_arch = "riscv32",
        target_arch = "riscv64",
        target_arch = "loongarch64",
        target_arch = "mips",
        target_arch = "mips64",
        target_arch = "powerpc",
        target_arch = "powerpc64",
    )) {
        skip("the way back is the kernel's own code here");
    }
    need_filters();
    for action in [Action::call(note), Action::info(|_| ())] {
        let pid = fork().unwrap();
        if pid == 0 {
            install(Signal::SIGUSR1, action);
            filter(&RETURNS, Verdict::Refuse(Errno::EPERM), Verdict::Allow);
            let _ = raise(Signal::SIGUSR1);
            sys::exit_group(1); // It returned.
        }
        match wait_for(pid) {
            Ended::Exit(status) if status == SKIPPED as u32 => skip("no filters on system calls here"),
            ended => assert!([k::SIGILL, k::SIGTRAP].map(Ended::Signal).contains(&ended), "{ended:?}"),
        }
    }
}

fn a_signal_that_does_not_end_a_process_becomes_its_status() {
    let pid = fork().unwrap();
    if pid == 0 {
        signal::die_from(Signal::SIGURG);
    }
    assert_eq!(wait_for(pid), Ended::Exit(128 + k::SIGURG));
}

fn the_first_process_of_a_namespace_dies_with_128_and_the_number() {
    let namespaces = (k::CLONE_NEWUSER | k::CLONE_NEWPID) as usize;
    // SAFETY: 1. This process is alone, and its children get a namespace of their own.
    if let Err(errno) = unsafe { sys::syscall(k::__NR_unshare as usize, [namespaces, 0, 0, 0, 0, 0]) } {
        skip_because(errno, "namespaces");
    }
    let pid = match fork() {
        Ok(pid) => pid,
        Err(errno) => skip_because(errno, "namespaces"),
    };
    if pid == 0 {
        assert_eq!(sys::getpid(), 1);
        install(Signal::SIGTERM, Action::call(die));
        extern "C" fn die(_: i32) {
            signal::die_from(Signal::SIGTERM)
        }
        raise(Signal::SIGTERM).unwrap();
        sys::exit_group(1);
    }
    assert_eq!(wait_for(pid), Ended::Exit(128 + k::SIGTERM));
}

fn a_handler_that_panics_ends_the_process_with_101() {
    extern "C" fn boom(_: i32) {
        panic!("in a handler");
    }
    install(Signal::SIGUSR1, Action::call(boom));
    raise(Signal::SIGUSR1).unwrap();
}

fn handle_or_die_and_nothing_between() {
    // Installs and removes a handler while signals arrive: at any moment the process either
    // dies or handles the signal.
    let (mut handled, mut died) = (0, 0);
    for round in 0..40 {
        let pid = fork().unwrap();
        if pid == 0 {
            for _ in 0..round * 5 {
                install(Signal::SIGINT, Action::call(note));
                install(Signal::SIGINT, Action::DEFAULT);
            }
            install(Signal::SIGINT, Action::call(note));
            raise(Signal::SIGINT).unwrap();
            sys::exit_group(if COUNT.load(Relaxed) > 0 { 7 } else { 8 });
        }
        let target = [pid as usize, Signal::SIGINT.raw() as usize, 0, 0, 0, 0];
        // SAFETY: 1. A signal to a child of this process.
        let _ = unsafe { sys::syscall(k::__NR_kill as usize, target) };
        match wait_for(pid) {
            Ended::Exit(7) => handled += 1,
            Ended::Signal(k::SIGINT) => died += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(handled + died, 40);
}
