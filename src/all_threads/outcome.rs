//! The errors of a call on all threads.

use core::fmt;

use crate::errno::{self, Errno};
use crate::io::Line;
use crate::signal::{self, Signal};
use crate::sys;

/// Why a call on all threads failed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused it on the calling thread, and no other thread made it.
    Refused(Errno),
    /// The calling thread made it, and another thread did not or got another result.
    Diverged(Divergence),
}

impl Error {
    /// The errno, if the kernel refused the call. If the threads differ, it ends the process by
    /// SIGABRT, with a line that names them: a process that has dropped its rights only on some
    /// threads must not continue.
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
///
/// ```no_run
/// use rt0::all_threads::{self, Divergence, Error, Mismatch};
///
/// fn report(divergence: &Divergence) {
///     for Mismatch { tid, got, .. } in divergence.mismatches() {
///         rt0::println!("thread {tid}: {got:?}");
///     }
///     for tid in divergence.unlisted() {
///         rt0::println!("thread {tid} did not make the call");
///     }
///     let count = divergence.mismatch_count() + divergence.unlisted_count();
///     rt0::println!("{count} threads in all");
/// }
///
/// if let Err(Error::Diverged(divergence)) = all_threads::setuid(1000) {
///     report(&divergence);
///     rt0::process::abort();
/// }
/// ```
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
    /// What it returned on this one. `EAGAIN`: it could not be signalled, because the queue of
    /// signals is full. `ESRCH`: it was killed.
    pub got: errno::Result<usize>,
}

impl Divergence {
    /// The first four threads with another result.
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

    /// The ids of the first four threads of this process that rt0 did not start and could not
    /// reach. Empty if /proc is not mounted.
    ///
    /// In handlers: yes.
    pub fn unlisted(&self) -> &[u32] {
        self.unlisted.first()
    }

    /// How many threads rt0 could not reach.
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
