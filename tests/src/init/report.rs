//! The report to the host, on a console to which the kernel writes too.
//!
//! A line of the report is `@@WORDS #CHECK`. The check is over the words, so that the host
//! recognises a line into which the kernel wrote. All bytes except printable ASCII, and `\`, are
//! escaped.
//!
//! - `H RELEASE PAGE PROCESSORS`: once, when this process runs.
//! - `S NUMBER`: a test starts.
//! - `O NUMBER STREAM TEXT`: what it wrote to stream 1 or 2, in parts. `O NUMBER STREAM` without
//!   text: more was dropped.
//! - `K NUMBER TEXT`: what the kernel logged meanwhile, of its warnings and worse.
//! - `E NUMBER exit|signal|timeout STATUS MILLISECONDS`, or `E NUMBER refused ERRNO 0`: it ended.
//! - `N TEXT`: something is not as it should be.
//! - `D COUNT`: all tests of the plan have run.
//! - `B STATUS`: the one program that was booted instead has ended, with this status in a shell's
//!   terms.

use core::fmt::{self, Write};

use linux_raw_sys::general as k;
use rt0::sys::{self, OwnedFd, flags};
use rt0::{Errno, io};

/// A line under construction, and the check of what is in it.
struct Line {
    bytes: [u8; 600],
    len: usize,
    check: u32,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.push(byte);
        }
        Ok(())
    }
}

impl Line {
    /// An empty line.
    fn new() -> Line {
        let mut line = Line { bytes: [0; 600], len: 0, check: 0 };
        let _ = line.write_str("@@");
        line.check = 0x811c_9dc5; // FNV-1a, over what follows.
        line
    }

    /// A byte more; what is beyond the room for it is lost, and the callers see to it that nothing
    /// is.
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.len) {
            *place = byte;
            self.len += 1;
            self.check = (self.check ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        }
    }

    /// Any bytes, as text of one line.
    fn escaped(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match byte {
                b'\\' | 0..b' ' | 127.. => {
                    let _ = write!(self, "\\{byte:02x}");
                }
                plain => self.push(plain),
            }
        }
    }

    /// Writes it to the console.
    fn send(mut self) {
        let check = self.check;
        let _ = writeln!(self, " #{check:08x}");
        // Where the console is gone, the host sees that this machine is silent.
        let _ = io::write_all(io::stdout(), &self.bytes[..self.len]);
    }
}

/// Sends a line of words.
pub fn say(words: fmt::Arguments<'_>) {
    let mut line = Line::new();
    let _ = line.write_fmt(words);
    line.send();
}

/// What a test wrote to one of its streams.
pub struct Stream<'a> {
    test: &'a str,
    number: u32,
    /// How much of it the host may still be told.
    room: usize,
}

impl<'a> Stream<'a> {
    /// Stream 1 or 2 of a test.
    pub fn new(test: &'a str, number: u32) -> Stream<'a> {
        Stream { test, number, room: 32 << 10 }
    }

    /// Sends as much as there is room for.
    pub fn send(&mut self, bytes: &[u8]) {
        if self.room == 0 {
            return;
        }
        let sent = &bytes[..bytes.len().min(self.room)];
        for part in sent.chunks(120) {
            let mut line = Line::new();
            let _ = write!(line, "O {} {} ", self.test, self.number);
            line.escaped(part);
            line.send();
        }
        self.room -= sent.len();
        if self.room == 0 {
            say(format_args!("O {} {}", self.test, self.number));
        }
    }
}

/// The kernel's log. kmsg(4)
pub struct KernelLog(Option<OwnedFd>);

impl KernelLog {
    /// Opens it; without one, the console shows emergencies only.
    pub fn open() -> KernelLog {
        let file = sys::open(c"/dev/kmsg", flags::O_RDONLY | k::O_NONBLOCK | flags::O_CLOEXEC, 0);
        if let Err(errno) = &file {
            say(format_args!("N the kernel's log cannot be read: {errno}"));
        }
        KernelLog(file.ok())
    }

    /// Passes over what is in it.
    pub fn skip(&mut self) {
        self.each(|_| {});
    }

    /// Sends its warnings, and what is worse, since the last call.
    pub fn forward(&mut self, test: &str) {
        let mut lines = 0;
        self.each(|record| {
            // `PRIORITY,SEQUENCE,MICROSECONDS,FLAGS;TEXT`, then lines of details. A priority has
            // three bits of level, above them where it came from: 0 is the kernel.
            let Some(at) = record.iter().position(|byte| *byte == b';') else { return };
            let (head, text) = (&record[..at], &record[at + 1..]);
            let text = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
            let digits = head.iter().take_while(|byte| byte.is_ascii_digit());
            let priority = digits.fold(0u32, |value, digit| value * 10 + u32::from(digit - b'0'));
            if priority <= 4 && lines < 100 {
                lines += 1;
                let mut line = Line::new();
                let _ = write!(line, "K {test} ");
                line.escaped(&text[..text.len().min(150)]);
                line.send();
            }
        });
    }

    /// Calls `what` with each record that is there.
    fn each(&mut self, mut what: impl FnMut(&[u8])) {
        let Some(file) = &self.0 else { return };
        let mut record = [0; 8192];
        // More than the ring has room for is not to be had, except of a kernel that never stops.
        for _ in 0..20_000 {
            match sys::read(file, &mut record) {
                Ok(0) => return,
                Ok(len) => what(&record[..len]),
                // The oldest were overwritten. The next read takes what is left.
                Err(Errno::EPIPE) => {}
                Err(Errno::EINTR) => {}
                Err(_) => return, // EAGAIN: no more.
            }
        }
    }
}
