//! examples/standalone on every machine, as `cargo rt0` builds and tests it: a separate crate, with
//! its own lock file, that does not depend on this repository's flags.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use cargo_rt0::build::{Built, Kind};
use cargo_rt0::project::{Project, Selection};
use cargo_rt0::protocol::{as_it_is, seen, tests_of};
use cargo_rt0::report::Test;
use cargo_rt0::setup::{Machine, Setup};
use cargo_rt0::{elf, process, targets};

use crate::repository::root;

/// The crate's name, and that of its program.
pub const NAME: &str = "standalone";

/// With these, and with the same linker script, the core that this repository's programs have is
/// one for the fixture too. rt0 is compiled again, without optimisation: that saves time, and no
/// other test has it so on every machine.
const PROFILE: &[&str] = &[
    "profile.release.codegen-units=1",
    "profile.release.lto=\"off\"",
    "profile.release.debug=false",
    "profile.release.incremental=true",
    "profile.release.package.rt0.opt-level=0",
];

/// What was built of it.
#[derive(Default)]
pub struct Fixture {
    /// Its program and its tests, for each machine.
    pub built: Built,
    folder: PathBuf,
}

/// Builds the crate for these machines.
pub fn build(setup: &Setup, machines: &[Machine]) -> Result<Fixture> {
    let folder = root().join("examples").join(NAME);
    let selection = Selection {
        target_dir: Some(root().join("target/boot")),
        config: PROFILE.iter().map(|pair| pair.to_string()).collect(),
        fixed_script: true,
        ..Selection::default()
    };
    let programs = [(Kind::Bin, NAME.to_string()), (Kind::Test, "threads".to_string())];
    let built = Project::find(&selection, &folder)?.build(setup, machines, &programs)?;
    Ok(Fixture { built, folder })
}

/// The tests of what was built for one machine.
pub fn tests<'a>(machine: &'a Machine, fixture: &'a Fixture) -> Vec<Test<'a>> {
    let mut tests = Vec::new();
    if !targets::machines().iter().any(|target| target.name == machine.target.name) {
        return tests; // The same programs run in the row of that machine.
    }
    let Some(threads) = fixture.built.find(machine, Kind::Test, "threads") else { return tests };
    tests.extend(tests_of(machine, "standalone_threads", threads, &fixture.folder, &[], &as_it_is()));
    let Some(program) = fixture.built.find(machine, Kind::Bin, NAME) else { return tests };
    tests.push(Test::new(machine.target.name, "standalone::runs_and_is_static", move || {
        let run = || -> Result<()> {
            elf::check(program, machine.target)?;
            elf::check(threads, machine.target)?;
            let mut command = machine.command(program);
            let outcome = process::run(&mut command, cargo_rt0::protocol::LIMIT_QEMU)?;
            ensure!(outcome.status.success(), seen(&outcome, &process::shell_line(&command)));
            ensure!(outcome.stdout.starts_with("standalone: 1 arguments"), "it printed {:?}", outcome.stdout);
            Ok(())
        };
        run().with_context(|| program.display().to_string())
    }));
    tests
}
