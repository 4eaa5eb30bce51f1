//! `cargo xtask boot`: an example as the only process of a machine, and the first of a PID
//! namespace (tests/src/init/alone.rs).
//!
//! Its console is the terminal. When it has ended, the machine says its exit status and turns
//! itself off.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cargo_rt0::say;
use cargo_rt0::setup::Setup;

use super::Plan;
use super::console::{Console, Event};
use super::guest::{Folder, Guest, skeleton, stripped};
use crate::calls;

/// A machine turns itself off, which ends the emulator, within this time. Some never do.
const POWER_OFF: Duration = Duration::from_secs(3);

/// The guest that `word` names, the first of several.
pub fn guest(setup: &Setup, word: &str) -> Result<Guest> {
    let (guests, missing) = Plan::first(word)?.set_up(setup);
    match guests.into_iter().next() {
        Some(guest) => Ok(guest),
        None => {
            let reasons: Vec<_> = missing.into_iter().map(|(name, why)| format!("{name}: {why:#}")).collect();
            bail!("{word} cannot be booted: {}", reasons.join("; "))
        }
    }
}

/// Boots the program and passes on what it prints; the exit status is the program's own.
pub fn run(setup: &Setup, guest: &Guest, init: &Path, program: &Path) -> Result<ExitCode> {
    let target = cargo_rt0::targets::TARGETS.iter().find(|target| target.name == guest.row.machine);
    calls::check_program(program, target.context("rows are of machines of the table")?)?;
    let folder = Folder::new(&format!("boot-{}", guest.name))?;
    let mut archive = skeleton();
    archive.file("init", 0o755, &stripped(&setup.rust, init, &folder.0)?);
    archive.file("program", 0o755, &stripped(&setup.rust, program, &folder.0)?);
    let initrd = folder.write("initramfs", &archive.finish())?;
    say!("booting {}; Ctrl-C ends it", guest.describe());
    let mut command = guest.command(&initrd, "");
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start qemu")?;
    let console = BufReader::new(child.stdout.take().context("its output is piped")?);
    let status = pass_on(console, &mut std::io::stdout().lock());
    end(&mut child)?;
    match status? {
        Some(status) => Ok(ExitCode::from(status)),
        None => bail!("the machine ended, and its program had not"),
    }
}

/// Copies what the program and the kernel print, up to the line with which init says that the
/// program has ended: its status.
fn pass_on(console: impl BufRead, out: &mut impl Write) -> Result<Option<u8>> {
    for line in console.split(b'\n') {
        let mut line = line?;
        let event = Console::default().line(&line);
        if event.is_some() {
            // The program may have left the line before unfinished.
            let at = line.windows(2).rposition(|mark| mark == b"@@");
            line.truncate(at.unwrap_or(line.len()));
        }
        if event.is_none() || !line.is_empty() {
            line.push(b'\n');
        }
        if out.write_all(&line).and_then(|()| out.flush()).is_err() {
            return Ok(None); // The reader of a pipe is gone.
        }
        match event {
            Some(Event::Booted(status)) => return Ok(Some(status)),
            Some(Event::Note(text)) => say!("{text}"),
            _ => {}
        }
    }
    Ok(None)
}

/// Lets the emulator end by itself, or ends it.
fn end(child: &mut Child) -> Result<()> {
    let deadline = Instant::now() + POWER_OFF;
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
    use super::super::console::signed;
    use super::*;

    fn passed_on(console: &str) -> (Option<u8>, String) {
        let mut out = Vec::new();
        let status = pass_on(console.as_bytes(), &mut out).expect("a string is readable");
        (status, String::from_utf8(out).expect("it was text"))
    }

    #[test]
    fn what_the_program_prints_is_passed_on_up_to_its_end() {
        let all = format!("hello\r\n{}[ 1.5] reboot: Power down\r\n", signed("B 42"));
        assert_eq!(passed_on(&all), (Some(42), "hello\r\n".to_string()));
        let unfinished = format!("a\nno end{}", signed("B 0"));
        assert_eq!(passed_on(&unfinished), (Some(0), "a\nno end\n".to_string()));
        let noted = format!("{}{}", signed("N something is missing"), signed("B 139"));
        assert_eq!(passed_on(&noted), (Some(139), String::new()));
    }

    #[test]
    fn a_machine_that_ends_before_its_program_has_no_status() {
        let panic = "hello\r\n[ 1.5] Kernel panic - not syncing: out of luck\r\n";
        assert_eq!(passed_on(panic), (None, panic.to_string()));
    }
}
