//! Builds programs for many machines in few cargo calls.
//!
//! Machines whose `core` comes from the same place are built by one call with several `--target`s,
//! so that cargo shares the processors among them. All calls use one folder and fixed flags: then
//! `core` is compiled once per machine and again only when the toolchain changes. The flags are
//! given per target and not in RUSTFLAGS: build scripts are programs of the host and must not get
//! the linker script.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use cargo_metadata::{Artifact, Message, TargetKind};

use crate::process::{self, Running};
use crate::say;
use crate::setup::{Core, Machine, Setup};
use crate::targets::{Profile, Target};

/// What to build.
pub struct Request<'a> {
    /// The words of the cargo command, from `build` on: which packages and which of their programs.
    pub words: Vec<String>,
    /// The programs that must be built.
    pub expected: Vec<(Kind, String)>,
    /// The folder that cargo writes to.
    pub target_dir: &'a Path,
    /// The profile. If `None`, each machine has its own.
    pub profile: Option<Profile>,
    /// The crates that may use unstable features, as a value of `RUSTC_BOOTSTRAP`, for machines
    /// with rustup's `core`.
    pub unstable: Option<String>,
    /// Whether `panic = "abort"` is set by this tool. Then it also holds if the profile says
    /// otherwise, and in tests and benchmarks, for which cargo ignores the profile.
    pub abort: bool,
    /// Whether the flags name the linker and its script, and that code is for one address; else the
    /// programs' build script does what it can of that, as with plain cargo.
    pub configured: bool,
    /// Whether rt0.ld is the linker script of all programs; else a build script can replace it by
    /// the one for small programs.
    pub fixed_script: bool,
    /// Whether functions keep a frame pointer: the profiler follows the chain of these.
    pub frame_pointers: bool,
    /// The advice for a message of the compiler, which is printed once, before the first such
    /// message.
    pub advice: fn(&str) -> Option<&'static str>,
}

/// How cargo calls a program of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Of src/main.rs, src/bin/ or `[[bin]]`.
    Bin,
    /// Of examples/.
    Example,
    /// Of tests/.
    Test,
    /// Of benches/.
    Bench,
}

/// A program that cargo made.
#[derive(Debug)]
pub struct Program {
    /// The machine's short name.
    pub machine: &'static str,
    /// Its name: that of its source's file without `.rs`, unless the manifest says otherwise.
    pub name: String,
    /// How cargo calls it.
    pub kind: Kind,
    /// The binary.
    pub path: PathBuf,
}

/// The result of a build.
#[derive(Default)]
pub struct Built {
    /// All programs that were built or were up to date.
    pub programs: Vec<Program>,
    /// For each machine that lacks a program, the command that failed.
    pub failed: BTreeMap<&'static str, String>,
    /// The time until the last `core` was built.
    pub core: Duration,
}

impl Built {
    /// The binary of one program for a machine.
    pub fn find(&self, machine: &Machine, kind: Kind, name: &str) -> Option<&Path> {
        let mut programs = self.programs.iter();
        let found = programs.find(|p| p.machine == machine.target.name && p.kind == kind && p.name == name);
        found.map(|p| p.path.as_path())
    }

    /// The binary of an example for a machine.
    pub fn program(&self, machine: &Machine, example: &str) -> Option<&Path> {
        self.find(machine, Kind::Example, example)
    }
}

impl Kind {
    /// Cargo's option that names one.
    pub fn option(self) -> &'static str {
        match self {
            Kind::Bin => "--bin",
            Kind::Example => "--example",
            Kind::Test => "--test",
            Kind::Bench => "--bench",
        }
    }

    /// What this target of a package is, if it is a program.
    pub fn of(target: &cargo_metadata::Target) -> Option<Kind> {
        target.kind.iter().find_map(|kind| match kind {
            TargetKind::Bin => Some(Kind::Bin),
            TargetKind::Example => Some(Kind::Example),
            TargetKind::Test => Some(Kind::Test),
            TargetKind::Bench => Some(Kind::Bench),
            _ => None,
        })
    }
}

/// A value of `RUSTC_BOOTSTRAP` that allows no crate to use unstable features; an empty value would
/// allow all.
pub const NO_CRATE: &str = "none";

/// Builds for all machines. A failure is part of the result, because the other machines' programs
/// are still useful.
pub fn build<'a>(setup: &Setup, machines: impl IntoIterator<Item = &'a Machine>, request: &Request) -> Result<Built> {
    let linking = Linking { linker: setup.linker()?, empty_libraries: setup.empty_libraries()? };
    let mut calls: BTreeMap<(&Core, Profile), Vec<&Machine>> = BTreeMap::new();
    for machine in machines {
        let profile = request.profile.unwrap_or(machine.target.profile);
        calls.entry((&machine.core, profile)).or_default().push(machine);
    }
    let mut built = Built::default();
    for ((core, profile), machines) in calls {
        let command = |machines: &[&Machine]| {
            let mut command = setup.pinned("cargo");
            command.args(&request.words);
            let targets: Vec<_> = machines.iter().map(|machine| machine.target).collect();
            flags(&mut command, &linking, core, profile, &targets, request);
            command
        };
        let names: Vec<_> = machines.iter().map(|m| m.target.name).collect();
        let origin = if *core == Core::Prebuilt { "core prebuilt".to_string() } else { format!("core {core}") };
        say!("building for {} ({origin})", names.join(", "));
        let alone = |machine| process::shell_line(&command(&[machine]));
        call(command(&machines), &machines, request, &alone, &mut built)?;
    }
    Ok(built)
}

/// The linker, and what programs are linked with.
pub struct Linking {
    /// The toolchain's LLD.
    pub linker: PathBuf,
    /// See [`Setup::empty_libraries`].
    pub empty_libraries: PathBuf,
}

/// What all calls have in common.
pub fn flags(
    command: &mut Command,
    linking: &Linking,
    core: &Core,
    profile: Profile,
    targets: &[&Target],
    request: &Request,
) {
    command.arg("--target-dir").arg(request.target_dir);
    if profile == Profile::Release {
        command.arg("--release");
    }
    if request.abort {
        let name = if profile == Profile::Release { "release" } else { "dev" };
        command.args(["--config", &format!("profile.{name}.panic=\"abort\"")]);
        command.arg("-Zpanic-abort-tests").env("RUSTC_BOOTSTRAP", "1");
    }
    if *core == Core::Prebuilt {
        let crates = request.unstable.as_deref().unwrap_or(NO_CRATE);
        if request.abort {
            // Cargo may use unstable options, the compiler that it starts may not.
            command.args(["--config", &format!("env.RUSTC_BOOTSTRAP.value={crates:?}")]);
            command.args(["--config", "env.RUSTC_BOOTSTRAP.force=true"]);
        } else {
            command.env("RUSTC_BOOTSTRAP", crates);
        }
    } else {
        // MIPS and SPARC also need the variable for `feature(asm_experimental_arch)`; no row of
        // theirs has `prebuilt`.
        command.arg("-Zbuild-std=core,alloc,compiler_builtins").env("RUSTC_BOOTSTRAP", "1");
    }
    if let Core::Debian(rustc) = core {
        command.env("RUSTC", rustc);
    }
    // Rows of one triple differ only in how they run; a flag given twice would reach the linker
    // twice.
    let mut triples = BTreeSet::new();
    for target in targets {
        let triple = target.triple;
        if !triples.insert(triple) {
            continue;
        }
        command.args(["--target", triple]);
        let mut flags = Vec::new();
        if request.configured {
            flags.push(format!("-Clinker={}", linking.linker.display()));
            flags.push(format!("-Clink-arg=-L{}", linking.empty_libraries.display()));
            flags.extend(["-Clinker-flavor=ld.lld", "-Crelocation-model=static"].map(str::to_string));
            let script = if request.fixed_script { "-Trt0.ld" } else { "--default-script=rt0.ld" };
            flags.push(format!("-Clink-arg={script}"));
        }
        if request.frame_pointers {
            flags.push("-Cforce-frame-pointers=yes".to_string());
        }
        flags.extend(target.rustflags.iter().map(|f| f.to_string()));
        // As an array, a flag may hold spaces.
        let flags = toml::Value::from(flags);
        command.args(["--config", &format!("target.{triple}.rustflags={flags}")]);
    }
}

/// Runs cargo, which writes its progress to this process's stderr, and collects what it built.
/// `alone` is the command for one machine.
fn call<'a>(
    mut command: Command,
    machines: &[&'a Machine],
    request: &Request,
    alone: &dyn Fn(&'a Machine) -> String,
    built: &mut Built,
) -> Result<()> {
    let started = Instant::now();
    let mut core_ready = Duration::ZERO;
    let mut said = BTreeSet::new();
    let mut begun = false;
    let colours = std::io::stderr().is_terminal();
    command.arg(if colours { "--message-format=json-diagnostic-rendered-ansi" } else { "--message-format=json" });
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = Running::member(&mut command).context("cannot start cargo")?;
    let messages = BufReader::new(child.stdout.take().context("cargo's stdout is piped")?);
    for message in Message::parse_stream(messages) {
        begun |= matches!(message, Ok(Message::CompilerMessage(_) | Message::CompilerArtifact(_)));
        match message? {
            Message::CompilerMessage(message) => {
                let rendered = message.message.rendered.unwrap_or_default();
                // The linker's message is in a note.
                let children = message.message.children.iter().map(|child| child.message.as_str());
                let all: Vec<_> = std::iter::once(message.message.message.as_str()).chain(children).collect();
                let advice = (request.advice)(&all.join("\n"));
                if let Some(advice) = advice.filter(|advice| said.insert(*advice)) {
                    say!("{}: {advice}", message.target.name);
                }
                // A failure does not matter, as for `say!`.
                let _ = std::io::stderr().write_all(rendered.as_bytes());
            }
            Message::CompilerArtifact(artifact) => {
                for machine in machines.iter().filter(|m| is_of(&artifact, m.target.triple, request.target_dir)) {
                    if artifact.target.name == "compiler_builtins" && !artifact.fresh {
                        core_ready = started.elapsed();
                        say!("core for {}: {}, {:.0} s", machine.target.name, machine.core, core_ready.as_secs_f64());
                    }
                    if let (Some(path), Some(kind)) = (&artifact.executable, Kind::of(&artifact.target)) {
                        let (machine, name) = (machine.target.name, artifact.target.name.clone());
                        built.programs.push(Program { machine, name, kind, path: path.into() });
                    }
                }
            }
            _ => {}
        }
    }
    let status = child.wait()?;
    built.core += core_ready;
    if !status.success() {
        for machine in machines {
            let missing = request.expected.iter().filter(|(kind, name)| built.find(machine, *kind, name).is_none());
            let missing: Vec<_> = missing.map(|(_, name)| name.as_str()).collect();
            if !missing.is_empty() {
                let mut hint = String::new();
                if !begun {
                    hint.push_str(
                        "; if the registry cannot be reached: `cargo fetch`, once and with a network, mends it",
                    );
                } else if machine.core != Core::Prebuilt
                    && !built.programs.iter().any(|p| p.machine == machine.target.name)
                {
                    hint.push_str("; if the registry cannot be reached: the source of core needs crates from there");
                }
                let why = format!("cargo's messages above say why{hint}");
                let line = alone(machine);
                built.failed.insert(machine.target.name, format!("not built: {}; {why}\n{line}", missing.join(", ")));
            }
        }
    }
    Ok(())
}

/// Whether this artifact lies in the target's folder.
fn is_of(artifact: &Artifact, triple: &str, target_dir: &Path) -> bool {
    artifact.filenames.first().is_some_and(|file| file.starts_with(target_dir.join(triple)))
}
