//! Where a machine's `core` comes from: the four ways that [`super`] lists, one after the other.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use super::{Core, RUSTC_OLDEST, Setup};
use crate::packages::{Stamp, checked, upstream};
use crate::targets::Target;
use crate::{Place, say};

/// A server that is there says what it has not before that.
const RUSTUP_ANSWERS: Duration = Duration::from_secs(20);

impl Setup {
    /// Whether the pinned toolchain now has the target's core.
    pub fn has_prebuilt(&self, target: &Target) -> bool {
        target.prebuilt && self.rust.sysroot.join("lib/rustlib").join(target.triple).join("lib").exists()
    }

    /// Whether the pinned toolchain now has the source of core.
    pub fn has_rust_src(&self) -> bool {
        self.rust.sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").exists()
    }

    fn allowed(&self, place: Place) -> bool {
        self.options.core.is_none_or(|only| only == place)
    }

    /// Way 2, with one call for each target that lacks a prebuilt core: a call for several ends at
    /// the first one that the server lacks.
    pub(super) fn rustup_targets(&self, targets: &[&'static Target]) {
        let lacking = targets.iter().filter(|t| t.prebuilt && !self.has_prebuilt(t)).map(|t| t.triple);
        let missing: BTreeSet<_> = lacking.filter(|_| self.allowed(Place::Rustup)).collect();
        for triple in missing {
            say!("prebuilt core: rustup target add {triple}");
            let started = Instant::now();
            if let Err(error) = checked(self.pinned("rustup").args(["target", "add", triple])) {
                say!("rustup failed ({error:#}); trying the source of core");
                if started.elapsed() > RUSTUP_ANSWERS {
                    break; // The others would fail in the same way.
                }
            }
        }
    }

    pub(super) fn core(&self, target: &Target) -> Result<Core> {
        let mut failed = Vec::new();
        if self.allowed(Place::Rustup) {
            if self.has_prebuilt(target) {
                return Ok(Core::Prebuilt);
            }
            failed.push(match target.prebuilt {
                true => format!("`rustup target add {}` failed, see above", target.triple),
                false => "rustup has no prebuilt core for it".to_string(),
            });
        }
        if self.allowed(Place::Source) {
            match self.rust_src.get_or_init(|| self.add_rust_src().map_err(|e| format!("{e:#}"))) {
                Ok(()) => return Ok(Core::Source),
                Err(error) => failed.push(error.clone()),
            }
        }
        if self.allowed(Place::Debian) {
            match self.debian.get_or_init(|| self.debian_rustc().map_err(|e| format!("{e:#}"))) {
                Ok(rustc) => return Ok(Core::Debian(rustc.clone())),
                Err(error) => failed.push(error.clone()),
            }
        }
        let mend = "with a network, `rustup component add rust-src` in this folder mends it";
        Err(anyhow!("no core for {}; tried were:\n- {}\n{mend}", target.triple, failed.join("\n- ")))
    }

    fn add_rust_src(&self) -> Result<()> {
        if !self.has_rust_src() {
            say!("source of core: rustup component add rust-src");
            if let Err(error) = checked(self.pinned("rustup").args(["component", "add", "rust-src"])) {
                say!("rustup failed ({error:#}); trying Debian's packages");
                return Err(error);
            }
        }
        Ok(())
    }

    /// Debian's rustc in the cache, where it is unpacked if it is missing. The result is the script
    /// that starts it.
    fn debian_rustc(&self) -> Result<PathBuf> {
        let folder = self.folder.join("rustc-web");
        let script = folder.join("rustc");
        if folder.exists() {
            let stamped = Stamp::contents(&folder);
            let runs = checked(Command::new(&script).arg("-V"));
            match (stamped, runs) {
                (Some(_), Ok(_)) => return Ok(script),
                (None, _) => say!("{} is from another release or tool, so it is made again", folder.display()),
                (_, Err(error)) => say!("{} does not run here ({error:#}), so it is made again", folder.display()),
            }
        }
        let apt = self.apt()?;
        // Rebuilt packages have a suffix that the source package lacks, so each is asked for its
        // own newest version.
        let newest = |name: &str| Ok::<_, anyhow::Error>(apt.versions(name)?.swap_remove(0));
        let version = newest("rustc-web")?;
        if upstream(&version) < RUSTC_OLDEST {
            bail!("Debian's rustc-web is {version}, rt0 needs {}.{}", RUSTC_OLDEST.major, RUSTC_OLDEST.minor);
        }
        say!("compiler: Debian's rustc-web {version}, into {}", folder.display());
        let mut packages = Vec::new();
        for name in ["rustc-web", "libstd-rust-web-dev", "rust-web-src"] {
            packages.push(format!("{name}={}", newest(name)?));
        }
        apt.unpack(&packages, &folder, 1300, &Stamp::new(&packages.join("\n")))?;
        fs::write(&script, RUSTC_SCRIPT)?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        checked(Command::new(&script).arg("-V")).context("the unpacked compiler does not run")?;
        Ok(script)
    }
}

/// Starts Debian's rustc with its own libraries, which no other program may load.
const RUSTC_SCRIPT: &str = r#"#!/bin/sh
# Written by cargo-rt0.
here=${0%/*}
for lib in "$here"/usr/lib/*-linux-gnu*; do
    LD_LIBRARY_PATH=$lib exec "$here/usr/bin/rustc" "$@"
done
"#;
