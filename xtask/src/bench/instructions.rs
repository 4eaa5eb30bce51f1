//! `cargo xtask bench --instructions`: the instructions that rt0 and musl need for the same
//! operation, counted by qemu-user for other machines.
//!
//! The loops are in bench/counted: a program on rt0, and a library that is linked here with
//! Debian's musl. qemu translates each instruction by itself and writes a line for each that it
//! executes. The program repeats an operation N times and then, in another run, 2N times: the
//! difference, without the same difference of an empty loop, is the operation's. The kernel's and
//! qemu's own work is not in it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use cargo_rt0::build::{Built, Kind};
use cargo_rt0::packages::{Apt, Stamp};
use cargo_rt0::protocol::seen;
use cargo_rt0::report::{Test, Verdict};
use cargo_rt0::setup::{Machine, Runner, Setup, Version};
use cargo_rt0::{process, say, targets, tell};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::build::{self, What};
use crate::repository::{scratch, set_up};

/// A machine, and the Debian whose musl it is compared with.
struct Row {
    /// Its name in the table of machines.
    machine: &'static str,
    architecture: &'static str,
    suite: &'static str,
}

/// The suites do not change any more, so the figures of musl stay the same. (x86_64 is not in the
/// table: there one instruction may copy any number of bytes, and the time tells more.)
const ROWS: [Row; 6] = [
    Row { machine: "aarch64", architecture: "arm64", suite: "trixie" },
    Row { machine: "armv7", architecture: "armhf", suite: "trixie" },
    Row { machine: "riscv64", architecture: "riscv64", suite: "trixie" },
    Row { machine: "s390x", architecture: "s390x", suite: "trixie" },
    // Debian has no musl for the other byte order.
    Row { machine: "mipsel", architecture: "mipsel", suite: "bookworm" },
    Row { machine: "powerpc64le", architecture: "ppc64el", suite: "trixie" },
];

/// The operations, and how often the shorter run repeats each.
const METRICS: [(&str, usize); 16] = [
    ("system_call", 16),
    ("clock", 16),
    ("lock_unlock", 16),
    ("read_lock_unlock", 16),
    ("once", 16),
    (THREADS, 16),
    ("signal", 16),
    ("memcpy_64", 16),
    ("memcpy_4096", 2),
    ("memmove_4096", 2),
    ("memset_64", 16),
    ("memset_4096", 2),
    ("memcmp_64", 16),
    ("memcmp_4096", 2),
    ("strlen_64", 16),
    ("strlen_4096", 2),
];

/// The loop with threads, and how often it is run. It is run several times, because the kernel
/// decides how often one thread waits for another.
const THREADS: &str = "spawn_join";
const RUNS_WITH_THREADS: usize = 5;

/// The largest ratio of rt0's count to musl's.
const MOST: f64 = 1.1;

/// Operations with a larger ratio, and their bound. docs/figures.md says which instructions are the
/// reason.
const TRAILING: [(&str, &str, f64); 10] = [
    ("armv7", "clock", 1.2),
    ("mipsel", "clock", 2.2),
    ("powerpc64le", "clock", 1.2),
    ("armv7", "memcpy_64", 1.5),
    ("mipsel", "memcpy_64", 1.2),
    ("powerpc64le", "memset_4096", 1.4),
    ("mipsel", "strlen_64", 1.15),
    ("mipsel", "strlen_4096", 1.15),
    ("s390x", "strlen_64", 1.15),
    ("s390x", "strlen_4096", 1.15),
];

/// The oldest qemu that can count: it has `-one-insn-per-tb`.
const QEMU: Version = Version::new(8, 1, 0);

/// The time limit of one run.
const LIMIT: Duration = Duration::from_secs(60);

/// The figures of one machine.
struct Column {
    machine: &'static str,
    rt0: Counts,
    musl: Counts,
}

/// Instructions by operation.
type Counts = BTreeMap<&'static str, f64>;

/// Prints the table.
pub fn run(setup: &Setup, filter: Option<&str>) -> Result<ExitCode> {
    let is_wanted = |name: &str| filter.is_none_or(|part| name.contains(part));
    if let Some(part) = filter {
        let is_known = METRICS.iter().any(|(name, _)| is_wanted(name));
        ensure!(is_known, "no operation is called anything with `{part}`");
    }
    let columns = count_on_all(setup, &needed(setup)?, is_wanted)?;
    tell!("Instructions of rt0, of musl, and their ratio\n");
    let line = |first: &str, cells: Vec<String>| {
        tell!("{first:<18}{}", cells.iter().map(|cell| format!("{cell:>16}")).collect::<String>());
    };
    line("", columns.iter().map(|column| column.machine.to_string()).collect());
    for name in columns[0].rt0.keys() {
        let cell = |Column { rt0, musl, .. }: &Column| {
            format!("{:.0} {:.0} {:.2}", rt0[name], musl[name], rt0[name] / musl[name])
        };
        line(name, columns.iter().map(cell).collect());
    }
    Ok(ExitCode::SUCCESS)
}

/// A test that no operation takes many more instructions than musl's. It is skipped where an
/// emulator or musl is not available. It does not count threads: their figure differs by a half,
/// with how often one thread waits for another, so it has no bound.
pub fn test(setup: &Setup) -> Test<'static> {
    let options = setup.options().clone();
    Test::new("host", "bench::no_operation_takes_more_instructions_than_its_bound", move || {
        let setup = set_up(options.clone())?;
        let needed = match needed(&setup) {
            Ok(needed) => needed,
            Err(error) => return Ok(Verdict::Skipped(format!("nothing is counted: {error:#}"))),
        };
        let over = over(&count_on_all(&setup, &needed, |name| name != THREADS)?);
        Ok::<_, anyhow::Error>(if over.is_empty() { Verdict::Passed } else { Verdict::Failed(over.join("; ")) })
    })
}

/// The figures beyond their bounds.
fn over(columns: &[Column]) -> Vec<String> {
    let mut over = Vec::new();
    for Column { machine, rt0, musl } in columns {
        for (name, count) in rt0 {
            let trailing = TRAILING.iter().find(|(row, operation, _)| row == machine && operation == name);
            let (most, ratio) = (trailing.map_or(MOST, |(.., most)| *most), count / musl[name]);
            if ratio > most {
                over.push(format!("{machine} {name}: {count:.0} instructions are {ratio:.2} of musl's, not {most}"));
            }
        }
    }
    over
}

/// The machines of the table, whose emulators count, and the folder of musl's files for each.
struct Needed {
    machines: Vec<Machine>,
    musl: Vec<(&'static Row, PathBuf)>,
}

/// What is needed of all machines, fetched if it is not there.
fn needed(setup: &Setup) -> Result<Needed> {
    let names: Vec<_> = ROWS.iter().map(|row| row.machine.to_string()).collect();
    let mut needed = Needed { machines: Vec::new(), musl: Vec::new() };
    for (target, machine) in setup.machines(&targets::select(&names, &setup.rust.host)?) {
        let row = ROWS.iter().find(|row| row.machine == target.name).context("selected by these names")?;
        let machine = machine.with_context(|| target.name.to_string())?;
        let Runner::Qemu(_, version) = &machine.runner else { bail!("only an emulator counts") };
        ensure!(*version >= QEMU, "qemu {QEMU} or newer counts instructions, and this is {version}");
        needed.machines.push(machine);
        let folder = musl(setup, row).with_context(|| format!("musl for {}", target.name))?;
        needed.musl.push((row, folder));
    }
    Ok(needed)
}

/// The figures of the operations that are wanted by their names, on all machines.
fn count_on_all(setup: &Setup, needed: &Needed, is_wanted: impl Fn(&str) -> bool) -> Result<Vec<Column>> {
    let wanted: Vec<_> = METRICS.into_iter().filter(|(name, _)| is_wanted(name)).collect();
    let built = build::build(setup, &needed.machines, What::Counted)?;
    let programs = needed.machines.iter().zip(&needed.musl).map(|(machine, (row, musl))| {
        let rt0 = program(&built, machine)?;
        Ok((row.machine, machine, rt0, link_musl(setup, musl, rt0)?))
    });
    let programs = programs.collect::<Result<Vec<_>>>()?;
    let count = |(name, machine, rt0, musl): &(&'static str, &Machine, &Path, PathBuf)| {
        let (rt0, musl) = (count_all(machine, rt0, &wanted)?, count_all(machine, musl, &wanted)?);
        Ok(Column { machine: name, rt0, musl })
    };
    thread::scope(|scope| {
        let counts: Vec<_> = programs.iter().map(|program| scope.spawn(|| count(program))).collect();
        counts.into_iter().map(|count| count.join().expect("counting does not panic")).collect()
    })
}

/// The loops over rt0.
fn program<'a>(built: &'a Built, machine: &Machine) -> Result<&'a Path> {
    let why = || anyhow!("{}", built.failed.get(machine.target.name).map_or("not built", String::as_str));
    built.find(machine, Kind::Bin, "counted").with_context(why)
}

/// Links the loops over musl; they lie beside those over rt0.
fn link_musl(setup: &Setup, musl: &Path, rt0: &Path) -> Result<PathBuf> {
    let folder = rt0.parent().context("cargo's folder")?;
    let file = |name: &str| musl.join(name);
    let program = folder.join("counted-musl");
    let mut linker = Command::new(setup.linker()?);
    // Prebuilt core refers to the unwinder's personality.
    linker.args(["-flavor", "gnu", "-static", "--gc-sections", "--defsym=rust_eh_personality=0", "-o"]).arg(&program);
    linker.args([file("crt1.o"), file("crti.o"), folder.join("libcounted_musl.a"), file("libc.a"), file("crtn.o")]);
    let linked = process::run(&mut linker, LIMIT)?;
    ensure!(linked.status.success(), seen(&linked, &process::shell_line(&linker)));
    Ok(program)
}

/// The folder with musl's files for this machine, fetched if it is not there.
fn musl(setup: &Setup, row: &Row) -> Result<PathBuf> {
    let folder = setup.folder.join("musl").join(format!("{}-{}", row.architecture, row.suite));
    let _lock = setup.lock();
    if Stamp::contents(&folder).is_some() {
        return Ok(folder);
    }
    let apt = Apt::foreign(&setup.folder, row.architecture, row.suite, LIMIT)?;
    let version = apt.versions("musl-dev")?.remove(0);
    say!("musl {version} for {}: Debian's musl-dev, into {}", row.architecture, folder.display());
    let partial = folder.with_extension("partial");
    let _ = fs::remove_dir_all(&partial); // An interrupted run may have left it.
    apt.extract("musl-dev", &["./usr/lib/*/crt[1in].o", "./usr/lib/*/libc.a"], &partial, 20)?;
    let lib = fs::read_dir(partial.join("usr/lib"))?.next().context("musl-dev has no folder of libraries")??.path();
    for file in fs::read_dir(lib)? {
        let file = file?;
        fs::rename(file.path(), partial.join(file.file_name()))?;
    }
    fs::remove_dir_all(partial.join("usr"))?;
    Stamp::new(&version).write(&partial)?;
    let _ = fs::remove_dir_all(&folder);
    fs::rename(&partial, &folder)?;
    apt.remove();
    Ok(folder)
}

/// Counts all these operations.
fn count_all(machine: &Machine, program: &Path, metrics: &[(&'static str, usize)]) -> Result<Counts> {
    let empty = count(machine, program, "nothing", 16)?;
    metrics.iter().map(|&(name, times)| Ok((name, count(machine, program, name, times)? - empty))).collect()
}

/// Instructions of one round of a loop, the least of some runs.
fn count(machine: &Machine, program: &Path, name: &str, times: usize) -> Result<f64> {
    let runs = if name == THREADS { RUNS_WITH_THREADS } else { 1 };
    let least = |times| {
        let counts = (0..runs).map(|_| executed(machine, program, name, times));
        Ok(counts.collect::<Result<Vec<_>>>()?.into_iter().min().unwrap_or(0) as f64)
    };
    let [few, many]: [Result<f64>; 2] = [least(times), least(2 * times)];
    Ok((many? - few?) / times as f64)
}

/// Instructions of one run of the program, on all threads.
fn executed(machine: &Machine, program: &Path, name: &str, times: usize) -> Result<u64> {
    let Runner::Qemu(qemu, _) = &machine.runner else { bail!("only an emulator counts") };
    let log = scratch(&format!("counted-{}", machine.target.name))?.join("log");
    let mut command = Command::new(qemu);
    command.args(machine.target.qemu_args).args(["-one-insn-per-tb", "-d", "exec,nochain", "-D"]).arg(&log);
    command.arg(program).args([name, &times.to_string()]);
    let outcome = if name == THREADS { on_one_processor(&mut command)? } else { process::run(&mut command, LIMIT)? };
    ensure!(outcome.status.success() && !outcome.timed_out, seen(&outcome, &process::shell_line(&command)));
    let mut lines = BufReader::new(File::open(&log)?);
    let (mut line, mut executed) = (Vec::new(), 0);
    while lines.read_until(b'\n', &mut line)? > 0 {
        executed += u64::from(line.starts_with(b"Trace "));
        line.clear();
    }
    fs::remove_file(&log)?;
    Ok(executed)
}

/// Runs all of qemu's threads on one processor: then a thread that waits spins only rarely, and the
/// counts of two runs are close.
fn on_one_processor(command: &mut Command) -> Result<process::Outcome> {
    let here = Pid::from_raw(0);
    let allowed = sched_getaffinity(here)?;
    let mut one = CpuSet::new();
    let first = (0..CpuSet::count()).find(|&cpu| allowed.is_set(cpu).unwrap_or(false));
    one.set(first.context("this thread runs on some processor")?)?;
    sched_setaffinity(here, &one)?;
    let outcome = process::run(command, LIMIT);
    sched_setaffinity(here, &allowed)?;
    outcome.map_err(Into::into)
}
