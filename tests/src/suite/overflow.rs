//! Stack overflows: the message, the signal, and faults that are no overflow.

use core::hint::black_box;
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use linux_raw_sys::general as k;
use rt0::mapping::Mapping;
use rt0::signal::{
    Action, Handler, How, Info, SigSet, Signal, SignalStack, action_of, mask, raise, sigaction, sigaltstack,
    signal_stack,
};
use rt0::test::Expect;
use rt0::thread::{Builder, report_overflows, spawn};
use rt0::{Env, sys, thread};
use rt0_tests::{Ended, emulated, make_secure, skip, stderr_of};

#[allow(unconditional_recursion)]
fn forever(n: usize) -> usize {
    let frame = black_box([n as u8; 256]);
    forever(black_box(n + 1)) + frame[n % 256] as usize
}

/// Recursion with frames of `N` bytes, of which only the far end is written.
#[inline(never)]
fn sparse<const N: usize>(frames: usize) -> usize {
    let mut frame = [const { MaybeUninit::<u8>::uninit() }; N];
    // The compiler must assume that any byte may be written.
    let far_end = black_box(&mut frame).as_mut_ptr();
    // SAFETY: the first byte of the frame.
    unsafe { far_end.cast::<u8>().write_volatile(0x5A) };
    let below = if black_box(frames) > 1 { sparse::<N>(frames - 1) } else { 0 };
    // SAFETY: written just before the call.
    below + unsafe { far_end.cast::<u8>().read_volatile() } as usize
}

/// Frames of several sizes, enough of them to exceed a small stack and its guard. (A guard has 64
/// KiB where the compiler does not probe.)
const SPARSE: [fn(usize) -> usize; 4] = [sparse::<8_000>, sparse::<20_000>, sparse::<40_000>, sparse::<61_000>];

/// Reads from an unmapped address.
fn fault_at(address: usize) {
    // SAFETY: none; the tests want the fault.
    black_box(unsafe { ptr::with_exposed_provenance::<u8>(address).read_volatile() });
}

/// The child's stack overflows; the line names the thread.
fn says(child: impl FnOnce(), start: &str) {
    let mut buf = [0; 512];
    let (text, ended) = stderr_of(child, &mut buf);
    assert_eq!(ended, Ended::Signal(k::SIGSEGV), "{text}");
    let line = text.strip_prefix('\n').expect("an empty line first").strip_suffix('\n').expect("a whole line");
    assert!(line.starts_with(start), "{line}");
    // `thread 'x' (tid 1) has overflowed its stack: it touched 0x1, below 0x2..0x3 (4 KiB)`
    let numbers = line.split("it touched ").nth(1).expect("an address");
    let mut numbers = numbers.split([',', ' ', '.']).filter_map(|word| word.strip_prefix("0x"));
    let mut number = || usize::from_str_radix(numbers.next().expect("three numbers"), 16).expect("a number");
    let (address, low, high) = (number(), number(), number());
    assert!(address < low + (64 << 10) && low < high, "{line}");
}

rt0::test_module! {
    a_thread_with_a_name_says_it,
    a_thread_without_a_name_says_so,
    the_main_thread_says_so_when_it_was_asked_to,
    the_main_thread_says_so_once_there_was_another,
    the_stack_that_is_named_is_the_one_that_was_asked_for,
    one_of_many_threads_ends_them_all,
    a_tiny_stack_of_main_starts_and_says_so => Expect::success().stack_limit(65536),
    a_stack_without_limit_is_none_to_stumble_over => Expect::success().stack_limit(u64::MAX),
    other_faults_die_without_a_line,
    a_jump_into_the_stack_is_no_overflow,
    a_protected_page_of_the_programs_own_is_no_overflow,
    the_first_process_of_a_namespace_keeps_the_reporter_when_a_signal_is_sent,
    a_process_with_more_rights_than_its_caller_tells_no_addresses,
    a_signal_that_was_sent_still_kills,
    an_overflow_with_the_signal_blocked_dies_by_it,
    a_handler_that_overflows_its_signal_stack_dies_by_sigsegv,
    a_handler_of_the_programs_own_replaces_the_reporter,
    nothing_is_installed_until_it_is_asked_for,
    a_frame_of_which_only_the_far_end_is_written_meets_the_guard,
    what_lies_below_a_stack_is_not_written_when_it_overflows,
    a_handler_with_sparse_frames_meets_the_guard_of_its_signal_stack,
    large_frames_are_reported_too,
}

fn a_thread_with_a_name_says_it() {
    says(
        || {
            let _diver = Builder::new().name("deep diver").spawn(|| forever(0)).unwrap();
            thread::park();
        },
        "thread 'deep diver' (tid ",
    );
}

fn a_thread_without_a_name_says_so() {
    says(|| _ = spawn(|| forever(0)).unwrap().join(), "thread '<unnamed>' (tid ");
}

fn the_main_thread_says_so_when_it_was_asked_to() {
    says(
        || {
            report_overflows().unwrap();
            forever(0);
        },
        "thread 'main' (tid ",
    );
}

fn the_main_thread_says_so_once_there_was_another() {
    says(
        || {
            spawn(|| ()).unwrap().join();
            forever(0);
        },
        "thread 'main' (tid ",
    );
}

fn the_stack_that_is_named_is_the_one_that_was_asked_for() {
    let mut buf = [0; 512];
    let (text, _) = stderr_of(
        || {
            Builder::new().stack_size(1 << 20).spawn(|| forever(0)).unwrap().join();
        },
        &mut buf,
    );
    let kib = text.strip_suffix(" KiB)\n").and_then(|text| text.rsplit_once('('));
    let kib: u32 = kib.and_then(|(_, kib)| kib.parse().ok()).unwrap_or_default();
    assert!((1024..=1024 + 64).contains(&kib), "{text}");
}

fn one_of_many_threads_ends_them_all() {
    says(
        || {
            let _others = [(); 20].map(|()| spawn(thread::park).unwrap());
            Builder::new().name("one").spawn(|| forever(0)).unwrap().join();
        },
        "thread 'one' (tid ",
    );
}

fn a_tiny_stack_of_main_starts_and_says_so() {
    says(
        || {
            report_overflows().unwrap();
            forever(0);
        },
        "thread 'main' (tid ",
    );
}

/// Some runtimes crash here at the start.
fn a_stack_without_limit_is_none_to_stumble_over() {
    says(|| _ = spawn(|| forever(0)).unwrap().join(), "thread '<unnamed>' (tid ");
    let mut buf = [0; 512];
    let (text, ended) = stderr_of(
        || {
            report_overflows().unwrap();
            fault_at(8);
        },
        &mut buf,
    );
    assert_eq!((text, ended), ("", Ended::Signal(k::SIGSEGV)));
}

fn other_faults_die_without_a_line() {
    let mut buf = [0; 512];
    // On some machines an address of the kernel is an address error.
    for (address, signals) in [(0, [k::SIGSEGV; 2]), (8, [k::SIGSEGV; 2]), (usize::MAX - 100, [k::SIGSEGV, k::SIGBUS])]
    {
        let expected = |(text, ended): (&str, Ended)| {
            text.is_empty() && matches!(ended, Ended::Signal(signal) if signals.contains(&signal))
        };
        let seen = stderr_of(
            || {
                report_overflows().unwrap();
                fault_at(address);
            },
            &mut buf,
        );
        assert!(expected(seen), "{address:#x}");
        let seen = stderr_of(|| spawn(move || fault_at(address)).unwrap().join(), &mut buf);
        assert!(expected(seen), "{address:#x}, on a thread");
    }
}

/// The stack is not executable. (On an old machine whose kernel executes it, another signal
/// comes.)
fn a_jump_into_the_stack_is_no_overflow() {
    #[inline(never)]
    fn jump() {
        // As code, no valid instruction; as a function descriptor, the address of that code.
        let mut here = [0usize; 16];
        let at = black_box(&raw mut here).expose_provenance();
        here = black_box([at; 16]);
        // SAFETY: none; the tests want the fault.
        unsafe { core::mem::transmute::<usize, extern "C" fn()>(black_box(&here).as_ptr().addr())() };
    }
    let mut buf = [0; 512];
    let (text, ended) = stderr_of(
        || {
            report_overflows().unwrap();
            jump();
        },
        &mut buf,
    );
    assert!(!text.contains("overflowed") && matches!(ended, Ended::Signal(_)), "{text} {ended:?}");
    let (text, ended) = stderr_of(|| spawn(jump).unwrap().join(), &mut buf);
    assert!(!text.contains("overflowed") && matches!(ended, Ended::Signal(_)), "{text} {ended:?}");
}

fn a_protected_page_of_the_programs_own_is_no_overflow() {
    #[inline(never)]
    fn touch() {
        const PAGE: usize = 64 << 10;
        let mut pages = [0u8; 3 * PAGE];
        let page = black_box(&raw mut pages).expose_provenance().next_multiple_of(PAGE);
        // SAFETY: 1. Only the array lies there.
        unsafe { sys::syscall(k::__NR_mprotect as usize, [page, PAGE, k::PROT_NONE as usize, 0, 0, 0]) }.unwrap();
        fault_at(page + 8);
        black_box(&pages);
    }
    let mut buf = [0; 512];
    let (text, ended) = stderr_of(
        || {
            report_overflows().unwrap();
            touch();
        },
        &mut buf,
    );
    assert_eq!((text, ended), ("", Ended::Signal(k::SIGSEGV)));
    let (text, ended) = stderr_of(|| spawn(touch).unwrap().join(), &mut buf);
    assert_eq!((text, ended), ("", Ended::Signal(k::SIGSEGV)));
}

fn the_first_process_of_a_namespace_keeps_the_reporter_when_a_signal_is_sent() {
    let namespaces = (k::CLONE_NEWUSER | k::CLONE_NEWPID) as usize;
    // SAFETY: 1. This process is alone, and its children get a namespace of their own.
    if unsafe { sys::syscall(k::__NR_unshare as usize, [namespaces, 0, 0, 0, 0, 0]) }.is_err() {
        skip("namespaces are not permitted here");
    }
    let mut buf = [0; 512];
    let (text, ended) = stderr_of(
        || {
            assert_eq!(sys::getpid(), 1);
            report_overflows().unwrap();
            for signal in [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGSEGV] {
                raise(signal).unwrap();
                assert!(!matches!(action_of(signal).unwrap().handler, Handler::Default));
            }
            forever(0);
        },
        &mut buf,
    );
    if emulated() && ended == Ended::Signal(k::SIGSEGV) && text.is_empty() {
        skip("the emulator ends by a signal that is sent, as no first process does");
    }
    assert!(text.starts_with("\nthread 'main' (tid 1) has overflowed its stack: "), "{text}");
    assert_eq!(ended, Ended::Signal(k::SIGSEGV));
}

fn a_process_with_more_rights_than_its_caller_tells_no_addresses(env: Env) {
    make_secure(env);
    let mut buf = [0; 512];
    let (text, ended) = stderr_of(
        || {
            report_overflows().unwrap();
            forever(0);
        },
        &mut buf,
    );
    let line = text.strip_prefix("\nthread 'main' (tid ").and_then(|rest| rest.split_once(')'));
    assert_eq!(line.map(|(_, rest)| rest), Some(" has overflowed its stack\n"), "{text}");
    assert_eq!(ended, Ended::Signal(k::SIGSEGV));
}

fn a_signal_that_was_sent_still_kills() {
    let mut buf = [0; 512];
    for signal in [Signal::SIGSEGV, Signal::SIGBUS] {
        let (text, ended) = stderr_of(
            || {
                report_overflows().unwrap();
                raise(signal).unwrap();
            },
            &mut buf,
        );
        assert_eq!((text, ended), ("", Ended::Signal(signal.raw())));
    }
}

fn an_overflow_with_the_signal_blocked_dies_by_it() {
    let mut buf = [0; 512];
    let (text, ended) = stderr_of(
        || {
            report_overflows().unwrap();
            mask(How::Set, &SigSet::full());
            _ = spawn(|| forever(0)).unwrap().join();
        },
        &mut buf,
    );
    assert_eq!((text, ended), ("", Ended::Signal(k::SIGSEGV)));
}

/// The second fault happens where no handler can run.
fn a_handler_that_overflows_its_signal_stack_dies_by_sigsegv() {
    extern "C" fn deep(_: i32) {
        forever(0);
    }
    let mut buf = [0; 512];
    let (_, ended) = stderr_of(
        || {
            // SAFETY: 1. It runs until it dies.
            unsafe { sigaction(Signal::SIGUSR1, Action { mask: SigSet::empty(), ..Action::call(deep) }) }.unwrap();
            spawn(|| raise(Signal::SIGUSR1).unwrap()).unwrap().join();
        },
        &mut buf,
    );
    assert_eq!(ended, Ended::Signal(k::SIGSEGV));
}

fn a_handler_of_the_programs_own_replaces_the_reporter() {
    fn own(info: &Info) {
        let here = black_box(&raw const info).addr();
        let stack = signal_stack().unwrap();
        sys::exit_group(if (stack.base.addr()..stack.base.addr() + stack.size).contains(&here) { 42 } else { 1 });
    }
    let mut buf = [0; 512];
    for before in [true, false] {
        let (text, ended) = stderr_of(
            || {
                if !before {
                    report_overflows().unwrap();
                }
                // SAFETY: 1. It ends the process.
                unsafe { sigaction(Signal::SIGSEGV, Action::info(own)) }.unwrap();
                report_overflows().unwrap();
                _ = spawn(|| forever(0)).unwrap().join();
            },
            &mut buf,
        );
        assert_eq!((text, ended), ("", Ended::Exit(42)));
        let (text, ended) = stderr_of(
            || {
                // SAFETY: 1. It ends the process.
                unsafe { sigaction(Signal::SIGSEGV, Action::info(own)) }.unwrap();
                forever(0);
            },
            &mut buf,
        );
        assert_eq!((text, ended), ("", Ended::Exit(42)));
    }
}

fn nothing_is_installed_until_it_is_asked_for() {
    let is_default = |signal| matches!(action_of(signal).unwrap().handler, Handler::Default);
    assert!(is_default(Signal::SIGSEGV) && is_default(Signal::SIGBUS) && signal_stack().is_none());
    spawn(|| ()).unwrap().join();
    assert!(!is_default(Signal::SIGSEGV) && !is_default(Signal::SIGBUS) && signal_stack().is_some());
}

fn a_frame_of_which_only_the_far_end_is_written_meets_the_guard() {
    for frames in SPARSE {
        says(
            || {
                // The memory below is mapped: more threads.
                let first = Builder::new()
                    .stack_size(0)
                    .spawn(move || {
                        thread::park();
                        frames(100)
                    })
                    .unwrap();
                let _below = [(); 4].map(|()| spawn(thread::park).unwrap());
                first.thread().unpark();
                first.join();
            },
            "thread '<unnamed>' (tid ",
        );
    }
}

fn what_lies_below_a_stack_is_not_written_when_it_overflows() {
    static BELOW: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];
    fn look(_: &Info) {
        let [base, size] = BELOW.each_ref().map(|number| number.load(Relaxed));
        let base = ptr::with_exposed_provenance::<u8>(base);
        // SAFETY: the thread's own signal stack, which it no longer uses.
        let is_zero = (0..size).all(|at| unsafe { base.wrapping_add(at).read_volatile() } == 0);
        sys::exit_group(if is_zero { 42 } else { 1 });
    }
    for frames in SPARSE {
        let mut buf = [0; 512];
        let (text, ended) = stderr_of(
            || {
                // SAFETY: 1. It ends the process.
                unsafe { sigaction(Signal::SIGSEGV, Action::info(look)) }.unwrap();
                let other = Mapping::new(256 << 10).unwrap().into_raw();
                let (base, size) = (other.as_ptr().expose_provenance(), other.len());
                let thread = Builder::new().stack_size(0).spawn(move || {
                    let other = SignalStack { base: ptr::with_exposed_provenance_mut(base), size };
                    // SAFETY: 1. It stays allocated, and has no other use.
                    let own = unsafe { sigaltstack(Some(other)) }.unwrap().expect("every thread has one");
                    BELOW[0].store(own.base.expose_provenance(), Relaxed);
                    BELOW[1].store(own.size, Relaxed);
                    frames(100)
                });
                thread.unwrap().join();
            },
            &mut buf,
        );
        assert_eq!((text, ended), ("", Ended::Exit(42)));
    }
}

fn a_handler_with_sparse_frames_meets_the_guard_of_its_signal_stack() {
    extern "C" fn deep(_: i32) {
        sparse::<61_000>(4);
    }
    for main in [true, false] {
        let mut buf = [0; 512];
        let (text, ended) = stderr_of(
            || {
                // SAFETY: 1. It runs until it dies.
                unsafe { sigaction(Signal::SIGUSR1, Action { mask: SigSet::empty(), ..Action::call(deep) }) }.unwrap();
                let first = spawn(|| {
                    thread::park();
                    raise(Signal::SIGUSR1).unwrap();
                })
                .unwrap();
                let _below = [(); 4].map(|()| spawn(thread::park).unwrap());
                if main {
                    raise(Signal::SIGUSR1).unwrap();
                }
                first.thread().unpark();
                first.join();
            },
            &mut buf,
        );
        assert_eq!(ended, Ended::Signal(k::SIGSEGV), "{text}");
    }
}

fn large_frames_are_reported_too() {
    static STOP: AtomicBool = AtomicBool::new(false);
    static SUM: AtomicUsize = AtomicUsize::new(0);
    /// A frame of several pages, accessed from its low end up where the compiler does not
    /// probe.
    #[inline(never)]
    fn large(n: usize) -> usize {
        let mut frame = [0u8; 3000];
        frame[black_box(n) % 3000] = 1;
        SUM.fetch_add(black_box(&frame)[n % 3000] as usize, Relaxed);
        if STOP.load(Relaxed) { 0 } else { large(black_box(n + 1)) + frame[0] as usize }
    }
    says(|| _ = spawn(|| large(0)).unwrap().join(), "thread '<unnamed>' (tid ");
    says(
        || {
            report_overflows().unwrap();
            large(0);
        },
        "thread 'main' (tid ",
    );
}
