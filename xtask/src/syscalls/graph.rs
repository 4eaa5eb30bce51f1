//! Which functions of rt0 lead to which, and which numbers of system calls they name, read off the
//! source.
//!
//! It is read as text: types are not known. So the graph says too much rather than too little:
//!
//! 1. *A name that may mean several functions means all of them.* A method's name means every
//!    method of that name, and of its kind (with or without arguments), of the types in the modules
//!    that the caller's module names.
//! 2. *A function that is named is called*: a handler, a closure's body, a constant's initializer.
//! 3. *A value is dropped where its type is named*, but behind a reference, with all that is in it.
//! 4. *A macro is all that its definition says*; if its first word chooses an arm, that arm.
//! 5. *What another machine has is not read*: `cfg` on items is evaluated. Within a function it is
//!    not; then a number that the machine lacks is left out later.

use std::cell::OnceCell;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::Path;

use anyhow::{Context, Result};
use proc_macro2::TokenStream;

mod reader;

use reader::Reader;

/// What `cfg` asks of a machine.
#[derive(Clone, Copy, Debug)]
pub struct Cfg {
    pub arch: &'static str,
    pub bits: u8,
    pub big_endian: bool,
}

/// A piece of text that matters.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Mark(char),
    /// A bracket, and whether nothing is in it.
    Open(char, bool),
    Close,
}

/// A function, a constant, a static or a macro.
#[derive(Clone, Debug)]
struct Node {
    /// The path of its module in the crate.
    module: Vec<String>,
    /// The type that it belongs to, and the trait.
    owners: Vec<String>,
    name: String,
    /// Whether it takes `self`, and whether it takes more.
    method: Option<bool>,
    tokens: Vec<Token>,
}

impl Node {
    fn full_name(&self) -> String {
        let parts = self.module.iter().chain(self.owners.first()).chain([&self.name]);
        parts.map(String::as_str).collect::<Vec<_>>().join("::")
    }
}

/// A struct or an enum: where it is, and the types of what is in it.
#[derive(Clone, Debug)]
struct Type {
    module: Vec<String>,
    contains: Vec<String>,
}

/// What a function names: others, and numbers of calls.
#[derive(Clone)]
struct Edges {
    ids: BTreeSet<usize>,
    calls: BTreeSet<String>,
}

/// The functions of some crates.
#[derive(Clone, Default)]
pub struct Graph {
    nodes: Vec<Node>,
    by_name: HashMap<String, Vec<usize>>,
    types: HashMap<String, Vec<Type>>,
    macros: HashMap<String, Vec<TokenStream>>,
    /// By a module's path: the names that it imports, and what they stand for.
    imports: HashMap<Vec<String>, HashMap<String, Vec<String>>>,
    /// By a top module: those that it names.
    named: BTreeMap<String, BTreeSet<String>>,
    /// By a node: what it names, once that was asked for.
    edges: Vec<OnceCell<Edges>>,
}

/// What some functions lead to.
#[derive(Debug, Default)]
pub struct Reached {
    /// The names of calls, without `__NR_`.
    pub calls: BTreeSet<String>,
    /// The top modules on the way.
    pub modules: BTreeSet<String>,
}

/// Fields of tables of call numbers that are compared with, and not called.
const NOT_CALLED: &[&str] = &["ids"];

/// Prefixes of the constants that hold a call's number.
const PREFIXES: [&str; 2] = ["__NR_", "__ARM_NR_"];

impl Graph {
    /// Reads a crate from its root file. `name` is the first part of its modules' paths; none for
    /// rt0 itself.
    pub fn read(&mut self, cfg: Cfg, root: &Path, name: &[&str]) -> Result<()> {
        let module: Vec<String> = name.iter().map(|part| part.to_string()).collect();
        let folder = root.parent().context("a file in a folder")?.to_path_buf();
        Reader { cfg, graph: self, folder, depth: module.len() }.file(root, &module)
    }

    /// Reads the file of one module. Its modules have files in the folder of its name.
    pub fn read_module(&mut self, cfg: Cfg, file: &Path, module: &[&str]) -> Result<()> {
        let module: Vec<String> = module.iter().map(|part| part.to_string()).collect();
        let folder = file.with_extension("");
        Reader { cfg, graph: self, folder, depth: module.len() }.file(file, &module)
    }

    /// Reads one module from its text.
    #[cfg(test)]
    fn read_text(&mut self, cfg: Cfg, text: &str, module: &[&str]) {
        let module: Vec<String> = module.iter().map(|part| part.to_string()).collect();
        let parsed = syn::parse_file(text).expect("it can be parsed");
        let mut reader = Reader { cfg, graph: self, folder: std::path::PathBuf::new(), depth: 0 };
        reader.items(parsed.items, &module).expect("no other file is needed");
    }

    /// To be called when all is read, and again when more is.
    pub fn finish(&mut self) {
        self.by_name.clear();
        for (id, node) in self.nodes.iter().enumerate() {
            self.by_name.entry(node.name.clone()).or_default().push(id);
        }
        let mut named: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for node in &self.nodes {
            let Some(top) = node.module.first() else { continue };
            let words = node.tokens.iter().filter_map(|token| match token {
                Token::Word(word) => Some(word.as_str()),
                _ => None,
            });
            let pairs: Vec<_> = words.collect();
            let of = named.entry(top.clone()).or_default();
            of.extend(pairs.windows(2).filter(|pair| is_root(pair[0])).map(|pair| pair[1].to_string()));
        }
        for (module, names) in &self.imports {
            let Some(top) = module.first() else { continue };
            let of = named.entry(top.clone()).or_default();
            let from_root = names.values().filter(|path| is_root(&path[0]));
            of.extend(from_root.filter_map(|path| path.get(1).cloned()));
        }
        self.named = named;
        self.edges = vec![OnceCell::new(); self.nodes.len()];
    }

    fn edges_of(&self, id: usize) -> &Edges {
        self.edges[id].get_or_init(|| {
            let (node, mut calls) = (&self.nodes[id], BTreeSet::new());
            let ids = self.leads_to(node, &node.tokens, &mut calls, 0);
            Edges { ids, calls }
        })
    }

    /// What all functions of the modules lead to whose path begins so. A module of `opaque` is
    /// noted and not entered.
    pub fn reached_by(&self, path: &[&str], opaque: &dyn Fn(&str) -> bool) -> Reached {
        let within =
            |node: &Node| path.iter().enumerate().all(|(at, part)| node.module.get(at).is_some_and(|p| p == part));
        let start = (0..self.nodes.len()).filter(|id| within(&self.nodes[*id])).collect();
        self.reach(start, opaque)
    }

    /// The way from a module to a call: functions, each named by the one before it.
    pub fn way(&self, path: &[&str], call: &str) -> Option<Vec<String>> {
        let within =
            |node: &Node| path.iter().enumerate().all(|(at, part)| node.module.get(at).is_some_and(|p| p == part));
        let start = (0..self.nodes.len()).filter(|id| within(&self.nodes[*id]));
        let mut from: BTreeMap<usize, Option<usize>> = start.map(|id| (id, None)).collect();
        let mut todo: VecDeque<usize> = from.keys().copied().collect();
        while let Some(id) = todo.pop_front() {
            let Edges { ids, calls } = self.edges_of(id);
            for &next in ids {
                if let Entry::Vacant(entry) = from.entry(next) {
                    entry.insert(Some(id));
                    todo.push_back(next);
                }
            }
            if calls.contains(call) {
                let ids = std::iter::successors(Some(id), |id| from[id]);
                let mut way: Vec<_> = ids.map(|id| self.nodes[id].full_name()).collect();
                way.reverse();
                return Some(way);
            }
        }
        None
    }

    fn reach(&self, mut todo: Vec<usize>, opaque: &dyn Fn(&str) -> bool) -> Reached {
        let mut reached = Reached::default();
        let mut seen: BTreeSet<usize> = todo.iter().copied().collect();
        while let Some(id) = todo.pop() {
            let node = &self.nodes[id];
            if let Some(top) = node.module.first() {
                reached.modules.insert(top.clone());
                if opaque(top) {
                    continue;
                }
            }
            let Edges { ids, calls } = self.edges_of(id);
            reached.calls.extend(calls.iter().cloned());
            todo.extend(ids.iter().filter(|next| seen.insert(**next)));
        }
        reached
    }

    /// What a piece of a function's text names: functions, and numbers of calls.
    fn leads_to(&self, node: &Node, tokens: &[Token], calls: &mut BTreeSet<String>, depth: u8) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let word = |at: usize| match tokens.get(at) {
            Some(Token::Word(word)) => Some(word.as_str()),
            _ => None,
        };
        let mark = |at: usize, c: char| tokens.get(at) == Some(&Token::Mark(c));
        let joined = |at: usize| mark(at, ':') && mark(at + 1, ':');
        let mut at = 0;
        while at < tokens.len() {
            let Some(first) = word(at) else {
                at += 1;
                continue;
            };
            let before = at;
            let mut path = vec![first.to_string()];
            at += 1;
            loop {
                // A path goes on behind its parameters.
                let behind = if joined(at) && mark(at + 2, '<') { behind_parameters(tokens, at + 2) } else { at };
                let Some(next) = word(behind + 2).filter(|_| joined(behind)) else { break };
                path.push(next.to_string());
                at = behind + 3;
            }
            let last = path[path.len() - 1].clone();
            if let Some(name) = PREFIXES.iter().find_map(|prefix| last.strip_prefix(prefix)) {
                calls.insert(name.to_string());
                continue;
            }
            // `::<…>` or nothing, then the arguments.
            let turbofish = joined(at) && mark(at + 2, '<');
            let arguments = match tokens.get(at) {
                Some(Token::Open('(', empty)) => Some(!empty),
                _ => None,
            };
            let after_dot = before > 0 && mark(before - 1, '.') && !(before > 1 && mark(before - 2, '.'));
            let after_type = before > 1 && joined(before - 2) && path.len() == 1;
            if after_dot && path.len() == 1 {
                if arguments.is_some() || turbofish {
                    found.extend(self.methods(node, &last, arguments));
                }
                continue;
            }
            if after_type {
                // <T as Trait>::name
                let methods = self.methods(node, &last, None).into_iter();
                let of = if before > 3 { word(before - 4) } else { None };
                found.extend(methods.filter(|id| of.is_none_or(|of| self.nodes[*id].owners.iter().any(|o| o == of))));
                continue;
            }
            if mark(at, '!') && !mark(at + 1, '=') {
                found.extend(self.named(&format!("{last}!")));
                continue;
            }
            for part in &path {
                let behind_reference = before > 0 && mark(before - 1, '&')
                    || before > 1 && mark(before - 2, '&') && word(before - 1) == Some("mut")
                    || before > 2 && mark(before - 3, '&') && mark(before - 2, '\'')
                    || before > 3 && mark(before - 4, '&') && mark(before - 3, '\'') && word(before - 1) == Some("mut");
                if part.starts_with(char::is_uppercase) && !behind_reference {
                    self.drops(node, part, &mut found, &mut BTreeSet::new());
                }
            }
            let ids = self.path(node, &path, arguments.is_some() || turbofish);
            // TABLE.field: of a table of numbers, that one.
            let is_field = mark(at, '.') && !matches!(tokens.get(at + 2), Some(Token::Open('(', _)));
            let field = if is_field { word(at + 1) } else { None };
            match field.filter(|_| last.chars().all(|c| c.is_uppercase() || c == '_')) {
                Some(field) => {
                    for id in ids {
                        self.field(id, field, calls, &mut found, depth);
                    }
                }
                None => found.extend(ids),
            }
        }
        found
    }

    /// The initializer of a constant's field; if the constant is another, of that one's.
    fn field(&self, id: usize, field: &str, calls: &mut BTreeSet<String>, found: &mut BTreeSet<usize>, depth: u8) {
        const CONSTANTS_OF_CONSTANTS: u8 = 4;
        if NOT_CALLED.contains(&field) {
            return;
        }
        if depth > CONSTANTS_OF_CONSTANTS {
            found.insert(id);
            return;
        }
        let node = &self.nodes[id];
        let tokens = &node.tokens;
        let start = (0..tokens.len()).find(|&at| {
            tokens[at] == Token::Word(field.to_string())
                && tokens.get(at + 1) == Some(&Token::Mark(':'))
                && at > 0
                && matches!(tokens[at - 1], Token::Open('{', _) | Token::Mark(','))
        });
        if let Some(start) = start {
            let end = (start..tokens.len()).find(|&at| matches!(tokens[at], Token::Mark(',') | Token::Close));
            found.extend(self.leads_to(node, &tokens[start + 2..end.unwrap_or(tokens.len())], calls, depth + 1));
            return;
        }
        let mut no_calls = BTreeSet::new();
        let next = self.leads_to(node, tokens, &mut no_calls, depth + 1);
        let constants =
            next.iter().filter(|next| **next != id && self.nodes[**next].name.starts_with(char::is_uppercase));
        if no_calls.is_empty() && constants.clone().count() > 0 {
            constants.for_each(|next| self.field(*next, field, calls, found, depth + 1));
        } else {
            found.insert(id); // No table: all of it.
        }
    }

    fn named(&self, name: &str) -> impl Iterator<Item = usize> {
        self.by_name.get(name).into_iter().flatten().copied()
    }

    /// The methods that a name may mean.
    fn methods(&self, caller: &Node, name: &str, arguments: Option<bool>) -> Vec<usize> {
        let own = caller.module.first();
        let visible = |node: &Node| {
            let top = node.module.first();
            top == own
                || own.and_then(|own| self.named.get(own)).is_some_and(|named| top.is_some_and(|t| named.contains(t)))
        };
        let fits = |id: &usize| {
            let node = &self.nodes[*id];
            let more = node.method;
            (more.is_some() || arguments.is_none())
                && !node.owners.is_empty()
                && arguments.is_none_or(|given| more == Some(given))
                && visible(node)
        };
        self.named(name).filter(fits).collect()
    }

    /// What a path may mean; `called` says whether arguments follow.
    fn path(&self, caller: &Node, path: &[String], called: bool) -> Vec<usize> {
        let imported = self.imports.get(&caller.module).and_then(|names| names.get(&path[0]));
        let path: Vec<&str> = match imported {
            Some(from) => from.iter().chain(&path[1..]).map(String::as_str).collect(),
            None => path.iter().map(String::as_str).collect(),
        };
        let (last, top) = (path[path.len() - 1], caller.module.first());
        let same_top = |node: &Node| node.module.first() == top;
        if matches!(path[0], "core" | "std" | "alloc") {
            return Vec::new();
        }
        let [.., of, _] = path[..] else {
            let constant = last.starts_with(char::is_uppercase);
            let near = |node: &Node| same_top(node) && (called || constant || node.module == caller.module);
            return self.named(last).filter(|id| self.nodes[*id].owners.is_empty() && near(&self.nodes[*id])).collect();
        };
        if of == "Self" {
            let own = |node: &Node| node.owners.iter().any(|owner| caller.owners.contains(owner));
            return self.named(last).filter(|id| own(&self.nodes[*id])).collect();
        }
        if of.starts_with(char::is_uppercase) {
            let owned_by = |owner: &str| -> Vec<usize> {
                self.named(last).filter(|id| self.nodes[*id].owners.iter().any(|name| name == owner)).collect()
            };
            let mut own = owned_by(of);
            // What a machine does not override is the trait's.
            if own.is_empty() && of == "Cpu" {
                own = owned_by("Arch");
            }
            // Of types with one name, the one that was imported, else the one that is near.
            let from = if path.len() > 2 { Some(path[path.len() - 3]) } else { None };
            let is_meant = |node: &Node| match from {
                Some("self" | "super") | None => same_top(node),
                Some(from) => is_root(from) || node.module.iter().any(|part| part == from),
            };
            if own.iter().any(|id| is_meant(&self.nodes[*id])) {
                own.retain(|id| is_meant(&self.nodes[*id]));
            }
            return own;
        }
        let fits = |node: &Node| match of {
            "self" | "super" => same_top(node),
            _ if is_root(of) => node.module.len() <= 1,
            _ => node.module.iter().any(|part| part == of),
        };
        self.named(last).filter(|id| self.nodes[*id].owners.is_empty() && fits(&self.nodes[*id])).collect()
    }

    /// What runs when a value of this type is dropped.
    fn drops(&self, node: &Node, name: &str, found: &mut BTreeSet<usize>, seen: &mut BTreeSet<String>) {
        let imported = self.imports.get(&node.module).is_some_and(|names| names.contains_key(name));
        self.drops_of(&node.module, imported, name, found, seen);
    }

    fn drops_of(
        &self,
        module: &[String],
        anywhere: bool,
        name: &str,
        found: &mut BTreeSet<usize>,
        seen: &mut BTreeSet<String>,
    ) {
        let near = |other: &[String]| anywhere || other.first() == module.first();
        let types = self.types.get(name).into_iter().flatten().filter(|t| near(&t.module));
        for found_type in types {
            if !seen.insert(format!("{}::{name}", found_type.module.join("::"))) {
                continue;
            }
            let is_its =
                |node: &Node| node.owners.iter().any(|o| o == name) && node.module.first() == found_type.module.first();
            found.extend(self.named("drop").filter(|id| is_its(&self.nodes[*id])));
            for part in &found_type.contains {
                let imported = self.imports.get(&found_type.module).is_some_and(|names| names.contains_key(part));
                self.drops_of(&found_type.module, imported, part, found, seen);
            }
        }
    }
}

/// The place behind `<…>`, which begins at `at`.
fn behind_parameters(tokens: &[Token], at: usize) -> usize {
    let mut depth = 0;
    for (offset, token) in tokens[at..].iter().enumerate() {
        match token {
            Token::Mark('<') => depth += 1,
            Token::Mark('>') if tokens[at + offset - 1] != Token::Mark('-') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + offset + 1;
        }
    }
    tokens.len()
}

/// Whether a path that begins so begins at a crate's root.
fn is_root(word: &str) -> bool {
    matches!(word, "crate" | "rt0" | "rt0_tests")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CFG: Cfg = Cfg { arch: "mips", bits: 32, big_endian: true };

    const SYS: &str = "
        macro_rules! call { ($nr:ident) => { Cpu::syscall0(k::$nr) } }
        pub struct OwnedFd(i32);
        impl Drop for OwnedFd { fn drop(&mut self) { call!(__NR_close); } }
        pub fn open() -> OwnedFd { OwnedFd(call!(__NR_openat)) }
        pub fn read(fd: &OwnedFd) { call!(__NR_read) }
        pub fn getuid() { call(Cpu::IDS.getuid) }
        #[cfg(test)] mod tests { fn f() { call!(__NR_reboot) } }
    ";
    const ARCH: &str = "
        macro_rules! timed {
            (plain FUTEX) => { const FUTEX: u32 = k::__NR_futex; };
            (both FUTEX) => { const FUTEX: (u32, u32) = (k::__NR_futex_time64, k::__NR_futex); };
        }
        trait Arch { fn fork() { k::__NR_clone } fn pause() { k::__NR_pause } }
        impl Arch for Cpu {
            #[cfg(target_pointer_width = \"64\")] timed!(plain FUTEX);
            #[cfg(target_pointer_width = \"32\")] timed!(both FUTEX);
            const IDS: Ids = Ids { getuid: k::__NR_getuid32, setuid: k::__NR_setuid32, ids: [k::__NR_geteuid] };
            fn pause() { }
        }
    ";

    /// The calls of a module with this text, beside the two above.
    fn calls(text: &str) -> Vec<String> {
        let mut graph = Graph::default();
        graph.read_text(CFG, ARCH, &["arch"]);
        graph.read_text(CFG, SYS, &["sys"]);
        graph.read_text(
            CFG,
            "pub struct Other; impl Waits for Other { fn wait(&self) { k::__NR_waitid } }",
            &["other"],
        );
        graph.read_text(CFG, text, &["it"]);
        graph.finish();
        graph.reached_by(&["it"], &|_| false).calls.into_iter().collect()
    }

    #[test]
    fn a_function_makes_the_calls_of_those_that_it_names() {
        assert_eq!(calls("use crate::sys; fn f(fd: &sys::OwnedFd) { sys::read(fd) }"), ["read"]);
        assert_eq!(calls("use crate::sys::{self, read as r}; fn f() { g(r) } fn g() {}"), ["read"]);
        assert_eq!(calls("fn f() { crate::sys::getuid() }"), ["getuid32"], "one field of a table");
        assert!(calls("fn f() { read(); mem::open() } use core::ptr as sys; fn g() { sys::read() }").is_empty());
    }

    #[test]
    fn what_is_dropped_is_closed() {
        assert_eq!(calls("use crate::sys; fn f() { sys::open(); }"), ["close", "openat"]);
        assert_eq!(calls("use crate::sys::OwnedFd; struct S(Option<OwnedFd>); fn f(s: S) {}"), ["close"]);
        assert!(calls("use crate::sys::OwnedFd; struct S<'a>(&'a OwnedFd); fn f(s: S) {}").is_empty());
    }

    #[test]
    fn a_machines_own_members_come_before_the_traits_and_arms_are_chosen() {
        assert_eq!(calls("fn f() { Cpu::fork(); Cpu::pause() }"), ["clone"]);
        assert_eq!(calls("fn f() { Cpu::FUTEX }"), ["futex", "futex_time64"]);
    }

    #[test]
    fn a_method_is_any_of_its_name_that_the_module_may_mean() {
        assert!(calls("fn f() { x.wait() }").is_empty(), "no other module is named");
        assert_eq!(calls("use crate::other::Other; fn f() { x.wait() }"), ["waitid"]);
        assert!(calls("use crate::other::Other; fn f() { x.wait(1); x.wait }").is_empty());
        assert_eq!(calls("fn f() { Vec::<crate::other::Other>::new(); <Other as Waits>::wait(x) }"), ["waitid"]);
    }

    #[test]
    fn functions_within_macros_are_found() {
        assert_eq!(calls("const_fn! { pub const fn g() { k::__NR_read } } fn f() { g() }"), ["read"]);
        let text = "macro_rules! m { ($name:ident) => { fn h() { k::__NR_write } } } mod a { m!(x); }";
        assert_eq!(calls(text), ["write"]);
    }
}
