//! Durations as typed: `1600` (milliseconds, as PM2 means it), `500ms`, `10s`, `1.5s`, `1m`, `2h`.

use std::{fmt, time::Duration};

/// Longest duration anything can be given: beyond it an option is a mistake, and sums stay far from overflow.
pub const MAX: Duration = Duration::from_hours(366 * 24);

/// Units, longest first, in milliseconds.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads a duration.
///
/// # Errors
/// When it is no number with an optional unit, or longer than [`MAX`].
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let bad = || DurationError(text.escape_default().take(40).collect());
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale = match unit {
        "" => 1,
        unit => UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?.1,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if fraction.is_empty() || fraction.len() > 3 || fraction.contains('.') {
        return Err(bad());
    }
    let whole = whole.parse::<u64>().ok().and_then(|n| n.checked_mul(scale)).ok_or_else(bad)?;
    let thousandths = format!("{fraction:0<3}").parse::<u64>().ok().ok_or_else(bad)?;
    let millis = whole.checked_add(thousandths * scale / 1000).ok_or_else(bad)?;
    Some(Duration::from_millis(millis)).filter(|duration| *duration <= MAX).ok_or_else(bad)
}

/// Writes a duration the way [`parse`] reads it, in its largest whole unit.
pub fn format(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let fits = |unit: u64| millis >= unit && millis.is_multiple_of(unit);
    UNITS
        .iter()
        .find(|(_, unit)| fits(*unit))
        .map_or_else(|| "0ms".to_owned(), |(name, unit)| format!("{}{name}", millis / unit))
}

/// Not a duration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DurationError(String);

impl fmt::Display for DurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is no duration: expected milliseconds, or a number with ms, s, m, h or d, up to a year",
            self.0
        )
    }
}

impl std::error::Error for DurationError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_numbers_are_milliseconds_and_units_are_themselves() {
        for (text, millis) in [
            ("1600", 1600),
            ("0", 0),
            ("500ms", 500),
            ("10s", 10_000),
            ("1.5s", 1500),
            ("0.25s", 250),
            ("1m", 60_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(parse(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in
            ["", "s", "-1", "+1", "1 s", "1e3", ".", "1.", ".5s", "1..2s", "99999999d", "5x", "１s"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse(&"9".repeat(1 << 20)).unwrap_err().to_string().len() < 200);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(millis in 0..=366u64 * 86_400_000) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse(&format(duration)).unwrap(), duration);
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            drop(parse(&text));
        }

        #[test]
        fn no_number_panics(text in "[0-9]{0,30}\\.?[0-9]{0,5}(ms|s|m|h|d)?") {
            drop(parse(&text));
        }
    }
}
