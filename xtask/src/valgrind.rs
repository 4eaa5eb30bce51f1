//! Test programs under valgrind's memcheck: threads, stacks, signals and locks without libc give no
//! report.
//!
//! The tests check that memcheck reports nothing: no read of uninitialised memory, no access to
//! unmapped memory, no such argument of a system call. They also check that valgrind, which
//! emulates many calls, can follow rt0. Tests repeat as often as under an emulator, because
//! valgrind is one (`rt0_tests::emulated`).

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::build::{Built, Kind, SUITE, area_of, full_name};
use crate::setup::{Machine, Setup};
use crate::test::{Expectation, Test, Verdict, guest_command, judge, list, scratch};
use crate::{process, root};

/// The machines whose programs valgrind runs where they run natively.
const MACHINES: [&str; 1] = ["x86_64"];

/// The areas of the features that every program with threads uses.
const AREAS: [&str; 12] =
    ["start", "thread", "sync", "signal", "local", "time", "once", "scope", "channel", "futex", "io", "all_threads"];

/// The exit status of a program with a report of memcheck.
const REPORTED: &str = "99";

/// Parts of the messages of memcheck and valgrind about a program that is wrong or that they cannot
/// follow. (Other lines are about a fatal signal, which some tests expect.)
const COMPLAINTS: [&str; 7] =
    ["Invalid ", "ninitialised", "unaddressable", "Warning", "WARNING", "unhandled", "the 'impossible' happened"];

/// The time limit of a test.
const LIMIT: Duration = Duration::from_secs(240);

/// Tests that cannot run under valgrind: a part of the test's full name, and the reason.
pub const GAPS: &[(&str, &str)] = &[
    (
        "all_threads::refused::a_refused_call_reaches_no_other_thread",
        "memcheck reports the wrong argument, which is there to be refused",
    ),
    (
        "all_threads::a_thread_that_rt0_did_not_start_is_reported",
        "a thread that blocks all signals and runs valgrind's file is taken for the emulator's",
    ),
    ("all_threads::rights::no_new_privs_and_filters_are_the_processs", "valgrind does not know seccomp(2)"),
    ("all_threads::rights::landlock_is_the_processs", "valgrind does not know landlock_create_ruleset(2)"),
    ("start::variables_are_those_of_proc_environ", "valgrind adds variables of its own"),
    ("thread::a_limit_on_memory_makes_spawn_fail_with_enomem", "valgrind gives EINVAL for what does not fit"),
    (
        "signal::info::a_queued_signal_is_from_a_user_too",
        "valgrind delivers a signal that was sent to the process later",
    ),
    (
        "signal::death::the_first_process_of_a_namespace_dies_with_128_and_the_number",
        "valgrind dies of an error of its own where a signal is not fatal to it",
    ),
];

/// The tests of one machine's programs.
pub fn of_programs<'a>(setup: &Setup, machine: &'a Machine, built: &'a Built) -> Vec<Test<'a>> {
    let row = machine.target.name;
    if machine.qemu().is_some() || !MACHINES.contains(&row) {
        return Vec::new();
    }
    let has_some = |name: &str| name == SUITE || AREAS.contains(&name);
    let programs = built.programs.iter().filter(|p| p.kind == Kind::Bin && p.machine == row && has_some(&p.name));
    let valgrind = setup.valgrind().map(Arc::new).map_err(|error| format!("no valgrind: {error:#}"));
    let mut tests = Vec::new();
    for program in programs {
        // The plain tests report a faulty list.
        for test in list(machine, &program.path).unwrap_or_default() {
            let (name, valgrind) = (full_name(&program.name, &test.name), valgrind.clone());
            if !AREAS.contains(&area_of(&name)) {
                continue;
            }
            tests.push(Test::new(row, format!("valgrind::{name}"), move || match (gap(&name, &test), &valgrind) {
                (Some(reason), _) => Verdict::Skipped(format!("under valgrind: {reason}")),
                (None, Err(reason)) => Verdict::Skipped(reason.clone()),
                (None, Ok(valgrind)) => memcheck(valgrind, &program.path, &name, &test),
            }));
        }
    }
    tests
}

/// The reason why a test cannot run.
fn gap<'a>(name: &str, test: &'a Expectation) -> Option<&'a str> {
    GAPS.iter().find(|(part, _)| name.contains(part)).map(|(_, reason)| *reason).or(test.native.as_deref())
}

/// Runs a test. It must end as without memcheck, and memcheck must report nothing.
fn memcheck(valgrind: &Command, program: &Path, name: &str, test: &Expectation) -> Verdict {
    let log = match scratch(&format!("valgrind-{name}")) {
        Ok(folder) => folder.join("log"),
        Err(error) => return Verdict::Failed(format!("no folder for the log: {error}")),
    };
    let mut inner = Command::new(valgrind.get_program());
    inner.args(["--quiet", "--vgdb=no", &format!("--error-exitcode={REPORTED}")]);
    inner.arg(format!("--suppressions={}", root().join("tests/valgrind.supp").display()));
    inner.arg(format!("--log-file={}", log.display())).arg(program);
    let mut command = guest_command(inner, test, root());
    command.env("RT0_VDSO", "0").envs(valgrind.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let line = process::shell_line(&command);
    let outcome = match process::run(&mut command, LIMIT) {
        Ok(outcome) => outcome,
        Err(error) => return Verdict::Failed(format!("cannot start: {error}\n{line}")),
    };
    let said = fs::read_to_string(&log).unwrap_or_default();
    if let Some(complaint) = complaint(&said) {
        return Verdict::Failed(format!("memcheck says: {complaint}\n{said}\n{line}"));
    }
    match judge(&outcome, test) {
        Verdict::Failed(why) => Verdict::Failed(format!("{why}\n--- valgrind ---\n{said}\n{line}")),
        verdict => verdict,
    }
}

/// The first complaint in memcheck's log.
fn complaint(log: &str) -> Option<&str> {
    log.lines().find(|line| COMPLAINTS.iter().any(|part| line.contains(part)))
}
