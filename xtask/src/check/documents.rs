//! What the repository's documents must list.

use super::Finding;
use cargo_rt0::targets;

/// The guide to a new port.
pub(super) const GUIDE: &str = "arch/README.md";

/// The README's table contains every tested triple, under the name of its first row.
pub(super) fn machine_rows(readme: &str) -> Vec<Finding> {
    let rows = targets::machines().into_iter().map(|target| format!("| `{}` | {} (", target.name, target.triple));
    let missing = rows.filter(|row| !readme.lines().any(|line| line.starts_with(row)));
    let finding = |row| {
        let what = format!("no row of the table of machines begins with `{row}`");
        Finding { file: "README.md".to_string(), line: 1, what }
    };
    missing.map(finding).collect()
}

/// The guide to a new port gives the source of each member of the trait: a row of its table starts
/// with the member.
pub(super) fn member_sources(guide: &str, order: &[&str]) -> Vec<Finding> {
    let cells: Vec<_> = guide.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next()).collect();
    let missing = |name: &&&str| {
        let first = if name.starts_with("syscall") { "syscall0" } else { name };
        !cells.iter().any(|cell| cell.contains(&format!("`{first}`")))
    };
    let finding = |name: &&str| {
        let what = format!("no row of the table of members names `{name}`, which the trait in src/arch.rs has");
        Finding { file: GUIDE.to_string(), line: 1, what }
    };
    order.iter().filter(missing).map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::said;
    use super::*;

    #[test]
    fn every_machine_has_a_row_in_the_readme() {
        let rows = targets::machines().into_iter().map(|t| format!("| `{}` | {} (2) | abi |", t.name, t.triple));
        let rows: Vec<_> = rows.collect();
        assert!(machine_rows(&rows.join("\n")).is_empty());
        let found = said(machine_rows(&rows[1..].join("\n")));
        assert!(found.len() == 1 && found[0].contains("`x86_64`"), "{found:?}");
    }

    #[test]
    fn every_member_has_a_row_in_the_guide() {
        let guide = "| member | source |\n|---|---|\n| `syscall0` to `syscall6` | `B` |\n| `A` | x |\n";
        let found = said(member_sources(guide, &["syscall0", "syscall3", "A", "B"]));
        assert!(found.len() == 1 && found[0].contains("`B`"), "{found:?}");
    }
}
