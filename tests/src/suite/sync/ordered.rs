//! The fast paths of the locks, each in its own function. `cargo xtask test` checks their machine
//! code: `acquires_…` returns only after it acquired, `releases_…` only after it released. See
//! xtask/src/orders.rs.

use rt0::sync::{Mutex, MutexGuard, Once, OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard, Semaphore};
use rt0::thread::Thread;

/// The locks that the functions below are called with.
pub struct Locks {
    mutex: Mutex<u32>,
    rwlock: RwLock<u32>,
    once: Once,
    cell: OnceLock<u32>,
}

impl Locks {
    /// None is locked.
    pub const fn new() -> Locks {
        Locks { mutex: Mutex::new(0), rwlock: RwLock::new(0), once: Once::new(), cell: OnceLock::new() }
    }
}

/// Calls each of the functions; panics if one does not do what its lock promises.
pub fn call_all(locks: &'static Locks) {
    let semaphore = Semaphore::new(2);
    for round in 0..3 {
        releases_by_a_mutexs_guard(acquires_by_mutex_lock(&locks.mutex), round);
        releases_by_a_mutexs_guard(acquires_by_mutex_try_lock(&locks.mutex), round);
        assert_eq!(*locks.mutex.lock(), round);
        releases_by_a_writers_guard(acquires_by_rwlock_write(&locks.rwlock), round);
        let guard = acquires_by_rwlock_read(&locks.rwlock);
        assert_eq!(*guard, round);
        releases_by_a_readers_guard(guard);
        acquires_by_once_call_once(&locks.once, &raw const round);
        let _ = locks.cell.set(7);
        assert_eq!(acquires_by_once_lock_get(&locks.cell), 7);
        acquires_by_semaphore_acquire(&semaphore);
        semaphore.release(1).expect("there is room for it");
        releases_by_unpark(&rt0::thread::current());
        rt0::thread::park();
    }
}

/// What a function without a guard reads or writes while it has the lock: its caller's memory.
type Data = *const u32;

#[cold]
#[inline(never)]
fn not_there() -> ! {
    panic!("it is free")
}

#[inline(never)]
#[unsafe(no_mangle)]
fn acquires_by_mutex_lock(mutex: &'static Mutex<u32>) -> MutexGuard<'static, u32> {
    mutex.lock()
}

#[inline(never)]
#[unsafe(no_mangle)]
fn acquires_by_mutex_try_lock(mutex: &'static Mutex<u32>) -> MutexGuard<'static, u32> {
    mutex.try_lock().unwrap_or_else(|| not_there())
}

#[inline(never)]
#[unsafe(no_mangle)]
fn releases_by_a_mutexs_guard(mut guard: MutexGuard<'static, u32>, value: u32) {
    *guard = value;
    drop(guard);
}

#[inline(never)]
#[unsafe(no_mangle)]
fn acquires_by_rwlock_read(rwlock: &'static RwLock<u32>) -> RwLockReadGuard<'static, u32> {
    rwlock.read()
}

#[inline(never)]
#[unsafe(no_mangle)]
fn releases_by_a_readers_guard(guard: RwLockReadGuard<'static, u32>) {
    drop(guard);
}

#[inline(never)]
#[unsafe(no_mangle)]
fn acquires_by_rwlock_write(rwlock: &'static RwLock<u32>) -> RwLockWriteGuard<'static, u32> {
    rwlock.write()
}

#[inline(never)]
#[unsafe(no_mangle)]
fn releases_by_a_writers_guard(mut guard: RwLockWriteGuard<'static, u32>, value: u32) {
    *guard = value;
    drop(guard);
}

#[inline(never)]
#[unsafe(no_mangle)]
fn acquires_by_once_call_once(once: &Once, data: Data) {
    once.call_once(|| first(data));
}

#[cold]
#[inline(never)]
fn first(data: Data) {
    core::hint::black_box(data);
}

#[inline(never)]
#[unsafe(no_mangle)]
fn acquires_by_once_lock_get(cell: &OnceLock<u32>) -> u32 {
    match cell.get() {
        Some(value) => *value,
        None => not_there(),
    }
}

#[inline(never)]
#[unsafe(no_mangle)]
fn acquires_by_semaphore_acquire(semaphore: &Semaphore) {
    semaphore.acquire();
}

#[inline(never)]
#[unsafe(no_mangle)]
fn releases_by_unpark(thread: &Thread) {
    thread.unpark();
}
