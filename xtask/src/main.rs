//! The one way to build, boot and check anything in this repository.
//!
//! `cargo xtask run` and `cargo xtask test` start from nothing: they set up what a machine needs
//! (`core`, an emulator), build, look at what was built, and run it. The files, from the top down:
//!
//! - `main.rs`: the command line.
//! - `targets.rs`: the table of machines.
//! - `test.rs`: the test run: list, run, report; `host_tests.rs`: tests that look at whole programs
//!   from outside, `tool_tests.rs`: those that take other people's tools for it.
//! - `kernel.rs`, `kernel/`: tests on real kernels under qemu-system.
//! - `bench.rs`, `bench/`: what rt0 costs, beside others.
//! - `check.rs`: the rules of this repository that a command can hold.
//! - `build.rs`: one cargo call for many machines; `elf.rs`: the facts that must hold for what was
//!   built.
//! - `setup.rs`: where `core` and the emulator come from; `packages.rs`: Debian's packages without
//!   root.
//! - `process.rs`: child processes with a time limit.

mod bench;
mod build;
mod calls;
mod check;
mod elf;
mod host_tests;
mod init_tests;
mod kernel;
mod packages;
mod process;
mod setup;
mod targets;
mod test;
mod tool_tests;
mod traced;
mod valgrind;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};

use crate::setup::{Machine, Setup};

/// Says one step on stderr, so that stdout stays for results.
#[macro_export]
macro_rules! say {
    ($($arg:tt)*) => { eprintln!("rt0: {}", format_args!($($arg)*)) };
}

/// Builds, boots and checks rt0. Everything that a command needs is set up in target/setup, nothing
/// in the system.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Task,
    #[command(flatten)]
    options: Options,
}

/// Choices that every command takes.
#[derive(clap::Args, Clone)]
pub struct Options {
    /// The emulator to use: a version (`7.2`, `10`) or a folder with qemu-<machine>; else the
    /// newest that can be had
    #[arg(long, global = true, env = "RT0_QEMU", value_name = "VERSION|PATH")]
    qemu: Option<String>,
    /// Take `core` from this place only, instead of trying them in this order
    #[arg(long, global = true, env = "RT0_CORE", value_name = "PLACE")]
    core: Option<Place>,
}

/// Where `core` can come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Place {
    /// The prebuilt one of the pinned toolchain, fetched by rustup if need be
    Rustup,
    /// The pinned toolchain's rust-src, compiled
    Source,
    /// Debian's rustc-web and rust-web-src, compiled
    Debian,
}

#[derive(Subcommand)]
enum Task {
    /// Builds an example and runs it, natively or under qemu
    Run {
        /// A file name of examples/ without `.rs`
        #[arg(default_value = "tour")]
        example: String,
        /// Short name, triple or `native`
        #[arg(long, default_value = "native")]
        target: String,
        /// The program's arguments
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Builds an example and prints the path of its binary
    Build {
        /// A file name of examples/ without `.rs`
        example: String,
        /// Short name, triple or `native`
        #[arg(long, default_value = "native")]
        target: String,
    },
    /// Boots a real kernel under qemu-system with an example as its first and only process, on this
    /// terminal
    Boot {
        /// A file name of examples/ without `.rs`
        #[arg(default_value = "tour")]
        example: String,
        /// Short name, or MACHINE@VERSION for one of its kernels, as in `aarch64@6.12`
        #[arg(long, default_value = "x86_64")]
        target: String,
    },
    /// Runs the tests, on all machines unless some are named
    ///
    /// RT0_STRESS_SECONDS=N lets the tests in which everything happens at once go on for so long,
    /// natively and in release, instead of one second.
    Test(test::Choices),
    /// Measures what rt0 costs, beside std, parking_lot and the bare kernel, on the machine that
    /// this runs on
    Bench(bench::Choices),
    /// Checks the rules of this repository: format, lints, layers, docs
    Check,
    /// Says what is there and what would be set up, per machine; changes nothing
    Doctor,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match execute(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("rt0: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Task::Run { example, target, args } => {
            let (machine, program) = build_example(cli.options, &example, &target)?;
            let mut command = machine.command(&program);
            command.args(args);
            // Replaces this process: streams, signals and the exit status are the program's own.
            Err(command.exec()).with_context(|| format!("cannot start {}", program.display()))
        }
        Task::Build { example, target } => {
            let (_, program) = build_example(cli.options, &example, &target)?;
            println!("{}", program.display());
            Ok(ExitCode::SUCCESS)
        }
        Task::Boot { example, target } => {
            let guest = kernel::boot::guest(&Setup::new(cli.options.clone())?, &target)?;
            let (_, program) = build_example(cli.options.clone(), &example, guest.row.machine)?;
            kernel::boot::run(&Setup::new(cli.options)?, &guest, &program)
        }
        Task::Test(choices) => test::run(cli.options, &choices),
        Task::Bench(choices) => bench::run(cli.options, choices),
        Task::Check => check::run(cli.options),
        Task::Doctor => setup::doctor(cli.options),
    }
}

/// Builds one example for one machine and checks its ELF facts.
fn build_example(options: Options, example: &str, target: &str) -> Result<(Machine, PathBuf)> {
    let examples = build::sources(&root().join("examples"));
    if !examples.iter().any(|name| name == example) {
        bail!("no example is called `{example}`; these are: {}", examples.join(", "));
    }
    let setup = Setup::new(options)?;
    let targets = targets::select(&[target.to_string()], &setup.rust.host)?;
    let [target] = targets[..] else { bail!("`{target}` names several machines; one is needed here") };
    let machine = setup.machines(&[target]).pop().context("one machine in, one out")?.1?;
    let built = build::build(&setup, std::slice::from_ref(&machine), build::What::Example(example))?;
    let program = built.program(&machine, example).context("the build failed; cargo's messages above say why")?;
    elf::check(program, target)?;
    Ok((machine, program.to_path_buf()))
}

/// The repository's folder.
pub fn root() -> &'static Path {
    // What cargo was told when it built this program, which it does again when the repository
    // moves.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask/ lies in the repository")
}
