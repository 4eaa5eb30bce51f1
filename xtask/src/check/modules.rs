//! The modules of the library: which may name which.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, Source, finding, line_of, word_at};

/// The layer of each module of the library, as in the picture of src/lib.rs: a module names only
/// modules of its own layer and below, and none that names it.
const LAYERS: &[(&str, u8)] = &[
    ("arch", 0),
    ("intrinsics", 0),
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
    let mut findings: Vec<Finding> = sources.iter().flat_map(|source| layers(source, sources)).collect();
    findings.extend(circles(sources));
    let exists = |module: &str| {
        let file = format!("src/{module}.rs");
        sources.iter().any(|s| s.path == file || s.path.starts_with(&format!("src/{module}/")))
    };
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

/// The modules that a file names, with the lines. A macro is named at the crate's root; it belongs
/// to the module that defines it.
fn named_by(source: &Source, sources: &[Source]) -> Vec<(usize, String)> {
    let home = |name: &str| {
        let defines = |s: &&Source| s.path.starts_with("src/") && s.code.contains(&format!("macro_rules! {name} "));
        sources.iter().find(defines).and_then(|s| module_of(&s.path)).map(str::to_string)
    };
    named_modules(&source.code).into_iter().map(|(line, name)| (line, home(&name).unwrap_or(name))).collect()
}

/// A module names only its own layer and below.
fn layers(source: &Source, sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    if source.path.starts_with("arch/") {
        for (line, name) in named_modules(&source.code) {
            let text = source.code.lines().nth(line - 1).unwrap_or_default();
            if name != "arch" && !DOORS.iter().any(|door| text.contains(door)) {
                let what =
                    format!("an arch file names crate::arch and the doors {}, not crate::{name}", DOORS.join(", "));
                findings.push(finding(source, line, what));
            }
        }
        return findings;
    }
    let Some(module) = module_of(&source.path) else {
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
    for (line, named) in named_by(source, sources) {
        let named = named.as_str();
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
fn circles(sources: &[Source]) -> Vec<Finding> {
    let mut places: BTreeMap<(String, String), (&Source, usize)> = BTreeMap::new();
    for source in sources {
        let Some(module) = module_of(&source.path).filter(|module| layer_of(module).is_some()) else { continue };
        for (line, named) in named_by(source, sources) {
            if named != module && layer_of(&named).is_some() {
                places.entry((module.to_string(), named)).or_insert((source, line));
            }
        }
    }
    let way_back = |from: &str, to: &str| {
        let mut ways = vec![vec![from.to_string()]];
        let mut seen = BTreeSet::new();
        while let Some(way) = ways.pop() {
            let last = way.last().cloned().unwrap_or_default();
            if last == to {
                return Some(way);
            }
            if seen.insert(last.clone()) {
                let next = places.keys().filter(|(module, _)| *module == last);
                ways.extend(next.map(|(_, named)| [&way[..], std::slice::from_ref(named)].concat()));
            }
        }
        None
    };
    let closing = places.iter().filter_map(|((module, named), (source, line))| {
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
    for (text, line) in source.comments.lines().zip(1..).skip_while(|(text, _)| !text.contains("```text")).skip(1) {
        let text = text.trim_start_matches("//!").trim();
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

/// The first name after each `crate::` of the code, with its line.
fn named_modules(code: &str) -> Vec<(usize, String)> {
    let mut names = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(['$', '_']) || code[..at].ends_with(char::is_alphanumeric) {
            continue; // `$crate` in a macro is the user's view.
        }
        let rest = &code[at + "crate::".len()..];
        let Some(list) = rest.strip_prefix('{') else {
            names.push((line_of(code, at), word_at(rest).to_string()));
            continue;
        };
        let (mut depth, mut expect) = (1, true);
        for (offset, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => expect = true,
                _ if expect && depth == 1 && !c.is_whitespace() => {
                    expect = false;
                    let at = at + "crate::{".len() + offset;
                    names.push((line_of(code, at), word_at(&code[at..]).to_string()));
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::super::tests::{said, source};
    use super::*;

    #[test]
    fn modules_are_read_from_paths_and_lists() {
        let code =
            "use crate::{io::{self, Line}, sys};\nuse crate::errno::Errno;\n$crate::print!();\ncrate::futex::wake();";
        let names: Vec<_> = named_modules(code);
        let expected = [(1, "io"), (1, "sys"), (2, "errno"), (4, "futex")].map(|(l, n)| (l, n.to_string()));
        assert_eq!(names, expected);
    }

    #[test]
    fn a_module_names_only_its_own_layer_and_below() {
        let check = |path: &str, text: &str| said(layers(&source(path, text), &[]));
        assert!(check("src/futex.rs", "use crate::{errno::Errno, sys, time};").is_empty());
        assert!(
            check("src/futex.rs", "\nuse crate::thread;")[0]
                .starts_with("src/futex.rs:2: futex (layer 2) names thread")
        );
        assert!(check("src/sync.rs", "use crate::sys;")[0].contains("sync may name only errno, futex"));
        assert!(check("src/thread.rs", "crate::start::x()")[0].contains("nothing names start"));
        assert!(check("src/start.rs", "use crate::{thread, panic};").is_empty());
        assert!(check("src/novel.rs", "")[0].contains("has no layer"));
        assert!(check("arch/mips.rs", "use crate::arch::Arch;\nsym crate::start::rust_start").is_empty());
        assert_eq!(check("arch/mips.rs", "use crate::sys;").len(), 1);
    }

    #[test]
    fn a_macro_belongs_to_the_module_that_defines_it() {
        let io = [source("src/io.rs", "macro_rules! print {\n}")];
        assert!(layers(&source("src/thread.rs", "crate::print!()"), &io).is_empty());
        assert_eq!(layers(&source("src/errno.rs", "crate::print!()"), &io).len(), 1);
    }

    #[test]
    fn a_circle_of_modules_is_found_where_it_is_closed() {
        let file = |module: &str, text: &str| source(&format!("src/{module}.rs"), text);
        let line = |module: &str, named: &str| file(module, &format!("use crate::{named};\n"));
        let tree = [line("time", "vdso"), line("vdso", "auxv"), line("auxv", "sys"), line("time", "sys")];
        assert!(circles(&tree).is_empty());
        let through_three = [line("time", "vdso"), line("vdso", "auxv"), line("auxv", "time")];
        let found = said(circles(&through_three));
        assert!(found.len() == 3 && found[0] == "src/auxv.rs:1: a circle of modules: auxv → time → vdso → auxv");
        // A macro makes one too.
        let by_macro = [file("io", "macro_rules! print {\n}\ncrate::sys::write();"), line("sys", "print")];
        assert_eq!(circles(&by_macro).len(), 2);
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
        let of = |rows: String| said(picture(&source("src/lib.rs", &format!("//! x\n//! ```text\n{rows}//! ```\n"))));
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
