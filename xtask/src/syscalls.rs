//! `cargo xtask syscalls`: which system calls rt0 makes, by module and machine, as a table and as a
//! seccomp filter.
//!
//! The list is read from the source, so it can be made for machines that are not set up. `graph.rs`
//! says why it may have too many calls. Natively the tests of a machine run under a filter that
//! allows only what is listed for the modules that they use, and what they call themselves.
//!
//! Properties of a list:
//!
//! 1. *It has the calls of every path*, including the paths for a kernel that lacks a call and for
//!    a filter that refuses one.
//! 2. *It has the calls that the kernel causes*: the return from a handler, the restart of a wait.
//! 3. *It has no calls that the program makes itself*, by `sys::syscall` or by other crates.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use cargo_rt0::targets::{self, Target};
use cargo_rt0::{Options, process, tell};

use crate::repository::{root, set_up};

pub mod confined;
mod filter;
mod graph;
mod numbers;

use filter::{Form, Refusal};
use graph::{Cfg, Graph};
use numbers::{Numbers, arch};

/// What to print.
#[derive(clap::Args)]
pub struct Choices {
    /// Short name, triple or `native`
    #[arg(long, default_value = "native")]
    target: String,
    /// Only for programs that use this module; may be given several times
    #[arg(long, value_name = "MODULE")]
    module: Vec<String>,
    /// A call that the program makes itself; may be given several times
    #[arg(long, value_name = "CALL")]
    also: Vec<String>,
    /// Prints a seccomp filter in place of the table
    #[arg(long, value_name = "FORM")]
    filter: Option<Form>,
    /// What the filter does about other calls
    #[arg(long, value_name = "WHAT", default_value = "enosys", requires = "filter")]
    refuse: Refusal,
    /// Prints the functions by which the modules come to make this call
    #[arg(long, value_name = "CALL", conflicts_with = "filter")]
    why: Option<String>,
}

/// The modules that every program has: the start, the end, and a panic's message.
const OF_EVERY_PROGRAM: [&str; 2] = ["start", "panic"];

/// The name of their row.
const EVERY_PROGRAM: &str = "every program";

/// The raw layer. A program that uses it knows which calls it makes.
const RAW: &str = "sys";

/// Calls that the kernel causes, if the machine has them: the return from a handler, which is in
/// the vDSO of some machines, and the call that continues a wait after the process was stopped.
const IMPLIED: &[(&[&str], &[&str])] = &[
    (&["rt_sigaction"], &["rt_sigreturn", "sigreturn"]),
    (&["futex", "futex_time64", "clock_nanosleep", "clock_nanosleep_time64", "nanosleep"], &["restart_syscall"]),
];

/// The names of calls, in order, and their numbers.
type Calls = Vec<(String, u32)>;

/// The lists of one machine.
pub struct Lists {
    target: &'static Target,
    graph: Graph,
    numbers: Numbers,
    modules: Vec<String>,
}

impl Lists {
    /// Reads rt0's source for this machine.
    pub fn of(target: &'static Target) -> Result<Lists> {
        let mut graph = Graph::default();
        read_library(&mut graph, cfg(target))?;
        graph.finish();
        let text = std::fs::read_to_string(root().join("src/lib.rs"))?;
        let public = |line: &str| Some(line.strip_prefix("pub mod ")?.strip_suffix(';')?.to_string());
        let modules = text.lines().filter_map(public).filter(|name| name != RAW).collect();
        Ok(Lists { target, graph, numbers: Numbers::of(target)?, modules })
    }

    /// The calls of every program and of these modules.
    fn names_of(&self, modules: &[&str]) -> Result<BTreeSet<String>> {
        let all = OF_EVERY_PROGRAM.iter().chain(modules);
        let calls = all.map(|module| self.calls(&[module])).collect::<Result<Vec<_>>>()?;
        Ok(calls.into_iter().flatten().map(|(call, _)| call).collect())
    }

    /// The calls that come from these modules alone; each with its number.
    fn calls(&self, modules: &[&str]) -> Result<Calls> {
        let calls = modules.iter().flat_map(|module| self.graph.reached_by(&[module], &|_| false).calls);
        self.complete(calls.collect())
    }

    /// Adds the calls that the kernel causes, and looks up the numbers.
    fn complete(&self, mut calls: BTreeSet<String>) -> Result<Calls> {
        for (some, implied) in IMPLIED {
            if some.iter().any(|call| calls.contains(*call)) {
                let there = implied.iter().filter(|call| self.numbers.get(call).is_some());
                calls.extend(there.map(|call| call.to_string()));
            }
        }
        let number = |call: String| {
            let number = self.numbers.get(&call);
            let number = number.with_context(|| format!("{} has no call {call}", self.target.name))?;
            Ok((call, number))
        };
        calls.into_iter().map(number).collect()
    }

    /// The numbers of the calls that the tests of a module of the suite may make: those of rt0's
    /// modules that they use, and those that they name themselves, by number or by a function of
    /// `sys`.
    fn of_test_module(&self, name: &str) -> Result<Vec<u32>> {
        const PROGRAM: &str = "program";
        const HELPERS: &str = "rt0_tests";
        let entered = [PROGRAM, HELPERS, RAW, "arch"];
        let cfg = cfg(self.target);
        let mut graph = self.graph.clone();
        graph.read(cfg, &root().join("tests/src/lib.rs"), &[HELPERS])?;
        graph.read_module(cfg, &root().join(format!("tests/src/suite/{name}.rs")), &[PROGRAM])?;
        graph.finish();
        let own = graph.reached_by(&[PROGRAM], &|module| !entered.contains(&module));
        let modules = own.modules.iter().map(String::as_str).filter(|module| !entered.contains(module));
        let mut calls = self.names_of(&modules.collect::<Vec<_>>())?;
        calls.extend(own.calls);
        // The filter is already installed when the program is executed.
        calls.insert("execve".to_string());
        // The tests name calls of other machines too.
        calls.retain(|call| self.numbers.get(call).is_some());
        Ok(self.complete(calls)?.into_iter().map(|(_, number)| number).collect())
    }

    /// The rows of the table: a module's name, and its calls.
    fn rows(&self) -> Result<Vec<(&str, Calls)>> {
        let modules = self.modules.iter().map(|module| Ok((module.as_str(), self.calls(&[module])?)));
        std::iter::once(Ok((EVERY_PROGRAM, self.calls(&OF_EVERY_PROGRAM)?))).chain(modules).collect()
    }
}

fn cfg(target: &Target) -> Cfg {
    Cfg { arch: arch(target), bits: target.elf.bits, big_endian: target.elf.big_endian }
}

/// Reads rt0 for a machine, with the file of its processor.
fn read_library(graph: &mut Graph, cfg: Cfg) -> Result<()> {
    graph.read(cfg, &root().join("src/lib.rs"), &[])?;
    let file = if cfg.arch.starts_with("riscv") { "riscv" } else { cfg.arch };
    graph.read_module(cfg, &root().join(format!("arch/{file}.rs")), &["arch", "imp"])
}

/// Prints what is asked for.
pub fn run(options: Options, choices: &Choices) -> Result<ExitCode> {
    let setup = set_up(options)?;
    let targets = targets::select(std::slice::from_ref(&choices.target), &setup.rust.host)?;
    let [target] = targets[..] else { bail!("`{}` names several machines; one is needed here", choices.target) };
    let lists = Lists::of(target)?;
    for module in &choices.module {
        ensure!(
            lists.modules.contains(module),
            "no module is called `{module}`; these are: {}",
            lists.modules.join(", ")
        );
    }
    let wanted: Vec<&str> =
        if choices.module.is_empty() { &lists.modules } else { &choices.module }.iter().map(String::as_str).collect();
    if let Some(call) = &choices.why {
        return why(&lists, &wanted, call);
    }
    let Some(form) = choices.filter else {
        let table = table(&lists, &wanted)?;
        process::tell(|out| out.write_all(table.as_bytes()));
        return Ok(ExitCode::SUCCESS);
    };
    let mut calls = lists.names_of(&wanted)?;
    calls.extend(choices.also.iter().cloned());
    let calls = lists.complete(calls)?;
    let names: Vec<&str> = calls.iter().map(|(call, _)| call.as_str()).collect();
    let text = filter::text(target, &names, &lists.numbers, choices.refuse, form)?;
    process::tell(|out| out.write_all(text.as_bytes()));
    Ok(ExitCode::SUCCESS)
}

/// One paragraph for each module: its name, and its calls with their numbers.
fn table(lists: &Lists, wanted: &[&str]) -> Result<String> {
    const WIDTH: usize = 100;
    const NAMES: usize = 15;
    let mut out = format!("System calls of rt0 on {}, with their numbers, by module:\n\n", lists.target.name);
    for (module, calls) in lists.rows()? {
        if module != EVERY_PROGRAM && !wanted.contains(&module) {
            continue;
        }
        let mut line = format!("{module:NAMES$}");
        for (call, number) in calls {
            let word = format!(" {call}={number}");
            if line.len() + word.len() > WIDTH {
                out += &(line + "\n");
                line = " ".repeat(NAMES);
            }
            line += &word;
        }
        out += &(line + "\n");
    }
    out += "\nA program that uses some of them makes the calls of the first row and of theirs, and its own.\n";
    Ok(out)
}

/// Prints the functions through which each module makes a call.
fn why(lists: &Lists, modules: &[&str], call: &str) -> Result<ExitCode> {
    let mut found = false;
    for module in OF_EVERY_PROGRAM.iter().chain(modules) {
        if let Some(way) = lists.graph.way(&[module], call) {
            tell!("{module}: {}", way.join(" → "));
            found = true;
        }
    }
    ensure!(found, "these modules do not make the call {call}");
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cargo_rt0::targets::TARGETS;

    #[test]
    fn every_listed_call_is_one_of_its_machine() {
        // The oldest, the newest, and those whose calls have names of their own.
        for name in ["armv5", "mips", "riscv32", "s390x", "sparc64", "x86"] {
            let target = TARGETS.iter().find(|target| target.name == name).expect("a machine");
            let lists = Lists::of(target).expect("its lists");
            let rows = lists.rows().expect("numbers");
            let of = |module: &str| {
                let row = rows.iter().find(|row| row.0 == module).expect("a row");
                row.1.iter().map(|(call, _)| call.as_str()).collect::<BTreeSet<_>>()
            };
            assert!(of("thread").is_superset(&["clone", "exit", "munmap"].into()), "{name}");
            assert_eq!(of("futex").contains("futex"), name != "riscv32");
            assert_eq!(of("futex").contains("futex_time64"), target.elf.bits == 32);
            assert!(of("signal").is_superset(&["rt_sigaction", "rt_sigreturn"].into()), "{name}");
            assert_eq!(of(EVERY_PROGRAM).contains("set_tls"), name == "armv5");
            assert!(of("sync").is_disjoint(&["clone", "execve", "timer_create"].into()), "{name}");
            assert!(of("io").is_disjoint(&["mmap", "mmap2", "rt_sigaction", "tgkill"].into()), "{name}");
        }
    }

    #[test]
    fn a_test_module_may_make_its_own_calls_too() {
        let x86_64 = TARGETS.iter().find(|target| target.name == "x86_64").expect("a machine");
        let lists = Lists::of(x86_64).expect("its lists");
        let numbers = lists.of_test_module("time").expect("a list");
        let has = |call: &str| numbers.contains(&lists.numbers.get(call).expect("a number"));
        assert!(has("clock_nanosleep") && has("exit_group"));
        assert!(!has("setresuid") && !has("mremap"));
        // Through a helper that the root of the tests' library re-exports.
        assert!(
            lists
                .of_test_module("thread")
                .expect("a list")
                .contains(lists.numbers.get("readlinkat").as_ref().expect("a number"))
        );
        for area in confined::AREAS {
            assert!(!lists.of_test_module(area).expect("its source is read").is_empty(), "{area}");
        }
    }
}
