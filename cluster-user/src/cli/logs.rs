//! `cluster logs`: reads the log files that the daemon names; the daemon has no part in it.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io::{self, IsTerminal as _},
    path::PathBuf,
};

use clap::Args;
use regex::bytes::{Regex, RegexBuilder};
use serde::Serialize;

use super::{
    error::Error,
    follow::{self, Until},
    human, output,
    past::{self, Line, Past, Wanted},
    printer::{Look, Printer},
    selection::Selection,
    session::{Session, block_on},
    when,
};
use crate::{
    api::message::{AppView, Detail, LogFiles, Notice},
    config::{date_format::DateFormat, spec::logs::Service},
    id::{AppId, Instance},
};

/// Lines of each file that are shown when nothing else is said.
const LINES: usize = 15;

/// Bytes that are written at a time.
const PIECE: usize = 64 << 10;

/// Shows what workers write, the last lines first, then as it comes
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cluster logs web --lines 100
  cluster logs web:2 --err --nostream --grep 'timeout|reset'
  cluster logs --since 10m
  cluster logs web --since '2026-11-21 14:00' --until 14:10

A moment is a length of time (10m, 2h30m: that long ago), a date, a time of today, both, or
RFC 3339.
When a line came is known to 5 seconds, to 1 where much is written; no format of its own is needed.

With --json: one object per line: {message, timestamp, type (out | err), process_id, app_name,
app_id, instance}; instance and process_id are null where all workers write to one file")]
#[expect(clippy::struct_excessive_bools, reason = "each is one option of the command line")]
pub(super) struct Logs {
    /// Names, ids, NAME:INSTANCE, namespaces, `all`, or /REGEX/; all when left out
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,

    /// How many of the last lines of each file, or all [default: 15, with --since and --until all]
    #[arg(long, short = 'n', value_name = "N", visible_alias = "tail", value_parser = lines)]
    lines: Option<usize>,

    /// Standard error only
    #[arg(long, conflicts_with = "out")]
    err: bool,

    /// Standard output only
    #[arg(long)]
    out: bool,

    /// Only lines from this moment on
    #[arg(long, value_name = "MOMENT", allow_hyphen_values = true, value_parser = when::parse)]
    since: Option<u64>,

    /// Only lines up to this moment; returns then
    #[arg(long, value_name = "MOMENT", allow_hyphen_values = true, value_parser = when::parse)]
    until: Option<u64>,

    /// Only lines that match
    #[arg(long, short, value_name = "REGEX", value_parser = Regex::new)]
    grep: Option<Regex>,

    /// Letters are the same whether they are large or small, for --grep and --highlight
    #[arg(long, short)]
    ignore_case: bool,

    /// Mark what matches
    #[arg(long, value_name = "REGEX", value_parser = Regex::new)]
    highlight: Option<Regex>,

    /// When each line came, such as `--timestamp='HH:mm:ss'` [default format: YYYY-MM-DDTHH:mm:ss]
    #[arg(
        long,
        short,
        visible_alias = "timestamps",
        value_name = "FORMAT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "YYYY-MM-DDTHH:mm:ss"
    )]
    timestamp: Option<DateFormat>,

    /// Print one JSON object per line
    #[arg(long, conflicts_with_all = ["raw", "format"])]
    json: bool,

    /// Print the lines alone
    #[arg(long, conflicts_with = "format")]
    raw: bool,

    /// Print `timestamp=… app=… id=… type=… message=…`
    #[arg(long)]
    format: bool,

    /// Go on with what comes, as it does anyway
    #[arg(long, short, conflicts_with_all = ["nostream", "until"])]
    follow: bool,

    /// Print the last lines and return
    #[arg(long, visible_alias = "no-follow")]
    nostream: bool,

    /// Follow until standard input ends, and no line is left; raw lines of standard error go there
    #[arg(long, hide = true)]
    until_input_ends: bool,
}

/// One log file, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) app: AppId,
    pub(super) name: String,
    /// None when all workers write to it.
    pub(super) instance: Option<Instance>,
    pub(super) stream: Stream,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stream {
    Out,
    Err,
}

impl Stream {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::Err => "err",
        }
    }
}

fn lines(text: &str) -> Result<usize, String> {
    if text == "all" {
        return Ok(usize::MAX);
    }
    text.parse().map_err(|_error| "expected a number, or all".to_owned())
}

impl Logs {
    pub(super) fn run(self) -> Result<(), Error> {
        let selection = Selection::parse(&self.targets)?;
        let session = Session::new()?;
        let ask = || block_on(session.needed_apps(&self.targets, Detail::Usual));
        let apps = ask()?;
        let mut sources = self.sources(&apps, &selection);
        let mut printer = self.printer();
        printer.widen(&sources);
        let folder = session.home.logs();

        let streams = !self.nostream && self.until.is_none();
        let timed = self.since.is_some() || self.until.is_some();
        let lines = if timed { self.lines } else { self.lines.or(Some(LINES)) };
        let lines = lines.filter(|lines| *lines < usize::MAX);
        let wanted = Wanted { lines, since: self.since, until: self.until, partial: !streams };
        let mut found: Vec<Past> = Vec::new();
        for source in &sources {
            let matches = |line: &[u8]| printer.wants(line);
            let past = past::read(&folder, &source.path, wanted, &matches);
            found.push(past.map_err(|error| {
                Error::failed(format!("failed to read `{}`: {error}", source.path.display()))
            })?);
        }
        for notice in notices(&apps, &selection, &sources, &found) {
            output::notice(&notice);
        }
        if !self.json && !self.until_input_ends && found.iter().all(|past| past.lines.is_empty()) {
            output::quiet(if streams { "no lines yet" } else { "no lines" });
        }
        for (at, line) in merged(&mut found) {
            printer.print_at(&sources[at], &line.text, line.at);
            if printer.pending.len() > PIECE {
                printer.flush()?;
            }
        }
        printer.flush()?;
        if !streams {
            return Ok(());
        }
        let positions = found.into_iter().map(|past| past.end).collect();
        let more = || {
            // A daemon that has ended has no new files to tell of.
            ask().map(|apps| self.sources(&apps, &selection)).unwrap_or_default()
        };
        let until = if self.until_input_ends { Until::InputEnds } else { Until::NobodyReads };
        follow::follow(&folder, &mut sources, positions, &mut printer, until, more)
    }

    fn printer(&self) -> Printer {
        let cased = |regex: &Regex| {
            let built =
                RegexBuilder::new(regex.as_str()).case_insensitive(self.ignore_case).build();
            // It was built before.
            built.unwrap_or_else(|_error| regex.clone())
        };
        let look = match (self.json, self.raw, self.format) {
            (true, _, _) => Look::Json,
            (_, true, _) => Look::Raw,
            (_, _, true) => Look::Pairs,
            (false, false, false) => Look::Usual,
        };
        Printer {
            look,
            grep: self.grep.as_ref().map(cased),
            highlight: self.highlight.as_ref().map(cased),
            timestamp: self.timestamp.clone(),
            colour: output::colour(),
            terminal: io::stdout().is_terminal(),
            apart: self.until_input_ends,
            ..Printer::default()
        }
    }

    fn sources(&self, apps: &[AppView], selection: &Selection) -> Vec<Source> {
        let mut sources: Vec<Source> = Vec::new();
        for (app, worker) in selection.workers(apps) {
            let LogFiles { out, err, combined } = &worker.logs;
            let kept = |path: &&PathBuf| path.as_os_str() != LogFiles::NOWHERE;
            let mut both = vec![
                (Stream::Out, Some(out).filter(kept), self.err),
                (Stream::Err, Some(err).filter(kept), self.out),
            ];
            if both.iter().all(|(_, path, _)| path.is_none()) {
                // Then it is the only one, and which of the two a line is of is not known.
                both.push((Stream::Out, combined.as_ref(), self.err));
            }
            for (stream, path, left_out) in both {
                let Some(path) = path.filter(|_| !left_out) else { continue };
                if let Some(known) = sources.iter_mut().find(|source| source.path == *path) {
                    // Several workers write to it.
                    known.instance = known.instance.filter(|of| *of == worker.instance);
                    continue;
                }
                sources.push(Source {
                    path: path.clone(),
                    app: app.id,
                    name: app.name.clone(),
                    instance: Some(worker.instance).filter(|_| !app.spec.logs.merge),
                    stream,
                });
            }
        }
        sources
    }
}

/// Gives lines by the time at which they came, and which file they are of; those of one file stay in their order.
fn merged(found: &mut [Past]) -> impl Iterator<Item = (usize, Line)> {
    let taken = found.iter_mut().map(|past| std::mem::take(&mut past.lines).into_iter().peekable());
    let mut queues: Vec<_> = taken.collect();
    let mut next: BinaryHeap<Reverse<(u64, usize)>> = queues
        .iter_mut()
        .enumerate()
        .filter_map(|(at, queue)| Some(Reverse((queue.peek()?.at, at))))
        .collect();
    std::iter::from_fn(move || {
        let Reverse((_, at)) = next.pop()?;
        let line = queues[at].next()?;
        next.extend(queues[at].peek().map(|line| Reverse((line.at, at))));
        Some((at, line))
    })
}

/// What is to be known of lines that are not shown.
fn notices(
    apps: &[AppView],
    selection: &Selection,
    sources: &[Source],
    found: &[Past],
) -> Vec<Notice> {
    let mut notices = Vec::new();
    let notice = |message: String, hint: Option<String>| Notice { message, hint };
    let mut seen: Option<AppId> = None;
    for (app, worker) in selection.workers(apps) {
        let (name, logs) = (human::plain(&app.name), &app.spec.logs);
        if worker.dropped_bytes > 0 {
            let bytes = human::bytes(worker.dropped_bytes);
            let message =
                format!("{bytes} of the output of {name}:{} were dropped", worker.instance);
            notices.push(notice(
                message,
                Some("daemon.log in the daemon's folder says why".to_owned()),
            ));
        }
        if seen.replace(app.id) == Some(app.id) {
            continue;
        }
        if logs.disabled {
            let hint = Some("disable_logs is on".to_owned());
            notices.push(notice(format!("app `{name}` keeps no logs"), hint));
            continue;
        }
        let (service, command) = match logs.service {
            Some(Service::Journald) => ("journald", format!("journalctl -f CLUSTER_APP={name}")),
            Some(Service::Syslog) => {
                ("syslog", "look into the files of the host's syslog".to_owned())
            }
            None => continue,
        };
        if !logs.to_file {
            notices.push(notice(format!("app `{name}` writes to {service}"), Some(command)));
        }
    }
    for (source, past) in sources.iter().zip(found) {
        let path = source.path.display();
        if past.unreadable {
            notices.push(notice(format!("`{path}` keeps nothing that could be shown"), None));
        }
        for (path, error) in &past.broken {
            let message = format!("`{}` is broken, and left out: {error}", path.display());
            notices.push(notice(message, None));
        }
        if past.vague {
            let message = format!(
                "when lines of `{path}` came is not known; shown is all that was there at that time"
            );
            notices.push(notice(message, None));
        }
    }
    notices
}

#[cfg(test)]
pub(super) mod tests {
    use super::{super::sample, *};

    fn logs(args: &[&str]) -> Logs {
        #[derive(clap::Parser)]
        struct Typed {
            #[command(flatten)]
            logs: Logs,
        }
        let args = [&["logs"], args].concat();
        <Typed as clap::Parser>::try_parse_from(args).unwrap().logs
    }

    #[test]
    fn streams_and_workers_are_chosen() {
        let count = |args: &[&str], target: &str| {
            let selection = Selection::parse(&[target.to_owned()]).unwrap();
            logs(args).sources(&[sample::app()], &selection).len()
        };
        assert_eq!(count(&[], "web"), 4);
        assert_eq!(count(&["--err"], "web"), 2);
        assert_eq!(count(&["--out"], "web:1"), 1);
    }

    #[test]
    fn a_file_of_several_workers_is_read_once() {
        let mut app = sample::app();
        app.spec.logs.merge = true;
        for worker in &mut app.workers {
            worker.logs =
                LogFiles { out: "/out".into(), err: LogFiles::NOWHERE.into(), combined: None };
        }
        let selection = Selection::parse(&[]).unwrap();
        let sources = logs(&[]).sources(&[app.clone()], &selection);
        assert_eq!((sources.len(), sources[0].instance), (1, None));
        for worker in &mut app.workers {
            worker.logs.out = LogFiles::NOWHERE.into();
            worker.logs.combined = Some("/all".into());
        }
        assert_eq!(logs(&[]).sources(&[app], &selection)[0].path, PathBuf::from("/all"));
    }

    #[test]
    fn options_are_those_that_people_type() {
        let typed = logs(&["-f", "-n", "50", "--since", "5m", "-t", "web"]);
        assert_eq!(
            (typed.lines, typed.follow, typed.targets),
            (Some(50), true, vec!["web".to_owned()])
        );
        assert!(typed.timestamp.is_some() && typed.since.is_some());
        assert_eq!(logs(&["--tail", "all"]).lines, Some(usize::MAX));
        assert_eq!(
            logs(&["--since", "-1h", "--timestamps=HH"]).timestamp.unwrap().to_string(),
            "HH"
        );
    }

    #[test]
    fn lines_are_shown_in_the_order_in_which_they_came() {
        let past = |lines: &[(u64, &str)]| Past {
            lines: lines
                .iter()
                .map(|(at, text)| Line { at: *at, text: text.as_bytes().into() })
                .collect(),
            ..Past::default()
        };
        let mut found = [past(&[(1, "a"), (5, "d"), (5, "e")]), past(&[(2, "b"), (4, "c")])];
        let order: String =
            merged(&mut found).map(|(_, line)| String::from_utf8(line.text).unwrap()).collect();
        assert_eq!(order, "abcde");
    }

    pub(in super::super) fn source(path: &str) -> Source {
        Source {
            path: path.into(),
            app: AppId(0),
            name: "web".to_owned(),
            instance: Some(Instance(1)),
            stream: Stream::Out,
        }
    }

    pub(in super::super) fn printed(printer: &Printer) -> String {
        String::from_utf8_lossy(&printer.pending).replace("0|web:1 | ", "")
    }
}
