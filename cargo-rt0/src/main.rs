//! `cargo rt0`: the command line.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use cargo_rt0::commands::{Machines, Session, cache};
use cargo_rt0::project::Selection;
use cargo_rt0::setup::{self, Setup, Toolchain};
use cargo_rt0::{Options, new, say, targets};
use clap::{Parser, Subcommand};

/// What cargo starts: its own name for the command stands first.
#[derive(Parser)]
#[command(name = "cargo", bin_name = "cargo")]
enum Cargo {
    Rt0(Cli),
}

/// Builds, runs and tests a crate on rt0 on all of its machines.
///
/// What is built lies in `rt0` in the crate's target folder. Emulators are unpacked in RT0_CACHE,
/// or else in ~/.cache/rt0. rustup adds core libraries to the toolchain; nothing else is changed in
/// the system.
#[derive(clap::Args)]
#[command(version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Task,
    #[command(flatten)]
    options: Options,
}

#[derive(Subcommand)]
enum Task {
    /// Builds a program and runs it, natively or under qemu
    ///
    /// On one machine the program takes the place of this command: streams, signals and the exit
    /// status are its own.
    Run {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        which: Which,
        /// Kill it after so many seconds [default: 60 where it runs on several machines, else none]
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
        limit: Option<u64>,
        /// The program's arguments
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Builds programs and prints their paths
    Build {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        which: Which,
    },
    /// Runs the crate's tests, each in a process of its own
    Test {
        #[command(flatten)]
        common: Common,
        /// Only tests whose full name (`mips::tests::a_name`) contains this
        filter: Option<String>,
    },
    /// Builds the crate's benchmarks and runs them
    Bench {
        #[command(flatten)]
        common: Common,
        /// One of benches/ instead of all
        #[arg(long, value_name = "NAME")]
        bench: Option<String>,
        /// Kill each after so many seconds [default: 60 where several run, else none]
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
        limit: Option<u64>,
        /// The programs' arguments
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Makes a new crate, with a program and a test on rt0
    New(new::Choices),
    /// Says what is there and what would be fetched, per machine; changes nothing
    Doctor,
}

#[derive(clap::Args)]
struct Common {
    #[command(flatten)]
    machines: Machines,
    #[command(flatten)]
    selection: Selection,
}

#[derive(clap::Args)]
struct Which {
    /// One of the crate's binaries
    #[arg(long, value_name = "NAME")]
    bin: Option<String>,
    /// One of examples/
    #[arg(long, value_name = "NAME", conflicts_with = "bin")]
    example: Option<String>,
}

fn main() -> ExitCode {
    let Cargo::Rt0(cli) = Cargo::parse();
    match execute(cli) {
        Ok(code) => code,
        Err(error) => {
            say!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(cli: Cli) -> Result<ExitCode> {
    let here = std::env::current_dir().context("the current folder does not exist any more")?;
    let session =
        |common: &Common| Session::new(cli.options.clone(), &common.selection, &common.machines, &here, &cache()?);
    match &cli.command {
        Task::Run { common, which, limit, args } => {
            let limit = limit.map(Duration::from_secs);
            session(common)?.run(which.bin.as_deref(), which.example.as_deref(), args, limit)
        }
        Task::Build { common, which } => {
            session(common)?.build_programs(which.bin.as_deref(), which.example.as_deref())
        }
        Task::Test { common, filter } => session(common)?.test(filter.as_deref()),
        Task::Bench { common, bench, limit, args } => {
            session(common)?.bench(bench.as_deref(), args, limit.map(Duration::from_secs))
        }
        Task::New(choices) => new::run(choices, &here),
        Task::Doctor => {
            let setup = Setup::new(cli.options.clone(), Toolchain::chosen(&here), &cache()?)?;
            Ok(setup::doctor(&setup, &targets::machines(), &[]))
        }
    }
}
