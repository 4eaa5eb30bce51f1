//! Dumps of all threads: what they show, that they end, and that they may be made anywhere.

use core::hint::black_box;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use core::time::Duration;

use linux_raw_sys::general as k;
use rt0::signal::{Action, Signal, raise, sigaction};
use rt0::thread::{self, spawn};
use rt0::time::Instant;
use rt0::{Env, Errno, all_threads, fault, sys};
use rt0_tests::reports::{
    ROOM, block_33, has_frames, has_parts_of_others, named, part, ready, wait_for_ready, with_others,
};
use rt0_tests::{Ended, make_secure, stderr_of, wait_until};

/// A dump in a function of its own.
#[inline(never)]
fn dumps() -> Result<(), Errno> {
    black_box(fault::dump_all())
}

fn has_all_parts(text: &str, first: &str) {
    assert!(text.strip_prefix("\nthread '").is_some_and(|text| text.starts_with(first)), "{text}");
    let own = part(text, first);
    assert!(own.frames().count() > 0, "{text}");
    assert!(!has_frames() || own.leads_to(dumps as *const () as usize), "{text}");
    has_parts_of_others(text);
}

rt0::test_module! {
    a_dump_has_the_frames_of_every_thread_under_its_name,
    a_dump_in_a_handler_begins_with_the_thread_that_it_interrupted,
    a_thread_that_does_not_answer_is_named_and_the_others_are_told,
    a_dump_during_a_call_on_all_threads_that_goes_on_tells_the_caller_alone,
    a_signal_that_is_asked_for_dumps_all_threads_and_kills,
    a_dump_of_a_process_with_more_rights_than_its_caller_tells_names,
    dumps_end_while_everything_happens_at_once,
}

fn a_dump_has_the_frames_of_every_thread_under_its_name() {
    let mut buf = [0; ROOM];
    let (text, ended) = stderr_of(
        || {
            with_others(|| dumps().unwrap());
        },
        &mut buf,
    );
    assert_eq!(ended, Ended::Exit(0), "{text}");
    has_all_parts(text, "main");
}

fn a_dump_in_a_handler_begins_with_the_thread_that_it_interrupted() {
    extern "C" fn handler(_: i32) {
        dumps().unwrap();
    }
    let mut buf = [0; ROOM];
    let (text, ended) = stderr_of(
        || {
            // SAFETY: 1. A dump may be made in handlers.
            unsafe { sigaction(Signal::SIGUSR1, Action::call(handler)) }.unwrap();
            with_others(|| raise(Signal::SIGUSR1).unwrap());
        },
        &mut buf,
    );
    assert_eq!(ended, Ended::Exit(0), "{text}");
    has_all_parts(text, "main");
}

fn a_thread_that_does_not_answer_is_named_and_the_others_are_told() {
    let mut buf = [0; ROOM];
    let (text, ended) = stderr_of(
        || {
            let _deaf = named("deaf", || {
                block_33();
                ready();
            });
            wait_for_ready(1);
            with_others(|| dumps().unwrap());
        },
        &mut buf,
    );
    assert_eq!(ended, Ended::Exit(0), "{text}");
    let deaf = text.split("\nthread 'deaf' (tid ").nth(1).and_then(|rest| rest.lines().next());
    assert!(deaf.is_some_and(|line| line.ends_with(") does not answer")), "{text}");
    has_all_parts(text, "main");
}

fn a_dump_during_a_call_on_all_threads_that_goes_on_tells_the_caller_alone() {
    let mut buf = [0; ROOM];
    let (text, ended) = stderr_of(
        || {
            // So that the caller's own frames can be had.
            fault::explain().unwrap();
            let _deaf = named("deaf", || {
                block_33();
                ready();
            });
            wait_for_ready(1);
            let caller = AtomicU32::new(0);
            thread::scope(|scope| {
                scope
                    .spawn(|| {
                        caller.store(sys::gettid(), Relaxed);
                        _ = all_threads::set_no_new_privs();
                    })
                    .unwrap();
                wait_until("a caller", || caller.load(Relaxed) != 0);
                rt0_tests::wait_until_asleep(caller.load(Relaxed));
                assert_eq!(dumps(), Err(Errno::ETIMEDOUT));
                sys::exit_group(0);
            });
        },
        &mut buf,
    );
    assert_eq!(ended, Ended::Exit(0), "{text}");
    assert_eq!(text.matches("thread '").count(), 1, "{text}");
    assert!(part(text, "main").frames().count() > 0, "{text}");
}

fn a_signal_that_is_asked_for_dumps_all_threads_and_kills() {
    let mut buf = [0; ROOM];
    let (text, ended) = stderr_of(
        || {
            fault::dump_on(Signal::SIGQUIT).unwrap();
            with_others(|| raise(Signal::SIGQUIT).unwrap());
        },
        &mut buf,
    );
    assert_eq!(ended, Ended::Signal(k::SIGQUIT), "{text}");
    assert!(text.starts_with("\nthread 'main' (tid ") && text.contains(" got SIGQUIT: sent by process "), "{text}");
    has_parts_of_others(text);
    for signal in fault::SIGNALS.into_iter().chain([Signal::SIGKILL, Signal::SIGSTOP]) {
        assert_eq!(fault::dump_on(signal), Err(Errno::EINVAL));
    }
}

fn a_dump_of_a_process_with_more_rights_than_its_caller_tells_names(env: Env) {
    make_secure(env);
    let mut buf = [0; ROOM];
    let (text, ended) = stderr_of(
        || {
            let _other = named("other", ready);
            wait_for_ready(1);
            fault::dump_all().unwrap();
        },
        &mut buf,
    );
    assert_eq!(ended, Ended::Exit(0), "{text}");
    assert!(text.contains("thread 'main' (tid ") && text.contains("thread 'other' (tid "), "{text}");
    assert!(!text.contains("0x"), "{text}");
}

/// Dumps from threads and handlers, while threads start and end, call each other and fork.
fn dumps_end_while_everything_happens_at_once(env: Env) {
    extern "C" fn handler(_: i32) {
        dump_in_storm();
    }
    fn dump_in_storm() {
        match fault::dump_all() {
            Ok(()) => _ = DONE.fetch_add(1, Relaxed),
            Err(errno) => assert!([Errno::EBUSY, Errno::ETIMEDOUT].contains(&errno), "{errno}"),
        }
    }
    static DONE: AtomicU32 = AtomicU32::new(0);
    let null = sys::open(c"/dev/null", sys::flags::O_WRONLY | sys::flags::O_CLOEXEC, 0).unwrap();
    let standard_error = sys::dup(rt0::io::stderr()).unwrap();
    // SAFETY: 1. Descriptor 2 is this process's.
    let dup = |fd: i32| unsafe { sys::syscall(k::__NR_dup3 as usize, [fd as usize, 2, 0, 0, 0, 0]) }.unwrap();
    dup(null.as_raw_fd());
    // SAFETY: 1. A dump may be made in handlers.
    unsafe { sigaction(Signal::SIGALRM, Action::call(handler)) }.unwrap();
    rt0_tests::alarm_every(Duration::from_millis(7));
    let end = Instant::now() + rt0_tests::stress_time(env);
    let goes_on = || Instant::now() < end || DONE.load(Relaxed) < 10;
    thread::scope(|scope| {
        for _ in 0..2 {
            scope
                .spawn(|| {
                    while goes_on() {
                        dump_in_storm();
                    }
                })
                .unwrap();
        }
        scope
            .spawn(|| {
                while goes_on() {
                    spawn(|| ()).unwrap().join();
                }
            })
            .unwrap();
        scope
            .spawn(|| {
                while goes_on() {
                    _ = all_threads::set_no_new_privs();
                    thread::sleep(Duration::from_millis(1));
                }
            })
            .unwrap();
        scope
            .spawn(|| {
                while goes_on() {
                    // SAFETY: 1. The child makes a dump, and ends.
                    match unsafe { thread::fork() }.unwrap() {
                        thread::Fork::Child => sys::exit_group(i32::from(fault::dump_all().is_err())),
                        thread::Fork::Parent { child } => {
                            assert_eq!(rt0_tests::wait_a_minute_for(child), Ended::Exit(0))
                        }
                    }
                    thread::sleep(Duration::from_millis(5));
                }
            })
            .unwrap();
    });
    rt0_tests::alarm_every(Duration::ZERO);
    dup(standard_error.as_raw_fd());
}
