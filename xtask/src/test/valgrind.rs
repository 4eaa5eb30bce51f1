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

use anyhow::{Result, ensure};
use cargo_rt0::build::{Built, Kind};
use cargo_rt0::process;
use cargo_rt0::protocol::{Expectation, guest_command, judge, list, seen};
use cargo_rt0::report::{Test, Verdict};
use cargo_rt0::setup::{Machine, Setup};

use crate::build::{SUITE, area_of, full_name};
use crate::repository::{root, scratch};

/// The machines whose programs valgrind runs where they run natively.
const MACHINES: [&str; 1] = ["x86_64"];

/// The areas of the features that every program with threads uses, and dumps.
const AREAS: [&str; 13] = [
    "start",
    "thread",
    "sync",
    "signal",
    "local",
    "time",
    "once",
    "scope",
    "channel",
    "futex",
    "io",
    "all_threads",
    "dump",
];

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
    (
        "signal::stack::a_fault_of_code_with_vectors_in_use_has_its_frames",
        "memcheck reports the wrong address, which is there to fault",
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
    ("dump::a_dump_during_a_call_on_all_threads_that_goes_on_tells_the_caller_alone", NESTED),
    ("dump::dumps_end_while_everything_happens_at_once", NESTED),
    (
        "dump::a_dump_of_a_process_with_more_rights_than_its_caller_tells_names",
        "memcheck reports the search for the auxiliary vector, over bytes that were never written",
    ),
];
const NESTED: &str =
    "memcheck takes the signal stack for memory that is not there, when one handler interrupts another on it";

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
    if let Some(fault) = built.program(machine, "fault") {
        let (name, valgrind) = ("valgrind::a_death_that_explains_itself_is_the_only_thing_reported", valgrind.clone());
        tests.push(Test::new(row, name, move || match &valgrind {
            Ok(valgrind) => only_the_fault(valgrind, fault).into(),
            Err(reason) => Verdict::Skipped(reason.clone()),
        }));
    }
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

/// examples/fault.rs in each of its ways: memcheck reports the access that the program dies of, and
/// nothing of the report or the dump.
fn only_the_fault(valgrind: &Command, program: &Path) -> Result<()> {
    for (word, status, complaints) in [(None, Some(0), 0), (Some("fault"), None, 1), (Some("panic"), Some(101), 0)] {
        let log = scratch("valgrind-fault")?.join("log");
        let mut command = under(valgrind, &log, program);
        let outcome = process::run(command.args(word), LIMIT)?;
        let said = fs::read_to_string(&log)?;
        let lines: Vec<_> = said.lines().collect();
        let found = lines.windows(2).filter(|pair| complaint(pair[0]).is_some());
        let is_of_the_fault =
            |pair: &[&str]| pair[0].contains("Invalid read of size 8") && pair[1].contains("read_volatile");
        let as_expected = outcome.status.code() == status
            && found.clone().count() == complaints
            && found.clone().all(is_of_the_fault)
            && outcome.stderr.contains("thread 'second worker' (tid ");
        ensure!(as_expected, "{}\n--- valgrind ---\n{said}", seen(&outcome, &process::shell_line(&command)));
    }
    Ok(())
}

/// A command for a program under memcheck, which writes to `log`.
fn under(valgrind: &Command, log: &Path, program: &Path) -> Command {
    let mut command = process::copy(valgrind);
    command.args(["--quiet", "--vgdb=no", &format!("--error-exitcode={REPORTED}")]);
    command.arg(format!("--suppressions={}", root().join("tests/valgrind.supp").display()));
    command.arg(format!("--log-file={}", log.display())).arg(program);
    command
}

/// Runs a test. It must end as without memcheck, and memcheck must report nothing.
fn memcheck(valgrind: &Command, program: &Path, name: &str, test: &Expectation) -> Verdict {
    let log = match scratch(&format!("valgrind-{name}")) {
        Ok(folder) => folder.join("log"),
        Err(error) => return Verdict::Failed(format!("no folder for the log: {error}")),
    };
    let inner = under(valgrind, &log, program);
    let mut command = guest_command(inner, test, root());
    command.env("RT0_VDSO", "0").envs(process::variables(valgrind));
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
