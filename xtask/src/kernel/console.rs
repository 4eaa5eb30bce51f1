//! What the first process of a guest says, out of all that comes from its console.
//!
//! The kernel writes there too, also into the middle of a line. So each line of init ends with a
//! checksum of its words (see tests/src/init/report.rs). A line without one, or with a wrong one,
//! is not init's. It is kept for an error message.

use std::collections::VecDeque;
use std::time::Duration;

/// So many lines of others are kept, the newest.
const KEPT: usize = 120;

/// A line of init.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The first one.
    Hello {
        /// As uname(2) gives it.
        release: String,
        /// In bytes.
        page_size: u64,
        /// How many processors a program may use.
        processors: u32,
    },
    /// The test of this number starts.
    Start(usize),
    /// What a test wrote to its standard output (1) or error (2).
    Output(usize, u8, Vec<u8>),
    /// A line that the kernel logged while the test ran, at the level of a warning or worse.
    Log(usize, String),
    /// A test ended.
    End(usize, End, Duration),
    /// Something is not as it should be.
    Note(String),
    /// All tests of the plan ran.
    Done(usize),
    /// The one program that was booted instead of a plan ended, with this status.
    Booted(u8),
}

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With this status.
    Exit(i32),
    /// By this signal.
    Signal(i32),
    /// At its limit, by init.
    TimedOut,
    /// It could not be started; the error's number.
    Refused(i32),
}

/// Reads a console line by line.
#[derive(Default)]
pub struct Console {
    others: VecDeque<String>,
    emergency: bool,
}

impl Console {
    /// What a line means; `None` if it is not init's.
    pub fn line(&mut self, bytes: &[u8]) -> Option<Event> {
        let line = String::from_utf8_lossy(bytes);
        let line = line.trim_end_matches(['\r', '\n']);
        // The kernel may have left the line before unfinished.
        let event = line.match_indices("@@").find_map(|(at, mark)| {
            let words = checked(&line[at + mark.len()..])?;
            Some((at, event(words)))
        });
        match event {
            Some((at, Some(event))) => {
                self.keep(&line[..at]);
                Some(event)
            }
            _ => {
                self.keep(line);
                None
            }
        }
    }

    fn keep(&mut self, text: &str) {
        // As a terminal's colours and the like would do to ours.
        let text: String = text.chars().filter(|c| !c.is_control()).take(400).collect();
        if text.trim().is_empty() {
            return;
        }
        self.emergency |= is_emergency(&text);
        if self.others.len() == KEPT {
            self.others.pop_front();
        }
        self.others.push_back(text);
    }

    /// Whether the kernel said that it is broken.
    pub fn emergency(&self) -> bool {
        self.emergency
    }

    /// What was said beside init's lines, the last of it.
    pub fn others(&self) -> String {
        let skipped = self.others.len().saturating_sub(60);
        self.others.iter().skip(skipped).map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

/// Whether a line of the kernel's says that it found a fault of its own. Not what a slow host alone
/// brings about: stalls and lockups are turned off on the command line.
pub fn is_emergency(text: &str) -> bool {
    const MARKS: [&str; 13] = [
        "[ cut here ]",
        "Kernel panic",
        "Oops",
        "BUG:",
        "kernel BUG at",
        "WARNING: CPU:",
        "WARNING: at ",
        "WARNING: possible",
        "Unable to handle kernel",
        "general protection fault",
        "Internal error",
        "CPU Bug",
        "unable to handle page fault",
    ];
    MARKS.iter().any(|mark| text.contains(mark))
}

/// The words before a check that is right.
fn checked(text: &str) -> Option<&str> {
    let (words, check) = text.trim_end().rsplit_once(" #")?;
    (u32::from_str_radix(check, 16) == Ok(self::check(words)) && check.len() == 8).then_some(words)
}

/// FNV-1a.
fn check(words: &str) -> u32 {
    words.bytes().fold(0x811c_9dc5, |check: u32, byte| (check ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

fn event(words: &str) -> Option<Event> {
    let (kind, rest) = words.split_once(' ')?;
    let mut fields = rest.split(' ');
    let mut number = || fields.next()?.parse::<usize>().ok();
    Some(match kind {
        "H" => {
            let mut fields = rest.split(' ');
            let release = fields.next()?.to_string();
            Event::Hello { release, page_size: fields.next()?.parse().ok()?, processors: fields.next()?.parse().ok()? }
        }
        "S" => Event::Start(number()?),
        "O" => {
            let mut fields = rest.splitn(3, ' ');
            let (test, stream) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            let text = fields.next().map_or(b"\n[more was dropped]\n".to_vec(), unescape);
            Event::Output(test, stream, text)
        }
        "K" => {
            let (test, text) = rest.split_once(' ')?;
            Event::Log(test.parse().ok()?, String::from_utf8_lossy(&unescape(text)).into_owned())
        }
        "E" => {
            let fields: Vec<_> = rest.split(' ').collect();
            let [test, how, status, time] = fields[..] else { return None };
            let status = status.parse().ok()?;
            let end = match how {
                "exit" => End::Exit(status),
                "signal" => End::Signal(status),
                "timeout" => End::TimedOut,
                "refused" => End::Refused(status),
                _ => return None,
            };
            Event::End(test.parse().ok()?, end, Duration::from_millis(time.parse().ok()?))
        }
        "N" => Event::Note(rest.to_string()),
        "D" => Event::Done(number()?),
        "B" => Event::Booted(u8::try_from(number()?).ok()?),
        _ => return None,
    })
}

/// Undoes `\xx`.
fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, others @ ..] = rest {
        let hex = others.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match hex.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| *first == b'\\') {
            Some(byte) => {
                out.push(byte);
                rest = &others[2..];
            }
            None => {
                out.push(*first);
                rest = others;
            }
        }
    }
    out
}

/// A line as init writes it.
#[cfg(test)]
pub fn signed(words: &str) -> String {
    format!("@@{words} #{:08x}\r\n", check(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Option<Event> {
        Console::default().line(line.as_bytes())
    }

    #[test]
    fn lines_of_init_are_events() {
        let hello = Event::Hello { release: "6.12.95".to_string(), page_size: 16384, processors: 2 };
        assert_eq!(read(&signed("H 6.12.95 16384 2")), Some(hello));
        assert_eq!(read(&signed("S 7")), Some(Event::Start(7)));
        assert_eq!(read(&signed("O 7 2 a b\\0a\\5c")), Some(Event::Output(7, 2, b"a b\n\\".to_vec())));
        assert_eq!(read(&signed("E 7 exit 77 1500")), Some(Event::End(7, End::Exit(77), Duration::from_millis(1500))));
        assert_eq!(read(&signed("E 7 signal 11 0")), Some(Event::End(7, End::Signal(11), Duration::ZERO)));
        assert_eq!(read(&signed("D 450")), Some(Event::Done(450)));
        assert_eq!(read(&signed("B 139")), Some(Event::Booted(139)));
        assert_eq!(read(&signed("B 256")), None);
        assert!(matches!(read(&signed("O 7 1")), Some(Event::Output(7, 1, text)) if text.ends_with(b"dropped]\n")));
    }

    #[test]
    fn a_line_into_which_the_kernel_spoke_is_nobodys() {
        let mut console = Console::default();
        let whole = signed("O 7 1 hello");
        let (first, second) = whole.split_at(9);
        assert_eq!(console.line(format!("{first}[ 1.5] tg3: link is up\r\n").as_bytes()), None);
        assert_eq!(console.line(second.as_bytes()), None);
        assert!(console.others().contains("tg3: link is up") && !console.emergency());
    }

    #[test]
    fn a_line_behind_an_unfinished_one_is_found() {
        let mut console = Console::default();
        assert_eq!(console.line(format!("[ 0.1] @@ random: crng{}", signed("S 3")).as_bytes()), Some(Event::Start(3)));
        assert!(console.others().contains("random: crng"));
    }

    #[test]
    fn what_a_test_prints_is_no_line_of_init() {
        // A test cannot write to the console; if it did, it would have to know the check.
        assert_eq!(read("@@E 7 exit 0 1"), None);
        assert_eq!(read("@@E 7 exit 0 1 #00000000"), None);
        assert_eq!(read(&signed("E 7 exit 0")), None);
        assert_eq!(read(&signed("X 7")), None);
        assert_eq!(read(&signed("")), None);
    }

    #[test]
    fn a_kernel_that_broke_is_noticed_and_a_flood_fills_no_memory() {
        let mut console = Console::default();
        for number in 0..1000 {
            assert_eq!(console.line(format!("line {number}").as_bytes()), None);
        }
        assert!(!console.emergency() && console.others.len() == KEPT && console.others().ends_with("line 999"));
        console.line(b"[   12.3] Kernel panic - not syncing: Attempted to kill init!");
        assert!(console.emergency());
        for text in ["WARNING: CPU: 0 PID: 77 at mm/x.c:5", "BUG: kernel NULL pointer dereference", "Oops [#1]"] {
            assert!(is_emergency(text), "{text}");
        }
        assert!(!is_emergency("process 't' is using a deprecated call"));
    }
}
