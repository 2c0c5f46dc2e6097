//! Sizes, times, names and generations as people read them.

use std::time::SystemTime;

use anstyle::{AnsiColor, Style};
use jiff::{Timestamp, tz::TimeZone};

use crate::api::message::{AppView, Stage, Status};

/// `52.4 MB`, in powers of 1024 as PM2 shows them.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")];
    match UNITS.iter().find(|(unit, _)| bytes >= *unit) {
        None => format!("{bytes} B"),
        Some((unit, name)) => {
            let tenths = (u128::from(bytes) * 10 + u128::from(unit / 2)) / u128::from(*unit);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
    }
}

/// `12s`, `5m`, `3h`, `2d`: the largest unit, as PM2 shows it.
pub(super) fn uptime(millis: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m")];
    match UNITS.iter().find(|(unit, _)| millis >= *unit) {
        Some((unit, name)) => format!("{}{name}", millis / unit),
        None => format!("{}s", millis / 1000),
    }
}

/// Milliseconds from a moment, itself in milliseconds since the epoch, until now.
pub(super) fn ago(moment_ms: u64) -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
    now.saturating_sub(moment_ms)
}

/// `2026-11-21T14:10:18.123`: a moment in milliseconds since the epoch, in local time.
pub(super) fn time(moment_ms: u64) -> String {
    let moment = i64::try_from(moment_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let moment = moment.unwrap_or_default().to_zoned(TimeZone::system());
    moment.strftime("%Y-%m-%dT%H:%M:%S.%3f").to_string()
}

/// `0%`, `12.5%`, `340%`.
pub(super) fn percent(value: f64) -> String {
    if (0.05..100.0).contains(&value) { format!("{value:.1}%") } else { format!("{value:.0}%") }
}

/// The text with its control characters written out, so that it cannot steer the terminal.
pub(super) fn plain(text: &str) -> String {
    let escaped = |c: char| {
        c.is_control()
            || ('\u{202a}'..='\u{202e}').contains(&c)
            || ('\u{2066}'..='\u{2069}').contains(&c)
    };
    if !text.contains(escaped) {
        return text.to_owned();
    }
    let mut shown = String::new();
    for c in text.chars() {
        if escaped(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

/// A line that a worker wrote, without what would steer the terminal: a failure must be readable.
pub(super) fn written(line: &str) -> String {
    line.chars().filter(|c| !c.is_control() || *c == '\t').collect()
}

/// A line that a worker wrote, with its colours and without anything else that would steer the terminal.
pub(super) fn coloured(line: &[u8]) -> String {
    let line = String::from_utf8_lossy(line);
    let line = line.strip_suffix('\r').unwrap_or(&line);
    if !line.contains(|c: char| c.is_control() && c != '\t') {
        return line.to_owned();
    }
    let (mut shown, mut rest, mut is_coloured) = (String::new(), line, false);
    while let Some(c) = rest.chars().next() {
        let colour = colour(rest);
        let length = if colour > 0 { colour } else { c.len_utf8() };
        let (this, after) = rest.split_at(length);
        if colour == 0 && c != '\t' {
            shown.push_str(&plain(this));
        } else {
            shown.push_str(this);
        }
        is_coloured |= colour > 0;
        rest = after;
    }
    if is_coloured {
        // It ends with the line.
        shown.push_str("\u{1b}[0m");
    }
    shown
}

/// How long the sequence that a text begins with is, if it does nothing but change colours (SGR of ECMA-48).
fn colour(text: &str) -> usize {
    let Some(rest) = text.strip_prefix("\u{1b}[") else { return 0 };
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != ';' && c != ':');
    match end {
        Some(end) if rest[end..].starts_with('m') => end + 3,
        Some(_) | None => 0,
    }
}

/// The word for a status.
pub(super) fn status(status: Status) -> &'static str {
    match status {
        Status::Starting => "starting",
        Status::Ready => "ready",
        Status::Online => "online",
        Status::Draining => "draining",
        Status::Stopping => "stopping",
        Status::Backoff => "backoff",
        Status::Errored => "errored",
        Status::Stopped => "stopped",
    }
}

/// The colour of a status.
pub(super) fn status_style(status: Status) -> Style {
    match status {
        Status::Online => AnsiColor::Green.on_default(),
        Status::Starting
        | Status::Ready
        | Status::Draining
        | Status::Stopping
        | Status::Backoff => AnsiColor::Yellow.on_default(),
        Status::Errored | Status::Stopped => AnsiColor::Red.on_default(),
    }
}

/// Whether there are two generations of an app.
pub(super) fn in_transit(app: &AppView) -> bool {
    app.reload.is_some()
        || app
            .workers
            .iter()
            .any(|worker| !worker.others.is_empty() || worker.generation != app.generation)
}

/// `3`; `3 → 4`; `3 → 4, canary 5%`; `3 ← 4` while it goes back.
pub(super) fn generation(app: &AppView) -> String {
    let now = app.generation;
    let Some(reload) = &app.reload else { return now.to_string() };
    let to = reload.generation;
    match (reload.stage, &reload.canary) {
        (Stage::Back, _) => format!("{now} ← {to}"),
        (Stage::Canary, Some(canary)) => format!("{now} → {to}, canary {canary}"),
        (Stage::Canary | Stage::Forward, _) => format!("{now} → {to}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_their_colours_and_cannot_steer_the_terminal() {
        assert_eq!(coloured(b"a\tb \xc3\xa9\r"), "a\tb \u{e9}");
        assert_eq!(coloured(b"\x1b[1;31mred"), "\u{1b}[1;31mred\u{1b}[0m");
        let steering = b"\x1b[2J\x1b]0;title\x07\rover\xc2\x9b2J \x9b2J \x1b[31";
        let shown = coloured(steering);
        assert!(!shown.contains(char::is_control), "{shown}");
        assert!(shown.starts_with(r"\u{1b}[2J\u{1b}]0;title\u{7}\rover\u{9b}2J"), "{shown}");
    }

    #[test]
    fn sizes_have_one_decimal() {
        for (size, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KB"),
            (54_945_382, "52.4 MB"),
            (3 << 30, "3.0 GB"),
            (u64::MAX, "17179869184.0 GB"),
        ] {
            assert_eq!(bytes(size), text);
        }
    }

    #[test]
    fn times_have_one_unit() {
        for (millis, text) in [
            (0, "0s"),
            (59_999, "59s"),
            (60_000, "1m"),
            (7_200_000, "2h"),
            (86_400_000 * 400, "400d"),
        ] {
            assert_eq!(uptime(millis), text);
        }
    }

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        assert_eq!(plain("a\u{1b}[31mb\n"), "a\\u{1b}[31mb\\n");
        assert_eq!(plain("a\u{202e}b"), "a\\u{202e}b");
        assert_eq!(plain("приложение"), "приложение");
    }
}
