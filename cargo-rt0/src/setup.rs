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

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::packages::{Apt, Stamp, checked, numbers, upstream};
use crate::targets::{Profile, TARGETS, Target};
use crate::{Options, Place, elf, process, say};

/// The oldest qemu that rt0's tests are known to pass under.
const QEMU_OLDEST: Version = Version((7, 2, 0));

/// The first qemu that emulates enough to be the default.
pub const QEMU_GOOD: Version = Version((10, 0, 0));

/// What helps when no emulator can be had.
const QEMU_MEND: &str = "a qemu-user of 7.2 or newer on PATH, or in the folder that `--qemu` names, mends it \
                         (on Debian: `apt-get install qemu-user` as root)";

/// A server that is there says what it has not before that.
const RUSTUP_ANSWERS: Duration = Duration::from_secs(20);

/// The oldest rustc that rt0 compiles with.
const RUSTC_OLDEST: (u32, u32, u32) = (1, 95, 0);

/// A machine that is ready: its `core` can be linked and its programs can be started.
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

/// A dotted version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub (u32, u32, u32));

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor, patch) = self.0;
        write!(f, "{major}.{minor}.{patch}")
    }
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
    pub fn qemu(&self) -> Option<Version> {
        match self.runner {
            Runner::Native => None,
            Runner::Qemu(_, version) => Some(version),
        }
    }
}

/// The pinned toolchain, as found.
pub struct Rust {
    /// The host's triple.
    pub host: String,
    /// `1.95.0`.
    pub release: String,
    /// Where it lives.
    pub sysroot: PathBuf,
}

/// What was found and fetched so far; each way is tried once per run.
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
}

/// Which toolchain is used: rustup's choice in a folder.
pub struct Toolchain {
    folder: PathBuf,
    /// The one that the command line or the environment names instead.
    named: Option<OsString>,
}

impl Toolchain {
    /// The one that this folder pins, whatever the user's environment says.
    pub fn pinned(folder: &Path) -> Toolchain {
        Toolchain { folder: folder.to_path_buf(), named: None }
    }

    /// The one that cargo itself would use here: `cargo +TOOLCHAIN` names it in the environment.
    pub fn chosen(folder: &Path) -> Toolchain {
        Toolchain { folder: folder.to_path_buf(), named: std::env::var_os(RUSTUP_TOOLCHAIN) }
    }

    /// A command in the folder, without the variables that `cargo run` and the user's environment
    /// would add.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.folder);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            let flags = name.ends_with("RUSTFLAGS") || name.ends_with("RUSTDOCFLAGS");
            let cargos =
                ["CARGO_BUILD_", "CARGO_TARGET_", "CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|p| name.starts_with(p));
            if flags || cargos || ["CARGO", "LD_LIBRARY_PATH", RUSTUP_TOOLCHAIN, "RUSTC_BOOTSTRAP"].contains(&&*name) {
                command.env_remove(&*name);
            }
        }
        command.envs(self.named.iter().map(|name| (RUSTUP_TOOLCHAIN, name)));
        command
    }
}

const RUSTUP_TOOLCHAIN: &str = "RUSTUP_TOOLCHAIN";

impl Setup {
    /// Looks at the toolchain; `cache` is where things are unpacked.
    pub fn new(options: Options, toolchain: Toolchain, cache: &Path) -> Result<Setup> {
        let mend = "install rustup; the compiler is the one that it chooses in this folder";
        let version = checked(toolchain.command("rustc").arg("-vV")).context(mend)?;
        let field = |name: &str| version.lines().find_map(|l| l.strip_prefix(name)).map(str::to_string);
        let sysroot = checked(toolchain.command("rustc").args(["--print", "sysroot"]))?;
        let rust = Rust {
            host: field("host: ").context("rustc -vV names no host")?,
            release: field("release: ").context("rustc -vV names no release")?,
            sysroot: PathBuf::from(sysroot.trim()),
        };
        if numbers(&rust.release) < RUSTC_OLDEST {
            bail!("rustc is {}, rt0 needs 1.95: `rustup update`; {mend}", rust.release);
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
        })
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
        Ok(linker)
    }

    /// A folder of libraries that crates over libc name: each is there and empty, so that what only
    /// names them links.
    pub fn empty_libraries(&self) -> Result<PathBuf> {
        let folder = self.folder.join("no-libc");
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        for name in ["c", "m", "rt", "pthread", "dl", "util"] {
            let archive = folder.join(format!("lib{name}.a"));
            if !archive.exists() {
                std::fs::write(&archive, "!<arch>\n").with_context(|| format!("cannot write {}", archive.display()))?;
            }
        }
        Ok(folder)
    }

    /// Gets the machines ready. One that cannot be is an error of its own and does not keep the
    /// others back.
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

    /// Held while something is unpacked: two runs at once would do it into each other's folders.
    pub fn lock(&self) -> Option<File> {
        self.lock_of("lock")
    }

    /// The same for what takes long, and goes on beside other runs.
    pub fn lock_of(&self, name: &str) -> Option<File> {
        let lock = File::create(self.folder.join(name)).and_then(|file| {
            if file.try_lock().is_err() {
                say!("waiting for another run, which holds {}", self.folder.join(name).display());
                file.lock()?;
            }
            Ok(file)
        });
        if let Err(error) = &lock {
            say!("going on without a lock on {}: {error}", self.folder.display());
        }
        lock.ok()
    }

    fn allowed(&self, place: Place) -> bool {
        self.options.core.is_none_or(|only| only == place)
    }

    // ---- core ----

    /// Whether the pinned toolchain has the target's core now.
    pub fn has_prebuilt(&self, target: &Target) -> bool {
        target.prebuilt && self.rust.sysroot.join("lib/rustlib").join(target.triple).join("lib").exists()
    }

    /// Whether the pinned toolchain has the source of core now.
    pub fn has_rust_src(&self) -> bool {
        self.rust.sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").exists()
    }

    /// Way 2, one call for each that lacks a prebuilt core: a call for several ends at the first
    /// that the server has not.
    fn rustup_targets(&self, targets: &[&'static Target]) {
        let lacking = targets.iter().filter(|t| t.prebuilt && !self.has_prebuilt(t)).map(|t| t.triple);
        let missing: BTreeSet<_> = lacking.filter(|_| self.allowed(Place::Rustup)).collect();
        for triple in missing {
            say!("prebuilt core: rustup target add {triple}");
            let started = Instant::now();
            if let Err(error) = checked(self.pinned("rustup").args(["target", "add", triple])) {
                say!("rustup cannot ({error:#}); going on to the source of core");
                if started.elapsed() > RUSTUP_ANSWERS {
                    break; // It would be the same with the others.
                }
            }
        }
    }

    fn core(&self, target: &Target) -> Result<Core> {
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
                say!("rustup cannot ({error:#}); going on to Debian's packages");
                return Err(error);
            }
        }
        Ok(())
    }

    /// Debian's rustc in the cache, unpacked now if it is not there; the result is the script that
    /// starts it.
    fn debian_rustc(&self) -> Result<PathBuf> {
        let folder = self.folder.join("rustc-web");
        let script = folder.join("rustc");
        if folder.exists() {
            let stamped = Stamp::contents(&folder);
            let runs = checked(Command::new(&script).arg("-V"));
            match (stamped, runs) {
                (Some(_), Ok(_)) => return Ok(script),
                (None, _) => say!("{} is from another release or tool: made anew", folder.display()),
                (_, Err(error)) => say!("{} does not run here ({error:#}): made anew", folder.display()),
            }
        }
        let apt = self.apt()?;
        // Rebuilt packages have a suffix that the source package lacks, so each is asked for its
        // own newest version.
        let newest = |name: &str| Ok::<_, anyhow::Error>(apt.versions(name)?.swap_remove(0));
        let version = newest("rustc-web")?;
        if upstream(&version) < RUSTC_OLDEST {
            bail!("Debian's rustc-web is {version}, rt0 needs 1.95");
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

    /// The machine's own packages.
    pub fn apt(&self) -> Result<&Apt> {
        let apt = self.apt.get_or_init(|| Apt::open(&self.folder).map_err(|e| format!("{e:#}")));
        apt.as_ref().map_err(|error| anyhow!("{error}"))
    }

    // ---- runners ----

    fn runner(&self, target: &Target) -> Result<Runner> {
        if self.runs_natively(target) {
            return Ok(Runner::Native);
        }
        self.qemu(target).with_context(|| format!("no emulator for {}", target.name))
    }

    fn runs_natively(&self, target: &Target) -> bool {
        // Of one kind, there are processors with less than the table's (32-bit Arm) and of the
        // other byte order (POWER). And a 64-bit x86 kernel may be built without support for 32-bit
        // programs: ask it.
        let asked = || target.name == "x86" && *self.runs_x86.get_or_init(|| self.probe_x86());
        target.native_on.contains(&std::env::consts::ARCH) && (one_processor(target.triple, &self.rust.host) || asked())
    }

    /// Starts a 32-bit program of a few bytes, which exits with 42.
    fn probe_x86(&self) -> bool {
        let row = TARGETS.iter().find(|t| t.name == "x86").expect("a row for x86");
        // mov eax, 1 (exit); mov ebx, 42; int 0x80
        let code = [0xb8, 1, 0, 0, 0, 0xbb, 42, 0, 0, 0, 0xcd, 0x80];
        let segments = [(object::elf::PT_LOAD, object::elf::PF_R | object::elf::PF_X, 0x0804_8000)];
        let program = elf::Image { elf: &row.elf, kind: object::elf::ET_EXEC, segments: &segments, code: &code };
        let path = self.folder.join(format!("probe-x86-{}", std::process::id()));
        let written = fs::write(&path, program.bytes());
        let written = written.and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)));
        let outcome = written.and_then(|()| process::run(&mut Command::new(&path), Duration::from_secs(10)));
        let _ = fs::remove_file(&path);
        let runs = outcome.is_ok_and(|o| o.status.code() == Some(42));
        if !runs {
            say!("this kernel runs no 32-bit x86 programs: x86 goes to the emulator");
        }
        runs
    }

    /// The emulator: the one asked for, or the newest that can be had.
    fn qemu(&self, target: &Target) -> Result<Runner> {
        let wish = self.options.qemu.as_deref();
        if let Some(folder) = wish.filter(|w| w.contains('/')) {
            let found = qemus_in(Path::new(folder), target.qemu);
            let best = newest(&found).with_context(|| format!("no {} that runs is in {folder}", target.qemu))?;
            return new_enough(best);
        }
        let mut found = self.local_qemus(target);
        let fits = |runner: &Runner| matches!(runner, Runner::Qemu(_, v) if wish.is_none_or(|w| is_version(w, *v)));
        found.retain(fits);
        let enough = |r: &Runner| wish.is_some() || runner_version(r) >= QEMU_GOOD;
        if !newest(&found).is_some_and(|r| enough(&r)) {
            match self.qemu_package.get_or_init(|| self.unpack_qemu().map_err(|e| format!("{e:#}"))) {
                Ok(folder) => found.extend(qemus_in(&folder.join("usr/bin"), target.qemu)),
                Err(error) if found.is_empty() => bail!("{error}\n{QEMU_MEND}"),
                Err(_) => {} // Said once, by unpack_qemu's caller below; an older one is there.
            }
        }
        let best = newest(&found).with_context(|| format!("no {} in the package", target.qemu))?;
        new_enough(best)
    }

    /// The emulators on PATH and in the cache.
    fn local_qemus(&self, target: &Target) -> Vec<Runner> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let on_path = std::env::split_paths(&path).flat_map(|folder| qemus_in(&folder, target.qemu));
        let cached = fs::read_dir(&self.folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let cached = cached.filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("qemu-")));
        let cached = cached.filter(|p| Stamp::contents(p).is_some());
        on_path.chain(cached.flat_map(|p| qemus_in(&p.join("usr/bin"), target.qemu))).collect()
    }

    /// Unpacks the newest static qemu-user (that fits the wish) from Debian's packages.
    fn unpack_qemu(&self) -> Result<PathBuf> {
        let attempt = || {
            let apt = self.apt()?;
            let wish = self.options.qemu.as_deref();
            let mut offers = Vec::new();
            let mut unknown = None;
            for package in ["qemu-user", "qemu-user-static"] {
                match apt.versions(package) {
                    Ok(versions) => offers.extend(versions.into_iter().map(|version| (package, version))),
                    Err(error) => unknown = Some(error),
                }
            }
            if let Some(error) = unknown.filter(|_| offers.is_empty()) {
                return Err(error);
            }
            offers.retain(|(_, version)| wish.is_none_or(|w| is_version(w, Version(upstream(version)))));
            offers.sort_by_key(|(_, version)| std::cmp::Reverse(upstream(version)));
            for (package, version) in offers {
                if apt.stands_alone(package, &version)? {
                    let folder = self.folder.join(format!("qemu-{}", Version(upstream(&version))));
                    say!("emulator: Debian's {package} {version}, into {}", folder.display());
                    let wanted = format!("{package}={version}");
                    apt.unpack(std::slice::from_ref(&wanted), &folder, 600, &Stamp::new(&wanted))?;
                    return Ok(folder);
                }
            }
            bail!("apt has no static qemu-user{}", wish.map_or(String::new(), |w| format!(" of version {w}")))
        };
        attempt().inspect_err(|error| say!("no newer emulator: {error:#}"))
    }

    /// A command for strace: the one on PATH, else the package's.
    pub fn strace(&self) -> Result<Command> {
        self.tool("strace", "strace", 50)
    }

    /// A command for gdb: the one on PATH, else that of the package without Python.
    pub fn gdb(&self) -> Result<Command> {
        self.tool("gdb", "gdb-minimal", 100)
    }

    /// A command for valgrind: the one on PATH, else the package's, without the script that looks
    /// for C++'s libraries.
    pub fn valgrind(&self) -> Result<Command> {
        if on_path("valgrind").is_some() {
            return Ok(Command::new("valgrind"));
        }
        let unpacked = self.tool("valgrind.bin", "valgrind", 150)?;
        let mut command = Command::new(unpacked.get_program());
        command.env("VALGRIND_LIB", self.folder.join("valgrind/usr/libexec/valgrind"));
        Ok(command)
    }

    /// Go's command: what `RT0_GO` says, or the one on PATH, or in target/setup/go.
    pub fn go(&self) -> Option<PathBuf> {
        let named = std::env::var_os("RT0_GO").map(PathBuf::from);
        let unpacked = || Some(self.folder.join("go/bin/go")).filter(|go| go.is_file());
        named.or_else(|| on_path("go")).or_else(unpacked)
    }

    /// A command for a program: the one on PATH, else that of one of Debian's packages.
    pub fn tool(&self, program: &str, package: &str, megabytes: u64) -> Result<Command> {
        if on_path(program).is_some() {
            return Ok(Command::new(program));
        }
        let folder = self.folder.join(package);
        if Stamp::contents(&folder).is_none() {
            say!("{program}: Debian's package {package}, into {}", folder.display());
            self.apt()?.unpack(&[package.to_string()], &folder, megabytes, &Stamp::new(package))?;
        }
        let mut command = Command::new(folder.join("usr/bin").join(program));
        command.env("LD_LIBRARY_PATH", folder.join("usr/lib").join(self.rust.host.replace("-unknown", "")));
        Ok(command)
    }
}

/// Starts Debian's rustc with its libraries, which nothing else may see.
const RUSTC_SCRIPT: &str = r#"#!/bin/sh
# Written by cargo-rt0.
here=${0%/*}
for lib in "$here"/usr/lib/*-linux-gnu*; do
    LD_LIBRARY_PATH=$lib exec "$here/usr/bin/rustc" "$@"
done
"#;

/// The emulators of this name in a folder that say which version they are.
fn qemus_in(folder: &Path, name: &str) -> Vec<Runner> {
    let files = [folder.join(name), folder.join(format!("{name}-static"))];
    let runner = |file: PathBuf| {
        let said = file.exists().then(|| checked(Command::new(&file).arg("--version")).ok())??;
        // qemu-mips version 10.0.2 (Debian 1:10.0.2+ds-2)
        let version = numbers(said.split_once("version ")?.1);
        Some(Runner::Qemu(file, Version(version)))
    };
    files.into_iter().filter_map(runner).collect()
}

fn newest(found: &[Runner]) -> Option<Runner> {
    found.iter().max_by_key(|runner| runner_version(runner)).cloned()
}

fn new_enough(runner: Runner) -> Result<Runner> {
    if runner_version(&runner) < QEMU_OLDEST {
        bail!("{runner} is too old, {QEMU_OLDEST} is needed: install a newer qemu-user, or give `--qemu PATH`");
    }
    Ok(runner)
}

/// Whether rustc's names are for the same processor: not `powerpc64le-` and `powerpc64-`, nor
/// `armv7-` and `arm-`.
fn one_processor(triple: &str, host: &str) -> bool {
    triple.split('-').next() == host.split('-').next()
}

fn runner_version(runner: &Runner) -> Version {
    match runner {
        Runner::Native => Version((0, 0, 0)),
        Runner::Qemu(_, version) => *version,
    }
}

/// Whether `7.2.22` is what was meant by `7.2`.
fn is_version(wish: &str, version: Version) -> bool {
    let full = version.to_string();
    full.strip_prefix(wish).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The file of a program that a shell would start.
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// What is there, and what other commands would fetch. `tools` are further programs, with what is
/// said if one is missing.
pub fn doctor(setup: &Setup, targets: &[&Target], tools: &[(&str, &str)]) -> ExitCode {
    let state = |there: bool, otherwise: &str| {
        if there { "there".to_string() } else { otherwise.to_string() }
    };
    let tool = |name: &str, otherwise: &str| match on_path(name) {
        Some(path) => path.display().to_string(),
        None => otherwise.to_string(),
    };
    println!("toolchain   {} for {}, in {}", setup.rust.release, setup.rust.host, setup.rust.sysroot.display());
    println!("linker      {}", setup.linker().map_or_else(|e| format!("{e:#}"), |path| path.display().to_string()));
    println!("cc          {}", tool("cc", "missing: build scripts need it; `apt-get install gcc libc6-dev` as root"));
    println!("rustup      {}", tool("rustup", "missing: no prebuilt core can be fetched"));
    println!("rust-src    {}", state(setup.has_rust_src(), "would be fetched: rustup component add rust-src"));
    println!("apt-get     {}", tool("apt-get", "missing: nothing can come from Debian's packages"));
    let web = Stamp::contents(&setup.folder.join("rustc-web"));
    println!("rustc-web   {}", state(web.is_some(), "not unpacked; only needed when rustup cannot help"));
    for (name, otherwise) in tools {
        println!("{name:<11} {}", tool(name, otherwise));
    }
    println!("cache       {} (may be deleted at any time)", setup.folder.display());
    println!();
    let (mut all_there, mut out_of_reach) = (true, false);
    for target in targets {
        let core = match (setup.has_prebuilt(target), target.prebuilt, setup.has_rust_src()) {
            (true, ..) => "core prebuilt".to_string(),
            (false, true, _) => format!("core would be fetched: rustup target add {}", target.triple),
            (false, false, true) => "core is compiled from rust-src".to_string(),
            (false, false, false) => "core would be compiled, from rust-src or Debian's rust-web-src".to_string(),
        };
        let best = setup.local_qemus(target).into_iter().max_by_key(runner_version);
        let runner = match best {
            _ if setup.runs_natively(target) => "runs natively".to_string(),
            Some(Runner::Qemu(path, version)) if version >= QEMU_GOOD => format!("qemu {version}: {}", path.display()),
            Some(Runner::Qemu(path, version)) => {
                format!("qemu {version}: {}, unless Debian's packages have a newer one", path.display())
            }
            _ if on_path("apt-get").is_some() => "qemu would be unpacked from Debian's packages".to_string(),
            _ => "no qemu, and no apt-get to fetch one".to_string(),
        };
        out_of_reach |= runner.starts_with("no qemu");
        all_there &= !core.contains("would") && !runner.contains("would");
        let profile = if target.profile == Profile::Dev { " (dev profile)" } else { "" };
        println!("{:<12} {}{profile}: {core}; {runner}", target.name, target.triple);
    }
    println!();
    println!("{}", if all_there { "Nothing would be fetched." } else { "A test run fetches what is missing." });
    if out_of_reach {
        println!("Not all can be fetched: {QEMU_MEND}.");
    }
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wished_version_may_be_a_prefix_but_not_of_a_number() {
        assert!(is_version("7.2", Version((7, 2, 22))));
        assert!(is_version("10", Version((10, 0, 2))));
        assert!(!is_version("1", Version((10, 0, 2))));
        assert!(!is_version("7.2", Version((7, 20, 0))));
    }

    #[test]
    fn programs_of_another_byte_order_or_a_newer_processor_go_to_the_emulator() {
        assert!(one_processor("x86_64-unknown-linux-gnu", "x86_64-unknown-linux-musl"));
        assert!(!one_processor("powerpc64le-unknown-linux-gnu", "powerpc64-unknown-linux-gnu"));
        assert!(!one_processor("armv7-unknown-linux-gnueabihf", "arm-unknown-linux-gnueabihf"));
    }

    #[test]
    fn an_emulator_that_is_too_old_is_refused_with_the_version_that_is_needed() {
        let old = Runner::Qemu(PathBuf::from("qemu-mips"), Version((5, 2, 0)));
        let said = new_enough(old).expect_err("too old").to_string();
        assert!(said.contains("qemu 5.2.0 is too old, 7.2.0 is needed"), "{said}");
    }

    #[test]
    fn an_emulator_that_is_not_there_is_not_found() {
        assert!(qemus_in(Path::new("/nonexistent"), "qemu-mips").is_empty());
    }
}
