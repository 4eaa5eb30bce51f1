//! Test programs: how one lists its tests, how a test is run, and how its end is judged.
//!
//! `PROGRAM --list` prints a line per test, its name and what it expects of its process:
//! `NAME[\tKEY=VALUE]…`. `PROGRAM NAME` runs one, in a process of its own; exit status 0 is a pass,
//! [`SKIPPED`] with a line `skipped: REASON` a skip. rt0's macro `tests!` makes such programs.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use crate::report::{Test, Verdict};
use crate::setup::Machine;
use crate::targets::Profile;
use crate::{process, say};

/// Exit status of a test program that says `skipped: <reason>`.
pub const SKIPPED: i32 = 77;

/// How long a test may take if it does not say otherwise. On an idle machine a test takes seconds;
/// the limit is for a machine under heavy load.
pub const LIMIT_NATIVE: Duration = Duration::from_secs(240);
/// The same under an emulator.
pub const LIMIT_QEMU: Duration = Duration::from_secs(300);

/// A function that changes the command of a test before it starts. It gets the full name
/// (`bin::name`), and returns a remark for the report of a failure.
pub type Prepare = Arc<dyn Fn(&mut Command, &str, &Expectation) -> Option<&'static str> + Send + Sync>;

/// Nothing is done.
pub fn as_it_is() -> Prepare {
    Arc::new(|_, _, _| None)
}

/// All tests of one program. If the program cannot list them, one failed test.
///
/// The tests' names begin with `bin`, unless it is empty. The tests run in `folder`; natively and
/// in release they see the variables `env`.
pub fn tests_of<'a>(
    machine: &'a Machine,
    bin: &str,
    program: &'a Path,
    folder: &'a Path,
    env: &'a [(&'a str, OsString)],
    prepare: &Prepare,
) -> Vec<Test<'a>> {
    let limit = if machine.qemu().is_some() { LIMIT_QEMU } else { LIMIT_NATIVE };
    let full = |name: &str| if bin.is_empty() { name.to_string() } else { format!("{bin}::{name}") };
    let listed = match list(machine, program) {
        Ok(listed) => listed,
        Err(why) => return vec![Test::new(machine.target.name, full("list"), move || Verdict::Failed(why.clone()))],
    };
    let mut tests = Vec::new();
    for test in listed {
        let name = full(&test.name);
        let alone = test.alone && machine.qemu().is_none();
        let gap_name = name.clone();
        let prepare = prepare.clone();
        let run = move || {
            if let (Some(reason), Some(_)) = (&test.native, machine.qemu()) {
                return Verdict::Skipped(format!("under qemu: {reason}"));
            }
            let mut command = guest_command(machine.command(program), &test, folder);
            if machine.qemu().is_none() && machine.target.profile == Profile::Release {
                command.envs(env.iter().map(|(name, value)| (name, value)));
            }
            let remark = prepare(&mut command, &gap_name, &test).map_or(String::new(), |remark| format!("{remark}\n"));
            let verdict = match process::run(&mut command, test.limit.unwrap_or(limit)) {
                Ok(outcome) => judge(&outcome, &test),
                Err(error) => Verdict::Failed(format!("cannot start: {error}")),
            };
            let gap = machine.gap(&gap_name);
            match (verdict, gap) {
                (Verdict::Failed(_), Some(gap)) => Verdict::Skipped(format!("qemu: {}", gap.reason)),
                (Verdict::Passed, Some(gap)) => {
                    say!("{}::{gap_name} passes although the table lists a gap: {}", machine.target.name, gap.reason);
                    Verdict::Passed
                }
                (Verdict::Failed(why), None) => {
                    Verdict::Failed(format!("{why}\n{remark}{}", process::shell_line(&command)))
                }
                (verdict, _) => verdict,
            }
        };
        tests.push(Test {
            machine: machine.target.name,
            name,
            alone,
            repeats: if machine.qemu().is_some() { 1 } else { 3 },
            run: Box::new(run),
        });
    }
    tests
}

/// The tests that a program lists.
pub fn list(machine: &Machine, program: &Path) -> Result<Vec<Expectation>, String> {
    let mut command = machine.command(program);
    let line = process::shell_line(command.arg("--list"));
    let listed = match process::run(&mut command, LIMIT_QEMU) {
        Ok(outcome) if outcome.status.success() => Ok(outcome),
        Ok(outcome) => Err(seen(&outcome, "--list failed")),
        Err(error) => Err(format!("cannot start: {error}")),
    };
    let tests = listed.and_then(|listed| listed.stdout.lines().map(expectation).collect());
    tests.map_err(|why| format!("{why}\n{line}"))
}

/// What a line of `--list` says about a test.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Expectation {
    /// The test.
    pub name: String,
    /// The exit status that means success.
    exit: i32,
    /// The signal that it must die by.
    signal: Option<i32>,
    stdout: Option<String>,
    stderr: Option<String>,
    /// Arguments after its name.
    pub args: Vec<String>,
    /// Variables of its environment.
    pub env: Vec<(String, String)>,
    /// The soft limit of its stack: bytes, or `unlimited`.
    pub stack: Option<String>,
    /// Descriptors that are closed at its start.
    pub close: Vec<u32>,
    /// Why it proves nothing under an emulator.
    pub native: Option<String>,
    alone: bool,
    /// How long it may take, if the line says it.
    pub limit: Option<Duration>,
}

/// Reads `NAME[\tKEY=VALUE]…`; the error says what is wrong with the line.
pub fn expectation(line: &str) -> Result<Expectation, String> {
    let mut fields = line.split('\t');
    let mut test = Expectation { name: fields.next().unwrap_or_default().to_string(), ..Default::default() };
    if test.name.is_empty() || test.name.contains(char::is_whitespace) {
        return Err(format!("no test name in `{line}`"));
    }
    for field in fields {
        let (key, value) = field.split_once('=').unwrap_or((field, ""));
        let value = unescape(value);
        let number = || value.parse::<u32>().map_err(|_| format!("`{field}` of {} is no number", test.name));
        match key {
            "exit" => test.exit = number()? as i32,
            "signal" => test.signal = Some(number()? as i32),
            "stdout" => test.stdout = Some(value),
            "stderr" => test.stderr = Some(value),
            "arg" => test.args.push(value),
            "env" => match value.split_once('=') {
                Some((name, value)) => test.env.push((name.to_string(), value.to_string())),
                None => return Err(format!("`{field}` of {} is not env=NAME=VALUE", test.name)),
            },
            "stack" if value == "unlimited" => test.stack = Some(value),
            "stack" => match value.parse::<u64>() {
                Ok(bytes) => test.stack = Some(bytes.to_string()),
                Err(_) => return Err(format!("`{field}` of {} is no number", test.name)),
            },
            "close" => {
                let list: Result<_, _> = value.split(',').map(str::parse).collect();
                test.close = list.map_err(|_| format!("`{field}` of {} is no list of descriptors", test.name))?;
            }
            "native" => test.native = Some(value),
            "alone" => test.alone = true,
            "limit" => test.limit = Some(Duration::from_secs(number()?.into())),
            _ => return Err(format!("{} has the unknown key `{key}`", test.name)),
        }
    }
    Ok(test)
}

fn unescape(value: &str) -> String {
    let mut out = String::new();
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some(other) => out.push(other),
                None => out.push('\\'),
            },
            (c, false) => out.push(c),
        }
    }
    out
}

/// The command for a test in this folder. Of this process's environment it has only PATH, so that a
/// test sees the same everywhere. `inner` starts the test program.
pub fn guest_command(mut inner: Command, test: &Expectation, folder: &Path) -> Command {
    inner.arg(&test.name).args(&test.args);
    let mut command = if test.stack.is_none() && test.close.is_empty() {
        inner
    } else {
        // A shell sets the limit and closes the descriptors, so that a user can repeat the line as
        // it is printed.
        let stack = test.stack.as_ref().map(|bytes| match bytes.parse::<u64>() {
            Ok(bytes) => format!("ulimit -S -s {}; ", bytes.div_ceil(1024)),
            Err(_) => format!("ulimit -S -s {bytes}; "),
        });
        let close: String = test.close.iter().map(|fd| format!(" {fd}>&-")).collect();
        let script = format!("{}exec \"$0\" \"$@\"{close}", stack.unwrap_or_default());
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).arg(inner.get_program()).args(inner.get_args());
        shell
    };
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.envs(test.env.iter().map(|(name, value)| (name, value))).current_dir(folder);
    command
}

/// Compares what was seen with what was expected.
pub fn judge(outcome: &process::Outcome, test: &Expectation) -> Verdict {
    if outcome.timed_out {
        return Verdict::Failed(seen(outcome, &format!("no end after {:.0} s", outcome.time.as_secs_f64())));
    }
    if outcome.status.code() == Some(SKIPPED) && test.exit != SKIPPED {
        let reason = outcome.stdout.lines().rev().find_map(|line| line.strip_prefix("skipped: "));
        return Verdict::Skipped(reason.unwrap_or("it gave no reason").to_string());
    }
    let ended_well = match test.signal {
        Some(signal) => outcome.status.signal() == Some(signal),
        None => outcome.status.code() == Some(test.exit),
    };
    if !ended_well {
        let expected = test.signal.map_or(format!("exit status {}", test.exit), |signal| format!("signal {signal}"));
        return Verdict::Failed(seen(outcome, &format!("{}, expected {expected}", outcome.status)));
    }
    for (stream, text, part) in [("stdout", &outcome.stdout, &test.stdout), ("stderr", &outcome.stderr, &test.stderr)] {
        if part.as_ref().is_some_and(|part| !text.contains(part.as_str())) {
            let part = part.as_deref().unwrap_or_default();
            return Verdict::Failed(seen(outcome, &format!("{stream} does not contain {part:?}")));
        }
    }
    Verdict::Passed
}

/// What happened and what was printed.
pub fn seen(outcome: &process::Outcome, what: &str) -> String {
    let mut text = what.to_string();
    for (stream, said) in [("stdout", &outcome.stdout), ("stderr", &outcome.stderr)] {
        if !said.trim().is_empty() {
            let lines: Vec<_> = said.lines().collect();
            let shown = &lines[lines.len().saturating_sub(40)..];
            text += &format!("\n--- {stream}, last lines ---\n{}", shown.join("\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(script: &str) -> process::Outcome {
        process::run(Command::new("sh").args(["-c", script]), Duration::from_secs(10)).expect("sh exists")
    }

    fn judged(script: &str, line: &str) -> Verdict {
        judge(&outcome(script), &expectation(line).expect("a good line"))
    }

    #[test]
    fn a_list_line_is_a_name_and_keys() {
        let line = "panics\texit=101\tstderr=at \\\\ line\\n2\targ=a\targ=b\targ=c d\tenv=K=v=w\tenv=L=\tstack=65536\tclose=0,2\talone";
        let test = expectation(line).expect("a good line");
        let env = [("K", "v=w"), ("L", "")].map(|(k, v)| (k.to_string(), v.to_string()));
        assert_eq!((test.name.as_str(), test.exit, test.alone), ("panics", 101, true));
        assert_eq!(test.stderr.as_deref(), Some("at \\ line\n2"));
        assert_eq!((test.args, test.env), (["a", "b", "c d"].map(str::to_string).to_vec(), env.to_vec()));
        assert_eq!((test.stack.as_deref(), test.close), (Some("65536"), vec![0, 2]));
        assert_eq!(expectation("x\tlimit=5").expect("good").limit, Some(Duration::from_secs(5)));
    }

    #[test]
    fn a_list_line_that_is_wrong_is_refused() {
        for line in
            ["", "\texit=1", "two words", "x\texit=one", "x\tenv=K", "x\tclose=0,b", "x\tcolour=red", "x\tstack=1k"]
        {
            assert!(expectation(line).is_err(), "{line}");
        }
    }

    #[test]
    fn exit_status_signal_and_streams_decide() {
        assert_eq!(judged("exit 0", "t"), Verdict::Passed);
        assert_eq!(judged("echo abc; exit 7", "t\texit=7\tstdout=b"), Verdict::Passed);
        assert_eq!(judged("kill -ABRT $$", "t\tsignal=6"), Verdict::Passed);
        for (script, line) in [
            ("exit 1", "t"),
            ("kill -ABRT $$", "t"),
            ("exit 6", "t\tsignal=6"),
            ("echo abc >&2", "t\tstdout=b"),
            ("exit 0", "t\texit=101"),
        ] {
            assert!(matches!(judged(script, line), Verdict::Failed(_)), "{script} {line}");
        }
    }

    #[test]
    fn a_skip_gives_its_last_reason() {
        let verdict = judged("echo skipped: first; echo skipped: no such call; exit 77", "t");
        assert_eq!(verdict, Verdict::Skipped("no such call".to_string()));
    }

    #[test]
    fn limits_and_descriptors_are_set_by_a_line_that_can_be_typed() {
        let test = expectation("-c\targ=ulimit\targ=-s\tstack=100000\tclose=1").expect("a good line");
        let command = guest_command(Command::new("/bin/echo"), &test, Path::new("/"));
        let line = process::shell_line(&command);
        assert!(line.ends_with(r#"sh -c 'ulimit -S -s 98; exec "$0" "$@" 1>&-' /bin/echo -c ulimit -s"#), "{line}");
    }
}
