//! Spans of time, as people write them: `500us`, `2ms`, `10s`.

use std::{fmt, str::FromStr, time::Duration};

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::refusal::Refusal;

/// A span of time, never negative, in whole nanoseconds.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct Span(pub Duration);

impl Span {
    /// So many milliseconds.
    pub const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// In seconds.
    pub fn seconds(self) -> f64 {
        self.0.as_secs_f64()
    }
}

impl FromStr for Span {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let wrong = || {
            Refusal::usage(format!("`{text}` is no span of time"))
                .hint("a number and its unit, such as 500us, 2ms, 10s, or 1m")
        };
        let span: SignedDuration = text.trim().parse().map_err(|_unread| wrong())?;
        Duration::try_from(span).map(Self).map_err(|_negative| wrong())
    }
}

impl TryFrom<String> for Span {
    type Error = Refusal;

    fn try_from(text: String) -> Result<Self, Refusal> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        for (unit, name) in [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us")] {
            if nanos >= unit && nanos.is_multiple_of(unit) {
                return write!(f, "{}{name}", nanos / unit);
            }
        }
        if nanos == 0 { f.write_str("0s") } else { write!(f, "{nanos}ns") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_read() {
        for (text, shown) in
            [("2ms", "2ms"), ("1.5 s", "1500ms"), ("1m", "60s"), ("500us", "500us")]
        {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.to_string(), shown);
            assert_eq!(shown.parse::<Span>().unwrap(), span);
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in ["", "soon", "5", "-2ms", "2 parsecs"] {
            let refused = text.parse::<Span>().unwrap_err();
            assert!(refused.message.contains(text) && refused.hint.is_some(), "{text}");
        }
    }
}
