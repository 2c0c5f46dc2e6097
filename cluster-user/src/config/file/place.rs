//! Where in a file something stands, and what is wrong there.

use std::fmt;

use crate::config::refusal::Refusal;

/// A place in a text; both numbers begin at 1, as editors count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Its line.
    pub line: usize,
    /// Its column, in characters.
    pub column: usize,
}

/// Finds places from offsets in bytes.
pub(super) struct Lines<'a> {
    text: &'a str,
    /// Where each line begins.
    begins: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        let after = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let begins = std::iter::once(0).chain(after.map(|(offset, _)| offset + 1)).collect();
        Self { text, begins }
    }

    pub(super) fn place(&self, offset: usize) -> Place {
        let line = self.begins.partition_point(|begin| *begin <= offset);
        let begin = line.checked_sub(1).and_then(|line| self.begins.get(line)).copied();
        let before = self.text.get(begin.unwrap_or(0)..offset).unwrap_or_default();
        Place { line: line.max(1), column: before.chars().count() + 1 }
    }
}

/// What is wrong with a file, before it is said which file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// Where, if that is known.
    pub place: Option<Place>,
    /// A lowercase fragment.
    pub message: String,
    /// The next step.
    pub hint: Option<String>,
}

impl Problem {
    pub(super) fn new(place: Option<Place>, message: impl Into<String>) -> Self {
        Self { place, message: message.into(), hint: None }
    }

    #[must_use]
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same, with its place unless that is known already.
    #[must_use]
    pub(super) fn at(self, place: Option<Place>) -> Self {
        Self { place: self.place.or(place), ..self }
    }

    /// The same, said about the file `name`.
    pub(super) fn of(self, name: &str) -> Refusal {
        let Self { place, message, hint } = self;
        let refusal = Refusal::new(match place {
            Some(place) => format!("{name}:{place}: {message}"),
            None => format!("{name}: {message}"),
        });
        match hint {
            Some(hint) => refusal.hint(hint),
            None => refusal,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_begin_at_one() {
        let text = "ab\nцd\n\nx";
        let lines = Lines::of(text);
        let place = |what: char| lines.place(text.find(what).unwrap()).to_string();
        assert_eq!([place('a'), place('b'), place('d'), place('x')], ["1:1", "1:2", "2:2", "4:1"]);
        assert_eq!(lines.place(text.len()).to_string(), "4:2");
        assert_eq!(Lines::of("").place(0).to_string(), "1:1");
    }
}
