//! Kernels that no distribution has, built from Debian's source of Linux with Debian's cross
//! compilers.
//!
//! The configuration is `allnoconfig` with two files of xtask/kernels on top: `common.config` and
//! the row's own, which has the last word. What comes out is kept with all that it was made of: the
//! series of the source, the compiler, the way it is built and the configuration. When one of them
//! changes, the kernel is built anew. A newer version of the same source alone is no reason.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cargo_rt0::packages::{Stamp, check_room, checked, checked_within};
use cargo_rt0::setup::{Setup, on_path};
use cargo_rt0::{process, say};

use crate::repository::root;

/// A kernel to build.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// The file in xtask/kernels, without `.config`.
    pub config: &'static str,
    /// The kernel's name for the machine.
    pub arch: &'static str,
    /// What the compiler's name begins with, before `-gcc`.
    pub cross: &'static str,
    /// What make is asked for.
    pub make: &'static [&'static str],
    /// The file that qemu is to boot, in the folder of the build.
    pub image: &'static str,
    /// The description of the board, there too.
    pub dtb: Option<&'static str>,
}

/// Held while a kernel is built.
const LOCK: &str = "kernels.lock";

/// The package of the source.
const PACKAGE: &str = "linux-source-6.12";

/// On two processors it takes four minutes.
const LIMIT: Duration = Duration::from_secs(60 * 60);

/// What the kernel's build needs beside a compiler for the host.
const TOOLS: [&str; 4] = ["bison", "flex", "bc", "m4"];

/// What a build takes beside source and compiler.
const BUILD_MEGABYTES: u64 = 400;

/// So many lines of a build that failed are shown, its last.
const SHOWN: usize = 20;

impl Source {
    /// Both files as one: an option for each line.
    fn fragment(&self) -> Result<String> {
        let mut text = String::new();
        for name in ["common", self.config] {
            let path = root().join("xtask/kernels").join(format!("{name}.config"));
            text += &fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            text.push('\n');
        }
        Ok(options(&text).iter().map(|(name, value)| format!("{name}={value}\n")).collect())
    }

    /// What a kernel is kept with, but for its version. The stamp adds Debian's release.
    fn key(&self, fragment: &str) -> Result<String> {
        let compiler = match on_path(&format!("{}-gcc", self.cross)) {
            Some(own) => checked(Command::new(own).arg("--version"))?.lines().next().unwrap_or_default().to_string(),
            None => format!("gcc-{} of this release", self.cross),
        };
        let Source { config, arch, make, image, dtb, .. } = self;
        Ok(format!("{PACKAGE} {config} ARCH={arch} {make:?} {image} {dtb:?}\n{compiler}\n{fragment}"))
    }

    /// The kernel in the cache, built if it is not there as it would be built now: its folder, and
    /// its version.
    pub fn kernel(&self, setup: &Setup) -> Result<(PathBuf, String)> {
        let _kernels = setup.lock_of(LOCK);
        let folder = setup.folder.join("kernels").join(format!("built-{}", self.config));
        let fragment = self.fragment()?;
        let key = self.key(&fragment)?;
        if let Some(version) = kept(&folder, &key) {
            return Ok((folder, version));
        }
        let lock = setup.lock();
        let (tree, version) = source(setup)?;
        let tools = tools(setup)?;
        let compiler = compiler(setup, self.cross)?;
        drop(lock);
        check_room(&setup.folder, BUILD_MEGABYTES)?;
        say!("kernel: building Linux {version} for {}, which takes minutes", self.config);
        let started = Instant::now();
        let parts = Parts { tree, version, tools, compiler };
        let partial = folder.with_extension("partial");
        let _ = fs::remove_dir_all(&partial); // What an interrupted run left.
        if let Err(error) = self.build(setup, &partial, &parts, &fragment, &key) {
            let _ = fs::remove_dir_all(&partial);
            return Err(error.context(Broken(self.config)));
        }
        let _ = fs::remove_dir_all(&folder);
        fs::rename(&partial, &folder)?;
        say!("kernel: built in {} s", started.elapsed().as_secs());
        Ok((folder, parts.version))
    }

    /// Builds it in a folder, which has the kernel and its stamp then.
    fn build(&self, setup: &Setup, partial: &Path, parts: &Parts, fragment: &str, key: &str) -> Result<()> {
        let Parts { tree, version, tools, compiler } = parts;
        let build = partial.join("build");
        fs::create_dir_all(&build).with_context(|| format!("cannot write to {}", build.display()))?;
        fs::write(partial.join("fragment"), fragment)?;
        let log = partial.with_extension("log");
        let multiarch = setup.rust.host.replace("-unknown", "");
        let make = |words: &[&str]| {
            let mut command = Command::new("make");
            command.arg("-C").arg(tree).arg(format!("O={}", build.display())).arg(format!("ARCH={}", self.arch));
            command.arg(format!("CROSS_COMPILE={}", compiler.display()));
            command.arg(format!("KCONFIG_ALLCONFIG={}", partial.join("fragment").display()));
            command.arg(format!("-j{}", std::thread::available_parallelism().map_or(1, usize::from))).args(words);
            tools.environment(&mut command);
            // The unpacked compiler's assembler and linker have libraries of their own.
            let libraries = compiler.parent().and_then(|bin| bin.parent()).map(|usr| usr.join("lib").join(&multiarch));
            if let Some(libraries) = libraries.filter(|folder| folder.starts_with(&setup.folder)) {
                command.env("LD_LIBRARY_PATH", libraries);
            }
            logged(&mut command, &log)
        };
        make(&["allnoconfig"])?;
        let missing = unheard(fragment, &fs::read_to_string(build.join(".config"))?);
        ensure!(
            missing.is_empty(),
            "Linux {version} does not take {}; mend xtask/kernels/{}.config, where NAME=n leaves out what common.config \
             has",
            missing.join(", "),
            self.config
        );
        make(self.make)?;
        fs::rename(build.join(self.image), partial.join("kernel")).context("the build left no kernel")?;
        if let Some(dtb) = self.dtb {
            fs::rename(build.join(dtb), partial.join("dtb")).context("the build left no description of the board")?;
        }
        fs::remove_dir_all(&build)?;
        fs::remove_file(&log)?;
        Stamp::new(&format!("{version}\n{key}")).write(partial)
    }
}

/// What a kernel is built of.
struct Parts {
    tree: PathBuf,
    version: String,
    tools: Tools,
    /// Its path without the last part, `gcc`.
    compiler: PathBuf,
}

/// In an error: everything was there for the kernel of this configuration, and it was not built.
#[derive(Debug)]
pub struct Broken(&'static str);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not built; the next run fetches source and compiler anew", self.0)
    }
}

/// The version of a kernel that was built as `key` says.
fn kept(folder: &Path, key: &str) -> Option<String> {
    let stamp = Stamp::contents(folder)?;
    let (version, rest) = stamp.split_once('\n')?;
    (rest.trim() == key.trim()).then(|| version.to_string())
}

/// Runs a command that says much. All of it is in `log`, and the last of it in the error.
fn logged(command: &mut Command, log: &Path) -> Result<()> {
    let at = log.display();
    let file = File::create(log).with_context(|| format!("cannot write to {at}"))?;
    let outcome = process::run_shown(command.stdout(file.try_clone()?).stderr(file), LIMIT)
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    if outcome.status.success() && !outcome.timed_out {
        return Ok(());
    }
    let ended = if outcome.timed_out { "took too long".to_string() } else { outcome.status.to_string() };
    let said = String::from_utf8_lossy(&fs::read(log)?).into_owned();
    let lines: Vec<_> = said.lines().collect();
    bail!(
        "`{}`: {ended}; all that it said is in {at}, which ends:\n{}",
        process::shell_line(command),
        lines[lines.len().saturating_sub(SHOWN)..].join("\n")
    );
}

/// The options of a configuration and their values. The last line of an option counts.
fn options(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter(|line| line.starts_with("CONFIG_")).filter_map(|line| line.split_once('=')).collect()
}

/// The options of a fragment that are not in the configuration as they are wanted. One that is off
/// is not in it.
fn unheard(fragment: &str, config: &str) -> Vec<String> {
    let there = options(config);
    let wanted = options(fragment);
    let missing = wanted.iter().filter(|(name, value)| there.get(*name).unwrap_or(&"n") != *value);
    missing.map(|(name, value)| format!("{name}={value}")).collect()
}

/// The unpacked source, and its version.
fn source(setup: &Setup) -> Result<(PathBuf, String)> {
    let folder = setup.folder.join("linux-source");
    if Stamp::contents(&folder).is_none() {
        let apt = setup.apt()?;
        let version = apt.versions(PACKAGE)?.swap_remove(0);
        let package = format!("{PACKAGE}={version}");
        say!("source of Linux: Debian's {package}, into {}", folder.display());
        let partial = folder.with_extension("unpacking");
        let _ = fs::remove_dir_all(&partial); // What an interrupted run left.
        apt.extract(&package, &["./usr/src/linux-source-*.tar.xz"], &partial, 2500)?;
        let archive = fs::read_dir(partial.join("usr/src"))?.flatten().map(|entry| entry.path()).next();
        let archive = archive.context("the package has no archive")?;
        let mut tar = Command::new("tar");
        tar.arg("-x").arg("-f").arg(&archive).arg("-C").arg(&partial).arg("--strip-components=1");
        checked_within(&mut tar, LIMIT)?;
        fs::remove_dir_all(partial.join("usr/src"))?;
        Stamp::new(&version).write(&partial)?;
        let _ = fs::remove_dir_all(&folder); // Of another release or format.
        fs::rename(&partial, &folder)?;
    }
    let version = Stamp::contents(&folder).context("it was just written")?;
    Ok((folder, version.split('-').next().unwrap_or_default().to_string()))
}

/// Removes source and compilers, which are twenty times the size of all that is built from them.
pub fn clean_up(setup: &Setup) {
    let _kernels = setup.lock_of(LOCK);
    for entry in fs::read_dir(&setup.folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_ours = name == "linux-source" || name.to_string_lossy().starts_with("gcc-");
        if is_ours && let Err(error) = fs::remove_dir_all(entry.path()) {
            say!("{} is left: {error}", entry.path().display());
        }
    }
}

/// What the build needs of the host.
struct Tools(Option<PathBuf>, String);

impl Tools {
    /// Lets a command find them. Two of them look for their own parts where they would be
    /// installed.
    fn environment(&self, command: &mut Command) {
        let Tools(Some(folder), path) = self else { return };
        command.env("PATH", format!("{}:{path}", folder.join("usr/bin").display()));
        command.env("M4", folder.join("usr/bin/m4")).env("BISON_PKGDATADIR", folder.join("usr/share/bison"));
    }
}

fn tools(setup: &Setup) -> Result<Tools> {
    let path = std::env::var("PATH").unwrap_or_default();
    for program in ["make", "cc"] {
        ensure!(on_path(program).is_some(), "{program} is needed to build a kernel: apt-get install make gcc, as root");
    }
    if TOOLS.iter().all(|tool| on_path(tool).is_some()) {
        return Ok(Tools(None, path));
    }
    let folder = setup.folder.join("kernel-tools");
    if Stamp::contents(&folder).is_none() {
        say!("tools to build kernels: Debian's {}, into {}", TOOLS.join(", "), folder.display());
        let packages = TOOLS.map(str::to_string);
        setup.apt()?.unpack(&packages, &folder, 50, &Stamp::new(&TOOLS.join(" ")))?;
    }
    Ok(Tools(Some(folder), path))
}

/// The path of a cross compiler without its last part, `gcc`.
fn compiler(setup: &Setup, cross: &str) -> Result<PathBuf> {
    let name = format!("{cross}-gcc");
    if let Some(found) = on_path(&name) {
        return Ok(found.with_file_name(format!("{cross}-")));
    }
    let folder = setup.folder.join(format!("gcc-{cross}"));
    if Stamp::contents(&folder).is_none() {
        let package = format!("gcc-{cross}");
        say!("compiler: Debian's {package}, into {}", folder.display());
        // Not what a program of that machine needs: a kernel has no library.
        setup.apt()?.unpack(std::slice::from_ref(&package), &folder, 500, &Stamp::new(&package))?;
    }
    if !folder.join("usr/bin").join(&name).exists() {
        bail!("the package has no {name}");
    }
    Ok(folder.join("usr/bin").join(format!("{cross}-")))
}

/// Whether the configuration is there, for the test of the table.
#[cfg(test)]
pub fn has_config(name: &str) -> bool {
    root().join("xtask/kernels").join(format!("{name}.config")).is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_that_fails_shows_its_end_and_where_the_rest_is() {
        let log = std::env::temp_dir().join(format!("rt0-build-{}.log", std::process::id()));
        let mut sh = Command::new("sh");
        sh.args(["-c", "for i in $(seq 100); do echo line $i; done; echo no such tool >&2; exit 2"]);
        let said = logged(&mut sh, &log).expect_err("it fails").to_string();
        assert!(said.contains(&log.display().to_string()) && said.contains("exit status: 2"), "{said}");
        assert!(said.contains("line 82\n") && !said.contains("line 81\n"), "{said}");
        assert!(said.ends_with("line 100\nno such tool"), "{said}");
        assert!(fs::read_to_string(&log).expect("the log is there").starts_with("line 1\n"));
        assert!(logged(&mut Command::new("true"), &log).is_ok());
        fs::remove_file(&log).expect("ours");
    }

    #[test]
    fn a_build_that_fails_is_told_from_a_kernel_that_cannot_be_had() {
        let broken = anyhow::anyhow!("no rule").context(Broken("mips")).context("no kernel");
        assert!(broken.is::<Broken>() && format!("{broken:#}").contains("mips is not built"), "{broken:#}");
        assert!(!anyhow::anyhow!("no make").context("no kernel").is::<Broken>());
    }

    #[test]
    fn a_kernel_is_used_only_for_what_it_was_built_of() {
        let folder = std::env::temp_dir().join(format!("rt0-built-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        assert_eq!(kept(&folder, "key\nCONFIG_A=y\n"), None);
        Stamp::new("6.12.95-1\nkey\nCONFIG_A=y\n").write(&folder).expect("a stamp");
        assert_eq!(kept(&folder, "key\nCONFIG_A=y\n").as_deref(), Some("6.12.95-1"));
        assert_eq!(kept(&folder, "key\nCONFIG_A=n\n"), None);
        assert_eq!(kept(&folder, "other\nCONFIG_A=y\n"), None);
        fs::remove_dir_all(&folder).expect("ours");
    }

    #[test]
    fn what_a_configuration_did_not_take_is_named() {
        let fragment =
            "# a comment\nCONFIG_A=y\nCONFIG_B=\"x\"\nCONFIG_C=n\nCONFIG_D=n\nCONFIG_E=y\nCONFIG_F=y\nCONFIG_F=n\n";
        let config = "CONFIG_A=y\nCONFIG_B=\"x\"\n# CONFIG_C is not set\nCONFIG_D=y\nCONFIG_EE=y\n";
        assert_eq!(unheard(fragment, config), ["CONFIG_D=n", "CONFIG_E=y"]);
    }
}
