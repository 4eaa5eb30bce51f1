//! Tests of examples/fault.rs: the report that it writes, and what `symbolize` and addr2line(1)
//! make of it.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cargo_rt0::build::Built;
use cargo_rt0::process;
use cargo_rt0::protocol::seen;
use cargo_rt0::report::{Test, Verdict};
use cargo_rt0::setup::Machine;
use nix::sys::signal::Signal;

use crate::repository::scratch;
use crate::symbolize;

const LIMIT: Duration = Duration::from_secs(180);

/// The ways in which the example dies: the argument, the signal (`None`: it exits with status 101),
/// and the start of the report.
const DEATHS: [(&str, Option<Signal>, &str); 3] = [
    ("fault", Some(Signal::SIGSEGV), " got SIGSEGV: address not mapped to object (SEGV_MAPERR)"),
    ("panic", None, " panicked at examples/fault.rs:"),
    ("quit", Some(Signal::SIGQUIT), " got SIGQUIT: sent by process "),
];

/// The tests for one machine.
pub fn of_programs<'a>(machine: &'a Machine, built: &'a Built) -> Vec<Test<'a>> {
    let Some(program) = built.program(machine, "fault") else { return Vec::new() };
    let mut tests = Vec::new();
    let name = "examples::fault_dies_with_a_report_that_symbolize_reads";
    tests.push(Test::new(machine.target.name, name, || dies_and_is_read(machine, program)));
    if machine.qemu().is_none() {
        let name = "examples::addr2line_reads_the_report_of_fault";
        tests.push(Test::new(machine.target.name, name, || {
            match Command::new("addr2line").arg("--version").output() {
                Ok(_) => addr2line_reads(machine, program).into(),
                Err(error) => Verdict::Skipped(format!("no addr2line: {error}")),
            }
        }));
        let name = "examples::fault_shows_its_threads_at_the_terminals_quit_key";
        tests.push(Test::new(machine.target.name, name, || match Command::new("script").arg("--version").output() {
            Ok(_) => quits(machine, program).into(),
            Err(error) => Verdict::Skipped(format!("no script(1): {error}")),
        }));
    }
    tests
}

/// The report of a program that dies in this way.
fn report(machine: &Machine, program: &Path, (word, signal, start): (&str, Option<Signal>, &str)) -> Result<String> {
    let mut command = machine.command(program);
    command.arg(word);
    let outcome = process::run(&mut command, LIMIT)?;
    let as_it_should = match signal {
        Some(signal) => outcome.status.signal() == Some(signal as i32),
        None => outcome.status.code() == Some(101),
    };
    let first = outcome.stderr.trim_start().lines().next().unwrap_or_default();
    let is_whole = first.starts_with("thread 'main' ") && first.contains(start);
    ensure!(as_it_should && is_whole && !outcome.timed_out, seen(&outcome, &process::shell_line(&command)));
    Ok(outcome.stderr)
}

fn dies_and_is_read(machine: &Machine, program: &Path) -> Result<()> {
    let row = machine.target.name;
    // Where compilers make no frame chain, or the emulator does not keep it.
    let has_frames = !(row.starts_with("mips") || row == "s390x" || row == "sparc64");
    for death in DEATHS {
        let report = report(machine, program, death)?;
        let mut told = Vec::new();
        symbolize::run(program, report.as_bytes(), &mut told)?;
        let told = String::from_utf8(told)?;
        let mut names = Vec::new();
        if death.0 == "fault" {
            names.extend(["fault::read_at at ", "examples/fault.rs:"]);
        }
        if has_frames {
            names.extend(["main at ", "examples/fault.rs:", "fault::wait_for_work at "]);
            if death.0 == "fault" {
                names.push("fault::read_the_list at ");
            }
        }
        for worker in ["first", "second"] {
            ensure!(told.contains(&format!("thread '{worker} worker' (tid ")), "no {worker} worker:\n{told}");
        }
        for name in names {
            ensure!(told.contains(name), "`{name}` is not in what was made of it:\n{told}");
        }
    }
    Ok(())
}

/// In a terminal of its own, which script(1) makes: Ctrl-\ is SIGQUIT to the program. script(1) may
/// drop output that has not reached it by the end of its child, so its child stays until the
/// report is there, for up to 20 s.
fn quits(machine: &Machine, program: &Path) -> Result<()> {
    const SHELL: &str = r#"{ until grep -q waiting "$OUT"; do sleep 0.05; done; printf '\034'; } |
        script -qec "$CHILD" /dev/null > "$OUT"; echo "status $?"; cat "$OUT""#;
    const CHILD: &str = r#"trap : QUIT; "$PROGRAM" wait; status=$?; looks=0
        until grep -q "first worker" "$OUT" || [ $looks = 400 ]; do looks=$((looks + 1)); sleep 0.05; done
        exit $status"#;
    let out = scratch(&format!("quit-{}", machine.target.name))?.join("out");
    fs::write(&out, "")?;
    let mut command = Command::new("sh");
    command.args(["-c", SHELL]).env("SHELL", "/bin/sh").env("CHILD", CHILD).env("PROGRAM", program).env("OUT", out);
    let outcome = process::run(&mut command, LIMIT)?;
    let expected = [
        "status 131\n",
        "thread 'main' (tid ",
        " got SIGQUIT: sent by the kernel, as for a terminal's key",
        "thread 'first worker' (tid ",
    ];
    let is_whole = !outcome.timed_out && expected.iter().all(|part| outcome.stdout.contains(part));
    ensure!(is_whole, seen(&outcome, &format!("{expected:?} are not all in:\n{}", outcome.stdout)));
    Ok(())
}

/// Passes the unchanged report to addr2line(1), which reads each line as an address.
fn addr2line_reads(machine: &Machine, program: &Path) -> Result<()> {
    let report = report(machine, program, DEATHS[0])?;
    let file = scratch(&format!("addr2line-{}", machine.target.name))?.join("report");
    fs::write(&file, &report)?;
    let mut command = Command::new("addr2line");
    command.args(["-f", "-C", "-e"]).arg(program).stdin(File::open(&file)?);
    let output = command.output().context("cannot start addr2line")?;
    let told = String::from_utf8(output.stdout)?;
    ensure!(told.contains("fault::read_at\n"), "no name of the function that faults:\n{report}\n{told}");
    let line = told.lines().skip_while(|line| !line.starts_with("fault::read_the_list")).nth(1);
    ensure!(line.is_some_and(|line| line.contains("examples/fault.rs:")), "no line of its caller:\n{report}\n{told}");
    Ok(())
}
