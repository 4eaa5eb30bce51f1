//! Each public function says whether a signal handler may call it. (The compiler checks that public
//! items have comments.)

use super::source::Source;
use super::{Finding, finding, items};

const MARK: &str = "In handlers: ";

/// Files whose public items are public only within the library.
const PRIVATE: [&str; 3] = ["src/arch.rs", "src/arch/", "src/cpu/parse"];

/// The documented public functions of a file that do not say it. Functions of tests need not say
/// it, nor those that the docs hide.
pub(super) fn handlers(source: &Source) -> Vec<Finding> {
    if !source.path.starts_with("src/") || PRIVATE.iter().any(|private| source.path.starts_with(private)) {
        return Vec::new();
    }
    items::public(source, &["fn"])
        .filter(|function| !function.docs.iter().any(|comment| comment.text.contains(MARK)))
        .map(|function| {
            let name = function.name;
            let what = format!("the comment of `{name}` has no line `{MARK}yes.` or `{MARK}no, …`; see src/signal.rs");
            finding(source, function.line, what)
        })
        .collect()
}
