//! Comments in plain English: the rules that a command can hold.

use super::source::{Source, has_word};
use super::{Finding, finding};

/// The last column of a comment.
const COLUMNS: usize = 100;

/// Words for people. A thread, a caller or a kernel is "it": name the thing instead.
const PEOPLE: [&str; 9] =
    ["who", "whoever", "whom", "nobody", "somebody", "anybody", "everybody", "anyone", "everyone"];

/// Phrases that refer to a condition without naming it.
const HIDING: [&str; 2] = ["as above", "is our caller's"];

/// Comments end at column 100, name things, not people, and state each condition where it is met.
/// Functions, and so tests, are named after things too.
pub(super) fn plain(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for comment in &source.comments {
        let mut found = |what| findings.push(finding(source, comment.line, what));
        let end = comment.end;
        if end > COLUMNS {
            found(format!("the comment ends at column {end}: break it at {COLUMNS}"));
        }
        let lower = comment.text.to_lowercase();
        for hides in HIDING {
            if lower.match_indices(hides).any(|(at, _)| !lower[..at].ends_with(char::is_alphanumeric)) {
                found(format!("`{hides}` hides a condition: say it again, or merge the two blocks"));
            }
        }
        for word in PEOPLE.iter().filter(|word| has_word(&lower, word)) {
            found(format!("`{word}` in a comment: name the thread, the caller or the kernel"));
        }
    }
    for at in (0..source.code.len()).filter(|&at| source.text(at) == "fn") {
        let name = source.text(at + 1);
        for word in name.split('_').filter(|word| PEOPLE.contains(word)) {
            let what = format!("`{word}` in the name `{name}`: name the thread, the caller or the kernel");
            findings.push(finding(source, source.code[at].line, what));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<usize> {
        plain(&Source::new("src/sync.rs", text)).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_comment_ends_at_column_100() {
        let fits = format!("/// {}\n", "x".repeat(96));
        let long = format!("    // {}\n", "é".repeat(94));
        let code = format!("let a = \"// {}\";\nlet b = 1; // {}\n", "x".repeat(120), "x".repeat(90));
        assert_eq!(found(&[fits, long, code].concat()), [2, 4]);
    }

    #[test]
    fn a_comment_speaks_of_things() {
        let text = "// Who waits.\n// The thread that waits, as whole(1).\nlet nobody = \"nobody\"; /* nobody */\n\
                    fn nobody_waits() {}\nfn whole() {}\n";
        assert_eq!(found(text), [1, 3, 4]);
    }

    #[test]
    fn a_condition_is_said_where_it_is_met() {
        assert_eq!(found("// SAFETY: 1. As above.\n// As it was above.\n// SAFETY: 1. is our caller's.\n"), [1, 3]);
    }
}
