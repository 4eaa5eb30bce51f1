//! Signals: the handler is reached and left, with this machine's layouts.

mod vectors;

use core::hint::black_box;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicUsize, Ordering::Relaxed};
use core::time::Duration;

use linux_raw_sys::general as k;
use rt0::signal::{
    Action, Flags, Handler, How, Info, SigSet, Signal, SignalStack, mask, raise, sigaction, sigaltstack, signal_stack,
};
use rt0::sync::Mutex;
use rt0::test::Expect;
use rt0::{Env, Errno, println, signal, sys, thread};
use rt0_tests::seccomp::{Verdict, filter, filter_calls, need_filters};
use rt0_tests::{Ended, SKIPPED, alarm_after, emulated, fork, often, read_file, skip, wait_for, wait_until};
use vectors::{Numbers, Registers, widest, work};

static LAST: AtomicU32 = AtomicU32::new(0);
static COUNT: AtomicUsize = AtomicUsize::new(0);
static TID: AtomicU32 = AtomicU32::new(0);

extern "C" fn note(signal: i32) {
    LAST.store(signal as u32, Relaxed);
    TID.store(sys::gettid(), Relaxed);
    COUNT.fetch_add(1, Relaxed);
}

/// A debugger stops here; see xtask/src/tool_tests.rs.
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
    a_queued_signal_is_from_a_user_too,
    a_handler_gets_the_sender_of_the_signal,
    a_closure_that_captures_nothing_will_do,
    a_fault_has_its_address_and_is_not_from_a_user,
    a_sent_sigsegv_is_no_fault,
    a_filter_that_traps_says_so,
    a_handler_sees_where_it_interrupted,
    a_handler_sees_the_stack_and_the_frame_that_it_interrupted,
    a_signal_stack_has_room_for_the_processors_registers_and_a_handler,
    a_handler_that_uses_vectors_leaves_those_of_the_interrupted_code_alone,
    a_handler_has_16_kib_beside_the_frames_of_two_signals,
    handlers_run_on_the_signal_stack_of_their_thread,
    a_signal_stack_takes_no_memory_until_it_is_used,
    handlers_of_different_signals_nest,
    a_handler_is_left_alone_until_it_returns_unless_its_mask_says_otherwise,
    a_signal_stack_that_is_too_small_is_refused,
    a_signal_stack_in_use_cannot_be_changed,
    a_thread_that_is_signalled_handles_it_itself,
    an_unhandled_signal_ends_the_process_by_it => Expect::signal(15),
    dying_from_a_signal_that_is_caught_and_blocked_is_dying_by_it => Expect::signal(15),
    dying_from_the_last_signal_is_never_taken_for_success,
    a_way_back_from_a_handler_that_is_refused_ends_the_process,
    a_signal_that_does_not_end_a_process_becomes_its_status,
    the_first_process_of_a_namespace_dies_with_128_and_the_number,
    a_handler_that_panics_ends_the_process_with_101 => Expect::panic("thread 'main' panicked at "),
    handle_or_die_and_nothing_between,
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

fn a_queued_signal_is_from_a_user_too() {
    install(Signal::SIGUSR1, Action::info(note_info));
    // SAFETY: the struct is numbers, for which all zeros are valid.
    let mut info: k::siginfo_t = unsafe { core::mem::zeroed() };
    // SAFETY: all signals have this part.
    let head = unsafe { &mut info.__bindgen_anon_1.__bindgen_anon_1 };
    head.si_code = k::SI_QUEUE;
    head._sifields._kill = k::__sifields__bindgen_ty_1 { _pid: sys::getpid() as i32, _uid: 12345 };
    let at = (&raw const info).expose_provenance();
    let to_process = [sys::getpid() as usize, Signal::SIGUSR1.raw() as usize, at, 0, 0, 0];
    // SAFETY: 1. The kernel reads the struct; the signal has a handler.
    unsafe { sys::syscall(k::__NR_rt_sigqueueinfo as usize, to_process) }.unwrap();
    assert_eq!((LAST.load(Relaxed), CODE.load(Relaxed)), (Signal::SIGUSR1.raw(), k::SI_QUEUE));
    assert_eq!((SENDER.load(Relaxed), SENDER_UID.load(Relaxed)), (sys::getpid(), 12345));
    assert!(FROM_USER.load(Relaxed));
}

fn a_handler_gets_the_sender_of_the_signal() {
    install(Signal::SIGUSR1, Action::info(note_info));
    // SAFETY: 1. It changes nothing.
    let uid = unsafe { sys::syscall(k::__NR_getuid as usize, [0; 6]) }.unwrap();
    let sent = |code: i32| {
        assert_eq!(LAST.load(Relaxed), Signal::SIGUSR1.raw());
        assert_eq!(CODE.load(Relaxed), code);
        assert_eq!((SENDER.load(Relaxed), SENDER_UID.load(Relaxed)), (sys::getpid(), uid as u32));
        assert!(FROM_USER.load(Relaxed) && ADDRESS.load(Relaxed) == 0);
    };
    raise(Signal::SIGUSR1).unwrap();
    sent(k::SI_TKILL);
    let to_process = [sys::getpid() as usize, Signal::SIGUSR1.raw() as usize, 0, 0, 0, 0];
    // SAFETY: 1. A signal to this process, with a handler.
    unsafe { sys::syscall(k::__NR_kill as usize, to_process) }.unwrap();
    sent(k::SI_USER as i32);
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

fn a_fault_has_its_address_and_is_not_from_a_user() {
    static PAGE: AtomicUsize = AtomicUsize::new(0);
    fn allow(info: &Info) {
        note_info(info);
        let writable = (k::PROT_READ | k::PROT_WRITE) as usize;
        // SAFETY: 1. The page is this test's.
        let _ = unsafe { sys::syscall(k::__NR_mprotect as usize, [PAGE.load(Relaxed), 1, writable, 0, 0, 0]) };
    }
    install(Signal::SIGSEGV, Action::info(allow));
    let page = map_page(k::PROT_READ);
    PAGE.store(page.addr(), Relaxed);
    let word = page.wrapping_add(24).cast::<u32>();
    // SAFETY: the page belongs to this test, and the handler makes it writable.
    unsafe { word.write_volatile(7) };
    // SAFETY: the page is readable now.
    assert_eq!(unsafe { word.read_volatile() }, 7);
    let address = ADDRESS.load(Relaxed);
    // s390x reports only the page.
    assert!(address == word.addr() || address == page.addr(), "{address:#x} for {word:?}");
    // An emulator may not distinguish the two.
    assert!([k::SEGV_ACCERR, k::SEGV_MAPERR].contains(&(CODE.load(Relaxed) as u32)));
    assert!(!FROM_USER.load(Relaxed) && SENDER.load(Relaxed) == 0);
}

fn a_sent_sigsegv_is_no_fault() {
    install(Signal::SIGSEGV, Action::info(note_info));
    raise(Signal::SIGSEGV).unwrap();
    assert!(FROM_USER.load(Relaxed));
    assert_eq!((LAST.load(Relaxed), ADDRESS.load(Relaxed)), (Signal::SIGSEGV.raw(), 0));
}

fn a_filter_that_traps_says_so() {
    install(Signal::SIGSYS, Action::info(note_info));
    let returns = filter_calls(&[k::__NR_getppid], 0x0003_0000); // SECCOMP_RET_TRAP
    if let Err(errno) = returns {
        skip_because(errno, "seccomp filters");
    }
    // SAFETY: 1. It changes nothing.
    let _ = unsafe { sys::syscall(k::__NR_getppid as usize, [0; 6]) };
    assert_eq!(LAST.load(Relaxed), Signal::SIGSYS.raw());
    assert!(FROM_SECCOMP.load(Relaxed) && !FROM_USER.load(Relaxed));
}

fn a_handler_sees_where_it_interrupted() {
    static STOP: AtomicBool = AtomicBool::new(false);
    static TID: AtomicU32 = AtomicU32::new(0);
    static INSIDE: AtomicU32 = AtomicU32::new(0);
    #[inline(never)]
    fn spin() {
        while !STOP.load(Relaxed) {
            core::hint::spin_loop();
        }
    }
    fn look(info: &Info) {
        let start = spin as fn() as usize;
        // The loop is a handful of instructions.
        INSIDE.fetch_add((start..start + 256).contains(&info.pc()) as u32, Relaxed);
    }
    install(Signal::SIGUSR1, Action::info(look));
    let spinning = thread::spawn(|| {
        TID.store(sys::gettid(), Relaxed);
        spin();
    });
    wait_until("the thread", || TID.load(Relaxed) != 0);
    wait_until("the loop to be interrupted", || {
        sys::tgkill(sys::getpid(), TID.load(Relaxed), Signal::SIGUSR1.raw()).unwrap();
        INSIDE.load(Relaxed) >= 10
    });
    STOP.store(true, Relaxed);
    spinning.unwrap().join();
}

fn a_handler_sees_the_stack_and_the_frame_that_it_interrupted() {
    static STOP: AtomicBool = AtomicBool::new(false);
    static TID: AtomicU32 = AtomicU32::new(0);
    static LOW: AtomicUsize = AtomicUsize::new(0);
    static HIGH: AtomicUsize = AtomicUsize::new(0);
    static INSIDE: AtomicU32 = AtomicU32::new(0);
    static FRAMED: AtomicU32 = AtomicU32::new(0);
    /// A local with a larger alignment than the stack's makes a function use its frame pointer.
    #[repr(align(256))]
    struct Aligned([u8; 256]);
    #[inline(never)]
    fn spin() {
        let local = Aligned([1; 256]);
        LOW.store(black_box(&local).0.as_ptr().addr(), Relaxed);
        while !STOP.load(Relaxed) {
            core::hint::spin_loop();
        }
        black_box(&local);
    }
    #[inline(never)]
    fn caller() {
        let local = [2u8; 64];
        HIGH.store(black_box(&local).as_ptr().addr() + 64, Relaxed);
        spin();
        black_box(&local);
    }
    fn look(info: &Info) {
        let (low, high) = (LOW.load(Relaxed), HIGH.load(Relaxed));
        if low == 0 {
            return;
        }
        // On SPARC the registers hold the address minus 2047.
        let stack = low.saturating_sub(4096)..=high;
        INSIDE.fetch_add(stack.contains(&info.sp()) as u32, Relaxed);
        FRAMED.fetch_add(stack.contains(&info.fp()) as u32, Relaxed);
    }
    install(Signal::SIGUSR1, Action::info(look));
    let spinning = thread::spawn(|| {
        TID.store(sys::gettid(), Relaxed);
        caller();
    });
    wait_until("the thread", || TID.load(Relaxed) != 0);
    wait_until("the loop to be interrupted", || {
        sys::tgkill(sys::getpid(), TID.load(Relaxed), Signal::SIGUSR1.raw()).unwrap();
        INSIDE.load(Relaxed) >= 10 && FRAMED.load(Relaxed) >= 10
    });
    STOP.store(true, Relaxed);
    spinning.unwrap().join();
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

static CODE: AtomicI32 = AtomicI32::new(0);
static SENDER: AtomicU32 = AtomicU32::new(0);
static SENDER_UID: AtomicU32 = AtomicU32::new(0);
static ADDRESS: AtomicUsize = AtomicUsize::new(0);
static FROM_USER: AtomicBool = AtomicBool::new(false);
static FROM_SECCOMP: AtomicBool = AtomicBool::new(false);

/// Stores a handler's information.
fn note_info(info: &Info) {
    LAST.store(info.number() as u32, Relaxed);
    CODE.store(info.code(), Relaxed);
    SENDER.store(info.sender().map_or(0, |sender| sender.pid), Relaxed);
    SENDER_UID.store(info.sender().map_or(0, |sender| sender.uid), Relaxed);
    ADDRESS.store(info.address().map_or(0, |address| address.addr()), Relaxed);
    FROM_USER.store(info.from_user(), Relaxed);
    FROM_SECCOMP.store(info.from_seccomp(), Relaxed);
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

fn map_page(prot: u32) -> *mut u8 {
    #[repr(align(65536))] // As large as the largest page.
    struct Page([AtomicU8; 64 << 10]);
    static PAGE: Page = Page([const { AtomicU8::new(0) }; _]);
    let at = PAGE.0[0].as_ptr().expose_provenance();
    // SAFETY: 1. Whole pages that no other code uses.
    unsafe { sys::syscall(k::__NR_mprotect as usize, [at, 64 << 10, prot as usize, 0, 0, 0]) }.unwrap();
    core::ptr::with_exposed_provenance_mut(at)
}

/// Whether the byte at `address` is readable and the byte below it is not; the kernel checks this
/// without a fault.
fn has_guard_below(address: usize) -> bool {
    let mut fds = [0i32; 2];
    // SAFETY: 1. The kernel writes the two numbers.
    unsafe { sys::syscall(k::__NR_pipe2 as usize, [(&raw mut fds).expose_provenance(), 0, 0, 0, 0, 0]) }.unwrap();
    // SAFETY: 1. The kernel reads a byte, or finds that it cannot.
    let write = |at| unsafe { sys::syscall(k::__NR_write as usize, [fds[1] as usize, at, 1, 0, 0, 0]) };
    write(address - 1) == Err(Errno::EFAULT) && write(address) == Ok(1)
}
