//! Calls that fail on all threads or on some.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use linux_raw_sys::general as k;
use rt0::all_threads::{self, Error};
use rt0::test::Expect;
use rt0::thread::spawn;
use rt0::{Errno, sys};
use rt0_tests::files::{empty, own_mounts};
use rt0_tests::seccomp::filter_calls;
use rt0_tests::{emulated, wait_until};

use super::{Sleepers, count_all, counted, counter, flag, set_flag_on_all, skip_without};

rt0::test_module! {
    a_refused_call_reaches_no_other_thread,
    a_call_that_only_the_caller_is_refused_reaches_no_other_thread,
    a_thread_with_another_result_is_named,
    a_result_that_differs_by_nature_is_a_mismatch_of_each,
    or_abort_ends_a_process_whose_threads_differ =>
        Expect::signal(6)
            .stderr("rt0: fatal: a system call on all threads left them different: thread "),
    or_abort_hands_on_what_the_kernel_refused,
    only_a_thread_that_is_alone_in_its_process_may_unshare_it,
    where_unshare_is_refused_a_call_alone_is_made_all_the_same,
    without_proc_the_threads_of_the_list_make_the_call,
    where_33_cannot_be_caught_it_is_not_supported,
    where_33_cannot_be_sent_it_is_not_supported,
    a_full_queue_of_signals_is_eagain_and_no_thread_makes_the_call,
}

fn a_refused_call_reaches_no_other_thread() {
    let counter = counter();
    let sleepers = Sleepers::<3>::start();
    let bad = [counter, 8, 8, 0, 0, 0];
    // SAFETY: 1. Refused.
    let refused = unsafe { all_threads::syscall(k::__NR_write as usize, bad) };
    assert!(matches!(refused, Err(Error::Refused(Errno::EFAULT))), "{refused:?}");
    assert!(matches!(set_flag_on_all(2), Err(Error::Refused(Errno::EINVAL))));
    assert_eq!(sleepers.end(), [0; 3]);
}

fn a_call_that_only_the_caller_is_refused_reaches_no_other_thread() {
    let sleepers = Sleepers::<3>::start();
    let refused = spawn(|| {
        if let Err(errno) = filter_calls(&[k::__NR_prctl], 0x5_0000 | Errno::EXDEV.raw() as u32) {
            skip_without(errno, "no seccomp filters here");
        }
        set_flag_on_all(1)
    });
    let refused = refused.unwrap().join();
    assert!(matches!(refused, Err(Error::Refused(Errno::EXDEV))), "{refused:?}");
    assert_eq!(sleepers.end(), [0; 3]);
}

fn a_thread_with_another_result_is_named() {
    static TID: AtomicU32 = AtomicU32::new(0);
    let sleepers = Sleepers::<3>::start();
    static END: AtomicBool = AtomicBool::new(false);
    let other = spawn(|| {
        if let Err(errno) = filter_calls(&[k::__NR_prctl], 0x5_0000 | Errno::EXDEV.raw() as u32) {
            skip_without(errno, "no seccomp filters here");
        }
        TID.store(sys::gettid(), Relaxed);
        wait_until("the end", || END.load(Relaxed));
    })
    .unwrap();
    wait_until("the filter", || TID.load(Relaxed) != 0);
    let Err(Error::Diverged(divergence)) = set_flag_on_all(1) else { panic!("no divergence") };
    let mismatch = divergence.mismatches().next().unwrap();
    assert_eq!((mismatch.tid, mismatch.expected, mismatch.got), (TID.load(Relaxed), 0, Err(Errno::EXDEV)));
    assert_eq!((divergence.mismatch_count(), divergence.unlisted_count()), (1, 0));
    END.store(true, Relaxed);
    other.join();
    assert_eq!(sleepers.end(), [1; 3], "all others made it");
    assert!(set_flag_on_all(0).is_ok());
}

fn a_result_that_differs_by_nature_is_a_mismatch_of_each() {
    let sleepers = Sleepers::<20>::start();
    // SAFETY: 1. It only asks.
    let Err(Error::Diverged(divergence)) = (unsafe { all_threads::syscall(k::__NR_gettid as usize, [0; 6]) }) else {
        panic!("no divergence")
    };
    assert_eq!((divergence.mismatch_count(), divergence.mismatches().count()), (20, 4));
    assert!(divergence.mismatches().all(|one| one.got == Ok(one.tid as usize)));
    sleepers.end();
}

fn or_abort_ends_a_process_whose_threads_differ() {
    let _sleepers = Sleepers::<1>::start();
    // SAFETY: 1. It only asks.
    let refused = unsafe { all_threads::syscall(k::__NR_gettid as usize, [0; 6]) }.map_err(Error::errno_or_abort);
    panic!("it went on: {refused:?}");
}

fn or_abort_hands_on_what_the_kernel_refused() {
    assert_eq!(set_flag_on_all(2).map_err(Error::errno_or_abort), Err(Errno::EINVAL));
}

/// A call on all threads uses this to see that the caller is the only thread.
fn only_a_thread_that_is_alone_in_its_process_may_unshare_it() {
    // SAFETY: 1. It changes nothing.
    let unshare = || unsafe { sys::syscall(k::__NR_unshare as usize, [k::CLONE_THREAD as usize, 0, 0, 0, 0, 0]) };
    // An emulator has its own threads.
    if !emulated() {
        unshare().unwrap();
    }
    let sleepers = Sleepers::<1>::start();
    assert_eq!(unshare(), Err(Errno::EINVAL));
    sleepers.end();
    set_flag_on_all(1).unwrap();
}

fn where_unshare_is_refused_a_call_alone_is_made_all_the_same() {
    if let Err(errno) = filter_calls(&[k::__NR_unshare], 0x5_0000 | Errno::EPERM.raw() as u32) {
        skip_without(errno, "no seccomp filters here");
    }
    set_flag_on_all(1).unwrap();
    assert_eq!(flag(), 1);
}

/// Then only rt0's own list says which threads there are.
fn without_proc_the_threads_of_the_list_make_the_call() {
    own_mounts();
    empty(c"/proc");
    let counter = counter();
    let sleepers = Sleepers::<3>::start();
    assert_eq!(count_all(counter).unwrap(), 8);
    assert_eq!(counted(counter), 4);
    set_flag_on_all(1).unwrap();
    assert_eq!(sleepers.end(), [1; 3]);
}

fn where_33_cannot_be_caught_it_is_not_supported() {
    let sleepers = Sleepers::<1>::start();
    if let Err(errno) = filter_calls(&[k::__NR_rt_sigaction], 0x5_0000 | Errno::EINVAL.raw() as u32) {
        skip_without(errno, "no seccomp filters here");
    }
    assert!(matches!(set_flag_on_all(1), Err(Error::Refused(Errno::EOPNOTSUPP))));
    assert_eq!((flag(), sleepers.end()), (0, [0]));
}

fn where_33_cannot_be_sent_it_is_not_supported() {
    let sleepers = Sleepers::<1>::start();
    if let Err(errno) = filter_calls(&[k::__NR_tgkill], 0x5_0000 | Errno::EINVAL.raw() as u32) {
        skip_without(errno, "no seccomp filters here");
    }
    assert!(matches!(set_flag_on_all(1), Err(Error::Refused(Errno::EOPNOTSUPP))));
    assert_eq!((flag(), sleepers.end()), (0, [0]));
}

fn a_full_queue_of_signals_is_eagain_and_no_thread_makes_the_call() {
    let sleepers = Sleepers::<2>::start();
    set_flag_on_all(0).unwrap();
    let none = [0u64; 2];
    let limit = [0, k::RLIMIT_SIGPENDING as usize, (&raw const none).expose_provenance(), 0, 0, 0];
    // SAFETY: 1. The kernel reads the limits.
    unsafe { sys::syscall(k::__NR_prlimit64 as usize, limit) }.unwrap();
    assert!(matches!(set_flag_on_all(1), Err(Error::Refused(Errno::EAGAIN))));
    assert_eq!((flag(), sleepers.end()), (0, [0, 0]));
}
