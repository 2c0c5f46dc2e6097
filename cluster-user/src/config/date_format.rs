//! How a time is written, in the letters of day.js: `YYYY-MM-DD HH:mm:ss.SSS Z`.

use std::{fmt, str::FromStr};

use jiff::Zoned;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A format; letters that mean nothing, and what stands in brackets, stand for themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DateFormat {
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    /// Index of one of [`TOKENS`].
    Token(usize),
}

type Write = fn(&Zoned) -> String;

/// The letters of day.js and its plugin `advancedFormat`, and those of moment.js that PM2's users know from before; of
/// several that fit the first counts.
const TOKENS: [(&str, Write); 43] = [
    ("YYYY", |at| format!("{:04}", at.year())),
    ("YY", |at| format!("{:02}", at.year().rem_euclid(100))),
    ("Q", |at| ((at.month() + 2) / 3).to_string()),
    ("MMMM", |at| at.strftime("%B").to_string()),
    ("MMM", |at| at.strftime("%b").to_string()),
    ("MM", |at| format!("{:02}", at.month())),
    ("M", |at| at.month().to_string()),
    ("DDDD", |at| format!("{:03}", at.day_of_year())),
    ("DDD", |at| at.day_of_year().to_string()),
    ("DD", |at| format!("{:02}", at.day())),
    ("Do", |at| format!("{}{}", at.day(), ordinal(at.day()))),
    ("D", |at| at.day().to_string()),
    ("dddd", |at| at.strftime("%A").to_string()),
    ("ddd", |at| at.strftime("%a").to_string()),
    ("dd", |at| at.strftime("%a").to_string().chars().take(2).collect()),
    ("d", |at| at.weekday().to_sunday_zero_offset().to_string()),
    ("GGGG", |at| format!("{:04}", at.date().iso_week_date().year())),
    ("WW", |at| format!("{:02}", at.date().iso_week_date().week())),
    ("W", |at| at.date().iso_week_date().week().to_string()),
    ("HH", |at| format!("{:02}", at.hour())),
    ("H", |at| at.hour().to_string()),
    ("hh", |at| format!("{:02}", twelve(at.hour()))),
    ("h", |at| twelve(at.hour()).to_string()),
    ("kk", |at| format!("{:02}", if at.hour() == 0 { 24 } else { at.hour() })),
    ("k", |at| if at.hour() == 0 { "24".to_owned() } else { at.hour().to_string() }),
    ("A", |at| if at.hour() < 12 { "AM" } else { "PM" }.to_owned()),
    ("a", |at| if at.hour() < 12 { "am" } else { "pm" }.to_owned()),
    ("mm", |at| format!("{:02}", at.minute())),
    ("m", |at| at.minute().to_string()),
    ("ss", |at| format!("{:02}", at.second())),
    ("s", |at| at.second().to_string()),
    ("SSSSSSSSS", |at| format!("{:09}", at.subsec_nanosecond())),
    ("SSSSSS", |at| format!("{:06}", at.subsec_nanosecond() / 1_000)),
    ("SSS", |at| format!("{:03}", at.millisecond())),
    ("SS", |at| format!("{:02}", at.millisecond() / 10)),
    ("S", |at| (at.millisecond() / 100).to_string()),
    ("ZZ", |at| at.strftime("%z").to_string()),
    ("Z", |at| at.strftime("%:z").to_string()),
    ("zzz", |at| at.strftime("%Q").to_string()),
    ("zz", |at| at.strftime("%Z").to_string()),
    ("z", |at| at.strftime("%Z").to_string()),
    ("X", |at| at.timestamp().as_second().to_string()),
    ("x", |at| at.timestamp().as_millisecond().to_string()),
];

/// The longest there may be: each line begins with what it gives.
const LONGEST: usize = 100;

impl DateFormat {
    /// What `--time` means: `YYYY-MM-DDTHH:mm:ss`.
    pub fn usual() -> Self {
        Self::read("YYYY-MM-DDTHH:mm:ss")
    }

    /// Writes a time.
    pub fn write(&self, at: &Zoned) -> String {
        let mut written = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => written.push_str(text),
                Piece::Token(token) => {
                    if let Some((_, write)) = TOKENS.get(*token) {
                        written.push_str(&write(at));
                    }
                }
            }
        }
        written
    }

    fn read(text: &str) -> Self {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let bracketed = rest.strip_prefix('[').and_then(|inner| inner.split_once(']'));
            if let Some((inner, after)) = bracketed.filter(|(inner, _)| !inner.is_empty()) {
                literal.push_str(inner);
                rest = after;
                continue;
            }
            let token = TOKENS.iter().position(|(token, _)| rest.starts_with(token));
            let Some((at, (token, _))) = token.and_then(|at| Some((at, TOKENS.get(at)?))) else {
                literal.push(first);
                rest = &rest[first.len_utf8()..];
                continue;
            };
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal)));
            }
            pieces.push(Piece::Token(at));
            rest = &rest[token.len()..];
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Self { text: text.to_owned(), pieces }
    }
}

fn ordinal(day: i8) -> &'static str {
    match (day % 10, day / 10) {
        (_, 1) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    }
}

fn twelve(hour: i8) -> i8 {
    match hour % 12 {
        0 => 12,
        hour => hour,
    }
}

impl FromStr for DateFormat {
    type Err = DateFormatError;

    fn from_str(text: &str) -> Result<Self, DateFormatError> {
        let written: String = text.escape_default().take(LONGEST).collect();
        if text.len() > LONGEST {
            return Err(DateFormatError(format!("`{written}` is longer than {LONGEST} letters")));
        }
        if text.contains(char::is_control) {
            return Err(DateFormatError(format!("`{written}` has a line break or the like in it")));
        }
        if text.contains('%') {
            let hint = "letters such as YYYY-MM-DD HH:mm:ss are expected";
            return Err(DateFormatError(format!("`{written}` is a format of strftime: {hint}")));
        }
        let format = Self::read(text);
        if !format.pieces.iter().any(|piece| matches!(piece, Piece::Token(_))) {
            let hint = "letters such as YYYY-MM-DD HH:mm:ss are expected";
            return Err(DateFormatError(format!("`{written}` has no time in it: {hint}")));
        }
        Ok(format)
    }
}

impl fmt::Display for DateFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for DateFormat {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for DateFormat {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

/// No format of a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DateFormatError(String);

impl fmt::Display for DateFormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DateFormatError {}

#[cfg(test)]
mod tests {
    use jiff::{civil, tz};
    use proptest::prelude::*;

    use super::*;

    fn moment() -> Zoned {
        let zone = tz::TimeZone::fixed(tz::offset(2));
        civil::date(2026, 3, 1).at(0, 5, 9, 78_000_000).to_zoned(zone).unwrap()
    }

    #[test]
    fn formats_of_pm2_users_mean_what_they_meant() {
        for (format, expected) in [
            ("YYYY-MM-DD HH:mm:ss.SSS Z", "2026-03-01 00:05:09.078 +02:00"),
            ("YYYY-MM-DDTHH:mm:ss", "2026-03-01T00:05:09"),
            ("YYYY-MM-DD HH:mm Z", "2026-03-01 00:05 +02:00"),
            ("DD/MM/YY hh:mm:ss A", "01/03/26 12:05:09 AM"),
            ("ddd MMM D YYYY H:m:s ZZ", "Sun Mar 1 2026 0:5:9 +0200"),
            ("dddd, Do MMMM", "Sunday, 1st March"),
            ("[at] HH [h] x", "at 00 h 1772316309078"),
            ("YYYY年MM月", "2026年03月"),
            ("[]HH", "[]00"),
        ] {
            assert_eq!(
                format.parse::<DateFormat>().unwrap().write(&moment()),
                expected,
                "{format}"
            );
        }
        assert_eq!(DateFormat::usual().write(&moment()), "2026-03-01T00:05:09");
    }

    #[test]
    fn what_is_no_format_is_refused() {
        for text in ["", "%Y-%m-%d", "---", "YYYY\nMM", &"YYYY".repeat(100)] {
            assert!(text.parse::<DateFormat>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*") {
            if let Ok(format) = text.parse::<DateFormat>() {
                format.write(&moment());
                prop_assert_eq!(format.to_string(), text);
            }
        }
    }
}
