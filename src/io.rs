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

use core::fmt::{self, Write as _};

use crate::errno::{Errno, Result};
use crate::sys;

pub use crate::sys::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

pub use event::EventFd;

/// Standard input, descriptor 0.
#[derive(Clone, Copy, Debug)]
pub struct Stdin(());

/// Standard output, descriptor 1.
#[derive(Clone, Copy, Debug)]
pub struct Stdout(());

/// Standard error, descriptor 2.
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

/// The text of one call, written when the buffer is full and at the end. Keeps the first error, and
/// writes nothing after it.
pub(crate) struct Line<const ROOM: usize = 512> {
    fd: RawFd,
    text: heapless::Vec<u8, ROOM>,
    result: Result<()>,
}

impl Line {
    pub(crate) fn new(fd: RawFd) -> Line {
        Line { fd, text: heapless::Vec::new(), result: Ok(()) }
    }
}

impl<const ROOM: usize> Line<ROOM> {
    pub(crate) fn with_room(fd: RawFd) -> Line<ROOM> {
        Line { fd, text: heapless::Vec::new(), result: Ok(()) }
    }

    pub(crate) fn finish(mut self) -> Result<()> {
        self.flush();
        self.result
    }

    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    pub(crate) fn bytes(&mut self, mut rest: &[u8]) -> &mut Self {
        while !rest.is_empty() {
            let room = self.text.capacity() - self.text.len();
            let (now, later) = rest.split_at(room.min(rest.len()));
            // It fits: `now` is at most as long as the free space.
            let _ = self.text.extend_from_slice(now);
            rest = later;
            if !rest.is_empty() {
                self.flush();
            }
        }
        self
    }

    /// Appends a number, decimal or hexadecimal; see [`sys::digits`].
    pub(crate) fn number(&mut self, number: usize, hexadecimal: bool) -> &mut Self {
        let mut buf = [0; 20];
        let first = sys::digits(number, hexadecimal, &mut buf);
        self.bytes(buf.get(first..).unwrap_or_default())
    }

    /// Writes what there is, unless there is room for so many bytes more.
    pub(crate) fn make_room(&mut self, bytes: usize) {
        if self.text.capacity() - self.text.len() < bytes {
            self.flush();
        }
    }

    pub(crate) fn flush(&mut self) {
        if self.result.is_ok() {
            // SAFETY: 1. rt0 writes lines to the standard descriptors, as `Stdout` does.
            let fd = unsafe { BorrowedFd::borrow_raw(self.fd) };
            self.result = write_all(fd, &self.text);
        }
        self.text.clear();
    }
}

impl<const ROOM: usize> fmt::Write for Line<ROOM> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.text(text).result.map_err(|_| fmt::Error)
    }
}

/// One call's text, as [`Line`]; `None` says that something could not be formatted, though writing
/// went well.
pub(crate) fn write_fmt(fd: RawFd, args: fmt::Arguments<'_>) -> core::result::Result<(), Option<Errno>> {
    let mut line = Line::new(fd);
    let formatted = line.write_fmt(args);
    line.finish().map_err(Some)?;
    formatted.map_err(|_| None)
}

/// As std, where a `Display` or another formatting trait fails on its own.
const FORMATTING_FAILED: &str = "a formatting trait implementation returned an error";

/// Where `print!` and its relatives write.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub enum Standard {
    Output = 1,
    Error = 2,
}

impl Standard {
    fn name(self) -> &'static str {
        match self {
            Standard::Output => "stdout",
            Standard::Error => "stderr",
        }
    }
}

/// The expansion of `print!`.
#[doc(hidden)]
pub fn print(to: Standard, args: fmt::Arguments<'_>) {
    match write_fmt(to as RawFd, args) {
        // As in std: printing to a closed descriptor is ignored.
        Ok(()) | Err(Some(Errno::EBADF)) => {}
        Err(Some(errno)) => panic!("failed printing to {}: {errno}", to.name()),
        Err(None) => panic!("{FORMATTING_FAILED}"),
    }
}

/// Prints to standard output, as std's. Panics if that fails, but not if descriptor 1 is closed.
#[macro_export]
macro_rules! print {
    ($($arg:tt)*) => { $crate::io::print($crate::io::Standard::Output, ::core::format_args!($($arg)*)) };
}

/// Prints a line to standard output, as std's; see [`print!`](crate::print!).
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($arg:tt)*) => { $crate::print!("{}\n", ::core::format_args!($($arg)*)) };
}

/// Prints to standard error, as std's. Panics if that fails, but not if descriptor 2 is closed.
#[macro_export]
macro_rules! eprint {
    ($($arg:tt)*) => { $crate::io::print($crate::io::Standard::Error, ::core::format_args!($($arg)*)) };
}

/// Prints a line to standard error, as std's; see [`eprint!`](crate::eprint!).
#[macro_export]
macro_rules! eprintln {
    () => { $crate::eprint!("\n") };
    ($($arg:tt)*) => { $crate::eprint!("{}\n", ::core::format_args!($($arg)*)) };
}

/// Prints file, line, text and value of an expression to standard error, and is that value: std's.
/// Without an expression, prints the place; with several, makes a tuple of them.
#[macro_export]
macro_rules! dbg {
    () => {
        $crate::eprintln!("[{}:{}:{}]", ::core::file!(), ::core::line!(), ::core::column!())
    };
    ($value:expr $(,)?) => {
        // A match, so that temporaries of the expression live until its value is used.
        match $value {
            value => {
                $crate::eprintln!(
                    "[{}:{}:{}] {} = {:#?}",
                    ::core::file!(),
                    ::core::line!(),
                    ::core::column!(),
                    ::core::stringify!($value),
                    &value
                );
                value
            }
        }
    };
    ($($value:expr),+ $(,)?) => { ($($crate::dbg!($value)),+,) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_a_line_are_as_formatted() {
        extern crate std;
        for number in [0, 1, 9, 10, 99, 4096, 0xDEAD_BEEF, usize::MAX / 10, usize::MAX] {
            for (hexadecimal, formatted) in [(false, std::format!("<{number}>")), (true, std::format!("<{number:x}>"))]
            {
                let mut line = Line::new(-1);
                line.text("<").number(number, hexadecimal).text(">");
                assert_eq!(line.text, formatted.as_bytes());
            }
        }
    }
}
