//! Examples: each public function and type of the library occurs in one that compiles.
//!
//! An example is code in a comment of the library, which `cargo test --doc` compiles, or a program
//! in `examples/`. The rule compares names only, so two functions of one name may share an example.

use std::collections::HashSet;

use super::source::{Comment, Source};
use super::{Finding, finding, items};

const KINDS: [&str; 6] = ["fn", "struct", "enum", "union", "trait", "type"];

/// Files whose public items are public only within the library, or hidden from the docs.
const PRIVATE: [&str; 7] = [
    "src/arch.rs",
    "src/arch/",
    "src/cpu/parse",
    "src/cpu/cgroup/fake.rs",
    "src/intrinsics",
    "src/stack_protector.rs",
    "src/start.rs",
];

/// The public items that no example uses.
pub(super) fn examples(sources: &[Source]) -> Vec<Finding> {
    let library = || sources.iter().filter(|source| source.path.starts_with("src/"));
    let mut used = HashSet::new();
    for source in library() {
        add_words(&Source::new("", &code_in(&source.comments)), &mut used);
    }
    for program in sources.iter().filter(|source| source.path.starts_with("examples/")) {
        add_words(program, &mut used);
    }
    let public = library().filter(|source| !PRIVATE.iter().any(|private| source.path.starts_with(private)));
    public
        .flat_map(|source| items::public(source, &KINDS).map(move |item| (source, item)))
        .filter(|(_, item)| !used.contains(item.name))
        .map(|(source, item)| {
            let what = format!("no example uses `{}`: write one in its comment, or in that of its type", item.name);
            finding(source, item.line, what)
        })
        .collect()
}

fn add_words(source: &Source, words: &mut HashSet<String>) {
    words.extend(source.code.iter().filter(|token| token.is_word()).map(|token| token.text.to_string()));
}

/// The code in comments that is compiled, line by line.
fn code_in(comments: &[Comment]) -> String {
    let mut code = String::new();
    // Within a block, whether it is compiled.
    let mut block = None;
    for comment in comments {
        let Some(text) = comment.text.strip_prefix("///").or(comment.text.strip_prefix("//!")) else { continue };
        let text = text.trim();
        match (text.strip_prefix("```"), block) {
            (Some(language), None) => block = Some(["", "no_run", "should_panic"].contains(&language)),
            (Some(_), Some(_)) => block = None,
            (None, Some(true)) => code.extend([text.strip_prefix("# ").unwrap_or(text), "\n"]),
            (None, _) => {}
        }
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(library: &str, program: &str) -> Vec<String> {
        let sources = [Source::new("src/x.rs", library), Source::new("examples/x.rs", program)];
        super::super::tests::said(examples(&sources))
    }

    #[test]
    fn a_public_item_without_an_example_is_found() {
        let library = "/// A.\npub fn a() {}\n/// B.\npub struct B;\npub(crate) fn c() {}\n/// D.\nfn d() {}\n";
        let b = "src/x.rs:4: no example uses `B`: write one in its comment, or in that of its type";
        assert_eq!(found(library, "a(); // B"), [b]);
        assert_eq!(found(library, "a(b::B)"), [""; 0]);
    }

    #[test]
    fn an_example_is_code_that_is_compiled() {
        let of = |language: &str| format!("/// A.\n///\n/// ```{language}\n/// # x::a();\n/// ```\npub fn a() {{}}\n");
        for compiled in ["", "no_run", "should_panic"] {
            assert_eq!(found(&of(compiled), ""), [""; 0], "{compiled}");
        }
        for other in ["ignore", "text", "compile_fail"] {
            assert_eq!(found(&of(other), "").len(), 1, "{other}");
        }
        assert_eq!(found("/// Calls a.\npub fn a() {}\n/// ```text\n/// ```\n", "").len(), 1);
    }
}
