//! `cargo xtask boot`: an example as the first and only process of a machine.
//!
//! Its console is the terminal. When the process ends, its kernel panics, for it has nothing left
//! to run; that is the usual end here, and the panic's line has the exit status.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Plan;
use super::guest::{Folder, Guest, skeleton, stripped};
use crate::setup::Setup;
use crate::{calls, say};

/// A machine restarts, which ends the emulator, within this time after its kernel's end. Some never
/// do.
const RESTART: Duration = Duration::from_secs(3);

/// The guest that `word` names, the first of several.
pub fn guest(setup: &Setup, word: &str) -> Result<Guest> {
    let (guests, missing) = Plan::first(word)?.set_up(setup);
    match guests.into_iter().next() {
        Some(guest) => Ok(guest),
        None => {
            let reasons: Vec<_> = missing.into_iter().map(|(name, why)| format!("{name}: {why}")).collect();
            bail!("{word} cannot be booted: {}", reasons.join("; "))
        }
    }
}

/// Boots the program and passes on what it prints; the exit status is the program's own.
pub fn run(setup: &Setup, guest: &Guest, program: &Path) -> Result<ExitCode> {
    let target = crate::targets::TARGETS.iter().find(|target| target.name == guest.row.machine);
    calls::check_program(program, target.context("rows are of machines of the table")?)?;
    let folder = Folder::new(&format!("boot-{}", guest.name))?;
    let mut archive = skeleton();
    archive.file("init", 0o755, &stripped(&setup.rust, program, &folder.0)?);
    let initrd = folder.0.join("initramfs");
    fs::write(&initrd, archive.finish()).with_context(|| format!("cannot write {}", initrd.display()))?;
    say!("booting {}; Ctrl-C ends it", guest.describe());
    let mut command = guest.command(&initrd, "");
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start qemu")?;
    let console = BufReader::new(child.stdout.take().context("its output is piped")?);
    let mut status = None;
    for line in console.split(b'\n') {
        let mut line = line?;
        status = exit_status(&String::from_utf8_lossy(&line));
        if status.is_some() {
            break;
        }
        line.push(b'\n');
        let mut out = std::io::stdout().lock();
        if out.write_all(&line).and_then(|()| out.flush()).is_err() {
            break; // The reader of a pipe is gone.
        }
    }
    end(&mut child)?;
    match status {
        Some(status) => Ok(ExitCode::from(status)),
        None => bail!("the machine ended, and its first process had not"),
    }
}

/// The status that a shell would give for the first process, if this line of the kernel's says that
/// it ended.
fn exit_status(line: &str) -> Option<u8> {
    let (_, code) = line.split_once("Attempted to kill init! exitcode=0x")?;
    let code = u32::from_str_radix(code.trim().get(..8)?, 16).ok()?;
    let signal = (code & 0x7f) as u8;
    Some(if signal == 0 { (code >> 8) as u8 } else { 128 + signal })
}

/// Lets the emulator end by itself, or ends it.
fn end(child: &mut Child) -> Result<()> {
    // It may still want to print.
    drop(child.stdout.take());
    let deadline = Instant::now() + RESTART;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_last_line_has_the_exit_status() {
        let line = "[    1.5] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00002a00\r";
        assert_eq!(exit_status(line), Some(42));
        assert_eq!(exit_status("Attempted to kill init! exitcode=0x0000000b"), Some(139));
        assert_eq!(exit_status("Attempted to kill init! exitcode=0x00000000 "), Some(0));
        assert_eq!(exit_status("Attempted to kill init! exitcode=0x12"), None);
        assert_eq!(exit_status("hello"), None);
    }
}
