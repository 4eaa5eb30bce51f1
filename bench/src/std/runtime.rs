//! std, as a user would use it; with the feature `parking_lot`, parking_lot's locks. Clock, park
//! and threads stay std's.

use std::cell::UnsafeCell;
use std::ffi::CStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Release},
};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rt0_bench::{Runtime, Stage};

use self::locks::{Condvar, Mutex, MutexGuard, Once, RwLock};

pub struct Std;

static STAGE: Stage<Std> = Stage::new();
static RWLOCK: RwLock<u64> = RwLock::new(0);
static ONCE: Once = Once::new();

#[cfg(not(feature = "parking_lot"))]
mod locks {
    pub use std::sync::{Condvar, Mutex, MutexGuard, Once, RwLock, RwLockReadGuard};

    #[inline(always)]
    pub fn lock(mutex: &Mutex<u64>) -> MutexGuard<'_, u64> {
        mutex.lock().unwrap()
    }

    #[inline(always)]
    pub fn wait<'a>(condvar: &Condvar, guard: MutexGuard<'a, u64>) -> MutexGuard<'a, u64> {
        condvar.wait(guard).unwrap()
    }

    #[inline(always)]
    pub fn read(lock: &RwLock<u64>) -> RwLockReadGuard<'_, u64> {
        lock.read().unwrap()
    }
}

#[cfg(feature = "parking_lot")]
mod locks {
    pub use parking_lot::{Condvar, Mutex, MutexGuard, Once, RwLock, RwLockReadGuard};

    #[inline(always)]
    pub fn lock(mutex: &Mutex<u64>) -> MutexGuard<'_, u64> {
        mutex.lock()
    }

    #[inline(always)]
    pub fn wait<'a>(condvar: &Condvar, mut guard: MutexGuard<'a, u64>) -> MutexGuard<'a, u64> {
        condvar.wait(&mut guard);
        guard
    }

    #[inline(always)]
    pub fn read(lock: &RwLock<u64>) -> RwLockReadGuard<'_, u64> {
        lock.read()
    }
}

fn open(path: &CStr) -> File {
    let path = path.to_str().expect("a path of ours");
    File::open(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

impl Runtime for Std {
    fn stage() -> &'static Stage<Std> {
        &STAGE
    }

    fn write(fd: i32, text: &[u8]) {
        // A failure cannot be reported.
        let _ = if fd == 1 { std::io::stdout().write_all(text) } else { std::io::stderr().write_all(text) };
    }

    fn read_file(path: &'static CStr, buf: &mut [u8]) -> usize {
        open(path).read(buf).expect("a file of /proc")
    }

    fn count_lines(path: &'static CStr) -> usize {
        BufReader::new(open(path)).lines().count()
    }

    fn now_ns() -> u64 {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the kernel writes the timespec.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
        now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
    }

    fn sleep_ns(ns: u64) {
        thread::sleep(Duration::from_nanos(ns));
    }

    fn pin(cpu: Option<usize>) -> bool {
        let mask: [u64; 16] = match cpu {
            None => [u64::MAX; 16],
            Some(cpu) => core::array::from_fn(|word| if word == 0 { 1 << cpu } else { 0 }),
        };
        // SAFETY: the kernel reads the mask.
        unsafe { libc::sched_setaffinity(0, size_of_val(&mask), mask.as_ptr().cast()) == 0 }
    }

    #[inline(always)]
    fn null_syscall() -> u32 {
        std::os::unix::process::parent_id()
    }

    #[inline(always)]
    fn read_clock() -> impl Sized {
        Instant::now()
    }

    type Mutex = Mutex<u64>;
    const MUTEX: Mutex<u64> = Mutex::new(0);
    type Guard<'a> = MutexGuard<'a, u64>;

    #[inline(always)]
    fn lock(mutex: &Mutex<u64>) -> MutexGuard<'_, u64> {
        locks::lock(mutex)
    }

    type Condvar = Condvar;
    const CONDVAR: Condvar = Condvar::new();

    #[inline(always)]
    fn wait<'a>(condvar: &Condvar, guard: Self::Guard<'a>) -> Self::Guard<'a> {
        locks::wait(condvar, guard)
    }

    #[inline(always)]
    fn notify(condvar: &Condvar) {
        condvar.notify_one();
    }

    #[inline(always)]
    fn read_locked() {
        drop(core::hint::black_box(locks::read(&RWLOCK)));
    }

    #[inline(always)]
    fn call_once() {
        ONCE.call_once(|| {});
    }

    type Event = Event;
    const EVENT: Event = Event { posted: AtomicBool::new(false), waiter: UnsafeCell::new(None) };

    fn attach(event: &Event) {
        // SAFETY: only the thread that will wait calls this, before any post.
        unsafe { *event.waiter.get() = Some(thread::current()) };
    }

    #[inline(always)]
    fn post(event: &Event) {
        event.posted.store(true, Release);
        // SAFETY: attached before, and not again during a post.
        let waiter = unsafe { &*event.waiter.get() };
        waiter.as_ref().expect("attached").unpark();
    }

    #[inline(always)]
    fn await_post(event: &Event) {
        while !event.posted.swap(false, Acquire) {
            thread::park();
        }
    }

    type Thread = JoinHandle<()>;

    fn spawn(f: fn(usize), argument: usize) -> JoinHandle<()> {
        thread::spawn(move || f(argument))
    }

    fn join(thread: JoinHandle<()>) {
        thread.join().expect("a thread that does not panic");
    }
}

/// A flag, and the thread to unpark.
pub struct Event {
    posted: AtomicBool,
    waiter: UnsafeCell<Option<thread::Thread>>,
}

// SAFETY: the waiter is written before others read it: see `attach`.
unsafe impl Sync for Event {}
