//! Every clock of the kernel.

use core::fmt;

use linux_raw_sys::general as k;

use super::{NANOS_PER_SEC, Timespec};
use crate::errno::{Errno, Result};
use crate::{sys, vdso};

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
    pub(super) fn must_read(self) -> Timespec {
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
