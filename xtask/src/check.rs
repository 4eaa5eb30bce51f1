//! `cargo xtask check`: the rules of this repository that a command can hold.
//!
//! Formats, lints and docs are checked by cargo (`commands.rs`). All other rules are checked on the
//! text. `source.rs` splits each source file into code and comments by the compiler's own lexer, so
//! a comment may contain `asm!`. Then each rule reads one of the two.

mod commands;
mod comments;
mod contract;
mod documents;
mod examples;
mod handlers;
mod items;
mod modules;
mod places;
mod source;

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};
use cargo_rt0::{Options, process, say, tell};

use crate::repository::{root, set_up};
use source::Source;

/// A place where a rule is broken.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    file: String,
    line: usize,
    what: String,
}

/// Checks everything; the exit status says whether all rules hold.
pub fn run(options: Options) -> Result<ExitCode> {
    let texts = source::read_all()?;
    let sources: Vec<_> = texts.iter().map(|(path, text)| Source::new(path, text)).collect();
    let read = |path: &str| fs::read_to_string(root().join(path)).with_context(|| format!("cannot read {path}"));
    let mut broken = Vec::new();
    for Finding { file, line, what } in rules(&sources, &read("README.md")?, &read(documents::GUIDE)?) {
        broken.push(format!("{file}:{line}: {what}"));
        tell!("{}", broken[broken.len() - 1]);
    }
    for (what, mut command) in commands::commands(&set_up(options)?, &sources)? {
        say!("{what}: {}", process::shell_line(&command));
        if !command.status().with_context(|| format!("cannot start {:?}", command.get_program()))?.success() {
            broken.push(format!("{what}: its messages above say what is wrong\n{}", process::shell_line(&command)));
        }
    }
    if broken.is_empty() {
        tell!("all rules hold");
        return Ok(ExitCode::SUCCESS);
    }
    // Printed again, because the output of the commands is long.
    tell!("\nbroken:\n{}", broken.join("\n"));
    Ok(ExitCode::FAILURE)
}

/// Every rule that is checked on the text. `guide` is the text of arch/README.md.
fn rules(sources: &[Source], readme: &str, guide: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        findings.extend(places::places(source));
        findings.extend(places::unfinished(source));
        findings.extend(handlers::handlers(source));
        findings.extend(comments::plain(source));
    }
    findings.extend(modules::rules(sources));
    findings.extend(examples::examples(sources));
    findings.extend(documents::machine_rows(readme));
    match sources.iter().find(|source| source.path == contract::CONTRACT) {
        Some(contract) => {
            let order = contract::order(contract);
            for source in sources.iter().filter(|source| source.path.starts_with("arch/")) {
                findings.extend(contract::member_order(source, &order));
            }
            findings.extend(contract::member_users(contract, sources));
            findings.extend(documents::member_sources(guide, &order));
        }
        None => {
            let what = "the trait of the machines is gone: no rule about its members is checked".to_string();
            findings.push(Finding { file: contract::CONTRACT.to_string(), line: 1, what });
        }
    }
    findings
}

fn finding(source: &Source, line: usize, what: String) -> Finding {
    Finding { file: source.path.to_string(), line, what }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn said(findings: Vec<Finding>) -> Vec<String> {
        findings.into_iter().map(|f| format!("{}:{}: {}", f.file, f.line, f.what)).collect()
    }

    /// For each rule about one file: a path, a text that breaks the rule once, and the beginning of
    /// the finding.
    const BROKEN: &[(&str, &str, &str)] = &[
        ("src/thread.rs", "//! asm!\nasm!(\"nop\");\n", ":2: assembly belongs in arch/"),
        ("src/thread.rs", "\nuse core::arch::naked_asm;\n", ":2: assembly belongs in arch/"),
        ("tests/src/bin/x.rs", "\nglobal_asm\n!(\"\");", ":2: assembly belongs in arch/"),
        ("src/thread.rs", "// target_arch\n#[cfg(target_arch = \"mips\")]\n", ":2: target_arch: only src/arch.rs"),
        ("src/lib.rs", "\n#![cfg(target_arch = \"mips\")]\n", ":2: target_arch: only src/arch.rs"),
        ("src/futex.rs", "\nCpu::syscall3(1);", ":2: raw system calls are made by src/sys only"),
        ("examples/x.rs", "\nsyscall6 (1);", ":2: raw system calls are made by src/sys only"),
        ("src/thread.rs", "\nCpu::clone(&args);", ":2: what starts, ends or moves a thread"),
        ("src/thread.rs", "\n<Cpu as Arch>::fork();", ":2: what starts, ends or moves a thread"),
        ("src/thread.rs", "\nmap(Cpu :: unmap_and_exit);", ":2: what starts, ends or moves a thread"),
        ("arch/mips.rs", "\n#[cfg(feature = \"x\")]", ":2: an arch file has no features"),
        ("xtask/src/main.rs", "\npub use cargo_rt0::say;", ":2: main.rs is the command line"),
        ("src/x.rs", "\n// TO\u{44}O later", ":2: TO\u{44}O: finish it"),
        ("src/x.rs", "\nlet s = 1; /* a\n FIX\u{4d}E */", ":3: FIX\u{4d}E: finish it"),
        ("src/x.rs", "\ntodo !();", ":2: todo! is for work in progress"),
        ("src/x.rs", "\ncore::unimplemented!();", ":2: unimplemented! is for work in progress"),
        ("src/x.rs", "\ndbg!(x);", ":2: dbg! is for work in progress"),
        ("src/x.rs", "/// B.\npub const unsafe fn b() {}", ":2: the comment of `b` has no line `In handlers: yes.`"),
        ("src/x.rs", "{\n/// B.\n#[cfg(any())]\npub extern \"C\" fn b() {}", ":4: the comment of `b` has no line"),
        ("src/x.rs", "// It waits,\n// as above.", ":2: `as above` hides a condition"),
        ("src/x.rs", "\n/// Nobody waits.", ":2: `nobody` in a comment"),
    ];

    /// Texts that look as if they broke a rule, but do not.
    const WHOLE: &[(&str, &str)] = &[
        ("arch/mips.rs", "asm!(\"nop\"); #[cfg(target_arch = \"mips\")] Cpu::syscall3(1); Cpu::clone(&args);"),
        ("src/intrinsics.rs", "use core::arch::asm; asm!(\"\");"),
        ("bench/src/raw/x.rs", "core::arch::naked_asm!(\"\")"),
        ("src/lib.rs", "#![cfg_attr(any(target_arch = \"mips\"), feature(asm_experimental_arch))]"),
        ("src/arch.rs", "#[cfg(target_arch = \"mips\")] syscall0()"),
        ("src/sys/thread.rs", "syscall6(1); Cpu::clone(&args);"),
        ("src/thread.rs", "x.clone(); Arc::clone(&x); let s = \"asm!\"; process::fork(); asm_x!()"),
        ("src/x.rs", "rt0::dbg!(x); $crate::dbg!(x); let s = \"FIXME\"; // fixmeup"),
        ("src/x.rs", "/// A.\n///\n/// In handlers: yes.\n#[inline]\npub fn a() {}"),
        ("src/x.rs", "/// C.\npub(crate) fn c() {}\n/// D.\n#[doc(hidden)]\n#[inline]\npub fn d() {}\nfn e() {}"),
        ("src/x.rs", "pub fn f() {}\n/// A field.\npub f: fn(),\nmod tests {\n/// E.\npub fn e() {}\n}"),
        ("xtask/src/x.rs", "/// B.\npub fn b() {}"),
        ("src/arch.rs", "/// B.\npub fn b() {}"),
        ("src/x.rs", "// whole(1) is as it was above."),
    ];

    fn of_file(path: &str, text: &str) -> Vec<String> {
        let source = Source::new(path, text);
        let rules = [places::places, places::unfinished, handlers::handlers, comments::plain];
        rules.into_iter().flat_map(|rule| said(rule(&source))).collect()
    }

    #[test]
    fn each_rule_about_a_file_finds_what_breaks_it_and_nothing_else() {
        for (path, text, expected) in BROKEN {
            let found = of_file(path, text);
            assert_eq!(found.len(), 1, "{path}: {text:?}: {found:?}");
            assert!(found[0].starts_with(&format!("{path}{expected}")), "{text:?}: {found:?}");
        }
        for (path, text) in WHOLE {
            assert_eq!(of_file(path, text), [""; 0], "{path}: {text:?}");
        }
        for name in ["util", "utils", "helpers", "misc"] {
            let found = of_file(&format!("xtask/src/{name}.rs"), "");
            assert!(found.len() == 1 && found[0].ends_with("name the file after what is in it"), "{found:?}");
        }
    }

    #[test]
    fn without_the_trait_its_rules_are_not_taken_for_kept() {
        let found = said(rules(&[], "", ""));
        assert!(found.iter().any(|found| found.starts_with("src/arch.rs:1: the trait of the machines is gone")));
    }
}
