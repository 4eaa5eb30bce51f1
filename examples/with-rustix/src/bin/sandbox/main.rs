//! Runs a program in a sandbox: in user, mount, PID, network, IPC and host name namespaces of its
//! own, on a root with nothing but what is named, without capabilities, and under a filter on
//! system calls.
//!
//! ```text
//! sandbox [OPTION]… [--] PROGRAM [ARGUMENT]…
//!     --ro SOURCE[:TARGET]   shows a file or folder of the host, read-only
//!     --rw SOURCE[:TARGET]   the same, writable
//!     --dir FOLDER           the program's working directory; else /
//!     --net                  leaves the host's network in place
//! ```
//!
//! In the sandbox /proc shows the sandbox's own processes, /tmp is empty and writable, and /dev has
//! null, zero, full, random and urandom. Descriptors above 2 are closed. There is no way out by a
//! set-uid program.
//!
//! The status is the program's; 128 and the signal's number if a signal ended it; 127 if there is
//! no such program, 126 if it cannot be executed. A sandbox that cannot be made in every part is
//! not made at all: the status is 125 and a line says which step the kernel refused. Linux 5.12 or
//! later.
//!
//! There are three processes. The outer one stays outside: it passes signals on and waits. The
//! first one of the PID namespace makes the root, starts the program and reaps; when it ends the
//! kernel ends all that is left in there, and it ends when the outer one does.

#![no_std]
#![no_main]

mod filter;
mod options;
mod root;

use core::fmt;

use linux_raw_sys::general as k;
use rt0::process::{self, Command};
use rt0::signal::{self, How, SigSet, Signal};
use rt0::thread::{self, Fork};
use rt0::{Env, Errno, eprintln, sys};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};

use options::Options;

rt0::entry!(main);

/// The status where there is no sandbox.
const NO_SANDBOX: i32 = 125;

/// A step of the making that was refused.
pub struct Refused<'a> {
    step: &'static str,
    of: &'a str,
    errno: Errno,
}

impl<'a> Refused<'a> {
    /// For `map_err`: the step, and what it was about.
    pub fn at<E: IntoErrno>(step: &'static str, of: &'a str) -> impl FnOnce(E) -> Refused<'a> {
        move |errno| Refused { step, of, errno: errno.into_errno() }
    }
}

impl fmt::Display for Refused<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let between = if self.of.is_empty() { "" } else { " " };
        write!(f, "{}{between}{}: {}", self.step, self.of, self.errno)
    }
}

/// rt0's and rustix's errors are the same numbers.
pub trait IntoErrno {
    /// rt0's.
    fn into_errno(self) -> Errno;
}

impl IntoErrno for Errno {
    fn into_errno(self) -> Errno {
        self
    }
}

impl IntoErrno for rustix::io::Errno {
    fn into_errno(self) -> Errno {
        u16::try_from(self.raw_os_error()).ok().and_then(Errno::from_raw).unwrap_or(Errno::EIO)
    }
}

fn main(env: Env) -> i32 {
    let options = match Options::read(env) {
        Ok(options) => options,
        Err(what) => {
            eprintln!("sandbox: {what}");
            eprintln!(
                "usage: sandbox [--ro|--rw SOURCE[:TARGET]]... [--dir FOLDER] [--net] [--] PROGRAM [ARGUMENT]..."
            );
            return NO_SANDBOX;
        }
    };
    outside(&options).unwrap_or_else(refused)
}

fn refused(refused: Refused) -> i32 {
    eprintln!("sandbox: not made: {refused}");
    NO_SANDBOX
}

/// The outer process: makes the namespaces, starts their first process and stays until it ends.
fn outside<'a>(options: &Options<'a>) -> Result<i32, Refused<'a>> {
    let signals = signals();
    signal::mask(How::Block, &signals);
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    let mut spaces = UnshareFlags::NEWUSER
        | UnshareFlags::NEWNS
        | UnshareFlags::NEWPID
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUTS;
    if !options.net {
        spaces |= UnshareFlags::NEWNET;
    }
    // SAFETY: the table of descriptors stays shared.
    unsafe { rustix::thread::unshare_unsafe(spaces) }.map_err(Refused::at("making namespaces", ""))?;
    // The program is the user that it was outside, and nothing else is mapped.
    write(c"/proc/self/setgroups", format_args!("deny"))?;
    write(c"/proc/self/uid_map", format_args!("{0} {0} 1", user.as_raw()))?;
    write(c"/proc/self/gid_map", format_args!("{0} {0} 1", group.as_raw()))?;
    // The writing end is open as long as this process is.
    let (here, there) = sys::pipe().map_err(Refused::at("a pipe", ""))?;
    // SAFETY: 1. There is no other thread. 2. Each side goes its own way.
    match unsafe { thread::fork() }.map_err(Refused::at("starting the first process", ""))? {
        Fork::Child => {
            drop(there);
            process::exit(inside(options, &here, &signals).unwrap_or_else(refused))
        }
        Fork::Parent { child } => Ok(watch(child, &signals)),
    }
}

/// The first process of the PID namespace: makes the root, starts the program and reaps.
fn inside<'a>(options: &Options<'a>, outer: &sys::OwnedFd, signals: &SigSet) -> Result<i32, Refused<'a>> {
    end_with_the_outer_process(outer)?;
    rustix::system::sethostname(b"sandbox").map_err(Refused::at("naming the host", ""))?;
    root::change(options)?;
    // SAFETY: 1. to 3. It makes system calls on its own process, and keeps those possible that a
    // hook must leave.
    let command = unsafe {
        Command::new(options.program)
            .pass_on(options.args.clone())
            .current_dir(options.dir)
            .no_new_privs()
            .pre_exec(&give_up)
    };
    match command.spawn() {
        Ok(child) => Ok(watch(child.id(), signals)),
        Err(errno) => {
            eprintln!("sandbox: {:?}: {errno}", options.program);
            Ok(if errno == Errno::ENOENT { 127 } else { 126 })
        }
    }
}

/// Has this process killed when the outer one ends, also if that has just happened.
fn end_with_the_outer_process(outer: &sys::OwnedFd) -> Result<(), Refused<'static>> {
    let refused = "tying the first process to the outer one";
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(Refused::at(refused, ""))?;
    // SAFETY: open, and borrowed for the call.
    let fd = unsafe { rustix::fd::BorrowedFd::borrow_raw(outer.as_raw_fd()) };
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    match poll(&mut fds, Some(&at_once)).map_err(Refused::at(refused, ""))? {
        0 => Ok(()),
        _ => process::exit(NO_SANDBOX), // Its end is closed.
    }
}

/// In the program's process: the last that it may not do.
fn give_up() -> rt0::Result<()> {
    let given_up = close_descriptors()
        .map_err(Refused::at("closing descriptors", ""))
        .and_then(|()| drop_capabilities())
        .and_then(|()| filter::install().map_err(Refused::at("a filter on system calls", "")));
    // A status of its own: the program's parent would take an error for one of the program's file.
    given_up.map_err(|what| process::exit(refused(what)))
}

/// close_range(2): what is open is closed when the program is executed.
fn close_descriptors() -> rt0::Result<()> {
    // CLOSE_RANGE_CLOEXEC of linux/close_range.h, which linux-raw-sys leaves out.
    const CLOEXEC: usize = 1 << 2;
    let args = [3, u32::MAX as usize, CLOEXEC, 0, 0, 0];
    // SAFETY: 1. Nothing is closed now.
    unsafe { sys::syscall(k::__NR_close_range as usize, args) }.map(drop)
}

/// All sets, the one that bounds what a program of root's gets included.
fn drop_capabilities() -> Result<(), Refused<'static>> {
    let step = "giving up capabilities";
    for bit in 0..u64::BITS {
        match rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL) => break, // Behind the last that the kernel knows.
            Err(errno) => return Err(Refused::at(step, "")(errno)),
        }
    }
    rustix::thread::clear_ambient_capability_set().map_err(Refused::at(step, ""))?;
    let none = CapabilitySet::empty();
    let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, none).map_err(Refused::at(step, ""))
}

/// Passes signals on and reaps until `child` has ended; its status.
fn watch(child: u32, signals: &SigSet) -> i32 {
    loop {
        let Ok(info) = signal::wait(signals) else { continue }; // EINTR: stopped and continued.
        let Some(signal) = Signal::from_raw(info.number() as u32) else { continue };
        if signal != Signal::SIGCHLD {
            // What the terminal sends, the program gets too.
            if info.code() <= 0
                && let Err(errno) = process::kill(child, signal)
                && errno != Errno::ESRCH
            {
                eprintln!("sandbox: passing {signal:?} on: {errno}");
            }
            continue;
        }
        let mut ended = None;
        while let Ok(Some((pid, status))) = process::try_wait_any() {
            ended = ended.or((pid == child).then(|| status.shell_status()));
        }
        if let Some(status) = ended {
            return status;
        }
    }
}

/// What is passed on: everything but the signals of a fault of this process, and those that stop
/// it.
fn signals() -> SigSet {
    let mut set = SigSet::full();
    for signal in [
        Signal::SIGFPE,
        Signal::SIGILL,
        Signal::SIGSEGV,
        Signal::SIGBUS,
        Signal::SIGABRT,
        Signal::SIGTRAP,
        Signal::SIGSYS,
        Signal::SIGTSTP,
        Signal::SIGTTIN,
        Signal::SIGTTOU,
    ] {
        set.remove(signal);
    }
    set
}

/// Writes a line to a file of /proc, in one call, as the kernel asks for.
fn write(path: &'static core::ffi::CStr, text: fmt::Arguments) -> Result<(), Refused<'static>> {
    let mut line = Text { bytes: [0; 64], len: 0 };
    let name = path.to_str().unwrap_or_default();
    fmt::write(&mut line, text).map_err(|_| Errno::ENAMETOOLONG).map_err(Refused::at("writing to", name))?;
    let file =
        sys::open(path, sys::flags::O_WRONLY | sys::flags::O_CLOEXEC, 0).map_err(Refused::at("opening", name))?;
    let written = sys::write(&file, &line.bytes[..line.len]).map_err(Refused::at("writing to", name))?;
    if written == line.len { Ok(()) } else { Err(Refused::at("writing to", name)(Errno::EIO)) }
}

/// A short text.
pub struct Text {
    /// Its bytes, and zeros.
    pub bytes: [u8; 64],
    /// How many.
    pub len: usize,
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.len..self.len + text.len()).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
}
