//! Which functions of rt0 call which, and which system calls they make, as read from the source.
//!
//! Only names are read, and types are not known. So the graph has too many calls rather than too
//! few:
//!
//! 1. *A name that may mean several functions means all of them.* A method's name means every
//!    method of that name, and of its kind (with or without arguments), of the types in the modules
//!    that the caller's module names.
//! 2. *A function that is named is called*: a handler, a closure's body, a constant's initializer.
//! 3. *A value is dropped where its type is named*, with everything in it; not if the type is
//!    behind a reference.
//! 4. *A call of a macro names all that its definition names*; if its first word chooses an arm,
//!    only what that arm names.
//! 5. *Items of other machines are not read*: `cfg` on items is evaluated. `cfg` within a function
//!    is not; a number that the machine lacks is left out later.

use std::cell::OnceCell;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::Path;

use anyhow::{Context, Result};
use proc_macro2::TokenStream;

mod names;
mod reader;

use reader::Reader;

/// The properties of a machine that `cfg` tests.
#[derive(Clone, Copy, Debug)]
pub struct Cfg {
    pub arch: &'static str,
    pub bits: u8,
    pub big_endian: bool,
}

/// A token that the graph needs.
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

/// What a function names: other functions, and numbers of system calls.
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
    /// By a top module: the top modules that it names.
    named: BTreeMap<String, BTreeSet<String>>,
    /// By a node: what it names. Filled in at the first use.
    edges: Vec<OnceCell<Edges>>,
}

/// The system calls and modules that some functions lead to.
#[derive(Debug, Default)]
pub struct Reached {
    /// The names of calls, without `__NR_`.
    pub calls: BTreeSet<String>,
    /// The top modules of the functions on the way.
    pub modules: BTreeSet<String>,
}

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

    /// Must be called when all files are read, and again after further ones.
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

    /// What the functions lead to of all modules whose path begins with this one. A module in
    /// `opaque` is noted, but its functions are not followed.
    pub fn reached_by(&self, path: &[&str], opaque: &dyn Fn(&str) -> bool) -> Reached {
        self.reach(self.within(path).collect(), opaque)
    }

    /// The functions of all modules whose path begins with this one.
    fn within(&self, path: &[&str]) -> impl Iterator<Item = usize> {
        let begins_so = |module: &[String]| module.len() >= path.len() && path.iter().zip(module).all(|(p, m)| p == m);
        (0..self.nodes.len()).filter(move |id| begins_so(&self.nodes[*id].module))
    }

    /// The way from a module to a call: functions, each of which names the next one.
    pub fn way(&self, path: &[&str], call: &str) -> Option<Vec<String>> {
        let mut from: BTreeMap<usize, Option<usize>> = self.within(path).map(|id| (id, None)).collect();
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
}

/// Whether a path with this first word begins at a crate's root.
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
