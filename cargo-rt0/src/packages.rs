//! Debian's packages without root and without changing the system: a private apt, and `dpkg -x`.
//!
//! "Private" means that its package lists, its cache and its sources are in the folder `apt` of the
//! cache. The sources are those of the machine, so its mirror and its keys are used, but only for
//! the distribution itself and for the backports suite of the same mirror. It reads the machine's
//! list of installed packages, so it fetches only packages that are missing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::statvfs::statvfs;
use semver::Version;

use crate::{process, say};
use sources::{foreign_source, machine_sources, private_sources};

mod sources;

/// Changes when packages are unpacked in another way, so that older caches are made again.
const FORMAT: u32 = 1;

/// The time limit of a download: downloads are quick, or they hang.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// An apt with its own lists and cache.
#[derive(Debug)]
pub struct Apt {
    folder: PathBuf,
    config: PathBuf,
    /// Of the machine's own release.
    codename: String,
    /// Whether all package lists could be fetched.
    complete: bool,
    /// The time limit of each of its commands.
    limit: Duration,
}

impl Apt {
    /// Writes the configuration and fetches the package lists.
    pub fn open(setup: &Path) -> Result<Apt> {
        checked(Command::new("apt-get").arg("--version"))?;
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let codename = os_field(&release, "VERSION_CODENAME").context("/etc/os-release has no VERSION_CODENAME")?;
        let sources = private_sources(&machine_sources()?, &codename);
        if sources.is_empty() {
            bail!("the sources in /etc/apt name no suite of {codename}; add one, or install the packages by hand");
        }
        say!("package lists for {codename}: by apt");
        Apt::with(setup, &setup.join("apt"), &codename, &sources, "", LIMIT)
    }

    /// An apt for the packages of another architecture and suite of the machine's own mirror. It
    /// knows of no package that is installed. Each of its commands may take `limit`.
    pub fn foreign(setup: &Path, architecture: &str, suite: &str, limit: Duration) -> Result<Apt> {
        checked(Command::new("apt-get").arg("--version"))?;
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let codename = os_field(&release, "VERSION_CODENAME").context("/etc/os-release has no VERSION_CODENAME")?;
        let sources = foreign_source(&machine_sources()?, &codename, suite);
        let sources = sources.with_context(|| format!("the sources in /etc/apt name no mirror of {codename}"))?;
        let folder = setup.join("apt").join(format!("{architecture}-{suite}"));
        let more = format!(
            "APT::Architecture \"{architecture}\";\n#clear APT::Architectures;\nAPT::Architectures {{ \
             \"{architecture}\"; }};\nDir::State::status \"{}/status\";\nAcquire::GzipIndexes \"true\";\n",
            folder.display()
        );
        say!("package lists of {suite} for {architecture}: by apt");
        let apt = Apt::with(setup, &folder, &codename, &sources, &more, limit)?;
        if !apt.complete {
            bail!(
                "no package lists of {suite} for {architecture} (see above): is there a network, and on the mirror that suite?"
            );
        }
        Ok(apt)
    }

    /// The folder of an apt, with its configuration and the newest lists.
    fn with(setup: &Path, folder: &Path, codename: &str, sources: &str, more: &str, limit: Duration) -> Result<Apt> {
        check_room(setup, 100)?; // On a full disk apt neither ends nor says so.
        for part in ["lists/partial", "cache/archives/partial", "sources", "empty"] {
            fs::create_dir_all(folder.join(part)).with_context(|| no_room(folder))?;
        }
        let config = folder.join("apt.conf");
        fs::write(folder.join("sources/rt0.sources"), sources)?;
        fs::write(folder.join("sources.list"), "")?;
        fs::write(folder.join("status"), "")?;
        fs::write(&config, configuration(folder) + more)?;
        let folder = folder.to_path_buf();
        let mut apt = Apt { folder, config, codename: codename.to_string(), complete: true, limit };
        // For apt, a source without backports or a server that does not answer is an error. The
        // packages of the other sources are used nevertheless.
        if let Err(error) = apt.run("apt-get", &["update", "-q", "--error-on=any"]) {
            say!("some package lists cannot be fetched, so they are left out: {error:#}");
            apt.complete = false;
        }
        Ok(apt)
    }

    /// The versions of a package that can be had, newest first.
    pub fn versions(&self, package: &str) -> Result<Vec<String>> {
        let table = self.run("apt-cache", &["madison", package])?;
        let mut versions: Vec<_> =
            table.lines().filter_map(|l| l.split('|').nth(1)).map(|v| v.trim().to_string()).collect();
        versions.sort_by_key(|v| std::cmp::Reverse(upstream(v)));
        versions.dedup();
        if versions.is_empty() {
            let why = if self.complete { "" } else { " for lack of package lists (see above): is there a network?" };
            bail!("apt knows no package {package}{why}");
        }
        Ok(versions)
    }

    /// The names of all packages that a regular expression describes.
    pub fn search(&self, pattern: &str) -> Result<Vec<String>> {
        let lines = self.run("apt-cache", &["search", "--names-only", pattern])?;
        Ok(lines.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_string).collect())
    }

    /// Downloads one package, without what it needs, and unpacks the files that `patterns` of tar's
    /// describe to `folder`. apt compares it with the hash that the signed lists give.
    pub fn extract(&self, package: &str, patterns: &[&str], folder: &Path, megabytes: u64) -> Result<()> {
        check_room(&self.folder, megabytes)?;
        let archives = self.folder.join("cache/download");
        let _ = fs::remove_dir_all(&archives); // What an earlier, interrupted run left.
        fs::create_dir_all(&archives).with_context(|| no_room(&archives))?;
        let mut download = Command::new("apt-get");
        download.arg("-c").arg(&self.config).args(["download", "-q", package]).env("LC_ALL", "C");
        checked_within(download.current_dir(&archives), self.limit)?;
        let archive = fs::read_dir(&archives)?.flatten().map(|entry| entry.path());
        let archive = archive.into_iter().find(|path| path.extension().is_some_and(|e| e == "deb"));
        let archive = archive.with_context(|| format!("apt downloaded nothing for {package}"))?;
        fs::create_dir_all(folder).with_context(|| no_room(folder))?;
        let mut unpack = Command::new("sh");
        unpack.args([
            "-c",
            r#"deb=$1 to=$2; shift 2; dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$to" --wildcards "$@""#,
        ]);
        unpack.arg("unpack").arg(&archive).arg(folder).args(patterns);
        checked(&mut unpack).with_context(|| no_room(folder))?;
        Ok(fs::remove_dir_all(&archives)?)
    }

    /// Removes its folder, the lists included. The next [`Apt::foreign`] fetches them again.
    pub fn remove(self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            say!("cannot remove {}: {error}", self.folder.display());
        }
    }

    /// Whether the package needs no other: the mark of Debian's static emulators among those of the
    /// same name.
    pub fn stands_alone(&self, package: &str, version: &str) -> Result<bool> {
        let record = self.run("apt-cache", &["show", &format!("{package}={version}")])?;
        Ok(!record.lines().any(|line| line.starts_with("Depends:")))
    }

    /// Downloads the packages with everything that they need and this machine lacks, and unpacks it
    /// all to `target`.
    ///
    /// The folder appears at the end and complete, or not at all. `stamp` says what is in it.
    pub fn unpack(&self, packages: &[String], target: &Path, megabytes: u64, stamp: &Stamp) -> Result<()> {
        self.unpack_part(packages, target, megabytes, stamp, &|_| {})
    }

    /// The same; `prune` is called after each package, on the folder as it is then.
    pub fn unpack_part(
        &self,
        packages: &[String],
        target: &Path,
        megabytes: u64,
        stamp: &Stamp,
        prune: &dyn Fn(&Path),
    ) -> Result<()> {
        let parent = target.parent().context("a folder in the cache")?;
        check_room(parent, megabytes)?;
        let archives = self.folder.join("cache/archives");
        // An earlier, interrupted run may have left others.
        let _ = fs::remove_dir_all(&archives);
        fs::create_dir_all(archives.join("partial"))?;
        let mut words = vec!["install", "--download-only", "--reinstall", "-y", "-q"];
        // The packages that one of the backports needs come from there too, if necessary.
        let backports =
            packages.iter().any(|package| package.contains("~bpo")).then(|| format!("{}-backports", self.codename));
        words.extend(backports.iter().flat_map(|suite| ["-t", suite]));
        words.extend(packages.iter().map(String::as_str));
        self.run("apt-get", &words)?;

        let partial = target.with_file_name(format!("{}.partial", target.file_name().unwrap_or_default().display()));
        if partial.exists() {
            fs::remove_dir_all(&partial).context("removing what an interrupted run left")?;
        }
        fs::create_dir_all(&partial)?;
        let mut count = 0;
        for entry in fs::read_dir(&archives)? {
            let archive = entry?.path();
            if archive.extension().is_some_and(|e| e == "deb") {
                count += 1;
                checked(Command::new("dpkg").arg("-x").arg(&archive).arg(&partial)).with_context(|| no_room(target))?;
                fs::remove_file(&archive)?;
                prune(&partial);
            }
        }
        if count == 0 {
            bail!("apt downloaded nothing for {}", packages.join(" "));
        }
        stamp.write(&partial)?;
        if target.exists() {
            fs::remove_dir_all(target)?;
        }
        fs::rename(&partial, target)?;
        Ok(())
    }

    fn run(&self, program: &str, words: &[&str]) -> Result<String> {
        checked_within(Command::new(program).arg("-c").arg(&self.config).args(words).env("LC_ALL", "C"), self.limit)
    }
}

/// An error if the disk has too little room, before anything is written.
pub fn check_room(folder: &Path, megabytes: u64) -> Result<()> {
    let room = statvfs(folder).map(|fs| (fs.blocks_available() * fs.fragment_size()) >> 20).unwrap_or(u64::MAX);
    if room < megabytes {
        let at = folder.display();
        bail!("{at} has {room} MB left, {megabytes} are needed; make room, or let that folder be a link to elsewhere");
    }
    Ok(())
}

/// What a folder in the cache was made from; a folder with another stamp is not used.
pub struct Stamp(String);

/// The file in the folder that holds it.
const STAMP: &str = ".rt0-stamp";

impl Stamp {
    /// For `packages` (with versions) on this machine's release: libraries of another release would
    /// not fit.
    pub fn new(packages: &str) -> Stamp {
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let field = |name| os_field(&release, name).unwrap_or_default();
        Stamp(format!("format {FORMAT}\nsystem {} {}\n{packages}\n", field("ID"), field("VERSION_ID")))
    }

    fn text(&self) -> &str {
        &self.0
    }

    /// Puts it into the folder.
    pub fn write(&self, folder: &Path) -> Result<()> {
        fs::write(folder.join(STAMP), self.text()).with_context(|| no_room(folder))
    }

    /// Whether `folder` was unpacked on this release in this format; `Some` is what it holds.
    pub fn contents(folder: &Path) -> Option<String> {
        let text = fs::read_to_string(folder.join(STAMP)).ok()?;
        let ours = Stamp::new("");
        text.strip_prefix(ours.text().trim_end()).map(|rest| rest.trim().to_string())
    }
}

/// Runs a command with a generous limit; an error carries what it said.
pub fn checked(command: &mut Command) -> Result<String> {
    checked_within(command, LIMIT)
}

/// The same with a limit of its own.
pub fn checked_within(command: &mut Command, limit: Duration) -> Result<String> {
    let line = process::shell_line(command);
    let outcome = process::run(command, limit).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => anyhow!("{} is not on this machine", command.get_program().to_string_lossy()),
        _ => anyhow!("cannot start `{line}`: {e}"),
    })?;
    if !outcome.status.success() || outcome.timed_out {
        // The lines that carry the reason, shortened: rustup adds a backtrace, apt its progress.
        let marks = ["error", "E:", "W:", "dpkg", "Err:"];
        let marked: Vec<_> = outcome.stderr.lines().filter(|l| marks.iter().any(|mark| l.starts_with(mark))).collect();
        let lines = if marked.is_empty() { outcome.stderr.lines().collect() } else { marked };
        let said: Vec<_> = lines.into_iter().take(2).map(shortened).collect();
        let ended = if outcome.timed_out { "took too long".to_string() } else { outcome.status.to_string() };
        bail!("`{line}`: {ended}: {}", said.join("; "));
    }
    Ok(outcome.stdout)
}

/// The beginning of a line, short enough for a message.
fn shortened(line: &str) -> String {
    let (mut line, more) = (line.to_string(), line.chars().count() > 160);
    if more {
        line = line.chars().take(160).chain(['…']).collect();
    }
    line
}

fn no_room(folder: &Path) -> String {
    format!("cannot write to {} (is the disk full, or the folder another user's?)", folder.display())
}

/// The settings in which the private apt differs from the machine's.
fn configuration(folder: &Path) -> String {
    let at = folder.display();
    format!(
        r#"// Written by cargo-rt0. The hooks of the machine's own apt are not for us: they need root.
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
#clear Acquire::IndexTargets::deb::DEP-11;
Dir::State::lists "{at}/lists";
Dir::Cache "{at}/cache";
Dir::Cache::archives "archives";
Dir::Etc::sourcelist "{at}/sources.list";
Dir::Etc::sourceparts "{at}/sources";
Dir::Etc::preferencesparts "{at}/empty";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
APT::Get::List-Cleanup "false";
APT::Keep-Downloaded-Packages "true";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
Debug::NoLocking "true";
"#
    )
}

/// A value of /etc/os-release.
fn os_field(text: &str, name: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.trim_matches('"').to_string())
}

/// The upstream part of a Debian version: `1:10.0.2+ds-2` is 10.0.2.
pub fn upstream(version: &str) -> Version {
    let version = version.split_once(':').map_or(version, |(_, rest)| rest);
    numbers(version)
}

/// The version that a text begins with, up to its third number; what is missing is 0. (What follows
/// the numbers in a version of qemu or of Debian's is not what semver's parser takes.)
pub fn numbers(text: &str) -> Version {
    let dotted = text.split(|c: char| !c.is_ascii_digit() && c != '.').next().unwrap_or("");
    let mut parts = dotted.split('.').map(|part| part.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    Version::new(next(), next(), next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_upstream_numbers() {
        assert_eq!(upstream("1:10.0.2+ds-2+deb13u1~bpo12+1"), Version::new(10, 0, 2));
        assert_eq!(upstream("1.96.0+dfsg1-1~deb12u2"), Version::new(1, 96, 0));
        assert_eq!(upstream("1:7.2+dfsg-7+deb12u18"), Version::new(7, 2, 0));
        assert_eq!(numbers(""), Version::new(0, 0, 0));
    }

    #[test]
    fn a_disk_that_is_too_full_is_named_with_what_is_needed() {
        assert!(check_room(Path::new("/"), 0).is_ok());
        let said = check_room(Path::new("/"), u64::MAX).expect_err("no disk is so large").to_string();
        assert!(said.starts_with("/ has ") && said.contains("are needed; make room"), "{said}");
    }

    #[test]
    fn of_a_mirror_that_fails_the_message_says_that_lists_are_missing() {
        let folder = std::env::temp_dir().join(format!("rt0-mirror-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let sources = "Types: deb\nURIs: file:/no-such-mirror\nSuites: sid\nComponents: main\n";
        let apt = Apt::with(&folder, &folder.join("apt"), "sid", sources, "", LIMIT).expect("it goes on");
        assert!(!apt.complete);
        let said = format!("{:#}", apt.versions("no-such-package").expect_err("there are no lists"));
        let expected =
            "apt knows no package no-such-package for lack of package lists (see above): is there a network?";
        // Where there is no apt, that is what is said.
        assert!(said == expected || said == "apt-cache is not on this machine", "{said}");
        fs::remove_dir_all(&folder).expect("ours");
    }

    #[test]
    fn a_program_that_is_missing_and_one_that_fails_are_told_apart() {
        let missing = checked(&mut Command::new("/nonexistent/apt-get")).expect_err("missing").to_string();
        assert_eq!(missing, "/nonexistent/apt-get is not on this machine");
        let script = "echo progress >&2; echo E: no route to host >&2; exit 100";
        let failed = checked(Command::new("sh").args(["-c", script])).expect_err("it fails").to_string();
        assert!(
            failed.contains("exit status: 100: E: no route to host") && !failed.contains("100: progress"),
            "{failed}"
        );
    }

    #[test]
    fn a_folder_from_another_release_or_format_is_not_used() {
        let folder = std::env::temp_dir().join(format!("rt0-stamp-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        assert_eq!(Stamp::contents(&folder), None);
        fs::write(folder.join(STAMP), Stamp::new("qemu-user=1").text()).expect("a file");
        assert_eq!(Stamp::contents(&folder).as_deref(), Some("qemu-user=1"));
        fs::write(folder.join(STAMP), "format 0\nsystem debian 9\nqemu-user=1\n").expect("a file");
        assert_eq!(Stamp::contents(&folder), None);
        fs::remove_dir_all(&folder).expect("ours");
    }

    #[test]
    fn fields_of_os_release_may_be_quoted() {
        assert_eq!(os_field("ID=debian\nVERSION_ID=\"12\"\n", "VERSION_ID").as_deref(), Some("12"));
        assert_eq!(os_field("ID=debian\n", "VERSION_CODENAME"), None);
    }
}
