//! The wall clock.

use core::fmt;

use static_assertions::assert_impl_all;

use super::{ClockId, Duration, Timespec, ZERO, moment};

/// A time of the wall clock (`CLOCK_REALTIME`), as std's. The clock may be set forward and back.
///
/// ```
/// use rt0::time::SystemTime;
///
/// let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
/// assert!(since_1970.as_secs() > 1_700_000_000);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemTime(pub(super) Timespec);

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
///
/// ```no_run
/// use rt0::time::{SystemTime, SystemTimeError};
///
/// let start = SystemTime::now();
/// // … the clock may be set back meanwhile …
/// match SystemTime::now().duration_since(start) {
///     Ok(passed) => rt0::println!("{passed:?}"),
///     Err(error) => {
///         let error: SystemTimeError = error;
///         rt0::println!("{:?} back", error.duration());
///     }
/// }
/// ```
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

moment!(
    SystemTime,
    "overflow when adding duration to SystemTime",
    "overflow when subtracting duration from SystemTime"
);
