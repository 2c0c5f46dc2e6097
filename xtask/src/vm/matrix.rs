//! Matrix: what works on which kernel, as the documentation has it and as it was found.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::Context as _;

use super::{kernel::WANTED, report::Feature};
use crate::step;

/// The document, relative to the workspace, and what the table in it is between.
const DOCUMENT: &str = "docs/kernels.md";
const BEGIN: &str = "<!-- the following table is written by `cargo xtask vm --update` -->\n";
const END: &str = "<!-- the end of the table -->";
const YES: &str = "yes";
const NO: &str = "no";

/// Whether something works, by what it is and by kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Matrix {
    /// In the order in which `doctor` has them.
    features: Vec<String>,
    works: BTreeMap<(String, String), bool>,
}

impl Matrix {
    /// What the documentation says.
    pub(super) fn read() -> anyhow::Result<Self> {
        Self::parse(&fs::read_to_string(path()).context("failed to read docs/kernels.md")?)
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let (_, table, _) = split(text)?;
        let mut lines = table.lines().map(cells);
        let mut matrix = Self::default();
        let Some(kernels) = lines.next() else { return Ok(matrix) };
        for cells in lines.skip(1) {
            let Some((feature, works)) = cells.split_first() else { continue };
            matrix.features.push((*feature).to_owned());
            // An empty cell says nothing of that kernel.
            let said = kernels.iter().skip(1).zip(works).filter(|(_, works)| !works.is_empty());
            for (kernel, works) in said {
                matrix.works.insert(((*feature).to_owned(), (*kernel).to_owned()), *works == YES);
            }
        }
        Ok(matrix)
    }

    /// Takes over what was found on a kernel, and forgets what was said about that before.
    pub(super) fn replace(&mut self, kernel: &str, found: &[Feature]) {
        self.works.retain(|(_, other), _| other != kernel);
        for Feature { name, ok, .. } in found {
            if !self.features.contains(name) {
                self.features.push(name.clone());
            }
            self.works.insert((name.clone(), kernel.to_owned()), *ok);
        }
        let is_known = |feature: &String| self.works.keys().any(|(other, _)| other == feature);
        let features = self.features.iter().filter(|feature| is_known(feature)).cloned().collect();
        self.features = features;
    }

    /// What the documentation says otherwise about a kernel than was found.
    pub(super) fn differences(&self, kernel: &str, found: &[Feature]) -> Vec<String> {
        let mut found_alone = Self::default();
        found_alone.replace(kernel, found);
        let mut differences = Vec::new();
        for ((feature, _), works) in &found_alone.works {
            let documented = self.works.get(&(feature.clone(), kernel.to_owned()));
            if documented != Some(works) {
                let says = documented.map_or("nothing", |works| if *works { YES } else { NO });
                let is = if *works { YES } else { NO };
                differences.push(format!(
                    "{DOCUMENT} says {says} of “{feature}” on {kernel}, and it is {is}"
                ));
            }
        }
        for (feature, _) in self.works.keys().filter(|(_, other)| other == kernel) {
            if !found_alone.features.contains(feature) {
                differences
                    .push(format!("{DOCUMENT} has “{feature}”, of which doctor says nothing"));
            }
        }
        differences
    }

    /// Writes it into the documentation.
    pub(super) fn write(&self) -> anyhow::Result<PathBuf> {
        let text = fs::read_to_string(path())?;
        let (before, _, after) = split(&text)?;
        fs::write(path(), format!("{before}{BEGIN}{}{END}{after}", self.table()))?;
        Ok(path())
    }

    fn table(&self) -> String {
        let kernels = WANTED.map(|wanted| wanted.name);
        let row = |cells: &[&str]| format!("| {} |\n", cells.join(" | "));
        let mut table = row(&[&["what is tried"], kernels.as_slice()].concat());
        table.push_str("|---|");
        table.push_str(&"---|".repeat(kernels.len()));
        table.push('\n');
        for feature in &self.features {
            let works = kernels.map(|kernel| {
                let works = self.works.get(&(feature.clone(), kernel.to_owned()));
                works.map_or("", |works| if *works { YES } else { NO })
            });
            table += &row(&[&[feature.as_str()], works.as_slice()].concat());
        }
        table
    }
}

fn path() -> PathBuf {
    step::root().join(DOCUMENT)
}

/// What is before the table, the table, and what is behind it.
fn split(text: &str) -> anyhow::Result<(&str, &str, &str)> {
    let found = text.split_once(BEGIN).and_then(|(before, rest)| {
        let (table, after) = rest.split_once(END)?;
        Some((before, table, after))
    });
    found.with_context(|| format!("{DOCUMENT} has no place for the table"))
}

/// The cells of a row.
fn cells(line: &str) -> Vec<&str> {
    line.trim().trim_matches('|').split('|').map(str::trim).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let mut matrix = Matrix::default();
        matrix.replace("5.10", &[feature("a ring buffer", true), feature("cgroup.kill", false)]);
        matrix.replace("6.1", &[feature("a ring buffer", true), feature("cgroup.kill", true)]);
        let text = format!("# Kernels\n{BEGIN}{}{END}\n", matrix.table());
        let read = Matrix::parse(&text).unwrap();
        assert_eq!(read.table(), matrix.table());
        assert!(text.contains("| cgroup.kill | no | yes |  |  |"), "{text}");
    }

    #[test]
    fn a_document_that_is_wrong_is_found_out() {
        let mut matrix = Matrix::default();
        matrix.replace("6.1", &[feature("a", true), feature("b", true)]);
        assert_eq!(matrix.differences("6.1", &[feature("a", true), feature("b", true)]), [""; 0]);
        let differences = matrix.differences("6.1", &[feature("a", false), feature("c", true)]);
        assert_eq!(
            differences,
            [
                "docs/kernels.md says yes of “a” on 6.1, and it is no",
                "docs/kernels.md says nothing of “c” on 6.1, and it is yes",
                "docs/kernels.md has “b”, of which doctor says nothing",
            ]
        );
    }

    #[test]
    fn what_nobody_has_any_more_is_forgotten() {
        let mut matrix = Matrix::default();
        matrix.replace("6.1", &[feature("a", true)]);
        matrix.replace("6.1", &[feature("b", true)]);
        assert_eq!(matrix.features, ["b"]);
    }

    fn feature(name: &str, ok: bool) -> Feature {
        let (detail, hint, needed_for) = (None, None, "kernel mode".to_owned());
        Feature { name: name.to_owned(), ok, detail, hint, needed_for }
    }
}
