//! Programs that other tools start, trace and stop while they wait.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use cargo_rt0::build::{Built, Kind};
use cargo_rt0::process;
use cargo_rt0::protocol::seen;
use cargo_rt0::report::{Test, Verdict};
use cargo_rt0::setup::{Machine, Setup};

use crate::repository::scratch;

/// The time limit of a test.
const LIMIT: Duration = Duration::from_secs(240);

/// The test of tests/src/bin/surroundings.rs that is started, and the claim that makes it wait in
/// every way for a while.
const WORKS: &str = "everything_that_a_program_relies_on_works";
const WAITS: &str = "two seconds of waits";

/// Attaches gdb to the waiting program as often as possible. The program is `$0`, the test `$1 $2`,
/// gdb the rest.
const ATTACH: &str = r#"program=$0; test=$1; waits=$2; shift 2
"$program" "$test" "$waits" & id=$!
attached=0
while [ $attached -lt 20 ] && "$@" -batch -nx -p $id -ex 'thread apply all backtrace 1' -ex detach; do
    attached=$((attached + 1))
done
echo "attached $attached times"
wait $id"#;

/// The tests of one machine's programs.
pub fn of_programs<'a>(setup: &Setup, machine: &'a Machine, built: &'a Built) -> Vec<Test<'a>> {
    let row = machine.target.name;
    let found = built.find(machine, Kind::Bin, "surroundings").filter(|_| machine.qemu().is_none());
    let Some(program) = found else { return Vec::new() };
    let strace = setup.strace().map(Arc::new).map_err(|error| format!("no strace: {error:#}"));
    let gdb = setup.gdb().map(Arc::new).map_err(|error| format!("no gdb: {error:#}"));
    vec![
        Test::new(row, "traced::a_program_works_under_strace", move || match &strace {
            Ok(strace) => under_strace(strace, program),
            Err(reason) => Verdict::Skipped(reason.clone()),
        }),
        Test::new(row, "traced::a_debugger_comes_and_goes_while_threads_wait", move || match &gdb {
            Ok(gdb) => attached(gdb, program),
            Err(reason) => Verdict::Skipped(reason.clone()),
        }),
        Test::new(row, "traced::a_program_works_as_the_usual_tools_start_it", move || started(program)),
    ]
}

/// Whether a tool says that it may not trace.
fn forbidden(stderr: &str) -> bool {
    ["ptrace", "Could not trace", "PTRACE"].iter().any(|said| stderr.contains(said))
}

/// Every thread stops at each of its system calls and signals.
fn under_strace(strace: &Command, program: &Path) -> Verdict {
    let log = match scratch("strace") {
        Ok(folder) => folder.join(format!("log-{}", std::process::id())),
        Err(error) => return Verdict::Failed(format!("no folder for the log: {error}")),
    };
    let mut command = process::copy(strace);
    command.args(["-f", "-o"]).arg(&log).arg(program).args([WORKS, WAITS]);
    let line = process::shell_line(&command);
    match process::run(&mut command, LIMIT) {
        Ok(outcome) if forbidden(&outcome.stderr) => Verdict::Skipped("processes may not be traced here".to_string()),
        Ok(outcome) if !outcome.status.success() || outcome.timed_out => Verdict::Failed(seen(&outcome, &line)),
        Ok(_) if fs::read_to_string(&log).is_ok_and(|log| log.contains("clone")) => Verdict::Passed,
        Ok(_) => Verdict::Failed(format!("{} shows no thread\n{line}", log.display())),
        Err(error) => Verdict::Failed(format!("cannot start: {error}\n{line}")),
    }
}

/// An attach stops every thread by a signal and continues it: the kernel restarts a wait with a
/// timeout.
fn attached(gdb: &Command, program: &Path) -> Verdict {
    let mut command = Command::new("sh");
    command.envs(process::variables(gdb));
    command.env_remove("DEBUGINFOD_URLS").env("LC_ALL", "C");
    command.args(["-c", ATTACH]).arg(program).args([WORKS, WAITS]).arg(gdb.get_program());
    let line = process::shell_line(&command);
    match process::run(&mut command, LIMIT) {
        Ok(outcome) if forbidden(&outcome.stderr) && outcome.stdout.contains("attached 0 times") => {
            Verdict::Skipped("processes may not be traced here".to_string())
        }
        Ok(outcome) if !outcome.status.success() || outcome.timed_out => Verdict::Failed(seen(&outcome, &line)),
        Ok(outcome) if outcome.stdout.contains("attached 0 times") => Verdict::Failed(seen(&outcome, &line)),
        Ok(_) => Verdict::Passed,
        Err(error) => Verdict::Failed(format!("cannot start: {error}\n{line}")),
    }
}

/// Without variables, in its own session, with SIGHUP ignored, a time limit, few descriptors.
fn started(program: &Path) -> Verdict {
    let mut command = Command::new("env");
    command.args(["-i", "setsid", "--wait", "nohup", "timeout", "200", "prlimit", "--nofile=10", "--core=0"]);
    command.arg(program).args([WORKS, WAITS]);
    let line = process::shell_line(&command);
    match process::run(&mut command, LIMIT) {
        Ok(outcome) if outcome.status.success() && !outcome.timed_out => Verdict::Passed,
        Ok(outcome) if outcome.status.code() == Some(127) => Verdict::Skipped(format!("not on this machine: {line}")),
        Ok(outcome) => Verdict::Failed(seen(&outcome, &line)),
        Err(error) => Verdict::Failed(format!("cannot start: {error}\n{line}")),
    }
}
