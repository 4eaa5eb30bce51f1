//! Tests of whole programs from outside: their system calls and their output.
//!
//! They are the same for every machine as far as possible: a program that is right on the host must
//! print the same under every emulator.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Error, Result, bail, ensure};
use cargo_rt0::build::{Built, Kind};
use cargo_rt0::process;
use cargo_rt0::protocol::seen;
use cargo_rt0::report::{Test, Verdict};
use cargo_rt0::setup::{Machine, Setup};
use object::{Object, ObjectSymbol, SymbolKind};

use super::{crates, faults, init, linker, sandbox, serve, tools, traced, valgrind};
use crate::build::SUITE;
use crate::repository::{root, scratch};
use crate::{bench, orders, strace, syscalls};

/// The system calls of a program that does nothing, on x86_64: rt0's calls before `main`, and the
/// exit.
const CALLS_OF_NOTHING: [&str; 3] = [
    "arch_prctl", // The thread pointer.
    "ppoll",      // Are descriptors 0, 1 and 2 open?
    "exit_group",
];

/// The time limit of a whole program.
const LIMIT: Duration = Duration::from_secs(180);

/// Tests of the repository's files.
pub fn of_the_repository(setup: &Setup) -> Vec<Test<'static>> {
    let name = "repository::the_program_in_the_readme_is_examples_hello";
    let mut tests = vec![Test::new("host", name, readme_shows_hello)];
    tests.extend(linker::all(setup));
    tests.extend(crates::of_others());
    if std::env::consts::ARCH == "x86_64" {
        let programs = serve::Programs::default();
        tests.extend(sandbox::all(&programs));
        tests.extend(serve::all(&programs));
    }
    tests.push(bench::smoke_test(setup));
    tests.push(bench::sizes_test(setup));
    tests.push(bench::beside_test(setup));
    tests.push(bench::instructions::test(setup));
    tests.push(bench::examples::test(setup));
    tests
}

/// Tests of the examples built for one machine.
pub fn of_programs<'a>(setup: &Setup, machine: &'a Machine, built: &'a Built) -> Vec<Test<'a>> {
    let row = machine.target.name;
    let mut tests = Vec::new();
    // These have their own tests.
    let own = ["init", "profile"];
    let examples = built
        .programs
        .iter()
        .filter(|p| p.kind == Kind::Example && p.machine == row && !own.contains(&p.name.as_str()));
    for example in examples {
        tests.push(Test::new(row, format!("examples::{}", example.name), || {
            let mut command = machine.command(&example.path);
            let outcome = process::run(command.current_dir(root()), LIMIT)?;
            ensure!(outcome.status.success() && !outcome.timed_out, seen(&outcome, &process::shell_line(&command)));
            Ok(())
        }));
    }
    if let Some(wc) = built.program(machine, "wc") {
        let name = "examples::wc_prints_what_coreutils_prints";
        tests.push(Test::new(row, name, || wc_like_coreutils(machine, wc)));
    }
    if let Some(pool) = built.program(machine, "pool") {
        let name = "examples::pool_prints_what_coreutils_prints";
        tests.push(Test::new(row, name, || pool_like_coreutils(machine, pool)));
    }
    if let Some(words) = built.program(machine, "words") {
        let name = "examples::words_are_counted_and_the_most_frequent_come_first";
        tests.push(Test::new(row, name, || words_counted(machine, words)));
    }
    if let (Some(hello), false) = (built.program(machine, "hello"), row.ends_with("-dev")) {
        let name = "examples::hello_has_nothing_of_what_it_does_not_use";
        tests.push(Test::new(row, name, || nothing_unused(hello)));
    }
    let suite = built.find(machine, Kind::Bin, SUITE);
    if let Some(suite) = suite.filter(|_| orders::knows(&machine.target.elf)) {
        let name = "sync::the_machine_code_of_fast_paths_has_the_orders_of_the_source";
        tests.push(Test::new(row, name, || ordered(suite, machine)));
    }
    if let (Some(nothing), "x86_64") = (built.program(machine, "nothing"), row) {
        let strace = setup.strace().map_err(|e| format!("{e:#}"));
        let name = "examples::nothing_makes_exactly_the_pinned_system_calls";
        tests.push(Test::new(row, name, move || match &strace {
            Ok(strace) => calls_of_nothing(strace, nothing),
            Err(error) => Verdict::Failed(format!("no strace: {error}")),
        }));
    }
    tests.extend(faults::of_programs(machine, built));
    tests.extend(crates::of_programs(machine));
    tests.extend(init::of_init(machine, built));
    tests.extend(tools::of_programs(setup, machine, built));
    tests.extend(traced::of_programs(setup, machine, built));
    tests.extend(syscalls::confined::of_programs(machine, built));
    tests.extend(valgrind::of_programs(setup, machine, built));
    tests
}

/// A program that starts a thread and prints contains no code for clocks and random bytes, nor for
/// finding them.
fn nothing_unused(program: &Path) -> Result<()> {
    let data = fs::read(program)?;
    let file = object::File::parse(&*data)?;
    // Only functions, because PowerPC's TOC keeps a word or two for unused data.
    let functions = file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text);
    let names: Vec<_> = functions.filter_map(|symbol| symbol.name().ok()).collect();
    ensure!(names.iter().any(|name| name.contains("rust_thread")), "{} has no symbols", program.display());
    // In both manglings the names of a path follow their lengths.
    let unused = ["3rt03cpu", "3rt04time", "3rt04vdso", "3rt06random", "3rt07mapping"];
    let found: Vec<_> = names.iter().filter(|name| unused.iter().any(|part| name.contains(part))).collect();
    ensure!(found.is_empty(), "{} has {found:?}", program.display());
    Ok(())
}

/// The machine code of the locks' fast paths: see [`orders`].
fn ordered(program: &Path, machine: &Machine) -> Result<()> {
    let (found, count) = orders::violations(&fs::read(program)?, &machine.target.elf).map_err(Error::msg)?;
    ensure!(count >= LEAST_FAST_PATHS, "{} has {count} fast paths to look at", program.display());
    ensure!(found.is_empty(), "{}:\n{}", program.display(), found.join("\n"));
    Ok(())
}

/// The least number of functions of tests/src/suite/sync/ordered.rs that are examined.
const LEAST_FAST_PATHS: usize = 11;

/// Compares the calls with the list above.
fn calls_of_nothing(strace: &Command, nothing: &Path) -> Verdict {
    match strace::calls(strace, nothing) {
        Ok(calls) if calls == CALLS_OF_NOTHING => Verdict::Passed,
        Ok(calls) => Verdict::Failed(format!("calls are {calls:?}, expected {CALLS_OF_NOTHING:?}")),
        Err(error) if error.to_string() == strace::FORBIDDEN => Verdict::Skipped(strace::FORBIDDEN.to_string()),
        Err(error) => Verdict::Failed(format!("{error:#}")),
    }
}

/// Runs examples/wc and coreutils' wc on the same files.
fn wc_like_coreutils(machine: &Machine, wc: &Path) -> Result<()> {
    let folder = scratch(&format!("wc-{}", machine.target.name))?;
    fs::write(folder.join("two lines"), "one two\n three\tfour  \n")?;
    fs::write(folder.join("no-newline"), "the end")?;
    fs::write(folder.join("empty"), "")?;
    // Each word contains a letter, because coreutils before 9.5 does not count a word of invalid
    // bytes only, while later versions do.
    fs::write(folder.join("invalid"), b"caf\xe9 a\xff\xfeb \x80\x00c x\n\xc3(\n")?;
    fs::write(folder.join("large"), large_text(6_000_000))?;
    let cases: [&[&str]; 6] = [
        &["two lines"],
        &["empty"],
        &["two lines", "no-newline", "empty", "large"],
        &["no-newline", "missing", "two lines"],
        &["invalid"],
        &["large", "large", "large", "two lines", "large"],
    ];
    for files in cases {
        let run = |mut command: Command| {
            command.args(files).current_dir(&folder).env("LC_ALL", "C");
            let outcome = process::run(&mut command, LIMIT)?;
            Ok::<_, anyhow::Error>((process::shell_line(&command), outcome))
        };
        let (line, ours) = run(machine.command(wc))?;
        let (_, theirs) = run(Command::new("wc"))?;
        if ours.stdout != theirs.stdout || ours.status.code() != theirs.status.code() {
            bail!(
                "coreutils' wc: {}, {:?}\nours: {}\n(in {}) {line}",
                theirs.status,
                theirs.stdout,
                seen(&ours, &ours.status.to_string()),
                folder.display()
            );
        }
        let missing = files.iter().filter(|f| **f == "missing").all(|f| ours.stderr.contains(f));
        ensure!(missing, "no message names the missing file: {:?}", ours.stderr);
    }
    Ok(())
}

/// Runs examples/pool and coreutils' sha256sum on the same files.
fn pool_like_coreutils(machine: &Machine, pool: &Path) -> Result<()> {
    let folder = scratch(&format!("pool-{}", machine.target.name))?;
    fs::create_dir_all(folder.join("folder"))?;
    // Lengths around the one where padding needs a second block.
    let lengths = [0, 1, 55, 56, 63, 64, 65, 119, 120, 65_535, 65_536, 65_537, 2_000_000];
    for len in lengths {
        fs::write(folder.join(len.to_string()), large_text(len))?;
    }
    let mut files: Vec<String> = lengths.iter().map(usize::to_string).collect();
    let rest = (0..1000).map(|number| lengths[number * 7 % (lengths.len() - 2)].to_string());
    let others = ["missing", "folder", "0/not-a-folder", "64"].map(str::to_string);
    let cases = [vec!["0".to_string()], files.clone(), others.to_vec(), {
        files.extend(rest.chain(others));
        files
    }];
    for files in cases {
        let run = |mut command: Command| {
            command.args(&files).current_dir(&folder).env("LC_ALL", "C").stdin(Stdio::null());
            process::run(&mut command, LIMIT).map(|outcome| (process::shell_line(&command), outcome))
        };
        let (line, ours) = run(machine.command(pool))?;
        let (_, theirs) = run(Command::new("sha256sum"))?;
        let same = ours.stdout == theirs.stdout && ours.stderr == theirs.stderr;
        ensure!(
            same && ours.status.code() == theirs.status.code(),
            "coreutils' sha256sum: {}\nours: {}\n(in {}) {line}",
            seen(&theirs, &theirs.status.to_string()),
            seen(&ours, &ours.status.to_string()),
            folder.display()
        );
    }
    Ok(())
}

/// A text with words and lines of many lengths, the same in each run.
fn large_text(bytes: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 16
    };
    let letter = |random: u32| match random % 40 {
        0 => b'\n',
        1..=6 => b' ',
        7 => b'\t',
        other => b'a' + (other % 26) as u8,
    };
    (0..bytes).map(|_| letter(next())).collect()
}

/// Counts the words of a text here, and has examples/words count them.
fn words_counted(machine: &Machine, words: &Path) -> Result<()> {
    const SHOWN: usize = 20;
    let folder = scratch(&format!("words-{}", machine.target.name))?;
    let text = large_text(200_000);
    fs::write(folder.join("text"), &text)?;
    let mut counts = BTreeMap::<&str, usize>::new();
    str::from_utf8(&text)?.split_ascii_whitespace().for_each(|word| *counts.entry(word).or_default() += 1);
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|&(word, count)| (Reverse(count), word));
    let expected: String = counts[..SHOWN].iter().map(|(word, count)| format!("{count} {word}\n")).collect();
    let mut command = machine.command(words);
    command.arg(folder.join("text")).arg(SHOWN.to_string());
    let outcome = process::run(&mut command, LIMIT)?;
    let line = process::shell_line(&command);
    ensure!(
        outcome.status.success() && outcome.stdout == expected,
        seen(&outcome, &format!("{line}: not\n{expected}"))
    );
    Ok(())
}

/// The first Rust program in the README is exactly examples/hello.rs.
fn readme_shows_hello() -> Result<()> {
    let readme = fs::read_to_string(root().join("README.md"))?;
    let hello = fs::read_to_string(root().join("examples/hello.rs"))?;
    let shown = first_program(&readme).context("README.md has no ```rust block with entry!")?;
    ensure!(shown.trim() == hello.trim(), "README.md shows:\n{shown}\nexamples/hello.rs is:\n{hello}");
    Ok(())
}

fn first_program(markdown: &str) -> Option<&str> {
    let blocks = markdown.split("```rust").skip(1);
    blocks.filter_map(|rest| rest.split_once('\n')?.1.split("```").next()).find(|block| block.contains("entry!"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readmes_program_is_the_first_with_an_entry() {
        let text = "```rust\nlet x;\n```\n```rust,no_run\nentry!(main);\n```\n";
        assert_eq!(first_program(text), Some("entry!(main);\n"));
        assert_eq!(first_program("none"), None);
    }

    #[test]
    fn the_large_text_has_words_and_lines() {
        let text = large_text(10_000);
        assert!(text.iter().filter(|b| **b == b'\n').count() > 100);
        assert!(text.is_ascii());
    }
}
