//! Cases for a program that starts another one: the host's shell runs under it, and its status and
//! output are compared.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use cargo_rt0::process;
use cargo_rt0::protocol::seen;

/// The time limit of one case; none waits for long.
pub const LIMIT: Duration = Duration::from_secs(120);

/// A command line and its expected result.
pub struct Case {
    pub name: &'static str,
    pub options: &'static [&'static str],
    /// The shell's script; if empty, `options` contain the whole command line.
    pub script: &'static str,
    pub status: i32,
    pub stdout: &'static str,
    /// A part of standard error.
    pub stderr: &'static str,
}

/// An empty case, from which others take their remaining fields.
pub const CASE: Case = Case { name: "", options: &[], script: "", status: 0, stdout: "", stderr: "" };

/// Runs one case by `command`, which starts the program.
pub fn check(mut command: Command, case: &Case) -> Result<()> {
    command.args(case.options);
    if !case.script.is_empty() {
        command.args(["--", "/bin/sh", "-c", case.script]);
    }
    let outcome = process::run(&mut command, LIMIT)?;
    let as_promised = !outcome.timed_out
        && outcome.status.code() == Some(case.status)
        && outcome.stdout == case.stdout
        && outcome.stderr.contains(case.stderr);
    ensure!(as_promised, "{}: {}", case.name, seen(&outcome, &process::shell_line(&command)));
    Ok(())
}

/// Whether util-linux can make namespaces of a user, of processes and of these `kinds`; else what
/// it says.
pub fn namespaces(kinds: &[&str]) -> Result<(), String> {
    let mut tried = Command::new("unshare");
    tried.args(["--user", "--map-root-user", "--pid"]).args(kinds).args(["--fork", "--mount-proc", "true"]);
    match process::run(&mut tried, LIMIT) {
        Ok(outcome) if outcome.status.success() => Ok(()),
        Ok(outcome) => Err(format!("no namespaces here: {}", outcome.stderr.trim())),
        Err(error) => Err(format!("no unshare(1) here: {error}")),
    }
}
