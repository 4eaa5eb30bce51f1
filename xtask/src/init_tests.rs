//! Tests of examples/init.rs, case by case, against tini's documentation. Its children are the
//! host's shell, even under an emulator.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::build::Built;
use crate::process;
use crate::setup::Machine;
use crate::test::{Test, Verdict, seen};

/// The time limit of one case; none waits for long.
const LIMIT: Duration = Duration::from_secs(120);

/// A command line and its expected result.
struct Case {
    name: &'static str,
    options: &'static [&'static str],
    /// The shell's script; if empty, `options` contain the whole command line.
    script: &'static str,
    status: i32,
    stdout: &'static str,
    /// A part of standard error.
    stderr: &'static str,
}

const NOTHING: Case = Case { name: "", options: &[], script: "", status: 0, stdout: "", stderr: "" };

/// tini 0.19 was seen to give these statuses and this standard output; its messages differ.
const CASES: &[Case] = &[
    Case { name: "the_status_is_the_programs", script: "echo out; exit 3", status: 3, stdout: "out\n", ..NOTHING },
    Case { name: "a_signal_is_128_and_its_number", script: "kill -9 $$", status: 137, ..NOTHING },
    Case { name: "no_program_is_127", options: &["/nonexistent"], status: 127, stderr: "ENOENT", ..NOTHING },
    Case { name: "no_permission_is_126", options: &["--", "/proc"], status: 126, stderr: "EACCES", ..NOTHING },
    Case { name: "no_command_is_a_usage_error", status: 1, stderr: "usage", ..NOTHING },
    Case { name: "an_unknown_option_is_a_usage_error", options: &["-x", "y"], status: 1, stderr: "usage", ..NOTHING },
    Case { name: "an_expected_status_is_success", options: &["-e", "3", "-e", "143"], script: "exit 3", ..NOTHING },
    Case { name: "an_expected_signal_is_success", options: &["-e", "143"], script: "kill -TERM $$", ..NOTHING },
    Case {
        name: "signals_are_passed_on",
        script: "trap 'echo term; exit 5' TERM; trap 'echo usr1; kill -TERM $PPID' USR1; kill -USR1 $PPID; \
                 while :; do sleep 0.05; done",
        status: 5,
        stdout: "usr1\nterm\n",
        ..NOTHING
    },
    Case {
        name: "a_signal_that_the_program_does_not_catch_ends_it",
        script: "kill -INT $PPID; while :; do sleep 0.05; done",
        status: 130,
        ..NOTHING
    },
    // The sleeping process starts before the shell ignores the signal, and is not the program
    // itself.
    Case {
        name: "the_group_gets_signals_if_asked_for",
        options: &["-g"],
        script: "sleep 100 & trap '' TERM; kill -TERM $PPID; wait $!; echo $?",
        stdout: "143\n",
        ..NOTHING
    },
    // A process that has ended exists until it is reaped.
    Case {
        name: "orphans_are_reaped",
        options: &["-s", "-w"],
        script: "p=$(sh -c 'sleep 0.1 >/dev/null & echo $!'); while kill -0 $p; do sleep 0.05; done 2>/dev/null",
        stderr: "reaped",
        ..NOTHING
    },
    Case {
        name: "the_program_leads_a_group_of_its_own",
        script: "read -r pid name state ppid group rest < /proc/$$/stat; test $group = $$",
        ..NOTHING
    },
];

/// The tests for one machine: each case, and natively also as the first process of a namespace.
pub fn of_init<'a>(machine: &'a Machine, built: &'a Built) -> Vec<Test<'a>> {
    let row = machine.target.name;
    let Some(init) = built.program(machine, "init") else { return Vec::new() };
    let mut tests: Vec<_> = CASES
        .iter()
        .map(|case| Test::new(row, format!("init::{}", case.name), move || verdict(check(machine.command(init), case))))
        .collect();
    if machine.qemu().is_none() {
        let name = "init::as_the_first_process_of_a_namespace_it_does_the_same";
        tests.push(Test::new(row, name, move || first_process(init)));
        tests.push(Test::new(row, "init::the_program_has_the_terminal", move || terminal(init)));
    }
    tests
}

fn verdict(result: Result<()>) -> Verdict {
    result.map_or_else(|error| Verdict::Failed(format!("{error:#}")), |()| Verdict::Passed)
}

/// Runs one case by `command`, which starts init.
fn check(mut command: Command, case: &Case) -> Result<()> {
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

/// `unshare -pf`, as root of a user namespace, so that the tests need no root.
fn in_namespace(init: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]).arg(init);
    command
}

fn first_process(init: &Path) -> Verdict {
    let mut tried = Command::new("unshare");
    tried.args(["--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "true"]);
    match process::run(&mut tried, LIMIT) {
        Ok(outcome) if outcome.status.success() => {}
        Ok(outcome) => return Verdict::Skipped(format!("no namespaces here: {}", outcome.stderr.trim())),
        Err(error) => return Verdict::Skipped(format!("no unshare(1) here: {error}")),
    }
    // It reaps orphans without `-s`, and does not warn that it is not the first process.
    let cases = CASES
        .iter()
        .map(|case| if case.options == ["-s", "-w"] { Case { options: &["-w"], ..*case } } else { Case { ..*case } });
    for case in cases {
        if let Err(error) = check(in_namespace(init), &case) {
            return Verdict::Failed(format!("{error:#}"));
        }
    }
    let quiet = Case { name: "it_says_nothing", script: "echo $PPID", stdout: "1\n", ..NOTHING };
    verdict(check(in_namespace(init), &quiet))
}

/// In its own terminal, made by script(1): the program's group is in the foreground.
fn terminal(init: &Path) -> Verdict {
    let script =
        "read -r pid name state ppid group session tty foreground rest < /proc/$$/stat; echo =$((group - foreground))=";
    let line = format!("'{}' -- /bin/sh -c '{script}'", init.display());
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]);
    match process::run(&mut command, LIMIT) {
        Ok(outcome) if outcome.status.success() && outcome.stdout.contains("=0=") => Verdict::Passed,
        Ok(outcome) => Verdict::Failed(seen(&outcome, &process::shell_line(&command))),
        Err(error) => Verdict::Skipped(format!("no script(1) here: {error}")),
    }
}
