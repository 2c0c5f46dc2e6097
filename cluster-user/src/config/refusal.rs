//! Why something typed cannot be carried out, with the next step.

use std::fmt;

/// What an unfit specification, file or folder is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Decides the exit code.
    pub kind: Kind,
    /// A lowercase fragment that says what is wrong with what.
    pub message: String,
    /// The next step.
    pub hint: Option<String>,
    /// The key of a definition that it is about, where that is known.
    pub about: Option<&'static str>,
}

/// What kind of refusal it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What was typed names something that is not there or not fit.
    Unfit,
    /// What was typed contradicts itself.
    Usage,
    /// Only another user may do that.
    NotPermitted,
}

impl Refusal {
    /// A refusal of something that is not there or not fit.
    pub fn new(message: impl Into<String>) -> Self {
        Self { kind: Kind::Unfit, message: message.into(), hint: None, about: None }
    }

    /// A refusal of something that contradicts itself.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { kind: Kind::Usage, ..Self::new(message) }
    }

    /// A refusal of something that only another user may do.
    pub fn not_permitted(message: impl Into<String>) -> Self {
        Self { kind: Kind::NotPermitted, ..Self::new(message) }
    }

    /// The same, about a key of a definition.
    #[must_use]
    pub fn about(mut self, key: &'static str) -> Self {
        self.about = Some(key);
        self
    }

    /// The same with a next step.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}
