//! Links a package's programs on rt0: one line of the package's `build.rs`.
//!
//! ```no_run
//! rt0_build::program();
//! ```
//!
//! The package has `rt0` among its `[dependencies]` and `rt0-build` among its
//! `[build-dependencies]`, and the profiles of its workspace have `panic = "abort"`. Cargo passes
//! the linker's arguments to the binaries and the examples of this package alone: libraries, tests
//! and other packages of the workspace are left as they are.
//!
//! It works natively and for other machines, with the linker that comes with Rust. What is missing
//! is a message that begins with `rt0:` and says what to do.

mod linker;
mod manifest;

use std::env;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::exit;

use linker::{Linker, Script};
use manifest::Package;

/// Links all binaries and examples of the package on rt0. Called from the package's build script.
///
/// What is missing ends the build script with a message and status 1.
pub fn program() {
    Program::new().link();
}

/// The programs of a package, and how they are linked. Without choices it is what [`program`] does.
#[derive(Clone, Debug, Default)]
#[must_use = "nothing is linked before `link` is called"]
pub struct Program {
    small: bool,
    bins: Vec<String>,
}

impl Program {
    /// All binaries and examples, with everything that debuggers read.
    pub fn new() -> Program {
        Program::default()
    }

    /// As few bytes as can be: code and constants in one segment, no unwind tables, no section
    /// headers. There is rt0's `thread_local!`, but no `#[thread_local]` of the compiler's and no
    /// `__thread` of C's.
    pub fn small(mut self) -> Program {
        self.small = true;
        self
    }

    /// Only the binary of this name, and others that are named so; the package's other programs use
    /// std.
    pub fn bin(mut self, name: impl Into<String>) -> Program {
        self.bins.push(name.into());
        self
    }

    /// Tells cargo. What is missing ends the build script with a message and status 1.
    pub fn link(self) {
        if let Err(message) = self.try_link() {
            // Cargo shows what a build script that fails writes here.
            eprintln!("\nrt0: {message}\n");
            exit(1);
        }
    }

    fn try_link(&self) -> Result<(), String> {
        let folder = variable("CARGO_MANIFEST_DIR")?;
        let package = Package::read(Path::new(&folder))?;
        let scripts = env::var_os("DEP_RT0_SCRIPTS").map(PathBuf::from).ok_or_else(|| {
            format!(
                "the package `{}` calls rt0_build and does not depend on rt0: put rt0 under [dependencies]",
                package.name
            )
        })?;
        if variable("CARGO_CFG_TARGET_OS")? != "linux" {
            return Err(format!("programs on rt0 are for Linux, and this target is {}", variable("TARGET")?));
        }
        let kinds = self.kinds(&package)?;
        let (linker, script) = Linker::find()?;
        let arguments = match script {
            Script::None => linker.arguments(&scripts, self.small)?,
            Script::Default => linker.arguments_beside_script(&scripts, self.small),
            Script::Fixed => {
                if self.small {
                    println!("cargo::warning=rt0: the flags name a linker script, so `small()` has no effect");
                }
                linker.arguments_beside_script(&scripts, false)
            }
        };
        for kind in kinds {
            for argument in &arguments {
                println!("cargo::rustc-link-arg-{kind}{argument}");
            }
        }
        Ok(())
    }

    /// Which of the package's programs the arguments are for, as the instruction to cargo names
    /// them.
    fn kinds(&self, package: &Package) -> Result<Vec<String>, String> {
        for name in &self.bins {
            let found = package.bins.iter().any(|bin| bin.name == *name);
            if !found && !package.bins.is_empty() {
                let names: Vec<_> = package.bins.iter().map(|bin| bin.name.as_str()).collect();
                let list = names.join("`, `");
                return Err(format!("the package `{}` has no binary `{name}`; it has `{list}`", package.name));
            }
        }
        let chosen = |name: &str| self.bins.is_empty() || self.bins.iter().any(|bin| bin == name);
        for bin in package.bins.iter().filter(|bin| chosen(&bin.name)) {
            bin.check()?;
        }
        if package.bins.is_empty() && !package.has_examples {
            return Err(format!(
                "the package `{}` has neither a binary nor an example: rt0_build is for programs, and a library on rt0 \
                 needs no build script",
                package.name
            ));
        }
        if !self.bins.is_empty() {
            return Ok(self.bins.iter().map(|name| format!("bin={name}=")).collect());
        }
        let mut kinds = Vec::new();
        if !package.bins.is_empty() {
            kinds.push("bins=".to_string());
        }
        if package.has_examples {
            kinds.push("examples=".to_string());
        }
        Ok(kinds)
    }
}

/// A variable that cargo sets for build scripts.
fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("{name} is not set: rt0_build is called from a build script that cargo runs"))
}

/// A message about a file.
fn about(path: &Path, error: impl Display) -> String {
    format!("{}: {error}", path.display())
}
