//! Whether a signal handler may call a function: each public one says it. (The compiler checks that
//! public items have comments.)

use super::source::Source;
use super::{Finding, finding};

const MARK: &str = "In handlers: ";

/// Files whose public items are public only within the library.
const PRIVATE: [&str; 3] = ["src/arch.rs", "src/arch/", "src/cpu/parse"];

/// The documented public functions of a file that do not say it. One that the docs hide need not,
/// nor one of a test.
pub(super) fn handlers(source: &Source) -> Vec<Finding> {
    if !source.path.starts_with("src/") || PRIVATE.iter().any(|private| source.path.starts_with(private)) {
        return Vec::new();
    }
    let end = source.find(&["mod", "tests"]).unwrap_or(source.code.len());
    let mut findings = Vec::new();
    for at in (0..end).filter(|&at| source.text(at) == "fn") {
        let mut first = at;
        let modifier =
            |text: &str| ["const", "unsafe", "async", "safe", "extern"].contains(&text) || text.starts_with('"');
        while first > 0 && modifier(source.text(first - 1)) {
            first -= 1;
        }
        if !source.has_before(first, &["pub"]) {
            continue;
        }
        let (above, hidden) = attributes(source, first - 1);
        let line_before = above.checked_sub(1).map_or(0, |before| source.code[before].line);
        let docs = source.comments.iter().filter(|comment| {
            (line_before + 1..source.code[at].line).contains(&comment.line) && comment.text.starts_with("///")
        });
        if docs.clone().count() > 0 && !hidden && !docs.clone().any(|comment| comment.text.contains(MARK)) {
            let name = source.text(at + 1);
            let what = format!("the comment of `{name}` has no line `{MARK}yes.` or `{MARK}no, …`; see src/signal.rs");
            findings.push(finding(source, source.code[at].line, what));
        }
    }
    findings
}

/// Where the attributes before an item begin, and whether one is `doc(hidden)`.
fn attributes(source: &Source, item: usize) -> (usize, bool) {
    let (mut first, mut hidden) = (item, false);
    while source.has_before(first, &["]"]) {
        let opens = |&at: &usize| source.has(at, &["#", "["]) && source.behind_bracket(at + 1) == first;
        let Some(start) = (0..first).rev().find(opens) else { break };
        hidden |= (start..first).any(|at| source.has(at, &["doc", "(", "hidden", ")"]));
        first = start;
    }
    (first, hidden)
}
