//! Clocks: std's `Instant` and `SystemTime`, and every clock of the kernel by its id;
//! clock_gettime(2).
//!
//! Clocks are read through the vDSO where there is one, without a system call; see [`vdso`]. Times
//! are 64-bit seconds on every machine, and calls use their 64-bit form where the kernel has it.
//! 32-bit seconds (kernels before 5.1 on 32-bit machines) are read as unsigned, and last until
//! 2106.

use core::fmt;
use core::ops::{Add, AddAssign, Sub, SubAssign};
pub use core::time::Duration;

use linux_raw_sys::general as k;
use static_assertions::{assert_eq_size, assert_impl_all};

use crate::errno::{Errno, Result};
use crate::sys::{self, Timespec};
use crate::vdso;

const NANOS_PER_SEC: i64 = 1_000_000_000;
const ZERO: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// An instant of the monotonic clock (`CLOCK_MONOTONIC`), as std's.
///
/// ```
/// use rt0::time::{Duration, Instant};
///
/// let start = Instant::now();
/// let deadline = start + Duration::from_millis(5);
/// while Instant::now() < deadline {}
/// assert!(start.elapsed() >= Duration::from_millis(5));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(Timespec);

assert_impl_all!(Instant: Send, Sync, Copy);
assert_eq_size!(Instant, Timespec);

impl Instant {
    /// The current time.
    ///
    /// In handlers: yes.
    #[must_use]
    #[inline]
    pub fn now() -> Instant {
        Instant(ClockId::CLOCK_MONOTONIC.must_read())
    }

    /// The time since `earlier`; zero if `earlier` is later.
    ///
    /// In handlers: yes.
    #[must_use]
    pub fn duration_since(&self, earlier: Instant) -> Duration {
        self.checked_duration_since(earlier).unwrap_or_default()
    }

    /// The time since `earlier`; `None` if `earlier` is later.
    ///
    /// In handlers: yes.
    #[must_use]
    pub fn checked_duration_since(&self, earlier: Instant) -> Option<Duration> {
        self.0.since(earlier.0).ok()
    }

    /// The time since `earlier`; zero if `earlier` is later.
    ///
    /// In handlers: yes.
    #[must_use]
    pub fn saturating_duration_since(&self, earlier: Instant) -> Duration {
        self.duration_since(earlier)
    }

    /// The time since this instant.
    ///
    /// In handlers: yes.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        Instant::now().duration_since(*self)
    }

    /// This instant plus `duration`; `None` past the clock's end.
    ///
    /// In handlers: yes.
    pub fn checked_add(&self, duration: Duration) -> Option<Instant> {
        self.0.after(duration).map(Instant)
    }

    /// This instant minus `duration`; `None` before the clock's range.
    ///
    /// In handlers: yes.
    pub fn checked_sub(&self, duration: Duration) -> Option<Instant> {
        self.0.before(duration).map(Instant)
    }

    /// The instant as a deadline for the kernel, which refuses negative times. Zero is in the past
    /// too.
    pub(crate) fn deadline(self) -> Timespec {
        self.0.max(ZERO)
    }
}

impl Sub<Instant> for Instant {
    type Output = Duration;

    /// Zero if `earlier` is later.
    fn sub(self, earlier: Instant) -> Duration {
        self.duration_since(earlier)
    }
}

/// A time of the wall clock (`CLOCK_REALTIME`), as std's. The clock may be set forward and back.
///
/// ```
/// use rt0::time::SystemTime;
///
/// let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
/// assert!(since_1970.as_secs() > 1_700_000_000);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemTime(Timespec);

assert_impl_all!(SystemTime: Send, Sync, Copy);

/// 1970-01-01 00:00:00 UTC.
pub const UNIX_EPOCH: SystemTime = SystemTime::UNIX_EPOCH;

impl SystemTime {
    /// 1970-01-01 00:00:00 UTC.
    pub const UNIX_EPOCH: SystemTime = SystemTime(ZERO);

    /// The first moment that it can be.
    pub const MIN: SystemTime = SystemTime(Timespec { tv_sec: i64::MIN, tv_nsec: 0 });

    /// The last moment that it can be.
    pub const MAX: SystemTime = SystemTime(Timespec { tv_sec: i64::MAX, tv_nsec: 999_999_999 });

    /// The current time.
    ///
    /// In handlers: yes.
    #[must_use]
    #[inline]
    pub fn now() -> SystemTime {
        SystemTime(ClockId::CLOCK_REALTIME.must_read())
    }

    /// The time since `earlier`; if `earlier` is later, an error with the difference.
    ///
    /// In handlers: yes.
    pub fn duration_since(&self, earlier: SystemTime) -> core::result::Result<Duration, SystemTimeError> {
        self.0.since(earlier.0).map_err(SystemTimeError)
    }

    /// The time since this one; an error if it lies in the future, for example because the clock
    /// was set back.
    ///
    /// In handlers: yes.
    pub fn elapsed(&self) -> core::result::Result<Duration, SystemTimeError> {
        SystemTime::now().duration_since(*self)
    }

    /// This time plus `duration`; `None` past the clock's end.
    ///
    /// In handlers: yes.
    pub fn checked_add(&self, duration: Duration) -> Option<SystemTime> {
        self.0.after(duration).map(SystemTime)
    }

    /// This time minus `duration`; `None` before the clock's range.
    ///
    /// In handlers: yes.
    pub fn checked_sub(&self, duration: Duration) -> Option<SystemTime> {
        self.0.before(duration).map(SystemTime)
    }
}

/// The error of [`SystemTime::duration_since`].
#[derive(Clone, Debug)]
pub struct SystemTimeError(Duration);

impl SystemTimeError {
    /// How much later the other time is.
    ///
    /// In handlers: yes.
    #[must_use]
    pub fn duration(&self) -> Duration {
        self.0
    }
}

impl fmt::Display for SystemTimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("second time provided was later than self")
    }
}

impl core::error::Error for SystemTimeError {}

/// A clock of the kernel, as clock_gettime(2) lists them.
///
/// ```no_run
/// use rt0::time::ClockId;
///
/// let used = ClockId::CLOCK_THREAD_CPUTIME_ID.now()?;
/// rt0::println!("{} s of this processor", used.tv_sec);
/// # Ok::<(), rt0::Errno>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClockId(i32);

macro_rules! clocks {
    ($($name:ident)*) => {
        /// The clocks of clock_gettime(2).
        #[allow(missing_docs)] // Each is its own name; clock_gettime(2) says what it shows.
        impl ClockId {
            $(pub const $name: ClockId = ClockId(k::$name as i32);)*

            fn name(self) -> Option<&'static str> {
                match self {
                    $(ClockId::$name => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

clocks! {
    CLOCK_REALTIME CLOCK_MONOTONIC CLOCK_PROCESS_CPUTIME_ID CLOCK_THREAD_CPUTIME_ID CLOCK_MONOTONIC_RAW
    CLOCK_REALTIME_COARSE CLOCK_MONOTONIC_COARSE CLOCK_BOOTTIME CLOCK_REALTIME_ALARM CLOCK_BOOTTIME_ALARM CLOCK_TAI
}

impl ClockId {
    /// The clock with this number, whether it exists or not. Some clocks have no name here, for
    /// example another process's (clock_getcpuclockid(3)) or a device's, which have negative
    /// numbers.
    ///
    /// In handlers: yes.
    pub const fn from_raw(number: i32) -> ClockId {
        ClockId(number)
    }

    /// The clock's number.
    ///
    /// In handlers: yes.
    pub const fn raw(self) -> i32 {
        self.0
    }

    /// The clock's time: through the vDSO, else by clock_gettime(2). Errors: `EINVAL`, there is no
    /// such clock; those of a device's clock.
    ///
    /// In handlers: yes.
    #[inline]
    pub fn now(self) -> Result<Timespec> {
        self.read()
    }

    #[inline(always)]
    fn read(self) -> Result<Timespec> {
        vdso::clock_gettime(self.0).or_else(|refused| self.ask_kernel(refused))
    }

    /// [`ClockId::read`] by the system call, after the vDSO returned `refused`.
    #[cold]
    fn ask_kernel(self, refused: Errno) -> Result<Timespec> {
        let now = sys::clock_gettime(self.0)?;
        // Only for the two clocks that every vDSO reads itself if it can. For other clocks the vDSO
        // makes a system call, and a filter or the kernel may have refused the form of the call
        // that it chose.
        if refused == Errno::ENOSYS && [ClockId::CLOCK_REALTIME, ClockId::CLOCK_MONOTONIC].contains(&self) {
            vdso::disable_clocks();
        }
        Ok(now)
    }

    /// [`ClockId::read`] of a clock that every kernel has.
    #[inline(always)]
    fn must_read(self) -> Timespec {
        self.read().unwrap_or_else(|errno| sys::die("clock_gettime", errno))
    }

    /// Sleeps until the clock shows `deadline` or more, by clock_nanosleep(2). Signal handlers that
    /// run meanwhile do not shorten the sleep. If the clock is set meanwhile, its new time counts.
    ///
    /// Errors, none of them for a deadline in the past: `EINVAL`, there is no such clock, or the
    /// nanoseconds are not 0..=999,999,999; `EOPNOTSUPP` (on some kernels `EINVAL`) for a clock
    /// that cannot wake a thread, such as the calling thread's CPU time; `EPERM` for an alarm clock
    /// without `CAP_WAKE_ALARM`.
    ///
    /// In handlers: no, it waits.
    pub fn sleep_until(self, deadline: Timespec) -> Result<()> {
        while self.now()? < deadline {
            if !(0..NANOS_PER_SEC).contains(&deadline.tv_nsec) {
                return Err(Errno::EINVAL); // Some kernels check only the low 32 bits.
            }
            match sys::clock_nanosleep_until(self.0, &deadline) {
                // The call may return early; see `clock_nanosleep_until`.
                Ok(()) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

impl fmt::Debug for ClockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.0),
            None => write!(f, "clock {}", self.0),
        }
    }
}

/// Arithmetic of times whose nanoseconds are 0..=999,999,999.
impl Timespec {
    fn after(self, duration: Duration) -> Option<Timespec> {
        let tv_sec = self.tv_sec.checked_add_unsigned(duration.as_secs())?;
        let tv_nsec = self.tv_nsec + i64::from(duration.subsec_nanos());
        Some(if tv_nsec < NANOS_PER_SEC {
            Timespec { tv_sec, tv_nsec }
        } else {
            Timespec { tv_sec: tv_sec.checked_add(1)?, tv_nsec: tv_nsec - NANOS_PER_SEC }
        })
    }

    fn before(self, duration: Duration) -> Option<Timespec> {
        let tv_sec = self.tv_sec.checked_sub_unsigned(duration.as_secs())?;
        let tv_nsec = self.tv_nsec - i64::from(duration.subsec_nanos());
        Some(if tv_nsec >= 0 {
            Timespec { tv_sec, tv_nsec }
        } else {
            Timespec { tv_sec: tv_sec.checked_sub(1)?, tv_nsec: tv_nsec + NANOS_PER_SEC }
        })
    }

    /// The time since `earlier`; if `earlier` is later, the difference as the error.
    fn since(self, earlier: Timespec) -> core::result::Result<Duration, Duration> {
        if self < earlier {
            return Err(earlier.since(self).unwrap_or_default());
        }
        let secs = self.tv_sec.abs_diff(earlier.tv_sec);
        Ok(if self.tv_nsec >= earlier.tv_nsec {
            Duration::new(secs, (self.tv_nsec - earlier.tv_nsec) as u32)
        } else {
            Duration::new(secs - 1, (self.tv_nsec + NANOS_PER_SEC - earlier.tv_nsec) as u32)
        })
    }
}

macro_rules! moment {
    ($type:ident, $add:literal, $sub:literal) => {
        impl Add<Duration> for $type {
            type Output = $type;

            /// # Panics
            ///
            /// Past the clock's end; see `checked_add`.
            fn add(self, duration: Duration) -> $type {
                self.checked_add(duration).expect($add)
            }
        }

        impl AddAssign<Duration> for $type {
            fn add_assign(&mut self, duration: Duration) {
                *self = *self + duration;
            }
        }

        impl Sub<Duration> for $type {
            type Output = $type;

            /// # Panics
            ///
            /// Before the clock's range; see `checked_sub`.
            fn sub(self, duration: Duration) -> $type {
                self.checked_sub(duration).expect($sub)
            }
        }

        impl SubAssign<Duration> for $type {
            fn sub_assign(&mut self, duration: Duration) {
                *self = *self - duration;
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let Timespec { tv_sec, tv_nsec } = self.0;
                f.debug_struct(stringify!($type)).field("tv_sec", &tv_sec).field("tv_nsec", &tv_nsec).finish()
            }
        }
    };
}

moment!(Instant, "overflow when adding duration to instant", "overflow when subtracting duration from instant");
moment!(
    SystemTime,
    "overflow when adding duration to SystemTime",
    "overflow when subtracting duration from SystemTime"
);

#[cfg(test)]
mod tests {
    extern crate std;
    use std::format;

    use super::*;

    fn instant(tv_sec: i64, tv_nsec: i64) -> Instant {
        Instant(Timespec { tv_sec, tv_nsec })
    }

    fn system(tv_sec: i64, tv_nsec: i64) -> SystemTime {
        SystemTime(Timespec { tv_sec, tv_nsec })
    }

    #[test]
    fn nanoseconds_carry_and_borrow() {
        let half = Duration::from_millis(500);
        let late = instant(7, 700_000_000);
        assert_eq!(late + half, instant(8, 200_000_000));
        assert_eq!(instant(8, 200_000_000) - half, late);
        assert_eq!(instant(8, 200_000_000) - late, half);
        assert_eq!(late - instant(8, 200_000_000), Duration::ZERO);
        assert_eq!(late.checked_duration_since(instant(8, 0)), None);
    }

    #[test]
    fn the_ends_of_the_clock_are_no_overflow() {
        assert_eq!(instant(i64::MAX, 999_999_999).checked_add(Duration::from_nanos(1)), None);
        assert_eq!(instant(1, 0).checked_add(Duration::MAX), None);
        assert_eq!(instant(i64::MIN, 0).checked_sub(Duration::from_nanos(1)), None);
        let (first, last) = (instant(i64::MIN, 0), instant(i64::MAX, 999_999_999));
        assert_eq!(last.duration_since(first), Duration::new(u64::MAX, 999_999_999));
        assert_eq!(system(i64::MAX, 0).checked_add(Duration::from_secs(1)), None);
        assert_eq!(SystemTime::MIN.checked_sub(Duration::from_nanos(1)), None);
        assert_eq!(SystemTime::MAX.checked_add(Duration::from_nanos(1)), None);
        assert_eq!(SystemTime::MIN.checked_add(Duration::ZERO), Some(SystemTime::MIN));
        assert_eq!(SystemTime::MAX.checked_sub(Duration::ZERO), Some(SystemTime::MAX));
        assert_eq!(system(i64::MIN, 0).checked_sub(Duration::from_secs(1)), None);
    }

    #[test]
    fn moments_before_and_long_after_the_epoch_are_moments() {
        let moonlanding = UNIX_EPOCH - Duration::from_millis(14_182_939_500);
        assert_eq!(moonlanding, system(-14_182_940, 500_000_000));
        assert_eq!(UNIX_EPOCH.duration_since(moonlanding).unwrap().as_millis(), 14_182_939_500);
        let late = system(1 << 40, 0); // The year 36812.
        assert_eq!(late.duration_since(UNIX_EPOCH).unwrap().as_secs(), 1 << 40);
        assert!(UNIX_EPOCH < late && moonlanding < UNIX_EPOCH);
    }

    #[test]
    fn a_later_moment_is_an_error_that_says_how_much_later() {
        let error = system(7, 900_000_000).duration_since(system(9, 100_000_000)).unwrap_err();
        assert_eq!(error.duration(), Duration::from_millis(1200));
        assert_eq!(format!("{error}"), "second time provided was later than self");
    }

    #[test]
    fn seconds_of_32_bits_last_until_2106() {
        for (bits, tv_sec) in [(0, 0), (i32::MAX, i32::MAX as i64), (i32::MIN, 1 << 31), (-1, u32::MAX as i64)] {
            let narrow = k::__kernel_old_timespec { tv_sec: bits as _, tv_nsec: 999_999_999 };
            assert_eq!(Timespec::from_narrow(narrow), Timespec { tv_sec, tv_nsec: 999_999_999 });
        }
    }

    #[test]
    fn clocks_are_shown_by_name_and_number() {
        assert_eq!(format!("{:?}", ClockId::CLOCK_BOOTTIME), "CLOCK_BOOTTIME (7)");
        assert_eq!(format!("{:?}", ClockId::from_raw(-6)), "clock -6");
        assert_eq!(format!("{:?}", instant(1, 2)), "Instant { tv_sec: 1, tv_nsec: 2 }");
        assert_eq!(format!("{:?}", system(1, 2)), "SystemTime { tv_sec: 1, tv_nsec: 2 }");
    }

    #[test]
    fn a_clock_that_does_not_exist_is_einval() {
        for number in [16, 1000, i32::MAX] {
            assert_eq!(ClockId::from_raw(number).now(), Err(Errno::EINVAL), "clock {number}");
        }
    }
}
