//! Child processes with a time limit and captured streams.
//!
//! Each child leads a process group of its own, so that on expiry everything it started goes with
//! it, and nothing else does. Ctrl-C on the terminal does not reach those groups; `prepare` sees to
//! it.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::resource::{Resource, UsageWho, getrusage, setrlimit};
use nix::sys::signal::{Signal, killpg};
use nix::sys::time::TimeValLike;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

/// More than this is read and dropped, so that a program gone mad fills no memory.
const CAPTURE_BYTES: u64 = 1 << 20;

/// What became of a child.
pub struct Outcome {
    /// How it ended; after an expired limit, by the signal that we sent.
    pub status: ExitStatus,
    /// Whether the limit expired.
    pub timed_out: bool,
    /// The first megabyte of its standard output.
    pub stdout: String,
    /// The first megabyte of its standard error.
    pub stderr: String,
    /// From start to end.
    pub time: Duration,
}

/// Runs the command with nothing on stdin, and kills its process group when `limit` expires.
pub fn run(command: &mut Command, limit: Duration) -> io::Result<Outcome> {
    run_with(command.stdout(Stdio::piped()).stderr(Stdio::piped()), limit)
}

/// The same with the output going where ours goes; the result has none of it.
pub fn run_shown(command: &mut Command, limit: Duration) -> io::Result<Outcome> {
    run_with(command, limit)
}

fn run_with(command: &mut Command, limit: Duration) -> io::Result<Outcome> {
    let started = Instant::now();
    command.stdin(Stdio::null()).process_group(0);
    let mut child = {
        // Held over the spawn: an interrupt either finds the new group in the list or comes before
        // it exists.
        let mut groups = groups();
        let child = command.spawn()?;
        groups.push(child.id());
        child
    };
    let stdout = capture(child.stdout.take());
    let stderr = capture(child.stderr.take());
    let leader = Pid::from_raw(child.id() as i32);
    let ended = wait_unreaped(leader, limit);
    CPU.set(CPU.get() + cpu_time(leader));
    // Even if the leader has ended: a process that it started may still hold the pipes. The leader
    // is not reaped yet, so its id is not reused.
    let _ = killpg(leader, Signal::SIGKILL);
    groups().retain(|&id| id != child.id());
    let status = child.wait()?;
    let timed_out = !ended?;
    let time = started.elapsed();
    Ok(Outcome { status, timed_out, stdout: collect(stdout), stderr: collect(stderr), time })
}

/// A child whose output is read line by line while it runs. Dropped, it is ended with its process
/// group.
pub struct Talk {
    child: Child,
    lines: mpsc::Receiver<Vec<u8>>,
    seen: Duration,
}

/// What came next.
pub enum Next {
    /// A line, without its end or as much as is kept of one.
    Line(Vec<u8>),
    /// Nothing, in time.
    Silence,
    /// It has ended, or closed its output.
    End,
}

/// No line is longer.
const LINE_BYTES: u64 = 8 << 10;

impl Talk {
    /// Starts the command with nothing on stdin; stderr goes where stdout goes.
    pub fn start(command: &mut Command) -> io::Result<Talk> {
        let (reader, writer) = io::pipe()?;
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).process_group(0);
        let child = {
            let mut groups = groups(); // As in `run`.
            let child = command.spawn()?;
            groups.push(child.id());
            child
        };
        // The command keeps its copies of the pipe's end, and with them open there would be no end
        // of the output.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        // Bounded: a child that says more than is listened to waits.
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

    /// The next line, if there is one before `limit` has passed.
    pub fn next(&self, limit: Duration) -> Next {
        match self.lines.recv_timeout(limit) {
            Ok(line) => Next::Line(line),
            Err(mpsc::RecvTimeoutError::Timeout) => Next::Silence,
            Err(mpsc::RecvTimeoutError::Disconnected) => Next::End,
        }
    }

    /// The processors' time that it took since this was last asked.
    pub fn take_cpu_time(&mut self) -> Duration {
        let all = cpu_time(Pid::from_raw(self.child.id() as i32));
        let since = all.saturating_sub(self.seen);
        self.seen = all;
        since
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        let leader = Pid::from_raw(self.child.id() as i32);
        // It may have ended; it is not reaped, so the number is still its own.
        let _ = killpg(leader, Signal::SIGKILL);
        groups().retain(|&id| id != self.child.id());
        let _ = self.child.wait();
    }
}

/// Waits until the child has ended, without reaping it; false if the limit expired first.
fn wait_unreaped(child: Pid, limit: Duration) -> io::Result<bool> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut ended = Err(Errno::EINTR);
        while ended == Err(Errno::EINTR) {
            ended = waitid(Id::Pid(child), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
        }
        let _ = sender.send(ended); // The receiver is gone if the limit has expired.
    });
    match receiver.recv_timeout(limit) {
        Ok(ended) => Ok(ended.map(|_| true)?),
        Err(_) => Ok(false),
    }
}

thread_local! {
    /// What the children that this thread ran have computed since it was last asked.
    static CPU: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// The processors' time that the children took which this thread ran since it last asked.
pub fn take_cpu_time() -> Duration {
    CPU.take()
}

/// The processors' time of all children that have ended and been waited for, and of theirs: builds
/// and tests. getrusage(2)
pub fn cpu_time_of_all() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else { return Duration::ZERO };
    let times = [usage.user_time(), usage.system_time()];
    times.iter().map(|time| Duration::from_micros(time.num_microseconds().max(0) as u64)).sum()
}

/// The processors' time of a process that is not reaped yet, and of those that it waited for.
/// proc_pid_stat(5)
fn cpu_time(process: Pid) -> Duration {
    // Clock ticks are hundredths of a second for every program.
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    Duration::from_millis(10 * ticks(&text))
}

/// The sum of fields 14 to 17. The second one is the program's name, and may have anything in it
/// but ends at the last parenthesis.
fn ticks(stat: &str) -> u64 {
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    fields.skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum()
}

/// Makes Ctrl-C and SIGTERM end the running children before us, and children write no core files.
pub fn prepare() {
    // Only tidiness: a test that dies by a signal is no surprise.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    let installed = ctrlc::set_handler(|| {
        for &id in groups().iter() {
            let _ = killpg(Pid::from_raw(id as i32), Signal::SIGKILL);
        }
        std::process::exit(130);
    });
    installed.expect("no other handler for SIGINT");
}

/// The process groups that run now.
fn groups() -> MutexGuard<'static, Vec<u32>> {
    static GROUPS: Mutex<Vec<u32>> = Mutex::new(Vec::new());
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads a stream to its end in a thread of its own, so that a full pipe never blocks the child.
fn capture(stream: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            let _ = stream.by_ref().take(CAPTURE_BYTES).read_to_end(&mut bytes);
            let _ = io::copy(&mut stream, &mut io::sink());
        }
        let _ = sender.send(bytes);
    });
    receiver
}

/// Waits for the reader; not for ever, since a process that left the group may keep the pipe open.
fn collect(receiver: mpsc::Receiver<Vec<u8>>) -> String {
    match receiver.recv_timeout(Duration::from_secs(5)) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => "[a process outside the test's group keeps this stream open]".to_string(),
    }
}

/// The command as one would type it, with the variables set for it; PATH is the typist's own.
pub fn shell_line(command: &Command) -> String {
    let variables = command.get_envs().filter_map(|(name, value)| {
        let value = value.filter(|_| name != "PATH")?.to_string_lossy();
        Some(format!("{}={}", name.to_string_lossy(), quote(&value)))
    });
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words = words.map(|word| quote(&word.to_string_lossy()));
    variables.chain(words).collect::<Vec<_>>().join(" ")
}

/// Quotes a word for the shell, if it needs that.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_string()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, limit: Duration) -> Outcome {
        run(Command::new("sh").args(["-c", script]), limit).expect("sh exists")
    }

    #[test]
    fn streams_and_status_are_captured() {
        let outcome = sh("echo out; echo err >&2; exit 3", Duration::from_secs(10));
        assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\n", "err\n"));
        assert_eq!((outcome.status.code(), outcome.timed_out), (Some(3), false));
    }

    #[test]
    fn an_expired_limit_ends_the_whole_group() {
        let outcome = sh("echo before; sleep 60 & sleep 60", Duration::from_millis(200));
        assert!(outcome.timed_out && outcome.time < Duration::from_secs(5));
        assert_eq!(outcome.stdout, "before\n");
    }

    #[test]
    fn a_child_left_behind_does_not_hold_us_up() {
        let outcome = sh("sleep 60 & echo done", Duration::from_secs(10));
        assert_eq!(outcome.stdout, "done\n");
        assert!(!outcome.timed_out && outcome.time < Duration::from_secs(5));
    }

    #[test]
    fn endless_output_is_cut_off() {
        let outcome = sh("head -c 3000000 /dev/zero", Duration::from_secs(10));
        assert_eq!((outcome.stdout.len() as u64, outcome.status.code()), (CAPTURE_BYTES, Some(0)));
    }

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
        let group = Pid::from_raw(talk.child.id() as i32);
        drop(talk);
        assert_eq!(killpg(group, None), Err(Errno::ESRCH));
    }

    #[test]
    fn a_child_that_ends_is_heard_to_its_end() {
        let talk = Talk::start(Command::new("sh").args(["-c", "printf last"])).expect("sh exists");
        let limit = Duration::from_secs(20);
        assert!(matches!(talk.next(limit), Next::Line(line) if line == b"last"));
        assert!(matches!(talk.next(limit), Next::End));
    }

    #[test]
    fn a_childs_time_is_counted_with_that_of_its_children() {
        take_cpu_time();
        sh("i=0; while [ $i -lt 300000 ]; do i=$((i + 1)); done; sh -c :", Duration::from_secs(60));
        assert!(take_cpu_time() > Duration::ZERO);
        assert_eq!(take_cpu_time(), Duration::ZERO);
        assert_eq!(ticks("7 (a) 1 (b) S 1 7 7 0 -1 4194560 9 9 0 0 1 20 300 4000 20 0 1 0 5"), 4321);
        assert_eq!(ticks(""), 0);
    }

    #[test]
    fn shell_lines_can_be_typed() {
        let mut command = Command::new("/a b/c");
        command.args(["it's", "x=1", ""]).env("K", "v w").env("PATH", "/bin");
        assert_eq!(shell_line(&command), r#"K='v w' '/a b/c' 'it'\''s' x=1 ''"#);
    }
}
