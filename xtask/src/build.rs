//! Builds programs for many machines in few cargo calls.
//!
//! Machines whose `core` comes from the same place are built by one call with several `--target`s, so that cargo shares
//! the processors among them. All calls use target/boot and fixed flags: then `core` is compiled once per machine and
//! again only when the toolchain changes. The flags are given per target and not in RUSTFLAGS: build scripts are
//! programs of the host and must not get the linker script.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::kernel::INIT;
use crate::setup::{Core, Machine, Setup, pinned};
use crate::targets::{Profile, Target};
use crate::{process, root, say};

/// What to build.
#[derive(Clone, Copy)]
pub enum What<'a> {
    /// One file of examples/.
    Example(&'a str),
    /// All test programs and all examples.
    Everything,
    /// These test programs and no example.
    Programs(&'a [String]),
}

/// A program that cargo made.
#[derive(Debug)]
pub struct Program {
    /// The machine's short name.
    pub machine: &'static str,
    /// The file name of its source, without `.rs`.
    pub name: String,
    /// Whether it is an example; else it is a test program.
    pub example: bool,
    /// The binary.
    pub path: PathBuf,
}

/// What came out.
#[derive(Default)]
pub struct Built {
    /// Everything that was built or was still good.
    pub programs: Vec<Program>,
    /// The command that failed, per machine that lacks a program because of that.
    pub failed: BTreeMap<&'static str, String>,
    /// The time until the last `core` was there.
    pub core: Duration,
}

impl Built {
    /// The binary of an example for a machine.
    pub fn program(&self, machine: &Machine, example: &str) -> Option<&Path> {
        let mut programs = self.programs.iter();
        let found = programs.find(|p| p.machine == machine.target.name && p.example && p.name == example);
        found.map(|p| p.path.as_path())
    }
}

/// Builds for all machines. A failure is in the result: what could be built for the others is of use.
pub fn build(setup: &Setup, machines: &[Machine], what: What) -> Result<Built> {
    let linker = setup.linker()?;
    let mut calls: BTreeMap<(&Core, Profile), Vec<&Machine>> = BTreeMap::new();
    for machine in machines {
        calls.entry((&machine.core, machine.target.profile)).or_default().push(machine);
    }
    let mut built = Built::default();
    for ((core, profile), machines) in calls {
        let command = cargo(&linker, core, profile, &machines, what);
        let names: Vec<_> = machines.iter().map(|m| m.target.name).collect();
        let origin = if *core == Core::Prebuilt { "core prebuilt".to_string() } else { format!("core {core}") };
        say!("building for {} ({origin})", names.join(", "));
        let alone = |machine| process::shell_line(&cargo(&linker, core, profile, &[machine], what));
        call(command, &machines, what, &alone, &mut built)?;
    }
    Ok(built)
}

/// The cargo command for machines that share the place of `core` and the profile.
fn cargo(linker: &Path, core: &Core, profile: Profile, machines: &[&Machine], what: What) -> Command {
    let mut command = pinned("cargo");
    command.args(["build", "--message-format=json-render-diagnostics"]);
    match what {
        What::Example(name) => command.args(["--package", "rt0", "--example", name]),
        What::Everything => {
            command.args(["--keep-going", "--package", "rt0", "--package", "rt0-tests", "--bins", "--examples"])
        }
        What::Programs(names) => {
            let names = names.iter().flat_map(|name| ["--bin", name]);
            command.args(["--keep-going", "--package", "rt0-tests"]).args(names)
        }
    };
    let targets: Vec<_> = machines.iter().map(|machine| machine.target).collect();
    flags(&mut command, linker, core, profile, &targets);
    command
}

/// The lints of the library for machines that share the place of `core`: with the flags and in the folder of every
/// build, so that what is compiled for the one is there for the other.
pub fn lints(setup: &Setup, core: &Core, targets: &[&Target]) -> Result<Command> {
    let mut command = pinned("cargo");
    command.args(["clippy", "--package", "rt0", "--lib"]);
    flags(&mut command, &setup.linker()?, core, Profile::Release, targets);
    Ok(command)
}

/// What all calls have in common.
fn flags(command: &mut Command, linker: &Path, core: &Core, profile: Profile, targets: &[&Target]) {
    command.args(["--target-dir", "target/boot"]);
    if profile == Profile::Release {
        command.arg("--release");
    }
    if *core == Core::Prebuilt {
        command.env("RUSTC_BOOTSTRAP", unstable_programs());
    } else {
        // MIPS and SPARC also need the variable for `feature(asm_experimental_arch)`; no row of theirs has `prebuilt`.
        command.arg("-Zbuild-std=core,alloc,compiler_builtins").env("RUSTC_BOOTSTRAP", "1");
    }
    if let Core::Debian(rustc) = core {
        command.env("RUSTC", rustc);
    }
    // Rows of one triple differ only in how they run; a flag given twice would reach the linker twice.
    let mut triples = BTreeSet::new();
    for target in targets {
        let triple = target.triple;
        if !triples.insert(triple) {
            continue;
        }
        command.args(["--target", triple]);
        let mut flags = vec![format!("-Clinker={}", linker.display())];
        flags
            .extend(["-Clinker-flavor=ld.lld", "-Crelocation-model=static", "-Clink-arg=-Trt0.ld"].map(str::to_string));
        // The profiler's stacks are chains of frame pointers.
        flags.push("-Cforce-frame-pointers=yes".to_string());
        flags.extend(target.rustflags.iter().map(|f| f.to_string()));
        // Debug formatting of a list of strings is a TOML array. As an array, a flag may hold spaces.
        command.args(["--config", &format!("target.{triple}.rustflags={flags:?}")]);
    }
}

/// The test programs that use a feature of the nightly compiler, as RUSTC_BOOTSTRAP wants them. Named one by one: the
/// library and all else must do without, where its machine allows that.
pub fn unstable_programs() -> String {
    let folder = root().join("tests/src/bin");
    let unstable = |name: &String| {
        let text = std::fs::read_to_string(folder.join(format!("{name}.rs")));
        text.is_ok_and(|text| text.contains("#![feature("))
    };
    // An empty value would be read as "all".
    std::iter::once("none".to_string())
        .chain(sources(&folder).into_iter().filter(unstable))
        .collect::<Vec<_>>()
        .join(",")
}

/// Runs cargo, which writes its progress to our stderr, and notes what it made. `alone` is the command for one machine.
fn call<'a>(
    mut command: Command,
    machines: &[&'a Machine],
    what: What,
    alone: &dyn Fn(&'a Machine) -> String,
    built: &mut Built,
) -> Result<()> {
    let started = Instant::now();
    let mut core_ready = Duration::ZERO;
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot start cargo")?;
    let messages = BufReader::new(child.stdout.take().context("cargo's stdout is piped")?);
    for line in messages.lines() {
        let Ok(message) = serde_json::from_str::<Value>(&line?) else {
            continue;
        };
        if message["reason"] != "compiler-artifact" {
            continue;
        }
        let name = message["target"]["name"].as_str().unwrap_or_default();
        for machine in machines.iter().filter(|m| is_of(&message, m.target.triple)) {
            if name == "compiler_builtins" && message["fresh"] == false {
                core_ready = started.elapsed();
                say!("core for {}: {}, {:.0} s", machine.target.name, machine.core, core_ready.as_secs_f64());
            }
            if let Some(path) = message["executable"].as_str() {
                built.programs.push(Program {
                    machine: machine.target.name,
                    name: name.to_string(),
                    example: message["target"]["kind"][0] == "example",
                    path: PathBuf::from(path),
                });
            }
        }
    }
    let status = child.wait()?;
    built.core += core_ready;
    if !status.success() {
        for machine in machines {
            let missing = missing(&built.programs, machine.target.name, what);
            if !missing.is_empty() {
                let mut hint = String::new();
                if machine.core != Core::Prebuilt && !built.programs.iter().any(|p| p.machine == machine.target.name) {
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

/// Whether the artifact of this message lies in the target's folder.
fn is_of(message: &Value, triple: &str) -> bool {
    let file = message["filenames"][0].as_str().unwrap_or_default();
    file.contains(&format!("/target/boot/{triple}/"))
}

/// The programs that should be there and are not.
fn missing(programs: &[Program], machine: &str, what: What) -> Vec<String> {
    let there = |name: &String, example: bool| {
        programs.iter().any(|p| p.machine == machine && p.example == example && p.name == *name)
    };
    let examples = match what {
        What::Example(name) => vec![name.to_string()],
        What::Everything => sources(&root().join("examples")),
        What::Programs(_) => Vec::new(),
    };
    let tests = match what {
        What::Example(_) => Vec::new(),
        What::Everything => test_programs(),
        What::Programs(names) => names.to_vec(),
    };
    let examples = examples.into_iter().filter(|name| !there(name, true));
    examples.chain(tests.into_iter().filter(|name| !there(name, false))).collect()
}

/// The names of all test programs, and of the one that starts them in a guest.
pub fn test_programs() -> Vec<String> {
    let mut names = sources(&root().join("tests/src/bin"));
    names.push(INIT.to_string());
    names
}

/// The names of the programs whose source is a file of this folder, in order.
pub fn sources(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let rust = files.filter(|path| path.extension().is_some_and(|e| e == "rs"));
    let mut names: Vec<_> = rust.filter_map(|path| Some(path.file_stem()?.to_str()?.to_string())).collect();
    names.sort();
    names
}

/// Unit tests of the host.
#[derive(Default)]
pub struct Units {
    /// Each test binary with its crate's name.
    pub binaries: Vec<(String, PathBuf)>,
    /// The command, if it failed.
    pub failed: Option<String>,
}

/// Builds the unit tests of rt0 and of this tool.
pub fn unit_tests() -> Result<Units> {
    let mut command = pinned("cargo");
    command.args(["test", "--package", "rt0", "--package", "xtask", "--lib", "--bins"]);
    // This time the user's own flags are welcome: it is an ordinary program of the host.
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        if let Some(flags) = std::env::var_os(name) {
            command.env(name, flags);
        }
    }
    say!("building the unit tests for the host");
    host_tests(command)
}

/// Builds the models of the locks: unit tests over a fake kernel, with loom. In a folder of their own, for the flag would
/// make everything else be built again.
pub fn models() -> Result<Units> {
    let mut command = pinned("cargo");
    command.args(["test", "--package", "rt0", "--lib", "--release", "--target-dir", "target/models"]);
    command.env("RUSTFLAGS", "--cfg loom");
    say!("building the models for the host");
    host_tests(command)
}

/// Runs a `cargo test` as far as its binaries.
fn host_tests(mut command: Command) -> Result<Units> {
    command.args(["--no-run", "--message-format=json-render-diagnostics"]);
    command.stdin(Stdio::null()).stderr(Stdio::inherit());
    let line = process::shell_line(&command);
    let output = command.process_group(0).output().context("cannot start cargo")?;
    let mut binaries = Vec::new();
    for message in String::from_utf8_lossy(&output.stdout).lines() {
        let Ok(message) = serde_json::from_str::<Value>(message) else {
            continue;
        };
        if let (Some(path), Some(name)) = (message["executable"].as_str(), message["target"]["name"].as_str())
            && message["profile"]["test"] == true
        {
            binaries.push((name.to_string(), PathBuf::from(path)));
        }
    }
    Ok(Units { binaries, failed: (!output.status.success()).then_some(line) })
}
