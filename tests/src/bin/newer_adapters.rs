//! The adapter for allocator-api2, and those for versions of others' crates that came later or
//! earlier than those of `adapters`.
#![no_std]
#![no_main]

use core::alloc::Layout;
use core::cell::Cell;
use core::ffi::{c_int, c_long};
use core::ptr::null_mut;
use core::time::Duration;

use allocator_api2::alloc::Allocator;
use linux_raw_sys::general as k;
use lock_api_05::{MutexGuard, RwLockWriteGuard};
use rt0::Errno;
use rt0::adapters::lock_api_05::{Condvar, Mutex, ReentrantMutex, RwLock};
use rt0::mapping::Pages;
use rt0::test::Expect;
use rt0::thread::spawn;
use rt0::time::Instant;
use rt0_tests::seccomp::{Verdict, filter};
use rt0_tests::{assert_mappings, mappings, often};

const TICK: Duration = Duration::from_millis(20);

rt0::tests! {
    mutexes_of_lock_api_05_exclude_and_time_out,
    a_waiter_of_lock_api_05_misses_no_notification,
    a_wait_of_lock_api_05_ends_at_its_deadline_with_the_mutex_locked,
    reader_writer_locks_of_lock_api_05_share_exclude_and_downgrade,
    a_reentrant_mutex_of_lock_api_05_is_its_threads_until_the_last_guard,
    pages_are_allocations_of_every_size_and_alignment,
    an_allocation_without_bytes_has_no_pages,
    an_allocation_that_no_memory_can_hold_is_refused,
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

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

fn pages_are_allocations_of_every_size_and_alignment() {
    let before = mappings();
    for (size, align) in [(1, 1), (5_000, 64), (70_000, 65_536), (3 << 20, 1 << 20)] {
        let (small, large) = (layout(size, align), layout(5 * size, align));
        let block = Pages.allocate_zeroed(small).unwrap();
        assert!(block.len() >= size && block.cast::<u8>().addr().get().is_multiple_of(align), "{small:?}");
        // SAFETY: it is an allocation, and no other reference to it is in use.
        unsafe { &mut *block.as_ptr() }.iter_mut().for_each(|byte| assert!(core::mem::replace(byte, 0xA5) == 0));
        // SAFETY: of this allocator, with this layout.
        let grown = unsafe { Pages.grow_zeroed(block.cast(), small, large) }.unwrap();
        // SAFETY: it is an allocation, and no other reference to it is in use.
        let bytes = unsafe { &*grown.as_ptr() };
        assert!(bytes[..size].iter().all(|byte| *byte == 0xA5), "{small:?}");
        assert!(bytes[block.len()..].iter().all(|byte| *byte == 0), "{small:?}");
        // SAFETY: of this allocator, with this layout.
        let shrunk = unsafe { Pages.shrink(grown.cast(), large, small) }.unwrap();
        // SAFETY: it is an allocation, and no other reference to it is in use.
        assert!(unsafe { &*shrunk.as_ptr() }[..size].iter().all(|byte| *byte == 0xA5), "{small:?}");
        // SAFETY: of this allocator, with this layout, and not used again.
        unsafe { Pages.deallocate(shrunk.cast(), small) };
    }
    assert_mappings(before..=before);
}

fn an_allocation_without_bytes_has_no_pages() {
    let before = mappings();
    let (none, some) = (layout(0, 64), layout(64, 64));
    let block = Allocator::allocate(&Pages, none).unwrap();
    assert!(block.is_empty() && block.cast::<u8>().addr().get().is_multiple_of(64));
    // SAFETY: of this allocator, with this layout.
    let block = unsafe { Pages.grow(block.cast(), none, some) }.unwrap();
    // SAFETY: of this allocator, with this layout.
    let block = unsafe { Pages.shrink(block.cast(), some, none) }.unwrap();
    // SAFETY: of this allocator, with this layout, and not used again.
    unsafe { Pages.deallocate(block.cast(), none) };
    assert_mappings(before..=before);
}

fn an_allocation_that_no_memory_can_hold_is_refused() {
    let most = isize::MAX as usize - 0xFFFF;
    // A 32-bit process may have room for one such block, but not for two.
    let held = Allocator::allocate(&Pages, layout(most, 1));
    assert!(held.is_err() || usize::BITS == 32);
    assert!(Allocator::allocate(&Pages, layout(most, 1)).is_err());
    assert!(Allocator::allocate(&Pages, layout(most, 0x1_0000)).is_err());
    let block = Allocator::allocate(&Pages, layout(1, 1)).unwrap();
    // SAFETY: of this allocator, with this layout.
    assert!(unsafe { Pages.grow(block.cast(), layout(1, 1), layout(most, 1)) }.is_err());
    // SAFETY: it was not moved, and is not used again.
    unsafe { Pages.deallocate(block.cast(), layout(1, 1)) };
    if let Ok(held) = held {
        // SAFETY: of this allocator, with this layout.
        unsafe { Pages.deallocate(held.cast(), layout(most, 1)) };
    }
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
