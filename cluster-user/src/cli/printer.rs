//! Lines of logs as they are shown: whose they are, when they came, and what is sought in them.

use anstyle::{AnsiColor, Effects, Style};
use jiff::{Timestamp, tz::TimeZone};
use regex::bytes::Regex;
use serde::Serialize;
use unicode_width::UnicodeWidthStr as _;

use super::{
    error::Error,
    human,
    logs::{Source, Stream},
    output,
};
use crate::{
    config::date_format::DateFormat,
    id::{AppId, Instance},
};

/// What a line looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Look {
    /// With its origin before it.
    #[default]
    Usual,
    /// As it is.
    Raw,
    /// `key=value`, and the line at the end.
    Pairs,
    /// A JSON object.
    Json,
}

/// Writes lines with their origin.
#[derive(Debug, Default)]
pub(super) struct Printer {
    pub(super) look: Look,
    pub(super) grep: Option<Regex>,
    pub(super) highlight: Option<Regex>,
    pub(super) timestamp: Option<DateFormat>,
    pub(super) colour: bool,
    /// Whether it is a terminal that they are shown on: lines must not steer it, unless they are to be as they are.
    pub(super) terminal: bool,
    pub(super) width: usize,
    pub(super) pending: Vec<u8>,
    /// Whether raw lines of standard error go there.
    pub(super) apart: bool,
    /// Those of them that are not written yet.
    pub(super) aside: Vec<u8>,
}

#[derive(Debug, Serialize)]
struct JsonLine<'a> {
    message: &'a str,
    timestamp: String,
    r#type: Stream,
    process_id: Option<Instance>,
    app_name: &'a str,
    app_id: AppId,
    instance: Option<Instance>,
}

impl Printer {
    /// Makes room for the origin of these.
    pub(super) fn widen(&mut self, sources: &[Source]) {
        let widths = sources.iter().map(|source| origin(source).width());
        self.width = widths.fold(self.width, usize::max);
    }

    pub(super) fn wants(&self, line: &[u8]) -> bool {
        self.grep.as_ref().is_none_or(|grep| grep.is_match(line))
    }

    /// Adds a line that has just come, if it is wanted.
    pub(super) fn print(&mut self, source: &Source, line: &[u8]) {
        let now = Timestamp::now().as_millisecond();
        self.print_at(source, line, u64::try_from(now).unwrap_or(0));
    }

    /// Adds a line that came at a time, in milliseconds since the epoch, if it is wanted.
    pub(super) fn print_at(&mut self, source: &Source, line: &[u8], at: u64) {
        if !self.wants(line) {
            return;
        }
        match self.look {
            Look::Raw if self.apart && source.stream == Stream::Err => {
                self.aside.extend_from_slice(line);
                self.aside.push(b'\n');
                return;
            }
            Look::Raw => {
                self.stamp(at);
                self.put(line);
            }
            Look::Usual => {
                self.stamp(at);
                let origin = origin(source);
                let padding = " ".repeat(self.width.saturating_sub(origin.width()));
                let (worker, bar) = if self.colour { styles(source) } else { Default::default() };
                let prefix = format!("{worker}{origin}{worker:#}{padding} {bar}|{bar:#} ");
                self.pending.extend(prefix.as_bytes());
                self.put(line);
            }
            Look::Pairs => {
                let at = self.time(at).unwrap_or_else(|| iso(at));
                let (app, stream) = (human::plain(&source.name), source.stream.word());
                let id = source.instance.map_or("-".to_owned(), |instance| instance.to_string());
                let pairs = format!("timestamp={at} app={app} id={id} type={stream} message=");
                self.pending.extend(pairs.as_bytes());
                self.put(line);
            }
            Look::Json => {
                let message = String::from_utf8_lossy(line);
                let json = JsonLine {
                    message: &message,
                    timestamp: self.time(at).unwrap_or_else(|| iso(at)),
                    r#type: source.stream,
                    process_id: source.instance,
                    app_name: &source.name,
                    app_id: source.app,
                    instance: source.instance,
                };
                self.pending.extend(serde_json::to_vec(&json).unwrap_or_default());
            }
        }
        self.pending.push(b'\n');
    }

    fn time(&self, at: u64) -> Option<String> {
        let moment = Timestamp::from_millisecond(i64::try_from(at).ok()?).ok()?;
        let zone = TimeZone::try_system().unwrap_or(TimeZone::UTC);
        Some(self.timestamp.as_ref()?.write(&moment.to_zoned(zone)))
    }

    fn stamp(&mut self, at: u64) {
        if let Some(time) = self.time(at) {
            let dim = if self.colour { Style::new().dimmed() } else { Style::new() };
            self.pending.extend(format!("{dim}{time}{dim:#} ").as_bytes());
        }
    }

    /// Adds the line itself, with what is sought in it made visible.
    fn put(&mut self, line: &[u8]) {
        let tame = (self.terminal && self.look != Look::Raw).then(|| human::coloured(line));
        let line = tame.as_ref().map_or(line, |tame| tame.as_bytes());
        let Some(sought) = self.highlight.as_ref().filter(|_| self.colour) else {
            self.pending.extend_from_slice(line);
            return;
        };
        let style = Style::new().effects(Effects::INVERT);
        let mut rest = 0;
        for found in sought.find_iter(line).filter(|found| !found.is_empty()) {
            self.pending.extend_from_slice(&line[rest..found.start()]);
            self.pending.extend(style.render().to_string().as_bytes());
            self.pending.extend_from_slice(found.as_bytes());
            self.pending.extend(style.render_reset().to_string().as_bytes());
            rest = found.end();
        }
        self.pending.extend_from_slice(&line[rest..]);
    }

    /// Writes what was added.
    pub(super) fn flush(&mut self) -> Result<(), Error> {
        if !self.pending.is_empty() {
            output::raw(&self.pending)?;
            self.pending.clear();
        }
        if !self.aside.is_empty() {
            output::raw_aside(&self.aside)?;
            self.aside.clear();
        }
        Ok(())
    }
}

fn iso(at: u64) -> String {
    let at = i64::try_from(at).ok().and_then(|at| Timestamp::from_millisecond(at).ok());
    at.unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

fn origin(source: &Source) -> String {
    let name = human::plain(&source.name);
    match source.instance {
        Some(instance) => format!("{}|{name}:{instance}", source.app),
        // All workers write there.
        None => format!("{}|{name}", source.app),
    }
}

/// A colour of its own for each worker, and red for what it wrote to standard error.
fn styles(source: &Source) -> (Style, Style) {
    const COLOURS: [AnsiColor; 6] = [
        AnsiColor::Green,
        AnsiColor::Cyan,
        AnsiColor::Yellow,
        AnsiColor::Magenta,
        AnsiColor::Blue,
        AnsiColor::BrightGreen,
    ];
    let instance = source.instance.map_or(0, |instance| instance.0);
    let at = usize::try_from(source.app.0.wrapping_mul(3).wrapping_add(instance));
    let worker = COLOURS[at.unwrap_or(0) % COLOURS.len()].on_default();
    let bar = match source.stream {
        Stream::Out => Style::new().dimmed(),
        Stream::Err => AnsiColor::Red.on_default().bold(),
    };
    (worker, bar)
}

#[cfg(test)]
mod tests {
    use super::{super::logs::tests::source, *};

    #[test]
    fn a_line_says_whose_it_is() {
        let source = source("/x");
        let mut printer = Printer::default();
        printer.widen(std::slice::from_ref(&source));
        printer.print(&source, b"hello \xff");
        assert_eq!(printer.pending, b"0|web:1 | hello \xff\n");
        let mut merged = Printer::default();
        merged.print(&Source { instance: None, ..source }, b"hello");
        assert_eq!(merged.pending, b"0|web | hello\n");
    }

    #[test]
    fn a_line_is_shown_in_the_way_that_was_asked_for() {
        let shown = |look, timestamp: Option<&str>| {
            let timestamp = timestamp.map(|format| format.parse().unwrap());
            let mut printer = Printer { look, timestamp, ..Printer::default() };
            printer.print_at(&source("/x"), b"say \"hi\"", 1_500);
            String::from_utf8(printer.pending).unwrap()
        };
        assert_eq!(shown(Look::Raw, None), "say \"hi\"\n");
        assert_eq!(shown(Look::Usual, Some("x")), "1500 0|web:1 | say \"hi\"\n");
        let pairs = "timestamp=1970-01-01T00:00:01.500Z app=web id=1 type=out message=say \"hi\"\n";
        assert_eq!(shown(Look::Pairs, None), pairs);
        let value: serde_json::Value = serde_json::from_str(&shown(Look::Json, None)).unwrap();
        let expected = serde_json::json!({
            "message": "say \"hi\"", "timestamp": "1970-01-01T00:00:01.500Z", "type": "out",
            "process_id": 1, "app_name": "web", "app_id": 0, "instance": 1
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn what_would_steer_a_terminal_does_not_reach_it_unless_lines_are_to_be_as_they_are() {
        let shown = |terminal, look| {
            let mut printer = Printer { look, terminal, ..Printer::default() };
            printer.print_at(&source("/x"), b"\x1b[2Ja", 0);
            String::from_utf8(printer.pending).unwrap()
        };
        assert_eq!(shown(true, Look::Usual), "0|web:1 | \\u{1b}[2Ja\n");
        assert_eq!(shown(false, Look::Usual), "0|web:1 | \u{1b}[2Ja\n");
        assert_eq!(shown(true, Look::Raw), "\u{1b}[2Ja\n");
    }

    #[test]
    fn only_what_matches_is_printed_and_what_is_sought_is_marked() {
        let mut printer = Printer { grep: Some(Regex::new("a+b").unwrap()), ..Printer::default() };
        printer.print(&source("/x"), b"xaab");
        printer.print(&source("/x"), b"ba");
        assert_eq!(printer.pending, b"0|web:1 | xaab\n");
        let highlight = Some(Regex::new("a").unwrap());
        let mut printer =
            Printer { look: Look::Raw, colour: true, highlight, ..Printer::default() };
        printer.print(&source("/x"), b"bab");
        assert_eq!(String::from_utf8(printer.pending).unwrap(), "b\u{1b}[7ma\u{1b}[0mb\n");
    }
}
