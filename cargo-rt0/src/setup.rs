//! Where `core` and the emulator for a machine come from.
//!
//! `core`, in this order, until one works:
//! 1. the prebuilt one of the pinned toolchain, if it is installed;
//! 2. the same, fetched by `rustup target add`;
//! 3. compiled from the pinned toolchain's rust-src, which `rustup component add` fetches if need
//!    be;
//! 4. compiled by Debian's rustc-web from rust-web-src, unpacked into the cache (see packages.rs).
//!
//! The emulator: the newest qemu-user among those on PATH, in the cache, and (if these are older
//! than 10, which is the first with a vDSO) in Debian's packages. The linker is always the rust-lld
//! of the pinned toolchain.

mod cores;
mod doctor;
mod emulators;
mod lock;
mod toolchain;
mod tools;

use std::cell::OnceCell;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use anyhow::{Context, Result, anyhow, bail};

use crate::packages::{Apt, checked, numbers};
use crate::targets::{Gap, Target};
use crate::{Options, say};

pub use doctor::doctor;
pub use semver::Version;
pub use toolchain::Toolchain;
pub use tools::on_path;

use lock::Locks;

/// The first qemu that emulates enough to be the default.
pub const QEMU_GOOD: Version = Version::new(10, 0, 0);

/// The oldest rustc that rt0 compiles with.
const RUSTC_OLDEST: Version = Version::new(1, 95, 0);

/// A machine that is ready: programs can be built for it and started.
#[derive(Debug)]
pub struct Machine {
    /// Its row in the table.
    pub target: &'static Target,
    /// Where its `core` comes from.
    pub core: Core,
    /// What starts its programs.
    pub runner: Runner,
}

/// Where a machine's `core` comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Core {
    /// The pinned toolchain has it.
    Prebuilt,
    /// It is compiled by the pinned toolchain.
    Source,
    /// It is compiled by the unpacked packages' rustc, started through this script.
    Debian(PathBuf),
}

/// What starts a machine's programs.
#[derive(Clone, Debug)]
pub enum Runner {
    /// The kernel.
    Native,
    /// qemu-user.
    Qemu(PathBuf, Version),
}

impl fmt::Display for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Core::Prebuilt => "prebuilt",
            Core::Source => "from rust-src",
            Core::Debian(_) => "from Debian's rust-web-src",
        })
    }
}

impl fmt::Display for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Runner::Native => f.write_str("native"),
            Runner::Qemu(_, version) => write!(f, "qemu {version}"),
        }
    }
}

impl Machine {
    /// The command that starts `program` on this machine; arguments for the program may follow.
    pub fn command(&self, program: &Path) -> Command {
        match &self.runner {
            Runner::Native => Command::new(program),
            Runner::Qemu(qemu, _) => {
                let mut command = Command::new(qemu);
                command.args(self.target.qemu_args).arg(program);
                command
            }
        }
    }

    /// The emulator's version, if there is an emulator.
    pub fn qemu(&self) -> Option<&Version> {
        match &self.runner {
            Runner::Native => None,
            Runner::Qemu(_, version) => Some(version),
        }
    }

    /// The reason why no test is run, if the emulator is wrong in something that nearly every
    /// program needs.
    pub fn unfit(&self) -> Option<&'static str> {
        self.target.unfit(self.qemu()?)
    }

    /// The emulator's known gap that covers the test `name` (`bin::name`).
    pub fn gap(&self, name: &str) -> Option<&'static Gap> {
        self.target.gap(name, self.qemu()?)
    }
}

/// The pinned toolchain, as found.
pub struct Rust {
    /// The host's triple.
    pub host: String,
    /// `1.95.0`.
    pub release: String,
    /// Its folder.
    pub sysroot: PathBuf,
}

/// What was found and fetched so far. Each source is tried once in a run.
pub struct Setup {
    options: Options,
    /// The pinned toolchain.
    pub rust: Rust,
    toolchain: Toolchain,
    /// The cache: what was unpacked. It may be deleted at any time.
    pub folder: PathBuf,
    rust_src: OnceCell<Result<(), String>>,
    debian: OnceCell<Result<PathBuf, String>>,
    apt: OnceCell<Result<Apt, String>>,
    qemu_package: OnceCell<Result<PathBuf, String>>,
    runs_x86: OnceCell<bool>,
    locks: Locks,
}

impl Setup {
    /// Finds the toolchain. Packages are unpacked in `cache`.
    pub fn new(options: Options, toolchain: Toolchain, cache: &Path) -> Result<Setup> {
        let version = checked(toolchain.command("rustc").arg("-vV"))
            .context("no compiler can be started in this folder: install rustup, which chooses it")?;
        let field = |name: &str| version.lines().find_map(|l| l.strip_prefix(name)).map(str::to_string);
        let sysroot = checked(toolchain.command("rustc").args(["--print", "sysroot"]))?;
        let rust = Rust {
            host: field("host: ").context("rustc -vV names no host")?,
            release: field("release: ").context("rustc -vV names no release")?,
            sysroot: PathBuf::from(sysroot.trim()),
        };
        if numbers(&rust.release) < RUSTC_OLDEST {
            bail!(
                "rustc is {} in this folder, rt0 needs {}.{}: `rustup update`; `rustup show` says why it is that one",
                rust.release,
                RUSTC_OLDEST.major,
                RUSTC_OLDEST.minor
            );
        }
        for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"].iter().filter(|name| std::env::var_os(name).is_some()) {
            say!(
                "{name} is set and not used: each machine has its own flags, and one for all would rebuild every core"
            );
        }
        fs::create_dir_all(cache).with_context(|| format!("cannot write to {}", cache.display()))?;
        Ok(Setup {
            options,
            rust,
            toolchain,
            folder: cache.to_path_buf(),
            rust_src: OnceCell::new(),
            debian: OnceCell::new(),
            apt: OnceCell::new(),
            qemu_package: OnceCell::new(),
            runs_x86: OnceCell::new(),
            locks: Locks::new(cache),
        })
    }

    /// What the command line chose.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// A command for the pinned toolchain.
    pub fn pinned(&self, program: &str) -> Command {
        self.toolchain.command(program)
    }

    /// The pinned toolchain's linker, the only one that is used.
    pub fn linker(&self) -> Result<PathBuf> {
        let linker = self.rust.sysroot.join("lib/rustlib").join(&self.rust.host).join("bin/rust-lld");
        if !linker.exists() {
            bail!("there is no {}: the toolchain is not rustup's; install that one", linker.display());
        }
        nameable(&linker)?;
        Ok(linker)
    }

    /// A folder with empty libraries of the names that crates over libc link: so a crate links that
    /// only names them. It has the libraries of rt0's build script except gcc_s: if std is linked,
    /// that one is missing, and the linker's message about it has advice.
    pub fn empty_libraries(&self) -> Result<PathBuf> {
        let folder = self.folder.join("no-libc");
        nameable(&folder)?;
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        for name in ["c", "m", "rt", "pthread", "dl", "util", "gcc", "gcc_eh", "unwind"] {
            let archive = folder.join(format!("lib{name}.a"));
            // An earlier run may have written a part of it, to a full disk.
            if std::fs::read(&archive).ok().as_deref() != Some(b"!<arch>\n") {
                std::fs::write(&archive, "!<arch>\n").with_context(|| format!("cannot write {}", archive.display()))?;
            }
        }
        Ok(folder)
    }

    /// Makes the machines ready. A machine for which that fails is an error in the list; the others
    /// are made ready nevertheless.
    pub fn machines(&self, targets: &[&'static Target]) -> Vec<(&'static Target, Result<Machine>)> {
        let _lock = self.lock();
        self.rustup_targets(targets);
        let ready = |target: &'static Target| {
            let core = self.core(target)?;
            let runner = self.runner(target)?;
            Ok(Machine { target, core, runner })
        };
        targets.iter().map(|&target| (target, ready(target))).collect()
    }

    /// The lock for unpacking, without which two runs would write to the same folders. A caller
    /// that holds it may acquire it again.
    pub fn lock(&self) -> Option<Rc<File>> {
        self.locks.lock()
    }

    /// A lock for work that takes long, while other runs continue. A caller that holds it must not
    /// acquire it again.
    pub fn lock_of(&self, name: &str) -> Option<File> {
        self.locks.lock_of(name)
    }

    /// The machine's own packages.
    pub fn apt(&self) -> Result<&Apt> {
        let apt = self.apt.get_or_init(|| Apt::open(&self.folder).map_err(|e| format!("{e:#}")));
        apt.as_ref().map_err(|error| anyhow!("{error}"))
    }
}

/// An error for a path that is not UTF-8: cargo cannot have it in its settings and messages.
pub(crate) fn nameable(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8, and cargo needs that: use another folder", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_no_text_is_refused_and_one_with_spaces_is_not() {
        use std::os::unix::ffi::OsStrExt;
        assert_eq!(nameable(Path::new("/a b/é")).expect("text"), "/a b/é");
        let path = Path::new(std::ffi::OsStr::from_bytes(b"/a\xff"));
        let said = nameable(path).expect_err("no text").to_string();
        assert!(said.contains("is not UTF-8, and cargo needs that"), "{said}");
    }
}
