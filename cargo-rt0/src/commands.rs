//! What `cargo rt0` does with a crate: run, build, test, bench.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::build::{Built, Kind};
use crate::project::{Project, Selection};
use crate::protocol::{as_it_is, tests_of};
use crate::report::{Report, Test, Verdict};
use crate::setup::{Machine, Setup, Toolchain};
use crate::targets::{self, Target};
use crate::{Options, elf, process, say, tell};

/// Which machines.
#[derive(clap::Args, Clone, Default)]
pub struct Machines {
    /// A machine: short name, triple or `native`; may be given several times [default: native]
    #[arg(long, value_name = "MACHINE")]
    pub target: Vec<String>,
    /// All machines of the table, natively or under qemu
    #[arg(long, conflicts_with = "target")]
    pub all: bool,
}

/// Everything that a command works on.
pub struct Session {
    project: Project,
    setup: Setup,
    targets: Vec<&'static Target>,
}

impl Session {
    /// Finds the crate from the folder `here`, and the machines. Things are unpacked in `cache`.
    pub fn new(
        options: Options,
        selection: &Selection,
        machines: &Machines,
        here: &Path,
        cache: &Path,
    ) -> Result<Session> {
        let project = Project::find(selection, here)?;
        let setup = Setup::new(options, Toolchain::chosen(&project.folder), cache)?;
        let native = ["native".to_string()];
        let targets = match (machines.all, machines.target.as_slice()) {
            (true, _) => targets::machines(),
            (false, []) => targets::select(&native, &setup.rust.host)?,
            (false, words) => targets::select(words, &setup.rust.host)?,
        };
        if project.unwinds {
            say!(
                "the profile has `panic = \"unwind\"`, and nothing unwinds on rt0: built with \
                 \"abort\"; write that into Cargo.toml, so that plain cargo does the same"
            );
        }
        Ok(Session { project, setup, targets })
    }

    /// The machines that are ready. `failed` says why the others are not.
    fn ready(&self, mut failed: impl FnMut(&'static Target, String)) -> Vec<Machine> {
        let mut machines = Vec::new();
        for (target, ready) in self.setup.machines(&self.targets) {
            match ready {
                Ok(machine) => match machine.unfit() {
                    Some(why) => failed(target, format!("{} cannot run its programs: {why}", machine.runner)),
                    None => machines.push(machine),
                },
                Err(error) => failed(target, format!("{error:#}")),
            }
        }
        machines
    }

    /// Builds programs for all machines, checks the programs, and calls `each` with them. The
    /// status says whether nothing failed.
    fn for_each(
        &self,
        programs: &[(Kind, String)],
        each: &mut dyn FnMut(&Machine, &Path) -> Result<()>,
    ) -> Result<ExitCode> {
        let mut failed: Vec<(&str, String)> = Vec::new();
        let machines = self.ready(|target, why| failed.push((target.name, why)));
        let built = self.project.build(&self.setup, &machines, programs)?;
        failed.extend(built.failed.iter().map(|(name, why)| (*name, why.clone())));
        for machine in &machines {
            for (kind, name) in programs {
                let Some(path) = built.find(machine, *kind, name) else { continue };
                if let Err(error) = elf::check(path, machine.target).and_then(|()| each(machine, path)) {
                    failed.push((machine.target.name, format!("{error:#}")));
                }
            }
        }
        failed.iter().for_each(|(name, why)| say!("error: {name}: {why}"));
        if self.targets.len() > 1 {
            let passed = self.targets.iter().filter(|target| failed.iter().all(|(name, _)| *name != target.name));
            say!("{} of {} machines: all went well", passed.count(), self.targets.len());
        }
        Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// `cargo rt0 run`: on one machine the program takes the place of this process, so that
    /// streams, signals and the exit status are its own. On several, one after the other, each with
    /// a limit.
    pub fn run(
        &self,
        bin: Option<&str>,
        example: Option<&str>,
        args: &[OsString],
        limit: Option<Duration>,
    ) -> Result<ExitCode> {
        let program = self.project.program(bin, example)?;
        self.run_programs(&[program], args, limit)
    }

    /// `cargo rt0 bench`: runs the benchmarks, which print what they measured.
    pub fn bench(&self, bench: Option<&str>, args: &[OsString], limit: Option<Duration>) -> Result<ExitCode> {
        let names = self.project.names(Kind::Bench);
        let wanted: Vec<_> = names.iter().filter(|name| bench.is_none_or(|bench| bench == **name)).collect();
        if wanted.is_empty() {
            bail!(
                "the package `{}` has no benchmark{} for rt0: write a program in benches/NAME.rs that prints what \
                 it measures, and `[[bench]]`, `name = \"NAME\"`, `harness = false` in Cargo.toml",
                self.project.name,
                bench.map_or(String::new(), |name| format!(" `{name}`"))
            );
        }
        let programs: Vec<_> = wanted.into_iter().map(|name| (Kind::Bench, name.to_string())).collect();
        self.run_programs(&programs, args, limit)
    }

    fn run_programs(
        &self,
        programs: &[(Kind, String)],
        args: &[OsString],
        limit: Option<Duration>,
    ) -> Result<ExitCode> {
        let alone = self.targets.len() == 1 && programs.len() == 1 && limit.is_none();
        if !alone {
            process::prepare();
        }
        self.for_each(programs, &mut |machine, path| {
            let mut command = machine.command(path);
            command.args(args);
            if alone {
                return Err(command.exec()).with_context(|| format!("cannot start {}", path.display()));
            }
            say!("{}, {}: {}", machine.target.name, machine.runner, path.display());
            let limit = limit.unwrap_or(LIMIT);
            let outcome = process::run_shown(&mut command, limit)?;
            if outcome.timed_out {
                bail!(
                    "no end after {} s, so it was killed: `--limit SECONDS` gives it longer; on one \
                     machine and without that option it may run for ever",
                    limit.as_secs()
                );
            }
            if !outcome.status.success() {
                bail!("{}", outcome.status);
            }
            Ok(())
        })
    }

    /// `cargo rt0 build`: prints the paths of what was built.
    pub fn build_programs(&self, bin: Option<&str>, example: Option<&str>) -> Result<ExitCode> {
        let programs = match (bin, example) {
            (None, None) if self.project.names(Kind::Bin).len() > 1 => {
                self.project.programs.iter().filter(|p| p.0 == Kind::Bin).cloned().collect()
            }
            _ => vec![self.project.program(bin, example)?],
        };
        self.for_each(&programs, &mut |_, path| {
            tell!("{}", path.display());
            Ok(())
        })
    }

    /// `cargo rt0 test`: every test in a process of its own, on every machine, and one report.
    pub fn test(mut self, filter: Option<&str>) -> Result<ExitCode> {
        process::prepare();
        let started = Instant::now();
        // A filter that begins with a machine's name asks for that machine.
        let first = filter.and_then(|f| f.split_once("::")).map(|(first, _)| first);
        if let Some(target) = targets::TARGETS.iter().find(|t| Some(t.name) == first) {
            self.targets = vec![target];
        }
        let programs: Vec<_> = self.project.programs.iter().filter(|p| p.0 == Kind::Test).cloned().collect();
        let mut report = Report::new("cargo rt0 test", filter);
        for (_, name) in self.project.harnessed.iter().filter(|p| p.0 == Kind::Test) {
            let why = "it has Rust's own harness, which needs std: `cargo test` runs it; for a test on rt0 \
                       write `harness = false` into its section [[test]] of Cargo.toml";
            report.add(&format!("host::{name}"), Verdict::Skipped(why.to_string()), None);
        }
        if programs.is_empty() {
            bail!(
                "the package `{}` has no test program for rt0: write tests/NAME.rs with `rt0::tests!` in it, and \
                 `[[test]]`, `name = \"NAME\"`, `harness = false` in Cargo.toml",
                self.project.name
            );
        }
        let machines = self.ready(|target, why| {
            report.add(&format!("{}::setup", target.name), Verdict::Failed(why), None);
        });
        for machine in &machines {
            report.runners.insert(machine.target.name.to_string(), machine.runner.to_string());
        }
        let set_up = started.elapsed();
        let build_started = Instant::now();
        let built = self.project.build(&self.setup, &machines, &programs)?;
        for (name, why) in &built.failed {
            report.add(&format!("{name}::build"), Verdict::Failed(why.clone()), None);
        }
        let build_time = build_started.elapsed().saturating_sub(built.core);
        let tests = self.tests(&machines, &built, &programs);
        let before = [("set-up", set_up), ("core", built.core), ("build", build_time)];
        Ok(report.run(tests, |_| (), &before, started))
    }

    /// The tests of the programs that were built.
    fn tests<'a>(&'a self, machines: &'a [Machine], built: &'a Built, programs: &[(Kind, String)]) -> Vec<Test<'a>> {
        let mut tests = Vec::new();
        for machine in machines {
            for (kind, name) in programs {
                let Some(path) = built.find(machine, *kind, name) else { continue };
                match elf::check(path, machine.target) {
                    Ok(()) => tests.extend(tests_of(machine, name, path, &self.project.folder, &[], &as_it_is())),
                    Err(error) => {
                        let why = format!("{error:#}");
                        let failed = move || Verdict::Failed(why.clone());
                        tests.push(Test::new(machine.target.name, format!("{name}::elf_facts"), failed));
                    }
                }
            }
        }
        tests
    }
}

/// How long a program may run where several are run one after the other.
const LIMIT: Duration = Duration::from_secs(60);

/// The folder for what is shared by all crates, such as emulators: `RT0_CACHE`, or `rt0` in the
/// user's folder for caches.
pub fn cache() -> Result<PathBuf> {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let users = || named("XDG_CACHE_HOME").or_else(|| Some(named("HOME")?.join(".cache")));
    named("RT0_CACHE")
        .or_else(|| Some(users()?.join("rt0")))
        .context("neither RT0_CACHE, XDG_CACHE_HOME nor HOME is set: where are emulators to be unpacked?")
}
