//! Builds the programs of the package bench/, one call of cargo per runtime, because each has its
//! own linker and flags.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use cargo_rt0::protocol::seen;
use cargo_rt0::setup::Setup;
use cargo_rt0::{process, say, targets};

use crate::repository::{pinned, root};

/// A runtime, and how to build its programs.
pub struct Recipe {
    /// The heading of its column.
    pub name: &'static str,
    /// The feature of bench/, and the folder of the built programs.
    feature: &'static str,
    /// The prefix of the programs' names.
    prefix: &'static str,
    /// Flags for all programs.
    flags: &'static [&'static str],
    /// Additional flags for the loops.
    loops_flags: &'static [&'static str],
    /// Additional flags for the small programs.
    small_flags: &'static [&'static str],
    /// Whether the toolchain's LLD links; otherwise the system's C compiler does.
    lld: bool,
}

/// The bare kernel: assembly, no runtime. Ratios are relative to it.
const RAW: Recipe = Recipe {
    name: "RAW",
    feature: "raw",
    prefix: "raw",
    // Prebuilt core refers to the unwinder's personality.
    flags: &["-Crelocation-model=static", "-Clink-arg=--defsym=rust_eh_personality=0"],
    loops_flags: &[],
    small_flags: &[
        "-Clink-arg=-N",
        "-Clink-arg=-znognustack",
        "-Clink-arg=--no-eh-frame-hdr",
        "-Clink-arg=-znosectionheader",
    ],
    lld: true,
};

/// rt0, with a program and a small program built as README.md says.
pub const RT0: Recipe = Recipe {
    name: "rt0",
    feature: "rt0",
    prefix: "rt0",
    flags: &["-Crelocation-model=static"],
    loops_flags: &["-Clink-arg=-Trt0.ld"],
    small_flags: &["-Clink-arg=-Trt0-small.ld", "-Clink-arg=-znosectionheader"],
    lld: true,
};

/// std, linked statically.
pub const STD: Recipe = Recipe {
    name: "std",
    feature: "std",
    prefix: "std",
    flags: &["-Ctarget-feature=+crt-static"],
    loops_flags: &[],
    small_flags: &[],
    lld: false,
};

/// parking_lot's locks; threads, clock and park are std's.
const PARKING_LOT: Recipe = Recipe { name: "parking_lot", feature: "parking_lot", ..STD };

/// A runtime's built programs.
pub struct Contestant {
    /// The heading of its column.
    pub name: &'static str,
    /// The loops.
    pub bench: PathBuf,
    /// A program that does nothing.
    pub nothing: PathBuf,
    /// A program that prints a greeting.
    pub hello: PathBuf,
    /// A program that starts a thread, locks, joins and prints a line.
    pub threads: PathBuf,
}

/// The names of these programs in a folder of one runtime, in the same order.
pub const EMITTED: [&str; 4] = ["bench", "nothing", "hello", "threads"];

/// The tools that build them.
#[derive(Clone)]
pub struct Tools {
    /// The triple of this machine.
    pub host: String,
    /// The toolchain's LLD.
    linker: PathBuf,
}

impl Tools {
    pub fn find(setup: &Setup) -> Result<Tools> {
        Ok(Tools { host: setup.rust.host.clone(), linker: setup.linker()? })
    }
}

/// Builds all runtimes. One that cannot be built is left out with a message, except rt0, which must
/// build.
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

/// Builds the runtimes that need no other crates or tools.
pub fn build_smoke(tools: &Tools) -> Result<Vec<Contestant>> {
    let here = |recipe: &&&Recipe| recipe.name != RAW.name || tools.host.starts_with("x86_64-");
    [&RAW, &RT0].iter().filter(here).map(|recipe| build(tools, recipe)).collect()
}

/// Builds one runtime's programs for the host.
pub fn build(tools: &Tools, recipe: &Recipe) -> Result<Contestant> {
    let host = &tools.host;
    if recipe.name == RAW.name && !host.starts_with("x86_64-") {
        bail!("it is written for x86_64, and this is {host}: there are no ratios to it");
    }
    let loops = Call { triple: host, profile: "release", bins: vec![recipe.prefix.to_string()] };
    cargo(tools, recipe, loops, recipe.loops_flags)?;
    cargo(tools, recipe, Call { triple: host, profile: "small", bins: small_ones(recipe) }, recipe.small_flags)?;
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

/// Builds the server of examples/with-rustix on std, linked to the static libc of this target.
pub fn server_on_std(target: &str) -> Result<PathBuf> {
    let folder = root().join("target/bench/serve");
    let mut command = pinned("cargo");
    command.args(["build", "--manifest-path", "bench/Cargo.toml", "--target", target, "--profile", "example"]);
    command.args(["--features", "serve", "--bin", "std-serve", "--locked", "--target-dir"]).arg(&folder);
    command.args(["--config", &format!("target.{target}.rustflags={:?}", STD.flags)]);
    let outcome = process::run(&mut command, BUILD_LIMIT)?;
    ensure!(outcome.status.success(), seen(&outcome, &process::shell_line(&command)));
    Ok(folder.join(target).join("example/std-serve"))
}

/// For one call of cargo with some crates to compile.
const BUILD_LIMIT: Duration = Duration::from_secs(600);

/// Builds rt0's small programs and returns their paths, in the order of [`EMITTED`] without the
/// loops.
pub fn small_of_rt0(tools: &Tools) -> Result<[PathBuf; 3]> {
    small_in(tools, &RT0, &folder(&RT0))
}

/// The same programs with the names of their functions.
pub fn small_with_symbols(tools: &Tools) -> Result<[PathBuf; 3]> {
    let recipe = Recipe { small_flags: &["-Clink-arg=-Trt0-small.ld", "-Cstrip=none"], ..RT0 };
    small_in(tools, &recipe, &folder(&RT0).join("symbols"))
}

fn small_in(tools: &Tools, recipe: &Recipe, folder: &Path) -> Result<[PathBuf; 3]> {
    let call = Call { triple: &tools.host, profile: "small", bins: small_ones(recipe) };
    cargo_in(tools, recipe, call, recipe.small_flags, folder)?;
    let built = folder.join(&tools.host).join("small");
    Ok([EMITTED[1], EMITTED[2], EMITTED[3]].map(|name| built.join(format!("{}-{name}", recipe.prefix))))
}

/// Builds one small program of a runtime, for the host or for a triple that runs there too.
pub fn small(tools: &Tools, recipe: &Recipe, triple: &str, name: &str) -> Result<PathBuf> {
    let program = format!("{}-{name}", recipe.prefix);
    cargo(tools, recipe, Call { triple, profile: "small", bins: vec![program.clone()] }, recipe.small_flags)?;
    Ok(folder(recipe).join(triple).join("small").join(program))
}

fn folder(recipe: &Recipe) -> PathBuf {
    root().join("target/bench").join(recipe.feature)
}

/// What one call of cargo builds: the loops (`release`) or small programs (`small`). Each profile
/// has its own target folder, so that the other's flags do not cause a rebuild.
struct Call<'a> {
    triple: &'a str,
    profile: &'static str,
    bins: Vec<String>,
}

/// The names of a runtime's small programs.
fn small_ones(recipe: &Recipe) -> Vec<String> {
    EMITTED[1..].iter().map(|name| format!("{}-{name}", recipe.prefix)).collect()
}

fn cargo(tools: &Tools, recipe: &Recipe, call: Call, more_flags: &[&str]) -> Result<()> {
    cargo_in(tools, recipe, call, more_flags, &folder(recipe))
}

/// The same, into this target folder.
fn cargo_in(tools: &Tools, recipe: &Recipe, call: Call, more_flags: &[&str], target_dir: &Path) -> Result<()> {
    let Call { triple, profile, bins } = call;
    let mut flags: Vec<String> = more_flags.iter().chain(recipe.flags).map(|flag| flag.to_string()).collect();
    if recipe.lld {
        flags.extend([format!("-Clinker={}", tools.linker.display()), "-Clinker-flavor=ld.lld".to_string()]);
    }
    if recipe.name == RT0.name {
        let rows = targets::select(&["native".to_string()], triple)?;
        flags.extend(rows.iter().take(1).flat_map(|row| row.rustflags).map(|flag| flag.to_string()));
    }
    let mut command = pinned("cargo");
    command.args(["build", "--manifest-path", "bench/Cargo.toml", "--target", triple, "--profile", profile]);
    command.args(["--features", recipe.feature, "--target-dir"]).arg(target_dir);
    command.args(bins.iter().flat_map(|bin| ["--bin", bin.as_str()]));
    command.args(["--config", &format!("target.{triple}.rustflags={flags:?}")]).stdin(Stdio::null());
    say!("building {} ({profile})", recipe.name);
    let status = command.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("cargo's messages above say why\n{}", process::shell_line(&command));
    }
    Ok(())
}
