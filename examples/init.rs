//! The first process of a container or an initramfs: starts one program, passes signals on to it,
//! reaps every process that has lost its parent, and ends with the program's status. It behaves as
//! tini's documentation says.
//!
//! ```text
//! init [-s] [-g] [-w] [-e STATUS]… [--] PROGRAM [ARGUMENT]…
//!     -s          reap orphans even if this is not the first process (PR_SET_CHILD_SUBREAPER)
//!     -g          pass signals on to the program's process group
//!     -w          report reaped orphans
//!     -e STATUS   exit with 0 if the program's status is this
//! ```
//!
//! The exit status is the program's; 128 plus the signal's number if a signal ended it; 127 if
//! there is no such program, 126 if it cannot be executed, 1 for any other error.
//!
//! All signals that can be passed on are blocked before the program starts, and received by
//! `signal::wait`, so none is lost and no handler is needed. SIGTTIN and SIGTTOU are excluded: they
//! concern a process's own terminal.
#![no_std]
#![no_main]

use core::ffi::CStr;

use linux_raw_sys::general as k;
use linux_raw_sys::prctl::PR_SET_CHILD_SUBREAPER;
use rt0::process::{self, Command};
use rt0::signal::{self, How, SigSet, Signal};
use rt0::{Args, Env, Errno, eprintln, sys};

/// ioctl(2) that makes a process group a terminal's foreground. linux-raw-sys lacks SPARC's ioctls
/// (asm/ioctls.h).
const TIOCSPGRP: u32 = core::cfg_select! {
    target_arch = "sparc64" => { 0x8004_7482 }
    _ => { linux_raw_sys::ioctl::TIOCSPGRP }
};

rt0::entry!(main);

fn main(env: Env) -> i32 {
    let Some((options, program, args)) = Options::read(env) else {
        eprintln!("usage: init [-s] [-g] [-w] [-e STATUS]... [--] PROGRAM [ARGUMENT]...");
        return 1;
    };
    if options.subreaper && set_subreaper().is_err() {
        eprintln!("init: this kernel has no subreapers");
        return 1;
    }
    if process::id() != 1 && !options.subreaper {
        eprintln!("init: not the first process: orphans are not reaped (use -s)");
    }
    let signals = signals();
    signal::mask(How::Block, &signals);
    // SAFETY: 1. to 3. It makes system calls on its own process and its terminal.
    let command = unsafe { Command::new(program).pass_on(args).process_group(0).pre_exec(&take_terminal) };
    match command.spawn() {
        Ok(child) => options.status(watch(child.id(), &signals, &options)),
        Err(errno) => {
            eprintln!("init: {program:?}: {errno}");
            match errno {
                Errno::ENOENT => 127,
                Errno::EACCES | Errno::ENOEXEC => 126,
                _ => 1,
            }
        }
    }
}

/// Passes signals on and reaps until the program has ended; returns its status.
fn watch(program: u32, signals: &SigSet, options: &Options) -> i32 {
    loop {
        let number = match signal::wait(signals) {
            Ok(info) => info.number() as u32,
            Err(_) => continue, // EINTR: stopped and continued.
        };
        let Some(signal) = Signal::from_raw(number) else { continue };
        if signal != Signal::SIGCHLD {
            let sent =
                if options.group { process::kill_group(program, signal) } else { process::kill(program, signal) };
            // ESRCH: it has just ended, and SIGCHLD follows.
            if let Err(errno) = sent
                && errno != Errno::ESRCH
            {
                eprintln!("init: passing {signal:?} on: {errno}");
            }
            continue;
        }
        // One signal may stand for many children.
        let mut ended = None;
        while let Ok(Some((pid, status))) = process::try_wait_any() {
            if pid == program {
                ended = Some(status.shell_status());
            } else if options.warn {
                eprintln!("init: reaped {pid}: {status}");
            }
        }
        if let Some(status) = ended {
            return status;
        }
    }
}

/// The signals that are passed on: all except those that report a fault of this process, and those
/// about its terminal.
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
        Signal::SIGTTIN,
        Signal::SIGTTOU,
    ] {
        set.remove(signal);
    }
    set
}

/// In the child: makes its group the terminal's foreground, if there is one.
fn take_terminal() -> rt0::Result<()> {
    // SIGTTOU stops a background group that asks for this, unless the signal is blocked.
    let before = signal::mask(How::Block, &SigSet::from_iter([Signal::SIGTTOU]));
    let group = process::id();
    let args = [0, TIOCSPGRP as usize, (&raw const group).expose_provenance(), 0, 0, 0];
    // SAFETY: 1. The kernel reads the number.
    let taken = unsafe { sys::syscall(k::__NR_ioctl as usize, args) };
    signal::mask(How::Set, &before);
    match taken {
        // No terminal, another session's, or closed.
        Ok(_) | Err(Errno::ENOTTY | Errno::ENXIO | Errno::EBADF | Errno::EINVAL) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn set_subreaper() -> rt0::Result<usize> {
    // SAFETY: 1. It touches no memory.
    unsafe { sys::syscall(k::__NR_prctl as usize, [PR_SET_CHILD_SUBREAPER as usize, 1, 0, 0, 0, 0]) }
}

/// The command line's options.
struct Options {
    subreaper: bool,
    group: bool,
    warn: bool,
    /// A bit for each status that counts as success.
    expected: [u64; 4],
}

impl Options {
    /// Parses the options, the program and its arguments.
    fn read(env: Env) -> Option<(Options, &'static CStr, Args)> {
        let mut options = Options { subreaper: false, group: false, warn: false, expected: [0; 4] };
        let mut args = env.args();
        args.next();
        loop {
            let arg = args.next()?;
            match arg.to_bytes() {
                b"-s" => options.subreaper = true,
                b"-g" => options.group = true,
                b"-w" => options.warn = true,
                b"-e" => {
                    let status: u8 = args.next()?.to_str().ok()?.parse().ok()?;
                    options.expected[usize::from(status / 64)] |= 1 << (status % 64);
                }
                b"--" => return Some((options, args.next()?, args)),
                [b'-', ..] => return None,
                _ => return Some((options, arg, args)),
            }
        }
    }

    fn status(&self, status: i32) -> i32 {
        let is_expected = self.expected[status as usize / 64] & 1 << (status % 64) != 0;
        if is_expected { 0 } else { status }
    }
}
