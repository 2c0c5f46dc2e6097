//! Rules about one file, or about the names in the root.

use super::Source;

/// About four files in five of code that is easy to enter are shorter than this.
const SOFT_LIMIT: usize = 300;
const HARD_LIMIT: usize = 500;
/// A registry says why it is long on its second line.
const EXCUSE: &str = "// tidy: long, because ";

const ROOT: &[&str] = &[
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "cluster-common",
    "cluster-ebpf",
    "cluster-lab",
    "cluster-user",
    "docs",
    "target",
    "tests",
    "xtask",
];

/// The first thing a reader sees is one sentence about what the file is.
pub(super) fn begins_with_what_it_is(source: &Source<'_>) -> Vec<String> {
    let said = source.text.lines().next().and_then(|line| line.strip_prefix("//! "));
    match said {
        Some(sentence) if !sentence.trim().is_empty() => Vec::new(),
        Some(_) | None => {
            vec![format!("{}:1: does not begin with `//!` and a sentence", source.path)]
        }
    }
}

/// A file over the hard limit says why, or is split.
pub(super) fn is_short(source: &Source<'_>) -> Vec<String> {
    let lines = source.text.lines().count();
    if lines <= HARD_LIMIT || is_excused(source) {
        return Vec::new();
    }
    vec![format!("{}: {lines} lines, more than {HARD_LIMIT}", source.path)]
}

/// Long but allowed: worth knowing, no problem.
pub(super) fn remark_on_length(source: &Source<'_>) -> Option<String> {
    let lines = source.text.lines().count();
    (lines > SOFT_LIMIT).then(|| format!("{}: {lines} lines, more than {SOFT_LIMIT}", source.path))
}

/// A test that does not run, or that may fail anywhere, proves nothing.
pub(super) fn skips_no_test(source: &Source<'_>) -> Vec<String> {
    let attributes = [concat!("#[", "ignore"), concat!("#[", "should_panic")];
    lines_with(source, |line| {
        let found =
            attributes.iter().find(|attribute| line.trim_start().starts_with(**attribute))?;
        Some(format!("has `{found}]`"))
    })
}

/// What is left to do has an issue where it can be found.
pub(super) fn leaves_nothing_to_do(source: &Source<'_>) -> Vec<String> {
    let mark = concat!("TO", "DO");
    lines_with(source, |line| {
        let (_, after) = line.split_once(mark)?;
        let number = after.strip_prefix("(#").and_then(|rest| rest.split_once(')'));
        let has_issue = number.is_some_and(|(digits, _)| digits.parse::<u32>().is_ok());
        (!has_issue).then(|| format!("has a {mark} without an issue, as in `{mark}(#12)`"))
    })
}

/// What stands in the root is what a newcomer has to take in first.
pub(super) fn root_holds_agreed_names(names: &[String]) -> Vec<String> {
    let stray = |name: &&String| !name.starts_with('.') && !ROOT.contains(&name.as_str());
    names
        .iter()
        .filter(stray)
        .map(|name| format!("{name}: not an agreed name in the root"))
        .collect()
}

fn is_excused(source: &Source<'_>) -> bool {
    source.text.lines().nth(1).is_some_and(|line| line.starts_with(EXCUSE))
}

fn lines_with(source: &Source<'_>, fault: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let numbered = source.text.lines().zip(1..);
    numbered
        .filter_map(|(line, number)| Some(format!("{}:{number}: {}", source.path, fault(line)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_what_it_is() {
        assert!(broken(begins_with_what_it_is, "use std::fs;\n"));
        assert!(broken(begins_with_what_it_is, "//! \n"));
        assert!(broken(begins_with_what_it_is, ""));
        assert!(!broken(begins_with_what_it_is, "//! Slots of a group.\n"));
    }

    #[test]
    fn a_long_file_is_split_or_says_why() {
        let long = "\n".repeat(HARD_LIMIT);
        assert!(broken(is_short, &format!("//! Flags.\n{long}")));
        assert!(!broken(is_short, &format!("//! Flags.\n{EXCUSE}it is a registry\n{long}")));
        assert!(!broken(is_short, &"\n".repeat(HARD_LIMIT)));
    }

    #[test]
    fn a_longish_file_is_listed() {
        let remark = |lines: usize| remark_on_length(&source(&"\n".repeat(lines)));
        assert!(remark(SOFT_LIMIT).is_none());
        assert!(remark(SOFT_LIMIT + 1).is_some());
    }

    #[test]
    fn no_test_is_skipped() {
        assert!(broken(skips_no_test, concat!("    #[", "ignore]\n")));
        assert!(broken(skips_no_test, concat!("#[", "ignore = \"slow\"]\n")));
        assert!(broken(skips_no_test, concat!("#[", "should_panic]\n")));
        assert!(!broken(skips_no_test, "#[test]\n"));
    }

    #[test]
    fn what_is_left_to_do_has_an_issue() {
        assert!(broken(leaves_nothing_to_do, concat!("// TO", "DO: later\n")));
        assert!(broken(leaves_nothing_to_do, concat!("// TO", "DO(#): later\n")));
        assert!(!broken(leaves_nothing_to_do, concat!("// TO", "DO(#12): later\n")));
    }

    #[test]
    fn the_root_holds_what_was_agreed() {
        let names = ["README.md", ".ci", "notes.txt"].map(str::to_owned);
        assert_eq!(root_holds_agreed_names(&names), ["notes.txt: not an agreed name in the root"]);
    }

    fn broken(rule: impl Fn(&Source<'_>) -> Vec<String>, text: &str) -> bool {
        !rule(&source(text)).is_empty()
    }

    fn source(text: &str) -> Source<'_> {
        Source { path: "a.rs", text }
    }
}
