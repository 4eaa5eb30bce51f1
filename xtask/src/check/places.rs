//! Code that is allowed only in certain files, and code that is allowed in none.

use super::source::{Source, has_word};
use super::{Finding, finding};

/// The members of `Arch` that start or end a thread, or set its thread pointer.
const CHANGES_THREAD: [&str; 4] = ["clone", "fork", "unmap_and_exit", "set_thread_pointer"];

/// Assembly that is not the seam's: what compilers call, and the vectors that only a test uses.
const HAS_ASSEMBLY: [&str; 2] = ["src/intrinsics.rs", "tests/src/suite/signal/stack/vectors.rs"];

/// Code that is allowed only in certain places.
pub(super) fn places(source: &Source) -> Vec<Finding> {
    let path = source.path;
    let (arch, library) = (path.starts_with("arch/"), path.starts_with("src/"));
    let bare = path.starts_with("bench/src/raw/"); // Programs without rt0.
    let may_call = arch
        || ["src/arch.rs", "src/sys.rs"].contains(&path)
        || path.starts_with("src/sys/")
        || !(library || path.starts_with("examples/"));
    let mut findings = Vec::new();
    for (at, token) in source.code.iter().enumerate() {
        let attribute = || {
            let of_line = |line| source.code.iter().any(|t| t.line == line && t.text == "asm_experimental_arch");
            path == "src/lib.rs" && of_line(token.line)
        };
        let what = match token.text {
            "asm" | "naked_asm" | "global_asm" if !arch && !bare && !HAS_ASSEMBLY.contains(&path) => {
                "assembly belongs in arch/"
            }
            "target_arch" if library && path != "src/arch.rs" && !attribute() => {
                "target_arch: only src/arch.rs asks which machine this is; give the trait there a member"
            }
            stub if !may_call && (0..=6).any(|arguments| stub == format!("syscall{arguments}")) => {
                "raw system calls are made by src/sys only; add a function with the man page's name"
            }
            member if library && path != "src/sys/thread.rs" && CHANGES_THREAD.contains(&member) => {
                let of_machine = ["Cpu", "Arch"].iter().any(|of| source.has_before(at, &[of, ":", ":"]))
                    || source.has_before(at, &["Arch", ">", ":", ":"]);
                if !of_machine {
                    continue;
                }
                "what starts, ends or moves a thread is called by src/sys/thread.rs only"
            }
            "feature" if arch => "an arch file has no features: it is the same machine for all users",
            "pub" if path == "xtask/src/main.rs" => "main.rs is the command line: no other file of the tool uses it",
            _ => continue,
        };
        findings.push(finding(source, token.line, what.to_string()));
    }
    let name = path.rsplit('/').next().unwrap_or(path);
    if ["util.rs", "utils.rs", "helpers.rs", "misc.rs"].contains(&name) {
        findings.push(finding(source, 1, format!("{name}: name the file after what is in it")));
    }
    findings
}

/// Marks of unfinished work.
pub(super) fn unfinished(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for comment in &source.comments {
        for mark in ["TODO", "FIXME", "XXX"].iter().filter(|mark| has_word(comment.text, mark)) {
            findings.push(finding(source, comment.line, format!("{mark}: finish it, or write what holds today")));
        }
    }
    for (at, token) in source.code.iter().enumerate() {
        let mark = token.text;
        // With another path it is rt0's own macro, in its definition or in a test.
        let is_by_path = source.has_before(at, &[":", ":"]);
        let is_std = ["core", "std"].iter().any(|of| source.has_before(at, &[of, ":", ":"]));
        if ["todo", "unimplemented", "dbg"].contains(&mark) && source.text(at + 1) == "!" && (!is_by_path || is_std) {
            findings.push(finding(source, token.line, format!("{mark}! is for work in progress")));
        }
    }
    findings
}
