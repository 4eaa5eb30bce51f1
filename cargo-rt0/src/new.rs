//! `cargo rt0 new`: a crate that runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::setup::Toolchain;
use crate::tell;

/// What is made.
#[derive(clap::Args)]
pub struct Choices {
    /// The crate's folder
    path: PathBuf,
    /// The crate's name; else the last part of its folder
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Take rt0 from this folder instead of the registry
    #[arg(long, value_name = "PATH")]
    rt0: Option<PathBuf>,
}

const BUILD: &str = include_str!("../template/build.rs");
const MAIN: &str = include_str!("../template/main.rs");
const TESTS: &str = include_str!("../template/tests.rs");

/// Makes the crate, by `cargo new` and with a program and a test on rt0 in it.
pub fn run(choices: &Choices, here: &Path) -> Result<ExitCode> {
    let mut cargo = Toolchain::chosen(here).command("cargo");
    cargo.args(["new", "--quiet", "--bin", "--edition", "2024"]).arg(&choices.path);
    cargo.args(choices.name.iter().flat_map(|name| ["--name", name]));
    if !cargo.status().context("cannot start cargo: install rustup")?.success() {
        bail!("cargo's message above says why there is no new crate");
    }
    let folder = here.join(&choices.path);
    let manifest = folder.join("Cargo.toml");
    let text = fs::read_to_string(&manifest)?;
    // In a workspace there may be more behind it.
    let (before, after) = text.split_once("[dependencies]\n").context("cargo new writes [dependencies]")?;
    let [rt0, rt0_build] = sources(choices.rt0.as_deref(), here)?;
    let name = before.lines().find_map(|line| line.strip_prefix("name = ")).context("cargo new writes a name")?;
    let program = format!("[[bin]]\nname = {name}\npath = \"src/main.rs\"\ntest = false # A harness needs std.\n");
    let dependencies = format!("[dependencies]\nrt0 = {rt0}\n\n[build-dependencies]\nrt0-build = {rt0_build}\n");
    fs::write(&manifest, format!("{before}{program}\n{dependencies}{after}{SECTIONS}"))?;
    fs::write(folder.join("build.rs"), BUILD)?;
    fs::write(folder.join("src/main.rs"), MAIN)?;
    fs::create_dir_all(folder.join("tests"))?;
    fs::write(folder.join("tests/tests.rs"), TESTS)?;
    tell!("cd {}", shell_words::quote(&choices.path.to_string_lossy()));
    tell!("cargo rt0 run                # on this machine");
    tell!("cargo rt0 test --all         # on all of them");
    Ok(ExitCode::SUCCESS)
}

/// What follows the dependencies.
const SECTIONS: &str = r#"
[[test]]
name = "tests"
harness = false # Its main is made by rt0::tests!, and `cargo rt0 test` runs it.
test = false

[profile.dev]
panic = "abort"

[profile.release]
panic = "abort"
"#;

/// Where rt0 and rt0-build come from: a folder that is named, the one that this tool was built in,
/// the registry.
fn sources(named: Option<&Path>, here: &Path) -> Result<[String; 2]> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf);
    let is_rt0 = |folder: &PathBuf| {
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap_or_default();
        manifest
            .parse::<toml::Table>()
            .is_ok_and(|m| m.get("package").and_then(|p| p.get("name")?.as_str()) == Some("rt0"))
    };
    let folder = match named {
        Some(folder) => Some(here.join(folder)),
        None => beside.filter(is_rt0),
    };
    match folder {
        Some(folder) if !is_rt0(&folder) => bail!("{} is not the folder of rt0", folder.display()),
        Some(folder) => {
            let folder = folder.canonicalize()?;
            let folders = [folder.clone(), folder.join("rt0-build")];
            Ok(folders.map(|folder| format!("{{ path = {:?} }}", folder.display().to_string())))
        }
        None => Ok([const { env!("CARGO_PKG_VERSION") }; 2].map(|version| format!("{version:?}"))),
    }
}
