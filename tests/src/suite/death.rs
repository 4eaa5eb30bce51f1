//! Reports and dumps in bad surroundings: on threads that rt0 did not start, in children that were
//! forked past it, and where standard error is closed, full or without a reader.

use core::hint::black_box;
use core::ptr;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use core::time::Duration;

use linux_raw_sys::general as k;
use rt0::signal::{Action, Signal, raise, sigaction};
use rt0::thread::{self, Builder};
use rt0::time::Instant;
use rt0::{Errno, fault, io, sys};
use rt0_tests::reports::{ROOM, Report, has_parts_of_others, named, part, ready, wait_for_ready, with_others};
use rt0_tests::text::Text;
use rt0_tests::{Ended, emulated, machine, skip, stderr_of, wait_a_minute_for, wait_until};

rt0::test_module! {
    the_line_about_overflows_is_no_business_of_a_foreign_thread,
    a_panic_of_a_foreign_thread_has_its_message,
    a_child_forked_past_rt0_is_reported_by_its_threads_name,
    a_child_forked_past_rt0_has_overflows_reported_by_its_threads_name,
    a_child_forked_past_rt0_is_dumped_by_its_threads_name,
    a_fault_kills_though_standard_error_is_closed,
    a_fault_kills_though_the_reader_of_standard_error_is_gone,
    faults_kill_and_dumps_end_though_nothing_reads_standard_error,
    a_report_waits_for_a_slow_reader,
    a_thread_that_waits_in_vfork_is_listed_as_not_answering,
}

/// The flags of a thread that shares everything and lets its maker wait.
const THREAD: u32 = k::CLONE_VM | k::CLONE_SIGHAND | k::CLONE_THREAD | k::CLONE_VFORK;

fn call(nr: u32, args: [usize; 6]) -> Result<usize, Errno> {
    // SAFETY: 1. The tests' calls access only the tests' own memory and descriptors.
    unsafe { sys::syscall(nr as usize, args) }
}

#[inline(never)]
fn fault() {
    // SAFETY: none; the tests want the fault.
    black_box(unsafe { ptr::with_exposed_provenance::<usize>(0x5008).read_volatile() });
}

#[allow(unconditional_recursion)]
#[inline(never)]
fn overflow(n: usize) -> usize {
    let frame = black_box([n as u8; 256]);
    overflow(black_box(n + 1)) + frame[n % 256] as usize
}

/// Runs `work` on a thread that rt0 does not know, and that has no thread pointer where clone(2)
/// can give it none. (On x86 the call wants a descriptor of the pointer's memory.)
fn on_a_foreign_thread(work: fn()) {
    let machine = machine(); // A 64-bit kernel says x86_64 to 32-bit programs too.
    let is_x86 = machine.starts_with(b"i") || machine.starts_with(b"x86_64") && size_of::<usize>() == 4;
    let without_pointer = if is_x86 { 0 } else { k::CLONE_SETTLS };
    rt0_tests::in_raw_child(THREAD | without_pointer, work);
}

/// Skips where an emulator refuses a thread with those flags.
fn skip_without_threads(text: &str) {
    if emulated() && text.contains("clone: Err(") {
        skip("the emulator starts no thread with these flags");
    }
}

fn the_line_about_overflows_is_no_business_of_a_foreign_thread() {
    let mut buf = [0; ROOM];
    let child = || {
        thread::report_overflows().unwrap();
        // The reporter's own fault would be a SIGSEGV.
        on_a_foreign_thread(|| _ = sys::tgkill(sys::getpid(), sys::gettid(), Signal::SIGBUS.raw()));
    };
    let (text, ended) = stderr_of(child, &mut buf);
    skip_without_threads(text);
    assert_eq!((text, ended), ("", Ended::Signal(k::SIGBUS)));
}

fn a_panic_of_a_foreign_thread_has_its_message() {
    let mut buf = [0; ROOM];
    let (text, ended) = stderr_of(|| on_a_foreign_thread(|| panic!("the message")), &mut buf);
    skip_without_threads(text);
    assert_eq!(ended, Ended::Exit(101), "{text}");
    assert!(text.starts_with("\nthread '<not of rt0>' panicked at ") && text.contains("\nthe message\n"), "{text}");
}

/// Standard error of a child that is forked by a raw call on a thread called `forker`.
fn stderr_of_forked(work: fn(), buf: &mut [u8]) -> (&str, Ended) {
    stderr_of(
        || {
            let forker = Builder::new().name("forker").spawn(move || {
                let child = rt0_tests::fork().unwrap();
                if child == 0 {
                    work();
                    sys::exit_group(0);
                }
                match rt0_tests::wait_for(child) {
                    Ended::Exit(status) => sys::exit_group(status as i32),
                    Ended::Signal(signal) => sys::exit_group(128 + signal as i32),
                }
            });
            forker.unwrap().join();
        },
        buf,
    )
}

fn a_child_forked_past_rt0_is_reported_by_its_threads_name() {
    let mut buf = [0; ROOM];
    for explain in [fault::explain, fault::explain_all] {
        explain().unwrap();
        let (text, ended) = stderr_of_forked(fault, &mut buf);
        assert_eq!(ended, Ended::Exit(128 + k::SIGSEGV), "{text}");
        assert!(text.starts_with("\nthread 'forker' (tid ") && text.contains(" got SIGSEGV: "), "{text}");
        assert!(!text.contains("cannot be listed"), "{text}");
        assert_eq!(text.matches("thread '").count(), 1, "{text}");
    }
}

fn a_child_forked_past_rt0_has_overflows_reported_by_its_threads_name() {
    let mut buf = [0; ROOM];
    thread::report_overflows().unwrap();
    let (text, ended) = stderr_of_forked(|| _ = overflow(0), &mut buf);
    assert_eq!(ended, Ended::Exit(128 + k::SIGSEGV), "{text}");
    assert!(text.starts_with("\nthread 'forker' (tid ") && text.contains(" has overflowed its stack: "), "{text}");
}

fn a_child_forked_past_rt0_is_dumped_by_its_threads_name() {
    let mut buf = [0; ROOM];
    let (text, ended) = stderr_of_forked(|| fault::dump_all().unwrap(), &mut buf);
    assert_eq!(ended, Ended::Exit(0), "{text}");
    assert!(part(text, "forker").frames().count() > 0, "{text}");
    assert_eq!(text.matches("thread '").count(), 1, "{text}");
}

/// How a child ends that does this.
fn ended(work: impl FnOnce()) -> Ended {
    match rt0_tests::fork().unwrap() {
        0 => {
            work();
            sys::exit_group(0)
        }
        child => wait_a_minute_for(child),
    }
}

/// Calls `f` while another thread waits.
fn with_another(f: fn()) {
    let _other = named("other", ready);
    wait_for_ready(1);
    f();
}

/// Each way to a report, and how it ends a process.
const WAYS: [(fn(), Ended); 5] = [
    (
        || {
            fault::explain().unwrap();
            fault();
        },
        Ended::Signal(k::SIGSEGV),
    ),
    (
        || {
            fault::explain_all().unwrap();
            with_another(fault);
        },
        Ended::Signal(k::SIGSEGV),
    ),
    (
        || {
            fault::explain().unwrap();
            raise(Signal::SIGILL).unwrap();
        },
        Ended::Signal(k::SIGILL),
    ),
    (
        || {
            fault::dump_on(Signal::SIGQUIT).unwrap();
            with_another(|| raise(Signal::SIGQUIT).unwrap());
        },
        Ended::Signal(k::SIGQUIT),
    ),
    (
        || {
            thread::report_overflows().unwrap();
            overflow(0);
        },
        Ended::Signal(k::SIGSEGV),
    ),
];

/// Makes `fd` descriptor 2.
fn dup_to_2(fd: &impl io::AsRawFd) {
    call(k::__NR_dup3, [fd.as_raw_fd() as usize, 2, 0, 0, 0, 0]).unwrap();
}

fn a_fault_kills_though_standard_error_is_closed() {
    for (way, expected) in WAYS {
        let ended = ended(|| {
            call(k::__NR_close, [2, 0, 0, 0, 0, 0]).unwrap();
            way();
        });
        assert_eq!(ended, expected);
    }
}

fn a_fault_kills_though_the_reader_of_standard_error_is_gone() {
    for (way, expected) in WAYS {
        let ended = ended(|| {
            let (read, write) = sys::pipe().unwrap();
            dup_to_2(&write);
            drop(read);
            way();
        });
        assert_eq!(ended, expected);
    }
}

/// A pipe without room.
fn full_pipe() -> (sys::OwnedFd, sys::OwnedFd) {
    let (read, write) = sys::pipe().unwrap();
    // /proc opens the pipe once more, for a writer that does not wait.
    let path = Text::of(format_args!("/proc/self/fd/{}", write.as_raw_fd()));
    let flags = sys::flags::O_WRONLY | sys::flags::O_NONBLOCK | sys::flags::O_CLOEXEC;
    let filler = sys::open(path.as_c(), flags, 0).unwrap();
    let mut written = 0;
    loop {
        match io::write(&filler, &[b'x'; 4096]) {
            Ok(count) => written += count,
            Err(errno) => break assert_eq!(errno, Errno::EAGAIN),
        }
    }
    assert!(written > 0);
    (read, write)
}

fn faults_kill_and_dumps_end_though_nothing_reads_standard_error() {
    // The last one writes its line as any other line is written. The children wait at the same
    // time. An emulator writes a line of its own about a death, and waits.
    let ways = &WAYS[..if emulated() { 0 } else { WAYS.len() - 1 }];
    let mut children = [0; WAYS.len() - 1];
    let (_read, write) = full_pipe();
    let standard = sys::dup(io::stderr()).unwrap();
    dup_to_2(&write);
    for (child, (way, _)) in children.iter_mut().zip(ways) {
        *child = rt0_tests::fork().unwrap();
        if *child == 0 {
            way();
            sys::exit_group(0);
        }
    }
    let begin = Instant::now();
    let dumped = fault::dump_all();
    let time = begin.elapsed();
    dup_to_2(&standard);
    assert_eq!(dumped, Err(Errno::ETIMEDOUT));
    assert!(time >= Duration::from_secs(4), "{time:?}");
    assert_eq!(fault::dump_all(), Ok(()));
    for (child, (_, expected)) in children.into_iter().zip(ways) {
        assert_eq!(wait_a_minute_for(child), *expected);
    }
}

fn a_report_waits_for_a_slow_reader() {
    let (read, write) = full_pipe();
    let child = rt0_tests::fork().unwrap();
    if child == 0 {
        dup_to_2(&write);
        fault::explain().unwrap();
        fault();
    }
    drop(write);
    thread::sleep(Duration::from_millis(300)); // So that it waits; it may be slow.
    let mut buf = [0; ROOM];
    let mut len = 0;
    loop {
        match io::read(&read, &mut buf[len..]).unwrap() {
            0 => break,
            count => len += count,
        }
        if buf[..len].iter().all(|byte| *byte == b'x') {
            len = 0;
        }
    }
    assert_eq!(wait_a_minute_for(child), Ended::Signal(k::SIGSEGV));
    let text = core::str::from_utf8(&buf[..len]).unwrap().trim_start_matches('x');
    assert!(text.starts_with("\nthread 'main' (tid ") && Report { text }.registers().count() >= 13, "{text}");
}

/// The thread sleeps in the kernel, where no signal but SIGKILL reaches it.
fn a_thread_that_waits_in_vfork_is_listed_as_not_answering() {
    static CHILD: AtomicU32 = AtomicU32::new(0);
    static IS_OVER: AtomicU32 = AtomicU32::new(0);
    if emulated() {
        skip("an emulator makes a plain fork of vfork(2)");
    }
    extern "C" fn nothing(_: i32) {}
    // SAFETY: 1. It does nothing.
    unsafe { sigaction(Signal::SIGUSR1, Action::call(nothing)) }.unwrap();
    let mut buf = [0; ROOM];
    let (text, ended) = stderr_of(
        || {
            let waiting = Builder::new().name("in vfork").spawn(|| {
                rt0_tests::in_raw_child(k::CLONE_VM | k::CLONE_VFORK | k::SIGCHLD, || {
                    CHILD.store(sys::gettid(), Relaxed);
                    while IS_OVER.load(Relaxed) == 0 {
                        sys::sched_yield();
                    }
                });
            });
            wait_until("a child of vfork", || CHILD.load(Relaxed) != 0);
            with_others(|| {
                let begin = Instant::now();
                fault::dump_all().unwrap();
                assert!(begin.elapsed() < Duration::from_secs(30));
                IS_OVER.store(1, Relaxed);
                waiting.unwrap().join();
            });
        },
        &mut buf,
    );
    assert_eq!(ended, Ended::Exit(0), "{text}");
    let line = text.split("\nthread 'in vfork' (tid ").nth(1).and_then(|rest| rest.lines().next());
    assert!(line.is_some_and(|line| line.ends_with(") does not answer")), "{text}");
    has_parts_of_others(text);
}
