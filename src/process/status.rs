//! How a process ended.

use core::fmt;

use linux_raw_sys::general as k;

use crate::signal::Signal;
use crate::sys::Waited;

/// How a process ended: the status of wait(2).
///
/// ```no_run
/// use rt0::process::{Command, ExitStatus};
///
/// let status: ExitStatus = Command::new(c"false").status()?;
/// match (status.code(), status.signal()) {
///     (Some(code), _) => rt0::println!("exit status {code}"),
///     (None, Some(signal)) => rt0::println!("signal {signal}, core: {}", status.core_dumped()),
///     (None, None) => rt0::println!("wait status {:#x}", status.into_raw()),
/// }
/// # Ok::<(), rt0::Errno>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ExitStatus {
    how: How,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Exited(u8),
    Killed { signal: u8, core_dumped: bool },
}

impl ExitStatus {
    pub(super) fn of(ended: Waited) -> ExitStatus {
        let signal = ended.status as u8; // At most 128.
        let how = match ended.code as u32 {
            k::CLD_KILLED => How::Killed { signal, core_dumped: false },
            k::CLD_DUMPED => How::Killed { signal, core_dumped: true },
            _ => How::Exited(ended.status as u8),
        };
        ExitStatus { how }
    }

    /// Whether its exit status is 0.
    ///
    /// In handlers: yes.
    #[must_use]
    pub const fn success(self) -> bool {
        matches!(self.how, How::Exited(0))
    }

    /// Its exit status, 0..=255; `None` if a signal ended it.
    ///
    /// In handlers: yes.
    #[must_use]
    pub const fn code(self) -> Option<i32> {
        match self.how {
            How::Exited(code) => Some(code as i32),
            How::Killed { .. } => None,
        }
    }

    /// The number of the signal that ended it. It may be 32 or 33, for which there is no
    /// [`Signal`].
    ///
    /// In handlers: yes.
    #[must_use]
    pub const fn signal(self) -> Option<u32> {
        match self.how {
            How::Exited(_) => None,
            How::Killed { signal, .. } => Some(signal as u32),
        }
    }

    /// Whether a signal ended it and a core was dumped.
    ///
    /// In handlers: yes.
    #[must_use]
    pub const fn core_dumped(self) -> bool {
        matches!(self.how, How::Killed { core_dumped: true, .. })
    }

    /// The status as wait(2) reports it: the exit status times 256, or the signal's number, plus
    /// 128 if a core was dumped. (For signal 128 of MIPS, wait(2) reports only the core dump.)
    ///
    /// In handlers: yes.
    #[must_use]
    pub const fn into_raw(self) -> i32 {
        match self.how {
            How::Exited(code) => (code as i32) << 8,
            How::Killed { signal, core_dumped } => signal as i32 | if core_dumped { 0x80 } else { 0 },
        }
    }

    /// The status as a shell reports it in `$?`: the exit status, or 128 plus the signal's number;
    /// at most 255.
    ///
    /// In handlers: yes.
    #[must_use]
    pub const fn shell_status(self) -> i32 {
        match self.how {
            How::Exited(code) => code as i32,
            How::Killed { signal, .. } => 128 + (signal & 0x7f) as i32,
        }
    }
}

impl fmt::Display for ExitStatus {
    /// As std: `exit status: 1`, `signal: SIGSEGV (11) (core dumped)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (signal, core_dumped) = match self.how {
            How::Exited(code) => return write!(f, "exit status: {code}"),
            How::Killed { signal, core_dumped } => (signal, core_dumped),
        };
        match Signal::from_raw(signal.into()) {
            Some(signal) => write!(f, "signal: {signal:?}")?,
            None => write!(f, "signal: {signal}")?,
        }
        f.write_str(if core_dumped { " (core dumped)" } else { "" })
    }
}

impl fmt::Debug for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExitStatus({self})")
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn ended(code: u32, status: i32) -> ExitStatus {
        ExitStatus::of(Waited { pid: 1, code: code as i32, status })
    }

    #[test]
    fn each_accessor_agrees_with_stds_reading_of_the_raw_status() {
        let codes = (0..=255).map(|code| ended(k::CLD_EXITED, code));
        let signals = (1..=64).flat_map(|signal| [ended(k::CLD_KILLED, signal), ended(k::CLD_DUMPED, signal)]);
        for ours in codes.chain(signals) {
            let std = std::process::ExitStatus::from_raw(ours.into_raw());
            assert_eq!((ours.success(), ours.code()), (std.success(), std.code()));
            assert_eq!(ours.signal().map(|signal| signal as i32), std.signal());
            assert_eq!(ours.core_dumped(), std.core_dumped());
        }
    }

    #[test]
    fn a_shell_adds_128_to_a_signal() {
        assert_eq!(ended(k::CLD_KILLED, 9).shell_status(), 137);
        assert_eq!(ended(k::CLD_EXITED, 7).shell_status(), 7);
    }

    #[test]
    fn it_reads_as_stds_does() {
        assert_eq!(std::format!("{}", ended(k::CLD_EXITED, 3)), "exit status: 3");
        assert_eq!(std::format!("{}", ended(k::CLD_DUMPED, 6)), "signal: SIGABRT (6) (core dumped)");
        assert_eq!(std::format!("{}", ended(k::CLD_KILLED, 33)), "signal: 33");
    }
}
