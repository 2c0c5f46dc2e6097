//! What a command is about: `name | id | name:instance | namespace | all | /regex/`.

use std::fmt;

use regex::Regex;

use crate::id::{AppId, Instance};

/// One target as typed.
#[derive(Clone, Debug)]
pub struct Target {
    text: String,
    meaning: Meaning,
}

#[derive(Clone, Debug)]
enum Meaning {
    All,
    Id(AppId),
    /// Of an app or of a namespace.
    Name,
    /// One worker of the app of that name or id.
    Worker(String, Instance),
    Matching(Regex),
}

impl Target {
    /// Reads one target.
    ///
    /// # Errors
    /// When it is empty or its regular expression is malformed.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        let meaning = if text.is_empty() {
            return Err(TargetError("target is empty".to_owned()));
        } else if text == "all" {
            Meaning::All
        } else if let Some(pattern) = text.strip_prefix('/').and_then(|rest| rest.strip_suffix('/'))
        {
            Meaning::Matching(Regex::new(pattern).map_err(|error| {
                let last = error.to_string().lines().last().unwrap_or_default().trim().to_owned();
                TargetError(format!("target `{text}` is not a regular expression: {last}"))
            })?)
        } else if let Ok(id) = text.parse() {
            Meaning::Id(AppId(id))
        } else if let Some((app, instance)) = text.rsplit_once(':')
            && let Ok(instance) = instance.parse()
        {
            Meaning::Worker(app.to_owned(), Instance(instance))
        } else {
            Meaning::Name
        };
        Ok(Self { text: text.to_owned(), meaning })
    }

    /// As typed.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The app of which it means one worker, as typed.
    pub fn app_of_worker(&self) -> Option<&str> {
        match &self.meaning {
            Meaning::Worker(app, _) => Some(app),
            Meaning::All | Meaning::Id(_) | Meaning::Name | Meaning::Matching(_) => None,
        }
    }

    /// Whether it means every app, none included.
    pub fn is_all(&self) -> bool {
        matches!(self.meaning, Meaning::All)
    }

    /// Whether an app is meant, and how much of it.
    pub fn matches(&self, id: AppId, name: &str, namespace: &str) -> Option<Scope> {
        let whole = match &self.meaning {
            Meaning::All => true,
            Meaning::Id(wanted) => *wanted == id,
            Meaning::Name => self.text == name || self.text == namespace,
            Meaning::Matching(regex) => regex.is_match(name),
            Meaning::Worker(app, instance) => {
                let meant = app == name || app.parse() == Ok(id.0);
                return meant.then_some(Scope::Worker(*instance));
            }
        };
        whole.then_some(Scope::App)
    }
}

/// How much of an app is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of it.
    App,
    /// One worker.
    Worker(Instance),
}

/// Why a text is no target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetError(String);

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TargetError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_finds_its_app() {
        for text in ["web", "3", "all", "shop", "/^w/"] {
            assert_eq!(scope(text), Some(Scope::App), "{text}");
        }
        assert_eq!(scope("web:2"), Some(Scope::Worker(Instance(2))));
        assert_eq!(scope("3:2"), Some(Scope::Worker(Instance(2))));
        for text in ["api", "4", "/x$/", "api:2", "we"] {
            assert_eq!(scope(text), None, "{text}");
        }
    }

    #[test]
    fn a_broken_expression_is_an_error() {
        assert!(Target::parse("/(/").unwrap_err().to_string().contains("regular expression"));
        assert!(Target::parse("").is_err());
    }

    fn scope(text: &str) -> Option<Scope> {
        Target::parse(text).unwrap().matches(AppId(3), "web", "shop")
    }
}
