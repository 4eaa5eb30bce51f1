//! `cargo xtask bench --examples`: the examples `serve`, `init` and `sandbox`, compared with other
//! programs of their kind.
//!
//! 1. *Servers* take turns, round by round. Each serves the same file under the same load, which
//!    wrk makes. The server on std is compiled from the source of `serve`, with std and libc in the
//!    place of rt0. The server in Go is net/http.
//! 2. *Memory* is the sum of what is resident (`Rss` of proc_pid_smaps(5)): for a server after all
//!    its rounds, for the others while the program that they started sleeps, without that program.
//! 3. *Sizes* are those of files without symbols. A dynamically linked program also needs the file
//!    of libc.
//!
//! A program that is not available on a machine is left out, and the reason is printed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cargo_rt0::process::{self, Running};
use cargo_rt0::protocol::seen;
use cargo_rt0::report::Test;
use cargo_rt0::setup::{Setup, on_path};
use cargo_rt0::{say, tell};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{LIMIT, Machine, programs};
use crate::build;
use crate::repository::{pinned, root, scratch};
use crate::test::{sandbox, serve};

/// Threads of each server. Go decides for itself.
const THREADS: &str = "2";

/// The load: wrk's threads and connections, and the time of a round.
const LOAD: [&str; 3] = ["-t2", "-c32", "-d3s"];

/// What is served.
const FILE: &[u8] = &[b'x'; 1024];

/// The time in which a program starts another.
const START: Duration = Duration::from_secs(60);

/// A program, and how to start it.
struct Contestant {
    name: &'static str,
    program: PathBuf,
    /// Starts the program with the program's arguments in front of the measurement's.
    command: Command,
}

impl Contestant {
    fn new(name: &'static str, program: PathBuf, args: &[&str]) -> Contestant {
        let mut command = Command::new(&program);
        command.args(args);
        Contestant { name, program, command }
    }
}

/// The programs to compare, and the reasons why others are missing.
#[derive(Default)]
struct Field {
    contestants: Vec<Contestant>,
    missing: Vec<String>,
}

impl Field {
    fn add(&mut self, name: &'static str, contestant: Result<Contestant>) {
        match contestant {
            Ok(contestant) => self.contestants.push(contestant),
            Err(error) => self.missing.push(format!("{name} is left out: {error:#}")),
        }
    }
}

/// Runs the command.
pub(super) fn run(setup: &Setup, machine: &Machine, rounds: u32) -> Result<ExitCode> {
    let folder = scratch("bench-examples")?;
    let mut servers = servers(setup, &folder)?;
    let starters = starters(setup, &folder)?;
    let wrk = setup.tool("wrk", "wrk", 50).context("no wrk, which makes the load")?;
    let rates = load_all(&wrk, &mut servers.contestants, &folder, rounds)?;
    let best = |rates: &[f64]| rates.iter().copied().fold(0.0, f64::max);
    tell!("{}\n", machine.line());
    tell!(
        "{:<32}{:>12}{:>12}{:>10}{:>14}{:>16}",
        "",
        "best req/s",
        "median",
        "to std",
        "size (bytes)",
        "resident (KiB)"
    );
    let to_std = servers.contestants.iter().position(|server| server.name == ON_STD).map(|at| best(&rates[at].0));
    for (server, (mut rates, resident)) in servers.contestants.iter().zip(rates) {
        rates.sort_by(f64::total_cmp);
        let ratio = to_std.map_or("-".to_string(), |std| format!("x{:.2}", best(&rates) / std));
        let (best, median) = (best(&rates), rates[rates.len() / 2]);
        let size = fs::metadata(&server.program)?.len();
        tell!("{:<32}{best:>12.0}{median:>12.0}{ratio:>10}{size:>14}{resident:>16}", server.name);
    }
    for mut starter in starters.contestants {
        let size = fs::metadata(&starter.program)?.len();
        let resident = resident_while_asleep(&mut starter)?;
        let each = resident.iter().map(u64::to_string).collect::<Vec<_>>().join(" + ");
        tell!("{:<66}{size:>14}{each:>16}", starter.name);
    }
    for note in machine.warnings().iter().chain(&servers.missing).chain(&starters.missing) {
        tell!("note: {note}");
    }
    Ok(ExitCode::SUCCESS)
}

const ON_STD: &str = "the same on std, glibc, static";

fn servers(setup: &Setup, folder: &Path) -> Result<Field> {
    let host = &setup.rust.host;
    let mut field = Field::default();
    let rt0 = serve::Programs::default().find("serve").map_err(anyhow::Error::msg)?;
    field.contestants.push(Contestant::new("serve, on rt0", rt0, &["--threads", THREADS, "127.0.0.1:0"]));
    let on_std = |name, target: &str| Ok(Contestant::new(name, programs::server_on_std(target)?, &[THREADS]));
    field.add(ON_STD, on_std(ON_STD, host));
    let name = "the same on std, musl, static";
    field.add(name, musl(setup).and_then(|target| on_std(name, &target)));
    let name = "net/http, Go";
    field.add(name, server_on_go(setup, folder).map(|program| Contestant::new(name, program, &[])));
    Ok(field)
}

/// The host's target with musl, with its std.
fn musl(setup: &Setup) -> Result<String> {
    let host = &setup.rust.host;
    ensure!(host.ends_with("-gnu"), "{host} has no other libc");
    let target = host.replace("-gnu", "-musl");
    if !setup.rust.sysroot.join("lib/rustlib").join(&target).join("lib").exists() {
        say!("std for musl: rustup target add {target}");
        let mut command = pinned("rustup");
        let outcome = process::run(command.args(["target", "add", &target]), LIMIT)?;
        ensure!(outcome.status.success(), seen(&outcome, &process::shell_line(&command)));
    }
    Ok(target)
}

fn server_on_go(setup: &Setup, folder: &Path) -> Result<PathBuf> {
    let mut command = setup.go().context("no Go here: put one on PATH, or set RT0_GO to it")?;
    let program = folder.join("go-serve");
    command.env("CGO_ENABLED", "0").args(["build", "-ldflags=-s -w", "-o"]).arg(&program).arg("bench/src/go/serve.go");
    let outcome = process::run(command.current_dir(root()), LIMIT)?;
    ensure!(outcome.status.success(), seen(&outcome, &process::shell_line(&command)));
    Ok(program)
}

/// The rates of each server, and its resident memory in KiB after all of them.
fn load_all(wrk: &Command, servers: &mut [Contestant], folder: &Path, rounds: u32) -> Result<Vec<(Vec<f64>, u64)>> {
    let www = folder.join("www");
    fs::create_dir_all(&www)?;
    fs::write(www.join("index.html"), FILE)?;
    let mut running = Vec::new();
    for server in &mut *servers {
        running.push(serve::start(server.command.arg(&www))?);
    }
    let mut rates = vec![Vec::new(); servers.len()];
    for round in 1..=rounds {
        say!("round {round} of {rounds}");
        for ((_, address), rates) in running.iter().zip(&mut rates) {
            let mut command = process::copy(wrk);
            let outcome = process::run(command.args(LOAD).arg(format!("http://{address}/")), LIMIT)?;
            let rate = outcome.stdout.lines().find_map(|line| line.strip_prefix("Requests/sec:")?.trim().parse().ok());
            let is_clean = ["Socket errors", "Non-2xx"].iter().all(|word| !outcome.stdout.contains(word));
            match rate {
                Some(rate) if is_clean => rates.push(rate),
                _ => bail!("{}", seen(&outcome, &process::shell_line(&command))),
            }
        }
    }
    let residents = running.iter().map(|(server, _)| resident(server.id()));
    rates.into_iter().zip(residents).map(|(rates, resident)| Ok((rates, resident?))).collect()
}

/// The programs that start another and wait.
fn starters(setup: &Setup, folder: &Path) -> Result<Field> {
    let mut field = Field::default();
    let (_, init) = build::example(setup, "init", "native")?;
    let stripped = folder.join("init");
    let mut strip = Command::new("strip");
    let outcome = process::run(strip.arg("-o").arg(&stripped).arg(&init), LIMIT).context("no strip(1)")?;
    ensure!(outcome.status.success(), seen(&outcome, &process::shell_line(&strip)));
    field.contestants.push(Contestant::new("init, on rt0", stripped, &["-s", "--"]));
    for (name, file) in [("tini, glibc", "tini"), ("tini, glibc, static", "tini-static")] {
        field.add(name, debian(setup, name, file, "tini", &["-s", "--"]));
    }
    let sandbox = serve::Programs::default().find("sandbox").map_err(anyhow::Error::msg)?;
    let command = sandbox::with_shell(&sandbox);
    field.contestants.push(Contestant { name: "sandbox, on rt0", program: sandbox, command });
    let name = "bubblewrap, glibc";
    let args = ["--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--"];
    field.add(name, debian(setup, name, "bwrap", "bubblewrap", &args));
    Ok(field)
}

/// A program of one of Debian's packages.
fn debian(setup: &Setup, name: &'static str, file: &str, package: &str, args: &[&str]) -> Result<Contestant> {
    let mut command = setup.tool(file, package, 50)?;
    command.args(args);
    let program = on_path(file).unwrap_or_else(|| command.get_program().into());
    Ok(Contestant { name, program, command })
}

/// The resident memory of the program's processes, in KiB each, while the program that they started
/// sleeps.
fn resident_while_asleep(starter: &mut Contestant) -> Result<Vec<u64>> {
    starter.command.args(["sleep", "100"]).stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = Running::leader(&mut starter.command)?;
    let end = Instant::now() + START;
    loop {
        let all = with_descendants(child.id());
        let (asleep, own): (BTreeSet<_>, BTreeSet<_>) = all
            .into_iter()
            .partition(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sleep"));
        if !asleep.is_empty() {
            let resident = own.into_iter().map(resident).collect();
            // It ends with the program that it started, which may be in another group.
            for pid in asleep {
                let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
            }
            child.wait()?;
            return resident;
        }
        ensure!(Instant::now() < end, "{} starts no program", starter.name);
        thread::sleep(Duration::from_millis(20));
    }
}

/// A process and all that it and its descendants have started.
fn with_descendants(pid: u32) -> BTreeSet<u32> {
    let mut all = BTreeSet::from([pid]);
    let mut work = vec![pid];
    while let Some(parent) = work.pop() {
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
        let children: Vec<u32> = children.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        work.extend(&children);
        all.extend(children);
    }
    all
}

/// The resident memory of a process, in KiB.
fn resident(pid: u32) -> Result<u64> {
    let file = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&file).with_context(|| file.clone())?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:")?.trim().strip_suffix(" kB"));
    line.and_then(|number| number.parse().ok()).with_context(|| format!("{file} has no Rss"))
}

/// A test that the server on std, which shares the example's source, serves too.
pub fn test(setup: &Setup) -> Test<'static> {
    let host = setup.rust.host.clone();
    let serves = move || -> Result<()> {
        let www = scratch("bench-std-serve")?;
        fs::write(www.join("index.html"), FILE)?;
        let program = programs::server_on_std(&host)?;
        let (_server, address) = serve::start(Command::new(program).arg(THREADS).arg(&www))?;
        ensure!(serve::get(address, "/")? == FILE, "it serves something else");
        Ok(())
    };
    Test::new("host", "bench::the_server_on_std_serves_as_the_example_does", serves)
}
