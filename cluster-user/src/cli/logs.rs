//! `cluster logs`: reads the log files that the daemon names; the daemon has no part in it.

use std::path::PathBuf;

use anstyle::{AnsiColor, Style};
use clap::Args;
use regex::bytes::Regex;
use serde::Serialize;
use unicode_width::UnicodeWidthStr as _;

use super::{
    error::Error,
    follow::{self, Until},
    human, output,
    selection::Selection,
    session::{Session, block_on},
    tail,
};
use crate::{
    api::message::{AppView, Detail},
    id::{AppId, Instance},
};

/// Shows what workers write, the last lines first, then as it comes
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cluster logs web --lines 100
  cluster logs web:2 --err --nostream --grep 'timeout|reset'

With --json: one object per line: {app_id, app_name, instance, type (out | err), message}")]
#[expect(clippy::struct_excessive_bools, reason = "each is one option of the command line")]
pub(super) struct Logs {
    /// Names, ids, NAME:INSTANCE, namespaces, `all`, or /REGEX/; all when left out
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,

    /// How many of the last lines of each file
    #[arg(long, short = 'n', value_name = "N", default_value_t = 15)]
    lines: usize,

    /// Standard error only
    #[arg(long, conflicts_with = "out")]
    err: bool,

    /// Standard output only
    #[arg(long)]
    out: bool,

    /// Only lines that match
    #[arg(long, value_name = "REGEX", value_parser = Regex::new)]
    grep: Option<Regex>,

    /// Print one JSON object per line
    #[arg(long)]
    json: bool,

    /// Print the last lines and return
    #[arg(long)]
    nostream: bool,

    /// Leave out who wrote a line; what came from standard error goes there
    #[arg(long, conflicts_with = "json")]
    raw: bool,

    /// Follow until standard input ends, and no line is left
    #[arg(long, hide = true)]
    until_input_ends: bool,
}

/// One log file, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    app: AppId,
    name: String,
    instance: Instance,
    stream: Stream,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Stream {
    Out,
    Err,
}

#[derive(Debug, Serialize)]
struct JsonLine<'a> {
    app_id: AppId,
    app_name: &'a str,
    instance: Instance,
    r#type: Stream,
    message: &'a str,
}

impl Logs {
    pub(super) fn run(self) -> Result<(), Error> {
        let selection = Selection::parse(&self.targets)?;
        let session = Session::new()?;
        let ask = || block_on(session.needed_apps(&self.targets, Detail::Usual));
        let mut sources = self.sources(&ask()?, &selection);
        let mut printer = Printer::new(self.json, self.grep.clone(), output::colour());
        printer.raw = self.raw;
        printer.widen(&sources);

        // There are no times in the files: the one that was written to last comes last.
        let mut tails: Vec<tail::Tail> = Vec::new();
        for source in &sources {
            let wanted = |line: &[u8]| printer.wants(line);
            tails.push(tail::read(&source.path, self.lines, self.nostream, &wanted).map_err(
                |error| {
                    Error::failed(format!("failed to read `{}`: {error}", source.path.display()))
                },
            )?);
        }
        if !self.json && !self.until_input_ends && tails.iter().all(|tail| tail.lines.is_empty()) {
            output::quiet(if self.nostream { "no lines" } else { "no lines yet" });
        }
        let mut order: Vec<usize> = (0..sources.len()).collect();
        order.sort_by_key(|at| tails[*at].modified);
        for at in order {
            for line in &tails[at].lines {
                printer.print(&sources[at], line);
            }
        }
        printer.flush()?;
        if self.nostream {
            return Ok(());
        }
        let positions = tails.into_iter().map(|tail| tail.end).collect();
        let more = || {
            // A daemon that has ended has no new files to tell of.
            ask().map(|apps| self.sources(&apps, &selection)).unwrap_or_default()
        };
        let until = if self.until_input_ends { Until::InputEnds } else { Until::NobodyReads };
        follow::follow(&session.home.logs(), &mut sources, positions, &mut printer, until, more)
    }

    fn sources(&self, apps: &[AppView], selection: &Selection) -> Vec<Source> {
        let mut sources = Vec::new();
        for (app, worker) in selection.workers(apps) {
            let both = [
                (Stream::Out, &worker.logs.out, self.err),
                (Stream::Err, &worker.logs.err, self.out),
            ];
            for (stream, path, left_out) in both {
                if !left_out {
                    sources.push(Source {
                        path: path.clone(),
                        app: app.id,
                        name: app.name.clone(),
                        instance: worker.instance,
                        stream,
                    });
                }
            }
        }
        sources
    }
}

/// Writes lines with their origin.
#[derive(Debug)]
pub(super) struct Printer {
    json: bool,
    grep: Option<Regex>,
    colour: bool,
    width: usize,
    /// Whether lines are printed as they are, each to the stream that it came from.
    raw: bool,
    pending: Vec<u8>,
    /// What goes to standard error.
    aside: Vec<u8>,
}

impl Printer {
    fn new(json: bool, grep: Option<Regex>, colour: bool) -> Self {
        Self { json, grep, colour, width: 0, raw: false, pending: Vec::new(), aside: Vec::new() }
    }

    /// Makes room for the origin of these.
    pub(super) fn widen(&mut self, sources: &[Source]) {
        let widths = sources.iter().map(|source| origin(source).width());
        self.width = widths.fold(self.width, usize::max);
    }

    fn wants(&self, line: &[u8]) -> bool {
        self.grep.as_ref().is_none_or(|grep| grep.is_match(line))
    }

    /// Adds a line, if it is wanted.
    pub(super) fn print(&mut self, source: &Source, line: &[u8]) {
        if !self.wants(line) {
            return;
        }
        if self.raw {
            let pending = match source.stream {
                Stream::Out => &mut self.pending,
                Stream::Err => &mut self.aside,
            };
            pending.extend(line);
            pending.push(b'\n');
            return;
        }
        if self.json {
            let message = String::from_utf8_lossy(line);
            let json = JsonLine {
                app_id: source.app,
                app_name: &source.name,
                instance: source.instance,
                r#type: source.stream,
                message: &message,
            };
            self.pending.extend(serde_json::to_vec(&json).unwrap_or_default());
        } else {
            let origin = origin(source);
            let padding = " ".repeat(self.width.saturating_sub(origin.width()));
            let (worker, bar) = if self.colour { styles(source) } else { Default::default() };
            let prefix = format!("{worker}{origin}{worker:#}{padding} {bar}|{bar:#} ");
            self.pending.extend(prefix.as_bytes());
            self.pending.extend(line);
        }
        self.pending.push(b'\n');
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

fn origin(source: &Source) -> String {
    format!("{}|{}:{}", source.app, human::plain(&source.name), source.instance)
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
    let at = usize::try_from(source.app.0.wrapping_mul(3).wrapping_add(source.instance.0));
    let worker = COLOURS[at.unwrap_or(0) % COLOURS.len()].on_default();
    let bar = match source.stream {
        Stream::Out => Style::new().dimmed(),
        Stream::Err => AnsiColor::Red.on_default().bold(),
    };
    (worker, bar)
}

#[cfg(test)]
pub(super) mod tests {
    use super::{super::sample, *};

    #[test]
    fn a_line_says_whose_it_is() {
        let source = source("/x");
        let mut printer = Printer::new(false, None, false);
        printer.widen(std::slice::from_ref(&source));
        printer.print(&source, b"hello \xff");
        assert_eq!(printer.pending, b"0|web:1 | hello \xff\n");
        let mut printer = Printer::new(true, None, false);
        printer.print(&source, b"say \"hi\"");
        let value: serde_json::Value = serde_json::from_slice(&printer.pending).unwrap();
        assert_eq!(value["message"], "say \"hi\"");
        assert_eq!(value["type"], "out");
        assert_eq!(value["app_name"], "web");
    }

    #[test]
    fn only_what_matches_is_printed() {
        let mut printer = Printer::new(false, Some(Regex::new("a+b").unwrap()), false);
        printer.print(&source("/x"), b"xaab");
        printer.print(&source("/x"), b"ba");
        assert_eq!(printer.pending, b"0|web:1 | xaab\n");
    }

    #[test]
    fn streams_and_workers_are_chosen() {
        let logs = |err, out| Logs {
            targets: vec![],
            lines: 15,
            err,
            out,
            grep: None,
            json: false,
            nostream: true,
            raw: false,
            until_input_ends: false,
        };
        let count = |err, out, target: &str| {
            let selection = Selection::parse(&[target.to_owned()]).unwrap();
            logs(err, out).sources(&[sample::app()], &selection).len()
        };
        assert_eq!(count(false, false, "web"), 4);
        assert_eq!(count(true, false, "web"), 2);
        assert_eq!(count(false, true, "web:1"), 1);
    }

    pub(in super::super) fn source(path: &str) -> Source {
        Source {
            path: path.into(),
            app: AppId(0),
            name: "web".to_owned(),
            instance: Instance(1),
            stream: Stream::Out,
        }
    }

    pub(in super::super) fn printer() -> Printer {
        Printer::new(false, None, false)
    }

    pub(in super::super) fn printed(printer: &Printer) -> String {
        String::from_utf8_lossy(&printer.pending).replace("0|web:1 | ", "")
    }
}
