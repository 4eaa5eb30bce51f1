//! Comments in plain English: the rules that a command can hold.

use super::{Finding, Source, finding, has_word};

/// The last column of a comment.
const COLUMNS: usize = 100;

/// Words for people. A thread, a caller or a kernel is "it": name the thing instead.
const PEOPLE: [&str; 9] =
    ["who", "whoever", "whom", "nobody", "somebody", "anybody", "everybody", "anyone", "everyone"];

/// Files and folders that do not follow the rules yet, without `.rs`. This list only shrinks.
const UNREVISED: [&str; 2] = ["tests/src/init", "xtask/src/kernel"];

/// Comments end at column 100, name things, not people, and state each condition where it is met.
pub(super) fn plain(source: &Source) -> Vec<Finding> {
    if UNREVISED.iter().any(|path| is_within(&source.path, path)) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (line, comment) in (1..).zip(source.comments.lines()) {
        let end = comment.trim_end().chars().count();
        if end > COLUMNS {
            findings.push(finding(source, line, format!("the comment ends at column {end}: break it at {COLUMNS}")));
        }
        let lower = comment.to_lowercase();
        if lower.match_indices("as above").any(|(at, _)| !lower[..at].ends_with(char::is_alphanumeric)) {
            let what = "`as above` hides a condition: say it again, or merge the two blocks".to_string();
            findings.push(finding(source, line, what));
        }
        for word in PEOPLE.iter().filter(|word| has_word(&lower, word)) {
            let what = format!("`{word}` in a comment: name the thread, the caller or the kernel");
            findings.push(finding(source, line, what));
        }
    }
    findings
}

/// Entries of the list that stand for no file.
pub(super) fn stale(sources: &[Source]) -> Vec<Finding> {
    let is_stale = |path: &&&str| !sources.iter().any(|source| is_within(&source.path, path));
    let finding = |path: &&str| {
        let what = format!("the list of unrevised files names {path}, which is gone");
        Finding { file: "xtask/src/check/comments.rs".to_string(), line: 1, what }
    };
    UNREVISED.iter().filter(is_stale).map(finding).collect()
}

/// Whether the file is `path.rs` or lies in the folder `path`.
fn is_within(file: &str, path: &str) -> bool {
    file.strip_prefix(path).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::split;

    fn found(path: &str, text: &str) -> Vec<usize> {
        plain(&split(path.to_string(), text.to_string())).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_comment_ends_at_column_100() {
        let fits = format!("/// {}\n", "x".repeat(96));
        let long = format!("    // {}\n", "é".repeat(94));
        let code = format!("let a = \"// {}\";\nlet b = 1; // {}\n", "x".repeat(120), "x".repeat(90));
        assert_eq!(found("src/sync.rs", &[fits, long, code].concat()), [2, 4]);
    }

    #[test]
    fn a_comment_speaks_of_things() {
        let text = "// Who waits.\n// The thread that waits, as whole(1).\nlet nobody = \"nobody\"; /* nobody */\n";
        assert_eq!(found("tests/src/bin/sync.rs", text), [1, 3]);
    }

    #[test]
    fn a_condition_is_said_where_it_is_met() {
        assert_eq!(found("src/sync.rs", "// SAFETY: 1. As above.\n// As it was above.\n"), [1]);
    }

    #[test]
    fn files_of_the_list_are_left_out() {
        let text = "// Whoever waits.\n";
        let init = ["tests/src/init.rs", "tests/src/init/x.rs"].map(|path| (path, 0));
        for (path, count) in init.into_iter().chain([("tests/src/initial.rs", 1), ("arch/mips.rs", 1)]) {
            assert_eq!(found(path, text).len(), count, "{path}");
        }
    }
}
