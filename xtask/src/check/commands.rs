//! The commands that check formats, lints and docs.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::Result;
use cargo_rt0::say;
use cargo_rt0::setup::{Core, Setup};
use cargo_rt0::targets::{TARGETS, Target};

use super::source::Source;
use crate::build;
use crate::repository::pinned;

/// The commands, each with what it checks.
pub(super) fn commands(setup: &Setup, sources: &[Source]) -> Result<Vec<(String, Command)>> {
    let cargo = |words: &str| {
        let mut command = pinned("cargo");
        command.args(words.split(' '));
        command
    };
    // rustfmt does not find what cfg_select! chooses, nor crates outside the workspace.
    let mut rustfmt = pinned("rustfmt");
    rustfmt.args(["--check", "--edition", "2024"]);
    let hidden = |s: &&Source| {
        ["arch/", "bench/", "crates/", "examples/standalone/", "examples/with-rustix/", "fuzz/"]
            .iter()
            .any(|f| s.path.starts_with(f))
    };
    rustfmt.args(sources.iter().filter(hidden).map(|s| s.path));

    let lints = "-- -D warnings";
    let mut programs = cargo(&format!("clippy --workspace --lib --bins --examples {lints}"));
    programs.env("RUSTC_BOOTSTRAP", build::unstable_programs());
    let mut docs = cargo("doc --package rt0 --all-features --no-deps");
    docs.env("RUSTDOCFLAGS", "-Dwarnings");
    let mut fuzz = cargo("check --manifest-path fuzz/Cargo.toml --target-dir target/fuzz");
    // Nothing is linked, so the library need not exist.
    fuzz.env("RUSTFLAGS", "--cfg fuzzing").env("CUSTOM_LIBFUZZER_PATH", "no/library");
    let mut doc_examples = cargo("test --doc --package rt0 --all-features");
    doc_examples.env("RUSTC_BOOTSTRAP", "1"); // Else rustdoc ignores which error one must give.
    let mut private_docs = cargo("doc --package rt0 --all-features --no-deps --document-private-items");
    private_docs.env("RUSTDOCFLAGS", "-Dwarnings");
    let mut commands = vec![
        ("format".to_string(), cargo("fmt --all --check")),
        ("format of arch/ and fuzz/".to_string(), rustfmt),
        ("lints".to_string(), programs),
        (
            "lints of the unit tests".to_string(),
            cargo(&format!(
                "clippy --package rt0 --package rt0-build --package cargo-rt0 --package xtask --tests {lints}"
            )),
        ),
        (
            "lints of the benchmark".to_string(),
            cargo(&format!(
                "clippy --manifest-path bench/Cargo.toml --target-dir target/bench/check --all-features --bins {lints}"
            )),
        ),
        ("the fuzz targets".to_string(), fuzz),
        ("docs".to_string(), docs),
        ("docs of private items".to_string(), private_docs),
        ("examples in docs".to_string(), doc_examples),
    ];
    // The library for the other machines, if their core exists already: a check sets up nothing.
    let mut foreign: BTreeMap<Core, Vec<&Target>> = BTreeMap::new();
    for target in TARGETS.iter().filter(|t| t.triple != setup.rust.host) {
        if setup.has_prebuilt(target) {
            foreign.entry(Core::Prebuilt).or_default().push(target);
        } else if setup.has_rust_src() {
            foreign.entry(Core::Source).or_default().push(target);
        } else {
            say!("lints for {}: left out, its core is not set up (cargo xtask test does that)", target.name);
        }
    }
    for (core, targets) in foreign {
        let mut command = build::lints(setup, &core, &targets)?;
        command.args(lints.split(' '));
        let names: Vec<_> = targets.iter().map(|target| target.name).collect();
        commands.push((format!("lints for {}", names.join(", ")), command));
    }
    Ok(commands)
}
