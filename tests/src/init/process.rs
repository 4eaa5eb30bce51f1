//! One test in a process of its own: what it starts with, how long it may take, how it ends.

use core::fmt;
use core::time::Duration;

use linux_raw_sys::general as k;
use rt0::sys::{self, OwnedFd, flags};
use rt0::time::Instant;
use rt0::{Errno, io};
use rt0_tests::{Ended, fork, wait_for};

use crate::Test;
use crate::report::Stream;

/// How a test ended, in the words of `report.rs`.
pub struct End {
    ended: Ended,
    /// Whether it was killed at its limit.
    late: bool,
    time: Duration,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, status) = match self.ended {
            Ended::Exit(status) => ("exit", status),
            Ended::Signal(signal) => ("signal", signal),
        };
        write!(f, "{} {status} {}", if self.late { "timeout" } else { word }, self.time.as_millis())
    }
}

/// Descriptors that a test may not have open at its start are above these.
const STREAMS: usize = 3;

/// Runs a test to its end, or to its limit; nothing that it started is left.
pub fn run(test: &Test<'_>) -> Result<End, Errno> {
    let started = Instant::now();
    let ((out, out_end), (err, err_end)) = (pipe()?, pipe()?);
    let null = sys::open(c"/dev/null", flags::O_RDONLY | flags::O_CLOEXEC, 0)?;
    let child = fork()?;
    if child == 0 {
        let errno = start(test, [null.as_raw_fd(), out_end.as_raw_fd(), err_end.as_raw_fd()]);
        rt0::eprintln!("init: the test cannot be started: {errno}");
        sys::exit_group(126)
    }
    drop((out_end, err_end, null));
    let watched = watch(test, child, started, [&out, &err]);
    // All processes but this one: also those that left the test's group.
    // SAFETY: 1. They are the test's.
    let _ = unsafe { sys::syscall(k::__NR_kill as usize, [usize::MAX, k::SIGKILL as usize, 0, 0, 0, 0]) };
    let ended = wait_for(child);
    reap();
    let time = started.elapsed();
    let (late, mut streams, open) = watched?;
    // What is in the pipes. Nothing writes to them any more.
    for (number, fd) in [&out, &err].into_iter().enumerate() {
        while open[number] && receive(fd, &mut streams[number])? {}
    }
    Ok(End { ended, late, time })
}

/// Passes on what the test writes, until it ends or its time is over. Returns whether its time is
/// over, its streams, and which of these are still open.
fn watch<'a>(
    test: &Test<'a>,
    child: u32,
    started: Instant,
    fds: [&OwnedFd; 2],
) -> Result<(bool, [Stream<'a>; 2], [bool; 2]), Errno> {
    // SAFETY: 1. It makes a descriptor.
    let pidfd = unsafe { sys::syscall(k::__NR_pidfd_open as usize, [child as usize, 0, 0, 0, 0, 0]) }?;
    // SAFETY: 1. It was just opened, and only this owns it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd as i32) };
    let poll = Poll::new(&[fds[0], fds[1], &pidfd])?;
    let mut streams = [Stream::new(test.number, 1), Stream::new(test.number, 2)];
    let mut open = [true; 2];
    let limit = Duration::from_secs(test.limit.into());
    loop {
        let left = limit.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Ok((true, streams, open));
        }
        match poll.wait(left)? {
            None => {}
            Some(2) => return Ok((false, streams, open)),
            Some(number) => {
                open[number] = receive(fds[number], &mut streams[number])?;
                if !open[number] {
                    poll.forget(fds[number])?;
                }
            }
        }
    }
}

/// Reads once, which waits only while something can still write; false at the end.
fn receive(fd: &OwnedFd, stream: &mut Stream<'_>) -> Result<bool, Errno> {
    let mut buf = [0; 4096];
    let len = io::read(fd, &mut buf)?;
    stream.send(&buf[..len]);
    Ok(len > 0)
}

/// What the child does: becomes the test, or says why not.
fn start(test: &Test<'_>, streams: [i32; STREAMS]) -> Errno {
    let attempt = || {
        // A group of its own, for tests that signal their group.
        call(k::__NR_setpgid, [0, 0, 0, 0])?;
        for (number, fd) in streams.into_iter().enumerate() {
            call(k::__NR_dup3, [fd as usize, number, 0, 0])?;
        }
        let hard = u64::MAX; // RLIM64_INFINITY
        let limits = [(k::RLIMIT_CORE, 0), (k::RLIMIT_STACK, test.stack.unwrap_or(8 << 20))];
        for (resource, soft) in limits {
            let limit = k::rlimit64 { rlim_cur: soft, rlim_max: hard };
            call(k::__NR_prlimit64, [0, resource as usize, (&raw const limit).expose_provenance(), 0])?;
        }
        for fd in test.close.split(',').filter_map(|fd| fd.parse().ok()) {
            call(k::__NR_close, [fd, 0, 0, 0])?;
        }
        let lists = [&raw const test.args, &raw const test.env].map(|list| list.expose_provenance());
        call(k::__NR_execve, [test.path.as_ptr().expose_provenance(), lists[0], lists[1], 0])
    };
    attempt().expect_err("execve does not return")
}

/// A call of the child, on what is its own.
fn call(nr: u32, args: [usize; 4]) -> Result<(), Errno> {
    let [a, b, c, d] = args;
    // SAFETY: 1. The process has one thread; each call changes its own descriptors, limits and
    // group, and reads what lives.
    unsafe { sys::syscall(nr as usize, [a, b, c, d, 0, 0]) }.map(drop)
}

/// waitid(2) for all that were left to this process, which are killed by now.
fn reap() {
    let wait = [k::P_ALL as usize, 0, 0, k::WEXITED as usize, 0, 0];
    loop {
        // SAFETY: 1. It writes nothing.
        match unsafe { sys::syscall(k::__NR_waitid as usize, wait) } {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return, // ECHILD: there is no other.
        }
    }
}

/// pipe2(2): both ends, to be closed at execve.
fn pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
    let mut fds = [0i32; 2];
    let args = [(&raw mut fds).expose_provenance(), flags::O_CLOEXEC as usize, 0, 0, 0, 0];
    // SAFETY: 1. The kernel writes the two numbers.
    unsafe { sys::syscall(k::__NR_pipe2 as usize, args) }?;
    // SAFETY: 1. They were just opened, and only this owns them.
    let [read, write] = fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    Ok((read, write))
}

/// epoll(7) over a few descriptors: of all calls that wait for some, it alone takes its time the
/// same way on all machines.
struct Poll(OwnedFd);

impl Poll {
    /// Waits for any of these to be readable.
    fn new(fds: &[&OwnedFd]) -> Result<Poll, Errno> {
        let args = [flags::O_CLOEXEC as usize, 0, 0, 0, 0, 0];
        // SAFETY: 1. It makes a descriptor.
        let poll = unsafe { sys::syscall(k::__NR_epoll_create1 as usize, args) }?;
        // SAFETY: 1. It was just opened, and only this owns it.
        let poll = Poll(unsafe { OwnedFd::from_raw_fd(poll as i32) });
        for (number, fd) in fds.iter().enumerate() {
            let event = k::epoll_event { events: k::EPOLLIN as _, data: number as u64 };
            poll.control(k::EPOLL_CTL_ADD, fd, (&raw const event).expose_provenance())?;
        }
        Ok(poll)
    }

    fn control(&self, what: u32, fd: &OwnedFd, event: usize) -> Result<(), Errno> {
        let args = [self.0.as_raw_fd() as usize, what as usize, fd.as_raw_fd() as usize, event, 0, 0];
        // SAFETY: 1. The kernel reads the event.
        unsafe { sys::syscall(k::__NR_epoll_ctl as usize, args) }.map(drop)
    }

    /// Not this one any more.
    fn forget(&self, fd: &OwnedFd) -> Result<(), Errno> {
        self.control(k::EPOLL_CTL_DEL, fd, 0)
    }

    /// Which is readable, or at its end; `None` if none was in time.
    fn wait(&self, time: Duration) -> Result<Option<usize>, Errno> {
        let mut event = k::epoll_event { events: 0, data: 0 };
        let at = (&raw mut event).expose_provenance();
        let milliseconds = time.as_millis() as usize + 1;
        let args = [self.0.as_raw_fd() as usize, at, 1, milliseconds, 0, 0];
        // SAFETY: 1. The kernel writes one event.
        match unsafe { sys::syscall(k::__NR_epoll_pwait as usize, args) } {
            Ok(0) | Err(Errno::EINTR) => Ok(None),
            Ok(_) => Ok(Some(event.data as usize)),
            Err(errno) => Err(errno),
        }
    }
}
