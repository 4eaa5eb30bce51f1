//! Tests of crates outside this workspace: they build on rt0 as the README says, together with
//! crates on std, and the first message about a mistake says what is missing.
//!
//! All of them are built by the user's cargo in one folder of target/, so that rt0 is compiled
//! there once for each profile.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cargo_rt0::protocol::seen;
use cargo_rt0::report::{Test, Verdict};
use cargo_rt0::setup::{Core, Machine};
use cargo_rt0::{elf, process};

use crate::repository::{pinned, root, scratch};

/// The time limit for building a crate, on a machine under heavy load.
const LIMIT: Duration = Duration::from_secs(600);

/// The workspace that the README describes: a program and a library on rt0, and a program on std.
const STANDALONE: &str = "examples/standalone";

/// All of them.
pub fn of_others() -> Vec<Test<'static>> {
    if !root().join(STANDALONE).exists() {
        return Vec::new(); // The published package lacks this folder.
    }
    let test = |name: &str, check: fn() -> Result<()>| Test::new("host", format!("crates::{name}"), check);
    vec![
        test("programs_on_rt0_and_on_std_build_in_one_workspace_and_run", standalone),
        test("a_library_on_rt0_is_tested_linted_and_documented_on_the_host", library),
        test("what_was_forgotten_is_said_first", mistakes),
    ]
}

/// Programs of others' crates, in a workspace that has a lock file of its own.
const CRATES: &str = "crates";

/// One of these programs: its package, its name, and the machines that it runs on, which have a
/// prebuilt core.
struct Others {
    package: &'static str,
    program: &'static str,
    runs_on: &'static [&'static str],
}

const OTHERS: &[Others] = &[
    // Both byte orders, and a machine whose cpufeatures is over libc.
    Others { package: "rt0-crates", program: "others", runs_on: &["x86_64", "aarch64", "s390x"] },
    // It takes long to compile, and needs a C compiler for the machine.
    Others { package: "rt0-large-crates", program: "large", runs_on: &["x86_64"] },
];

/// The tests of one machine.
pub fn of_programs(machine: &Machine) -> Vec<Test<'_>> {
    let row = machine.target.name;
    if !root().join(CRATES).exists() {
        return Vec::new();
    }
    let run_here = OTHERS.iter().filter(|others| others.runs_on.contains(&row));
    let test = |others: &'static Others| {
        let name = format!("crates::{}_of_others_build_by_one_line_and_work", others.program);
        Test::new(row, name, move || others.verdict(machine))
    };
    run_here.map(test).collect()
}

impl Others {
    /// Builds the program for this machine, as the README says, and runs it there.
    fn verdict(&self, machine: &Machine) -> Result<Verdict> {
        if machine.core != Core::Prebuilt {
            let core = &machine.core;
            return Ok(Verdict::Skipped(format!("it is built with a prebuilt core, and this is core {core}")));
        }
        let folder = root().join(CRATES);
        let triple = machine.target.triple;
        let mut fetch = cargo(&folder, "fetch --locked --target");
        let fetched = process::run(fetch.arg(triple), LIMIT)?;
        if !fetched.status.success() {
            // An error about the lock file does not come from a missing network.
            ensure!(!fetched.stderr.contains("--locked"), seen(&fetched, &process::shell_line(&fetch)));
            let why = fetched.stderr.lines().last().unwrap_or_default().trim().to_string();
            let line = process::shell_line(&fetch);
            return Ok(Verdict::Skipped(format!("its crates cannot be had ({why}): with a network, {line}")));
        }
        let mut build = cargo(&folder, "build --quiet --locked --offline --package");
        build.args([self.package, "--target", triple]);
        succeed(build)?;
        let program = root().join("target/outside").join(triple).join("debug").join(self.program);
        elf::check(&program, machine.target)?;
        let mut command = machine.command(&program);
        let outcome = process::run(&mut command, LIMIT)?;
        let works = outcome.stdout.ends_with(" works\nall work\n");
        ensure!(outcome.status.success() && works, seen(&outcome, &process::shell_line(&command)));
        Ok(Verdict::Passed)
    }
}

/// A cargo command in a folder, with the target folder of these tests.
fn cargo(folder: &Path, words: &str) -> Command {
    let mut command = pinned("cargo");
    command.current_dir(folder).args(words.split(' ')).env("CARGO_TARGET_DIR", root().join("target/outside"));
    command
}

/// Runs a command that must succeed; returns what it printed.
fn succeed(mut command: Command) -> Result<String> {
    let outcome = process::run(command.stdin(Stdio::null()), LIMIT)?;
    ensure!(outcome.status.success(), seen(&outcome, &process::shell_line(&command)));
    Ok(outcome.stdout)
}

fn standalone() -> Result<()> {
    let folder = root().join(STANDALONE);
    let report = "report: 6\n";
    let counted = "standalone: 2 arguments\ncounted to 2000\n";
    let printed = succeed(cargo(&folder, "run --quiet -- one"))?;
    ensure!(printed == counted, "standalone prints {printed:?}, not {counted:?}");
    let printed = succeed(cargo(&folder, "run --quiet --package report"))?;
    ensure!(printed == report, "report prints {printed:?}, not {report:?}");

    // From another folder, where cargo does not find the configuration of the crate's, and with
    // flags of the user.
    let manifest = folder.join("Cargo.toml");
    let mut release = cargo(&root().join("target"), "run --quiet --release --manifest-path");
    release.arg(&manifest).args(["--", "one"]).env("RUSTFLAGS", "-Cdebuginfo=0");
    let printed = succeed(release)?;
    ensure!(printed == counted, "standalone in release prints {printed:?}, not {counted:?}");
    Ok(())
}

fn library() -> Result<()> {
    let folder = root().join(STANDALONE);
    let tested = succeed(cargo(&folder, "test --workspace"))?;
    for test in ["a_new_tally_is_zero", "no_count_is_lost_among_threads", "Tally (line"] {
        let ran = tested.lines().any(|line| line.contains(test) && line.ends_with("ok"));
        ensure!(ran, "no test `{test}` in\n{tested}");
    }
    succeed(cargo(&folder, "clippy --quiet --workspace --all-targets -- -D warnings"))?;
    let mut docs = cargo(&folder, "doc --quiet --workspace --no-deps");
    docs.env("RUSTDOCFLAGS", "-Dwarnings");
    succeed(docs)?;
    Ok(())
}

/// A mistake in a crate.
struct Mistake {
    /// The name of the folder, which is also in messages.
    name: &'static str,
    /// The change that makes the mistake in a correct crate.
    make: fn(&Path) -> Result<()>,
    /// The cargo command.
    words: &'static str,
    /// The first message.
    said: &'static str,
}

const MISTAKES: &[Mistake] = &[
    Mistake { name: "none", make: |_| Ok(()), words: "build", said: "" },
    Mistake {
        name: "no build script",
        make: |krate| Ok(fs::remove_file(krate.join("build.rs"))?),
        words: "build",
        said: "undefined symbol: __rt0_ld_is_missing__call_rt0_build_program_in_build_rs",
    },
    Mistake {
        name: "panics unwind",
        make: |krate| edit(krate, "Cargo.toml", "panic = \"abort\"", ""),
        words: "build",
        said: "rt0: this program is compiled to unwind when it panics, and nothing here unwinds: put `panic = \"abort\"`",
    },
    Mistake {
        name: "std",
        make: |krate| edit(krate, "src/main.rs", "#![no_std]", ""),
        words: "build",
        said: "src/main.rs has no `#![no_std]`, and is linked on rt0: std's start and rt0's exclude each other",
    },
    Mistake {
        name: "the compilers main",
        make: |krate| edit(krate, "src/main.rs", "#![no_main]", ""),
        words: "build",
        said: "src/main.rs has no `#![no_main]`, and is linked on rt0: rt0 calls main, not the compiler",
    },
    Mistake {
        name: "no entry",
        make: |krate| edit(krate, "src/main.rs", "rt0::entry!(main);", ""),
        words: "build",
        said: "src/main.rs has no `rt0::entry!(main);`, which brings _start and the panic handler",
    },
    Mistake {
        name: "unit tests",
        make: |krate| edit(krate, "Cargo.toml", "test = false", ""),
        words: "test",
        said: "rt0: a program on rt0 has no unit tests, since a test harness needs std: put `test = false` under [[bin]]",
    },
    Mistake {
        name: "threads in a test of the host",
        make: |krate| {
            fs::remove_file(krate.join("build.rs"))?;
            fs::remove_file(krate.join("src/main.rs"))?;
            edit(krate, "Cargo.toml", "[[bin]]\nname = \"tried\"\npath = \"src/main.rs\"\ntest = false", "")?;
            let thread = "rt0::thread::spawn(|| 6 * 7).unwrap().join()";
            let test = format!("#[test]\nfn a_thread_returns() {{\n    assert_eq!({thread}, 42);\n}}\n");
            write(krate, "src/lib.rs", &format!("#![cfg_attr(not(test), no_std)]\n{test}"))
        },
        words: "test",
        said: "undefined symbol: __rt0_did_not_start_this_program__test_its_threads_by_cargo_rt0_test__",
    },
    Mistake {
        name: "std below",
        make: |krate| {
            edit(krate, "Cargo.toml", "[dependencies]", "[dependencies]\nbelow = { path = \"below\" }")?;
            edit(krate, "src/main.rs", "    0", "    below::value()")?;
            write(krate, "below/Cargo.toml", "[package]\nname = \"below\"\nversion = \"0.0.0\"\nedition = \"2024\"\n")?;
            write(krate, "below/src/lib.rs", "pub fn value() -> i32 {\n    std::env::args().count() as i32\n}\n")
        },
        words: "build",
        // The compiler's own words, and the name of the macro that it was in.
        said: "found duplicate lang item `panic_impl`",
    },
    Mistake {
        name: "libc",
        make: |krate| {
            let call = "    unsafe extern \"C\" {\n        safe fn getppid() -> i32;\n    }\n    getppid()";
            edit(krate, "src/main.rs", "    0", call)
        },
        words: "build",
        said: "rt0: `getppid` is called (below) and not defined: a program on rt0 has no libc",
    },
    Mistake {
        name: "random bytes of libc",
        make: |krate| {
            let call = "    unsafe extern \"C\" {\n        safe fn dlsym() -> i32;\n    }\n    dlsym()";
            edit(krate, "src/main.rs", "    0", call)
        },
        words: "build",
        said: "rt0: `dlsym` is called (below) and not defined: a program on rt0 has no libc; if the crate getrandom calls",
    },
    Mistake {
        name: "a library that is not there",
        make: |krate| {
            let call = "    #[link(name = \"rt0_none\")]\n    unsafe extern \"C\" {\n        safe fn rt0_none() -> i32;\n    }\n    \
                        rt0_none()";
            edit(krate, "src/main.rs", "    0", call)
        },
        words: "build",
        said: "rt0: there is no library `rt0_none` here: a program on rt0 links nothing of the system's",
    },
    Mistake {
        name: "no dependency",
        make: |krate| edit(krate, "Cargo.toml", "[dependencies]\nrt0 ", "[dev-dependencies]\nrt0 "),
        words: "build",
        said: "the package `tried` calls rt0_build and does not depend on rt0: put rt0 under [dependencies]",
    },
    Mistake {
        name: "no program",
        make: |krate| {
            edit(krate, "Cargo.toml", "[[bin]]\nname = \"tried\"\npath = \"src/main.rs\"\ntest = false", "")?;
            Ok(fs::rename(krate.join("src/main.rs"), krate.join("src/lib.rs"))?)
        },
        words: "build",
        said: "the package `tried` has neither a binary nor an example: rt0_build is for programs, and a library on rt0",
    },
    Mistake {
        name: "another program",
        make: |krate| edit(krate, "build.rs", "rt0_build::program()", "rt0_build::Program::new().bin(\"x\").link()"),
        words: "build",
        said: "the package `tried` has no binary `x`; it has `tried`",
    },
];

/// Builds a correct crate, and then one for each mistake.
fn mistakes() -> Result<()> {
    let all = scratch("mistakes")?;
    for mistake in MISTAKES {
        let krate = all.join(mistake.name.replace(' ', "-"));
        right(&krate)?;
        (mistake.make)(&krate).with_context(|| mistake.name)?;
        let mut command = cargo(&krate, mistake.words);
        let outcome = process::run(&mut command, LIMIT)?;
        if mistake.said.is_empty() {
            ensure!(outcome.status.success(), seen(&outcome, "the crate without a mistake does not build"));
            continue;
        }
        let first = outcome.stderr.lines().find(|line| is_message(line)).unwrap_or_default();
        let right = !outcome.status.success() && first.contains(mistake.said);
        ensure!(right, seen(&outcome, &format!("{}: said first is `{first}`, not `{}`", mistake.name, mistake.said)));
    }
    Ok(())
}

/// Whether this line is a message of the compiler, a linker or rt0. It is not, if cargo says that
/// something failed, or rustc that the linker did.
fn is_message(line: &str) -> bool {
    ["error[", "undefined symbol", "unable to find library", "error: unwinding", "error: `#[", "rt0: "]
        .iter()
        .any(|part| line.contains(part))
}

/// Writes a crate that builds.
fn right(krate: &Path) -> Result<()> {
    let manifest = format!(
        "[package]\nname = \"tried\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
         [[bin]]\nname = \"tried\"\npath = \"src/main.rs\"\ntest = false\n\n\
         [dependencies]\nrt0 = {{ path = {root:?} }}\n\n[build-dependencies]\nrt0-build = {{ path = {build:?} }}\n\n\
         [profile.dev]\npanic = \"abort\"\n\n[workspace]\n",
        root = root(),
        build = root().join("rt0-build"),
    );
    write(krate, "Cargo.toml", &manifest)?;
    write(krate, "build.rs", "fn main() {\n    rt0_build::program();\n}\n")?;
    let program = "#![no_std]\n#![no_main]\n\nrt0::entry!(main);\n\nfn main(_: rt0::Env) -> i32 {\n    0\n}\n";
    write(krate, "src/main.rs", program)?;
    // The same versions as in this repository, so that nothing is looked up.
    fs::copy(root().join(STANDALONE).join("Cargo.lock"), krate.join("Cargo.lock"))?;
    Ok(())
}

fn write(krate: &Path, file: &str, text: &str) -> Result<()> {
    let path: PathBuf = krate.join(file);
    fs::create_dir_all(path.parent().context("a file in a folder")?)?;
    fs::write(&path, text).with_context(|| path.display().to_string())
}

/// Replaces a text that must occur.
fn edit(krate: &Path, file: &str, from: &str, to: &str) -> Result<()> {
    let text = fs::read_to_string(krate.join(file))?;
    ensure!(text.contains(from), "{file} has no {from:?}");
    write(krate, file, &text.replace(from, to))
}
