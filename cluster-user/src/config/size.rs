//! Amounts of memory as typed: `150M`, `1G`, `512K`, `1.5G`, plain bytes; in powers of 1024, as PM2 means them.

use std::fmt;

/// Units in bytes, the largest first.
const UNITS: [(char, u64); 4] = [('T', 1 << 40), ('G', 1 << 30), ('M', 1 << 20), ('K', 1 << 10)];

/// Reads an amount. A unit may be followed by `B` or `iB`, in either case.
///
/// # Errors
/// When it is no number with an optional unit, or more than 2^63 bytes.
pub fn parse(text: &str) -> Result<u64, SizeError> {
    let bad = || SizeError(text.escape_default().take(40).collect());
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = unit.trim_start().to_ascii_uppercase();
    let bare = unit.strip_suffix("IB").or_else(|| unit.strip_suffix('B')).unwrap_or(&unit);
    let scale = match bare {
        "" => 1,
        bare => UNITS.iter().find(|(name, _)| *bare == name.to_string()).ok_or_else(bad)?.1,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if fraction.is_empty() || fraction.len() > 3 || fraction.contains('.') {
        return Err(bad());
    }
    let whole = whole.parse::<u64>().ok().and_then(|n| n.checked_mul(scale)).ok_or_else(bad)?;
    let thousandths = format!("{fraction:0<3}").parse::<u64>().ok().ok_or_else(bad)?;
    let bytes = (scale / 1000 * thousandths) + (scale % 1000 * thousandths / 1000);
    let all = whole.checked_add(bytes).ok_or_else(bad)?;
    Some(all).filter(|all| *all <= 1 << 63).ok_or_else(bad)
}

/// Writes an amount the way [`parse`] reads it, in its largest whole unit.
pub fn format(bytes: u64) -> String {
    let fits = |unit: u64| bytes >= unit && bytes.is_multiple_of(unit);
    let unit = UNITS.iter().find(|(_, unit)| fits(*unit));
    unit.map_or_else(|| bytes.to_string(), |(name, unit)| format!("{}{name}", bytes / unit))
}

/// Writes an amount for people, rounded.
pub fn show(bytes: u64) -> String {
    let Some((name, unit)) = UNITS.iter().find(|(_, unit)| bytes >= *unit) else {
        return format!("{bytes}B");
    };
    let tenths = bytes / (unit / 1024) * 10 / 1024;
    match tenths % 10 {
        0 => format!("{}{name}", tenths / 10),
        tenth => format!("{}.{tenth}{name}", tenths / 10),
    }
}

/// Not an amount of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SizeError(String);

impl fmt::Display for SizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no size: expected bytes, or a number with K, M, G or T", self.0)
    }
}

impl std::error::Error for SizeError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_are_powers_of_1024() {
        for (text, bytes) in [
            ("150M", 150 << 20),
            ("1G", 1 << 30),
            ("1.5G", 3 << 29),
            ("0.5K", 512),
            ("300k", 300 << 10),
            ("2GB", 2 << 30),
            ("2GiB", 2 << 30),
            ("2T", 2 << 40),
            ("1024", 1024),
            ("0", 0),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "M", "-1", "1X", "1MM", "1.M", "1.2345G", "9999999999T", "1 2", "∞"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn people_read_one_digit_after_the_point() {
        for (bytes, shown) in
            [(10, "10B"), (1 << 20, "1M"), ((1 << 20) + (1 << 19), "1.5M"), (1 << 63, "8388608T")]
        {
            assert_eq!(show(bytes), shown);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(bytes in 0..=1u64 << 63) {
            prop_assert_eq!(parse(&format(bytes)).unwrap(), bytes);
        }

        #[test]
        fn no_text_panics(text in "[0-9.]{0,25}[a-zA-Z ]{0,3}") {
            drop(parse(&text));
        }
    }
}
