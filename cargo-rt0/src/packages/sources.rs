//! The machine's own package sources, reduced to what rt0 needs of them.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::say;

/// The machine's own sources, in apt's newer form (stanzas of `Field: value`).
pub(super) fn machine_sources() -> Result<String> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    match fs::read_dir("/etc/apt/sources.list.d") {
        Ok(folder) => files.extend(folder.flatten().map(|entry| entry.path())),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => say!("cannot read the sources in /etc/apt/sources.list.d, so they are left out: {error}"),
    }
    let mut stanzas = String::new();
    for file in files {
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => {
                say!("cannot read the sources in {}, so they are left out: {error}", file.display());
                continue;
            }
        };
        match file.extension().and_then(|e| e.to_str()) {
            Some("sources") => stanzas.push_str(&text),
            Some("list") => text.lines().filter_map(stanza_of_line).for_each(|s| stanzas.push_str(&s)),
            _ => {}
        }
        stanzas.push_str("\n\n");
    }
    if stanzas.trim().is_empty() {
        bail!("there are no package sources in /etc/apt: this is no Debian, or a bare one");
    }
    Ok(stanzas)
}

/// `deb [signed-by=K] URI SUITE COMPONENT…` as a stanza.
fn stanza_of_line(line: &str) -> Option<String> {
    let mut rest = line.trim().strip_prefix("deb ")?.trim();
    let mut fields = String::new();
    if let Some(bracket) = rest.strip_prefix('[') {
        let (options, after) = bracket.split_once(']')?;
        for (name, value) in options.split_whitespace().filter_map(|o| o.split_once('=')) {
            match name {
                "signed-by" => fields += &format!("Signed-By: {value}\n"),
                "trusted" => fields += &format!("Trusted: {value}\n"),
                _ => {}
            }
        }
        rest = after.trim();
    }
    let mut words = rest.split_whitespace();
    let (uri, suite) = (words.next()?, words.next()?);
    let components: Vec<_> = words.collect();
    Some(format!("\nTypes: deb\nURIs: {uri}\nSuites: {suite}\nComponents: {}\n{fields}\n", components.join(" ")))
}

/// Of the machine's stanzas, those of the distribution itself, with the backports suite beside the
/// main one.
pub(super) fn private_sources(stanzas: &str, codename: &str) -> String {
    let kinds = ["", "-updates", "-security", "-backports"];
    let ours = |suite: &&str| suite.strip_prefix(codename).is_some_and(|kind| kinds.contains(&kind));
    let mut out = String::new();
    let lines: Vec<&str> = stanzas.lines().filter(|line| !line.starts_with('#')).collect();
    for stanza in lines.split(|line| line.trim().is_empty()) {
        let field =
            |name: &str| stanza.iter().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')).unwrap_or("").trim();
        let mut suites: Vec<_> = field("Suites").split_whitespace().filter(ours).map(str::to_string).collect();
        let has = |name: &str, word: &str| field(name).split_whitespace().any(|w| w == word);
        // Others use the distribution's suite names for their own archives, but not its component.
        if suites.is_empty() || !has("Types", "deb") || !has("Components", "main") || has("Enabled", "no") {
            continue;
        }
        let backports = format!("{codename}-backports");
        if suites.iter().any(|s| s == codename) && !suites.contains(&backports) {
            suites.push(backports);
        }
        for line in stanza {
            match line.split_once(':') {
                Some(("Types", _)) => out.push_str("Types: deb"),
                Some(("Suites", _)) => out += &format!("Suites: {}", suites.join(" ")),
                _ => out.push_str(line), // Signed-By may hold a whole key, over many lines.
            }
            out.push('\n');
        }
        out.push('\n');
    }
    out
}

/// The machine's own stanza for the distribution, with another suite in it. Debian's keys sign all
/// suites of a mirror.
pub(super) fn foreign_source(stanzas: &str, codename: &str, suite: &str) -> Option<String> {
    let own = private_sources(stanzas, codename);
    let stanza = own.split("\n\n").find(|stanza| {
        let suites = stanza.lines().find_map(|line| line.strip_prefix("Suites:")).unwrap_or_default();
        suites.split_whitespace().any(|name| name == codename)
    })?;
    let line = |line: &str| match line.split_once(':') {
        Some(("Suites", _)) => format!("Suites: {suite}\n"),
        Some(("Components", _)) => "Components: main\n".to_string(),
        // The machine's own; here another is asked for.
        Some(("Architectures", _)) => String::new(),
        _ => format!("{line}\n"),
    };
    Some(stanza.lines().map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_of_others_are_left_out_and_backports_come_in() {
        let stanzas = "# a comment\nTypes: deb deb-src\nURIs: http://mirror/debian\nSuites: bookworm bookworm-updates\n\
                       Components: main\nSigned-By:\n -----BEGIN\n .\n\n\
                       Types: deb\nURIs: http://other\nSuites: stable\n";
        let ours = private_sources(stanzas, "bookworm");
        assert!(ours.contains("Types: deb\nURIs: http://mirror/debian\n"), "{ours}");
        assert!(ours.contains("Suites: bookworm bookworm-updates bookworm-backports\n"), "{ours}");
        assert!(ours.contains("Signed-By:\n -----BEGIN\n .\n"), "{ours}");
        assert!(!ours.contains("other"), "{ours}");
    }

    #[test]
    fn another_suite_comes_from_the_mirror_and_with_the_keys_of_the_machines_own() {
        let stanzas = "Types: deb\nURIs: http://other\nSuites: bookworm-security\nComponents: main\n\n\
                       Types: deb\nURIs: http://mirror/debian\nSuites: bookworm bookworm-updates\n\
                       Components: main contrib\nArchitectures: amd64\nSigned-By: /k.gpg\n";
        let ours = foreign_source(stanzas, "bookworm", "sid").expect("there is a mirror");
        let expected = "Types: deb\nURIs: http://mirror/debian\nSuites: sid\nComponents: main\nSigned-By: /k.gpg\n";
        assert_eq!(ours, expected);
        assert_eq!(foreign_source(stanzas, "trixie", "sid"), None);
    }

    #[test]
    fn one_line_sources_become_stanzas() {
        let line = "deb [arch=amd64 signed-by=/k.gpg] http://mirror/debian trixie main contrib";
        let ours = private_sources(&stanza_of_line(line).expect("a source"), "trixie");
        for part in ["Suites: trixie trixie-backports\n", "Components: main contrib\n", "Signed-By: /k.gpg\n"] {
            assert!(ours.contains(part), "{ours}");
        }
        assert!(stanza_of_line("# deb http://mirror/debian trixie main").is_none());
        assert!(stanza_of_line("deb-src http://mirror/debian trixie main").is_none());
    }
}
