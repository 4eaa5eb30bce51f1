//! What starts a machine's programs: the kernel, or a qemu-user.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use semver::{Version, VersionReq};

use super::{QEMU_GOOD, Runner, Setup};
use crate::packages::{Stamp, checked, numbers, upstream};
use crate::targets::{TARGETS, Target};
use crate::{elf, process, say};

/// The oldest qemu that rt0's tests are known to pass under.
const QEMU_OLDEST: Version = Version::new(7, 2, 0);

/// The advice if there is no emulator.
pub(super) const QEMU_MEND: &str = "a qemu-user of 7.2 or newer on PATH, or in the folder that `--qemu` names, mends it \
                         (on Debian: `apt-get install qemu-user` as root)";

/// An emulator that starts.
#[derive(Debug)]
pub(super) struct Qemu {
    pub(super) path: PathBuf,
    pub(super) version: Version,
}

impl Setup {
    pub(super) fn runner(&self, target: &Target) -> Result<Runner> {
        if self.runs_natively(target) {
            return Ok(Runner::Native);
        }
        let qemu = self.qemu(target).context("no emulator")?;
        Ok(Runner::Qemu(qemu.path, qemu.version))
    }

    pub(super) fn runs_natively(&self, target: &Target) -> bool {
        // A processor of the right kind may have fewer instructions than the table's (32-bit Arm),
        // or the other byte order (POWER). A 64-bit x86 kernel may be built without support for
        // 32-bit programs: so start one.
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
    fn qemu(&self, target: &Target) -> Result<Qemu> {
        let wish = self.options.qemu.as_deref();
        if let Some(folder) = wish.filter(|wish| wish.contains('/')) {
            let best = newest(qemus_in(Path::new(folder), target.qemu));
            return new_enough(best.with_context(|| format!("no {} that runs is in {folder}", target.qemu))?);
        }
        let wished = wish.map(wished_version).transpose()?;
        let mut found = self.local_qemus(target);
        found.retain(|qemu| wished.as_ref().is_none_or(|wished| wished.matches(&qemu.version)));
        let enough = |qemu: &Qemu| wished.is_some() || qemu.version >= QEMU_GOOD;
        if !found.iter().any(enough) {
            let unpacked = || self.unpack_qemu(wished.as_ref()).map_err(|error| format!("{error:#}"));
            match self.qemu_package.get_or_init(unpacked) {
                Ok(folder) => found.extend(qemus_in(&folder.join("usr/bin"), target.qemu)),
                Err(error) if found.is_empty() => bail!("{error}\n{QEMU_MEND}"),
                Err(_) => {} // unpack_qemu has printed it; there is an older one.
            }
        }
        new_enough(newest(found).with_context(|| format!("no {} in the package", target.qemu))?)
    }

    /// The emulators on PATH and in the cache.
    pub(super) fn local_qemus(&self, target: &Target) -> Vec<Qemu> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let on_path = std::env::split_paths(&path).flat_map(|folder| qemus_in(&folder, target.qemu));
        let cached = fs::read_dir(&self.folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let cached = cached.filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("qemu-")));
        let cached = cached.filter(|p| Stamp::contents(p).is_some());
        on_path.chain(cached.flat_map(|p| qemus_in(&p.join("usr/bin"), target.qemu))).collect()
    }

    /// Unpacks the newest static qemu-user (that fits the wish) from Debian's packages.
    fn unpack_qemu(&self, wished: Option<&VersionReq>) -> Result<PathBuf> {
        let attempt = || {
            let apt = self.apt()?;
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
            offers.retain(|(_, version)| wished.is_none_or(|wished| wished.matches(&upstream(version))));
            offers.sort_by_key(|(_, version)| std::cmp::Reverse(upstream(version)));
            for (package, version) in offers {
                if apt.stands_alone(package, &version)? {
                    let folder = self.folder.join(format!("qemu-{}", upstream(&version)));
                    say!("emulator: Debian's {package} {version}, into {}", folder.display());
                    let wanted = format!("{package}={version}");
                    apt.unpack(std::slice::from_ref(&wanted), &folder, 600, &Stamp::new(&wanted))?;
                    return Ok(folder);
                }
            }
            bail!(
                "apt has no static qemu-user{}",
                wished.map_or(String::new(), |wished| format!(" of version {wished}"))
            )
        };
        attempt().inspect_err(|error| say!("no newer emulator: {error:#}"))
    }
}

/// The emulators of this name in a folder that say which version they are.
fn qemus_in(folder: &Path, name: &str) -> Vec<Qemu> {
    let files = [folder.join(name), folder.join(format!("{name}-static"))];
    let qemu = |path: PathBuf| {
        let said = path.exists().then(|| checked(Command::new(&path).arg("--version")).ok())??;
        // qemu-mips version 10.0.2 (Debian 1:10.0.2+ds-2)
        let version = numbers(said.split_once("version ")?.1);
        Some(Qemu { path, version })
    };
    files.into_iter().filter_map(qemu).collect()
}

pub(super) fn newest(found: Vec<Qemu>) -> Option<Qemu> {
    found.into_iter().max_by(|one, other| one.version.cmp(&other.version))
}

fn new_enough(qemu: Qemu) -> Result<Qemu> {
    let version = &qemu.version;
    if *version < QEMU_OLDEST {
        bail!("qemu {version} is too old, {QEMU_OLDEST} is needed: install a newer qemu-user, or give `--qemu PATH`");
    }
    Ok(qemu)
}

/// What `--qemu 7.2` asks for: 7.2 with any third number.
fn wished_version(wish: &str) -> Result<VersionReq> {
    let parsed = VersionReq::parse(&format!("={wish}"));
    parsed.with_context(|| format!("`{wish}` is no version of qemu such as 7.2, and no folder: a path has a `/`"))
}

/// Whether rustc's names are for the same processor: not `powerpc64le-` and `powerpc64-`, nor
/// `armv7-` and `arm-`.
fn one_processor(triple: &str, host: &str) -> bool {
    triple.split('-').next() == host.split('-').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wished_version_may_be_a_prefix_but_not_of_a_number() {
        let is = |wish, version| wished_version(wish).expect("a version").matches(&version);
        assert!(is("7.2", Version::new(7, 2, 22)) && is("7.2.22", Version::new(7, 2, 22)));
        assert!(is("10", Version::new(10, 0, 2)));
        assert!(!is("1", Version::new(10, 0, 2)) && !is("7.2", Version::new(7, 20, 0)));
        assert!(!is("7.2.2", Version::new(7, 2, 22)));
        let said = wished_version("newest").expect_err("no version").to_string();
        assert!(said.contains("`newest` is no version of qemu such as 7.2, and no folder"), "{said}");
    }

    #[test]
    fn programs_of_another_byte_order_or_a_newer_processor_go_to_the_emulator() {
        assert!(one_processor("x86_64-unknown-linux-gnu", "x86_64-unknown-linux-musl"));
        assert!(!one_processor("powerpc64le-unknown-linux-gnu", "powerpc64-unknown-linux-gnu"));
        assert!(!one_processor("armv7-unknown-linux-gnueabihf", "arm-unknown-linux-gnueabihf"));
    }

    #[test]
    fn an_emulator_that_is_too_old_is_refused_with_the_version_that_is_needed() {
        let old = Qemu { path: PathBuf::from("qemu-mips"), version: Version::new(5, 2, 0) };
        let said = new_enough(old).expect_err("too old").to_string();
        assert!(said.contains("qemu 5.2.0 is too old, 7.2.0 is needed"), "{said}");
    }

    #[test]
    fn an_emulator_that_is_not_there_is_not_found() {
        assert!(qemus_in(Path::new("/nonexistent"), "qemu-mips").is_empty());
    }
}
