//! Standard input, output and error: read(2) and write(2), with nothing buffered between calls.
//!
//! `print!` and its family collect one call's text on the stack, so that a line of up to 512 bytes
//! is one write(2) and lines of several threads do not mix.

mod event;

use core::fmt::{self, Write as _};

use crate::errno::{Errno, Result};
use crate::sys::{self, RawFd};

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
    /// Reads what is there, at most `buf.len()` bytes; 0 at the end. `EINTR` is tried again, see
    /// [`read`]; other errors of read(2) are returned.
    ///
    /// In handlers: yes.
    pub fn read(&self, buf: &mut [u8]) -> Result<usize> {
        read(0, buf)
    }
}

macro_rules! writer {
    ($name:ident, $fd:literal) => {
        impl $name {
            /// Writes part of `buf`: write(2), tried again after `EINTR`.
            ///
            /// In handlers: yes.
            pub fn write(&self, buf: &[u8]) -> Result<usize> {
                write(self.as_raw_fd(), buf)
            }

            /// Writes all of `buf`. On an error (`EPIPE`, `ENOSPC`, `EAGAIN`, …) part of it may be
            /// written. `EIO` if write(2) accepts nothing without saying why.
            ///
            /// In handlers: yes.
            pub fn write_all(&self, buf: &[u8]) -> Result<()> {
                write_all(self.as_raw_fd(), buf)
            }

            /// Does nothing, for nothing is buffered; it is here for code that asks.
            ///
            /// In handlers: yes.
            pub fn flush(&self) -> Result<()> {
                Ok(())
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
        }
    };
}
writer!(Stdout, 1);
writer!(Stderr, 2);

/// read(2) on any descriptor, tried again after `EINTR`. std's returns that; so does [`sys::read`],
/// for a program that is to look up when a signal comes.
///
/// In handlers: yes.
pub fn read(fd: RawFd, buf: &mut [u8]) -> Result<usize> {
    retry(|| sys::read(fd, buf))
}

/// write(2) on any descriptor, tried again after `EINTR`.
///
/// In handlers: yes.
pub fn write(fd: RawFd, buf: &[u8]) -> Result<usize> {
    retry(|| sys::write(fd, buf))
}

/// All of `buf` to any descriptor; see [`Stdout::write_all`].
///
/// In handlers: yes.
pub fn write_all(fd: RawFd, mut buf: &[u8]) -> Result<()> {
    while !buf.is_empty() {
        // Nothing, or more than there is: then what writes is no write(2).
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
            Err(Errno::EINTR) => {} // A handler ran; the call did nothing.
            done => return done,
        }
    }
}

/// One call's text, written when full and at the end. The first error is kept, and nothing is
/// written after it.
pub(crate) struct Line {
    fd: RawFd,
    text: heapless::Vec<u8, 512>,
    result: Result<()>,
}

impl Line {
    pub(crate) fn new(fd: RawFd) -> Line {
        Line { fd, text: heapless::Vec::new(), result: Ok(()) }
    }

    pub(crate) fn finish(mut self) -> Result<()> {
        self.flush();
        self.result
    }

    pub(crate) fn text(&mut self, text: &str) -> &mut Line {
        self.bytes(text.as_bytes())
    }

    pub(crate) fn bytes(&mut self, mut rest: &[u8]) -> &mut Line {
        while !rest.is_empty() {
            let room = self.text.capacity() - self.text.len();
            let (now, later) = rest.split_at(room.min(rest.len()));
            // It fits, by the line above.
            let _ = self.text.extend_from_slice(now);
            rest = later;
            if !rest.is_empty() {
                self.flush();
            }
        }
        self
    }

    /// A number, in base 10 or in hexadecimal; see [`sys::digits`].
    pub(crate) fn number(&mut self, number: usize, hexadecimal: bool) -> &mut Line {
        let mut buf = [0; 20];
        let first = sys::digits(number, hexadecimal, &mut buf);
        self.bytes(buf.get(first..).unwrap_or_default())
    }

    pub(crate) fn flush(&mut self) {
        if self.result.is_ok() {
            self.result = write_all(self.fd, &self.text);
        }
        self.text.clear();
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.text(text).result.map_err(|_| fmt::Error)
    }
}

/// What `print!` expands to.
#[doc(hidden)]
pub fn print(fd: RawFd, args: fmt::Arguments<'_>) {
    let mut line = Line::new(fd);
    let formatted = line.write_fmt(args);
    match line.finish() {
        // As std: a descriptor that nobody opened swallows what is printed.
        Err(Errno::EBADF) => {}
        Err(errno) => panic!("failed printing to {}: {errno}", if fd == 1 { "stdout" } else { "stderr" }),
        Ok(()) if formatted.is_err() => panic!("a formatting trait implementation returned an error"),
        Ok(()) => {}
    }
}

/// Prints to standard output, as std's. Panics if that fails, but not if descriptor 1 is closed.
#[macro_export]
macro_rules! print {
    ($($arg:tt)*) => { $crate::io::print(1, ::core::format_args!($($arg)*)) };
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
    ($($arg:tt)*) => { $crate::io::print(2, ::core::format_args!($($arg)*)) };
}

/// Prints a line to standard error, as std's; see [`eprint!`](crate::eprint!).
#[macro_export]
macro_rules! eprintln {
    () => { $crate::eprint!("\n") };
    ($($arg:tt)*) => { $crate::eprint!("{}\n", ::core::format_args!($($arg)*)) };
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
