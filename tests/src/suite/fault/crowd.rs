//! Faults in a process with several threads.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use linux_raw_sys::general as k;
use rt0::thread::{self, spawn};
use rt0::{Errno, fault};
use rt0_tests::reports::{
    ROOM, Report, block_33, has_frames, has_parts_of_others, named, ready, wait_for_ready, with_others,
};
use rt0_tests::{Ended, emulated, skip, stderr_of};

use super::{NOWHERE, outer};

rt0::test_module! {
    threads_that_fault_together_tell_whole_reports,
    a_fault_and_a_panic_tell_the_other_threads_after_their_own,
    threads_that_fault_together_make_one_dump,
    a_thread_that_rt0_did_not_start_is_told_as_that_and_does_not_dump,
}

fn threads_that_fault_together_tell_whole_reports() {
    const THREADS: usize = 4;
    static READY: AtomicU32 = AtomicU32::new(0);
    let mut buf = [0; ROOM];
    for _ in 0..rt0_tests::often(20) {
        let (text, ended) = stderr_of(
            || {
                fault::explain().unwrap();
                let all = [(); THREADS].map(|()| {
                    spawn(|| {
                        READY.fetch_add(1, Relaxed);
                        while READY.load(Relaxed) < THREADS as u32 {
                            thread::yield_now();
                        }
                        outer(NOWHERE);
                    })
                    .unwrap()
                });
                all.into_iter().for_each(|thread| thread.join());
            },
            &mut buf,
        );
        assert_eq!(ended, Ended::Signal(k::SIGSEGV), "{text}");
        let mut reports = 0;
        for part in text.split("\nthread '").skip(1) {
            assert!(part.starts_with("<unnamed>' (tid ") && part.contains(" got SIGSEGV: "), "{text}");
            assert!(Report { text: part }.registers().count() >= 13 && part.contains(", address 0x5"), "{text}");
            reports += 1;
        }
        assert!((1..=THREADS).contains(&reports), "{text}");
    }
}

fn a_fault_and_a_panic_tell_the_other_threads_after_their_own() {
    let mut buf = [0; ROOM];
    for panics in [false, true] {
        let (text, ended) = stderr_of(
            || {
                fault::explain_all().unwrap();
                with_others(|| if panics { panic!("the message") } else { _ = outer(NOWHERE) });
            },
            &mut buf,
        );
        assert_eq!(ended, if panics { Ended::Exit(101) } else { Ended::Signal(k::SIGSEGV) }, "{text}");
        assert!(text.starts_with("\nthread 'main' "), "{text}");
        assert!(text.contains(if panics { "the message" } else { " got SIGSEGV: " }), "{text}");
        has_parts_of_others(text);
    }
}

/// The second waits until the first has told all; then the process is dead.
fn threads_that_fault_together_make_one_dump() {
    let mut buf = [0; ROOM];
    let (text, ended) = stderr_of(
        || {
            fault::explain_all().unwrap();
            let _deaf = named("deaf", || {
                block_33();
                ready();
            });
            wait_for_ready(1);
            with_others(|| {
                let _second = named("second", || _ = outer(NOWHERE));
                outer(NOWHERE);
            });
        },
        &mut buf,
    );
    assert_eq!(ended, Ended::Signal(k::SIGSEGV), "{text}");
    assert_eq!(text.matches("thread 'deaf' (tid ").count(), 1, "{text}");
    has_parts_of_others(text);
}

fn a_thread_that_rt0_did_not_start_is_told_as_that_and_does_not_dump() {
    let flags = k::CLONE_VM | k::CLONE_SIGHAND | k::CLONE_THREAD | k::CLONE_VFORK;
    let mut buf = [0; ROOM];
    let (text, ended) = stderr_of(
        || {
            fault::explain_all().unwrap();
            rt0_tests::in_raw_child(flags, || {
                assert_eq!(fault::dump_all(), Err(Errno::EOPNOTSUPP));
                outer(NOWHERE);
            });
        },
        &mut buf,
    );
    if emulated() && text.contains("clone: Err(") {
        skip("the emulator starts no thread with these flags");
    }
    assert_eq!(ended, Ended::Signal(k::SIGSEGV), "{text}");
    assert!(text.starts_with("\na thread that rt0 did not start (tid "), "{text}");
    let seen = Report { text };
    assert_eq!(seen.is_called_by(outer as *const () as usize), has_frames(), "{text}");
    assert!(text.ends_with("the other threads cannot be listed\n"), "{text}");
}
