//! Clocks, sleeping and timers.

use linux_raw_sys::general as k;
use static_assertions::{assert_eq_align, assert_eq_size};

use super::form::{Form, Preference, narrow, timed};
use super::{at, call};
use crate::arch::{Arch, Cpu};
use crate::errno::{Errno, Result};

/// A point in time or a span, with 64-bit seconds on every machine.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timespec {
    /// Seconds.
    pub tv_sec: i64,
    /// Nanoseconds, 0..=999,999,999.
    pub tv_nsec: i64,
}

assert_eq_size!(Timespec, k::__kernel_timespec);
assert_eq_align!(Timespec, k::__kernel_timespec);
const _: () = assert!(memoffset::offset_of!(Timespec, tv_nsec) == memoffset::offset_of!(k::__kernel_timespec, tv_nsec));

impl Timespec {
    /// A time from a kernel with 32-bit seconds. They are read as unsigned and last until 2106; no
    /// clock of the kernel shows a time before its zero.
    pub(crate) fn from_narrow(narrow: k::__kernel_old_timespec) -> Timespec {
        Timespec { tv_sec: narrow.tv_sec as u32 as i64, tv_nsec: narrow.tv_nsec as i64 }
    }
}

/// clock_gettime(2). `EINVAL` for a clock that does not exist.
pub(crate) fn clock_gettime(clock: i32) -> Result<Timespec> {
    static FORM: Preference = Preference::new();
    timed(Cpu::CLOCK_GETTIME, &FORM, |form, nr| match form {
        Form::Wide => {
            let mut now = Timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: 1. The kernel writes `now` only.
            unsafe { call!(@ nr, clock as usize, at(&raw mut now)) }?;
            Ok(now)
        }
        Form::Narrow => {
            let mut now = k::__kernel_old_timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: 1. The kernel writes `now` only.
            unsafe { call!(@ nr, clock as usize, at(&raw mut now)) }?;
            Ok(Timespec::from_narrow(now))
        }
    })
}

/// clock_nanosleep(2) until `deadline` on `clock`. `EINTR` when a handler ran, `EINVAL`.
///
/// With 32 bits of seconds (kernels before 5.1 on 32-bit machines) a far deadline is cut to the
/// last that fits. So it may return early: read the clock and call again.
pub(crate) fn clock_nanosleep_until(clock: i32, deadline: &Timespec) -> Result<()> {
    clock_nanosleep(clock, k::TIMER_ABSTIME, deadline)
}

/// clock_nanosleep(2) for a span of the monotonic clock. If a handler runs, it returns early with
/// `EINTR`, and the remaining time is not known.
pub(crate) fn nanosleep(span: &Timespec) -> Result<()> {
    clock_nanosleep(k::CLOCK_MONOTONIC as i32, 0, span)
}

fn clock_nanosleep(clock: i32, flags: u32, time: &Timespec) -> Result<()> {
    let nr_and_time = |nr, time| {
        // SAFETY: 1. The kernel only reads the time.
        unsafe { call!(@ nr, clock as usize, flags as usize, time, 0) }.map(drop)
    };
    static FORM: Preference = Preference::new();
    timed(Cpu::CLOCK_NANOSLEEP, &FORM, |form, nr| match form {
        Form::Wide => nr_and_time(nr, at(time)),
        Form::Narrow => nr_and_time(nr, at(&narrow(time))),
    })
}

/// The CPU-time clock of a thread of this process, for [`clock_gettime`] and [`timer_create`], as
/// from pthread_getcpuclockid(3). The clock starts at zero with the thread.
pub(crate) fn cpu_clock(tid: u32) -> i32 {
    // These two are in no header for programs: time/posix-timers.h of the kernel.
    const CPUCLOCK_SCHED: u32 = 2;
    const CPUCLOCK_PERTHREAD_MASK: u32 = 4;
    (!tid << 3 | CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED) as i32
}

// The kernel reads 64 bytes, whatever the union in them is used for (SIGEV_MAX_SIZE in
// asm-generic/siginfo.h).
const _: () = assert!(size_of::<k::sigevent>() == 64, "timer_create reads beyond the struct");

/// timer_create(2) of a timer that sends `sig`, with `value`, to the thread `tid` of this process
/// (`SIGEV_THREAD_ID`). Returns its number. `EAGAIN` above `RLIMIT_SIGPENDING` or an emulator's
/// limit, `EINVAL` for a thread that ended, `ENOSYS`, `EPERM` from a filter.
pub(crate) fn timer_create(clock: i32, tid: u32, sig: u32, value: usize) -> Result<i32> {
    let mut event = k::sigevent {
        sigev_value: k::sigval { sival_ptr: core::ptr::without_provenance_mut(value) },
        sigev_signo: sig as i32,
        sigev_notify: k::SIGEV_THREAD_ID as i32,
        _sigev_un: k::sigevent__bindgen_ty_1 { _pad: [0; _] },
    };
    event._sigev_un._tid = tid as i32;
    let mut timer = 0i32;
    // SAFETY: 1. The kernel reads the event and writes the number; a signal is no memory access.
    unsafe { call!(__NR_timer_create, clock as usize, at(&raw const event), at(&raw mut timer)) }?;
    Ok(timer)
}

/// timer_settime(2) with `TIMER_ABSTIME`: the timer expires when its clock shows `first`, at once
/// if that has passed, and then every `interval`.
pub(crate) fn timer_settime_abs(timer: i32, interval: Timespec, first: Timespec) -> Result<()> {
    let nr_and_times = |nr, times| {
        // SAFETY: 1. The kernel only reads the two times.
        unsafe { call!(@ nr, timer as usize, k::TIMER_ABSTIME as usize, times, 0) }.map(drop)
    };
    let times = [interval, first]; // struct itimerspec
    static FORM: Preference = Preference::new();
    timed(Cpu::TIMER_SETTIME, &FORM, |form, nr| match form {
        Form::Wide => nr_and_times(nr, at(&times)),
        Form::Narrow => nr_and_times(nr, at(&times.map(|time| narrow(&time)))),
    })
}

/// timer_delete(2). `EINVAL` if there is no such timer.
pub(crate) fn timer_delete(timer: i32) -> Result<()> {
    // SAFETY: 1. It touches no memory.
    unsafe { call!(__NR_timer_delete, timer as usize) }.map(drop)
}

/// setitimer(2) of `ITIMER_PROF`: `SIGPROF` after the process has run for `first`, and then every
/// `interval`; zeros turn it off. Times are cut to whole microseconds.
pub(crate) fn setitimer_prof(interval: Timespec, first: Timespec) -> Result<()> {
    let old =
        |time: Timespec| k::__kernel_old_timeval { tv_sec: time.tv_sec as _, tv_usec: (time.tv_nsec / 1000) as _ };
    let times = k::__kernel_old_itimerval { it_interval: old(interval), it_value: old(first) };
    // SAFETY: 1. The kernel only reads the two times.
    unsafe { call!(__NR_setitimer, k::ITIMER_PROF as usize, at(&raw const times), 0) }.map(drop)
}
