//! Which programs a package has, and whether they are written for rt0.
//!
//! Cargo knows, and tells a build script nothing of it. So the package is looked at as cargo does:
//! by the names of its files, and by the tables `[[bin]]` and `[[example]]` of its manifest. Of the
//! manifest only what these need is read.

use std::fs;
use std::path::{Path, PathBuf};

use crate::about;

/// A package, as far as it matters here.
#[derive(Debug)]
pub struct Package {
    pub name: String,
    pub bins: Vec<Bin>,
    pub has_examples: bool,
}

/// A binary: its name and the file of its crate root.
#[derive(Debug, PartialEq, Eq)]
pub struct Bin {
    pub name: String,
    pub root: PathBuf,
}

/// A table of a manifest, and its lines.
struct Table<'a> {
    header: &'a str,
    lines: Vec<&'a str>,
}

impl Package {
    /// Looks at the package in this folder.
    pub fn read(folder: &Path) -> Result<Package, String> {
        let path = folder.join("Cargo.toml");
        let manifest = fs::read_to_string(&path).map_err(|error| about(&path, error))?;
        let tables = tables(&manifest);
        let package = tables.iter().find(|table| table.header == "[package]");
        let of_package = |key: &str| package.and_then(|table| table.value(key));
        let name = of_package("name").unwrap_or_default().to_string();
        let found = |key: &str| of_package(key) != Some("false");

        let named = |header: &str| tables.iter().filter(move |table| table.header == header).collect::<Vec<_>>();
        let mut bins = Vec::new();
        for table in named("[[bin]]") {
            let name = table.value("name").unwrap_or(&name).to_string();
            let guesses = [format!("src/bin/{name}.rs"), format!("src/bin/{name}/main.rs"), "src/main.rs".to_string()];
            let guess = || guesses.iter().map(|guess| folder.join(guess)).find(|path| path.exists());
            let root = table.value("path").map(|path| folder.join(path)).or_else(guess);
            bins.push(Bin { name, root: root.unwrap_or_default() });
        }
        if found("autobins") {
            let main = folder.join("src/main.rs");
            let main = main.exists().then(|| Bin { name: name.clone(), root: main });
            for bin in main.into_iter().chain(roots(&folder.join("src/bin"))) {
                if !bins.iter().any(|known| known.root == bin.root || known.name == bin.name) {
                    bins.push(bin);
                }
            }
        }
        let has_examples =
            !named("[[example]]").is_empty() || (found("autoexamples") && !roots(&folder.join("examples")).is_empty());
        Ok(Package { name, bins, has_examples })
    }
}

impl Bin {
    /// Whether the crate root says that it is for rt0. What is missing would be many errors of the
    /// compiler's.
    pub fn check(&self) -> Result<(), String> {
        let text = fs::read_to_string(&self.root).map_err(|error| about(&self.root, error))?;
        for (attribute, why) in
            [("no_std", "std's start and rt0's exclude each other"), ("no_main", "rt0 calls main, not the compiler")]
        {
            if !text.contains(attribute) {
                return Err(format!(
                    "{} has no `#![{attribute}]`, and is linked on rt0: {why}. Add the line; or, if this is a program that \
                     uses std, name those on rt0 in build.rs: rt0_build::Program::new().bin(\"name\").link()",
                    self.root.display()
                ));
            }
        }
        // Not an error: a macro of the package's own may expand to it.
        if !text.contains("entry!") {
            let root = self.root.display();
            println!(
                "cargo::warning=rt0: {root} has no `rt0::entry!(main);`, which brings _start and the panic handler"
            );
        }
        Ok(())
    }
}

impl Table<'_> {
    /// The value behind `key =`, without quotes.
    fn value(&self, key: &str) -> Option<&str> {
        self.lines.iter().find_map(|line| {
            let (name, value) = line.split_once('=')?;
            let value = value.split('#').next().unwrap_or_default().trim();
            (name.trim() == key).then(|| value.trim_matches(['"', '\'']))
        })
    }
}

/// Splits a manifest at its headers.
fn tables(manifest: &str) -> Vec<Table<'_>> {
    let mut tables = vec![Table { header: "", lines: Vec::new() }];
    for line in manifest.lines().map(str::trim) {
        match (line.starts_with('['), tables.last_mut()) {
            (false, Some(table)) => table.lines.push(line),
            _ => tables.push(Table { header: line.split('#').next().unwrap_or_default().trim(), lines: Vec::new() }),
        }
    }
    tables
}

/// The programs that cargo finds in a folder: `NAME.rs` and `NAME/main.rs`.
fn roots(folder: &Path) -> Vec<Bin> {
    let mut bins = Vec::new();
    for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
        let root = if path.is_dir() { path.join("main.rs") } else { path.clone() };
        let is_rust = root.extension().is_some_and(|extension| extension == "rs") && root.exists();
        if let (true, Some(name)) = (is_rust, path.file_stem()) {
            bins.push(Bin { name: name.to_string_lossy().into_owned(), root });
        }
    }
    bins.sort_by(|a, b| a.name.cmp(&b.name));
    bins
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A package with these files, in a folder of the test's own.
    fn package(test: &str, manifest: &str, files: &[&str]) -> Package {
        let folder = std::env::temp_dir().join(format!("rt0-build-{}-{test}", std::process::id()));
        let write = |file: &str, text: &str| {
            let path = folder.join(file);
            fs::create_dir_all(path.parent().expect("a file in a folder")).expect("a folder of our own");
            fs::write(path, text).expect("a file of our own");
        };
        write("Cargo.toml", manifest);
        files.iter().for_each(|file| write(file, "#![no_std]\n#![no_main]\n"));
        let package = Package::read(&folder).expect("a package");
        fs::remove_dir_all(&folder).expect("a folder of our own");
        package
    }

    fn names(package: &Package) -> Vec<&str> {
        package.bins.iter().map(|bin| bin.name.as_str()).collect()
    }

    #[test]
    fn programs_are_found_by_the_names_of_files() {
        let files = ["src/main.rs", "src/bin/a.rs", "src/bin/b/main.rs", "src/bin/c/part.rs", "src/lib.rs"];
        let found = package("files", "[package]\nname = \"p\"\n", &files);
        assert_eq!((names(&found), found.has_examples), (vec!["p", "a", "b"], false));
    }

    #[test]
    fn programs_are_found_in_the_manifest() {
        let manifest = "[package] # ours\nname = 'p' # short\nautobins = false\n[[bin]]\nname = \"x\"\npath = \"y.rs\"\n\
                        [[example]]\nname = \"e\"\n";
        let found = package("manifest", manifest, &["src/main.rs", "src/bin/a.rs", "y.rs"]);
        assert_eq!((names(&found), found.has_examples), (vec!["x"], true));
        let found = package(
            "twice",
            "[package]\nname = \"p\"\n[[bin]]\nname = \"q\"\npath = \"src/main.rs\"",
            &["src/main.rs"],
        );
        assert_eq!(names(&found), ["q"]);
    }

    #[test]
    fn a_library_has_none() {
        let found =
            package("library", "[package]\nname = \"p\"\nautoexamples = false\n", &["src/lib.rs", "examples/e.rs"]);
        assert_eq!((names(&found), found.has_examples), (vec![], false));
    }
}
