//! Deaths that explain themselves: the report of each signal, what dies how, and what tells
//! nothing.

mod crowd;
mod kinds;

use core::hint::black_box;
use core::mem::transmute;
use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use linux_raw_sys::general as k;
use rt0::mapping::{Mapping, Protection};
use rt0::signal::{
    Action, Handler, How, SigSet, Signal, SignalStack, action_of, mask, raise, sigaction, sigaltstack, signal_stack,
};
use rt0::test::Expect;
use rt0::thread::{Builder, report_overflows, spawn};
use rt0::{Env, fault, sys};
use rt0_tests::files::pipe_with;
use rt0_tests::reports::{ROOM, Report, has_frames};
use rt0_tests::{Ended, machine, make_secure, skip, stderr_of};

/// Reads from an address where nothing is.
#[inline(never)]
fn fault_at(address: usize) -> usize {
    // SAFETY: none; the tests want the fault.
    unsafe { ptr::with_exposed_provenance::<usize>(address).read_volatile() }
}

/// Two functions around a fault, each with a frame.
#[inline(never)]
fn middle(address: usize) -> usize {
    black_box(fault_at(black_box(address))) + 1
}

#[inline(never)]
fn outer(address: usize) -> usize {
    black_box(middle(black_box(address))) + 1
}

const NOWHERE: usize = 0x5008;

/// A report of a fault by `signal`, which must end the process.
fn report<'a>(child: impl FnOnce(), signal: Signal, buf: &'a mut [u8]) -> Report<'a> {
    let (text, ended) = stderr_of(child, buf);
    assert_eq!(ended, Ended::Signal(signal.raw()), "{text}");
    assert_eq!(text.matches(" got ").count(), 1, "{text}");
    Report { text }
}

/// Memory with this code, again and again.
fn code(words: &[u32]) -> usize {
    let page = Mapping::new(64 << 10).unwrap().into_raw();
    let (base, len) = (page.as_ptr().cast::<u32>(), page.len());
    for (index, word) in words.iter().cycle().take(4 * words.len()).enumerate() {
        // SAFETY: within the mapping, which is this test's.
        unsafe { base.wrapping_add(index).write(*word) };
    }
    let rights = (k::PROT_READ | k::PROT_EXEC) as usize;
    // SAFETY: 1. The mapping is this test's.
    unsafe { sys::syscall(k::__NR_mprotect as usize, [base.expose_provenance(), len, rights, 0, 0, 0]) }.unwrap();
    base.expose_provenance()
}

/// An instruction that no processor of this machine has.
fn illegal() -> u32 {
    let machine = machine();
    let is = |start: &[u8]| machine.starts_with(start);
    match () {
        () if is(b"x86_64") || is(b"i") => 0x0b0f_0b0f, // ud2
        () if is(b"armv") => 0xe7f0_00f0,               // udf
        () if is(b"mips") => 0xec00_0000,               // A reserved one.
        () if is(b"loongarch") => 0xffff_ffff,
        () => 0,
    }
}

/// Asserts that a report has an illegal instruction. The kernels of MIPS and LoongArch give no
/// reason.
fn assert_illegal(text: &str) {
    assert!(text.contains(" got SIGILL: illegal ") || text.contains(" got SIGILL: the kernel "), "{text}");
}

#[inline(never)]
fn run(code: usize) {
    // SAFETY: none; the tests want the fault.
    unsafe { transmute::<usize, extern "C" fn()>(code)() };
    black_box(code); // So that the call is not the end.
}

rt0::test_module! {
    a_fault_is_told_with_thread_code_address_pc_registers_and_frames,
    a_fault_within_a_report_ends_the_process_by_that_fault,
    an_overflow_keeps_its_words_and_has_frames,
    explaining_replaces_the_line_about_overflows_and_no_handler_of_the_program,
    a_process_with_more_rights_than_its_caller_tells_no_addresses,
    a_thread_that_blocks_the_signal_dies_of_it_without_a_report,
    a_fault_in_a_handler_is_told_if_its_mask_leaves_that_open,
    a_panic_has_frames,
    nothing_is_installed_until_it_is_asked_for,
    the_first_process_of_a_namespace_survives_what_is_sent_and_dies_of_faults =>
        Expect::success()
            .native("an emulator ends by a signal that is sent, as no first process does"),
    a_report_is_written_at_once,
    kinds::*,
    crowd::*,
}

fn a_fault_is_told_with_thread_code_address_pc_registers_and_frames() {
    let mut buf = [0; ROOM];
    for main in [true, false] {
        let seen = report(
            || {
                fault::explain().unwrap();
                if main {
                    outer(NOWHERE);
                }
                Builder::new().name("deep diver").spawn(|| outer(NOWHERE)).unwrap().join();
            },
            Signal::SIGSEGV,
            &mut buf,
        );
        let start = if main { "thread 'main' (tid " } else { "thread 'deep diver' (tid " };
        assert!(seen.head().starts_with(start), "{}", seen.text);
        assert!(
            seen.head().contains(" got SIGSEGV: address not mapped to object (SEGV_MAPERR), address 0x"),
            "{}",
            seen.text
        );
        let (address, pc) = (seen.number_after(", address 0x"), seen.number_after(", pc 0x"));
        // s390x tells the page.
        assert!([NOWHERE, NOWHERE & !0xfff].contains(&address), "{}", seen.text);
        // Without optimisation the access is in a function of core's.
        let is_there = (0..256).contains(&pc.wrapping_sub(fault_at as *const () as usize));
        let is_below = cfg!(debug_assertions) && seen.leads_to(fault_at as *const () as usize);
        assert!(is_there || is_below, "{}", seen.text);
        assert_eq!(seen.frames().next(), Some(pc), "{}", seen.text);
        assert_eq!(seen.is_called_by(outer as *const () as usize), has_frames(), "{}", seen.text);
        assert_eq!(seen.is_called_by(middle as *const () as usize), has_frames(), "{}", seen.text);
        let registers = || seen.registers();
        assert!(registers().count() >= 13, "{}", seen.text);
        assert!(registers().any(|(_, value)| value == pc), "{}", seen.text);
        // SPARC's has it in a window, which is no part of the interrupted registers.
        assert!(registers().any(|(_, value)| value == NOWHERE) || machine().starts_with(b"sparc64"), "{}", seen.text);
    }
}

/// The bytes of the signal stack that the kernel's frame and a small handler's take. That is much
/// less than `AT_MINSIGSTKSZ` where the processor has registers that this program does not use.
fn least_signal_stack() -> usize {
    static FRAME: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn measure(_: i32) {
        let stack = signal_stack().unwrap();
        FRAME.store(stack.base.addr() + stack.size - (&raw const stack).addr(), Relaxed);
    }
    // SAFETY: 1. It stores an atomic.
    unsafe { sigaction(Signal::SIGUSR1, Action::call(measure)) }.unwrap();
    raise(Signal::SIGUSR1).unwrap();
    FRAME.load(Relaxed)
}

/// The report runs over a signal stack that has room for the registers only.
fn a_fault_within_a_report_ends_the_process_by_that_fault() {
    let mut buf = [0; ROOM];
    let (text, ended) = stderr_of(
        || {
            fault::explain().unwrap();
            spawn(move || {
                const GUARD: usize = 64 << 10;
                let least = least_signal_stack().max(4096);
                let memory = Mapping::new(GUARD + least).unwrap();
                memory.protect(..GUARD, Protection::NONE).unwrap();
                // sigaltstack(2) looks at the size alone, and some machines' kernels refuse 4 KiB:
                // the lower part of the stack may be in the guard.
                let size = least.max(k::MINSIGSTKSZ as usize);
                let base = memory.into_raw().as_ptr().cast::<u8>().wrapping_add(GUARD + least - size);
                // SAFETY: 1. It stays, and is for nothing else.
                unsafe { sigaltstack(Some(SignalStack { base, size })) }.unwrap();
                outer(NOWHERE);
            })
            .unwrap()
            .join();
        },
        &mut buf,
    );
    assert_eq!((text, ended), ("", Ended::Signal(k::SIGSEGV)));
}

fn an_overflow_keeps_its_words_and_has_frames() {
    #[allow(unconditional_recursion)]
    #[inline(never)]
    fn forever(n: usize) -> usize {
        let frame = black_box([n as u8; 256]);
        forever(black_box(n + 1)) + frame[n % 256] as usize
    }
    let mut buf = [0; ROOM];
    for main in [true, false] {
        let (text, ended) = stderr_of(
            || {
                fault::explain().unwrap();
                if main {
                    forever(0);
                }
                Builder::new().name("deep diver").spawn(|| forever(0)).unwrap().join();
            },
            &mut buf,
        );
        let seen = Report { text };
        assert_eq!(ended, Ended::Signal(k::SIGSEGV), "{text}");
        assert!(seen.head().contains(" has overflowed its stack: it touched 0x"), "{text}");
        if has_frames() {
            assert!(seen.leads_to(forever as *const () as usize) && seen.frames().count() > 10, "{text}");
        }
        assert!(seen.registers().count() >= 13, "{text}");
    }
}

fn explaining_replaces_the_line_about_overflows_and_no_handler_of_the_program() {
    extern "C" fn own(_: i32) {
        sys::exit_group(42);
    }
    let mut buf = [0; ROOM];
    for before in [true, false] {
        let seen = report(
            || {
                if before {
                    report_overflows().unwrap();
                    fault::explain().unwrap();
                } else {
                    fault::explain().unwrap();
                    report_overflows().unwrap();
                }
                fault_at(NOWHERE);
            },
            Signal::SIGSEGV,
            &mut buf,
        );
        assert!(seen.registers().count() >= 13, "{}", seen.text);
        let (text, ended) = stderr_of(
            || {
                if !before {
                    fault::explain().unwrap();
                }
                // SAFETY: 1. It ends the process.
                unsafe { sigaction(Signal::SIGSEGV, Action::call(own)) }.unwrap();
                fault::explain().unwrap();
                fault_at(NOWHERE);
            },
            &mut buf,
        );
        assert_eq!((text, ended), ("", Ended::Exit(42)));
    }
}

fn a_process_with_more_rights_than_its_caller_tells_no_addresses(env: Env) {
    make_secure(env);
    let mut buf = [0; ROOM];
    let seen = report(
        || {
            fault::explain().unwrap();
            fault_at(NOWHERE);
        },
        Signal::SIGSEGV,
        &mut buf,
    );
    assert!(seen.text.ends_with(" got SIGSEGV: address not mapped to object (SEGV_MAPERR)\n"), "{}", seen.text);
    assert!(!seen.text.contains("0x"), "{}", seen.text);
}

fn a_thread_that_blocks_the_signal_dies_of_it_without_a_report() {
    let mut buf = [0; ROOM];
    let (text, ended) = stderr_of(
        || {
            fault::explain().unwrap();
            mask(How::Block, &SigSet::full());
            fault_at(NOWHERE);
        },
        &mut buf,
    );
    assert_eq!((text, ended), ("", Ended::Signal(k::SIGSEGV)));
}

fn a_fault_in_a_handler_is_told_if_its_mask_leaves_that_open() {
    extern "C" fn handler(_: i32) {
        outer(NOWHERE);
    }
    let mut buf = [0; ROOM];
    for (open, main) in [(true, true), (true, false), (false, false)] {
        let (text, ended) = stderr_of(
            || {
                fault::explain().unwrap();
                let mut mask = SigSet::full();
                if open {
                    fault::SIGNALS.iter().for_each(|signal| mask.remove(*signal));
                }
                // SAFETY: 1. It dies.
                unsafe { sigaction(Signal::SIGUSR1, Action { mask, ..Action::call(handler) }) }.unwrap();
                if main {
                    raise(Signal::SIGUSR1).unwrap();
                }
                spawn(|| raise(Signal::SIGUSR1).unwrap()).unwrap().join();
            },
            &mut buf,
        );
        assert_eq!(ended, Ended::Signal(k::SIGSEGV), "{text}");
        if open {
            let seen = Report { text };
            assert!(seen.head().contains("SEGV_MAPERR"), "{text}");
            assert_eq!(seen.is_called_by(outer as *const () as usize), has_frames(), "{text}");
        } else {
            assert_eq!(text, "");
        }
    }
}

fn a_panic_has_frames() {
    #[inline(never)]
    fn panics(n: usize) -> usize {
        if black_box(n) == 0 {
            panic!("the message");
        }
        n
    }
    let mut buf = [0; ROOM];
    let (text, ended) = stderr_of(
        || {
            fault::explain().unwrap();
            black_box(panics(0));
        },
        &mut buf,
    );
    assert_eq!(ended, Ended::Exit(101), "{text}");
    let seen = Report { text };
    assert!(text.contains("thread 'main' panicked at ") && text.contains("the message\n"), "{text}");
    assert!(seen.frames().count() > 0, "{text}");
    if has_frames() {
        assert!(seen.leads_to(panics as *const () as usize), "{text}");
    }
    let (text, ended) = stderr_of(|| panic!("the message"), &mut buf);
    assert_eq!((ended, Report { text }.frames().count()), (Ended::Exit(101), 0), "{text}");
}

fn nothing_is_installed_until_it_is_asked_for() {
    let is_default = |signal: &Signal| matches!(action_of(*signal).unwrap().handler, Handler::Default);
    assert!(fault::SIGNALS.iter().all(is_default));
    fault::explain().unwrap();
    assert!(!fault::SIGNALS.iter().any(is_default));
}

/// qemu ends by a signal that is sent, as no first process does.
fn the_first_process_of_a_namespace_survives_what_is_sent_and_dies_of_faults() {
    let namespaces = (k::CLONE_NEWUSER | k::CLONE_NEWPID) as usize;
    // SAFETY: 1. This process is alone, and its children get a namespace of their own.
    if unsafe { sys::syscall(k::__NR_unshare as usize, [namespaces, 0, 0, 0, 0, 0]) }.is_err() {
        skip("namespaces are not permitted here");
    }
    let mut buf = [0; ROOM];
    let (text, ended) = stderr_of(
        || {
            assert_eq!(sys::getpid(), 1);
            fault::explain().unwrap();
            for signal in fault::SIGNALS {
                raise(signal).unwrap();
                assert!(!matches!(action_of(signal).unwrap().handler, Handler::Default));
            }
            run(code(&[illegal()]));
        },
        &mut buf,
    );
    assert_eq!(ended, Ended::Exit(128 + k::SIGILL), "{text}");
    assert_eq!(text.matches(": sent by process 1 ").count(), fault::SIGNALS.len(), "{text}");
    // The namespace has lost its first process.
    assert_illegal(text);
}

/// One write(2): a pipe with packets keeps what was written at once apart.
fn a_report_is_written_at_once() {
    let Ok([read, write]) = pipe_with(k::O_DIRECT | k::O_CLOEXEC) else {
        skip("this kernel has no pipes with packets");
    };
    let child = rt0_tests::fork().unwrap();
    if child == 0 {
        // SAFETY: 1. Descriptor 2 is the child's own.
        unsafe { sys::syscall(k::__NR_dup3 as usize, [write as usize, 2, 0, 0, 0, 0]) }.unwrap();
        fault::explain().unwrap();
        outer(NOWHERE);
    }
    assert_eq!(rt0_tests::wait_a_minute_for(child), Ended::Signal(k::SIGSEGV));
    let mut buf = [0; ROOM];
    let len = rt0::io::read(rt0_tests::numbered(read), &mut buf).unwrap();
    let text = core::str::from_utf8(&buf[..len]).unwrap();
    assert!(text.starts_with("\nthread 'main'") && text.ends_with('\n'), "{text}");
    assert!(Report { text }.registers().count() >= 13 && text.contains(", address 0x5"), "{text}");
}
