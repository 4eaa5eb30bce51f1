//! The user's crate: which programs it has, and where cargo builds it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use cargo_metadata::{Metadata, MetadataCommand, Package};

use crate::advice;
use crate::build::{self, Built, Kind, Request};
use crate::packages::checked;
use crate::setup::{Machine, Setup, Toolchain, nameable};
use crate::targets::Profile;

/// Which crate, and how it is built.
#[derive(clap::Args, Clone, Default)]
pub struct Selection {
    /// The package of the workspace; else the one whose folder this is
    #[arg(long, short, value_name = "NAME")]
    pub package: Option<String>,
    /// The crate's Cargo.toml; else the one of this folder or the next above it
    #[arg(long, value_name = "PATH")]
    pub manifest_path: Option<PathBuf>,
    /// Build with debug assertions and overflow checks, as plain cargo does; else in release
    #[arg(long)]
    pub dev: bool,
    /// Features to build with
    #[arg(long, short = 'F', value_name = "LIST")]
    pub features: Vec<String>,
    /// Build without the default features
    #[arg(long)]
    pub no_default_features: bool,
    /// Where cargo writes to; else `rt0` in the crate's own target folder
    #[arg(long, value_name = "DIR")]
    pub target_dir: Option<PathBuf>,
    /// More settings for cargo, as its own --config takes them
    #[arg(long, value_name = "KEY=VALUE")]
    pub config: Vec<String>,
    /// See [`Request::fixed_script`]
    #[arg(skip)]
    pub fixed_script: bool,
}

/// The crate, as cargo and its manifest describe it.
pub struct Project {
    /// The package's name.
    pub name: String,
    /// The package's folder.
    pub folder: PathBuf,
    /// Programs that are built without Rust's own test harness.
    pub programs: Vec<(Kind, String)>,
    /// Tests and benchmarks that want Rust's own test harness, which needs std.
    pub harnessed: Vec<(Kind, String)>,
    /// The binary that `cargo run` takes.
    pub default_run: Option<String>,
    /// The folder that cargo writes to.
    pub target_dir: PathBuf,
    /// Whether the profile sets `panic` to another value than rt0's.
    pub unwinds: bool,
    manifest: PathBuf,
    selection: Selection,
}

impl Project {
    /// Finds the crate that the selection names, from the folder `here`.
    pub fn find(selection: &Selection, here: &Path) -> Result<Project> {
        nameable(here)?;
        let toolchain = Toolchain::chosen(here);
        let manifest = match &selection.manifest_path {
            Some(path) => here.join(path),
            None => {
                let mut cargo = toolchain.command("cargo");
                cargo.args(["locate-project", "--message-format", "plain"]);
                let path = checked(&mut cargo)
                    .with_context(|| format!("no crate is in {}; `cargo rt0 new NAME` makes one", here.display()))?;
                PathBuf::from(path.trim())
            }
        };
        let mut cargo = toolchain.command("cargo");
        cargo.args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"]).arg(&manifest);
        let described = checked(&mut cargo).context("cargo cannot read the crate")?;
        let metadata = MetadataCommand::parse(described)?;
        let package = package(&metadata, selection.package.as_deref(), &manifest)?;

        let text = fs::read_to_string(&package.manifest_path)?;
        let table: toml::Table = text.parse().with_context(|| package.manifest_path.to_string())?;
        let root = metadata.workspace_root.join("Cargo.toml");
        let root: toml::Table = fs::read_to_string(&root)?.parse().with_context(|| root.to_string())?;
        let profile = if selection.dev { "dev" } else { "release" };
        let panic = root.get("profile").and_then(|p| p.get(profile)?.get("panic")?.as_str());

        let (mut programs, mut harnessed) = (Vec::new(), Vec::new());
        for target in &package.targets {
            let Some(kind) = Kind::of(target) else { continue };
            let program = (kind, target.name.clone());
            let section = match kind {
                Kind::Test => "test",
                Kind::Bench => "bench",
                Kind::Bin | Kind::Example => {
                    programs.push(program);
                    continue;
                }
            };
            if has_no_harness(&table, section, &target.name) {
                programs.push(program);
            } else {
                harnessed.push(program);
            }
        }
        let folder = package.manifest_path.parent().context("a manifest lies in a folder")?;
        let target_dir = match &selection.target_dir {
            Some(folder) => here.join(folder),
            None => match std::env::var_os("CARGO_TARGET_DIR") {
                Some(folder) => here.join(folder).join("rt0"),
                None => metadata.target_directory.join("rt0").into(),
            },
        };
        nameable(&target_dir)?;
        Ok(Project {
            name: package.name.to_string(),
            folder: folder.into(),
            programs,
            harnessed,
            default_run: package.default_run.clone(),
            target_dir,
            unwinds: panic.is_some_and(|panic| panic != "abort"),
            manifest: package.manifest_path.clone().into(),
            selection: selection.clone(),
        })
    }

    /// The names of the programs of one kind.
    pub fn names(&self, kind: Kind) -> Vec<&str> {
        self.programs.iter().filter(|p| p.0 == kind).map(|p| p.1.as_str()).collect()
    }

    /// The program to run: the one with this name; without a name the crate's only binary, or the
    /// manifest's `default-run`.
    pub fn program(&self, bin: Option<&str>, example: Option<&str>) -> Result<(Kind, String)> {
        let (kind, what) = if example.is_some() { (Kind::Example, "example") } else { (Kind::Bin, "binary") };
        let names = self.names(kind);
        if let Some(wanted) = bin.or(example) {
            if names.contains(&wanted) {
                return Ok((kind, wanted.to_string()));
            }
            match names[..] {
                [] => bail!("the package `{}` has no {what}", self.name),
                _ => bail!("the package `{}` has no {what} `{wanted}`; it has {}", self.name, names.join(", ")),
            }
        }
        match (names.as_slice(), self.default_run.as_deref()) {
            (_, Some(name)) => Ok((kind, name.to_string())),
            ([name], None) => Ok((kind, name.to_string())),
            ([], None) => bail!(
                "the package `{}` has no program, only a library: write src/main.rs or \
                 src/bin/NAME.rs, or run one of examples/ by `--example NAME`; `cargo rt0 test` \
                 runs its tests",
                self.name
            ),
            (names, None) => bail!(
                "the package `{}` has {} programs: name one by `--bin` ({}), or set `default-run` in \
                 the section [package] of Cargo.toml",
                self.name,
                names.len(),
                names.join(", ")
            ),
        }
    }

    /// Builds these programs for all machines.
    pub fn build(&self, setup: &Setup, machines: &[Machine], programs: &[(Kind, String)]) -> Result<Built> {
        let request = Request {
            words: self.words(programs),
            expected: programs.to_vec(),
            target_dir: &self.target_dir,
            profile: Some(if self.selection.dev { Profile::Dev } else { Profile::Release }),
            unstable: None,
            abort: true,
            configured: true,
            fixed_script: self.selection.fixed_script,
            frame_pointers: true,
            advice: advice::of,
        };
        build::build(setup, machines, &request)
    }

    /// The words of a cargo command that builds these programs.
    fn words(&self, programs: &[(Kind, String)]) -> Vec<String> {
        let mut words: Vec<String> = ["build", "--keep-going", "--package", &self.name].map(str::to_string).to_vec();
        words.extend(["--manifest-path".to_string(), self.manifest.display().to_string()]);
        for (kind, name) in programs {
            words.extend([kind.option().to_string(), name.clone()]);
        }
        words.extend(self.selection.features.iter().flat_map(|list| ["--features".to_string(), list.clone()]));
        words.extend(self.selection.no_default_features.then(|| "--no-default-features".to_string()));
        words.extend(self.selection.config.iter().flat_map(|pair| ["--config".to_string(), pair.clone()]));
        words
    }
}

/// The package that the selection names.
fn package<'a>(metadata: &'a Metadata, name: Option<&str>, manifest: &Path) -> Result<&'a Package> {
    let members = metadata.workspace_packages();
    let names = || members.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(name) = name {
        let found = members.iter().find(|package| *package.name == name);
        return found
            .copied()
            .with_context(|| format!("no package of this workspace is called `{name}`; there are {}", names()));
    }
    let manifest = manifest.canonicalize().with_context(|| format!("there is no {}", manifest.display()))?;
    let is_here = |package: &&&Package| package.manifest_path.canonicalize().is_ok_and(|path| path == manifest);
    members.iter().find(is_here).copied().with_context(|| {
        format!(
            "{} is a workspace and no package: name one of its packages by `--package` ({})",
            manifest.display(),
            names()
        )
    })
}

/// Whether the manifest says `harness = false` of this test or benchmark.
fn has_no_harness(manifest: &toml::Table, section: &str, name: &str) -> bool {
    let entries = manifest.get(section).and_then(|section| section.as_array()).into_iter().flatten();
    let mut own = entries.filter(|entry| entry.get("name").and_then(|n| n.as_str()) == Some(name));
    own.any(|entry| entry.get("harness").and_then(|h| h.as_bool()) == Some(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_harness_is_there_unless_the_manifest_says_otherwise() {
        let text = "[[test]]\nname = \"a\"\nharness = false\n[[test]]\nname = \"b\"\n[[bench]]\nname = \"c\"\n";
        let manifest: toml::Table = text.parse().expect("TOML");
        let without = |section, name| has_no_harness(&manifest, section, name);
        assert!(without("test", "a"));
        assert!(!without("test", "b") && !without("bench", "c") && !without("test", "d"));
    }
}
