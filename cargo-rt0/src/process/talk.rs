//! A child whose output is read while it runs.

use std::io::{self, BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::{Running, cpu_time};

/// A child whose output is read line by line while it runs. Dropped, it is ended with its process
/// group.
pub struct Talk {
    child: Running,
    lines: mpsc::Receiver<Vec<u8>>,
    seen: Duration,
}

/// What happened next.
pub enum Next {
    /// A line without its end; a very long one is cut.
    Line(Vec<u8>),
    /// The time limit passed.
    Silence,
    /// The child has ended, or has closed its output.
    End,
}

/// Longer lines are cut.
const LINE_BYTES: u64 = 8 << 10;

impl Talk {
    /// Starts the command with nothing on stdin; stderr goes where stdout goes.
    pub fn start(command: &mut Command) -> io::Result<Talk> {
        let (reader, writer) = io::pipe()?;
        let child = Running::leader(command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer))?;
        // The command keeps its copies of the pipe's end, and with them open there would be no end
        // of the output.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        // Bounded: a child that writes faster than its lines are read waits.
        let (sender, lines) = mpsc::sync_channel(256);
        thread::spawn(move || {
            let mut reader = BufReader::new(reader);
            loop {
                let mut line = Vec::new();
                match reader.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line) {
                    Ok(0) | Err(_) => return,
                    Ok(_) if sender.send(line).is_err() => return, // Dropped.
                    Ok(_) => {}
                }
            }
        });
        Ok(Talk { child, lines, seen: Duration::ZERO })
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line, if there is one before `limit` has passed.
    pub fn next(&self, limit: Duration) -> Next {
        match self.lines.recv_timeout(limit) {
            Ok(line) => Next::Line(line),
            Err(mpsc::RecvTimeoutError::Timeout) => Next::Silence,
            Err(mpsc::RecvTimeoutError::Disconnected) => Next::End,
        }
    }

    /// The processor time that it used since the last call.
    pub fn take_cpu_time(&mut self) -> Duration {
        let all = cpu_time(self.child.process());
        let since = all.saturating_sub(self.seen);
        self.seen = all;
        since
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;
    use nix::sys::signal::kill;

    use super::*;

    #[test]
    fn a_child_is_heard_line_by_line_and_ends_with_its_listener() {
        let mut command = Command::new("sh");
        let talk = Talk::start(command.args(["-c", "echo one; echo two >&2; head -c 20000 /dev/zero; exec sleep 60"]));
        let talk = talk.expect("sh exists");
        let limit = Duration::from_secs(20);
        for expected in ["one\n", "two\n"] {
            assert!(matches!(talk.next(limit), Next::Line(line) if line == expected.as_bytes()), "{expected}");
        }
        for expected in [LINE_BYTES as usize, LINE_BYTES as usize] {
            assert!(matches!(talk.next(limit), Next::Line(line) if line.len() == expected));
        }
        assert!(matches!(talk.next(Duration::from_millis(50)), Next::Silence));
        let group = talk.child.id;
        drop(talk);
        assert_eq!(kill(group, None), Err(Errno::ESRCH));
    }

    #[test]
    fn a_child_that_ends_is_heard_to_its_end() {
        let talk = Talk::start(Command::new("sh").args(["-c", "printf last"])).expect("sh exists");
        let limit = Duration::from_secs(20);
        assert!(matches!(talk.next(limit), Next::Line(line) if line == b"last"));
        assert!(matches!(talk.next(limit), Next::End));
    }
}
