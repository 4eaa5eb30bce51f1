//! Tests of examples/init.rs, case by case, against tini's documentation. Its children are the
//! host's shell, even under an emulator.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use cargo_rt0::build::Built;
use cargo_rt0::process;
use cargo_rt0::protocol::seen;
use cargo_rt0::report::{Test, Verdict};
use cargo_rt0::setup::Machine;

use super::shell::{self, CASE, Case, LIMIT, check};

/// tini 0.19 was seen to give these statuses and this standard output; its messages differ.
const CASES: &[Case] = &[
    Case { name: "the_status_is_the_programs", script: "echo out; exit 3", status: 3, stdout: "out\n", ..CASE },
    Case { name: "a_signal_is_128_and_its_number", script: "kill -9 $$", status: 137, ..CASE },
    Case { name: "no_program_is_127", options: &["/nonexistent"], status: 127, stderr: "ENOENT", ..CASE },
    Case { name: "no_permission_is_126", options: &["--", "/proc"], status: 126, stderr: "EACCES", ..CASE },
    Case { name: "no_command_is_a_usage_error", status: 1, stderr: "usage", ..CASE },
    Case { name: "an_unknown_option_is_a_usage_error", options: &["-x", "y"], status: 1, stderr: "usage", ..CASE },
    Case { name: "an_expected_status_is_success", options: &["-e", "3", "-e", "143"], script: "exit 3", ..CASE },
    Case { name: "an_expected_signal_is_success", options: &["-e", "143"], script: "kill -TERM $$", ..CASE },
    Case {
        name: "signals_are_passed_on",
        script: "trap 'echo term; exit 5' TERM; trap 'echo usr1; kill -TERM $PPID' USR1; kill -USR1 $PPID; \
                 while :; do sleep 0.05; done",
        status: 5,
        stdout: "usr1\nterm\n",
        ..CASE
    },
    Case {
        name: "a_signal_that_the_program_does_not_catch_ends_it",
        script: "kill -INT $PPID; while :; do sleep 0.05; done",
        status: 130,
        ..CASE
    },
    // The sleeping process starts before the shell ignores the signal, and is not the program
    // itself.
    Case {
        name: "the_group_gets_signals_if_asked_for",
        options: &["-g"],
        script: "sleep 100 & trap '' TERM; kill -TERM $PPID; wait $!; echo $?",
        stdout: "143\n",
        ..CASE
    },
    // A process that has ended exists until it is reaped.
    Case {
        name: "orphans_are_reaped",
        options: &["-s", "-w"],
        script: "p=$(sh -c 'sleep 0.1 >/dev/null & echo $!'); while kill -0 $p; do sleep 0.05; done 2>/dev/null",
        stderr: "reaped",
        ..CASE
    },
    Case {
        name: "the_program_leads_a_group_of_its_own",
        script: "read -r pid name state ppid group rest < /proc/$$/stat; test $group = $$",
        ..CASE
    },
];

/// The tests for one machine: each case, and natively also as the first process of a namespace.
pub fn of_init<'a>(machine: &'a Machine, built: &'a Built) -> Vec<Test<'a>> {
    let row = machine.target.name;
    let Some(init) = built.program(machine, "init") else { return Vec::new() };
    let mut tests: Vec<_> = CASES
        .iter()
        .map(|case| Test::new(row, format!("init::{}", case.name), move || check(machine.command(init), case)))
        .collect();
    if machine.qemu().is_none() {
        let name = "init::as_the_first_process_of_a_namespace_it_does_the_same";
        tests.push(Test::new(row, name, move || first_process(init)));
        tests.push(Test::new(row, "init::the_program_has_the_terminal", move || terminal(init)));
    }
    tests
}

/// `unshare -pf`, as root of a user namespace, so that the tests need no root.
fn in_namespace(init: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]).arg(init);
    command
}

fn first_process(init: &Path) -> Result<Verdict> {
    if let Err(why) = shell::namespaces(&[]) {
        return Ok(Verdict::Skipped(why));
    }
    // It reaps orphans without `-s`, and does not warn that it is not the first process.
    let cases = CASES
        .iter()
        .map(|case| if case.options == ["-s", "-w"] { Case { options: &["-w"], ..*case } } else { Case { ..*case } });
    for case in cases {
        check(in_namespace(init), &case)?;
    }
    let quiet = Case { name: "it_says_nothing", script: "echo $PPID", stdout: "1\n", ..CASE };
    check(in_namespace(init), &quiet)?;
    Ok(Verdict::Passed)
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
