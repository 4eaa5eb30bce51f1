//! Standard input, output and error: read(2) and write(2), without buffering between calls.
//!
//! `print!` and its relatives collect one call's text on the stack. So a line of up to 512 bytes is
//! one write(2), and lines of several threads do not mix.
//!
//! # A reader that goes away
//!
//! What rt0 does about `SIGPIPE` is nothing: the signal stays as the program inherited it, which
//! ends a program that writes to a pipe without a reader, as one in C. std ignores the signal when
//! a program starts, and then `print!` panics with `EPIPE`. A program that wants that, or wants to
//! see the error, ignores it first:
//!
//! ```no_run
//! # use rt0::signal::{Action, Handler, Signal, sigaction};
//! // SAFETY: 1. Nothing is called.
//! unsafe { sigaction(Signal::SIGPIPE, Action { handler: Handler::Ignore, ..Action::DEFAULT }) }?;
//! # Ok::<(), rt0::Errno>(())
//! ```

mod event;
mod line;
mod print;

use core::fmt;

use crate::errno::{Errno, Result};
use crate::sys;

pub use crate::sys::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

pub use event::EventFd;
pub(crate) use line::{Line, write_fmt};
#[doc(hidden)]
pub use print::{Standard, print};

/// Standard input, descriptor 0.
///
/// ```no_run
/// use rt0::io::{self, Stdin};
///
/// let stdin: Stdin = io::stdin();
/// let mut buf = [0; 4096];
/// loop {
///     match stdin.read(&mut buf)? {
///         0 => break, // The end.
///         filled => io::stdout().write_all(&buf[..filled])?,
///     }
/// }
/// # Ok::<(), rt0::Errno>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Stdin(());

/// Standard output, descriptor 1.
#[derive(Clone, Copy, Debug)]
pub struct Stdout(());

/// Standard error, descriptor 2.
///
/// ```no_run
/// use rt0::io::{self, Stderr, Stdout};
///
/// let (out, err): (Stdout, Stderr) = (io::stdout(), io::stderr());
/// out.write_fmt(format_args!("{} of {}\n", 1, 2))?; // Or write!(out, …).
/// err.write_all(b"one write\n")?;
/// out.flush()?; // Nothing is buffered.
/// # Ok::<(), rt0::Errno>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Stderr(());

/// Standard input.
///
/// In handlers: yes.
pub const fn stdin() -> Stdin {
    Stdin(())
}

/// Standard output.
///
/// In handlers: yes.
pub const fn stdout() -> Stdout {
    Stdout(())
}

/// Standard error.
///
/// In handlers: yes.
pub const fn stderr() -> Stderr {
    Stderr(())
}

impl Stdin {
    /// The descriptor's number.
    ///
    /// In handlers: yes.
    pub const fn as_raw_fd(&self) -> RawFd {
        0
    }

    /// Reads the available bytes, at most `buf.len()`; 0 at the end. Retries after `EINTR`, see
    /// [`read`]; returns other errors of read(2).
    ///
    /// In handlers: yes.
    pub fn read(&self, buf: &mut [u8]) -> Result<usize> {
        read(self, buf)
    }
}

macro_rules! standard {
    ($($name:ident)*) => {$(
        impl AsFd for $name {
            fn as_fd(&self) -> BorrowedFd<'_> {
                // SAFETY: 1. As in std, all code may use the standard descriptors, and they count
                // as open: rt0 opens those that are closed when the program starts.
                unsafe { BorrowedFd::borrow_raw(self.as_raw_fd()) }
            }
        }

        impl AsRawFd for $name {
            fn as_raw_fd(&self) -> RawFd {
                $name::as_raw_fd(self)
            }
        }
    )*};
}
standard!(Stdin Stdout Stderr);

macro_rules! writer {
    ($name:ident, $fd:literal) => {
        impl $name {
            /// Writes part of `buf` by write(2); retries after `EINTR`.
            ///
            /// In handlers: yes.
            pub fn write(&self, buf: &[u8]) -> Result<usize> {
                write(self, buf)
            }

            /// Writes all of `buf`. After an error (`EPIPE`, `ENOSPC`, `EAGAIN`, …) part of it may
            /// be written. `EIO` if write(2) writes nothing without an error.
            ///
            /// In handlers: yes.
            pub fn write_all(&self, buf: &[u8]) -> Result<()> {
                write_all(self, buf)
            }

            /// Does nothing, because nothing is buffered. For code that calls it.
            ///
            /// In handlers: yes.
            pub fn flush(&self) -> Result<()> {
                Ok(())
            }

            /// What `write!` and `writeln!` call: up to 512 bytes are one write(2), so that
            /// lines of several threads do not mix. Errors of
            #[doc = concat!("[`write_all`](", stringify!($name), "::write_all).")]
            ///
            /// In handlers: yes, if the arguments may be formatted there.
            ///
            /// # Panics
            ///
            /// If an argument cannot be formatted, though writing went well: as std.
            pub fn write_fmt(&self, args: fmt::Arguments<'_>) -> Result<()> {
                write_fmt(self.as_raw_fd(), args)
                    .map_err(|error| error.unwrap_or_else(|| panic!("{FORMATTING_FAILED}")))
            }

            /// The descriptor's number.
            ///
            /// In handlers: yes.
            pub const fn as_raw_fd(&self) -> RawFd {
                $fd
            }
        }

        impl fmt::Write for $name {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                self.write_all(text.as_bytes()).map_err(|_| fmt::Error)
            }

            fn write_fmt(&mut self, args: fmt::Arguments<'_>) -> fmt::Result {
                write_fmt(self.as_raw_fd(), args).map_err(|_| fmt::Error)
            }
        }
    };
}
writer!(Stdout, 1);
writer!(Stderr, 2);

/// read(2) on any descriptor; retries after `EINTR`. std and [`sys::read`] return `EINTR`, for a
/// program that must notice signals.
///
/// In handlers: yes.
pub fn read(fd: impl AsFd, buf: &mut [u8]) -> Result<usize> {
    let fd = fd.as_fd();
    retry(|| sys::read(fd, buf))
}

/// write(2) on any descriptor; retries after `EINTR`.
///
/// In handlers: yes.
pub fn write(fd: impl AsFd, buf: &[u8]) -> Result<usize> {
    let fd = fd.as_fd();
    retry(|| sys::write(fd, buf))
}

/// Writes all of `buf` to any descriptor; see [`Stdout::write_all`].
///
/// ```no_run
/// use rt0::io::{self, AsFd, BorrowedFd};
///
/// fn greet(to: impl AsFd) -> Result<(), rt0::Errno> {
///     io::write_all(to, b"hello\n")
/// }
///
/// greet(io::stdout())?;
/// // SAFETY: descriptor 3 is open, and stays so.
/// greet(unsafe { BorrowedFd::borrow_raw(3) })?;
/// # Ok::<(), rt0::Errno>(())
/// ```
///
/// In handlers: yes.
pub fn write_all(fd: impl AsFd, buf: &[u8]) -> Result<()> {
    write_all_to(fd.as_fd(), buf)
}

/// [`write_all`], once in a program, whatever the types of its descriptors.
fn write_all_to(fd: BorrowedFd<'_>, mut buf: &[u8]) -> Result<()> {
    while !buf.is_empty() {
        // Neither nothing nor more than `buf` is a result of write(2): a filter made it up.
        match buf.split_at_checked(write(fd, buf)?) {
            Some((&[], _)) | None => return Err(Errno::EIO),
            Some((_, rest)) => buf = rest,
        }
    }
    Ok(())
}

fn retry(mut call: impl FnMut() -> Result<usize>) -> Result<usize> {
    loop {
        match call() {
            Err(Errno::EINTR) => {} // A signal handler ran; the call did nothing.
            done => return done,
        }
    }
}

/// As std, where a `Display` or another formatting trait fails on its own.
const FORMATTING_FAILED: &str = "a formatting trait implementation returned an error";
