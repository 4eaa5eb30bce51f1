//! The monotonic clock: clock_gettime(2) of CLOCK_MONOTONIC.

use core::fmt;
use core::ops::{Add, AddAssign, Sub, SubAssign};
use core::time::Duration;

use linux_raw_sys::general as k;

use crate::sys::{self, Timespec};

pub(crate) const MONOTONIC: u32 = k::CLOCK_MONOTONIC;
const NANOS_PER_SEC: i64 = 1_000_000_000;

/// A moment of the monotonic clock, as std's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(Timespec);

impl Instant {
    /// Now.
    pub fn now() -> Instant {
        Instant(sys::clock_gettime(MONOTONIC).unwrap_or_else(|errno| sys::die("clock_gettime", errno)))
    }

    /// The time since `earlier`; zero if that is later.
    pub fn duration_since(&self, earlier: Instant) -> Duration {
        self.checked_duration_since(earlier).unwrap_or_default()
    }

    /// The time since `earlier`; `None` if that is later.
    pub fn checked_duration_since(&self, earlier: Instant) -> Option<Duration> {
        if *self < earlier {
            return None;
        }
        let secs = self.0.tv_sec.abs_diff(earlier.0.tv_sec);
        Some(if self.0.tv_nsec >= earlier.0.tv_nsec {
            Duration::new(secs, (self.0.tv_nsec - earlier.0.tv_nsec) as u32)
        } else {
            Duration::new(secs - 1, (self.0.tv_nsec + NANOS_PER_SEC - earlier.0.tv_nsec) as u32)
        })
    }

    /// The time since `earlier`; zero if that is later.
    pub fn saturating_duration_since(&self, earlier: Instant) -> Duration {
        self.duration_since(earlier)
    }

    /// The time from this moment until now.
    pub fn elapsed(&self) -> Duration {
        Instant::now().duration_since(*self)
    }

    /// This moment and `duration`; `None` past the clock's end.
    pub fn checked_add(&self, duration: Duration) -> Option<Instant> {
        let tv_sec = self.0.tv_sec.checked_add_unsigned(duration.as_secs())?;
        let tv_nsec = self.0.tv_nsec + i64::from(duration.subsec_nanos());
        Some(Instant(if tv_nsec < NANOS_PER_SEC {
            Timespec { tv_sec, tv_nsec }
        } else {
            Timespec { tv_sec: tv_sec.checked_add(1)?, tv_nsec: tv_nsec - NANOS_PER_SEC }
        }))
    }

    /// This moment less `duration`; `None` before the clock's range.
    pub fn checked_sub(&self, duration: Duration) -> Option<Instant> {
        let tv_sec = self.0.tv_sec.checked_sub_unsigned(duration.as_secs())?;
        let tv_nsec = self.0.tv_nsec - i64::from(duration.subsec_nanos());
        Some(Instant(if tv_nsec >= 0 {
            Timespec { tv_sec, tv_nsec }
        } else {
            Timespec { tv_sec: tv_sec.checked_sub(1)?, tv_nsec: tv_nsec + NANOS_PER_SEC }
        }))
    }

    /// As a deadline for the kernel, which refuses what lies before the clock's zero: that is past in any case.
    pub(crate) fn deadline(self) -> Timespec {
        self.0.max(Timespec { tv_sec: 0, tv_nsec: 0 })
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    /// # Panics
    ///
    /// Past the clock's end; see [`Instant::checked_add`].
    fn add(self, duration: Duration) -> Instant {
        self.checked_add(duration).expect("overflow when adding duration to instant")
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;

    /// # Panics
    ///
    /// Before the clock's range; see [`Instant::checked_sub`].
    fn sub(self, duration: Duration) -> Instant {
        self.checked_sub(duration).expect("overflow when subtracting duration from instant")
    }
}

impl SubAssign<Duration> for Instant {
    fn sub_assign(&mut self, duration: Duration) {
        *self = *self - duration;
    }
}

impl Sub<Instant> for Instant {
    type Output = Duration;

    /// Zero if `earlier` is later.
    fn sub(self, earlier: Instant) -> Duration {
        self.duration_since(earlier)
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instant").field("tv_sec", &self.0.tv_sec).field("tv_nsec", &self.0.tv_nsec).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instant(tv_sec: i64, tv_nsec: i64) -> Instant {
        Instant(Timespec { tv_sec, tv_nsec })
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
    }
}
