//! `cargo xtask test`: one process per test, on every machine, and one account of it all.
//!
//! A test program says with `--list` which tests it has and what each expects; `PROGRAM NAME` runs
//! one. All tests of all machines go into one queue, from which two workers for each processor
//! take, since many tests wait. Native tests marked `alone` come after that, one at a time; under
//! an emulator, which is slow, one more of them harms none.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::{IsTerminal, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

use crate::kernel::{self, Guest, INIT, Job};
use crate::setup::{Machine, Rust, Setup};
use crate::{Options, build, elf, host_tests, process, root, say, targets};

/// Exit status of a test program that says `skipped: <reason>`.
const SKIPPED: i32 = 77;

/// How long a test may take if it does not say otherwise.
/// On a quiet machine it takes seconds; this is for one that has much else to do.
const LIMIT_NATIVE: Duration = Duration::from_secs(240);
const LIMIT_QEMU: Duration = Duration::from_secs(300);
const LIMIT_MODEL: Duration = Duration::from_secs(600);

/// How long tests that let everything happen at once go on, natively; they have a short time of
/// their own.
const STRESS: &str = "RT0_STRESS_SECONDS";

/// How a test ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should.
    Passed,
    /// Otherwise; what was seen, and how to repeat it.
    Failed(String),
    /// It was not run, or could not prove anything here.
    Skipped(String),
}

/// A test, ready to run.
pub struct Test<'a> {
    /// The machine's short name, or `host`.
    pub machine: &'static str,
    /// `bin::name`.
    pub name: String,
    /// Whether it has the machine for itself.
    pub alone: bool,
    /// Runs it.
    pub run: Box<dyn Fn() -> Verdict + Send + Sync + 'a>,
}

impl<'a> Test<'a> {
    /// A test that may run beside others.
    pub fn new(machine: &'static str, name: impl Into<String>, run: impl Fn() -> Verdict + Send + Sync + 'a) -> Self {
        Test { machine, name: name.into(), alone: false, run: Box::new(run) }
    }

    fn full_name(&self) -> String {
        format!("{}::{}", self.machine, self.name)
    }
}

/// What to test.
#[derive(clap::Args)]
pub struct Choices {
    /// Short name, triple, `native` or `all`; may be given several times
    #[arg(long)]
    target: Vec<String>,
    /// On real kernels under qemu-system, and nothing else: a machine, MACHINE@VERSION as in
    /// `aarch64@6.12`, `daily` or `all`
    #[arg(long, value_name = "ROW", num_args = 0..=1, require_equals = true, value_delimiter = ',',
          default_missing_value = "daily", conflicts_with = "target")]
    kernel: Vec<String>,
    /// After all else, those on the real kernels of every day
    #[arg(long, conflicts_with = "kernel")]
    daily: bool,
    /// Only tests whose full name (`mips::futex::wake_wakes_one`) contains this
    filter: Option<String>,
}

/// Runs the tests and reports; the exit status says whether all is well.
pub fn run(options: Options, choices: &Choices) -> Result<ExitCode> {
    process::prepare();
    let started = Instant::now();
    let setup = Setup::new(options)?;
    let (words, filter) = (choices.target.as_slice(), choices.filter.as_deref());
    let first = filter.and_then(|f| f.split_once("::")).map(|(first, _)| first);
    // A filter that begins with a kernel's name asks for that kernel.
    let row = first.filter(|word| kernel::is_row_name(word)).map(str::to_string);
    let kernels = match row {
        Some(row) => vec![row],
        None if choices.daily => vec!["daily".to_string()],
        None => choices.kernel.clone(),
    };
    let plan = kernel::Plan::new(&kernels)?;
    let kernels_only = !kernels.is_empty() && !choices.daily;
    let all = ["all".to_string()];
    let targets = targets::select(if words.is_empty() { &all } else { words }, &setup.rust.host)?;
    // A filter that begins with a machine's name needs nothing set up for the others.
    let only = first.filter(|f| *f == "host" || targets::TARGETS.iter().any(|t| t.name == *f));
    let targets: Vec<_> = targets.into_iter().filter(|t| only.is_none_or(|name| t.name.ends_with(name))).collect();
    let targets: Vec<_> = targets.into_iter().filter(|t| !kernels_only || plan.needs(t.name)).collect();
    // Naming machines other than the host's narrows the run to them.
    let native = targets::select(&["native".to_string()], &setup.rust.host).unwrap_or_default();
    let with_host = !kernels_only
        && only.is_none_or(|name| name == "host")
        && (words.is_empty() || targets.iter().any(|t| native.iter().any(|n| n.name == t.name)));

    let mut report = Report::new(filter);
    let (guests, missing) = plan.set_up(&setup);
    for (name, why) in missing {
        report.add(&format!("{name}::setup"), Verdict::Skipped(why), None);
    }
    let mut machines = Vec::new();
    for (target, ready) in setup.machines(&targets) {
        match ready {
            Ok(machine) => {
                say!("{}: core {}, {}", target.name, machine.core, machine.runner);
                report.runners.insert(target.name.to_string(), machine.runner.to_string());
                match machine.qemu().and_then(|v| target.unfit((v.0.0, v.0.1))) {
                    Some(why) => {
                        let verdict = Verdict::Skipped(format!("all of it under {}: {why}", machine.runner));
                        report.add(&format!("{}::setup", target.name), verdict, None);
                    }
                    None => machines.push(machine),
                }
            }
            Err(error) => report.add(&format!("{}::setup", target.name), Verdict::Failed(format!("{error:#}")), None),
        }
    }
    let set_up = started.elapsed();

    let build_started = Instant::now();
    // They take longer to build than many a test to run: not for a filter that names none.
    let with_models = with_host && filter.is_none_or(|part| part.contains("model") || part.contains("loom"));
    // At once: each spends a while on one processor, where a program is linked or a library is one
    // unit.
    let (built, host) = thread::scope(|scope| {
        let host = scope.spawn(|| -> Result<_> {
            let units = if with_host { build::unit_tests()? } else { build::Units::default() };
            let models = if with_models { build::models()? } else { build::Units::default() };
            Ok((units, models))
        });
        let what = filter.and_then(|filter| programs_of(filter, &build::test_programs()));
        let what = what.as_deref().map_or(build::What::Everything, build::What::Programs);
        let built = build::build(&setup, &machines, what);
        (built, host.join().expect("building does not panic"))
    });
    let (built, (units, models)) = (built?, host?);
    for (name, error) in &built.failed {
        report.add(&format!("{name}::build"), Verdict::Failed(error.clone()), None);
    }
    for line in [&units, &models].into_iter().filter_map(|units| units.failed.as_ref()) {
        report.add("host::build", Verdict::Failed(format!("cargo's messages above say why\n{line}")), None);
    }
    let build_time = build_started.elapsed().saturating_sub(built.core);

    let run_started = Instant::now();
    let mut tests = Vec::new();
    if with_host {
        report.runners.insert("host".to_string(), "native".to_string());
        for (name, path) in &units.binaries {
            tests.extend(unit_tests(name, path, "", LIMIT_NATIVE).unwrap_or_else(|failed| vec![failed]));
        }
        for (_, path) in &models.binaries {
            tests.extend(unit_tests("models", path, "::loom_", LIMIT_MODEL).unwrap_or_else(|failed| vec![failed]));
        }
        tests.extend(host_tests::of_the_repository(&setup));
    }
    for machine in &machines {
        for program in built.programs.iter().filter(|p| p.machine == machine.target.name) {
            if let Err(error) = elf::check(&program.path, machine.target) {
                let name = format!("{}::{}::elf_facts", machine.target.name, program.name);
                report.add(&name, Verdict::Failed(format!("{error:#}")), None);
            } else if !program.example && program.name != INIT && !kernels_only {
                tests.extend(guest_tests(machine, &program.name, &program.path));
            }
        }
        if !kernels_only {
            tests.extend(host_tests::of_programs(&setup, machine, &built));
        }
    }
    let matches = |test: &Test| filter.is_none_or(|part| test.full_name().contains(part));
    tests.retain(matches);
    report.start(tests.len());
    let report = Mutex::new(report);
    run_all(&tests, false, &report);
    run_guests(&setup.rust, &machines, &built, &guests, filter, &report);
    run_all(&tests, true, &report);
    let report = report.into_inner().expect("no worker panics with the report");

    let times = [
        ("set-up", set_up),
        ("core", built.core),
        ("build", build_time),
        ("run", run_started.elapsed()),
        ("in all", started.elapsed()),
    ];
    Ok(report.print(&times))
}

/// The test programs that a filter names, if it does: then no other is needed. `futex::wait`, also
/// behind a machine's name.
fn programs_of(filter: &str, programs: &[String]) -> Option<Vec<String>> {
    let parts: Vec<_> = filter.split("::").collect();
    let (_, names) = parts.split_last()?;
    // The first part may begin within a name, and be a machine's.
    let fits = |program: &&String| match names {
        [end] => program.ends_with(end),
        [machine, name] => *name == **program || (machine.is_empty() && program.ends_with(name)),
        _ => false,
    };
    let mut found: Vec<_> = programs.iter().filter(fits).cloned().collect();
    if found.is_empty() {
        return None;
    }
    found.retain(|name| name != INIT);
    found.push(INIT.to_string());
    Some(found)
}

/// Takes the tests from a queue: those that run beside each other, or those that are alone.
fn run_all(tests: &[Test], alone: bool, report: &Mutex<Report>) {
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let workers = if alone { 1 } else { 2 * workers };
    let tests: VecDeque<_> = tests.iter().filter(|test| test.alone == alone).collect();
    let queue = Mutex::new(tests);
    let take = || queue.lock().expect("no worker panics with the queue").pop_front();
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(test) = take() {
                    let started = Instant::now();
                    process::take_cpu_time(); // What came before was no test's.
                    let verdict = (test.run)();
                    let spent = Spent { time: started.elapsed(), cpu: process::take_cpu_time() };
                    let mut report = report.lock().expect("no worker panics with the report");
                    report.add(&test.full_name(), verdict, Some(spent));
                }
            });
        }
    });
}

// ---- the tests on real kernels ----

/// So many guests run at once. Each has up to two processors of its own.
const GUESTS: usize = 2;

/// Boots one guest after the other, two at a time, and runs the tests of its machine there.
fn run_guests(
    rust: &Rust,
    machines: &[Machine],
    built: &build::Built,
    guests: &[Guest],
    filter: Option<&str>,
    report: &Mutex<Report>,
) {
    let queue = Mutex::new(guests.iter().collect::<VecDeque<_>>());
    let take = || queue.lock().expect("no worker panics with the queue").pop_front();
    let add = |guest: &Guest, name: &str, verdict: Verdict, spent: Option<Spent>| {
        let mut report = report.lock().expect("no worker panics with the report");
        report.add(&format!("{}::{name}", guest.name), verdict, spent);
    };
    thread::scope(|scope| {
        for _ in 0..GUESTS {
            scope.spawn(|| {
                while let Some(guest) = take() {
                    // What is said of a machine that is not set up or built stands in the report.
                    let Some(machine) = kernel::machine_of(machines, guest) else { continue };
                    let tell = |name: &str, verdict, spent| add(guest, name, verdict, spent);
                    let (jobs, programs) = jobs(machine, built, guest, filter, &tell);
                    if jobs.is_empty() {
                        continue;
                    }
                    let Some(init) = programs.get(INIT) else {
                        tell("boot", Verdict::Failed("there is no init: it was not built".to_string()), None);
                        continue;
                    };
                    report.lock().expect("no worker panics with the report").expect_more(jobs.len());
                    let described = guest.run(rust, init, &programs, &jobs, &tell);
                    report
                        .lock()
                        .expect("no worker panics with the report")
                        .runners
                        .insert(guest.name.clone(), described);
                }
            });
        }
    });
}

/// The tests that a guest is to run, and the programs of its machine.
fn jobs(
    machine: &Machine,
    built: &build::Built,
    guest: &Guest,
    filter: Option<&str>,
    tell: &dyn Fn(&str, Verdict, Option<Spent>),
) -> (Vec<Job>, BTreeMap<String, PathBuf>) {
    let programs = built.programs.iter().filter(|p| p.machine == machine.target.name && !p.example);
    let programs: BTreeMap<_, _> = programs.map(|p| (p.name.clone(), p.path.clone())).collect();
    let mut jobs = Vec::new();
    for (bin, path) in programs.iter().filter(|(name, _)| *name != INIT) {
        let wanted = |name: &str| filter.is_none_or(|part| format!("{}::{bin}::{name}", guest.name).contains(part));
        if let Err(error) = elf::check(path, machine.target) {
            tell(&format!("{bin}::elf_facts"), Verdict::Failed(format!("{error:#}")), None);
            continue;
        }
        match list(machine, path) {
            Ok(tests) => jobs.extend(tests.into_iter().filter(|test| wanted(&test.name)).map(|test| Job {
                name: format!("{bin}::{}", test.name),
                bin: bin.clone(),
                limit: test.limit.unwrap_or(LIMIT_QEMU),
                test,
            })),
            Err(why) => tell(&format!("{bin}::list"), Verdict::Failed(why), None),
        }
    }
    (jobs, programs)
}

// ---- the tests of a guest program ----

/// What a line of `--list` says about a test.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Expectation {
    /// The test.
    pub name: String,
    /// The exit status that means success.
    exit: i32,
    /// The signal that it must die by.
    signal: Option<i32>,
    stdout: Option<String>,
    stderr: Option<String>,
    /// Arguments behind its name.
    pub args: Vec<String>,
    /// Variables of its environment.
    pub env: Vec<(String, String)>,
    /// The soft limit of its stack: bytes, or `unlimited`.
    pub stack: Option<String>,
    /// Descriptors that are closed at its start.
    pub close: Vec<u32>,
    /// Why it proves nothing under an emulator.
    pub native: Option<String>,
    alone: bool,
    limit: Option<Duration>,
}

/// Reads `NAME[\tKEY=VALUE]…`; the error says what is wrong with the line.
pub fn expectation(line: &str) -> Result<Expectation, String> {
    let mut fields = line.split('\t');
    let mut test = Expectation { name: fields.next().unwrap_or_default().to_string(), ..Default::default() };
    if test.name.is_empty() || test.name.contains(char::is_whitespace) {
        return Err(format!("no test name in `{line}`"));
    }
    for field in fields {
        let (key, value) = field.split_once('=').unwrap_or((field, ""));
        let value = unescape(value);
        let number = || value.parse::<u32>().map_err(|_| format!("`{field}` of {} is no number", test.name));
        match key {
            "exit" => test.exit = number()? as i32,
            "signal" => test.signal = Some(number()? as i32),
            "stdout" => test.stdout = Some(value),
            "stderr" => test.stderr = Some(value),
            "args" => test.args = value.split(' ').map(str::to_string).collect(),
            "env" => match value.split_once('=') {
                Some((name, value)) => test.env.push((name.to_string(), value.to_string())),
                None => return Err(format!("`{field}` of {} is not env=NAME=VALUE", test.name)),
            },
            "stack" if value == "unlimited" => test.stack = Some(value),
            "stack" => test.stack = Some(number()?.to_string()),
            "close" => {
                let list: Result<_, _> = value.split(',').map(str::parse).collect();
                test.close = list.map_err(|_| format!("`{field}` of {} is no list of descriptors", test.name))?;
            }
            "native" => test.native = Some(value),
            "alone" => test.alone = true,
            "limit" => test.limit = Some(Duration::from_secs(number()?.into())),
            _ => return Err(format!("{} has the unknown key `{key}`", test.name)),
        }
    }
    Ok(test)
}

fn unescape(value: &str) -> String {
    let mut out = String::new();
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some(other) => out.push(other),
                None => out.push('\\'),
            },
            (c, false) => out.push(c),
        }
    }
    out
}

/// The command for a test, with nothing of our environment but PATH: what it sees is the same
/// everywhere. `inner` starts the test program.
pub fn guest_command(mut inner: Command, test: &Expectation) -> Command {
    inner.arg(&test.name).args(&test.args);
    let mut command = if test.stack.is_none() && test.close.is_empty() {
        inner
    } else {
        // The shell sets the limit and closes the descriptors, so that the line can be typed as it
        // is.
        let stack = test.stack.as_ref().map(|bytes| match bytes.parse::<u64>() {
            Ok(bytes) => format!("ulimit -S -s {}; ", bytes.div_ceil(1024)),
            Err(_) => format!("ulimit -S -s {bytes}; "),
        });
        let close: String = test.close.iter().map(|fd| format!(" {fd}>&-")).collect();
        let script = format!("{}exec \"$0\" \"$@\"{close}", stack.unwrap_or_default());
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).arg(inner.get_program()).args(inner.get_args());
        shell
    };
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.envs(test.env.iter().map(|(name, value)| (name, value))).current_dir(root());
    command
}

/// The tests that a program says it has.
pub fn list(machine: &Machine, program: &Path) -> Result<Vec<Expectation>, String> {
    let mut command = machine.command(program);
    let line = process::shell_line(command.arg("--list"));
    let listed = match process::run(&mut command, LIMIT_QEMU) {
        Ok(outcome) if outcome.status.success() => Ok(outcome),
        Ok(outcome) => Err(seen(&outcome, "--list failed")),
        Err(error) => Err(format!("cannot start: {error}")),
    };
    let tests = listed.and_then(|listed| listed.stdout.lines().map(expectation).collect());
    tests.map_err(|why| format!("{why}\n{line}"))
}

/// All tests of one program; a program that cannot list them is one failed test.
fn guest_tests<'a>(machine: &'a Machine, bin: &str, program: &'a Path) -> Vec<Test<'a>> {
    let limit = if machine.qemu().is_some() { LIMIT_QEMU } else { LIMIT_NATIVE };
    let listed = match list(machine, program) {
        Ok(listed) => listed,
        Err(why) => {
            return vec![Test::new(machine.target.name, format!("{bin}::list"), move || Verdict::Failed(why.clone()))];
        }
    };
    let mut tests = Vec::new();
    for test in listed {
        let name = format!("{bin}::{}", test.name);
        let alone = test.alone && machine.qemu().is_none();
        let gap_name = name.clone();
        let run = move || {
            if let (Some(reason), Some(_)) = (&test.native, machine.qemu()) {
                return Verdict::Skipped(format!("under qemu: {reason}"));
            }
            let mut command = guest_command(machine.command(program), &test);
            let full_speed = machine.qemu().is_none() && machine.target.profile == targets::Profile::Release;
            if let (true, Some(seconds)) = (full_speed, std::env::var_os(STRESS)) {
                command.env(STRESS, seconds);
            }
            let verdict = match process::run(&mut command, test.limit.unwrap_or(limit)) {
                Ok(outcome) => judge(&outcome, &test),
                Err(error) => Verdict::Failed(format!("cannot start: {error}")),
            };
            let gap = machine.qemu().and_then(|v| machine.target.gap(&gap_name, (v.0.0, v.0.1)));
            match (verdict, gap) {
                (Verdict::Failed(_), Some(gap)) => Verdict::Skipped(format!("qemu: {}", gap.reason)),
                (Verdict::Passed, Some(gap)) => {
                    say!("{}::{gap_name} passes although the table lists a gap: {}", machine.target.name, gap.reason);
                    Verdict::Passed
                }
                (Verdict::Failed(why), None) => Verdict::Failed(format!("{why}\n{}", process::shell_line(&command))),
                (verdict, _) => verdict,
            }
        };
        tests.push(Test { machine: machine.target.name, name, alone, run: Box::new(run) });
    }
    tests
}

/// Compares what was seen with what was expected.
pub fn judge(outcome: &process::Outcome, test: &Expectation) -> Verdict {
    if outcome.timed_out {
        return Verdict::Failed(seen(outcome, &format!("no end after {:.0} s", outcome.time.as_secs_f64())));
    }
    if outcome.status.code() == Some(SKIPPED) && test.exit != SKIPPED {
        let reason = outcome.stdout.lines().rev().find_map(|line| line.strip_prefix("skipped: "));
        return Verdict::Skipped(reason.unwrap_or("it gave no reason").to_string());
    }
    let ended_well = match test.signal {
        Some(signal) => outcome.status.signal() == Some(signal),
        None => outcome.status.code() == Some(test.exit),
    };
    if !ended_well {
        let expected = test.signal.map_or(format!("exit status {}", test.exit), |signal| format!("signal {signal}"));
        return Verdict::Failed(seen(outcome, &format!("{}, expected {expected}", outcome.status)));
    }
    for (stream, text, part) in [("stdout", &outcome.stdout, &test.stdout), ("stderr", &outcome.stderr, &test.stderr)] {
        if part.as_ref().is_some_and(|part| !text.contains(part.as_str())) {
            let part = part.as_deref().unwrap_or_default();
            return Verdict::Failed(seen(outcome, &format!("{stream} does not contain {part:?}")));
        }
    }
    Verdict::Passed
}

/// What happened and what was printed.
pub fn seen(outcome: &process::Outcome, what: &str) -> String {
    let mut text = what.to_string();
    for (stream, said) in [("stdout", &outcome.stdout), ("stderr", &outcome.stderr)] {
        if !said.trim().is_empty() {
            let lines: Vec<_> = said.lines().collect();
            let shown = &lines[lines.len().saturating_sub(40)..];
            text += &format!("\n--- {stream}, last lines ---\n{}", shown.join("\n"));
        }
    }
    text
}

// ---- unit tests of the host ----

/// The tests of a binary made by `cargo test` with `part` in their names, each as a process of its
/// own like all others.
fn unit_tests<'a>(name: &str, binary: &'a Path, part: &str, limit: Duration) -> Result<Vec<Test<'a>>, Test<'a>> {
    let list = |more: &[&str]| {
        let mut command = Command::new(binary);
        command.args(["--list", "--format", "terse"]).args(more);
        let outcome = process::run(&mut command, LIMIT_NATIVE).map_err(|e| e.to_string())?;
        if !outcome.status.success() {
            return Err(seen(&outcome, "--list failed"));
        }
        Ok(outcome.stdout.lines().filter_map(|l| Some(l.strip_suffix(": test")?.to_string())).collect::<Vec<_>>())
    };
    let failed = |why: String| Test::new("host", format!("{name}::list"), move || Verdict::Failed(why.clone()));
    let ignored = list(&["--ignored"]).map_err(failed)?;
    let all = list(&[]).map_err(failed)?;
    let test = |test: String| {
        let skipped = ignored.contains(&test);
        Test::new("host", format!("{name}::{test}"), move || {
            if skipped {
                return Verdict::Skipped("marked #[ignore]".to_string());
            }
            let mut command = Command::new(binary);
            command.args(["--exact", &test]).current_dir(root());
            match process::run(&mut command, limit) {
                Ok(outcome) if outcome.status.success() && !outcome.timed_out => Verdict::Passed,
                Ok(outcome) => Verdict::Failed(seen(&outcome, &process::shell_line(&command))),
                Err(error) => Verdict::Failed(format!("cannot start: {error}")),
            }
        })
    };
    Ok(all.into_iter().filter(|name| name.contains(part)).map(test).collect())
}

// ---- the account ----

/// Collects verdicts, prints each as it comes, and all of them at the end.
struct Report {
    counts: BTreeMap<String, Count>,
    /// What each test took.
    spent: Vec<(String, Spent)>,
    runners: BTreeMap<String, String>,
    failures: Vec<(String, String)>,
    skips: BTreeMap<String, Vec<String>>,
    filter: Option<String>,
    bar: ProgressBar,
}

/// What a test took: from start to end, and of the processors.
#[derive(Clone, Copy, Default)]
pub struct Spent {
    /// From start to end; in a guest, by its own clock.
    pub time: Duration,
    /// Of the host's processors.
    pub cpu: Duration,
}

impl fmt::Display for Spent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s, of processors {:.1} s", self.time.as_secs_f64(), self.cpu.as_secs_f64())
    }
}

/// The sums of one machine.
#[derive(Default)]
struct Count {
    passed: usize,
    failed: usize,
    skipped: usize,
    spent: Spent,
}

impl Report {
    fn new(filter: Option<&str>) -> Report {
        Report {
            counts: BTreeMap::new(),
            spent: Vec::new(),
            runners: BTreeMap::new(),
            failures: Vec::new(),
            skips: BTreeMap::new(),
            filter: filter.map(str::to_string),
            bar: ProgressBar::hidden(),
        }
    }

    /// Shows progress, on a terminal only.
    fn start(&mut self, total: usize) {
        if std::io::stdout().is_terminal() && std::io::stderr().is_terminal() {
            self.bar = ProgressBar::new(total as u64);
            if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos} of {len} tests, {elapsed}") {
                self.bar.set_style(style);
            }
        }
    }

    /// More tests turned up.
    fn expect_more(&mut self, count: usize) {
        self.bar.inc_length(count as u64);
    }

    fn add(&mut self, name: &str, verdict: Verdict, spent: Option<Spent>) {
        let machine = name.split("::").next().unwrap_or(name);
        let count = self.counts.entry(machine.to_string()).or_default();
        if let Some(spent) = spent {
            count.spent.time += spent.time;
            count.spent.cpu += spent.cpu;
            self.spent.push((name.to_string(), spent));
        }
        let mut line = format!("test {name} ... ");
        match verdict {
            Verdict::Passed => {
                count.passed += 1;
                line.push_str("ok");
            }
            Verdict::Failed(why) => {
                count.failed += 1;
                line.push_str("FAILED");
                self.failures.push((name.to_string(), why));
            }
            Verdict::Skipped(reason) => {
                count.skipped += 1;
                line += &format!("skipped, {reason}");
                self.skips.entry(reason).or_default().push(name.to_string());
            }
        }
        if let Some(spent) = spent.filter(|spent| spent.time.as_secs() >= 5) {
            line += &format!(" ({:.1} s)", spent.time.as_secs_f64());
        }
        self.bar.inc(1);
        self.bar.suspend(|| println!("{line}"));
    }

    fn print(&self, times: &[(&str, Duration)]) -> ExitCode {
        self.bar.finish_and_clear();
        let again = |name: &str| format!("cargo xtask test {name}");
        if !self.failures.is_empty() {
            println!("\nfailures:");
        }
        for (name, why) in &self.failures {
            println!("\n---- {name} ----\n{why}\nagain: {}", again(name));
        }
        if !self.skips.is_empty() {
            println!("\nskipped:");
        }
        for (reason, names) in &self.skips {
            println!("  {reason}");
            names.iter().for_each(|name| println!("    {name}"));
        }
        println!();
        let (mut passed, mut failed, mut skipped) = (0, 0, 0);
        let width = self.counts.keys().map(String::len).max().unwrap_or(0).max(12);
        for (machine, count) in &self.counts {
            let runner = self.runners.get(machine.as_str()).map_or("not set up", String::as_str);
            let sums = format!("{} passed, {} failed, {} skipped", count.passed, count.failed, count.skipped);
            println!("{machine:<width$} {sums}, {} ({runner})", count.spent);
            (passed, failed, skipped) = (passed + count.passed, failed + count.failed, skipped + count.skipped);
        }
        for (what, key) in [("the longest", (|spent| spent.time) as fn(&Spent) -> Duration), ("the dearest", |s| s.cpu)]
        {
            let mut order: Vec<_> = self.spent.iter().collect();
            order.sort_by_key(|(_, spent)| Reverse(key(spent)));
            println!("{what}:");
            order.iter().take(5).for_each(|(name, spent)| println!("  {name}: {spent}"));
        }
        let times: Vec<_> = times.iter().map(|(what, time)| format!("{what} {:.1} s", time.as_secs_f64())).collect();
        println!("time: {}", times.join(", "));
        let run: Duration = self.spent.iter().map(|(_, spent)| spent.cpu).sum();
        let all = process::cpu_time_of_all();
        println!("of processors: tests {:.1} s, with builds {:.1} s", run.as_secs_f64(), all.as_secs_f64());
        if passed + failed == 0 {
            println!("no test ran{}", self.filter.as_ref().map_or(String::new(), |f| format!(": none contains `{f}`")));
        }
        println!("{passed} passed, {failed} failed, {skipped} skipped");
        let _ = std::io::stdout().flush();
        if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// A folder for the files of one test, empty and its own.
pub fn scratch(name: &str) -> std::io::Result<PathBuf> {
    let folder = root().join("target/test-tmp").join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(script: &str) -> process::Outcome {
        process::run(Command::new("sh").args(["-c", script]), Duration::from_secs(10)).expect("sh exists")
    }

    fn judged(script: &str, line: &str) -> Verdict {
        judge(&outcome(script), &expectation(line).expect("a good line"))
    }

    #[test]
    fn a_list_line_is_a_name_and_keys() {
        let line =
            "panics\texit=101\tstderr=at \\\\ line\\n2\targs=a b\tenv=K=v=w\tenv=L=\tstack=65536\tclose=0,2\talone";
        let test = expectation(line).expect("a good line");
        let env = [("K", "v=w"), ("L", "")].map(|(k, v)| (k.to_string(), v.to_string()));
        assert_eq!((test.name.as_str(), test.exit, test.alone), ("panics", 101, true));
        assert_eq!(test.stderr.as_deref(), Some("at \\ line\n2"));
        assert_eq!((test.args, test.env), (vec!["a".to_string(), "b".to_string()], env.to_vec()));
        assert_eq!((test.stack.as_deref(), test.close), (Some("65536"), vec![0, 2]));
        assert_eq!(expectation("x\tlimit=5").expect("good").limit, Some(Duration::from_secs(5)));
    }

    #[test]
    fn a_list_line_that_is_wrong_is_refused() {
        for line in
            ["", "\texit=1", "two words", "x\texit=one", "x\tenv=K", "x\tclose=0,b", "x\tcolour=red", "x\tstack=1k"]
        {
            assert!(expectation(line).is_err(), "{line}");
        }
    }

    #[test]
    fn exit_status_signal_and_streams_decide() {
        assert_eq!(judged("exit 0", "t"), Verdict::Passed);
        assert_eq!(judged("echo abc; exit 7", "t\texit=7\tstdout=b"), Verdict::Passed);
        assert_eq!(judged("kill -ABRT $$", "t\tsignal=6"), Verdict::Passed);
        for (script, line) in [
            ("exit 1", "t"),
            ("kill -ABRT $$", "t"),
            ("exit 6", "t\tsignal=6"),
            ("echo abc >&2", "t\tstdout=b"),
            ("exit 0", "t\texit=101"),
        ] {
            assert!(matches!(judged(script, line), Verdict::Failed(_)), "{script} {line}");
        }
    }

    #[test]
    fn a_filter_that_names_a_program_needs_no_other() {
        let all = ["futex", "sync", "async", INIT].map(str::to_string);
        let of = |filter| programs_of(filter, &all).map(|names| names.join(" "));
        assert_eq!(of("futex::wait").as_deref(), Some("futex init"));
        assert_eq!(of("sync::").as_deref(), Some("sync async init"));
        assert_eq!(of("mips::sync::mutex").as_deref(), Some("sync init"));
        for filter in ["sync", "mips::", "examples::hello", "host::rt0::sync::mutex", "mips::examples::wc", ""] {
            assert_eq!(of(filter), None, "{filter}");
        }
    }

    #[test]
    fn a_skip_gives_its_last_reason() {
        let verdict = judged("echo skipped: first; echo skipped: no such call; exit 77", "t");
        assert_eq!(verdict, Verdict::Skipped("no such call".to_string()));
    }

    #[test]
    fn limits_and_descriptors_are_set_by_a_line_that_can_be_typed() {
        let test = expectation("-c\targs=ulimit -s\tstack=100000\tclose=1").expect("a good line");
        let command = guest_command(Command::new("/bin/echo"), &test);
        let line = process::shell_line(&command);
        assert!(line.ends_with(r#"sh -c 'ulimit -S -s 98; exec "$0" "$@" 1>&-' /bin/echo -c ulimit -s"#), "{line}");
    }
}
