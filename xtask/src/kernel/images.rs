//! Where the kernels and qemu-system come from: Debian's packages, unpacked into target/setup.
//!
//! What was unpacked once is used until it is deleted. So a mirror that is gone, or has gone on to
//! another version, matters to the first run only. A mirror that is slow holds up a run for
//! [`ALL_KERNELS`] at most; the next run fetches what is still missing.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use cargo_rt0::packages::{Apt, Stamp, checked, numbers, upstream};
use cargo_rt0::say;
use cargo_rt0::setup::{QEMU_GOOD, Setup, Version, on_path};

use super::rows::{Format, Image, Origin, QEMU_PACKAGES, qemus};

/// A command of apt's for a kernel takes some seconds.
const ONE_COMMAND: Duration = Duration::from_secs(120);

/// After this time in one run no further kernel is fetched.
const ALL_KERNELS: Duration = Duration::from_secs(6 * 60);

/// A kernel that can be booted.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The package's, such as `6.12.95+deb12`.
    pub version: String,
    /// What qemu starts.
    pub file: PathBuf,
    /// What describes the machine to it, for the few machines that do not do that themselves.
    pub dtb: Option<PathBuf>,
}

impl Kernel {
    /// `6.12`.
    pub fn short(&self) -> String {
        let Version { major, minor, .. } = numbers(&self.version);
        format!("{major}.{minor}")
    }
}

/// A qemu-system that starts.
#[derive(Clone, Debug)]
pub struct Emulator {
    program: PathBuf,
    /// The folder it was unpacked to; one of the machine's own has none.
    root: Option<PathBuf>,
    multiarch: String,
    /// What it says itself.
    pub version: Version,
}

impl Emulator {
    /// The command that starts it, with its libraries and firmware.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(root) = &self.root {
            let libraries = ["usr/lib", "lib"].map(|part| root.join(part).join(&self.multiarch).display().to_string());
            command.env("LD_LIBRARY_PATH", libraries.join(":"));
            for firmware in ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"] {
                command.arg("-L").arg(root.join(firmware));
            }
        }
        command
    }
}

/// The packages of other machines: by architecture and suite, as far as they could be had.
type Apts = HashMap<(&'static str, &'static str), Result<Apt, String>>;

#[cfg(test)]
impl Emulator {
    /// A program that plays one.
    pub fn played_by(program: PathBuf) -> Emulator {
        Emulator { program, root: None, multiarch: String::new(), version: Version::new(10, 0, 0) }
    }
}

/// What was asked for in this run. Each way is tried once.
pub struct Images {
    apts: RefCell<Apts>,
    emulators: RefCell<Option<Result<PathBuf, String>>>,
    started: Instant,
}

impl Images {
    /// Nothing was asked for yet.
    pub fn new() -> Images {
        Images { apts: RefCell::default(), emulators: RefCell::default(), started: Instant::now() }
    }

    /// A kernel that is a package, fetched if it is not there. Under the lock of all runs.
    pub fn packaged(&self, setup: &Setup, origin: Origin) -> Option<Result<Kernel>> {
        match origin {
            Origin::Package(image) => Some(self.kernel(setup, image)),
            Origin::Source(_) => None,
        }
    }

    fn kernel(&self, setup: &Setup, image: &'static Image) -> Result<Kernel> {
        let folder = setup.folder.join("kernels").join(image.name());
        if let Some(version) = Stamp::contents(&folder) {
            return ready(image, &folder, &version);
        }
        let waited = self.started.elapsed();
        ensure!(
            waited < ALL_KERNELS,
            "the kernels before it took {} s to fetch; the next run fetches this one",
            waited.as_secs()
        );
        let mut apts = self.apts.borrow_mut();
        let key = (image.architecture, image.suite);
        let open = || Apt::foreign(&setup.folder, key.0, key.1, ONE_COMMAND).map_err(|error| format!("{error:#}"));
        let apt = apts.entry(key).or_insert_with(open);
        let apt = apt.as_ref().map_err(|error| anyhow!("{error}"))?;
        let names = apt.search(&image.pattern())?;
        let (package, version) = newest(&names, image).with_context(|| {
            format!("{} has no package like {} for {}", image.suite, image.pattern(), image.architecture)
        })?;
        say!("kernel: Debian's {package}, into {}", folder.display());
        let partial = folder.with_extension("partial");
        let _ = fs::remove_dir_all(&partial); // What an interrupted run left.
        let mut files = vec![image.file];
        files.extend(image.dtb);
        apt.extract(&package, &files, &partial, 600)?;
        fs::rename(only(&partial, image.file)?, partial.join("packed"))?;
        if let Some(dtb) = image.dtb {
            fs::rename(only(&partial, dtb)?, partial.join("dtb"))?;
        }
        match image.format {
            Format::Plain => fs::rename(partial.join("packed"), partial.join("kernel"))?,
            Format::Zboot => unpack_zboot(setup, &partial)?,
        }
        for part in ["boot", "usr"] {
            let _ = fs::remove_dir_all(partial.join(part));
        }
        Stamp::new(&version).write(&partial)?;
        let _ = fs::remove_dir_all(&folder);
        fs::rename(&partial, &folder)?;
        ready(image, &folder, &version)
    }

    /// The emulator of this name: the machine's own if it is new enough, else the packages'. Under
    /// the lock of all runs.
    pub fn emulator(&self, setup: &Setup, name: &str) -> Result<Emulator> {
        let multiarch = setup.rust.host.replace("-unknown", "");
        let own = on_path(name).and_then(|program| answering(program, None, &multiarch).ok());
        if let Some(own) = own.filter(|own| own.version >= QEMU_GOOD) {
            return Ok(own);
        }
        let mut emulators = self.emulators.borrow_mut();
        let folder = emulators.get_or_insert_with(|| unpack_emulators(setup).map_err(|error| format!("{error:#}")));
        let folder = folder.as_ref().map_err(|error| {
            anyhow!(
                "{error}\na {name} of {QEMU_GOOD} or newer on PATH mends it (on Debian: apt-get install qemu-system as root)"
            )
        })?;
        answering(folder.join("usr/bin").join(name), Some(folder.clone()), &multiarch)
    }

    /// Gives back the room that package lists take.
    pub fn close(self) {
        self.apts.into_inner().into_values().flatten().for_each(Apt::remove);
    }
}

/// A kernel that is built here, now if it is not there.
pub fn built(setup: &Setup, origin: Origin) -> Result<Kernel> {
    let Origin::Source(source) = origin else { bail!("the kernel is a package") };
    let (folder, version) = source.kernel(setup)?;
    Ok(Kernel { version, file: folder.join("kernel"), dtb: source.dtb.map(|_| folder.join("dtb")) })
}

fn ready(image: &Image, folder: &Path, version: &str) -> Result<Kernel> {
    let (file, dtb) = (folder.join("kernel"), image.dtb.map(|_| folder.join("dtb")));
    ensure!(file.is_file(), "there is no {}; delete its folder to have it made anew", file.display());
    Ok(Kernel { version: version.to_string(), file, dtb })
}

/// The package of the newest version of this image, and the version.
fn newest(names: &[String], image: &Image) -> Option<(String, String)> {
    let versions = names.iter().filter_map(|name| {
        let version = name.strip_prefix(image.package)?.strip_suffix(image.flavour)?.trim_matches('-');
        // Of `6.12.95+deb12-cloud`, the last part belongs to the name of another flavour.
        let digits = version.split('-').all(|part| part.starts_with(|c: char| c.is_ascii_digit()));
        (digits && version.starts_with(image.version)).then(|| (name.clone(), version.to_string()))
    });
    versions.max_by_key(|(_, version)| {
        let numbers = version.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u64>().ok());
        numbers.collect::<Vec<_>>()
    })
}

/// The file in a folder that a pattern of tar's describes, which has stars in the middle of names
/// only.
fn only(folder: &Path, pattern: &str) -> Result<PathBuf> {
    let mut found = vec![folder.to_path_buf()];
    for part in pattern.trim_start_matches("./").split('/') {
        let fits = |name: &str| match part.split_once('*') {
            Some((before, after)) => name.starts_with(before) && name.ends_with(after),
            None => name == part,
        };
        let inside = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        found = found
            .into_iter()
            .flat_map(inside)
            .filter(|p| p.file_name().is_some_and(|n| fits(&n.to_string_lossy())))
            .collect();
    }
    match <[PathBuf; 1]>::try_from(found) {
        Ok([file]) => Ok(file),
        Err(found) => bail!("the package has {} files like {pattern}, not one", found.len()),
    }
}

/// An EFI program that unpacks itself, which qemu cannot start: takes the kernel out of it.
fn unpack_zboot(setup: &Setup, folder: &Path) -> Result<()> {
    let packed = fs::read(folder.join("packed"))?;
    let payload = zboot_payload(&packed)?;
    fs::write(folder.join("payload.zst"), payload)?;
    let mut zstd = setup.tool("zstd", "zstd", 10)?;
    checked(zstd.args(["-d", "-q", "-f"]).arg(folder.join("payload.zst")).arg("-o").arg(folder.join("kernel")))?;
    for part in ["payload.zst", "packed"] {
        fs::remove_file(folder.join(part))?;
    }
    Ok(())
}

/// The packed kernel in such a file. (drivers/firmware/efi/libstub/zboot-header.S)
fn zboot_payload(packed: &[u8]) -> Result<&[u8]> {
    ensure!(packed.starts_with(b"MZ") && packed.get(4..8) == Some(b"zimg"), "the kernel is no EFI zboot file");
    let word = |at: usize| {
        packed.get(at..at + 4).map(|word| u32::from_le_bytes(word.try_into().expect("four bytes")) as usize)
    };
    let range = word(8).zip(word(12)).and_then(|(offset, len)| packed.get(offset..offset.checked_add(len)?));
    let kind = packed.get(24..28).unwrap_or_default();
    ensure!(kind == b"zstd", "the kernel is packed by {}, not zstd", String::from_utf8_lossy(kind));
    range.context("the kernel's file is shorter than it says")
}

/// Asks an emulator for its version.
fn answering(program: PathBuf, root: Option<PathBuf>, multiarch: &str) -> Result<Emulator> {
    let mut emulator = Emulator { program, root, multiarch: multiarch.to_string(), version: Version::new(0, 0, 0) };
    let said = checked(emulator.command().arg("--version"))?;
    let version = said.split_once("version ").context("qemu does not say its version")?.1;
    emulator.version = numbers(version);
    Ok(emulator)
}

/// The folder with all emulators of the table.
fn unpack_emulators(setup: &Setup) -> Result<PathBuf> {
    let folder = setup.folder.join("qemu-system");
    // The packages have emulators of many more machines, which are most of their size.
    let wanted = qemus();
    if Stamp::contents(&folder).is_some() && wanted.iter().all(|name| folder.join("usr/bin").join(name).exists()) {
        return Ok(folder);
    }
    let apt = setup.apt()?;
    let mut packages = Vec::new();
    for name in QEMU_PACKAGES {
        let version = apt.versions(name)?.swap_remove(0);
        if upstream(&version) < QEMU_GOOD {
            bail!("apt's newest {name} is {version}, {QEMU_GOOD} is needed");
        }
        packages.push(format!("{name}={version}"));
    }
    say!("emulators: Debian's qemu-system, into {}", folder.display());
    let prune = |folder: &Path| {
        for entry in fs::read_dir(folder.join("usr/bin")).into_iter().flatten().flatten() {
            if !wanted.iter().any(|name| entry.file_name() == **name) {
                let _ = fs::remove_file(entry.path());
            }
        }
        let _ = fs::remove_dir_all(folder.join("usr/share/doc"));
    };
    apt.unpack_part(&packages, &folder, 900, &Stamp::new(&packages.join("\n")), &prune)?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(package: &'static str, flavour: &'static str, version: &'static str) -> Image {
        Image {
            architecture: "arm64",
            suite: "sid",
            package,
            flavour,
            version,
            file: "./boot/vmlinuz-*",
            dtb: None,
            format: Format::Plain,
        }
    }

    #[test]
    fn the_newest_version_of_just_this_flavour_is_taken() {
        let names =
            ["6.12.9+bpo-arm64", "6.12.95+deb12-arm64", "6.12.95+deb12-cloud-arm64", "6.1.0-37-arm64", "6.1.0-9-arm64"];
        let names: Vec<_> = names.iter().map(|name| format!("linux-image-{name}")).collect();
        let found = |version| newest(&names, &image("linux-image-", "-arm64", version)).map(|(_, version)| version);
        assert_eq!(found("").as_deref(), Some("6.12.95+deb12"));
        assert_eq!(found("6.1.").as_deref(), Some("6.1.0-37"));
        assert_eq!(found("5."), None);
        assert_eq!(newest(&names, &image("linux-image-", "-cloud-arm64", "")).expect("one").0, names[2]);
    }

    #[test]
    fn a_zboot_file_gives_its_payload_or_says_what_is_wrong() {
        let mut file = vec![0; 64];
        file[..2].copy_from_slice(b"MZ");
        file[4..8].copy_from_slice(b"zimg");
        file[8..12].copy_from_slice(&40u32.to_le_bytes());
        file[12..16].copy_from_slice(&8u32.to_le_bytes());
        file[24..28].copy_from_slice(b"zstd");
        file[40..48].copy_from_slice(b"the Linu");
        assert_eq!(zboot_payload(&file).expect("a payload"), b"the Linu");
        let said = |file: &[u8]| zboot_payload(file).expect_err("it is wrong").to_string();
        assert!(said(&file[..45]).contains("shorter"));
        assert!(said(b"\x7fELF").contains("no EFI zboot"));
        file[24..28].copy_from_slice(b"gzip");
        assert!(said(&file).contains("packed by gzip"));
        file[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        file[24..28].copy_from_slice(b"zstd");
        assert!(said(&file).contains("shorter"));
    }

    #[test]
    fn a_file_is_found_by_its_pattern() {
        let folder = std::env::temp_dir().join(format!("rt0-only-{}", std::process::id()));
        fs::create_dir_all(folder.join("usr/lib/modules/7.2.1-x")).expect("folders");
        fs::write(folder.join("usr/lib/modules/7.2.1-x/vmlinuz"), "").expect("a file");
        let found = only(&folder, "./usr/lib/modules/*/vmlinuz").expect("it is there");
        assert!(found.ends_with("modules/7.2.1-x/vmlinuz"));
        assert!(only(&folder, "./boot/vmlinuz-*").expect_err("none").to_string().contains("has 0 files"));
        fs::remove_dir_all(&folder).expect("ours");
    }
}
