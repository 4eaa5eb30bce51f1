//! Tests with external tools: debuggers unwind signal frames, pprof reads profiles.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use cargo_rt0::build::{Built, Kind};
use cargo_rt0::process;
use cargo_rt0::protocol::seen;
use cargo_rt0::report::{Test, Verdict};
use cargo_rt0::setup::{Machine, Setup};
use cargo_rt0::targets::Profile;
use object::{Object, ObjectSection, ObjectSymbol};

use crate::build::SUITE;
use crate::repository::scratch;
use crate::strace;

/// The time limit of a tool, even under load: Go compiles pprof at its first use, in a minute and a
/// half on a quiet machine.
const LIMIT: Duration = Duration::from_secs(600);

/// The restorers of a machine: the start of its triple, a part of the symbol's name, and the bytes
/// by which debuggers and unwinders recognise a signal frame (amd64-linux-tdep.c and others of
/// gdb), followed by the trap in case the call returns. The lengths in the symbols distinguish the
/// two of a machine.
const RESTORERS: &[(&str, &str, &[u8])] = &[
    // mov $15, %rax; syscall; ud2: the move in the long, sign-extended form.
    ("x86_64-", "16sigaction_return", &[0x48, 0xc7, 0xc0, 0x0f, 0x00, 0x00, 0x00, 0x0f, 0x05, 0x0f, 0x0b]),
    // mov $173, %eax; int $0x80; ud2
    ("i686-", "19rt_sigaction_return", &[0xb8, 0xad, 0x00, 0x00, 0x00, 0xcd, 0x80, 0x0f, 0x0b]),
    // pop %eax; mov $119, %eax; int $0x80; ud2
    ("i686-", "16sigaction_return", &[0x58, 0xb8, 0x77, 0x00, 0x00, 0x00, 0xcd, 0x80, 0x0f, 0x0b]),
    // mov x8, 139; svc 0; udf 0
    ("aarch64", "16sigaction_return", &[0x68, 0x11, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4, 0x00, 0x00, 0x00, 0x00]),
    // mov r7, #173; svc #0; udf #0
    ("arm", "19rt_sigaction_return", &[0xad, 0x70, 0xa0, 0xe3, 0x00, 0x00, 0x00, 0xef, 0xf0, 0x00, 0xf0, 0xe7]),
    // mov r7, #119; svc #0; udf #0
    ("arm", "16sigaction_return", &[0x77, 0x70, 0xa0, 0xe3, 0x00, 0x00, 0x00, 0xef, 0xf0, 0x00, 0xf0, 0xe7]),
    // svc 173; no instruction
    ("s390x-", "19rt_sigaction_return", &[0x0a, 0xad, 0x00, 0x00]),
    // svc 119; no instruction
    ("s390x-", "16sigaction_return", &[0x0a, 0x77, 0x00, 0x00]),
    // nop; nop; mov 101, %g1; ta 0x6d; ta 5
    (
        "sparc64-",
        "16sigaction_return",
        &[
            0x01, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x82, 0x10, 0x20, 0x65, 0x91, 0xd0, 0x20, 0x6d, 0x91, 0xd0,
            0x20, 0x05,
        ],
    ),
];

/// Calls of five and six arguments that a test makes: the start of the triple, the test, the call's
/// number, and the callers in the backtrace.
const CALLS: &[(&str, &str, u32, &[&str])] = &[
    ("x86_64-", TIMED, 271, &["_start"]),        // ppoll, five, before main
    ("x86_64-", TIMED, 202, &[TIMED, "_start"]), // futex, six
    ("x86_64-", MAPPED, 9, &[MAPPED, "_start"]), // mmap, six
    ("i686-", TIMED, 309, &["_start"]),          // ppoll
    ("i686-", TIMED, 422, &[TIMED, "_start"]),   // futex_time64
    ("i686-", MAPPED, 192, &[MAPPED, "_start"]), // mmap2
];
const TIMED: &str = "futex::a_timeout_is_etimedout_and_not_early";
const MAPPED: &str = "mapping::a_new_mapping_is_zeros_to_read_and_write";

/// The handlers of the tests call this function: it is not inlined and not mangled.
const STOP: &str = "rt0_debuggers_stop_here";

/// The line that README.md gives for `~/.gdbinit`.
const PASS: &str = "handle SIG32 SIG33 nostop noprint pass";

/// Tests in which rt0 sends its own signals, and the signal of each.
const RESERVED: [(&str, &str); 2] = [
    ("interrupt::a_thread_that_waits_in_a_call_comes_back", "SIG32"),
    ("all_threads::every_thread_makes_the_call_once", "SIG33"),
];

/// A test of each of the two signal frames, in tests/src/suite/signal.rs.
const FRAMES: [&str; 2] =
    ["signal::a_handler_of_the_plain_form_returns", "signal::a_handler_of_the_form_with_info_returns"];

/// The functions of examples/profile.rs that compute, and the percentages between which their
/// shares must be: 60, 30 and 10 of the work, on a machine that may be busy.
const SHARES: [(&str, f64, f64); 3] =
    [("six_tenths", 45.0, 75.0), ("three_tenths", 18.0, 42.0), ("one_tenth", 3.0, 20.0)];

/// The machines on which pprof is run: natively, and where segments are aligned to more than the
/// emulator's page.
const PROFILED: &[&str] = &["x86_64", "x86", "aarch64", "mips"];

/// The tests of one machine's programs.
pub fn of_programs<'a>(setup: &Setup, machine: &'a Machine, built: &'a Built) -> Vec<Test<'a>> {
    let row = machine.target.name;
    let mut tests = Vec::new();
    let suite = built.find(machine, Kind::Bin, SUITE);
    let restorers: Vec<_> = RESTORERS.iter().filter(|r| machine.target.triple.starts_with(r.0)).collect();
    if let (Some(suite), false) = (suite, restorers.is_empty()) {
        let name = "debuggers::the_restorers_are_the_bytes_that_they_know";
        let check = move || restorers.iter().try_for_each(|(_, symbol, bytes)| has_code(suite, symbol, bytes));
        tests.push(Test::new(row, name, check));
        if machine.qemu().is_none() {
            let with_gdb = |name: &'static str, test: Box<dyn Fn(&Command) -> Verdict + Send + Sync + 'a>| {
                let gdb = setup.gdb().map_err(|e| format!("no gdb: {e:#}"));
                Test::new(row, name, move || match &gdb {
                    Ok(gdb) => test(gdb),
                    Err(reason) => Verdict::Skipped(reason.clone()),
                })
            };
            let see_through = Box::new(move |gdb: &Command| gdb_sees_through(gdb, suite));
            tests.push(with_gdb("debuggers::gdb_sees_through_a_handler", see_through));
            let find_way_out = Box::new(move |gdb: &Command| gdb_finds_the_way_out(gdb, machine, suite));
            tests.push(with_gdb("debuggers::gdb_finds_the_way_out_of_a_call", find_way_out));
            if let Some(hello) = built.program(machine, "hello") {
                let stop_at_main = Box::new(move |gdb: &Command| gdb_stops_at_main(gdb, machine, hello));
                tests.push(with_gdb("debuggers::gdb_stops_at_main", stop_at_main));
            }
            let pass = Box::new(move |gdb: &Command| gdb_passes_reserved_signals(gdb, suite));
            tests.push(with_gdb("debuggers::gdb_passes_the_reserved_signals_when_it_is_told_to", pass));
        }
    }
    let Some(profile) = built.program(machine, "profile") else { return tests };
    if PROFILED.contains(&row) {
        let go = setup.go();
        let name = "profiles::go_tool_pprof_names_the_functions_and_their_shares";
        tests.push(Test::new(row, name, move || match &go {
            Some(go) => pprof_names(go, machine, profile).into(),
            None => Verdict::Skipped("no Go here: put one on PATH, or set RT0_GO to it".to_string()),
        }));
        let name = "profiles::folded_stacks_name_the_functions_and_their_shares";
        tests.push(Test::new(row, name, move || folded_names(machine, profile)));
    } else {
        tests.push(Test::new(row, "examples::profile", move || profiled(machine, profile, "profile").map(drop)));
    }
    tests
}

/// Checks the bytes at a symbol.
fn has_code(program: &Path, symbol: &str, expected: &[u8]) -> Result<()> {
    let data = fs::read(program)?;
    let file = object::File::parse(&*data)?;
    let start = address_of(&file, symbol)?;
    let mut found = file.sections().filter_map(|section| section.data_range(start, expected.len() as u64).ok()?);
    let code = found.next().with_context(|| format!("no section has {symbol} at {start:#x}"))?;
    ensure!(code == expected, "{symbol} is {code:02x?}, debuggers know {expected:02x?}");
    Ok(())
}

/// The address of the one function whose name contains `part`.
fn address_of(file: &object::File, part: &str) -> Result<u64> {
    let named = file.symbols().filter(|symbol| symbol.name().is_ok_and(|name| name.contains(part)));
    let mut addresses: Vec<_> = named.map(|symbol| symbol.address()).collect();
    addresses.dedup();
    match addresses[..] {
        [address] => Ok(address),
        _ => bail!("{} symbols contain {part}", addresses.len()),
    }
}

/// Stops in handlers with both kinds of signal frames, and checks the backtraces.
fn gdb_sees_through(gdb: &Command, program: &Path) -> Verdict {
    all_pass(FRAMES.iter().map(|test| {
        let expected = [STOP, "<signal handler called>", "raise", test, "_start"];
        backtrace(gdb, program, test, &format!("break {STOP}"), &expected)
    }))
}

/// Stops in system calls whose arguments use all registers, and checks the backtraces.
fn gdb_finds_the_way_out(gdb: &Command, machine: &Machine, program: &Path) -> Verdict {
    let here = CALLS.iter().filter(|call| machine.target.triple.starts_with(call.0));
    all_pass(
        here.map(|(_, test, number, expected)| {
            backtrace(gdb, program, test, &format!("catch syscall {number}"), expected)
        }),
    )
}

/// Stops at main by its name, with and without debug information. The program is an example,
/// because the suite has no debug information of its own.
fn gdb_stops_at_main(gdb: &Command, machine: &Machine, program: &Path) -> Verdict {
    const OTHER_NAME: &[&str] = &["__rt0_entry_is_missing"];
    // Complete debug information has the name in Rust, and gdb shows no frame behind main.
    let frames: &[&str] = match machine.target.profile {
        Profile::Release => &["main ()", "_start"],
        Profile::Dev => OTHER_NAME,
    };
    // Without debug information it does not know how to get out.
    let ways: [(&[&str], &[&str], &[&str]); 3] = [
        (&["start"], &[], frames),
        (&["break main", "run"], &[], frames),
        (&["break main", "run"], &["-readnever"], OTHER_NAME),
    ];
    all_pass(ways.map(|(steps, options, expected)| {
        let steps = [steps, &["backtrace"]].concat();
        in_gdb(gdb, options, &steps, program, "unread", |said| {
            let stops = said.contains("reakpoint 1, ").then_some(()).ok_or("reakpoint 1, ");
            stops.and_then(|()| in_order(said, expected))
        })
    }))
}

/// Runs tests whose programs get signals 32 and 33: gdb stops at these, unless it has the line.
fn gdb_passes_reserved_signals(gdb: &Command, program: &Path) -> Verdict {
    all_pass(RESERVED.map(|(test, signal)| {
        let stops = format!("received signal {signal}");
        let passed = in_gdb(gdb, &[], &[PASS, "run"], program, test, |said| {
            let is_silent = said.contains("exited normally") && !said.contains(signal);
            is_silent.then_some(()).ok_or("exited normally")
        });
        // Otherwise the test would not show that the line is needed.
        let stopped = in_gdb(gdb, &[], &["run"], program, test, |said| {
            said.contains(&stops).then_some(()).ok_or("received signal")
        });
        all_pass([passed, stopped])
    }))
}

/// Runs a test in gdb until `stop`, and checks that the backtrace contains `expected`.
fn backtrace(gdb: &Command, program: &Path, test: &str, stop: &str, expected: &[&str]) -> Verdict {
    let steps = ["handle SIGUSR1 nostop noprint pass", stop, "run", "backtrace"];
    in_gdb(gdb, &[], &steps, program, test, |said| in_order(said, expected))
}

/// Runs a test in gdb with these options and steps. `check` returns what is missing in what gdb
/// says.
fn in_gdb<'a>(
    gdb: &Command,
    options: &[&str],
    steps: &[&str],
    program: &Path,
    test: &str,
    check: impl Fn(&str) -> Result<(), &'a str>,
) -> Verdict {
    let mut command = process::copy(gdb);
    command.env_remove("DEBUGINFOD_URLS").env("LC_ALL", "C").args(["-batch", "-nx", "-ex", "set width 0"]);
    command.args(["-ex", "set backtrace past-main on"]);
    command.args(options).args(steps.iter().flat_map(|step| ["-ex", step]));
    command.arg("--args").arg(program).arg(test);
    let line = process::shell_line(&command);
    let outcome = match process::run(&mut command, LIMIT) {
        Ok(outcome) => outcome,
        Err(error) => return Verdict::Failed(format!("cannot start: {error}\n{line}")),
    };
    let forbidden = ["ptrace", "Could not trace", "Cannot PTRACE"];
    if forbidden.iter().any(|said| outcome.stderr.contains(said)) {
        return Verdict::Skipped(strace::FORBIDDEN.to_string());
    }
    match check(&outcome.stdout) {
        Ok(()) => Verdict::Passed,
        Err(missing) => Verdict::Failed(seen(&outcome, &format!("gdb does not say `{missing}`\n{line}"))),
    }
}

/// The first verdict that is not [`Verdict::Passed`]; `Passed` if there is none.
fn all_pass(verdicts: impl IntoIterator<Item = Verdict>) -> Verdict {
    verdicts.into_iter().find(|verdict| !matches!(verdict, Verdict::Passed)).unwrap_or(Verdict::Passed)
}

/// Checks that frames with these words occur in this order in a backtrace; the error is the missing
/// one. gdb names a function without its module.
fn in_order<'a>(backtrace: &str, expected: &[&'a str]) -> Result<(), &'a str> {
    let mut frames = backtrace.lines().filter(|line| line.starts_with('#'));
    expected.iter().try_for_each(|word| {
        let function = word.rsplit("::").next().unwrap_or(word);
        frames.any(|frame| frame.contains(function)).then_some(()).ok_or(*word)
    })
}

/// Runs examples/profile; returns the two files that it writes.
fn profiled(machine: &Machine, profile: &Path, folder: &str) -> Result<[PathBuf; 2]> {
    let folder = scratch(&format!("{folder}-{}", machine.target.name))?;
    let files = ["profile.pb", "profile.folded"].map(|name| folder.join(name));
    let mut command = machine.command(profile);
    // More rounds of work if the shares are checked.
    let rounds = if machine.qemu().is_none() && PROFILED.contains(&machine.target.name) { "20" } else { "4" };
    command.args(&files).arg(rounds);
    let outcome = process::run(&mut command, LIMIT)?;
    ensure!(outcome.status.success() && !outcome.timed_out, seen(&outcome, &process::shell_line(&command)));
    Ok(files)
}

fn pprof_names(go: &Command, machine: &Machine, profile: &Path) -> Result<()> {
    let [written, _] = profiled(machine, profile, "pprof")?;
    let mut command = process::copy(go);
    command.env("PPROF_TMPDIR", written.parent().context("a file in a folder")?);
    command.args(["tool", "pprof", "-symbolize=local", "-top"]).arg(profile).arg(&written);
    let outcome = {
        // The first test that uses pprof compiles it, and the others use that program: Go itself
        // would compile it for each.
        static COMPILES: Mutex<()> = Mutex::new(());
        let _first = COMPILES.lock().expect("no test panics with it");
        process::run(&mut command, LIMIT)?
    };
    let line = process::shell_line(&command);
    ensure!(outcome.status.success() && !outcome.timed_out, seen(&outcome, &line));
    check_shares(machine, |function| top_share(&outcome.stdout, function)).with_context(|| seen(&outcome, &line))
}

/// The share of a function in the output of `pprof -top`: `flat flat% sum% cum cum% name`.
fn top_share(table: &str, function: &str) -> Option<f64> {
    let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|row| row.len() >= 6 && row[5..].iter().any(|word| word.contains(function)))?;
    row[4].strip_suffix('%')?.parse().ok()
}

fn folded_names(machine: &Machine, profile: &Path) -> Result<()> {
    let [_, written] = profiled(machine, profile, "folded")?;
    let text = fs::read_to_string(&written)?;
    check_shares(machine, |function| folded_share(&text, function)).with_context(|| written.display().to_string())
}

/// The share of stacks with a function, from lines such as `outer;inner 12`.
fn folded_share(text: &str, function: &str) -> Option<f64> {
    let (mut with, mut all) = (0u64, 0);
    for line in text.lines() {
        let (stack, weight) = line.rsplit_once(' ')?;
        let weight: u64 = weight.parse().ok()?;
        all += weight;
        with += if stack.split(';').any(|frame| frame.contains(function)) { weight } else { 0 };
    }
    (all > 0).then(|| with as f64 * 100.0 / all as f64)
}

/// Checks that each function is named and has its share. An emulator on a busy machine delivers
/// ticks late, so there the share must only be above 0.
fn check_shares(machine: &Machine, share: impl Fn(&str) -> Option<f64>) -> Result<()> {
    for (function, mut least, mut most) in SHARES {
        if machine.qemu().is_some() {
            (least, most) = (0.1, 99.9);
        }
        let share = share(function).with_context(|| format!("{function} is not named"))?;
        ensure!((least..=most).contains(&share), "{function} has {share:.1} %, expected {least} to {most}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_looked_for_in_their_order() {
        let backtrace = "stop () at x.rs:1\n#0  stop () at x.rs:1\n#1  <signal handler called>\n#2  0x1 in _start ()\n";
        assert_eq!(in_order(backtrace, &["stop", "<signal handler called>", "_start"]), Ok(()));
        assert_eq!(in_order(backtrace, &["<signal handler called>", "stop"]), Err("stop"));
    }

    #[test]
    fn a_share_is_read_from_pprofs_table() {
        let table = "Showing nodes\n      flat  flat%   sum%        cum   cum%\n     1.20s 57.14% 57.14%      1.24s 59.05%  \
                     profile::six_tenths (inline)\n";
        assert_eq!(top_share(table, "six_tenths"), Some(59.05));
        assert_eq!(top_share(table, "one_tenth"), None);
    }

    #[test]
    fn a_share_is_counted_in_folded_stacks() {
        let text = "work;six_tenths 6\nwork;three_tenths 3\nwork 1\n";
        assert_eq!((folded_share(text, "six_tenths"), folded_share(text, "work")), (Some(60.0), Some(100.0)));
        assert_eq!((folded_share(text, "nothing"), folded_share("", "work")), (Some(0.0), None));
    }
}
