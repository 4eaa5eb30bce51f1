//! `cargo xtask test`: one process per test, on every machine, and one report.
//!
//! A test program lists with `--list` its tests and their requirements; `PROGRAM NAME` runs one.
//! All tests of all machines go into one queue, from which two workers for each processor take,
//! since many tests wait. Native tests marked `alone` follow, one at a time. Under an emulator they
//! run with the others, because everything is slow there anyway.
//!
//! Tests that this tool makes itself, of whole programs from outside (`test/programs.rs`, which
//! lists the other files):
//!
//! - `test/faults.rs`, `test/init.rs`, `test/sandbox.rs`, `test/serve.rs`: of one example each;
//!   `test/shell.rs`: cases in which a program starts the host's shell.
//! - `test/tools.rs`, `test/traced.rs`, `test/valgrind.rs`: with debuggers, profilers and tracers.
//! - `test/fixture.rs`, `test/crates.rs`: crates outside of this repository's workspace, as
//!   `cargo rt0` builds and tests them; `test/linker.rs`: links that are refused.

mod crates;
mod faults;
mod fixture;
mod init;
mod linker;
mod programs;
pub mod sandbox;
pub mod serve;
mod shell;
mod tools;
mod traced;
mod valgrind;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use cargo_rt0::build::{Built, Kind};
use cargo_rt0::protocol::{LIMIT_NATIVE, LIMIT_QEMU, list, seen, tests_of};
use cargo_rt0::report::{Report, Spent, Test, Verdict};
use cargo_rt0::setup::{Machine, Rust};
use cargo_rt0::{Options, process, say, targets};

use crate::build::{self, INIT, SUITE};
use crate::calls;
use crate::kernel::{self, Guest, Job};
use crate::repository::{root, set_up};
use crate::syscalls::confined;

const LIMIT_MODEL: Duration = Duration::from_secs(600);

/// The time of native stress tests; they have a short default.
const STRESS: &str = "RT0_STRESS_SECONDS";

/// What to test.
#[derive(clap::Args)]
pub struct Choices {
    /// Short name, triple, `native` or `all`; may be given several times
    #[arg(long)]
    target: Vec<String>,
    /// Only on real kernels under qemu-system: a machine, MACHINE@VERSION as in `aarch64@6.12`,
    /// `daily` or `all`
    #[arg(long, value_name = "ROW", num_args = 0..=1, require_equals = true, value_delimiter = ',',
          default_missing_value = "daily", conflicts_with = "target")]
    kernel: Vec<String>,
    /// Also run the daily set of real kernels, after all others
    #[arg(long, conflicts_with = "kernel")]
    daily: bool,
    /// How many tests that fail may run again: once under an emulator, three times natively; those
    /// that then pass each time are listed with what was seen, and do not fail the run
    #[arg(long, value_name = "N", default_value_t = 0)]
    retries: usize,
    /// Only tests whose full name (`mips::futex::wake_wakes_one`) contains this
    filter: Option<String>,
}

/// Runs the tests and reports; the exit status says whether all passed.
pub fn run(options: Options, choices: &Choices) -> Result<ExitCode> {
    process::prepare();
    let started = Instant::now();
    let setup = set_up(options)?;
    let (words, filter) = (choices.target.as_slice(), choices.filter.as_deref());
    let first = filter.and_then(|f| f.split_once("::")).map(|(first, _)| first);
    // A filter that begins with a kernel's name selects that kernel.
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
    // A filter that begins with a machine's name needs no setup for the others.
    let only = first.filter(|f| *f == "host" || targets::TARGETS.iter().any(|t| t.name == *f));
    let targets: Vec<_> = targets.into_iter().filter(|t| only.is_none_or(|name| t.name.ends_with(name))).collect();
    let targets: Vec<_> = targets.into_iter().filter(|t| !kernels_only || plan.needs(t.name)).collect();
    // Naming machines other than the host's restricts the run to them.
    let native = targets::select(&["native".to_string()], &setup.rust.host).unwrap_or_default();
    let with_host = !kernels_only
        && match only {
            Some(name) => name == "host",
            None => words.is_empty() || targets.iter().any(|t| native.iter().any(|n| n.name == t.name)),
        };

    let mut report = Report::new("cargo xtask test", filter);
    report.retries = choices.retries;
    let plan_areas = plan.areas();
    let (guests, missing) = plan.set_up(&setup);
    for (name, why) in missing {
        // A kernel may be gone from the mirror: it is skipped. A run for kernels that has none
        // fails, because it proves nothing. So does one whose kernel cannot be built: the way it is
        // built must be mended.
        let fails = guests.is_empty() || why.is::<kernel::Broken>();
        let why = format!("{why:#}");
        let verdict = if fails { Verdict::Failed(why) } else { Verdict::Skipped(why) };
        report.add(&format!("{name}::setup"), verdict, None);
    }
    let mut machines = Vec::new();
    for (target, ready) in setup.machines(&targets) {
        match ready {
            Ok(machine) => {
                say!("{}: core {}, {}", target.name, machine.core, machine.runner);
                report.runners.insert(target.name.to_string(), machine.runner.to_string());
                match machine.unfit() {
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
    // Models take long to build, so they are built only if the filter names one.
    let with_models = with_host && filter.is_none_or(|part| part.contains("model") || part.contains("loom"));
    // In parallel: each uses only one processor for a while, when it links a program or compiles a
    // library of one unit.
    let (built, fixture, host) = thread::scope(|scope| {
        let host = scope.spawn(|| -> Result<_> {
            let units = if with_host { build::unit_tests()? } else { build::Units::default() };
            let models = if with_models { build::models()? } else { build::Units::default() };
            Ok((units, models))
        });
        let only_fixture = filter.is_some_and(|part| part.contains(fixture::NAME));
        let fixture = match (filter.is_none() || only_fixture) && !kernels_only {
            true => fixture::build(&setup, &machines),
            false => Ok(fixture::Fixture::default()),
        };
        let telling = plan_areas.filter(|_| kernels_only).map(|areas| programs_with(areas, true));
        let what = match only_fixture {
            true => Some(Vec::new()),
            false => filter.and_then(|filter| programs_of(filter, !kernels.is_empty())).or(telling),
        };
        let what = what.as_deref().map_or(build::What::Everything, build::What::Programs);
        let built = build::build(&setup, &machines, what);
        (built, fixture, host.join().expect("building does not panic"))
    });
    let (built, fixture, (units, models)) = (built?, fixture?, host?);
    let all_built = [&built, &fixture.built].into_iter().chain(&fixture.plain);
    for (name, error) in all_built.flat_map(|built| &built.failed) {
        report.add(&format!("{name}::build"), Verdict::Failed(error.clone()), None);
    }
    for line in [&units, &models].into_iter().filter_map(|units| units.failed.as_ref()) {
        report.add("host::build", Verdict::Failed(format!("cargo's messages above say why\n{line}")), None);
    }
    let build_time = build_started.elapsed().saturating_sub(built.core);

    let stress: Vec<_> = std::env::var_os(STRESS).into_iter().map(|seconds| (STRESS, seconds)).collect();
    let mut tests = Vec::new();
    if with_host {
        report.runners.insert("host".to_string(), "native".to_string());
        for (name, path) in &units.binaries {
            tests.extend(unit_tests(name, path, "", LIMIT_NATIVE).unwrap_or_else(|failed| vec![failed]));
        }
        for (_, path) in &models.binaries {
            tests.extend(unit_tests("models", path, "::loom_", LIMIT_MODEL).unwrap_or_else(|failed| vec![failed]));
        }
        tests.extend(programs::of_the_repository(&setup));
    }
    for machine in &machines {
        for program in built.programs.iter().filter(|p| p.machine == machine.target.name) {
            if let Err(error) = calls::check_program(&program.path, machine.target) {
                let name = format!("{}::{}::elf_facts", machine.target.name, program.name);
                report.add(&name, Verdict::Failed(format!("{error:#}")), None);
            } else if program.kind == Kind::Bin && program.name != INIT && !kernels_only {
                match confined::prepare(machine) {
                    Ok(prepare) => {
                        let prefix = build::prefix(&program.name);
                        tests.extend(tests_of(machine, prefix, &program.path, root(), &stress, &prepare));
                    }
                    Err(error) => {
                        let name = format!("{}::{}::syscalls", machine.target.name, program.name);
                        report.add(&name, Verdict::Failed(format!("{error:#}")), None);
                    }
                }
            }
        }
        if !kernels_only {
            tests.extend(programs::of_programs(&setup, machine, &built));
            tests.extend(fixture::tests(machine, &fixture));
        }
    }
    let guests = |report: &Mutex<Report>| run_guests(&setup.rust, &machines, &built, &guests, filter, report);
    let before = [("set-up", set_up), ("core", built.core), ("build", build_time)];
    Ok(report.run(tests, guests, &before, started))
}

/// The test programs with the areas that a filter names, as `futex::wait` does, also after a
/// machine's name. If it names any, no other program and no example is needed.
fn programs_of(filter: &str, with_init: bool) -> Option<Vec<String>> {
    let parts: Vec<_> = filter.split("::").collect();
    let (_, names) = parts.split_last()?;
    // The first part may begin inside a name, and may be a machine's. Modules may follow the area.
    let fits = |area: &&str| match names {
        ["", end, ..] => area.ends_with(end),
        [_, name, ..] if name == area => true,
        [end, ..] => area.ends_with(end),
        [] => false,
    };
    let (modules, own) = (build::modules_of_suite(), build::test_programs());
    // The guests' init has no tests: `init::` means those of the example.
    let all = modules.iter().chain(own.iter().filter(|name| ![SUITE, INIT].contains(&name.as_str())));
    let found: Vec<&str> = all.map(String::as_str).filter(fits).collect();
    (!found.is_empty()).then(|| programs_with(&found, with_init))
}

/// The test programs with these areas.
fn programs_with(areas: &[&str], with_init: bool) -> Vec<String> {
    let modules = build::modules_of_suite();
    let program =
        |area: &str| if modules.iter().any(|module| module == area) { SUITE.to_string() } else { area.to_string() };
    let programs = areas.iter().map(|area| program(area)).chain(with_init.then(|| INIT.to_string()));
    programs.collect::<BTreeSet<_>>().into_iter().collect()
}

// ---- the tests on real kernels ----

/// The number of guests that run at the same time. Each has up to two processors.
const GUESTS: usize = 2;

/// Boots all guests, two at a time, and runs the tests of their machines there.
fn run_guests(
    rust: &Rust,
    machines: &[Machine],
    built: &Built,
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
                    // The report says why a machine was not set up or built.
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

/// The tests for a guest to run, and the programs of its machine.
fn jobs(
    machine: &Machine,
    built: &Built,
    guest: &Guest,
    filter: Option<&str>,
    tell: &dyn Fn(&str, Verdict, Option<Spent>),
) -> (Vec<Job>, BTreeMap<String, PathBuf>) {
    let programs = built.programs.iter().filter(|p| p.machine == machine.target.name && p.kind == Kind::Bin);
    let programs: BTreeMap<_, _> = programs.map(|p| (p.name.clone(), p.path.clone())).collect();
    let mut jobs = Vec::new();
    let chosen = |area: &str| guest.areas.is_none_or(|chosen| chosen.contains(&area));
    let wanted = |name: &str| filter.is_none_or(|part| format!("{}::{name}", guest.name).contains(part));
    for (bin, path) in programs.iter().filter(|(name, _)| **name != INIT && (**name == SUITE || chosen(name))) {
        let full = |name: &str| build::full_name(bin, name);
        if let Err(error) = calls::check_program(path, machine.target) {
            tell(&full("elf_facts"), Verdict::Failed(format!("{error:#}")), None);
            continue;
        }
        match list(machine, path) {
            Ok(tests) => {
                let tests = tests.into_iter().map(|test| (full(&test.name), test));
                for (name, test) in tests.filter(|(name, _)| chosen(build::area_of(name)) && wanted(name)) {
                    match guest.row.stops.iter().find(|gap| name.contains(gap.test)) {
                        Some(gap) => tell(&name, Verdict::Skipped(gap.reason.to_string()), None),
                        None => {
                            let limit = test.limit.unwrap_or(LIMIT_QEMU);
                            jobs.push(Job { name, bin: bin.clone(), limit, test });
                        }
                    }
                }
            }
            Err(why) => tell(&full("list"), Verdict::Failed(why), None),
        }
    }
    (jobs, programs)
}

// ---- unit tests of the host ----

/// The tests with `part` in their names of a binary that `cargo test` built, each in a process of
/// its own, like all other tests.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise an exception would remain after its test is gone.
    #[test]
    fn every_exception_names_a_test_that_is_there() {
        let of_emulators = targets::TARGETS.iter().flat_map(|target| target.gaps).map(|gap| gap.test);
        let of_kernels = kernel::ROWS.iter().flat_map(|row| row.gaps.iter().chain(row.stops)).map(|gap| gap.test);
        let of_valgrind = valgrind::GAPS.iter().map(|(test, _)| *test);
        let free = confined::FREE.iter().copied();
        for name in of_emulators.chain(of_kernels).chain(of_valgrind).chain(free) {
            let (module, test) = name.rsplit_once("::").expect("an area and a test");
            let file = module.replace("::", "/");
            let file = |folder: &str| root().join(format!("tests/src/{folder}/{file}.rs"));
            let text = ["suite", "bin"].iter().find_map(|folder| std::fs::read_to_string(file(folder)).ok());
            assert!(text.is_some_and(|text| text.contains(&format!("fn {test}"))), "there is no test {name}");
        }
    }

    #[test]
    fn a_filter_that_names_an_area_needs_only_its_program() {
        let of = |filter, with_init| programs_of(filter, with_init).map(|names| names.join(" "));
        assert_eq!(of("futex::wait", false).as_deref(), Some("suite"));
        assert_eq!(of("utex::", true).as_deref(), Some("init suite"));
        assert_eq!(of("mips::sync::mutex", false).as_deref(), Some("suite"));
        assert_eq!(of("start::", false).as_deref(), Some("start"));
        assert_eq!(of("sync::mutex::", false).as_deref(), Some("suite"));
        assert_eq!(of("arm::sync::mutex::a_guard", false).as_deref(), Some("suite"));
        assert_eq!(of("s390x::tls_64::main", true).as_deref(), Some("init tls_64"));
        let init = ["init::", "x86_64::init::orphans_are_reaped"];
        let others = ["sync", "mips::", "examples::hello", "host::rt0::sync::mutex", "mips::examples::wc", ""];
        for filter in init.iter().chain(&others) {
            assert_eq!(of(filter, false), None, "{filter}");
        }
    }
}
