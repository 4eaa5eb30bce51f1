//! Which module of the library may name which.

use std::collections::{BTreeMap, BTreeSet};

use super::source::Source;
use super::{Finding, finding};

/// The layer of each module of the library, as in the picture of src/lib.rs: a module names only
/// modules of its own layer and below, and none that names it.
const LAYERS: &[(&str, u8)] = &[
    ("arch", 0),
    ("intrinsics", 0),
    ("once_word", 0),
    ("errno", 1),
    ("sys", 1),
    ("auxv", 2),
    ("cpu", 2),
    ("futex", 2),
    ("guard", 2),
    ("io", 2),
    ("mapping", 2),
    ("parker", 2),
    ("process", 2),
    ("signal", 2),
    ("time", 2),
    ("tls", 2),
    ("vdso", 2),
    ("all_threads", 3),
    ("fault", 3),
    ("profile", 3),
    ("random", 3),
    ("rseq", 3),
    ("thread", 3),
    ("adapters", 4),
    ("entry", 4),
    ("panic", 4),
    ("stack_protector", 4),
    ("sync", 4),
    ("test", 4),
];

/// Modules that may name fewer modules than their layer allows: the locks use only the futex, so
/// that they can be tested on a fake one.
const NARROWER: &[(&str, &[&str])] =
    &[("parker", &["futex", "time"]), ("sync", &["errno", "futex", "mapping", "parker", "sync", "time"])];

/// The module that starts everything in sequence. It may name any module; only assembly names it.
const SEQUENCER: &str = "start";

/// The two Rust functions that assembly calls; besides them an arch file names only the contract.
const DOORS: [&str; 2] = ["crate::start::rust_start", "crate::sys::rust_clone"];

/// The rules about modules, for all files at once.
pub(super) fn rules(sources: &[Source]) -> Vec<Finding> {
    let macros = macros(sources);
    let mut findings: Vec<Finding> = sources.iter().flat_map(|source| layers(source, &macros)).collect();
    findings.extend(circles(sources, &macros));
    let exists = |module: &str| sources.iter().any(|source| module_of(source.path) == Some(module));
    for (module, _) in LAYERS.iter().filter(|(module, _)| !exists(module)) {
        let what = format!("the table of layers names the module {module}, which is gone");
        findings.push(Finding { file: "xtask/src/check/modules.rs".to_string(), line: 1, what });
    }
    findings.extend(sources.iter().find(|s| s.path == "src/lib.rs").into_iter().flat_map(picture));
    findings
}

fn layer_of(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

/// The module of the library that a file belongs to.
fn module_of(path: &str) -> Option<&str> {
    path.strip_prefix("src/")?.split(['/', '.']).next()
}

/// The macros of the library, and the modules that define them.
type Macros<'a> = BTreeMap<&'a str, &'a str>;

fn macros<'a>(sources: &[Source<'a>]) -> Macros<'a> {
    let mut macros = Macros::new();
    for source in sources {
        let Some(module) = module_of(source.path) else { continue };
        let defined = (0..source.code.len()).filter(|&at| source.has(at, &["macro_rules", "!"]));
        macros.extend(defined.map(|at| (source.text(at + 2), module)));
    }
    macros
}

/// The modules that a file names, with the lines. A macro is named at the crate's root; it belongs
/// to the module that defines it.
fn named_by<'a>(source: &Source<'a>, macros: &Macros<'a>) -> Vec<(usize, &'a str)> {
    let paths = paths_from_root(source).into_iter();
    paths.map(|(line, path)| (line, macros.get(path[0]).copied().unwrap_or(path[0]))).collect()
}

/// A module names only its own layer and below.
fn layers<'a>(source: &Source<'a>, macros: &Macros<'a>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if source.path.starts_with("arch/") {
        for (line, path) in paths_from_root(source) {
            if path[0] != "arch" && !DOORS.iter().any(|door| door.split("::").skip(1).eq(path.iter().copied())) {
                let doors = DOORS.join(", ");
                let what = format!("an arch file names crate::arch and the doors {doors}, not crate::{}", path[0]);
                findings.push(finding(source, line, what));
            }
        }
        return findings;
    }
    let Some(module) = module_of(source.path) else {
        return findings;
    };
    if module == "lib" || module == SEQUENCER {
        return findings;
    }
    let Some(own) = layer_of(module) else {
        let what = format!("module {module} has no layer: give it one in xtask/src/check/modules.rs");
        return vec![finding(source, 1, what)];
    };
    let narrower = NARROWER.iter().find(|(m, _)| *m == module).map(|(_, list)| *list);
    for (line, named) in named_by(source, macros) {
        let what = match layer_of(named) {
            _ if named == "lib" || named == module => continue,
            _ if named == SEQUENCER => format!("nothing names {SEQUENCER} but assembly"),
            None => format!("crate::{named} is no module with a layer; name the module that defines it"),
            Some(other) if other > own => format!("{module} (layer {own}) names {named} (layer {other}) above it"),
            Some(_) => match narrower {
                Some(list) if !list.contains(&named) => format!("{module} may name only {}", list.join(", ")),
                _ => continue,
            },
        };
        findings.push(finding(source, line, what));
    }
    findings
}

/// No module names one that, directly or through others, names it. Each place that closes a circle
/// is a finding.
fn circles<'a>(sources: &[Source<'a>], macros: &Macros<'a>) -> Vec<Finding> {
    let mut places: BTreeMap<(&str, &str), (&Source, usize)> = BTreeMap::new();
    for source in sources {
        let Some(module) = module_of(source.path).filter(|module| layer_of(module).is_some()) else { continue };
        for (line, named) in named_by(source, macros) {
            if named != module && layer_of(named).is_some() {
                places.entry((module, named)).or_insert((source, line));
            }
        }
    }
    let way_back = |from, to| {
        let mut ways = vec![vec![from]];
        let mut seen = BTreeSet::new();
        while let Some(way) = ways.pop() {
            let last = way[way.len() - 1];
            if last == to {
                return Some(way);
            }
            if seen.insert(last) {
                let next = places.keys().filter(|(module, _)| *module == last);
                ways.extend(next.map(|(_, named)| [&way[..], &[*named]].concat()));
            }
        }
        None
    };
    let closing = places.iter().filter_map(|(&(module, named), (source, line))| {
        let way = way_back(named, module)?;
        Some(finding(source, *line, format!("a circle of modules: {module} → {}", way.join(" → "))))
    });
    closing.collect()
}

/// The picture in src/lib.rs has each module in the row of its layer, and no other. A row is `L2`,
/// names, and after three spaces or more what they have in common; the lines below it, up to the
/// next stroke, are its too.
fn picture(source: &Source) -> Vec<Finding> {
    let mut shown: BTreeMap<String, (u8, usize)> = BTreeMap::new();
    let mut findings = Vec::new();
    let mut layer = None;
    for comment in source.comments.iter().skip_while(|comment| !comment.text.contains("```text")).skip(1) {
        let (line, text) = (comment.line, comment.text.trim_start_matches("//!").trim());
        if text == "```" {
            break;
        }
        let row = text.strip_prefix('L').and_then(|rest| rest.split_at_checked(1));
        let names = match row.and_then(|(digit, rest)| Some((digit.parse().ok()?, rest.trim_start()))) {
            Some((number, rest)) => {
                layer = Some(number);
                rest
            }
            None if text == "│" => {
                layer = None;
                continue;
            }
            None => text,
        };
        let Some(layer) = layer else { continue };
        let names = names.split("   ").next().unwrap_or_default();
        for name in
            names.split_whitespace().filter(|word| !["──", "entry!", "tests!", "arch/<machine>.rs"].contains(word))
        {
            let name = name.trim_end_matches(".rs").trim_end_matches('*');
            if shown.insert(name.to_string(), (layer, line)).is_some() {
                findings.push(finding(source, line, format!("the picture shows {name} twice")));
            }
        }
    }
    shown.remove(SEQUENCER);
    for (module, layer) in LAYERS {
        match shown.remove(*module) {
            Some((row, _)) if row == *layer => {}
            Some((row, line)) => {
                let what = format!("the picture shows {module} in layer {row}, the table of layers has it in {layer}");
                findings.push(finding(source, line, what));
            }
            None => findings.push(finding(source, 1, format!("the picture of the layers lacks {module}"))),
        }
    }
    let unknown = shown.iter().map(|(name, (_, line))| finding(source, *line, format!("no module is called {name}")));
    findings.extend(unknown);
    findings
}

/// The paths in a file that begin at the crate's root, without `crate`, each with its line. They
/// begin with `crate::`, or with as many `super::` as lead to the root. `$crate` in a macro is not
/// one of them: it is the path that a user of the macro needs.
fn paths_from_root<'a>(source: &Source<'a>) -> Vec<(usize, Vec<&'a str>)> {
    let depth = match source.path {
        "src/lib.rs" => 0,
        arch if arch.starts_with("arch/") => 2, // crate::arch::imp
        path => path.matches('/').count(),
    };
    let mut paths = Vec::new();
    // Behind the closing brackets of the modules that are written out here.
    let mut inner: Vec<usize> = Vec::new();
    let mut at = 0;
    while at < source.code.len() {
        inner.retain(|end| at < *end);
        if source.text(at) == "mod" && source.text(at + 2) == "{" {
            inner.push(source.behind_bracket(at + 2));
        }
        let mut end = at;
        while source.has(end, &["super", ":", ":"]) {
            end += 3;
        }
        let by_crate = source.has(at, &["crate", ":", ":"]) && !source.has_before(at, &["$"]);
        if by_crate || end > at && (end - at) / 3 == depth + inner.len() {
            paths_of(source, if by_crate { at + 3 } else { end }, &[], &mut paths);
        }
        at = end.max(at + 1);
    }
    paths
}

/// Reads a path or a tree of paths, as after `use`; returns the place behind it.
fn paths_of<'a>(source: &Source<'a>, at: usize, above: &[&'a str], paths: &mut Vec<(usize, Vec<&'a str>)>) -> usize {
    match source.text(at) {
        "{" => {
            let end = source.behind_bracket(at);
            let mut at = at + 1;
            while at < end - 1 {
                at = paths_of(source, at, above, paths);
                while at < end - 1 && source.text(at) != "," {
                    at += 1; // Behind a name there may be another: `as x`.
                }
                at += 1;
            }
            end
        }
        name if name == "*" || source.code.get(at).is_some_and(|token| token.is_word()) => {
            let path = [above, &[name]].concat();
            let goes_on = source.has(at + 1, &[":", ":"])
                && (source.text(at + 3) == "{" || source.code.get(at + 3).is_some_and(|token| token.is_word()));
            if goes_on {
                return paths_of(source, at + 3, &path, paths);
            }
            paths.push((source.code[at].line, path));
            at + 1
        }
        _ => at + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::said;
    use super::*;

    #[test]
    fn modules_are_read_from_paths_and_lists() {
        let code =
            "use crate::{io::{self, Line}, sys};\nuse crate::errno::Errno;\n$crate::print!();\ncrate::futex::wake();";
        let of = |path: &str, code: &'static str| -> Vec<_> {
            let paths = paths_from_root(&Source::new(path, code));
            paths.into_iter().map(|(line, path)| (line, path.join("::"))).collect()
        };
        let expected = [(1, "io::self"), (1, "io::Line"), (1, "sys"), (2, "errno::Errno"), (4, "futex::wake")];
        assert_eq!(of("src/x.rs", code), expected.map(|(line, name)| (line, name.to_string())));
        // As many `super` as lead to the root.
        let code = "use super::a;\nmod tests {\nuse super::b;\nuse super::super::{c as d, e};\n}\nsuper::super::f();";
        let root = [(1, "a"), (4, "c"), (4, "e")].map(|(line, name)| (line, name.to_string()));
        assert_eq!(of("src/x.rs", code), root);
        assert_eq!(of("src/x/y.rs", code), [(6, "f".to_string())]);
    }

    #[test]
    fn a_module_names_only_its_own_layer_and_below() {
        let check = |path: &str, text: &str| said(layers(&Source::new(path, text), &Macros::new()));
        assert!(check("src/futex.rs", "use crate::{errno::Errno, sys, time};").is_empty());
        assert!(
            check("src/futex.rs", "\nuse crate::thread;")[0]
                .starts_with("src/futex.rs:2: futex (layer 2) names thread")
        );
        assert!(check("src/sync.rs", "use crate::sys;")[0].contains("sync may name only errno, futex"));
        assert!(check("src/thread.rs", "crate::start::x()")[0].contains("nothing names start"));
        assert!(check("src/start.rs", "use crate::{thread, panic};").is_empty());
        assert!(check("src/thread.rs", "use super::novel;")[0].contains("crate::novel is no module with a layer"));
        assert!(check("src/sys.rs", "fn f() {\nsuper::thread::exit() }")[0].starts_with("src/sys.rs:2: sys (layer 1)"));
        assert!(check("src/novel.rs", "")[0].contains("has no layer"));
        assert!(check("arch/mips.rs", "use crate::arch::Arch;\nsym crate::start::rust_start").is_empty());
        assert_eq!(check("arch/mips.rs", "use crate::sys;").len(), 1);
        assert_eq!(
            check("arch/mips.rs", "crate::start::rust_start; crate::start::other(); super::super::io::x()").len(),
            2
        );
    }

    #[test]
    fn a_module_that_is_gone_leaves_the_table_of_layers() {
        let mut paths: Vec<String> = LAYERS.iter().map(|(module, _)| format!("src/{module}.rs")).collect();
        let gone = |paths: &[String]| {
            let sources: Vec<_> = paths.iter().map(|path| Source::new(path, "")).collect();
            said(rules(&sources))
        };
        assert!(gone(&paths).is_empty());
        paths.retain(|path| path != "src/vdso.rs");
        assert!(gone(&paths)[0].ends_with("the table of layers names the module vdso, which is gone"));
    }

    #[test]
    fn a_macro_belongs_to_the_module_that_defines_it() {
        let io = macros(&[Source::new("src/io.rs", "macro_rules! print {\n}")]);
        assert!(layers(&Source::new("src/thread.rs", "crate::print!()"), &io).is_empty());
        assert_eq!(layers(&Source::new("src/errno.rs", "crate::print!()"), &io).len(), 1);
    }

    #[test]
    fn a_circle_of_modules_is_found_where_it_is_closed() {
        let tree = [
            Source::new("src/time.rs", "use crate::{vdso, sys};\n"),
            Source::new("src/vdso.rs", "use crate::auxv;\n"),
            Source::new("src/auxv.rs", "use crate::sys;\n"),
        ];
        assert!(circles(&tree, &Macros::new()).is_empty());
        let [time, vdso, _] = tree;
        let through_three = [time, vdso, Source::new("src/auxv.rs", "use crate::time;\n")];
        let found = said(circles(&through_three, &Macros::new()));
        assert!(found.len() == 3 && found[0] == "src/auxv.rs:1: a circle of modules: auxv → time → vdso → auxv");
        // A macro makes one too.
        let by_macro = [
            Source::new("src/io.rs", "macro_rules! print {\n}\ncrate::sys::write();"),
            Source::new("src/sys.rs", "use crate::print;\n"),
        ];
        assert_eq!(circles(&by_macro, &macros(&by_macro)).len(), 2);
    }

    #[test]
    fn the_picture_is_the_table_of_layers() {
        let row = |layer: u8| {
            let names = LAYERS.iter().filter(|(_, other)| *other == layer).map(|(name, _)| *name);
            names.collect::<Vec<_>>().join("  ")
        };
        let rows = |layers: [String; 5]| {
            let rows = layers.iter().enumerate().rev();
            rows.map(|(layer, names)| format!("//!   L{layer}   {names}     that and this\n//!    │\n"))
                .collect::<String>()
        };
        let of =
            |rows: String| said(picture(&Source::new("src/lib.rs", &format!("//! x\n//! ```text\n{rows}//! ```\n"))));
        let right = || [0, 1, 2, 3, 4].map(row);
        assert!(of(rows(right())).is_empty());
        let broken = |layer: usize, from: &str, to: &str| {
            let mut layers = right();
            layers[layer] = layers[layer].replace(from, to);
            of(rows(layers))
        };
        assert!(broken(2, "vdso", "")[0].contains("lacks vdso"));
        assert!(broken(3, "thread", "thread  novel").iter().any(|found| found.contains("no module is called novel")));
        assert!(broken(4, "sync", "sync  sys").iter().any(|found| found.contains("shows sys twice")));
        let moved = rows(right()).replace("  profile", "").replace("sync", "sync  profile");
        assert!(of(moved)[0].contains("shows profile in layer 4, the table of layers has it in 3"));
    }
}
