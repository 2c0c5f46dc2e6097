//! `xtask tidy`: the repository's own rules, which clippy cannot see.

mod imports;
mod rules;
mod wall;

use std::{fs, io, path::Path};

use anyhow::Context as _;

use crate::step;

/// One file as the rules see it.
struct Source<'a> {
    /// Relative to the root of the workspace.
    path: &'a str,
    text: &'a str,
}

/// Reports every place where a rule is broken, and is an error when there is one.
pub(crate) fn run() -> anyhow::Result<()> {
    let root = step::root();
    let mut problems = rules::root_holds_agreed_names(&names(root)?);
    let mut paths = Vec::new();
    collect(root, &mut paths).context("failed to walk the workspace")?;
    paths.sort();
    for path in &paths {
        let text = fs::read_to_string(root.join(path))
            .with_context(|| format!("failed to read {path}"))?;
        let source = Source { path, text: &text };
        problems.extend(check(&source));
        if let Some(remark) = rules::remark_on_length(&source) {
            println!("tidy: {remark}");
        }
    }
    for problem in &problems {
        eprintln!("tidy: {problem}");
    }
    anyhow::ensure!(
        problems.is_empty(),
        "{} places break the rules of `xtask tidy`",
        problems.len()
    );
    println!("tidy: {} files keep the rules", paths.len());
    Ok(())
}

fn check(source: &Source<'_>) -> Vec<String> {
    [
        rules::begins_with_what_it_is,
        rules::is_short,
        rules::skips_no_test,
        rules::leaves_nothing_to_do,
        wall::imports_what_it_may,
    ]
    .into_iter()
    .flat_map(|rule| rule(source))
    .collect()
}

fn names(root: &Path) -> anyhow::Result<Vec<String>> {
    let entries = fs::read_dir(root).context("failed to read the root of the workspace")?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

fn collect(folder: &Path, paths: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let path = entry.path();
        if name.to_string_lossy().starts_with('.') || name == "target" {
            continue;
        }
        if entry.file_type()?.is_dir() {
            collect(&path, paths)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let relative = path.strip_prefix(step::root()).unwrap_or(&path);
            paths.push(relative.to_string_lossy().into_owned());
        }
    }
    Ok(())
}
