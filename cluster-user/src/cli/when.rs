//! A moment as it is typed: `10m`, `2026-11-21 14:10`, `14:10`, `yesterday`.

use jiff::{Span, Timestamp, Zoned, civil};

/// Reads a moment, in milliseconds since the epoch. A length of time means that long ago, as docker and kubectl have it.
///
/// # Errors
/// When it is none of these.
pub(super) fn parse(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let now = Zoned::now();
    let at = moment(text, &now).ok_or_else(|| {
        let text: String = text.escape_default().take(40).collect();
        format!("`{text}` is no moment: expected 10m, 2h30m, 2026-11-21, `2026-11-21 14:10`, 14:10, today, yesterday or RFC 3339")
    })?;
    u64::try_from(at.timestamp().as_millisecond())
        .map_err(|_negative| "a moment before 1970 is before every log".to_owned())
}

fn moment(text: &str, now: &Zoned) -> Option<Zoned> {
    match text {
        "now" => return Some(now.clone()),
        "today" => return now.start_of_day().ok(),
        "yesterday" => return now.yesterday().ok()?.start_of_day().ok(),
        _ => {}
    }
    // Seconds since the epoch, with a fraction or without: what `date +%s` prints.
    if text.len() > 8 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        let seconds: f64 = text.parse().ok()?;
        let at = Timestamp::from_millisecond(whole_millis(seconds)?).ok()?;
        return Some(at.to_zoned(now.time_zone().clone()));
    }
    let ago = text.strip_prefix('-').unwrap_or(text);
    let ago = ago.strip_suffix("ago").map_or(ago, str::trim_end);
    if ago.starts_with(|c: char| c.is_ascii_digit())
        && ago.ends_with(|c: char| c.is_ascii_alphabetic())
        && let Ok(span) = ago.parse::<Span>()
    {
        return now.checked_sub(span).ok();
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(at.to_zoned(now.time_zone().clone()));
    }
    if let Ok(at) = text.parse::<civil::DateTime>() {
        return at.to_zoned(now.time_zone().clone()).ok();
    }
    let time: civil::Time = text.contains(':').then(|| text.parse().ok())??;
    now.date().to_datetime(time).to_zoned(now.time_zone().clone()).ok()
}

fn whole_millis(seconds: f64) -> Option<i64> {
    let millis = (seconds * 1000.0).round();
    // Beyond this a float is no whole number any more.
    (millis.abs() < 9e15).then(|| format!("{millis:.0}").parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> String {
        let now: Zoned = "2026-11-21T14:10:17+01:00[+01:00]".parse().unwrap();
        moment(text, &now).map_or("-".to_owned(), |at| at.timestamp().to_string())
    }

    #[test]
    fn moments_are_typed_in_many_ways() {
        for (typed, expected) in [
            ("10m", "2026-11-21T13:00:17Z"),
            ("-10m", "2026-11-21T13:00:17Z"),
            ("1h30m", "2026-11-21T11:40:17Z"),
            ("2 days ago", "2026-11-19T13:10:17Z"),
            ("90s", "2026-11-21T13:08:47Z"),
            ("2026-11-20", "2026-11-19T23:00:00Z"),
            ("2026-11-20 09:00", "2026-11-20T08:00:00Z"),
            ("2026-11-20T09:00:00Z", "2026-11-20T09:00:00Z"),
            ("2026-11-20T09:00:00+05:00", "2026-11-20T04:00:00Z"),
            ("09:00", "2026-11-21T08:00:00Z"),
            ("today", "2026-11-20T23:00:00Z"),
            ("yesterday", "2026-11-19T23:00:00Z"),
            ("1700000000", "2023-11-14T22:13:20Z"),
            ("1700000000.5", "2023-11-14T22:13:20.5Z"),
        ] {
            assert_eq!(at(typed), expected, "{typed}");
        }
    }

    #[test]
    fn what_is_no_moment_is_said() {
        for text in ["", "soon", "10", "10 parsecs", "2026-13-01", "25:00", "-"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
