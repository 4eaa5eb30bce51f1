//! This repository: its folder, the toolchain that it pins, and where its files go.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use cargo_rt0::Options;
use cargo_rt0::setup::{Setup, Toolchain};

/// The repository's folder.
pub fn root() -> &'static Path {
    // Set by cargo when it built this program; cargo rebuilds it when the repository moves.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask/ lies in the repository")
}

/// Finds the toolchain that this repository pins; everything else is set up in target/setup.
pub fn set_up(options: Options) -> Result<Setup> {
    Setup::new(options, Toolchain::pinned(root()), &root().join("target/setup"))
}

/// A command for the toolchain that this repository pins, without influence of the user's
/// environment.
pub fn pinned(program: &str) -> Command {
    Toolchain::pinned(root()).command(program)
}

/// Makes an empty folder for the files of one test.
pub fn scratch(name: &str) -> std::io::Result<PathBuf> {
    let folder = root().join("target/test-tmp").join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}
