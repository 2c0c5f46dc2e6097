//! Patterns of files that do not count: as people write them for PM2, names, globs and regular expressions alike.

use std::{fmt, path::Path, str::FromStr};

use globset::{GlobBuilder, GlobMatcher};
use regex::Regex;
use serde::{Deserialize, Serialize};

/// Longest pattern, in bytes.
const LONGEST: usize = 4096;

/// A pattern as it is written. Which kind it is shows in its characters:
///
/// - with `\`, `^`, `$`, `(`, `|` or `+`, or between two slashes: a regular expression, looked for anywhere in the path;
/// - with `*`, `?`, `[` or `{`: a glob, of a name when it has no slash, else of a path from the working folder;
/// - otherwise a name, wherever it occurs, or with a slash a path from the working folder, and all below it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(String);

impl Pattern {
    /// Names that never count below a watched folder: what begins with a dot, and what is installed there.
    pub const NEVER: [&str; 2] = [".*", "node_modules"];

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() || text.len() > LONGEST || text.contains('\0') {
            let why = format!("it is not of 1 to {LONGEST} characters");
            return Err(PatternError { text: text.escape_default().take(40).collect(), why });
        }
        Matcher::new(text)?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.0
    }
}

/// All patterns of an app, ready to be asked.
#[derive(Clone, Debug)]
pub struct Patterns(Vec<Matcher>);

#[derive(Clone, Debug)]
enum Matcher {
    /// Anywhere in the path.
    Regex(Regex),
    /// One name.
    NameGlob(GlobMatcher),
    /// A path from the working folder.
    PathGlob(GlobMatcher),
    Name(String),
    Path(String),
}

impl Patterns {
    /// Those of an app, and those that always hold.
    pub fn new(patterns: &[Pattern]) -> Self {
        let own = patterns.iter().map(Pattern::as_str);
        // Each was tried when it was made.
        Self(own.chain(Pattern::NEVER).filter_map(|text| Matcher::new(text).ok()).collect())
    }

    /// Whether a file or folder does not count, of which it is known that nothing above it is so. `path` is absolute;
    /// `cwd` is the folder that written paths begin at.
    pub fn ignore(&self, path: &Path, cwd: &Path) -> bool {
        let name = path.file_name().unwrap_or_default();
        let relative = path.strip_prefix(cwd).unwrap_or(path);
        self.0.iter().any(|matcher| match matcher {
            Matcher::Regex(regex) => regex.is_match(&path.to_string_lossy()),
            Matcher::NameGlob(glob) => glob.is_match(name),
            Matcher::PathGlob(glob) => glob.is_match(relative) || glob.is_match(path),
            Matcher::Name(known) => name == known.as_str(),
            Matcher::Path(known) => relative == Path::new(known) || path == Path::new(known),
        })
    }
}

impl Matcher {
    fn new(text: &str) -> Result<Self, PatternError> {
        let fail =
            |why: String| PatternError { text: text.escape_default().take(40).collect(), why };
        let is_regex = text.contains(['\\', '^', '$', '(', '|', '+']);
        let is_glob = text.contains(['*', '?', '[', '{']);
        // `/…/` and `/…/i`, as they are written in JavaScript.
        let inner = text.strip_prefix('/').and_then(|rest| {
            let (inner, flags) = rest.rsplit_once('/')?;
            matches!(flags, "" | "i" | "g" | "gi").then_some((inner, flags.contains('i')))
        });
        if is_regex || (inner.is_some() && is_glob) {
            let (expression, any_case) = inner.unwrap_or((text, false));
            return regex::RegexBuilder::new(expression)
                .case_insensitive(any_case)
                .size_limit(1 << 20)
                .build()
                .map(Self::Regex)
                .map_err(|error| fail(last_line(&error.to_string())));
        }
        let plain = text.strip_prefix("./").unwrap_or(text).trim_end_matches('/');
        if is_glob {
            // What is below a folder that does not count is never looked at.
            let whole = plain.strip_suffix("/**").unwrap_or(plain);
            let whole = whole.strip_suffix("/**/*").unwrap_or(whole);
            let glob = GlobBuilder::new(whole).literal_separator(true).build();
            let glob = glob.map_err(|error| fail(error.kind().to_string()))?.compile_matcher();
            return Ok(if whole.contains('/') {
                Self::PathGlob(glob)
            } else {
                Self::NameGlob(glob)
            });
        }
        if plain.is_empty() {
            return Err(fail("it names nothing".to_owned()));
        }
        Ok(if plain.contains('/') {
            Self::Path(plain.to_owned())
        } else {
            Self::Name(plain.to_owned())
        })
    }
}

/// What is wrong, without the picture of where.
fn last_line(text: &str) -> String {
    let line = text.lines().last().unwrap_or_default();
    line.trim_start_matches("error: ").trim().to_owned()
}

/// Not a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError {
    text: String,
    why: String,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no pattern of files: {}", self.text, self.why)
    }
}

impl std::error::Error for PatternError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_globs_and_expressions_are_told_apart() {
        for (pattern, ignored, counted) in [
            ("logs", "logs", "logs.js"),
            ("logs", "a/logs", "a/logs2"),
            ("./public/uploads/", "public/uploads", "uploads"),
            ("*.log", "a/b.log", "a/b.log.js"),
            ("data/*.json", "data/a.json", "data/b/a.json"),
            ("data/**/*.json", "data/b/c/a.json", "a.json"),
            ("tmp/**", "tmp", "tmpl"),
            ("**/*.test.js", "a/b/c.test.js", "a/test.js"),
            ("*.{png,jpg}", "a.jpg", "a.gif"),
            (r"[\/\\]\.", "a/.x", "a/x."),
            (r"\.log$", "x.log", "x.log.1"),
            ("/uploads|cache/", "x/cache/y", "x"),
            ("/[a-c]+x/i", "ABCX", "dx"),
            ("/work/pid", "pid", "x/pid"),
        ] {
            let patterns = Patterns::new(&[pattern.parse().unwrap()]);
            assert!(ignores(&patterns, ignored), "{pattern} ignores {ignored}");
            assert!(!ignores(&patterns, counted), "{pattern} does not ignore {counted}");
        }
    }

    #[test]
    fn what_is_installed_or_hidden_never_counts() {
        let patterns = Patterns::new(&[]);
        for path in [".git", "a/.env", "node_modules", "a/node_modules"] {
            assert!(ignores(&patterns, path), "{path}");
        }
        assert!(!ignores(&patterns, "a/b.js"));
    }

    #[test]
    fn a_pattern_that_cannot_be_read_is_refused_with_a_reason() {
        let error = |text: &str| text.parse::<Pattern>().unwrap_err().to_string();
        assert_eq!(error("(a"), "`(a` is no pattern of files: unclosed group");
        assert!(error("a[").contains("unclosed character class"), "{}", error("a["));
        for text in ["", "/", "./", "x{", "a\0"] {
            assert!(text.parse::<Pattern>().is_err(), "{text:?}");
        }
        assert!(error(&"x".repeat(9000)).len() < 200);
    }

    fn ignores(patterns: &Patterns, path: &str) -> bool {
        patterns.ignore(&Path::new("/work").join(path), Path::new("/work"))
    }
}
