//! Builds the programs of the package bench/, one runtime per call of cargo: each has its linker and flags.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::setup::{Setup, pinned};
use crate::{process, root, say, targets};

/// A runtime, and how its programs are built.
pub struct Recipe {
    /// The column's head.
    pub name: &'static str,
    /// Feature of bench/, and folder of what is built.
    feature: &'static str,
    /// The programs' names begin so.
    prefix: &'static str,
    /// For all programs.
    flags: &'static [&'static str],
    /// For the small ones, in front of these.
    small_flags: &'static [&'static str],
    /// Whether the toolchain's LLD links, else the system's C compiler does.
    lld: bool,
}

/// The bare kernel: our own assembly, no runtime. What ratios are taken against.
const RAW: Recipe = Recipe {
    name: "RAW",
    feature: "raw",
    prefix: "raw",
    // core as it comes prebuilt names the unwinder's personality.
    flags: &["-Crelocation-model=static", "-Clink-arg=--defsym=rust_eh_personality=0"],
    small_flags: &[
        "-Clink-arg=-N",
        "-Clink-arg=-znognustack",
        "-Clink-arg=--no-eh-frame-hdr",
        "-Clink-arg=-znosectionheader",
    ],
    lld: true,
};

/// Ours, as README.md says that a program is built, and a small one.
pub const RT0: Recipe = Recipe {
    name: "rt0",
    feature: "rt0",
    prefix: "rt0",
    flags: &["-Crelocation-model=static", "-Clink-arg=-Trt0.ld"],
    small_flags: &["-Clink-arg=-Trt0-small.ld", "-Clink-arg=-znosectionheader"],
    lld: true,
};

const STD: Recipe = Recipe {
    name: "std",
    feature: "std",
    prefix: "std",
    flags: &["-Ctarget-feature=+crt-static"],
    small_flags: &[],
    lld: false,
};

/// parking_lot's locks; threads, clock and park are std's.
const PARKING_LOT: Recipe = Recipe { name: "parking_lot", feature: "parking_lot", ..STD };

/// A runtime's programs, built.
pub struct Contestant {
    /// The column's head.
    pub name: &'static str,
    /// The loops.
    pub bench: PathBuf,
    /// Does nothing.
    pub nothing: PathBuf,
    /// Says hello.
    pub hello: PathBuf,
    /// Starts a thread, locks, joins, says so.
    pub threads: PathBuf,
}

/// What these programs are called in a folder of one runtime, in the same order.
pub const EMITTED: [&str; 4] = ["bench", "nothing", "hello", "threads"];

/// What builds them.
#[derive(Clone)]
pub struct Tools {
    /// The triple of this machine.
    host: String,
    /// The toolchain's LLD.
    linker: PathBuf,
}

impl Tools {
    pub fn find(setup: &Setup) -> Result<Tools> {
        Ok(Tools { host: setup.rust.host.clone(), linker: setup.linker()? })
    }
}

/// All runtimes. What cannot be built is left out with a line, but rt0 must be.
pub fn build_all(tools: &Tools) -> Result<Vec<Contestant>> {
    let mut built = Vec::new();
    for recipe in [&RAW, &RT0, &STD, &PARKING_LOT] {
        match build(tools, recipe) {
            Ok(contestant) => built.push(contestant),
            Err(error) if recipe.name == RT0.name => return Err(error),
            Err(error) => say!("{} is left out: {error:#}", recipe.name),
        }
    }
    Ok(built)
}

/// Those that need nothing but what is built anyway.
pub fn build_smoke(tools: &Tools) -> Result<Vec<Contestant>> {
    let here = |recipe: &&&Recipe| recipe.name != RAW.name || tools.host.starts_with("x86_64-");
    [&RAW, &RT0].iter().filter(here).map(|recipe| build(tools, recipe)).collect()
}

/// One runtime's programs, for the machine that this runs on.
pub fn build(tools: &Tools, recipe: &Recipe) -> Result<Contestant> {
    let host = &tools.host;
    if recipe.name == RAW.name && !host.starts_with("x86_64-") {
        bail!("it is written for x86_64, and this is {host}: there are no ratios to it");
    }
    cargo(tools, recipe, "release", &[])?;
    cargo(tools, recipe, "small", recipe.small_flags)?;
    let folder = folder(recipe).join(host);
    let small = |name: &str| folder.join("small").join(format!("{}-{name}", recipe.prefix));
    Ok(Contestant {
        name: recipe.name,
        bench: folder.join("release").join(recipe.prefix),
        nothing: small("nothing"),
        hello: small("hello"),
        threads: small("threads"),
    })
}

fn folder(recipe: &Recipe) -> PathBuf {
    root().join("target/bench").join(recipe.feature)
}

/// Builds the loops (`release`) or the rest (`small`). Each profile has a folder of its own within cargo's, so that the
/// other's flags do not make it stale.
fn cargo(tools: &Tools, recipe: &Recipe, profile: &str, more_flags: &[&str]) -> Result<()> {
    let host = &tools.host;
    let mut flags: Vec<String> = more_flags.iter().chain(recipe.flags).map(|flag| flag.to_string()).collect();
    if recipe.lld {
        flags.extend([format!("-Clinker={}", tools.linker.display()), "-Clinker-flavor=ld.lld".to_string()]);
    }
    if recipe.name == RT0.name {
        let rows = targets::select(&["native".to_string()], host)?;
        flags.extend(rows.iter().take(1).flat_map(|row| row.rustflags).map(|flag| flag.to_string()));
    }
    let mut command = pinned("cargo");
    command.args(["build", "--manifest-path", "bench/Cargo.toml", "--target", host, "--profile", profile]);
    command.args(["--features", recipe.feature, "--target-dir"]).arg(folder(recipe));
    match profile {
        "release" => command.args(["--bin", recipe.prefix]),
        _ => command
            .args(EMITTED[1..].iter().flat_map(|name| ["--bin".to_string(), format!("{}-{name}", recipe.prefix)])),
    };
    command.args(["--config", &format!("target.{host}.rustflags={flags:?}")]).stdin(Stdio::null());
    say!("building {} ({profile})", recipe.name);
    let status = command.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("cargo's messages above say why\n{}", process::shell_line(&command));
    }
    Ok(())
}
