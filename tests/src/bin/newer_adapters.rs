//! The adapters for versions of others' crates that came later or earlier than those of
//! `adapters`.
#![no_std]
#![no_main]

use core::cell::Cell;
use core::ffi::{c_int, c_long};
use core::ptr::null_mut;
use core::time::Duration;

use linux_raw_sys::general as k;
use lock_api_05::{MutexGuard, RwLockWriteGuard};
use rt0::Errno;
use rt0::adapters::lock_api_05::{Condvar, Mutex, ReentrantMutex, RwLock};
use rt0::test::Expect;
use rt0::thread::spawn;
use rt0::time::Instant;
use rt0_tests::often;
use rt0_tests::seccomp::{Verdict, filter};

const TICK: Duration = Duration::from_millis(20);

rt0::tests! {
    mutexes_of_lock_api_05_exclude_and_time_out,
    a_waiter_of_lock_api_05_misses_no_notification,
    a_wait_of_lock_api_05_ends_at_its_deadline_with_the_mutex_locked,
    reader_writer_locks_of_lock_api_05_share_exclude_and_downgrade,
    a_reentrant_mutex_of_lock_api_05_is_its_threads_until_the_last_guard,
    getrandom_02_fills_what_was_not_initialized,
    getrandom_02_gets_the_number_of_an_error,
    another_call_of_syscall_is_named => Expect::panic("`syscall(-7, …)`"),
}

fn mutexes_of_lock_api_05_exclude_and_time_out() {
    static MUTEX: Mutex<[u32; 2]> = Mutex::new([0; 2]);
    let rounds = often(20_000) as u32;
    let add = move || {
        for _ in 0..rounds {
            *MutexGuard::map(MUTEX.lock(), |both| &mut both[1]) += 1;
        }
    };
    [(); 3].map(|()| spawn(add).unwrap()).into_iter().for_each(|thread| thread.join());
    let mut guard = MUTEX.lock();
    assert_eq!(*guard, [0, 3 * rounds]);
    assert!(MUTEX.is_locked() && MUTEX.try_lock().is_none());
    let start = Instant::now();
    assert!(MUTEX.try_lock_for(TICK).is_none() && MUTEX.try_lock_until(start + TICK).is_none());
    assert!(start.elapsed() >= TICK);
    MutexGuard::unlocked(&mut guard, || assert!(!MUTEX.is_locked() && MUTEX.try_lock_for(TICK).is_some()));
    assert_eq!(guard[1], 3 * rounds);
}

fn a_waiter_of_lock_api_05_misses_no_notification() {
    static TURN: Mutex<u32> = Mutex::new(0);
    static CHANGED: Condvar = Condvar::new();
    let rounds = often(1_000) as u32;
    let take_turns = move |parity: u32| {
        for _ in 0..rounds {
            let mut turn = TURN.lock();
            CHANGED.wait_while(&mut turn, |turn| *turn % 2 != parity);
            *turn += 1;
            // The number of threads that it notified is not counted.
            assert!(!CHANGED.notify_one());
        }
    };
    let other = spawn(move || take_turns(1)).unwrap();
    take_turns(0);
    other.join();
    assert_eq!((*TURN.lock(), CHANGED.notify_all()), (2 * rounds, 0));
}

fn a_wait_of_lock_api_05_ends_at_its_deadline_with_the_mutex_locked() {
    let (mutex, condvar) = (Mutex::new(()), Condvar::new());
    let mut guard = mutex.lock();
    let start = Instant::now();
    assert!(condvar.wait_for(&mut guard, TICK).timed_out());
    assert!(condvar.wait_until(&mut guard, start + 2 * TICK).timed_out());
    assert!(start.elapsed() >= 2 * TICK && mutex.is_locked());
    drop(guard);
    assert!(!mutex.is_locked());
}

fn reader_writer_locks_of_lock_api_05_share_exclude_and_downgrade() {
    let lock = RwLock::new(1);
    {
        let (one, two) = (lock.read(), lock.try_read().unwrap());
        assert_eq!(*one + *two, 2);
        assert!(lock.is_locked() && !lock.is_locked_exclusive());
        assert!(lock.try_write().is_none() && lock.try_write_for(TICK).is_none());
    }
    let mut guard = lock.write();
    assert!(lock.is_locked() && lock.is_locked_exclusive());
    assert!(lock.try_read().is_none() && lock.try_read_for(TICK).is_none());
    *guard = 2;
    let guard = RwLockWriteGuard::downgrade(guard);
    assert_eq!((*guard, *lock.read()), (2, 2));
    drop(guard);
    assert!(!lock.is_locked());
    assert_eq!(lock.try_write_until(Instant::now()).map(|guard| *guard), Some(2));
}

fn a_reentrant_mutex_of_lock_api_05_is_its_threads_until_the_last_guard() {
    static MUTEX: ReentrantMutex<Cell<u32>> = ReentrantMutex::new(Cell::new(0));
    let (first, second) = (MUTEX.lock(), MUTEX.lock());
    first.set(second.get() + 1);
    assert!(MUTEX.is_owned_by_current_thread());
    let other = || spawn(|| MUTEX.try_lock_for(TICK).map(|guard| guard.get())).unwrap().join();
    assert_eq!(other(), None);
    drop(first);
    assert_eq!(other(), None);
    drop(second);
    assert_eq!(other(), Some(1));
    assert!(!MUTEX.is_owned_by_current_thread());
}

rt0::getrandom_02_backend!();

unsafe extern "C" {
    /// How the crate libc declares them.
    fn syscall(number: c_long, ...) -> c_long;
    safe fn __errno_location() -> *mut c_int;
}

/// What getrandom 0.2 does, on another thread than main: its errno is its own.
fn asked(dest: *mut u8, len: usize) -> Result<c_long, c_int> {
    let dest = dest.expose_provenance();
    let ask = move || {
        let dest = core::ptr::with_exposed_provenance_mut::<u8>(dest);
        // SAFETY: 1. The callers' buffers.
        let result = unsafe { syscall(k::__NR_getrandom as c_long, dest, len, 0 as c_int) };
        // SAFETY: it is this thread's.
        if result == -1 { Err(unsafe { __errno_location().read() }) } else { Ok(result) }
    };
    spawn(ask).unwrap().join()
}

fn getrandom_02_fills_what_was_not_initialized() {
    let mut filled = [[0u8; 300]; 2];
    for buf in &mut filled {
        assert_eq!(asked(buf.as_mut_ptr(), buf.len()), Ok(300));
    }
    assert_eq!(asked(null_mut(), 0), Ok(0));
    assert!(filled[0] != filled[1]);
    assert!(filled.iter().all(|buf| buf.iter().skip(200).any(|byte| *byte != 0)));
}

fn getrandom_02_gets_the_number_of_an_error() {
    rt0::vdso::turn_off();
    filter(&[k::__NR_getrandom, k::__NR_openat], Verdict::Refuse(Errno::EACCES), Verdict::Allow);
    let mut byte = 0;
    assert_eq!(asked(&raw mut byte, 1), Err(Errno::EACCES.raw().into()));
    // SAFETY: it is this thread's.
    assert_eq!(unsafe { __errno_location().read() }, 0);
}

fn another_call_of_syscall_is_named() {
    // SAFETY: it makes no call.
    unsafe { syscall(-7) };
}
