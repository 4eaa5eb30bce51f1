//! Clocks: std's `Instant` and `SystemTime`, and every clock of the kernel by its id;
//! clock_gettime(2).
//!
//! Clocks are read through the vDSO where there is one, without a system call; see [`vdso`]. Times
//! are 64-bit seconds on every machine, and calls use their 64-bit form where the kernel has it.
//! 32-bit seconds (kernels before 5.1 on 32-bit machines) are read as unsigned, and last until
//! 2106.
//!
//! [`vdso`]: crate::vdso

mod clock;
mod system;

use core::ops::Sub;
pub use core::time::Duration;

use static_assertions::{assert_eq_size, assert_impl_all};

use crate::sys::Timespec;
pub use clock::ClockId;
pub use system::{SystemTime, SystemTimeError, UNIX_EPOCH};

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
    /// ```no_run
    /// use rt0::time::{Duration, Instant};
    ///
    /// let deadline = Instant::now().checked_add(Duration::from_secs(5)).unwrap();
    /// let left = deadline.saturating_duration_since(Instant::now()); // 0 after the deadline.
    /// let is_over = deadline.checked_duration_since(Instant::now()).is_none();
    /// ```
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

/// The operators and `Debug` of a moment.
macro_rules! moment {
    ($type:ident, $add:literal, $sub:literal) => {
        impl ::core::ops::Add<Duration> for $type {
            type Output = $type;

            /// # Panics
            ///
            /// Past the clock's end; see `checked_add`.
            fn add(self, duration: Duration) -> $type {
                self.checked_add(duration).expect($add)
            }
        }

        impl ::core::ops::AddAssign<Duration> for $type {
            fn add_assign(&mut self, duration: Duration) {
                *self = *self + duration;
            }
        }

        impl ::core::ops::Sub<Duration> for $type {
            type Output = $type;

            /// # Panics
            ///
            /// Before the clock's range; see `checked_sub`.
            fn sub(self, duration: Duration) -> $type {
                self.checked_sub(duration).expect($sub)
            }
        }

        impl ::core::ops::SubAssign<Duration> for $type {
            fn sub_assign(&mut self, duration: Duration) {
                *self = *self - duration;
            }
        }

        impl ::core::fmt::Debug for $type {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                let Timespec { tv_sec, tv_nsec } = self.0;
                f.debug_struct(stringify!($type)).field("tv_sec", &tv_sec).field("tv_nsec", &tv_nsec).finish()
            }
        }
    };
}
use moment;

moment!(Instant, "overflow when adding duration to instant", "overflow when subtracting duration from instant");

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

#[cfg(test)]
mod tests;
