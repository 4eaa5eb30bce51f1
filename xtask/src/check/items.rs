//! The public items of a file, with the comments above them.

use super::source::{Comment, Source};

/// A public item that has a comment and that the docs show.
pub(super) struct Item<'a> {
    pub name: &'a str,
    pub line: usize,
    pub docs: Vec<&'a Comment<'a>>,
}

/// The public items of a file that begin with one of these words, before its tests.
pub(super) fn public<'a>(source: &'a Source, kinds: &'a [&str]) -> impl Iterator<Item = Item<'a>> {
    let end = source.find(&["mod", "tests"]).unwrap_or(source.code.len());
    (0..end).filter(|&at| kinds.contains(&source.text(at))).filter_map(|at| {
        let mut first = at;
        let modifier =
            |text: &str| ["const", "unsafe", "async", "safe", "extern"].contains(&text) || text.starts_with('"');
        while first > 0 && modifier(source.text(first - 1)) {
            first -= 1;
        }
        if !source.has_before(first, &["pub"]) {
            return None;
        }
        let (above, hidden) = attributes(source, first - 1);
        let line_before = above.checked_sub(1).map_or(0, |before| source.code[before].line);
        let line = source.code[at].line;
        let docs: Vec<_> = source
            .comments
            .iter()
            .filter(|comment| (line_before + 1..line).contains(&comment.line) && comment.text.starts_with("///"))
            .collect();
        (!docs.is_empty() && !hidden).then(|| Item { name: source.text(at + 1), line, docs })
    })
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
