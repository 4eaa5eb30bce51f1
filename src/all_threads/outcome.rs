//! What a call on all threads says when not all made it with one result.

use core::fmt;

use crate::errno::{self, Errno};
use crate::io::Line;
use crate::signal::{self, Signal};
use crate::sys;

/// Why a call on all threads was not made by all with one result.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused it on the calling thread, and no other thread made it.
    Refused(Errno),
    /// The calling thread made it, and not all others did with its result.
    Diverged(Divergence),
}

impl Error {
    /// The kernel's refusal. If the threads differ, it ends the process by SIGABRT, with a line
    /// that names them: a process that has given up its rights on some threads only must not
    /// continue.
    ///
    /// ```no_run
    /// # use rt0::all_threads::{self, Error};
    /// # let uid = 1000;
    /// all_threads::setuid(uid).map_err(Error::errno_or_abort)?;
    /// # Ok::<(), rt0::Errno>(())
    /// ```
    ///
    /// In handlers: no.
    pub fn errno_or_abort(self) -> Errno {
        match self {
            Error::Refused(errno) => errno,
            Error::Diverged(divergence) => {
                use fmt::Write as _;
                let mut line = Line::new(2);
                // A failure cannot be reported anywhere.
                let _ = writeln!(line, "rt0: fatal: {divergence}");
                let _ = line.finish();
                signal::die_from(Signal::SIGABRT)
            }
        }
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Error {
        Error::Refused(errno)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Refused(errno) => errno.fmt(f),
            Error::Diverged(divergence) => divergence.fmt(f),
        }
    }
}

impl core::error::Error for Error {}

/// How the threads differ after a call on all of them.
#[derive(Clone, Debug)]
pub struct Divergence {
    /// The call's number.
    pub(super) nr: usize,
    pub(super) expected: usize,
    /// Thread and raw result.
    pub(super) differing: FirstOf<(u32, usize)>,
    pub(super) unlisted: FirstOf<u32>,
}

/// A thread whose result is not the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The thread; 0 if it was killed in its call.
    pub tid: u32,
    /// What the call returned on the calling thread.
    pub expected: usize,
    /// What it returned on this one. `EAGAIN`: it could not be signalled, for the queue of signals
    /// is full. `ESRCH`: it was killed.
    pub got: errno::Result<usize>,
}

impl Divergence {
    /// Threads with another result; the first four of them.
    ///
    /// In handlers: yes.
    pub fn mismatches(&self) -> impl Iterator<Item = Mismatch> + '_ {
        let expected = self.expected;
        self.differing.first().iter().map(move |&(tid, raw)| Mismatch {
            tid,
            expected,
            got: sys::result_of(self.nr, raw as isize),
        })
    }

    /// How many threads had another result.
    ///
    /// In handlers: yes.
    pub fn mismatch_count(&self) -> usize {
        self.differing.total()
    }

    /// Threads of this process that rt0 did not start and could not reach, by their ids; the first
    /// four of them. Without /proc they cannot be told.
    ///
    /// In handlers: yes.
    pub fn unlisted(&self) -> &[u32] {
        self.unlisted.first()
    }

    /// How many threads rt0 does not know.
    ///
    /// In handlers: yes.
    pub fn unlisted_count(&self) -> usize {
        self.unlisted.total()
    }
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a system call on all threads left them different:")?;
        for Mismatch { tid, expected, got } in self.mismatches() {
            match got {
                Ok(value) => write!(f, " thread {tid} got {value}, not {expected};")?,
                Err(errno) => write!(f, " thread {tid} got {errno}, not {expected};")?,
            }
        }
        for tid in self.unlisted() {
            write!(f, " thread {tid} is unknown;")?;
        }
        write!(f, " {} got another result, {} are unknown", self.mismatch_count(), self.unlisted_count())
    }
}

/// The first four of many, and how many there were.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FirstOf<T> {
    items: [T; 4],
    total: u32,
}

impl<T> FirstOf<T> {
    pub(super) fn add(&mut self, item: T) {
        if let Some(room) = self.items.get_mut(self.total as usize) {
            *room = item;
        }
        self.total += 1;
    }

    fn first(&self) -> &[T] {
        &self.items[..self.total().min(self.items.len())]
    }

    pub(super) fn total(&self) -> usize {
        self.total as usize
    }
}
