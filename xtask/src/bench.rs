//! `cargo xtask bench`: the cost of rt0, compared with std, parking_lot and the bare kernel.
//!
//! The loops are in the package bench/. This module builds the programs (`bench/programs.rs`) and
//! runs them in turns for some rounds, metric by metric, so that other work on the machine affects
//! all programs alike. Their lines become a table (`bench/results.rs`).
//!
//! `bench/examples.rs` measures three of the programs of examples/ beside others of their kind.

mod beside;
mod bytes;
pub mod examples;
pub mod instructions;
mod programs;
mod results;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail, ensure};
use cargo_rt0::protocol::seen;
use cargo_rt0::report::{Test, Verdict};
use cargo_rt0::setup::Setup;
use cargo_rt0::{Options, process, say, tell};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use crate::repository::set_up;
use crate::strace;
use programs::{Contestant, RT0, Tools};
use results::Results;

/// What to measure, and where the results go.
#[derive(clap::Args, Clone)]
pub struct Choices {
    /// Only metrics whose name contains this
    #[arg(long, value_name = "SUBSTR")]
    filter: Option<String>,
    /// How often each program measures each metric
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Only measure the cost of a thread with 1 to 4096 threads
    #[arg(long)]
    scaling: bool,
    /// Only compare one small program with the same one on std, on musl and in Go: its size, memory
    /// and start, and whether it needs anything beside it
    #[arg(long)]
    beside: bool,
    /// Only measure the examples serve, init and sandbox, beside servers on std and Go, tini and
    /// bubblewrap: requests a second, size and resident memory
    #[arg(long, conflicts_with_all = ["filter", "scaling", "smoke", "json", "emit", "bytes", "instructions"])]
    examples: bool,
    /// Only print what the bytes of rt0's small programs are, function by function
    #[arg(long, conflicts_with_all = ["scaling", "smoke", "json", "emit", "instructions", "filter"])]
    bytes: bool,
    /// Only count instructions, of rt0 and of musl, on emulated machines
    #[arg(long, conflicts_with_all = ["scaling", "smoke", "json", "emit"])]
    instructions: bool,
    /// One tiny sample of each, to check that all works; the numbers mean nothing
    #[arg(long)]
    smoke: bool,
    /// Write the results as JSON, to standard output (then without the table) for `-`
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,
    /// Build rt0's programs into this folder as `bench`, `nothing`, `hello` and `threads`, and
    /// measure nothing
    #[arg(long, value_name = "DIR")]
    emit: Option<PathBuf>,
}

/// One metric of one program may take this long.
const LIMIT: Duration = Duration::from_secs(300);

/// How often each program is started in a round.
const STARTS: usize = 100;

/// With more runnable threads than this at the start, metrics that use two processors are
/// unreliable.
const QUIET: f64 = 0.3;

/// Runs the command.
pub fn run(options: Options, choices: Choices) -> Result<ExitCode> {
    process::prepare();
    let setup = set_up(options)?;
    if let Some(folder) = &choices.emit {
        return emit(&Tools::find(&setup)?, folder);
    }
    if choices.bytes {
        return bytes::run(&Tools::find(&setup)?);
    }
    if choices.instructions {
        return instructions::run(&setup, choices.filter.as_deref());
    }
    let machine = Machine::look()?;
    if choices.examples {
        return examples::run(&setup, &machine, choices.rounds);
    }
    if choices.beside {
        println!("{}\n", machine.line());
        beside::run(&setup)?;
        return Ok(ExitCode::SUCCESS);
    }
    let contestants = programs::build_all(&Tools::find(&setup)?)?;
    let mut results = Results::new(contestants.iter().map(|c| c.name).collect());
    measure(&setup, &contestants, &choices, &mut results)?;
    if results.is_empty() {
        bail!("no metric is called anything with `{}`", choices.filter.unwrap_or_default());
    }
    if let Some(file) = &choices.json {
        let json = serde_json::to_string_pretty(&results.json(&machine, choices.rounds))?;
        if file == Path::new("-") {
            tell!("{json}");
            return Ok(ExitCode::SUCCESS);
        }
        fs::write(file, json + "\n").with_context(|| format!("cannot write {}", file.display()))?;
    }
    tell!("{}\n", machine.line());
    process::tell(|out| write!(out, "{}", results.table()));
    for note in machine.warnings().iter().chain(results.notes()) {
        tell!("note: {note}");
    }
    Ok(ExitCode::SUCCESS)
}

fn emit(tools: &Tools, folder: &Path) -> Result<ExitCode> {
    let rt0 = programs::build(tools, &RT0)?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (program, name) in [&rt0.bench, &rt0.nothing, &rt0.hello, &rt0.threads].into_iter().zip(programs::EMITTED) {
        let to = folder.join(name);
        fs::copy(program, &to).with_context(|| format!("cannot write {}", to.display()))?;
        say!("{}", to.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs all rounds.
fn measure(setup: &Setup, contestants: &[Contestant], choices: &Choices, results: &mut Results) -> Result<()> {
    let wanted = |name: &str| choices.filter.as_ref().is_none_or(|part| name.contains(part.as_str()));
    let rt0 = contestants.iter().find(|c| c.name == RT0.name).context("rt0 is always among them")?;
    let mut groups = groups(rt0, choices)?;
    groups.retain(|metrics| metrics.iter().any(|name| wanted(name)));
    if !choices.scaling {
        sizes_and_calls(setup, contestants, &wanted, results)?;
    }
    for round in 1..=choices.rounds {
        say!("round {round} of {}", choices.rounds);
        for metrics in &groups {
            for contestant in contestants {
                // A program without this metric prints nothing.
                let outcome = run_loops(&contestant.bench, choices, &metrics[..1])?;
                results.add_lines(contestant.name, &outcome.stdout)?;
                outcome.stderr.lines().for_each(|line| results.note(format!("{}: {line}", contestant.name)));
            }
        }
        if !choices.scaling {
            startup(contestants, if choices.smoke { 2 } else { STARTS }, &wanted, results)?;
        }
    }
    Ok(())
}

/// Runs the loops of these metrics.
fn run_loops(bench: &Path, choices: &Choices, arguments: &[String]) -> Result<process::Outcome> {
    let mut command = Command::new(bench);
    command.args(choices.smoke.then_some("--smoke")).args(choices.scaling.then_some("--scaling")).args(arguments);
    let outcome = process::run(&mut command, LIMIT)?;
    let line = process::shell_line(&command);
    ensure!(!outcome.timed_out, seen(&outcome, &format!("{line} did not end within {} s", LIMIT.as_secs())));
    ensure!(outcome.status.success(), seen(&outcome, &format!("{line}: {}", outcome.status)));
    Ok(outcome)
}

/// The metrics that a program has, by groups that it measures together.
fn groups(program: &Contestant, choices: &Choices) -> Result<Vec<Vec<String>>> {
    let outcome = run_loops(&program.bench, choices, &["--list".to_string()])?;
    Ok(outcome.stdout.lines().map(|line| line.split_whitespace().map(str::to_string).collect()).collect())
}

/// Measures what needs no rounds: the sizes of files, and the system calls of a program that does
/// nothing, without execve(2), which starts it, and exit_group(2), which ends it.
fn sizes_and_calls(
    setup: &Setup,
    contestants: &[Contestant],
    wanted: &dyn Fn(&str) -> bool,
    results: &mut Results,
) -> Result<()> {
    for contestant in contestants {
        for (metric, program) in [("size_hello", &contestant.hello), ("size_threads", &contestant.threads)] {
            if wanted(metric) {
                let len = fs::metadata(program).with_context(|| program.display().to_string())?.len();
                results.add(contestant.name, metric, len as f64, "bytes");
            }
        }
    }
    if wanted("syscalls_before_main") {
        let strace = setup.strace();
        for contestant in contestants {
            match strace.as_ref().map_err(|error| format!("no strace: {error:#}")).and_then(|strace| {
                strace::calls(strace, &contestant.nothing).map_err(|error| format!("strace: {error:#}"))
            }) {
                Ok(calls) => {
                    let before = calls.iter().filter(|call| *call != "exit_group").count();
                    results.add(contestant.name, "syscalls_before_main", before as f64, "calls");
                }
                Err(why) => results.note(format!("syscalls_before_main is left out: {why}")),
            }
        }
    }
    Ok(())
}

/// Measures from before vfork(2) to after wait(2), the programs in turns.
fn startup(
    contestants: &[Contestant],
    starts: usize,
    wanted: &dyn Fn(&str) -> bool,
    results: &mut Results,
) -> Result<()> {
    for metric in ["startup_nothing", "startup_hello"].into_iter().filter(|metric| wanted(metric)) {
        let mut times = vec![Vec::new(); contestants.len()];
        for _ in 0..starts {
            for (contestant, times) in contestants.iter().zip(&mut times) {
                let program = if metric == "startup_hello" { &contestant.hello } else { &contestant.nothing };
                let mut command = Command::new(program);
                command.env_clear().env("A", "B").stdin(Stdio::null()).stdout(Stdio::null());
                let begin = Instant::now();
                let status = command.status().with_context(|| format!("cannot start {}", program.display()))?;
                times.push(begin.elapsed().as_nanos() as f64 / 1e3);
                ensure!(status.success(), "{}: {status}", program.display());
            }
        }
        for (contestant, times) in contestants.iter().zip(&mut times) {
            times.sort_by(f64::total_cmp);
            results.add(contestant.name, &format!("{metric}.best"), times[0], "us");
            results.add(contestant.name, &format!("{metric}.med"), times[times.len() / 2], "us");
        }
    }
    Ok(())
}

/// The machine, and conditions that make numbers unreliable.
struct Machine {
    kernel: String,
    cpu: String,
    cpus: usize,
    /// Runnable threads of the last minute.
    load: f64,
    /// Whether a thread may run on processors 0 and 1, where the loops put theirs.
    first_two: bool,
}

impl Machine {
    fn look() -> Result<Machine> {
        let read = |path: &str| fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
        let cpuinfo = read("/proc/cpuinfo")?;
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let load = read("/proc/loadavg")?;
        let allowed = sched_getaffinity(Pid::from_raw(0)).context("sched_getaffinity")?;
        Ok(Machine {
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_string(),
            cpu: model.map_or(std::env::consts::ARCH, |(_, name)| name).to_string(),
            cpus: (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).unwrap_or(false)).count(),
            load: load.split(' ').next().and_then(|word| word.parse().ok()).context("/proc/loadavg has no number")?,
            first_two: [0, 1].into_iter().all(|cpu| allowed.is_set(cpu).unwrap_or(false)),
        })
    }

    fn line(&self) -> String {
        let Machine { kernel, cpu, cpus, load, .. } = self;
        format!("Linux {kernel}, {cpu}, {cpus} processors, load {load:.2} at the start")
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.load > QUIET {
            warnings.push(format!(
                "the load was {:.2} at the start: other programs make metrics between processors unreliable most",
                self.load
            ));
        }
        if self.cpus < 2 || !self.first_two {
            warnings.push(
                "no two processors 0 and 1 to use: *_pinned and mutex_contended_* of 2 and 8 are left out, \
                           other contended figures say little"
                    .to_string(),
            );
        }
        warnings
    }
}

/// A test of programs that are built with these tools.
fn test(setup: &Setup, name: &str, look: fn(&Tools) -> Result<Verdict>) -> Test<'static> {
    let tools = Tools::find(setup).map_err(|error| format!("{error:#}"));
    Test::new("host", name, move || look(tools.as_ref().map_err(|why| Error::msg(why.clone()))?))
}

/// A test that the programs run and print every metric, so that they keep working between
/// benchmarks.
pub fn smoke_test(setup: &Setup) -> Test<'static> {
    test(setup, "bench::each_runtime_prints_every_metric_that_it_lists", smoke)
}

/// A test that rt0's column of `--beside` is true.
pub fn beside_test(setup: &Setup) -> Test<'static> {
    test(setup, "bench::a_small_program_runs_with_nothing_beside_it", beside::verdict)
}

/// rt0's small programs on x86_64, and the most bytes that each may have: its present size. A
/// change that makes one larger explains why.
const SIZES: [(&str, u64); 2] = [("hello", 1456), ("threads", 12368)];

/// A test that they do not grow, so that no code is added unnoticed.
pub fn sizes_test(setup: &Setup) -> Test<'static> {
    test(setup, "bench::small_programs_stay_as_small_as_they_are", |tools| {
        if std::env::consts::ARCH != "x86_64" {
            return Ok(Verdict::Skipped("sizes are known of x86_64 only".to_string()));
        }
        let [_, hello, threads] = programs::small_of_rt0(tools)?;
        let sizes = [hello.metadata()?.len(), threads.metadata()?.len()];
        let larger = SIZES.iter().zip(sizes).filter(|((_, most), size)| size > most);
        let larger: Vec<_> = larger.map(|((name, most), size)| format!("{name}: {size} bytes, not {most}")).collect();
        Ok(if larger.is_empty() { Verdict::Passed } else { Verdict::Failed(larger.join("; ")) })
    })
}

fn smoke(tools: &Tools) -> Result<Verdict> {
    for contestant in programs::build_smoke(tools)? {
        for scaling in [false, true] {
            let choices = Choices { scaling, ..Choices::SMOKE };
            let outcome = run_loops(&contestant.bench, &choices, &[])?;
            let mut results = Results::new(vec![contestant.name]);
            results.add_lines(contestant.name, &outcome.stdout)?;
            for name in groups(&contestant, &choices)?.into_iter().flatten() {
                let left_out = outcome.stderr.lines().any(|line| line.starts_with(&name));
                ensure!(
                    left_out || results.has(&name),
                    seen(&outcome, &format!("{} does not print {name}", contestant.bench.display()))
                );
            }
        }
        for (program, text) in
            [(&contestant.nothing, ""), (&contestant.hello, "hello, world\n"), (&contestant.threads, "joined\n")]
        {
            let outcome = process::run(&mut Command::new(program), LIMIT)?;
            ensure!(
                outcome.status.success() && outcome.stdout == text,
                seen(&outcome, &format!("{}: {}", program.display(), outcome.status))
            );
        }
    }
    Ok(Verdict::Passed)
}

impl Choices {
    const SMOKE: Choices = Choices {
        filter: None,
        rounds: 1,
        scaling: false,
        beside: false,
        examples: false,
        bytes: false,
        instructions: false,
        smoke: true,
        json: None,
        emit: None,
    };
}
