//! The text of one call, collected on the stack.

use core::fmt::{self, Write as _};

use linux_raw_sys::general::{POLLOUT, pollfd};

use super::{BorrowedFd, RawFd, write_all};
use crate::errno::{Errno, Result};
use crate::sys::{self, Timespec};

/// The text of one call, written when the buffer is full and at the end. Keeps the first error, and
/// writes nothing after it. If it `IS_BOUNDED`, a descriptor that takes nothing for five seconds is
/// such an error, `ETIMEDOUT`.
pub(crate) struct Line<const ROOM: usize = 512, const IS_BOUNDED: bool = false> {
    fd: RawFd,
    text: heapless::Vec<u8, ROOM>,
    result: Result<()>,
}

impl Line {
    pub(crate) fn new(fd: RawFd) -> Line {
        Line { fd, text: heapless::Vec::new(), result: Ok(()) }
    }
}

impl<const ROOM: usize, const IS_BOUNDED: bool> Line<ROOM, IS_BOUNDED> {
    pub(crate) fn with_room(fd: RawFd) -> Line<ROOM, IS_BOUNDED> {
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

    /// Writes what there is. Returns whether that and all writes before succeeded.
    pub(crate) fn flush(&mut self) -> bool {
        if self.result.is_ok() {
            // SAFETY: 1. rt0 writes lines to the standard descriptors, as `Stdout` does.
            let fd = unsafe { BorrowedFd::borrow_raw(self.fd) };
            let has_room = if IS_BOUNDED { wait_for_room(self.fd) } else { Ok(()) };
            self.result = has_room.and_then(|()| write_all(fd, &self.text));
        }
        self.text.clear();
        self.result.is_ok()
    }
}

/// Waits until a write to `fd` can begin, or fails at once: `ETIMEDOUT` after five seconds. A pipe
/// that has room takes 4096 bytes without waiting.
fn wait_for_room(fd: RawFd) -> Result<()> {
    const LOOKS: u32 = 50;
    let tenth = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    for _ in 0..LOOKS {
        match sys::ppoll(&mut [pollfd { fd, events: POLLOUT as i16, revents: 0 }], Some(&tenth)) {
            Ok(0) | Err(Errno::EINTR) => {}
            // Also POLLERR and POLLNVAL: the write returns that error. If a filter refuses the
            // call, the write waits.
            Ok(_) | Err(_) => return Ok(()),
        }
    }
    Err(Errno::ETIMEDOUT)
}

impl<const ROOM: usize, const IS_BOUNDED: bool> fmt::Write for Line<ROOM, IS_BOUNDED> {
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
