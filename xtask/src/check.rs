//! `cargo xtask check`: the rules of this repository that a command can hold.
//!
//! Formats, lints and docs are checked by cargo. All other rules are checked on the text: every
//! source file is split into code and comments (strings belong to neither), and each rule reads one
//! of the two. So a comment may contain `asm!`.

mod comments;
mod modules;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::setup::{Core, Setup};
use crate::targets::{TARGETS, Target};
use crate::{Options, build, pinned, process, root, say, set_up};

/// The guide to a port.
const GUIDE: &str = "arch/README.md";

/// A place where a rule is broken.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    file: String,
    line: usize,
    what: String,
}

/// A source file, split.
struct Source {
    /// The path, relative to the repository.
    path: String,
    /// The text with comments and strings blanked; lines stay where they are.
    code: String,
    /// The text with all but comments blanked.
    comments: String,
}

/// Checks everything; the exit status says whether all rules hold.
pub fn run(options: Options) -> Result<ExitCode> {
    let sources = read_sources()?;
    let findings = rules(&sources);
    for Finding { file, line, what } in &findings {
        println!("{file}:{line}: {what}");
    }
    let mut broken = findings.len();
    for (what, command) in commands(&set_up(options)?, &sources)? {
        let mut command = command;
        say!("{what}: {}", process::shell_line(&command));
        if !command.status().with_context(|| format!("cannot start {:?}", command.get_program()))?.success() {
            println!("{what}: the messages above say what is wrong");
            broken += 1;
        }
    }
    println!("{}", if broken == 0 { "all rules hold".to_string() } else { format!("{broken} rules broken") });
    Ok(if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The commands that check formats, lints and docs.
fn commands(setup: &Setup, sources: &[Source]) -> Result<Vec<(String, Command)>> {
    let cargo = |words: &str| {
        let mut command = pinned("cargo");
        command.args(words.split(' '));
        command
    };
    // rustfmt does not find what cfg_select! chooses, nor crates outside the workspace.
    let mut rustfmt = pinned("rustfmt");
    rustfmt.args(["--check", "--edition", "2024"]);
    let hidden = |s: &&Source| {
        ["arch/", "bench/", "crates/", "examples/standalone/", "examples/with-rustix/", "fuzz/"]
            .iter()
            .any(|f| s.path.starts_with(f))
    };
    rustfmt.args(sources.iter().filter(hidden).map(|s| s.path.as_str()));

    let lints = "-- -D warnings";
    let mut programs = cargo(&format!("clippy --workspace --lib --bins --examples {lints}"));
    programs.env("RUSTC_BOOTSTRAP", build::unstable_programs());
    let mut docs = cargo("doc --package rt0 --all-features --no-deps");
    docs.env("RUSTDOCFLAGS", "-Dwarnings");
    let mut fuzz = cargo("check --manifest-path fuzz/Cargo.toml --target-dir target/fuzz");
    // Nothing is linked, so the library need not exist.
    fuzz.env("RUSTFLAGS", "--cfg fuzzing").env("CUSTOM_LIBFUZZER_PATH", "no/library");
    let mut doc_examples = cargo("test --doc --package rt0 --all-features");
    doc_examples.env("RUSTC_BOOTSTRAP", "1"); // Else rustdoc ignores which error one must give.
    let mut private_docs = cargo("doc --package rt0 --all-features --no-deps --document-private-items");
    private_docs.env("RUSTDOCFLAGS", "-Dwarnings");
    let mut commands = vec![
        ("format".to_string(), cargo("fmt --all --check")),
        ("format of arch/ and fuzz/".to_string(), rustfmt),
        ("lints".to_string(), programs),
        (
            "lints of the unit tests".to_string(),
            cargo(&format!("clippy --package rt0 --package xtask --tests {lints}")),
        ),
        (
            "lints of the benchmark".to_string(),
            cargo(&format!(
                "clippy --manifest-path bench/Cargo.toml --target-dir target/bench/check --all-features --bins {lints}"
            )),
        ),
        ("the fuzz targets".to_string(), fuzz),
        ("docs".to_string(), docs),
        ("docs of private items".to_string(), private_docs),
        ("examples in docs".to_string(), doc_examples),
    ];
    // The library for the other machines, if their core exists already: a check sets up nothing.
    let mut foreign: BTreeMap<Core, Vec<&Target>> = BTreeMap::new();
    for target in TARGETS.iter().filter(|t| t.triple != setup.rust.host) {
        if setup.has_prebuilt(target) {
            foreign.entry(Core::Prebuilt).or_default().push(target);
        } else if setup.has_rust_src() {
            foreign.entry(Core::Source).or_default().push(target);
        } else {
            say!("lints for {}: left out, its core is not set up (cargo xtask test does that)", target.name);
        }
    }
    for (core, targets) in foreign {
        let mut command = build::lints(setup, &core, &targets)?;
        command.args(lints.split(' '));
        let names: Vec<_> = targets.iter().map(|target| target.name).collect();
        commands.push((format!("lints for {}", names.join(", ")), command));
    }
    Ok(commands)
}

/// Every rule that is checked on the text.
fn rules(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        findings.extend(places(source));
        findings.extend(unfinished(source));
        findings.extend(handlers(source));
        findings.extend(comments::plain(source));
    }
    findings.extend(modules::rules(sources));
    if let Some(contract) = sources.iter().find(|s| s.path == "src/arch.rs") {
        let order: Vec<String> = members(&contract.code, "trait Arch", &[]).into_iter().map(|m| m.1).collect();
        for source in sources.iter().filter(|s| s.path.starts_with("arch/")) {
            findings.extend(member_order(source, &order));
        }
        findings.extend(machine_rows(&fs::read_to_string(root().join("README.md")).unwrap_or_default()));
        findings.extend(member_users(contract, sources, &order));
        findings.extend(member_sources(&fs::read_to_string(root().join(GUIDE)).unwrap_or_default(), &order));
    }
    findings
}

/// Code that is allowed only in certain places.
fn places(source: &Source) -> Vec<Finding> {
    let path = source.path.as_str();
    let arch = path.starts_with("arch/");
    let library = path.starts_with("src/");
    let mut findings = Vec::new();
    for (line, code) in (1..).zip(source.code.lines()) {
        let mut broken = |holds: bool, what: &str| {
            if !holds {
                findings.push(finding(source, line, what.to_string()));
            }
        };
        let assembly =
            ["asm", "naked_asm", "global_asm"].iter().any(|m| has_word(code, m) && code.contains(&format!("{m}!")));
        let bare = path.starts_with("bench/src/raw/"); // Programs without rt0.
        broken(!assembly || arch || bare || path == "src/intrinsics.rs", "assembly belongs in arch/");
        let asks = has_word(code, "target_arch");
        let attribute = path == "src/lib.rs" && code.contains("asm_experimental_arch");
        broken(
            !library || !asks || path == "src/arch.rs" || attribute,
            "target_arch: only src/arch.rs asks which machine this is; give the trait there a member",
        );
        let stub = (0..=6).any(|n| has_word(code, &format!("syscall{n}")));
        let may_call = arch
            || ["src/arch.rs", "src/sys.rs"].contains(&path)
            || path.starts_with("src/sys/")
            || !(library || path.starts_with("examples/"));
        broken(!stub || may_call, "raw system calls are made by src/sys only; add a function with the man page's name");
        let changes = ["clone", "fork", "unmap_and_exit", "set_thread_pointer"];
        let changes_thread = changes.iter().any(|member| code.contains(&format!("Cpu::{member}(")));
        broken(
            !changes_thread || !library || path == "src/sys/thread.rs",
            "what starts, ends or moves a thread is called by src/sys/thread.rs only",
        );
        broken(
            !arch || !has_word(code, "feature"),
            "an arch file has no features: it is the same machine for all users",
        );
    }
    let name = path.rsplit('/').next().unwrap_or(path);
    if ["util.rs", "utils.rs", "helpers.rs", "misc.rs"].contains(&name) {
        findings.push(finding(source, 1, format!("{name}: name the file after what is in it")));
    }
    findings
}

/// Marks of unfinished work.
fn unfinished(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, (code, comment)) in (1..).zip(source.code.lines().zip(source.comments.lines())) {
        for mark in ["TODO", "FIXME", "XXX"].iter().filter(|mark| has_word(comment, mark)) {
            findings.push(finding(source, line, format!("{mark}: finish it, or write what holds today")));
        }
        // By its path it is rt0's own macro, in its definition or a test of it.
        for mark in ["todo", "unimplemented", "dbg"]
            .iter()
            .filter(|m| has_word(code, m) && code.contains(&format!("{m}!")) && !code.contains(&format!("::{m}!")))
        {
            findings.push(finding(source, line, format!("{mark}! is for work in progress")));
        }
    }
    findings
}

/// Each public function says whether a signal handler may call it. (The compiler checks that public
/// items have comments.)
fn handlers(source: &Source) -> Vec<Finding> {
    const MARK: &str = "In handlers: ";
    /// Files whose public items are public only within the library.
    const PRIVATE: [&str; 3] = ["src/arch.rs", "src/arch/", "src/cpu/parse"];
    if !source.path.starts_with("src/") || PRIVATE.iter().any(|private| source.path.starts_with(private)) {
        return Vec::new();
    }
    let is_public = |code: &str| {
        let words = code.trim_start().strip_prefix("pub ").map(|rest| rest.trim_start_matches("const "));
        words.is_some_and(|rest| rest.trim_start_matches("unsafe ").starts_with("fn "))
    };
    let lines: Vec<_> = source.code.lines().zip(source.comments.lines()).collect();
    let end = lines.iter().position(|(code, _)| code.starts_with("mod tests")).unwrap_or(lines.len());
    let mut findings = Vec::new();
    for (index, (code, _)) in lines[..end].iter().enumerate().filter(|(_, (code, _))| is_public(code)) {
        let above = lines[..index].iter().rev();
        let above: Vec<_> = above
            .take_while(|(code, comment)| code.trim().starts_with("#[") || comment.trim().starts_with("///"))
            .collect();
        let documented = above.iter().any(|(_, comment)| comment.trim().starts_with("///"));
        let hidden = above.iter().any(|(code, _)| code.contains("doc(hidden)"));
        if documented && !hidden && !above.iter().any(|(_, comment)| comment.contains(MARK)) {
            let name = word_at(code.split("fn ").nth(1).unwrap_or_default());
            let what = format!("the comment of `{name}` has no line `{MARK}yes.` or `{MARK}no, …`; see src/signal.rs");
            findings.push(finding(source, index + 1, what));
        }
    }
    findings
}

/// The members of the block after `head`, with their lines: fn, const and type, and the names in
/// `known` that a macro call in the place of a member mentions.
fn members(code: &str, head: &str, known: &[String]) -> Vec<(usize, String)> {
    let mut members: Vec<(usize, String)> = Vec::new();
    let Some(start) = code.find(head).and_then(|at| Some(at + code[at..].find('{')? + 1)) else {
        return members;
    };
    let (mut depth, mut in_macro, mut before) = (1, false, "");
    let mut at = start;
    while at < code.len() && depth > 0 {
        let c = code[at..].chars().next().unwrap_or(' ');
        if c.is_alphanumeric() || c == '_' {
            let word = word_at(&code[at..]);
            let defined = depth == 1 && ["fn", "const", "type"].contains(&before) && word != "fn";
            let mentioned = in_macro && known.iter().any(|k| k == word);
            if defined || (mentioned && members.iter().all(|m| m.1 != word)) {
                members.push((line_of(code, at), word.to_string()));
            }
            before = word;
            at += word.len();
            continue;
        }
        match c {
            '{' | '(' | '[' => {
                in_macro |= depth == 1 && code[..at].trim_end().ends_with('!');
                depth += 1;
            }
            '}' | ')' | ']' => {
                depth -= 1;
                in_macro &= depth > 1;
            }
            _ => {}
        }
        if !c.is_whitespace() {
            before = "";
        }
        at += c.len_utf8();
    }
    members
}

/// An arch file has the members in the order of the trait: then a diff of two files shows the
/// difference of two ABIs.
fn member_order(source: &Source, order: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut last: Option<(usize, String)> = None;
    for (line, member) in members(&source.code, "impl Arch for Cpu", order) {
        let Some(index) = order.iter().position(|m| *m == member) else {
            continue;
        };
        if let Some((before, name)) = last.as_ref().filter(|(before, _)| *before > index) {
            let what = format!("`{member}` stands after `{name}`; the order is that of the trait in src/arch.rs");
            findings.push(finding(source, line, what));
            last = Some((*before, name.clone()));
        } else {
            last = Some((index, member));
        }
    }
    findings
}

/// The guide to a port gives the source of each member of the trait: a row of its table starts with
/// the member.
fn member_sources(guide: &str, order: &[String]) -> Vec<Finding> {
    let cells: Vec<_> = guide.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next()).collect();
    let first_of = |name: &str| if name.starts_with("syscall") { "syscall0" } else { name }.to_string();
    let missing = |name: &&String| !cells.iter().any(|cell| cell.contains(&format!("`{}`", first_of(name))));
    let finding = |name: &String| {
        let what = format!("no row of the table of members names `{name}`, which the trait in src/arch.rs has");
        Finding { file: GUIDE.to_string(), line: 1, what }
    };
    order.iter().filter(missing).map(finding).collect()
}

/// The comment of each member says which file uses it and when, and the file does.
fn member_users(contract: &Source, sources: &[Source], order: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let comments: Vec<_> = contract.comments.lines().collect();
    for (line, member) in members(&contract.code, "trait Arch", &[]) {
        if !order.contains(&member) || member == "_start" || member.starts_with("syscall") && member != "syscall0" {
            continue; // The kernel calls `_start`.
        }
        let above = comments[..line - 1].iter().rev().take_while(|comment| comment.trim().starts_with("///"));
        let comment: Vec<_> = above.map(|comment| comment.trim().trim_start_matches("///").trim()).collect();
        let comment = comment.into_iter().rev().collect::<Vec<_>>().join(" ");
        let user = comment.split("Used by `").nth(1).and_then(|rest| rest.split('`').next());
        let uses = |path: &str| {
            let file = sources.iter().find(|source| source.path == format!("src/{path}"));
            file.is_some_and(|file| file.code.contains(&format!("::{member}")))
        };
        let what = match user {
            None => format!("the comment of `{member}` does not say by which file it is used, and when"),
            Some(path) if !uses(path) => format!("`{member}` is not used by src/{path}, as its comment says"),
            Some(_) => continue,
        };
        findings.push(finding(contract, line, what));
    }
    findings
}

/// The README's table contains every tested triple, under the name of its first row.
fn machine_rows(readme: &str) -> Vec<Finding> {
    let first = |t: &&Target| TARGETS.iter().find(|other| other.triple == t.triple).is_some_and(|f| f.name == t.name);
    let row = |t: &Target| format!("| `{}` | {} (", t.name, t.triple);
    let missing = TARGETS.iter().filter(first).filter(|t| !readme.lines().any(|line| line.starts_with(&row(t))));
    let finding = |t: &Target| {
        let what = format!("no row of the table of machines begins with `{}`", row(t));
        Finding { file: "README.md".to_string(), line: 1, what }
    };
    missing.map(finding).collect()
}

fn finding(source: &Source, line: usize, what: String) -> Finding {
    Finding { file: source.path.clone(), line, what }
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// The identifier that `text` begins with.
fn word_at(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

fn has_word(text: &str, word: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(part_of_word) && !text[at + word.len()..].starts_with(part_of_word))
}

/// All Rust files of the repository and its linker scripts, split.
fn read_sources() -> Result<Vec<Source>> {
    let mut folders: Vec<PathBuf> =
        ["src", "arch", "tests", "examples", "bench", "cargo-rt0", "crates", "rt0-build", "xtask", "fuzz"]
            .map(|f| root().join(f))
            .to_vec();
    let mut files = ["build.rs", "common.ld", "link.ld", "small.ld"].map(|f| root().join(f)).to_vec();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry?.path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    let read = |file: PathBuf| {
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let path = file.strip_prefix(root()).unwrap_or(Path::new(&file)).display().to_string();
        Ok(split(path, text))
    };
    files.into_iter().map(read).collect()
}

/// Splits a file into code and comments.
fn split(path: String, text: String) -> Source {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        Code,
        Line,
        Block(u32),
        Str,
        Raw(usize),
    }
    let (mut code, mut comments) = (String::with_capacity(text.len()), String::with_capacity(text.len()));
    let mut state = State::Code;
    let mut rest = text.as_str();
    // A quote or a comment's mark belongs to the string or comment that it begins or ends.
    while let Some(c) = rest.chars().next() {
        let mut len = c.len_utf8();
        let mut part = state;
        match state {
            State::Code if rest.starts_with("//") => (state, part) = (State::Line, State::Line),
            State::Code if rest.starts_with("/*") => (state, part, len) = (State::Block(1), State::Block(1), 2),
            State::Code if c == '"' => (state, part) = (State::Str, State::Str),
            State::Code
                if c == 'r' && !code.ends_with(|c: char| c.is_alphanumeric() && c != 'b' && c != 'c' || c == '_') =>
            {
                let hashes = rest[1..].bytes().take_while(|b| *b == b'#').count();
                if rest[1 + hashes..].starts_with('"') {
                    (state, part, len) = (State::Raw(hashes), State::Str, hashes + 2);
                }
            }
            State::Code if c == '\'' => {
                // 'x' and '\…' are characters; 'x without the second quote is a lifetime.
                let mut inner = rest[1..].chars();
                let first = inner.next().unwrap_or(' ');
                if first == '\\' {
                    len = 3 + rest[3..].find('\'').unwrap_or(0);
                    part = State::Str;
                } else if inner.next() == Some('\'') {
                    len = 2 + first.len_utf8();
                    part = State::Str;
                }
            }
            State::Line if c == '\n' => state = State::Code,
            State::Block(depth) if rest.starts_with("/*") => (state, len) = (State::Block(depth + 1), 2),
            State::Block(depth) if rest.starts_with("*/") => {
                (state, len) = (if depth == 1 { State::Code } else { State::Block(depth - 1) }, 2);
            }
            State::Str if c == '\\' => len += rest[1..].chars().next().map_or(0, char::len_utf8),
            State::Str if c == '"' => state = State::Code,
            State::Raw(hashes) if c == '"' && rest[1..].bytes().take_while(|b| *b == b'#').count() >= hashes => {
                (state, len) = (State::Code, 1 + hashes);
            }
            _ => {}
        }
        for c in rest[..len].chars() {
            let blank = if c == '\n' { '\n' } else { ' ' };
            code.push(if part == State::Code { c } else { blank });
            comments.push(if matches!(part, State::Line | State::Block(_)) { c } else { blank });
        }
        rest = &rest[len..];
    }
    Source { path, code, comments }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn source(path: &str, text: &str) -> Source {
        split(path.to_string(), text.to_string())
    }

    pub(super) fn said(findings: Vec<Finding>) -> Vec<String> {
        findings.into_iter().map(|f| format!("{}:{}: {}", f.file, f.line, f.what)).collect()
    }

    #[test]
    fn strings_and_comments_are_told_from_code() {
        let text = "let a = \"asm! // \\\" no\"; // asm! here\n\
                    let b = r#\"\"todo!\"#; /* x /* y */ z */ c('\"', '\\'', 'l: &'a);";
        let source = source("src/x.rs", text);
        assert_eq!(source.code.lines().count(), 2);
        assert!(!source.code.contains("asm!") && !source.code.contains("todo") && !source.code.contains('z'));
        assert!(source.code.contains("let b =") && source.code.contains("'l: &'a);"), "{}", source.code);
        assert!(source.comments.contains("// asm! here") && source.comments.contains("/* x /* y */ z */"));
    }

    #[test]
    fn assembly_machines_and_raw_calls_have_their_places() {
        let text = "//! asm! and target_arch\nasm!(\"nop\");\n#[cfg(target_arch = \"mips\")]\nCpu::syscall3(1);\n";
        let found = said(places(&source("src/thread.rs", text)));
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].starts_with("src/thread.rs:2: assembly"), "{found:?}");
        assert!(found[1].starts_with("src/thread.rs:3: target_arch"), "{found:?}");
        assert!(found[2].starts_with("src/thread.rs:4: raw"), "{found:?}");
        assert!(places(&source("arch/mips.rs", text)).is_empty());
        let attribute = "#![cfg_attr(target_arch = \"mips\", feature(asm_experimental_arch))]\n";
        assert!(places(&source("src/lib.rs", attribute)).is_empty());
        assert_eq!(places(&source("arch/mips.rs", "#[cfg(feature = \"x\")]\n")).len(), 1);
        assert_eq!(places(&source("src/util.rs", "")).len(), 1);
        let clone = |path: &str| places(&source(path, "Cpu::clone(&args);")).len();
        assert_eq!((clone("src/thread.rs"), clone("src/sys/thread.rs"), clone("arch/mips.rs")), (1, 0, 0));
    }

    #[test]
    fn unfinished_work_is_found_in_comments_and_code() {
        let text = ["// TO", "DO later\nto", "do!();\nrt0::dbg!(x);\nlet s = \"FIXME\"; // fixmeup\n"].concat();
        assert_eq!(unfinished(&source("src/x.rs", &text)).len(), 2);
    }

    #[test]
    fn a_public_function_says_whether_a_handler_may_call_it() {
        let text = "/// A.\n///\n/// In handlers: yes.\n#[inline]\npub fn a() {}\n\n/// B.\npub const unsafe fn b() {}\n\
                    /// C.\npub(crate) fn c() {}\n/// D.\n#[doc(hidden)]\npub fn d() {}\nmod tests {\n/// E.\npub fn e() {}\n";
        let found = said(handlers(&source("src/x.rs", text)));
        assert!(found.len() == 1 && found[0].starts_with("src/x.rs:8: the comment of `b`"), "{found:?}");
        assert!(handlers(&source("xtask/src/x.rs", text)).is_empty());
    }

    #[test]
    fn every_machine_has_a_row_in_the_readme() {
        let rows: Vec<_> = TARGETS.iter().map(|t| format!("| `{}` | {} (2) | abi |", t.name, t.triple)).collect();
        assert!(machine_rows(&rows.join("\n")).is_empty());
        let found = said(machine_rows(&rows[1..].join("\n")));
        assert!(found.len() == 1 && found[0].contains("`x86_64`"), "{found:?}");
    }

    #[test]
    fn every_member_has_a_row_in_the_guide() {
        let guide = "| member | source |\n|---|---|\n| `syscall0` to `syscall6` | `B` |\n| `A` | x |\n";
        let order = ["syscall0", "syscall3", "A", "B"].map(str::to_string);
        let found = said(member_sources(guide, &order));
        assert!(found.len() == 1 && found[0].contains("`B`"), "{found:?}");
    }

    #[test]
    fn every_member_says_which_file_uses_it() {
        let contract = "trait Arch {\n/// A. Used by `sys.rs` at a call.\nconst A: u32;\n/// B.\nconst B: u32;\n\
                        /// C. Used\n/// by `sys.rs`\n/// at a start.\nconst C: u32;\n}";
        let order = ["A", "B", "C"].map(str::to_string);
        let sources = [source("src/sys.rs", "Cpu::A")];
        let found = said(member_users(&source("src/arch.rs", contract), &sources, &order));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("src/arch.rs:5: the comment of `B`"), "{found:?}");
        assert!(found[1].starts_with("src/arch.rs:9: `C` is not used by src/sys.rs"), "{found:?}");
    }

    #[test]
    fn arch_files_keep_the_order_of_the_trait() {
        let contract =
            "trait Arch {\n const A: u32;\n unsafe fn call0(n: fn(u8)) -> isize;\n type T: Copy;\n fn last();\n}";
        let order: Vec<String> = members(contract, "trait Arch", &[]).into_iter().map(|m| m.1).collect();
        assert_eq!(order, ["A", "call0", "T", "last"]);
        let good = "impl Arch for Cpu {\n const A: u32 = 1;\n\
                     call!(call0(a in x));\n type T = u8;\n fn last() { fn A() {} }\n}";
        assert!(member_order(&source("arch/x.rs", good), &order).is_empty());
        let bad = "impl Arch for Cpu {\n const A: u32 = 1;\n fn last() {}\n call!(call0());\n type T = u8;\n}";
        let found = said(member_order(&source("arch/x.rs", bad), &order));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("arch/x.rs:4: `call0` stands after `last`"), "{found:?}");
    }
}
