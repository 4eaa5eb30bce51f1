//! The system calls of one run of a program, by strace(1).

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use cargo_rt0::process;
use cargo_rt0::protocol::seen;

use crate::repository::scratch;

/// The error where no process may be traced.
pub const FORBIDDEN: &str = "this machine forbids tracing";

/// The time limit of the program.
const LIMIT: Duration = Duration::from_secs(180);

/// The system calls of a program, from strace, without the execve that starts it.
pub fn calls(strace: &Command, program: &Path) -> Result<Vec<String>> {
    let log = scratch("traced")?.join("calls");
    let mut command = process::copy(strace);
    command.args(["-f", "-o"]).arg(&log).arg(program);
    let outcome = process::run(&mut command, LIMIT)?;
    ensure!(!outcome.stderr.contains("PTRACE") && !outcome.stderr.contains("ptrace"), FORBIDDEN);
    ensure!(outcome.status.success(), seen(&outcome, &process::shell_line(&command)));
    Ok(names(&fs::read_to_string(&log)?).into_iter().map(str::to_string).collect())
}

/// The names of the calls in strace's log, without the execve that started the program.
fn names(log: &str) -> Vec<&str> {
    let call = |line: &'_ str| -> Option<usize> { line.find('(') };
    let names = log.lines().filter(|l| !l.contains("+++ exited")).filter_map(|line| {
        let name = &line[..call(line)?];
        Some(name.rsplit(' ').next().unwrap_or(name)) // `-f` puts the thread's id in front.
    });
    names.skip_while(|name| *name == "execve").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calls_are_read_from_straces_log() {
        let log = "12 execve(\"x\", [\"x\"], 0x7ffe /* 1 var */) = 0\n12 arch_prctl(ARCH_SET_FS, 0x1) = 0\n\
                   12 exit_group(0)     = ?\n12 +++ exited with 0 +++\n";
        assert_eq!(names(log), ["arch_prctl", "exit_group"]);
    }
}
