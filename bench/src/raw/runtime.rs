//! The bare kernel as a runtime: the minimal implementation.

use core::cell::{Cell, UnsafeCell};
use core::ffi::CStr;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{
    AtomicPtr, AtomicU32,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
};

use rt0_bench::{Runtime, Stage};

use crate::kernel::{self, Lock, call0, call3, call6, futex_wait, futex_wake};
use crate::vdso;

pub struct Raw;

static STAGE: Stage<Raw> = Stage::new();
static READERS: AtomicU32 = AtomicU32::new(0);
static DONE: AtomicU32 = AtomicU32::new(0);

const THREADS: usize = 4096;
const STACK_SIZE: usize = 16 << 10;

/// The kernel's tid words of the threads, by number; 0 while there is no thread. Only the main
/// thread starts and joins.
static TIDS: [AtomicU32; THREADS] = [const { AtomicU32::new(0) }; THREADS];
/// The threads' stacks, reused by the next thread with this number.
static STACKS: [AtomicPtr<usize>; THREADS] = [const { AtomicPtr::new(core::ptr::null_mut()) }; THREADS];
static FREE: Free = Free(UnsafeCell::new([0; THREADS]), Cell::new(0), Cell::new(0));

/// Free numbers, their count, and the count of numbers ever used.
struct Free(UnsafeCell<[u16; THREADS]>, Cell<usize>, Cell<usize>);

// SAFETY: only the main thread uses it.
unsafe impl Sync for Free {}

impl Free {
    fn take(&self) -> usize {
        match self.1.get().checked_sub(1) {
            Some(left) => {
                self.1.set(left);
                // SAFETY: only the main thread uses it.
                usize::from(unsafe { (*self.0.get())[left] })
            }
            None => {
                self.2.set(self.2.get() + 1);
                self.2.get() - 1
            }
        }
    }

    fn give(&self, nr: usize) {
        // SAFETY: only the main thread uses it.
        unsafe { (*self.0.get())[self.1.get()] = nr as u16 };
        self.1.set(self.1.get() + 1);
    }
}

pub struct Mutex(Lock, UnsafeCell<u64>);

// SAFETY: the number is accessed only under the lock.
unsafe impl Sync for Mutex {}

pub struct Guard<'a>(&'a Mutex);

impl Deref for Guard<'_> {
    type Target = u64;

    #[inline(always)]
    fn deref(&self) -> &u64 {
        // SAFETY: the guard holds the lock.
        unsafe { &*self.0.1.get() }
    }
}

impl DerefMut for Guard<'_> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut u64 {
        // SAFETY: the guard holds the lock.
        unsafe { &mut *self.0.1.get() }
    }
}

impl Drop for Guard<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.0.unlock();
    }
}

/// A sequence number that changes with each notification, and its waiters.
pub struct Condvar {
    sequence: AtomicU32,
    waiters: AtomicU32,
}

/// 0: not posted; 1: posted; 2: not posted, and a thread sleeps.
pub struct Event(AtomicU32);

fn open(path: &CStr) -> usize {
    // SAFETY: 1. The kernel reads the path.
    unsafe { call3(2, path.as_ptr().expose_provenance(), 0, 0) as usize }
}

fn read(fd: usize, buf: &mut [u8]) -> usize {
    // SAFETY: 1. The kernel fills the buffer.
    unsafe { call3(0, fd, buf.as_mut_ptr().expose_provenance(), buf.len()) as usize }
}

fn close(fd: usize) {
    // SAFETY: 1. This function opened it.
    unsafe { call3(3, fd, 0, 0) };
}

impl Runtime for Raw {
    const SIGNALS: bool = true;
    const ALL_THREADS: bool = true;
    const MEMORY: bool = false;

    fn stage() -> &'static Stage<Raw> {
        &STAGE
    }

    fn write(fd: i32, text: &[u8]) {
        kernel::write(fd, text);
    }

    fn read_file(path: &'static CStr, buf: &mut [u8]) -> usize {
        let fd = open(path);
        let len = read(fd, buf);
        close(fd);
        len
    }

    fn count_lines(path: &'static CStr) -> usize {
        let fd = open(path);
        let mut lines = 0;
        let mut buf = [0; 4096];
        loop {
            match read(fd, &mut buf) {
                0 => break,
                len => lines += buf[..len].iter().filter(|byte| **byte == b'\n').count(),
            }
        }
        close(fd);
        lines
    }

    #[inline(always)]
    fn now_ns() -> u64 {
        let [seconds, nanoseconds] = vdso::monotonic();
        seconds * 1_000_000_000 + nanoseconds
    }

    fn sleep_ns(ns: u64) {
        let span = [ns / 1_000_000_000, ns % 1_000_000_000];
        // SAFETY: 1. The kernel reads the span.
        unsafe { call3(35, span.as_ptr().expose_provenance(), 0, 0) };
    }

    fn pin(cpu: Option<usize>) -> bool {
        let mask: [usize; 16] = match cpu {
            None => [usize::MAX; 16],
            Some(cpu) => core::array::from_fn(|word| if word == 0 { 1 << cpu } else { 0 }),
        };
        // SAFETY: 1. The kernel reads the mask.
        unsafe { call3(203, 0, size_of_val(&mask), mask.as_ptr().expose_provenance()) == 0 }
    }

    #[inline(always)]
    fn null_syscall() -> u32 {
        call0(110) as u32
    }

    #[inline(always)]
    fn read_clock() -> impl Sized {
        vdso::monotonic()
    }

    type Mutex = Mutex;
    const MUTEX: Mutex = Mutex(Lock::new(), UnsafeCell::new(0));
    type Guard<'a> = Guard<'a>;

    #[inline(always)]
    fn lock(mutex: &Mutex) -> Guard<'_> {
        mutex.0.lock();
        Guard(mutex)
    }

    type Condvar = Condvar;
    const CONDVAR: Condvar = Condvar { sequence: AtomicU32::new(0), waiters: AtomicU32::new(0) };

    #[inline(always)]
    fn wait<'a>(condvar: &Condvar, guard: Self::Guard<'a>) -> Self::Guard<'a> {
        let mutex = guard.0;
        let seen = condvar.sequence.load(Relaxed);
        condvar.waiters.fetch_add(1, SeqCst);
        drop(guard);
        futex_wait(&condvar.sequence, seen, true);
        condvar.waiters.fetch_sub(1, Relaxed);
        Raw::lock(mutex)
    }

    #[inline(always)]
    fn notify(condvar: &Condvar) {
        condvar.sequence.fetch_add(1, SeqCst);
        if condvar.waiters.load(SeqCst) != 0 {
            futex_wake(&condvar.sequence, 1);
        }
    }

    #[inline(always)]
    fn read_locked() {
        READERS.fetch_add(1, Acquire);
        READERS.fetch_sub(1, Release);
    }

    #[inline(always)]
    fn call_once() {
        #[cold]
        #[inline(never)]
        fn first() {
            DONE.store(1, Release);
        }
        if DONE.load(Acquire) == 0 {
            first();
        }
    }

    type Event = Event;
    const EVENT: Event = Event(AtomicU32::new(0));

    fn attach(_: &Event) {}

    #[inline(always)]
    fn post(event: &Event) {
        if event.0.swap(1, Release) == 2 {
            futex_wake(&event.0, 1);
        }
    }

    #[inline(always)]
    fn await_post(event: &Event) {
        while event.0.compare_exchange(1, 0, Acquire, Relaxed).is_err() {
            if event.0.compare_exchange(0, 2, Relaxed, Relaxed) != Err(1) {
                futex_wait(&event.0, 2, true);
            }
        }
    }

    type Thread = usize;

    #[inline(always)]
    fn spawn(f: fn(usize), argument: usize) -> usize {
        let nr = FREE.take();
        let mut stack = STACKS[nr].load(Relaxed);
        if stack.is_null() {
            // SAFETY: 1. New memory: read, write; private, anonymous.
            let base = unsafe { call6(9, [0, STACK_SIZE, 3, 0x22, usize::MAX, 0]) };
            stack = core::ptr::with_exposed_provenance_mut(base as usize);
            STACKS[nr].store(stack, Relaxed);
        }
        TIDS[nr].store(1, Relaxed);
        // SAFETY: 1. The number is this thread's until it is joined.
        unsafe { kernel::spawn(stack.wrapping_byte_add(STACK_SIZE), &TIDS[nr], f, argument) };
        nr
    }

    #[inline(always)]
    fn join(nr: usize) {
        kernel::join(&TIDS[nr]);
        FREE.give(nr);
    }

    fn catch_signal() {
        handle(10, nothing);
        PROCESS.store(call0(39) as u32, Relaxed);
        THREAD.store(call0(186) as u32, Relaxed);
    }

    #[inline(always)]
    fn raise() {
        let (process, thread) = (PROCESS.load(Relaxed), THREAD.load(Relaxed));
        // SAFETY: 1. Its handler does nothing.
        unsafe { call3(234, process as usize, thread as usize, 10) };
    }

    /// Signals all threads at once, makes its own call, and waits for the last.
    fn setresuid_everywhere() {
        if PROCESS.load(Relaxed) == 0 {
            PROCESS.store(call0(39) as u32, Relaxed);
        }
        if !CAUGHT.replace_with_true() {
            handle(40, answer);
        }
        let process = PROCESS.load(Relaxed) as usize;
        let running = || TIDS[..FREE.2.get()].iter().map(|tid| tid.load(Relaxed)).filter(|tid| *tid != 0);
        LEFT.store(running().count() as u32, SeqCst);
        for tid in running() {
            // SAFETY: 1. Its handler makes a call that changes nothing.
            unsafe { call3(234, process, tid as usize, 40) };
        }
        setresuid();
        loop {
            match LEFT.load(Acquire) {
                0 => return,
                left => futex_wait(&LEFT, left, true),
            }
        }
    }
}

static PROCESS: AtomicU32 = AtomicU32::new(0);
static THREAD: AtomicU32 = AtomicU32::new(0);
static LEFT: AtomicU32 = AtomicU32::new(0);
static CAUGHT: Flag = Flag(Cell::new(false));

/// Used by the main thread only.
struct Flag(Cell<bool>);

// SAFETY: only the main thread uses it.
unsafe impl Sync for Flag {}

impl Flag {
    fn replace_with_true(&self) -> bool {
        self.0.replace(true)
    }
}

extern "C" fn nothing(_: i32) {}

extern "C" fn answer(_: i32) {
    setresuid();
    if LEFT.fetch_sub(1, Release) == 1 {
        futex_wake(&LEFT, 1);
    }
}

#[inline(always)]
fn setresuid() {
    // SAFETY: 1. It changes nothing.
    unsafe { call3(117, usize::MAX, usize::MAX, usize::MAX) };
}

/// rt_sigaction with SA_RESTORER and SA_RESTART.
fn handle(signal: usize, handler: extern "C" fn(i32)) {
    #[unsafe(naked)]
    extern "C" fn restorer() {
        core::arch::naked_asm!("mov eax, 15", "syscall")
    }
    let action = [handler as usize, 0x1400_0000, restorer as *const () as usize, 0];
    // SAFETY: 1. The kernel reads the action, and the handlers touch atomics only.
    unsafe { call6(13, [signal, action.as_ptr().expose_provenance(), 0, 8, 0, 0]) };
}
