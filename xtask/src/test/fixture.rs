//! examples/standalone on every machine, as `cargo rt0` builds and tests it, and as plain cargo
//! builds it in each profile: a separate crate, with its own lock file, that does not depend on
//! this repository's flags.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use cargo_rt0::build::{self, Built, Kind, Request};
use cargo_rt0::project::{Project, Selection};
use cargo_rt0::protocol::{as_it_is, seen, tests_of};
use cargo_rt0::report::Test;
use cargo_rt0::setup::{Core, Machine, Setup};
use cargo_rt0::targets::Profile;
use cargo_rt0::{elf, process, targets};

use crate::repository::root;

/// The crate's name, and that of its program.
pub const NAME: &str = "standalone";

/// With these settings, and the same linker script, the fixture can use the core that was built for
/// this repository's programs. rt0 is compiled again, without optimisation: that saves time, and no
/// other test has rt0 unoptimised on every machine.
const PROFILE: &[&str] = &[
    "profile.release.codegen-units=1",
    "profile.release.lto=\"off\"",
    "profile.release.debug=false",
    "profile.release.incremental=true",
    "profile.release.package.rt0.opt-level=0",
];

/// The built programs of the fixture.
#[derive(Default)]
pub struct Fixture {
    /// Its program and its tests, for each machine.
    pub built: Built,
    /// Its program by plain cargo, in each profile.
    pub plain: [Built; PLAIN.len()],
    folder: PathBuf,
}

/// The profiles in which plain cargo builds it, and the tests of what came out. Where core is
/// compiled too, which takes two minutes and 1 GB a profile, it is the first alone.
const PLAIN: [(Profile, &str); 2] = [
    (Profile::Dev, "standalone::runs_and_is_static_by_plain_cargo"),
    (Profile::Release, "standalone::runs_and_is_static_by_plain_cargo_in_release"),
];

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
    let mut plain = <[Built; PLAIN.len()]>::default();
    for (place, (profile, _)) in plain.iter_mut().zip(PLAIN) {
        let is_chosen = |machine: &&Machine| profile == PLAIN[0].0 || machine.core == Core::Prebuilt;
        *place = plainly(setup, machines.iter().filter(is_chosen), &folder, profile)?;
    }
    Ok(Fixture { built, plain, folder })
}

/// Builds its program as with only a build script, except that the dev profile writes nothing for
/// debuggers.
fn plainly<'a>(
    setup: &Setup,
    machines: impl Iterator<Item = &'a Machine>,
    folder: &Path,
    profile: Profile,
) -> Result<Built> {
    let manifest = folder.join("Cargo.toml").display().to_string();
    let words = ["build", "--keep-going", "--bin", NAME, "--config", "profile.dev.debug=false", "--manifest-path"];
    let request = Request {
        words: words.into_iter().map(str::to_string).chain([manifest]).collect(),
        expected: vec![(Kind::Bin, NAME.to_string())],
        target_dir: &root().join("target/outside"),
        profile: Some(profile),
        unstable: None,
        abort: false,
        configured: false,
        fixed_script: false,
        frame_pointers: false,
        advice: cargo_rt0::advice::of,
    };
    build::build(setup, machines, &request)
}

/// The tests of what was built for one machine.
pub fn tests<'a>(machine: &'a Machine, fixture: &'a Fixture) -> Vec<Test<'a>> {
    let mut tests = Vec::new();
    if !targets::machines().iter().any(|target| target.name == machine.target.name) {
        return tests; // The same programs run in the row of that machine.
    }
    if let Some(threads) = fixture.built.find(machine, Kind::Test, "threads") {
        tests.extend(tests_of(machine, "standalone_threads", threads, &fixture.folder, &[], &as_it_is()));
        let is_static = || elf::check(threads, machine.target);
        tests.push(Test::new(machine.target.name, "standalone::its_tests_are_static", is_static));
    }
    let by_rt0 = ("standalone::runs_and_is_static", &fixture.built);
    let plain = PLAIN.iter().map(|(_, test)| *test).zip(&fixture.plain);
    for (test, built) in std::iter::once(by_rt0).chain(plain) {
        let Some(program) = built.find(machine, Kind::Bin, NAME) else { continue };
        tests.push(Test::new(machine.target.name, test, move || {
            runs_and_is_static(machine, program).with_context(|| program.display().to_string())
        }));
    }
    tests
}

fn runs_and_is_static(machine: &Machine, program: &Path) -> Result<()> {
    elf::check(program, machine.target)?;
    let mut command = machine.command(program);
    let outcome = process::run(&mut command, cargo_rt0::protocol::LIMIT_QEMU)?;
    ensure!(outcome.status.success(), seen(&outcome, &process::shell_line(&command)));
    ensure!(outcome.stdout == "standalone: 1 arguments\ncounted to 2000\n", "it printed {:?}", outcome.stdout);
    Ok(())
}
