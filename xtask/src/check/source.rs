//! A source file, split into code and comments by the compiler's lexer.
//!
//! Literals are code of one token each, so no rule finds a word in a string.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustc_lexer::{FrontmatterAllowed, TokenKind, tokenize};

use crate::repository::root;

/// The folders with sources.
const FOLDERS: [&str; 10] =
    ["src", "arch", "tests", "examples", "bench", "cargo-rt0", "crates", "rt0-build", "xtask", "fuzz"];

/// Further files. Comments in linker scripts have the same form as in Rust.
const FILES: [&str; 4] = ["build.rs", "common.ld", "link.ld", "small.ld"];

/// A word, a mark or a literal.
#[derive(Clone, Copy, Debug)]
pub struct Token<'a> {
    pub line: usize,
    pub text: &'a str,
}

impl Token<'_> {
    pub fn is_word(&self) -> bool {
        self.text.starts_with(|c: char| c.is_alphabetic() || c == '_') && !self.text.ends_with(['"', '\'', '#'])
    }
}

/// One line of a comment.
pub struct Comment<'a> {
    pub line: usize,
    /// The column behind its last character that is no space.
    pub end: usize,
    pub text: &'a str,
}

/// A source file, split.
pub struct Source<'a> {
    /// The path, relative to the repository.
    pub path: &'a str,
    /// All tokens except comments and white space.
    pub code: Vec<Token<'a>>,
    /// The comments, line by line.
    pub comments: Vec<Comment<'a>>,
}

impl<'a> Source<'a> {
    pub fn new(path: &'a str, text: &'a str) -> Source<'a> {
        let mut source = Source { path, code: Vec::new(), comments: Vec::new() };
        let (mut line, mut at) = (1, 0);
        for token in tokenize(text, FrontmatterAllowed::No) {
            let part = &text[at..at + token.len as usize];
            match token.kind {
                TokenKind::Whitespace => {}
                TokenKind::LineComment { .. } | TokenKind::BlockComment { .. } => {
                    let mut start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
                    let mut behind = at;
                    for (text_of_line, line) in part.split('\n').zip(line..) {
                        behind += text_of_line.len();
                        let end = text[start..behind].trim_end().chars().count();
                        source.comments.push(Comment { line, end, text: text_of_line.trim() });
                        behind += 1;
                        start = behind;
                    }
                }
                _ => source.code.push(Token { line, text: part }),
            }
            line += part.matches('\n').count();
            at += part.len();
        }
        source
    }

    /// The text of a token; empty after the last token.
    pub fn text(&self, at: usize) -> &'a str {
        self.code.get(at).map_or("", |token| token.text)
    }

    /// Whether these tokens follow each other from here on.
    pub fn has(&self, at: usize, texts: &[&str]) -> bool {
        texts.iter().enumerate().all(|(offset, text)| self.text(at + offset) == *text)
    }

    /// Whether these tokens stand before this one.
    pub fn has_before(&self, at: usize, texts: &[&str]) -> bool {
        at.checked_sub(texts.len()).is_some_and(|start| self.has(start, texts))
    }

    /// Where these tokens follow each other.
    pub fn find(&self, texts: &[&str]) -> Option<usize> {
        (0..self.code.len()).find(|&at| self.has(at, texts))
    }

    /// The place behind the bracket that closes the one at `open`.
    pub fn behind_bracket(&self, open: usize) -> usize {
        let mut depth = 0;
        for (at, token) in self.code.iter().enumerate().skip(open) {
            match token.text {
                "{" | "(" | "[" => depth += 1,
                "}" | ")" | "]" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return at + 1;
            }
        }
        self.code.len()
    }
}

/// Whether `text` has this word, and not as a part of another.
pub fn has_word(text: &str, word: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(part_of_word) && !text[at + word.len()..].starts_with(part_of_word))
}

/// The path and the text of all Rust files of the repository and of its linker scripts.
pub fn read_all() -> Result<Vec<(String, String)>> {
    let mut files = FILES.map(|file| root().join(file)).to_vec();
    for folder in FOLDERS {
        find_in(&root().join(folder), &mut files)?;
    }
    files.sort();
    let read = |file: PathBuf| {
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok((file.strip_prefix(root()).unwrap_or(&file).display().to_string(), text))
    };
    files.into_iter().map(read).collect()
}

/// The Rust files of a folder and of its folders. A folder that cannot be read is an error, because
/// its files would not be checked.
fn find_in(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("target") {
            find_in(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_comments_are_told_from_code() {
        let text = "let a = \"asm! // \\\" no\"; // asm! here\n\
                    let b = r#\"\"todo!\"#; /* x /* y\n */ z */ c('\"', '\\'', 'l: &'a);";
        let source = Source::new("src/x.rs", text);
        let words: Vec<_> = source.code.iter().filter(|token| token.is_word()).map(|token| token.text).collect();
        assert_eq!(words, ["let", "a", "let", "b", "c"]);
        let comments: Vec<_> = source.comments.iter().map(|comment| (comment.line, comment.text)).collect();
        assert_eq!(comments, [(1, "// asm! here"), (2, "/* x /* y"), (3, "*/ z */")]);
        assert_eq!(source.code.last().map(|token| token.line), Some(3));
    }

    #[test]
    fn a_folder_that_cannot_be_read_is_an_error() {
        let said = find_in(Path::new("/nonexistent"), &mut Vec::new()).expect_err("it is not there").to_string();
        assert_eq!(said, "cannot read /nonexistent");
    }
}
