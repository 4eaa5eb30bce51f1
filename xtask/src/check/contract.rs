//! `trait Arch`: each machine has its members in one order, and each member says what uses it.

use super::source::Source;
use super::{Finding, finding};

/// The file of the trait.
pub(super) const CONTRACT: &str = "src/arch.rs";

/// The members of the trait.
pub(super) fn order<'a>(contract: &Source<'a>) -> Vec<&'a str> {
    members(contract, &["trait", "Arch"], &[]).into_iter().map(|(_, name)| name).collect()
}

/// The members of the block after `head`, with their lines: fn, const and type. A macro call in the
/// place of a member stands for the names in `known` that it mentions.
fn members<'a>(source: &Source<'a>, head: &[&str], known: &[&str]) -> Vec<(usize, &'a str)> {
    let mut members: Vec<(usize, &str)> = Vec::new();
    let start = source.find(head).and_then(|head| (head..source.code.len()).find(|&at| source.text(at) == "{"));
    let Some(start) = start else { return members };
    let end = source.behind_bracket(start) - 1;
    let mut at = start + 1;
    while at < end {
        let defined = ["fn", "const", "type"].contains(&source.text(at)) && source.code[at + 1].is_word();
        if defined && !["fn", "unsafe", "extern"].contains(&source.text(at + 1)) {
            members.push((source.code[at + 1].line, source.text(at + 1)));
        }
        if !["{", "(", "["].contains(&source.text(at)) {
            at += 1;
            continue;
        }
        let behind = source.behind_bracket(at);
        if source.has_before(at, &["!"]) {
            for token in &source.code[at..behind] {
                if known.contains(&token.text) && members.iter().all(|member| member.1 != token.text) {
                    members.push((token.line, token.text));
                }
            }
        }
        at = behind;
    }
    members
}

/// An arch file has the members in the order of the trait: then a diff of two files shows the
/// difference of two ABIs.
pub(super) fn member_order(source: &Source, order: &[&str]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut last: Option<(usize, &str)> = None;
    for (line, member) in members(source, &["impl", "Arch", "for", "Cpu"], order) {
        let Some(index) = order.iter().position(|name| *name == member) else { continue };
        match last {
            Some((before, name)) if before > index => {
                let what = format!("`{member}` stands after `{name}`; the order is that of the trait in {CONTRACT}");
                findings.push(finding(source, line, what));
            }
            _ => last = Some((index, member)),
        }
    }
    findings
}

/// The comment of each member says which file uses it and when, and the file does.
pub(super) fn member_users(contract: &Source, sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, member) in members(contract, &["trait", "Arch"], &[]) {
        if member == "_start" || member.starts_with("syscall") && member != "syscall0" {
            continue; // The kernel calls `_start`.
        }
        let mut comment = Vec::new();
        for above in (1..line).rev() {
            let doc = contract.comments.iter().find(|comment| comment.line == above && comment.text.starts_with("///"));
            let Some(doc) = doc else { break };
            comment.push(doc.text.trim_start_matches('/').trim());
        }
        comment.reverse();
        let comment = comment.join(" ");
        let user = comment.split("Used by `").nth(1).and_then(|rest| rest.split('`').next());
        let uses = |path: &str| {
            let file = sources.iter().find(|source| source.path.strip_prefix("src/") == Some(path));
            file.is_some_and(|file| file.find(&[":", ":", member]).is_some())
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

#[cfg(test)]
mod tests {
    use cargo_rt0::targets;

    use super::super::tests::said;
    use super::*;
    use crate::repository::{pinned, root};

    #[test]
    fn every_member_says_which_file_uses_it() {
        let contract = "trait Arch {\n/// A. Used by `sys.rs` at a call.\nconst A: u32;\n/// B.\nconst B: u32;\n\
                        /// C. Used\n/// by `sys.rs`\n/// at a start.\nconst C: u32;\n}";
        let sources = [Source::new("src/sys.rs", "Cpu::A")];
        let found = said(member_users(&Source::new(CONTRACT, contract), &sources));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("src/arch.rs:5: the comment of `B`"), "{found:?}");
        assert!(found[1].starts_with("src/arch.rs:9: `C` is not used by src/sys.rs"), "{found:?}");
    }

    #[test]
    fn arch_files_keep_the_order_of_the_trait() {
        let contract =
            "trait Arch {\n const A: u32;\n unsafe fn call0(n: fn(u8)) -> isize;\n type T: Copy;\n fn last();\n}";
        let order = order(&Source::new(CONTRACT, contract));
        assert_eq!(order, ["A", "call0", "T", "last"]);
        let good = "impl Arch for Cpu {\n const A: u32 = 1;\n\
                     call!(call0(a in x));\n type T = u8;\n fn last() { fn A() {} }\n}";
        assert!(member_order(&Source::new("arch/x.rs", good), &order).is_empty());
        let bad = "impl Arch for Cpu {\n const A: u32 = 1;\n fn last() {}\n call!(call0());\n type T = u8;\n}";
        let found = said(member_order(&Source::new("arch/x.rs", bad), &order));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("arch/x.rs:4: `call0` stands after `last`"), "{found:?}");
    }

    #[test]
    fn stack_probes_are_as_the_compiler_has_them() {
        for target in targets::TARGETS {
            let mut rustc = pinned("rustc");
            rustc.args(["-Zunstable-options", "--print", "target-spec-json", "--target", target.triple]);
            let spec = rustc.env("RUSTC_BOOTSTRAP", "1").output().expect("rustc").stdout;
            let spec: serde_json::Value = serde_json::from_slice(&spec).expect("a specification");
            let arch = spec["arch"].as_str().expect("its processor");
            let file = if arch.starts_with("riscv") { "riscv" } else { arch };
            let text = std::fs::read_to_string(root().join(format!("arch/{file}.rs"))).expect("its file");
            let probes = spec.get("stack-probes").is_some();
            assert!(text.contains(&format!("const STACK_PROBES: bool = {probes};")), "{}", target.name);
        }
    }
}
