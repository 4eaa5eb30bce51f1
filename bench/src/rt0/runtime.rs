//! rt0, as a user would use it.

use core::ffi::CStr;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use core::time::Duration;

use rt0::signal::{self, Action, Signal};
use rt0::sync::{Condvar, Mutex, MutexGuard, Once, Parker, RwLock};
use rt0::time::{ClockId, Instant};
use rt0::{all_threads, io, sys, thread};
use rt0_bench::{Runtime, Stage};

pub struct Rt0;

static STAGE: Stage<Rt0> = Stage::new();
static RWLOCK: RwLock<u64> = RwLock::new(0);
static ONCE: Once = Once::new();
/// The process to signal: asking each time would be two more calls.
static PROCESS: AtomicU32 = AtomicU32::new(0);
static THREAD: AtomicU32 = AtomicU32::new(0);

/// Ends the program with the error.
pub fn must<T>(what: &str, result: rt0::Result<T>) -> T {
    result.unwrap_or_else(|errno| {
        rt0::eprintln!("{what}: {errno}");
        sys::exit_group(1)
    })
}

impl Runtime for Rt0 {
    const SIGNALS: bool = true;
    const ALL_THREADS: bool = true;

    fn stage() -> &'static Stage<Rt0> {
        &STAGE
    }

    fn write(fd: i32, text: &[u8]) {
        // SAFETY: 1. The benchmark's own.
        let fd = unsafe { io::BorrowedFd::borrow_raw(fd) };
        let _ = io::write_all(fd, text); // An error cannot be reported.
    }

    fn read_file(path: &'static CStr, buf: &mut [u8]) -> usize {
        let file = must("open", sys::open(path, sys::flags::O_RDONLY, 0));
        must("read", io::read(&file, buf))
    }

    fn count_lines(path: &'static CStr) -> usize {
        let file = must("open", sys::open(path, sys::flags::O_RDONLY, 0));
        let mut lines = 0;
        let mut buf = [0; 4096];
        loop {
            match must("read", io::read(&file, &mut buf)) {
                0 => return lines,
                len => lines += buf[..len].iter().filter(|byte| **byte == b'\n').count(),
            }
        }
    }

    fn now_ns() -> u64 {
        let now = must("clock_gettime", ClockId::CLOCK_MONOTONIC.now());
        now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
    }

    fn sleep_ns(ns: u64) {
        thread::sleep(Duration::from_nanos(ns));
    }

    fn pin(cpu: Option<usize>) -> bool {
        let mask = match cpu {
            None => [usize::MAX; 16],
            Some(cpu) => core::array::from_fn(|word| if word == 0 { 1 << cpu } else { 0 }),
        };
        sys::sched_setaffinity(0, &mask).is_ok()
    }

    #[inline(always)]
    fn null_syscall() -> u32 {
        sys::getppid()
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
        mutex.lock()
    }

    type Condvar = Condvar;
    const CONDVAR: Condvar = Condvar::new();

    #[inline(always)]
    fn wait<'a>(condvar: &Condvar, guard: Self::Guard<'a>) -> Self::Guard<'a> {
        condvar.wait(guard)
    }

    #[inline(always)]
    fn notify(condvar: &Condvar) {
        condvar.notify_one();
    }

    #[inline(always)]
    fn read_locked() {
        drop(core::hint::black_box(RWLOCK.read()));
    }

    #[inline(always)]
    fn call_once() {
        ONCE.call_once(|| {});
    }

    type Event = Parker;
    const EVENT: Parker = Parker::new();

    fn attach(_: &Parker) {}

    #[inline(always)]
    fn post(event: &Parker) {
        event.unpark();
    }

    #[inline(always)]
    fn await_post(event: &Parker) {
        event.park();
    }

    type Thread = thread::JoinHandle<()>;

    fn spawn(f: fn(usize), argument: usize) -> thread::JoinHandle<()> {
        must("spawn", thread::spawn(move || f(argument)))
    }

    fn join(thread: thread::JoinHandle<()>) {
        thread.join();
    }

    fn catch_signal() {
        extern "C" fn nothing(_: i32) {}
        // SAFETY: 1. It does nothing.
        must("sigaction", unsafe { signal::sigaction(Signal::SIGUSR1, Action::call(nothing)) });
        PROCESS.store(sys::getpid(), Relaxed);
        THREAD.store(sys::gettid(), Relaxed);
    }

    #[inline(always)]
    fn raise() {
        must("tgkill", sys::tgkill(PROCESS.load(Relaxed), THREAD.load(Relaxed), Signal::SIGUSR1.raw()));
    }

    #[inline(always)]
    fn setresuid_everywhere() {
        if let Err(error) = all_threads::setresuid(u32::MAX, u32::MAX, u32::MAX) {
            must("setresuid", Err(error.errno_or_abort()))
        }
    }
}
