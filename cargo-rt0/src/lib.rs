//! Builds, runs and tests programs on rt0 on every machine of its table.
//!
//! The program `cargo-rt0` does it for the crate in the current folder; rt0's own `cargo xtask` is
//! built on the same parts. From the top down:
//!
//! - [`commands`]: what `cargo rt0` does; [`new`]: the crate that it makes; [`project`]: the crate
//!   that it finds; [`advice`]: the advice that it prints about mistakes.
//! - [`report`]: a queue of tests, and the report on all of them; [`protocol`]: how a test program
//!   lists and runs its tests.
//! - [`build`]: one cargo call for many machines; [`elf`]: the facts that must hold for what was
//!   built.
//! - [`setup`]: where `core` and the emulator come from; [`packages`]: Debian's packages without
//!   root.
//! - [`process`]: child processes with a time limit; [`targets`]: the table of machines.

pub mod advice;
pub mod build;
pub mod commands;
pub mod elf;
pub mod new;
pub mod packages;
pub mod process;
pub mod project;
pub mod protocol;
pub mod report;
pub mod setup;
pub mod targets;

/// Prints one step to stderr, because stdout is for results. If stderr cannot be written, the step
/// is not printed.
#[macro_export]
macro_rules! say {
    ($($arg:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "rt0: {}", format_args!($($arg)*));
    }};
}

/// Writes one line of a result to stdout: see [`process::tell`].
#[macro_export]
macro_rules! tell {
    ($($arg:tt)*) => {{
        use std::io::Write as _;
        $crate::process::tell(|out| writeln!(out, $($arg)*));
    }};
}

/// Choices that every command takes.
#[derive(clap::Args, Clone)]
pub struct Options {
    /// The emulator to use: a version (`7.2`, `10`) or a folder with `qemu-<machine>`; else the
    /// newest that can be had
    #[arg(long, global = true, env = "RT0_QEMU", value_name = "VERSION|PATH")]
    pub qemu: Option<String>,
    /// Take `core` from this place only, instead of trying them in this order
    #[arg(long, global = true, env = "RT0_CORE", value_name = "PLACE")]
    pub core: Option<Place>,
}

/// Where `core` can come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Place {
    /// The prebuilt one of the toolchain, fetched by rustup if need be
    Rustup,
    /// The toolchain's rust-src, compiled
    Source,
    /// Debian's rustc-web and rust-web-src, compiled
    Debian,
}
