//! Child processes with a time limit and captured streams.
//!
//! A child leads a process group of its own, so that on expiry everything it started ends with it,
//! and nothing else does. Ctrl-C on the terminal does not reach those groups: [`prepare`] passes it
//! on.

mod talk;

use std::cell::Cell;
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::ops::{Deref, DerefMut};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::resource::{Resource, UsageWho, getrusage, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeValLike;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::say;
pub use talk::{Next, Talk};

/// More than this is read and dropped, so that a program gone mad fills no memory.
const CAPTURE_BYTES: u64 = 1 << 20;

/// What became of a child.
pub struct Outcome {
    /// How it ended. If the limit expired, by SIGKILL.
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
    run_shown(command.stdout(Stdio::piped()).stderr(Stdio::piped()), limit)
}

/// The same, but the output goes to this process's own stdout and stderr, and is not in the result.
pub fn run_shown(command: &mut Command, limit: Duration) -> io::Result<Outcome> {
    let started = Instant::now();
    let mut child = Running::leader(command.stdin(Stdio::null()))?;
    let stdout = capture(child.stdout.take());
    let stderr = capture(child.stderr.take());
    let ended = wait_unreaped(child.process(), limit);
    CPU.set(CPU.get() + cpu_time(child.process()));
    let status = child.end()?;
    let timed_out = !ended?;
    let time = started.elapsed();
    Ok(Outcome { status, timed_out, stdout: collect(stdout), stderr: collect(stderr), time })
}

/// A child that ends when this process is interrupted, and when it is dropped.
pub struct Running {
    child: Child,
    /// What is killed, as kill(2) has it: a process, or a negative number for its group.
    id: Pid,
}

impl Running {
    /// Starts a child that leads a process group. An interrupt from the terminal does not reach it.
    pub fn leader(command: &mut Command) -> io::Result<Running> {
        Running::start(command.process_group(0), |id| -id)
    }

    /// Starts a child in this process's group: an interrupt from the terminal reaches it too.
    pub fn member(command: &mut Command) -> io::Result<Running> {
        Running::start(command, |id| id)
    }

    fn start(command: &mut Command, what_is_killed: fn(i32) -> i32) -> io::Result<Running> {
        // Locked during the spawn: an interrupt either finds the child in the list, or comes before
        // the child exists.
        let mut children = children();
        let child = command.spawn()?;
        let id = Pid::from_raw(what_is_killed(child.id() as i32));
        children.push(id);
        Ok(Running { child, id })
    }

    fn process(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Kills what is left, and reaps the child. A leader may have ended while a process that it
    /// started still holds the pipes. It is not reaped yet, so its id is not reused.
    fn end(&mut self) -> io::Result<ExitStatus> {
        let _ = kill(self.id, Signal::SIGKILL); // It may have ended.
        children().retain(|&id| id != self.id);
        self.child.wait()
    }
}

impl Deref for Running {
    type Target = Child;
    fn deref(&self) -> &Child {
        &self.child
    }
}

impl DerefMut for Running {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.child
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // If the child was reaped, its id may be another process's.
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        if waitid(Id::Pid(self.process()), flags) != Err(Errno::ECHILD) {
            let _ = self.end();
        }
        children().retain(|&id| id != self.id);
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
    /// The processor time of the children that this thread ran, since the last call of
    /// [`take_cpu_time`].
    static CPU: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// The processor time of the children that this thread ran, since its last call.
pub fn take_cpu_time() -> Duration {
    CPU.take()
}

/// The processor time of all children that have been waited for, and of their children: builds and
/// tests. getrusage(2)
pub fn cpu_time_of_all() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else { return Duration::ZERO };
    let times = [usage.user_time(), usage.system_time()];
    times.iter().map(|time| Duration::from_micros(time.num_microseconds().max(0) as u64)).sum()
}

/// The processor time of a process that is not reaped yet, and of the children that it waited for.
/// proc_pid_stat(5)
fn cpu_time(process: Pid) -> Duration {
    // Clock ticks are hundredths of a second for every program.
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    Duration::from_millis(10 * ticks(&text))
}

/// The sum of fields 14 to 17. The second field is the program's name, which may contain any
/// character; it ends at the last parenthesis.
fn ticks(stat: &str) -> u64 {
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    fields.skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum()
}

/// From now on Ctrl-C and SIGTERM end the running children before this process, and children write
/// no core files.
pub fn prepare() {
    // Core files are only litter: some tests die by a signal on purpose.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    let installed = ctrlc::set_handler(|| end_with_children(130));
    installed.expect("no other handler for SIGINT");
}

/// Kills all running children, and ends.
fn end_with_children(status: i32) -> ! {
    for &id in children().iter() {
        let _ = kill(id, Signal::SIGKILL);
    }
    std::process::exit(status)
}

/// Writes to stdout. If that fails, this process cannot report its result, so it ends, and its
/// children with it. It prints a message, unless the reader has closed the pipe, as `head` does
/// after its last line.
pub fn tell(write: impl FnOnce(&mut io::StdoutLock) -> io::Result<()>) {
    let mut out = io::stdout().lock();
    if let Err(error) = write(&mut out).and_then(|()| out.flush()) {
        if error.kind() != io::ErrorKind::BrokenPipe {
            say!("error: cannot write to standard output: {error}");
        }
        end_with_children(1)
    }
}

/// What is killed when this process is interrupted, as kill(2) has it.
fn children() -> MutexGuard<'static, Vec<Pid>> {
    static CHILDREN: Mutex<Vec<Pid>> = Mutex::new(Vec::new());
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Waits for the reader, up to a limit: a process that has left the group may keep the pipe open.
fn collect(receiver: mpsc::Receiver<Vec<u8>>) -> String {
    match receiver.recv_timeout(Duration::from_secs(5)) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => "[a process outside the test's group keeps this stream open]".to_string(),
    }
}

/// The variables that are set for a command.
pub fn variables(command: &Command) -> impl Iterator<Item = (&OsStr, &OsStr)> {
    command.get_envs().filter_map(|(name, value)| Some((name, value?)))
}

/// A copy of a command, with its variables, to which arguments can be added.
pub fn copy(command: &Command) -> Command {
    let mut copy = Command::new(command.get_program());
    copy.envs(variables(command));
    copy
}

/// The command as a line for a shell, with the variables that are set for it, except PATH.
pub fn shell_line(command: &Command) -> String {
    let variables = command.get_envs().filter_map(|(name, value)| {
        let value = value.filter(|_| name != "PATH")?.to_string_lossy();
        Some(format!("{}={}", name.to_string_lossy(), shell_words::quote(&value)))
    });
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words = words.map(|word| shell_words::quote(&word.to_string_lossy()).into_owned());
    variables.chain(words).collect::<Vec<_>>().join(" ")
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
    fn a_child_that_runs_is_in_the_list_of_those_that_an_interrupt_ends() {
        let is_listed = |id: Pid| children().contains(&id);
        let mut sleep = Command::new("sleep");
        let mut running = Running::member(sleep.arg("60")).expect("it exists");
        let id = running.id;
        assert!(id.as_raw() > 0 && is_listed(id));
        running.kill().expect("it runs");
        running.wait().expect("it ends");
        drop(running);
        assert!(!is_listed(id));
        let running = Running::leader(&mut sleep).expect("it exists");
        let id = running.id;
        assert!(id.as_raw() < 0 && is_listed(id));
        drop(running);
        assert!(!is_listed(id) && kill(id, None) == Err(Errno::ESRCH));
        // Also if the leader has ended, but a process that it started has not.
        let mut running = Running::leader(Command::new("sh").args(["-c", "sleep 60 & echo"]).stdout(Stdio::piped()));
        let running = running.as_mut().expect("sh exists");
        running.stdout.take().expect("a pipe").read_exact(&mut [0]).expect("a line");
        let id = running.id;
        while waitid(Id::Pid(running.process()), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
        assert_eq!(kill(id, None), Ok(()), "the group is there");
        running.end().expect("it is reaped");
        let end = Instant::now() + Duration::from_secs(20);
        while kill(id, None) != Err(Errno::ESRCH) && Instant::now() < end {
            thread::sleep(Duration::from_millis(10)); // Until init has reaped the other.
        }
        assert_eq!(kill(id, None), Err(Errno::ESRCH));
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
        let line = shell_line(&command);
        assert_eq!(shell_words::split(&line).expect("whole words"), ["K=v w", "/a b/c", "it's", "x=1", ""]);
        assert_eq!(
            sh(&format!("printf '[%s]' {line}"), Duration::from_secs(10)).stdout,
            "[K=v w][/a b/c][it's][x=1][]"
        );
    }
}
