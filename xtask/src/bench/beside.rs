//! `cargo xtask bench --beside`: one small program on rt0, compared with the same program on std
//! and in Go.
//!
//! The program prints a line, and sleeps if an argument says so. The table compares what a user of
//! a static tool notices: the size of the file, the memory, the time from start to end, and whether
//! the program runs in an empty folder.

use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cargo_rt0::process::{self, Next, Talk};
use cargo_rt0::report::Verdict;
use cargo_rt0::say;
use cargo_rt0::setup::Setup;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chroot, close};

use super::STARTS;
use super::programs::{self, RT0, STD, Tools};
use crate::repository::{root, scratch};

/// The first column of the table.
const ROWS: [&str; 6] = [
    "",
    "---",
    "file, bytes",
    "memory while it sleeps, KiB",
    "start to end, µs: best; median",
    "in an empty root folder, all descriptors closed",
];

const GREETING: &[u8] = b"hello, world\n";

/// The triple of std with a C library that is linked statically by itself.
const MUSL: &str = "x86_64-unknown-linux-musl";

/// The time limit until a program has greeted, and until it has ended.
const LIMIT: Duration = Duration::from_secs(60);

/// One column.
struct Program {
    name: &'static str,
    path: PathBuf,
}

/// Builds the programs, measures, and prints a table in Markdown.
pub fn run(setup: &Setup) -> Result<()> {
    let tools = Tools::find(setup)?;
    let recipes: [(&'static str, &dyn Fn() -> Result<PathBuf>); 4] = [
        ("rt0", &|| programs::small(&tools, &RT0, &tools.host, "greet")),
        ("std on glibc, static", &|| programs::small(&tools, &STD, &tools.host, "greet")),
        ("std on musl", &|| programs::small(&tools, &STD, MUSL, "greet")),
        ("Go", &|| go(setup)),
    ];
    let mut built = Vec::new();
    for (name, build) in recipes {
        match build() {
            Ok(path) => built.push(Program { name, path }),
            Err(error) if name == "rt0" => return Err(error),
            Err(error) => say!("{name} is left out: {error:#}"),
        }
    }
    let mut columns = vec![ROWS.map(str::to_string)];
    for (program, [best, median]) in built.iter().zip(starts(&built)?) {
        columns.push([
            program.name.to_string(),
            "---".to_string(),
            fs::metadata(&program.path)?.len().to_string(),
            resident(&program.path)?.to_string(),
            format!("{best:.0}; {median:.0}"),
            words(with_nothing(&program.path)?),
        ]);
    }
    for row in 0..ROWS.len() {
        let cells: Vec<_> = columns.iter().map(|column| column[row].as_str()).collect();
        println!("| {} |", cells.join(" | "));
    }
    Ok(())
}

/// The program in Go, without its tables for debuggers.
fn go(setup: &Setup) -> Result<PathBuf> {
    let mut command = setup.go().context("there is no Go on the path or in target/setup/go")?;
    let program = scratch("beside-go")?.join("greet");
    command.args(["build", "-trimpath", "-ldflags=-s -w", "-o"]).arg(&program);
    command.arg(root().join("bench/src/go/greet.go")).env("CGO_ENABLED", "0");
    say!("building Go's");
    ensure!(command.status()?.success(), "{} failed", process::shell_line(&command));
    Ok(program)
}

/// The memory of a program that has greeted and sleeps, in KiB, as proc(5) has it in
/// `smaps_rollup`.
fn resident(program: &Path) -> Result<u64> {
    let child = Talk::start(Command::new(program).arg("sleep"))?;
    ensure!(matches!(child.next(LIMIT), Next::Line(line) if line == GREETING), "{} is silent", program.display());
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", child.id())).context("no smaps_rollup")?;
    let kib = rollup.lines().find_map(|line| line.strip_prefix("Rss:")?.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse().ok()).context("smaps_rollup has no Rss")
}

/// The best and the median time of each from before vfork(2) to after wait(2), the programs in
/// turns.
fn starts(programs: &[Program]) -> Result<Vec<[f64; 2]>> {
    let mut times = vec![Vec::new(); programs.len()];
    for _ in 0..STARTS {
        for (program, times) in programs.iter().zip(&mut times) {
            let mut command = Command::new(&program.path);
            command.env_clear().stdin(Stdio::null()).stdout(Stdio::null());
            let begin = Instant::now();
            let status = command.status().context("cannot start it")?;
            times.push(begin.elapsed().as_nanos() as f64 / 1e3);
            ensure!(status.success(), "{}: {status}", program.path.display());
        }
    }
    let sorted = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        [times[0], times[times.len() / 2]]
    };
    Ok(times.into_iter().map(sorted).collect())
}

/// How the program ends if the root folder has nothing but the program, and no descriptor is open.
fn with_nothing(program: &Path) -> Result<ExitStatus> {
    let folder = scratch("beside-root")?;
    fs::copy(program, folder.join("greet"))?;
    let root = folder.clone();
    let mut command = Command::new("/greet");
    let enter = move || {
        if chroot(&root).is_err() {
            unshare(CloneFlags::CLONE_NEWUSER)?; // Gives the right to chroot(2).
            chroot(&root)?;
        }
        (0..3).try_for_each(close)?;
        Ok(())
    };
    // SAFETY: it makes system calls, and the path was allocated before.
    unsafe { command.pre_exec(enter) };
    let outcome = process::run(&mut command, LIMIT)?;
    ensure!(!outcome.timed_out, "{} does not end", program.display());
    Ok(outcome.status)
}

fn words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(0), _) => "runs".to_string(),
        (Some(code), _) => format!("ends with status {code}"),
        (_, signal) => format!("dies of signal {}", signal.unwrap_or_default()),
    }
}

/// A test that rt0's program does what the table says.
pub fn verdict(tools: &Tools) -> Result<Verdict> {
    let program = programs::small(tools, &RT0, &tools.host, "greet")?;
    ensure!(resident(&program)? > 0, "a program without memory");
    match with_nothing(&program) {
        Ok(status) if status.success() => Ok(Verdict::Passed),
        Ok(status) => bail!("with nothing beside it: {status}"),
        Err(error) => Ok(Verdict::Skipped(format!("no root folder can be entered here: {error:#}"))),
    }
}
