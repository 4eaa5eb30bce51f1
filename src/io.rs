//! Standard input, output and error: read(2) and write(2), without buffering between calls.
//!
//! `print!` and its relatives collect one call's text on the stack. So a line of up to 512 bytes is
//! one write(2), and lines of several threads do not mix.

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
    /// Reads the available bytes, at most `buf.len()`; 0 at the end. Retries after `EINTR`, see
    /// [`read`]; returns other errors of read(2).
    ///
    /// In handlers: yes.
    pub fn read(&self, buf: &mut [u8]) -> Result<usize> {
        read(0, buf)
    }
}

macro_rules! writer {
    ($name:ident, $fd:literal) => {
        impl $name {
            /// Writes part of `buf` by write(2); retries after `EINTR`.
            ///
            /// In handlers: yes.
            pub fn write(&self, buf: &[u8]) -> Result<usize> {
                write(self.as_raw_fd(), buf)
            }

            /// Writes all of `buf`. After an error (`EPIPE`, `ENOSPC`, `EAGAIN`, …) part of it may
            /// be written. `EIO` if write(2) writes nothing without an error.
            ///
            /// In handlers: yes.
            pub fn write_all(&self, buf: &[u8]) -> Result<()> {
                write_all(self.as_raw_fd(), buf)
            }

            /// Does nothing, because nothing is buffered. For code that calls it.
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

/// read(2) on any descriptor; retries after `EINTR`. std and [`sys::read`] return `EINTR`, for a
/// program that must notice signals.
///
/// In handlers: yes.
pub fn read(fd: RawFd, buf: &mut [u8]) -> Result<usize> {
    retry(|| sys::read(fd, buf))
}

/// write(2) on any descriptor; retries after `EINTR`.
///
/// In handlers: yes.
pub fn write(fd: RawFd, buf: &[u8]) -> Result<usize> {
    retry(|| sys::write(fd, buf))
}

/// Writes all of `buf` to any descriptor; see [`Stdout::write_all`].
///
/// In handlers: yes.
pub fn write_all(fd: RawFd, mut buf: &[u8]) -> Result<()> {
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

/// The expansion of `print!`.
#[doc(hidden)]
pub fn print(fd: RawFd, args: fmt::Arguments<'_>) {
    let mut line = Line::new(fd);
    let formatted = line.write_fmt(args);
    match line.finish() {
        // As in std: printing to a closed descriptor is ignored.
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
