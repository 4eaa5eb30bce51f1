//! The one way to build, boot and check anything in this repository.
//!
//! `cargo xtask run` and `cargo xtask test` need no preparation: they set up a machine's
//! requirements (`core`, an emulator), build, check the result, and run it. The files, from the top
//! down:
//!
//! - `main.rs`: the command line.
//! - `test.rs`: the test run: list, run, report; `test/`: the tests that this tool makes itself, of
//!   whole programs from outside.
//! - `kernel.rs`, `kernel/`: tests on real kernels under qemu-system.
//! - `syscalls.rs`, `syscalls/`: the list of system calls, as a table and as a filter.
//! - `bench.rs`, `bench/`: the cost of rt0, compared with others.
//! - `check.rs`: the rules of this repository that a command can hold.
//! - `build.rs`: builds this repository; `calls.rs`, `orders.rs`: checks of the machine code of the
//!   built programs; `strace.rs`: the system calls of one run.
//! - `repository.rs`: the folder of the repository, and the toolchain that it pins.
//!
//! The package cargo-rt0 sets up, builds and runs for a machine: what is the same for every crate.

mod bench;
mod build;
mod calls;
mod check;
mod kernel;
mod orders;
mod repository;
mod strace;
mod symbolize;
mod syscalls;
mod test;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use cargo_rt0::{Options, say, setup, targets, tell};
use clap::{Parser, Subcommand};

use crate::repository::set_up;

/// Builds, boots and checks rt0. Everything that a command needs is set up in target/setup, never
/// in the system.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Task,
    #[command(flatten)]
    options: Options,
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
    /// Boots a real kernel under qemu-system with an example as its only process, on this terminal
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
    /// RT0_STRESS_SECONDS=N sets the time of native stress tests in release, instead of one second.
    Test(test::Choices),
    /// Measures the cost of rt0, compared with std, parking_lot and the bare kernel, on this
    /// machine
    Bench(bench::Choices),
    /// Prints the system calls that each module of rt0 makes, as a table or as a seccomp filter
    Syscalls(syscalls::Choices),
    /// Puts names, files and lines beside the addresses of a report or a dump, read from standard
    /// input
    Symbolize {
        /// The program that wrote it, of any machine
        program: PathBuf,
    },
    /// Checks the rules of this repository: format, lints, layers, docs
    Check,
    /// Prints what exists and what would be set up, per machine; changes nothing
    Doctor,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match execute(cli) {
        Ok(code) => code,
        Err(error) => {
            say!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Task::Run { example, target, args } => {
            let (machine, program) = build::example(&set_up(cli.options)?, &example, &target)?;
            let mut command = machine.command(&program);
            command.args(args);
            // Replaces this process: streams, signals and the exit status are the program's own.
            Err(command.exec()).with_context(|| format!("cannot start {}", program.display()))
        }
        Task::Build { example, target } => {
            let (_, program) = build::example(&set_up(cli.options)?, &example, &target)?;
            tell!("{}", program.display());
            Ok(ExitCode::SUCCESS)
        }
        Task::Boot { example, target } => {
            let setup = set_up(cli.options)?;
            let guest = kernel::boot::guest(&setup, &target)?;
            let (machine, program) = build::example(&setup, &example, guest.row.machine)?;
            let init = [build::INIT.to_string()];
            let built = build::build(&setup, std::slice::from_ref(&machine), build::What::Programs(&init))?;
            let init =
                built.program(&machine, build::INIT).context("the build failed; cargo's messages above say why")?;
            kernel::boot::run(&setup, &guest, init, &program)
        }
        Task::Test(choices) => test::run(cli.options, &choices),
        Task::Bench(choices) => bench::run(cli.options, choices),
        Task::Syscalls(choices) => syscalls::run(cli.options, &choices),
        Task::Symbolize { program } => {
            symbolize::run(&program, std::io::stdin().lock(), std::io::stdout().lock())?;
            Ok(ExitCode::SUCCESS)
        }
        Task::Check => check::run(cli.options),
        Task::Doctor => Ok(setup::doctor(&set_up(cli.options)?, &targets::TARGETS.iter().collect::<Vec<_>>(), TOOLS)),
    }
}

/// Tools that only some tests need, and the message if one is missing.
const TOOLS: &[(&str, &str)] = &[
    ("strace", "would be unpacked from Debian's package, for one test"),
    ("gdb", "would be unpacked from Debian's package, for the tests of signal frames"),
    ("valgrind", "would be unpacked from Debian's package, for the tests under memcheck"),
    ("go", "missing: the tests of profiles leave `go tool pprof` out"),
];
