//! Kernels that no distribution has, built from Debian's source of Linux with Debian's cross
//! compilers.
//!
//! The configuration is `allnoconfig` with two files of xtask/kernels on top: `common.config` and
//! the row's own. What comes out is kept by the version of the source and the text of both files.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use cargo_rt0::packages::{Stamp, checked_within};
use cargo_rt0::say;
use cargo_rt0::setup::{Setup, on_path};

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

impl Source {
    /// The files of the configuration, one behind the other.
    fn fragment(&self) -> Result<String> {
        let mut text = String::new();
        for name in ["common", self.config] {
            let path = root().join("xtask/kernels").join(format!("{name}.config"));
            text += &fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        }
        Ok(text)
    }

    /// The kernel in the cache, built if it is not there for this configuration: its folder, and
    /// its version.
    pub fn kernel(&self, setup: &Setup) -> Result<(PathBuf, String)> {
        let _kernels = setup.lock_of(LOCK);
        let folder = setup.folder.join("kernels").join(format!("built-{}", self.config));
        let fragment = self.fragment()?;
        if let Some(stamp) = Stamp::contents(&folder)
            && let Some((version, rest)) = stamp.split_once('\n')
            && rest.trim() == fragment.trim()
        {
            return Ok((folder, version.to_string()));
        }
        let lock = setup.lock();
        let (tree, version) = source(setup)?;
        let tools = tools(setup)?;
        let compiler = compiler(setup, self.cross)?;
        drop(lock);
        let partial = folder.with_extension("partial");
        let _ = fs::remove_dir_all(&partial); // What an interrupted run left.
        let build = partial.join("build");
        fs::create_dir_all(&build).with_context(|| format!("cannot write to {}", build.display()))?;
        fs::write(partial.join("fragment"), &fragment)?;
        say!("kernel: building Linux {version} for {}, which takes minutes", self.config);
        let multiarch = setup.rust.host.replace("-unknown", "");
        let make = |words: &[&str]| {
            let mut command = Command::new("make");
            command.arg("-C").arg(&tree).arg(format!("O={}", build.display())).arg(format!("ARCH={}", self.arch));
            command.arg(format!("CROSS_COMPILE={}", compiler.display()));
            command.arg(format!("KCONFIG_ALLCONFIG={}", partial.join("fragment").display()));
            command.arg(format!("-j{}", std::thread::available_parallelism().map_or(1, usize::from))).args(words);
            tools.environment(&mut command);
            // The unpacked compiler's assembler and linker have libraries of their own.
            let libraries = compiler.parent().and_then(|bin| bin.parent()).map(|usr| usr.join("lib").join(&multiarch));
            if let Some(libraries) = libraries.filter(|folder| folder.starts_with(&setup.folder)) {
                command.env("LD_LIBRARY_PATH", libraries);
            }
            checked_within(&mut command, LIMIT)
        };
        make(&["allnoconfig"])?;
        self.check(&fragment, &fs::read_to_string(build.join(".config"))?);
        make(self.make)?;
        fs::rename(build.join(self.image), partial.join("kernel")).context("the build left no kernel")?;
        if let Some(dtb) = self.dtb {
            fs::rename(build.join(dtb), partial.join("dtb")).context("the build left no description of the board")?;
        }
        fs::remove_dir_all(&build)?;
        Stamp::new(&format!("{version}\n{fragment}")).write(&partial)?;
        let _ = fs::remove_dir_all(&folder);
        fs::rename(&partial, &folder)?;
        Ok((folder, version))
    }

    /// Says which wishes the kernel's configuration did not take: not every machine has all of the
    /// common ones.
    fn check(&self, fragment: &str, config: &str) {
        let missing = unheard(fragment, config);
        if !missing.is_empty() {
            say!("{}: this kernel does not have {}", self.config, missing.join(", "));
        }
    }
}

/// The options of a fragment that are not in the configuration as they are wanted.
fn unheard<'a>(fragment: &'a str, config: &str) -> Vec<&'a str> {
    let wanted = fragment.lines().filter(|line| line.starts_with("CONFIG_"));
    let is_there = |line: &&str| match line.strip_suffix("=n") {
        Some(name) => config.lines().all(|other| other.split('=').next() != Some(name)),
        None => config.lines().any(|other| other == *line),
    };
    wanted.filter(|line| !is_there(line)).collect()
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
    fn what_a_configuration_did_not_take_is_named() {
        let fragment = "# a comment\nCONFIG_A=y\nCONFIG_B=\"x\"\nCONFIG_C=n\nCONFIG_D=n\nCONFIG_E=y\n";
        let config = "CONFIG_A=y\nCONFIG_B=\"x\"\n# CONFIG_C is not set\nCONFIG_D=y\nCONFIG_EE=y\n";
        assert_eq!(unheard(fragment, config), ["CONFIG_D=n", "CONFIG_E=y"]);
    }
}
