//! Programs under a filter that allows only the listed calls: a call that is missing from the list
//! ends the program by SIGSYS.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Result, ensure};
use cargo_rt0::build::Built;
use cargo_rt0::process;
use cargo_rt0::protocol::{Prepare, as_it_is, seen};
use cargo_rt0::report::{Test, Verdict};
use cargo_rt0::setup::Machine;
use cargo_rt0::targets::Target;
use nix::errno::Errno;
use nix::libc;

use super::Lists;
use super::filter::{Step, for_a_test};
use crate::build::area_of;

/// The machines and areas whose tests run under the filter, natively. All others run without it,
/// `x86_64` too: it has the same tests as `x86_64-dev`.
const MACHINES: [&str; 2] = ["x86_64-dev", "x86"];
pub const AREAS: [&str; 7] = ["all_threads", "process", "profile", "signal", "sync", "thread", "time"];

/// Tests that run without the filter.
pub const FREE: &[&str] = &[
    // It tests `no_new_privs`, which installing a filter sets.
    "process::inheritance::a_child_has_the_group_session_rights_and_folder_that_were_asked_for",
];

/// The time limit of a program.
const LIMIT: Duration = Duration::from_secs(60);

/// Puts each test under the filter of its area, on the machines where that is done.
pub fn prepare(machine: &Machine) -> Result<Prepare> {
    const REMARK: &str = "under a filter that allows only what `cargo xtask syscalls` lists for its modules";
    let target = machine.target;
    let checked = MACHINES.contains(&target.name) && machine.qemu().is_none();
    if !checked || filters_work().is_err() {
        return Ok(as_it_is());
    }
    let lists = lists_of(target)?;
    let filter = |area| Ok((area, for_a_test(target, &lists.of_test_module(area)?)?));
    let filters = AREAS.into_iter().map(filter).collect::<Result<BTreeMap<_, _>>>()?;
    Ok(Arc::new(move |command, name, test| {
        let filter = filters.get(area_of(name))?;
        // A shell that sets a limit first makes other calls.
        let is_direct = test.stack.is_none() && test.close.is_empty() && !FREE.contains(&name);
        is_direct.then(|| confine(command, filter.clone()))?;
        Some(REMARK)
    }))
}

/// The lists of a machine, read once.
fn lists_of(target: &'static Target) -> Result<Rc<Lists>> {
    thread_local! {
        static FOUND: RefCell<BTreeMap<&'static str, Rc<Lists>>> = const { RefCell::new(BTreeMap::new()) };
    }
    FOUND.with_borrow_mut(|found| {
        if let Some(lists) = found.get(target.name) {
            return Ok(lists.clone());
        }
        let lists = Rc::new(Lists::of(target)?);
        Ok(found.entry(target.name).or_insert(lists).clone())
    })
}

/// Lets a command install a filter before it executes its program.
pub fn confine(command: &mut Command, steps: Vec<Step>) {
    /// `struct sock_fprog` of linux/filter.h.
    #[repr(C)]
    struct Program {
        len: u16,
        steps: *const Step,
    }
    let install = move || {
        let len = u16::try_from(steps.len()).map_err(|_| Errno::EINVAL)?;
        let program = Program { len, steps: steps.as_ptr() };
        // SAFETY: it changes nothing of memory.
        Errno::result(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
        // SAFETY: the kernel reads the program, which lives until it returns.
        Errno::result(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) })?;
        Ok(())
    };
    // SAFETY: two system calls and no allocation, as may be made after fork(2).
    unsafe { command.pre_exec(install) };
}

/// Whether this process may install filters; an error says why not.
fn filters_work() -> &'static Result<(), String> {
    static FOUND: OnceLock<Result<(), String>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let mut command = Command::new("true");
        confine(&mut command, super::filter::allow_all());
        match process::run(&mut command, LIMIT) {
            Ok(outcome) if outcome.status.success() => Ok(()),
            Ok(outcome) => Err(format!("a filter that allows all: {}", outcome.status)),
            Err(error) => Err(format!("no filters on system calls here: {error}")),
        }
    })
}

/// Tests the lists by module, with an example that starts a thread and prints.
pub fn of_programs<'a>(machine: &'a Machine, built: &'a Built) -> Vec<Test<'a>> {
    let Some(hello) = built.program(machine, "hello").filter(|_| machine.qemu().is_none()) else { return Vec::new() };
    let name = "syscalls::a_program_needs_the_calls_of_its_modules_and_no_others";
    let mut tests = vec![Test::new(machine.target.name, name, move || match filters_work() {
        Ok(()) => hello_needs_its_modules(machine, hello).into(),
        Err(why) => Verdict::Skipped(why.clone()),
    })];
    if let (true, Err(why)) = (MACHINES.contains(&machine.target.name), filters_work()) {
        let name = "syscalls::the_tests_make_no_call_that_is_not_listed";
        tests.push(Test::new(machine.target.name, name, || Verdict::Skipped(why.clone())));
    }
    tests
}

fn hello_needs_its_modules(machine: &Machine, hello: &Path) -> Result<()> {
    let lists = Lists::of(machine.target)?;
    let run = |modules: &[&str]| {
        let mut calls = lists.names_of(modules)?;
        calls.insert("execve".to_string());
        let numbers: Vec<u32> = lists.complete(calls)?.into_iter().map(|(_, number)| number).collect();
        let mut command = machine.command(hello);
        confine(&mut command, for_a_test(machine.target, &numbers)?);
        Ok::<_, anyhow::Error>(process::run(&mut command, LIMIT)?)
    };
    let whole = run(&["io", "thread"])?;
    ensure!(whole.status.success() && whole.stdout.contains("42"), seen(&whole, &whole.status.to_string()));
    let without = run(&["io"])?;
    ensure!(without.status.signal() == Some(libc::SIGSYS), seen(&without, "without the calls of `thread`"));
    Ok(())
}
