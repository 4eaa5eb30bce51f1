//! One program instead of a plan: `cargo xtask boot`.
//!
//! It is the first and only process of a PID namespace, on the console of the machine. It is not
//! the first process of the machine itself, because a kernel panics as soon as that one ends, and
//! drops what the console's driver has not sent yet.

use linux_raw_sys::general as k;
use rt0::process::Command;
use rt0::{Errno, io, sys};

use crate::report::say;

/// The program's place.
const PROGRAM: &core::ffi::CStr = c"/program";

/// Whether there is such a program.
pub fn is_there() -> bool {
    let args = [k::AT_FDCWD as isize as usize, PROGRAM.as_ptr().expose_provenance(), 0, 0, 0, 0];
    // SAFETY: 1. The kernel reads the path.
    unsafe { sys::syscall(k::__NR_faccessat as usize, args) }.is_ok()
}

/// Runs it to its end, and says how it ended when the console has sent all that it wrote.
pub fn run() {
    match start_and_wait() {
        Ok(status) => {
            drain();
            say(format_args!("B {status}"));
        }
        Err(errno) => say(format_args!("N the program cannot be started: {errno}")),
    }
    drain();
}

/// The exit status as a shell gives it.
fn start_and_wait() -> Result<i32, Errno> {
    // A kernel without such namespaces runs it as another process of the machine's.
    let flags = [k::CLONE_NEWPID as usize, 0, 0, 0, 0, 0];
    // SAFETY: 1. It changes nothing of this process; its children are in the new namespace.
    let made = unsafe { sys::syscall(k::__NR_unshare as usize, flags) };
    if let Err(errno) = made {
        say(format_args!("N it is not the first of a namespace: {errno}"));
    }
    Ok(Command::new(PROGRAM).spawn()?.wait()?.shell_status())
}

/// tcdrain(3): waits until the console has sent what was written to it.
fn drain() {
    /// linux-raw-sys lacks SPARC's ioctls (asm/ioctls.h).
    const TCSBRK: u32 = core::cfg_select! {
        target_arch = "sparc64" => { 0x2000_5405 }
        _ => { linux_raw_sys::ioctl::TCSBRK }
    };
    use rt0::io::AsFd as _;
    let console = io::stdout();
    let args = [console.as_fd().as_raw_fd() as usize, TCSBRK as usize, 1, 0, 0, 0];
    // SAFETY: 1. It changes nothing. A console that is no terminal has nothing to send.
    let _ = unsafe { sys::syscall(k::__NR_ioctl as usize, args) };
}
