//! Tests of the sandbox in examples/with-rustix as a user would: with the host's shell in it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cargo_rt0::process;
use cargo_rt0::protocol::seen;
use cargo_rt0::report::{Test, Verdict};

use super::serve::Programs;
use super::shell::{self, CASE, Case, LIMIT};
use crate::repository::scratch;

const CASES: &[Case] = &[
    Case { name: "the_status_is_the_programs", script: "echo out; exit 3", status: 3, stdout: "out\n", ..CASE },
    Case { name: "a_signal_is_128_and_its_number", script: "kill -9 $$", status: 137, ..CASE },
    Case {
        name: "the_root_has_what_is_shown_and_nothing_else",
        script: "cd /; for f in *; do case $f in bin|lib|lib64|usr|dev|proc|tmp) ;; *) echo $f;; esac; done; \
                 ls /dev /tmp; test -x /bin/sh",
        stdout: "/dev:\nfull\nnull\nrandom\nurandom\nzero\n\n/tmp:\n",
        ..CASE
    },
    Case {
        name: "only_tmp_can_be_written",
        script: "for d in / /usr /bin /dev /proc; do echo x > $d/x && echo wrote to $d; done 2>/dev/null; \
                 echo kept > /tmp/x; cat /tmp/x; echo x > /dev/null",
        stdout: "kept\n",
        ..CASE
    },
    Case { name: "it_has_processes_of_its_own", script: "echo $$ $PPID", stdout: "2 1\n", ..CASE },
    Case {
        name: "it_has_no_network",
        script: "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '",
        stdout: "lo\n",
        ..CASE
    },
    Case {
        name: "it_has_no_rights",
        script: "grep -E '^(CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t'",
        stdout: "CapInh:0000000000000000\nCapPrm:0000000000000000\nCapEff:0000000000000000\n\
                 CapBnd:0000000000000000\nCapAmb:0000000000000000\nNoNewPrivs:1\nSeccomp:2\n",
        ..CASE
    },
    // A user without rights may make a user namespace: it is the filter that refuses.
    Case {
        name: "no_namespace_is_made_inside",
        script: "unshare --user true && echo made",
        status: 1,
        stderr: "unshare failed",
        ..CASE
    },
    Case {
        name: "processes_that_are_left_end_with_it",
        script: "sleep 1000 >/dev/null 2>&1 & exit 4",
        status: 4,
        ..CASE
    },
    Case {
        name: "the_working_directory_is_as_asked_for",
        options: &["--dir", "/tmp"],
        script: "pwd",
        stdout: "/tmp\n",
        ..CASE
    },
    Case {
        name: "what_is_shown_has_the_name_that_is_asked_for",
        options: &["--ro", "/etc/passwd:/some/where/users"],
        script: "grep -c '^root:' /some/where/users; echo x >> /some/where/users || echo refused",
        stdout: "1\nrefused\n",
        stderr: "",
        ..CASE
    },
];

/// Command lines that make no sandbox, or start no program in one: the status, and a part of
/// standard error.
const REFUSED: &[(&[&str], i32, &str)] = &[
    (&[], 125, "usage"),
    (&["--ro"], 125, "usage"),
    (&["-x", "true"], 125, "usage"),
    (&["--ro", "/usr:../up", "true"], 125, "leads upwards"),
    (&["--ro", "/nonexistent", "true"], 125, "opening /nonexistent: ENOENT"),
    (&["/nonexistent"], 127, "ENOENT"),
    (&["no-such-program"], 127, "ENOENT"),
    (&["/proc"], 126, "EACCES"),
];

/// The tests.
pub fn all(programs: &Programs) -> Vec<Test<'static>> {
    let test = |name: String, run: fn(&Path, &Case) -> Result<()>, case: &'static Case| {
        let programs = programs.clone();
        Test::new("host", format!("sandbox::{name}"), move || {
            let sandbox = programs.find("sandbox")?;
            match (run(&sandbox, case), shell::namespaces(&["--net", "--ipc", "--uts"])) {
                (Err(_), Err(why)) => Ok(Verdict::Skipped(why)),
                (result, _) => result.map(Verdict::from),
            }
        })
    };
    let mut tests: Vec<_> = CASES.iter().map(|case| test(case.name.to_string(), check, case)).collect();
    type Own = fn(&Path, &Case) -> Result<()>;
    let own: [(&str, Own); 5] = [
        ("what_cannot_be_made_is_refused_with_its_reason", refusals),
        ("a_folder_that_is_shown_writable_is_the_hosts", writable),
        ("descriptors_do_not_come_along", descriptors),
        ("signals_are_passed_on_and_a_killed_one_leaves_nothing", signals),
        ("in_a_sandbox_there_is_no_other", nested),
    ];
    tests.extend(own.map(|(name, run)| test(name.to_string(), run, &CASE)));
    tests
}

/// The sandbox with the folders that a shell needs.
pub fn with_shell(sandbox: &Path) -> Command {
    let mut command = Command::new(sandbox);
    for folder in ["/bin", "/lib", "/lib64", "/usr"] {
        if Path::new(folder).exists() {
            command.args(["--ro", folder]);
        }
    }
    command
}

fn check(sandbox: &Path, case: &Case) -> Result<()> {
    shell::check(with_shell(sandbox), case)
}

fn refusals(sandbox: &Path, _: &Case) -> Result<()> {
    for (args, status, stderr) in REFUSED {
        let mut command = Command::new(sandbox);
        let outcome = process::run(command.args(*args), LIMIT)?;
        let as_promised = outcome.status.code() == Some(*status) && outcome.stderr.contains(stderr);
        ensure!(as_promised, "{}: {}", process::shell_line(&command), seen(&outcome, &outcome.status.to_string()));
    }
    Ok(())
}

fn writable(sandbox: &Path, _: &Case) -> Result<()> {
    let folder = scratch("sandbox-writable")?;
    let shown = format!("{}:/here", folder.display());
    let mut command = with_shell(sandbox);
    command.args(["--rw", &shown, "sh", "-c", "echo inside > /here/file"]);
    let outcome = process::run(&mut command, LIMIT)?;
    ensure!(outcome.status.success(), seen(&outcome, &process::shell_line(&command)));
    ensure!(std::fs::read_to_string(folder.join("file"))? == "inside\n");
    Ok(())
}

fn descriptors(sandbox: &Path, _: &Case) -> Result<()> {
    let inner = with_shell(sandbox);
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" \"$@\" 9</etc/passwd"]).arg(inner.get_program()).args(inner.get_args());
    // The listing has one of its own.
    command.args(["sh", "-c", "cd /proc/$$/fd && for fd in *; do test $fd -gt 2 && readlink $fd; done; true"]);
    let outcome = process::run(&mut command, LIMIT)?;
    let is_clean = outcome.status.success() && !outcome.stdout.contains("passwd");
    ensure!(is_clean, seen(&outcome, &process::shell_line(&command)));
    Ok(())
}

/// The shell outside starts one that waits, until a file says that it does, and sends a signal.
fn signals(sandbox: &Path, _: &Case) -> Result<()> {
    const OUTSIDE: &str = "rm -f $READY; \"$0\" \"$@\" & p=$!; until test -e $READY; do sleep 0.05; done; \
                           kill -$SIGNAL $p; wait $p; echo $?";
    let folder = scratch("sandbox-signals")?;
    let run = |signal: &str, script: &str| {
        let mut inner = with_shell(sandbox);
        inner.args(["--rw", &format!("{}:/here", folder.display()), "sh", "-c", script]);
        let mut command = Command::new("sh");
        command.env("READY", folder.join("ready")).env("SIGNAL", signal).args(["-c", OUTSIDE]);
        command.arg(inner.get_program()).args(inner.get_args());
        let outcome = process::run(&mut command, LIMIT)?;
        ensure!(outcome.status.success() && !outcome.timed_out, seen(&outcome, &process::shell_line(&command)));
        Ok(outcome.stdout)
    };
    let said = run("TERM", "trap 'echo term; exit 5' TERM; echo > /here/ready; while :; do sleep 0.05; done")?;
    ensure!(said == "term\n5\n", "after SIGTERM: {said:?}");
    // It keeps a line coming as long as it is there.
    run("KILL", "echo > /here/ready; while :; do echo >> /here/alive; sleep 0.02; done")?;
    let length = || std::fs::metadata(folder.join("alive")).map(|file| file.len()).context("the file");
    for _ in 0..100 {
        let before = length()?;
        std::thread::sleep(Duration::from_millis(200));
        if length()? == before {
            return Ok(());
        }
    }
    anyhow::bail!("the program lives 20 s after the sandbox was killed")
}

fn nested(sandbox: &Path, _: &Case) -> Result<()> {
    let shown = format!("{}:/sandbox", sandbox.display());
    let mut command = with_shell(sandbox);
    command.args(["--ro", &shown, "/sandbox", "true"]).stdin(Stdio::null());
    let outcome = process::run(&mut command, LIMIT)?;
    let as_promised = outcome.status.code() == Some(125) && outcome.stderr.contains("making namespaces: EPERM");
    ensure!(as_promised, seen(&outcome, &process::shell_line(&command)));
    Ok(())
}
