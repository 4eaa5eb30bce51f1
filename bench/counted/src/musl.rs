//! The loops over musl, through the functions of C that a program calls: `NAME TIMES`.
#![no_std]

mod loops;

use core::cell::UnsafeCell;
use core::ffi::{CStr, c_char, c_int, c_long, c_uint, c_void};
use core::hint::black_box;
use core::ptr::{null, null_mut};
use core::sync::atomic::{AtomicI32, Ordering::Relaxed};

use linux_raw_sys::general::{__NR_gettid, __NR_tgkill, CLOCK_MONOTONIC, SIGUSR1};

use loops::Operations;

struct Musl;

/// What C's macros initialise with zeros, and is at most as large.
#[repr(align(16))]
struct Zeros(UnsafeCell<[u64; 16]>);

// SAFETY: only musl reads and writes it, under its own rules for threads.
unsafe impl Sync for Zeros {}

impl Zeros {
    const fn new() -> Zeros {
        Zeros(UnsafeCell::new([0; 16]))
    }

    fn get(&self) -> *mut c_void {
        self.0.get().cast()
    }
}

static MUTEX: Zeros = Zeros::new();
static RWLOCK: Zeros = Zeros::new();
static ONCE: Zeros = Zeros::new();
static PROCESS: AtomicI32 = AtomicI32::new(0);
static THREAD: AtomicI32 = AtomicI32::new(0);

unsafe extern "C" {
    fn getppid() -> c_int;
    fn getpid() -> c_int;
    fn syscall(number: c_long, ...) -> c_long;
    // The older name has 32 bits of seconds there.
    #[cfg_attr(target_pointer_width = "32", link_name = "__clock_gettime64")]
    fn clock_gettime(clock: c_int, time: *mut [i64; 2]) -> c_int;
    fn pthread_mutex_lock(mutex: *mut c_void) -> c_int;
    fn pthread_mutex_unlock(mutex: *mut c_void) -> c_int;
    fn pthread_rwlock_rdlock(lock: *mut c_void) -> c_int;
    fn pthread_rwlock_unlock(lock: *mut c_void) -> c_int;
    fn pthread_once(once: *mut c_void, f: extern "C" fn()) -> c_int;
    fn pthread_create(
        thread: *mut *mut c_void,
        attributes: *const c_void,
        start: extern "C" fn(*mut c_void) -> *mut c_void,
        argument: *mut c_void,
    ) -> c_int;
    fn pthread_join(thread: *mut c_void, result: *mut *mut c_void) -> c_int;
    fn signal(signal: c_int, handler: extern "C" fn(c_int)) -> *mut c_void;
    fn _exit(status: c_int) -> !;
    fn atoi(text: *const c_char) -> c_int;
}

/// Ends the program with this status if the result is not zero.
#[inline(always)]
fn must(result: c_int, status: c_int) {
    if result != 0 {
        // SAFETY: any status is allowed.
        unsafe { _exit(status) };
    }
}

impl Operations for Musl {
    #[inline(always)]
    fn call_the_kernel() {
        // SAFETY: it has no condition.
        black_box(unsafe { getppid() });
    }

    #[inline(always)]
    fn read_the_clock() {
        let mut time = [0; 2];
        // SAFETY: a timespec has at most 16 bytes.
        must(unsafe { clock_gettime(CLOCK_MONOTONIC as c_int, &mut time) }, 3);
        black_box(time);
    }

    #[inline(always)]
    fn lock() {
        // SAFETY: zeros are an unlocked mutex.
        must(unsafe { pthread_mutex_lock(MUTEX.get()) }, 4);
        // SAFETY: locked above.
        must(unsafe { pthread_mutex_unlock(MUTEX.get()) }, 4);
    }

    #[inline(always)]
    fn lock_for_reading() {
        // SAFETY: zeros are an unlocked lock.
        must(unsafe { pthread_rwlock_rdlock(RWLOCK.get()) }, 4);
        // SAFETY: locked above.
        must(unsafe { pthread_rwlock_unlock(RWLOCK.get()) }, 4);
    }

    #[inline(always)]
    fn call_once() {
        extern "C" fn nothing() {}
        // SAFETY: a zero is a `pthread_once_t` that has not run.
        must(unsafe { pthread_once(ONCE.get(), nothing) }, 4);
    }

    #[inline(always)]
    fn spawn_and_join() {
        extern "C" fn nothing(_: *mut c_void) -> *mut c_void {
            null_mut()
        }
        let mut thread = null_mut();
        // SAFETY: null attributes are the defaults.
        must(unsafe { pthread_create(&mut thread, null(), nothing, null_mut()) }, 4);
        // SAFETY: it was created above and is joined once.
        must(unsafe { pthread_join(thread, null_mut()) }, 4);
    }

    fn catch_signal() {
        extern "C" fn nothing(_: c_int) {}
        // SAFETY: the handler does nothing. SIG_ERR is -1.
        must((unsafe { signal(SIGUSR1 as c_int, nothing) }.addr() == usize::MAX).into(), 5);
        // SAFETY: it has no condition.
        PROCESS.store(unsafe { getpid() }, Relaxed);
        // SAFETY: it has no argument.
        THREAD.store(unsafe { syscall(__NR_gettid as c_long) } as c_int, Relaxed);
    }

    #[inline(always)]
    fn send_signal() {
        let (process, thread) = (PROCESS.load(Relaxed), THREAD.load(Relaxed));
        // SAFETY: the arguments are those of tgkill(2).
        must(unsafe { syscall(__NR_tgkill as c_long, process, thread, SIGUSR1 as c_uint) } as c_int, 6);
    }
}

/// What crt1.o calls.
///
/// # Safety
/// 1. The arguments are those of a C program.
#[unsafe(no_mangle)]
unsafe extern "C" fn main(count: c_int, arguments: *const *const c_char) -> c_int {
    if count != 3 {
        return 2;
    }
    // SAFETY: 1. There are three.
    let name = unsafe { *arguments.wrapping_add(1) };
    // SAFETY: 1. It is a string.
    let name = unsafe { CStr::from_ptr(name) };
    // SAFETY: 1. There are three.
    let times = unsafe { *arguments.wrapping_add(2) };
    // SAFETY: 1. It is a string.
    let times = unsafe { atoi(times) };
    if loops::run::<Musl>(name, times as usize) { 0 } else { 2 }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // SAFETY: any status is allowed.
    unsafe { _exit(101) }
}
