//! Imports: every path of a source file that begins with the name of a crate.

/// Paths such as `crate::datapath::Mode`, from `use` trees and from code alike, comments left out.
pub(super) fn paths(text: &str, crates: &[&str]) -> Vec<String> {
    let words = words(text);
    let mut found = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let begins = at == 0 || words[at - 1] != "::";
        if begins && crates.contains(word) && words.get(at + 1) == Some(&"::") {
            expand((*word).to_owned(), &words[at + 1..], &mut found);
        }
    }
    found
}

/// Follows a path after its first name, into the braces of a `use` tree; returns how many words it took.
fn expand(path: String, words: &[&str], found: &mut Vec<String>) -> usize {
    if words.first() != Some(&"::") {
        found.push(path);
        return 0;
    }
    match words.get(1) {
        Some(&"{") => {
            let mut at = 2;
            while let Some(&word) = words.get(at) {
                match word {
                    "}" => return at + 1,
                    "," => at += 1,
                    "as" => at += 2,
                    name => at += 1 + expand(format!("{path}::{name}"), &words[at + 1..], found),
                }
            }
            at
        }
        Some(name) if is_name(name) || *name == "*" => {
            2 + expand(format!("{path}::{name}"), &words[2..], found)
        }
        Some(_) | None => {
            found.push(path);
            1
        }
    }
}

/// Names and the punctuation that paths are made of; enough of a lexer for code that is formatted.
fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for line in text.lines().map(without_comment) {
        let mut rest = line;
        while let Some(first) = rest.chars().next() {
            let length = if is_name_char(first) {
                rest.find(|c: char| !is_name_char(c)).unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            let (word, after) = rest.split_at(length);
            if !word.trim().is_empty() {
                words.push(word);
            }
            rest = after;
        }
    }
    words
}

fn without_comment(line: &str) -> &str {
    line.split_once("//").map_or(line, |(code, _)| code)
}

fn is_name(word: &str) -> bool {
    word.chars().all(is_name_char)
}

fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_every_path_in_it() {
        let text = "use crate::{\n    config::{name::Name as N, spec::*},\n    id::AppId,\n};\n";
        let expected = ["crate::config::name::Name", "crate::config::spec::*", "crate::id::AppId"];
        assert_eq!(paths(text, &["crate"]), expected);
    }

    #[test]
    fn paths_in_code_count_and_comments_do_not() {
        let text = "// crate::state\nfn f(x: crate::id::AppId) -> a::crate::b { cluster_common::slot::MAX }";
        let expected = ["crate::id::AppId", "cluster_common::slot::MAX"];
        assert_eq!(paths(text, &["crate", "cluster_common"]), expected);
    }
}
