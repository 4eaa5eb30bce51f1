//! Builds this repository: the examples and test programs for each machine, the unit tests for the
//! host.

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use cargo_metadata::Message;
use cargo_rt0::build::{self, Built, Kind, Request};
use cargo_rt0::setup::{Core, Machine, Setup};
use cargo_rt0::targets::{self, Profile, Target};
use cargo_rt0::{process, say};

use crate::calls;
use crate::repository::{pinned, root};

/// What to build.
#[derive(Clone, Copy)]
pub enum What<'a> {
    /// One file of examples/.
    Example(&'a str),
    /// All test programs and all examples.
    Everything,
    /// These test programs and no example.
    Programs(&'a [String]),
    /// The loops whose instructions are counted.
    Counted,
}

/// The target folder of all programs for machines.
fn target_dir() -> PathBuf {
    root().join("target/boot")
}

/// The target folder of the counted loops. They are compiled as a user's programs are, without
/// frame pointers, and other flags would cause a rebuild.
fn counted_dir() -> PathBuf {
    root().join("target/counted")
}

/// Builds for all machines. A failure is part of the result, because the other machines' programs
/// are still useful.
pub fn build(setup: &Setup, machines: &[Machine], what: What) -> Result<Built> {
    if matches!(what, What::Programs([])) {
        return Ok(Built::default());
    }
    let words: Vec<&str> = match what {
        What::Example(name) => vec!["build", "--package", "rt0", "--example", name],
        What::Everything => {
            "build --keep-going --package rt0 --package rt0-tests --bins --examples".split(' ').collect()
        }
        What::Programs(names) => {
            let names = names.iter().flat_map(|name| ["--bin", name]);
            ["build", "--keep-going", "--package", "rt0-tests"].into_iter().chain(names).collect()
        }
        What::Counted => vec!["build", "--package", "rt0-counted"],
    };
    let examples = match what {
        What::Example(name) => vec![name.to_string()],
        What::Everything => sources(&root().join("examples")),
        What::Programs(_) | What::Counted => Vec::new(),
    };
    let tests = match what {
        What::Example(_) => Vec::new(),
        What::Everything => test_programs(),
        What::Programs(names) => names.to_vec(),
        What::Counted => vec!["counted".to_string()],
    };
    let expected = examples.into_iter().map(|name| (Kind::Example, name));
    let expected = expected.chain(tests.into_iter().map(|name| (Kind::Bin, name))).collect();
    let counted = matches!(what, What::Counted);
    let target_dir = if counted { counted_dir() } else { target_dir() };
    let words = words.into_iter().map(str::to_string).collect();
    let request = Request { frame_pointers: !counted, ..request(words, expected, &target_dir) };
    build::build(setup, machines, &request)
}

fn request(words: Vec<String>, expected: Vec<(Kind, String)>, target_dir: &Path) -> Request<'_> {
    Request {
        words,
        expected,
        target_dir,
        profile: None,
        unstable: Some(unstable_programs()),
        abort: false,
        configured: true,
        fixed_script: true,
        frame_pointers: true,
        advice: cargo_rt0::advice::of,
    }
}

/// Builds one example for one machine and checks its ELF facts.
pub fn example(setup: &Setup, example: &str, target: &str) -> Result<(Machine, PathBuf)> {
    let examples = sources(&root().join("examples"));
    if !examples.iter().any(|name| name == example) {
        bail!("no example is called `{example}`; these are: {}", examples.join(", "));
    }
    let targets = targets::select(&[target.to_string()], &setup.rust.host)?;
    let [target] = targets[..] else { bail!("`{target}` names several machines; one is needed here") };
    let machine = setup.machines(&[target]).pop().context("one machine in, one out")?.1?;
    let built = build(setup, std::slice::from_ref(&machine), What::Example(example))?;
    let program = built.program(&machine, example).context("the build failed; cargo's messages above say why")?;
    calls::check_program(program, target)?;
    Ok((machine, program.to_path_buf()))
}

/// Lints the library for machines with the same kind of `core`. It uses the flags and the folder of
/// the builds, so that each reuses the other's compiled crates.
pub fn lints(setup: &Setup, core: &Core, targets: &[&Target]) -> Result<Command> {
    let mut command = setup.pinned("cargo");
    command.args(["clippy", "--package", "rt0", "--lib"]);
    let target_dir = target_dir();
    let request = request(Vec::new(), Vec::new(), &target_dir);
    let linking = build::Linking { linker: setup.linker()?, empty_libraries: setup.empty_libraries()? };
    build::flags(&mut command, &linking, core, Profile::Release, targets, &request);
    Ok(command)
}

/// The test programs that use an unstable feature, as a value of RUSTC_BOOTSTRAP. They are listed
/// because the library and all other programs must not use unstable features, where the machine
/// allows that.
pub fn unstable_programs() -> String {
    let folder = root().join("tests/src/bin");
    let unstable = |name: &String| {
        let text = std::fs::read_to_string(folder.join(format!("{name}.rs")));
        text.is_ok_and(|text| text.contains("#![feature("))
    };
    std::iter::once(build::NO_CRATE.to_string())
        .chain(sources(&folder).into_iter().filter(unstable))
        .collect::<Vec<_>>()
        .join(",")
}

/// The program with the tests of every area that needs no program of its own.
pub const SUITE: &str = "suite";

/// The program that is a guest's first process: a test program that has no tests.
pub const INIT: &str = "init";

/// The names of all test programs, and of the program that starts them in a guest.
pub fn test_programs() -> Vec<String> {
    let mut names = sources(&root().join("tests/src/bin"));
    names.extend([SUITE, INIT].map(str::to_string));
    names
}

/// The areas that are modules of the suite, in order.
pub fn modules_of_suite() -> Vec<String> {
    let mut names = sources(&root().join("tests/src/suite"));
    names.retain(|name| name != "main");
    names
}

/// The first part of the names of a program's tests. In the suite it is empty, because each name
/// there begins with its area.
pub fn prefix(program: &str) -> &str {
    if program == SUITE { "" } else { program }
}

/// The full name of a test, which begins with its area: `futex::a_name`.
pub fn full_name(program: &str, test: &str) -> String {
    match prefix(program) {
        "" => test.to_string(),
        program => format!("{program}::{test}"),
    }
}

/// The area of a test, by its full name.
pub fn area_of(full_name: &str) -> &str {
    full_name.split("::").next().unwrap_or_default()
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
    /// Each test binary, with its crate's name.
    pub binaries: Vec<(String, PathBuf)>,
    /// The command, if it failed.
    pub failed: Option<String>,
}

/// Builds the unit tests of rt0 and of its tools.
pub fn unit_tests() -> Result<Units> {
    let mut command = pinned("cargo");
    command.args([
        "test",
        "--package",
        "rt0",
        "--package",
        "rt0-build",
        "--package",
        "cargo-rt0",
        "--package",
        "xtask",
        "--lib",
        "--bins",
        "--tests",
    ]);
    // The user's own flags apply here: it is an ordinary program of the host.
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        if let Some(flags) = std::env::var_os(name) {
            command.env(name, flags);
        }
    }
    say!("building the unit tests for the host");
    host_tests(command)
}

/// Builds the models of the locks: unit tests over a fake kernel, with loom. In a separate folder,
/// because the flag would cause a rebuild of everything else.
pub fn models() -> Result<Units> {
    let mut command = pinned("cargo");
    command.args(["test", "--package", "rt0", "--lib", "--release", "--target-dir", "target/models"]);
    command.env("RUSTFLAGS", "--cfg loom");
    say!("building the models for the host");
    host_tests(command)
}

/// Runs `cargo test` until its binaries are built.
fn host_tests(mut command: Command) -> Result<Units> {
    command.args(["--no-run", "--message-format=json-render-diagnostics"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let line = process::shell_line(&command);
    let mut child = process::Running::member(&mut command).context("cannot start cargo")?;
    let messages = BufReader::new(child.stdout.take().context("cargo's stdout is piped")?);
    let mut binaries = Vec::new();
    for message in Message::parse_stream(messages) {
        if let Message::CompilerArtifact(artifact) = message?
            && let (Some(path), true) = (artifact.executable, artifact.profile.test)
        {
            binaries.push((artifact.target.name, path.into()));
        }
    }
    Ok(Units { binaries, failed: (!child.wait()?.success()).then_some(line) })
}
