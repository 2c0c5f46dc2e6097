//! Names of apps and namespaces: what is refused, and why.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Longest name, in bytes: a file name (255) less the longest suffix of a log file.
pub const MAX_NAME: usize = 200;

/// A name of an app or a namespace: any UTF-8 text that can be part of a file name and be typed as a target.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// What stands in a name's place where none has been read yet.
    pub(super) const fn unread() -> Self {
        Self(String::new())
    }

    /// The namespace of apps for which none was typed.
    pub(super) fn usual_namespace() -> Self {
        Self("default".to_owned())
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        check(&text).map(|()| Self(text))
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        check(text).map(|()| Self(text.to_owned()))
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameError {
    name: String,
    reason: &'static str,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "name `{}` {}", self.name.escape_default(), self.reason)
    }
}

impl std::error::Error for NameError {}

fn check(text: &str) -> Result<(), NameError> {
    let reason = if text.trim().is_empty() {
        "is empty"
    } else if text.len() > MAX_NAME {
        "is longer than 200 bytes"
    } else if text.chars().any(char::is_control) {
        "contains a control character"
    } else if text.contains('/') {
        "contains a slash, which would make it a path"
    } else if text == "." || text == ".." {
        "is a folder"
    } else if text == "all" {
        "means every app"
    } else if text.starts_with('-') {
        "begins with a dash, as an option does"
    } else if text.bytes().all(|byte| byte.is_ascii_digit()) {
        "is a number, which is an id"
    } else if text.contains(':') {
        "contains a colon, which separates an instance number"
    } else {
        return Ok(());
    };
    let mut name = text.to_owned();
    if name.len() > MAX_NAME {
        name = name.chars().take(40).chain("…".chars()).collect();
    }
    Err(NameError { name, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_and_any_script_are_names() {
        for text in ["app", "my app", "приложение", "app.js", "a-b_c", "日本"] {
            assert_eq!(text.parse::<Name>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn what_could_be_mistaken_is_refused_with_its_reason() {
        for (text, reason) in [
            ("", "is empty"),
            ("  ", "is empty"),
            ("a/b", "slash"),
            ("a\nb", "control"),
            ("\u{1b}[31m", "control"),
            ("..", "folder"),
            ("all", "every app"),
            ("-i", "option"),
            ("12", "id"),
            ("app:0", "colon"),
        ] {
            let error = text.parse::<Name>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
        assert!("x".repeat(201).parse::<Name>().is_err());
        let long = "x".repeat(1 << 20).parse::<Name>().unwrap_err().to_string();
        assert!(long.len() < 300, "an error does not repeat a megabyte");
    }
}
