//! The only place that prints: answers to standard output, everything else to standard error.
//!
//! Colours only where a terminal shows them and neither `NO_COLOR` nor `CLICOLOR=0` is set.

use std::{
    io::{self, BufWriter, IsTerminal as _, Write as _},
    sync::atomic::{AtomicBool, Ordering},
};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::{error::Error, human};
use crate::api::message::Notice;

const ERROR: Style = AnsiColor::Red.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default().bold();
const NOTE: Style = AnsiColor::Yellow.on_default().bold();
const DIM: Style = Style::new().dimmed();

/// A mistake of a megabyte is not repeated in full.
const LONGEST_MISTAKE: usize = 400;

/// Whether what is said in passing is not said.
static SILENT: AtomicBool = AtomicBool::new(false);

/// Has nothing said but answers and errors, or everything without colour.
pub(super) fn choose(silent: bool, no_color: bool) {
    SILENT.store(silent, Ordering::Relaxed);
    if no_color {
        ColorChoice::Never.write_global();
    }
}

/// Prints a text as the answer.
///
/// # Errors
/// When it cannot be written; [`Error`] makes silence of a closed pipe.
pub(super) fn answer(text: &str) -> io::Result<()> {
    let mut stdout = anstream::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    if !text.is_empty() && !text.ends_with('\n') {
        stdout.write_all(b"\n")?;
    }
    stdout.flush()
}

/// Prints a value as the answer, in JSON.
///
/// # Errors
/// As [`answer`].
pub(super) fn json<T: Serialize>(value: &T) -> io::Result<()> {
    let mut stdout = BufWriter::new(io::stdout().lock());
    serde_json::to_writer_pretty(&mut stdout, value)?;
    stdout.write_all(b"\n")?;
    stdout.flush()
}

/// Prints a value as one line of JSON.
///
/// # Errors
/// As [`answer`].
pub(super) fn json_line<T: Serialize>(value: &T) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    serde_json::to_writer(&mut stdout, value)?;
    stdout.write_all(b"\n")?;
    stdout.flush()
}

/// Prints bytes as they are: what workers wrote.
///
/// # Errors
/// As [`answer`].
pub(super) fn raw(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// Prints bytes as they are, to standard error: what workers wrote there.
///
/// # Errors
/// As [`answer`].
pub(super) fn raw_aside(bytes: &[u8]) -> io::Result<()> {
    let mut stderr = io::stderr().lock();
    stderr.write_all(bytes)?;
    stderr.flush()
}

/// Whether answers are coloured.
pub(super) fn colour() -> bool {
    AutoStream::choice(&io::stdout()) != ColorChoice::Never
}

/// Columns of the terminal that answers go to; `None` when it is none.
pub(super) fn width() -> Option<usize> {
    let (width, _) = terminal_size::terminal_size_of(io::stdout())?;
    // Some terminals of test tools say 0.
    Some(usize::from(width.0)).filter(|width| *width > 0)
}

/// Says something in passing.
pub(super) fn quiet(text: &str) {
    if SILENT.load(Ordering::Relaxed) {
        return;
    }
    say(&format!("{DIM}{text}{DIM:#}"));
}

/// Says what the user should know.
pub(super) fn notice(notice: &Notice) {
    if SILENT.load(Ordering::Relaxed) {
        return;
    }
    say(&format!("{NOTE}note:{NOTE:#} {}", notice.message));
    if let Some(hint) = &notice.hint {
        say(&format!("{HINT}hint:{HINT:#} {hint}"));
    }
}

/// Says why a command failed.
pub(super) fn error(error: &Error) {
    if error.message.is_empty() {
        return;
    }
    say(&format!("{ERROR}error:{ERROR:#} {}", error.message));
    for line in &error.output {
        say(&format!("  {DIM}|{DIM:#} {}", human::written(line)));
    }
    if let Some(hint) = &error.hint {
        say(&format!("{HINT}hint:{HINT:#} {hint}"));
    }
}

/// Prints help, or a mistake in the command line.
pub(super) fn usage(error: &clap::Error) {
    if !error.use_stderr() {
        // Help; if the reader is gone, nobody misses it.
        drop(error.print());
        return;
    }
    let text = error.render().ansi().to_string();
    let lines =
        text.trim_end().lines().map(|line| match line.char_indices().nth(LONGEST_MISTAKE) {
            Some((end, _)) => format!("{}…", &line[..end]),
            None => line.to_owned(),
        });
    say(&lines.collect::<Vec<_>>().join("\n"));
}

/// A line that shows how far something is; `None` when nobody watches.
pub(super) fn spinner() -> Option<ProgressBar> {
    if !io::stderr().is_terminal() || SILENT.load(Ordering::Relaxed) {
        return None;
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(std::time::Duration::from_millis(100));
    Some(bar)
}

/// A bar of so many steps, with room for a message; `None` when nobody watches.
pub(super) fn bar(steps: usize) -> Option<ProgressBar> {
    if !io::stderr().is_terminal() || SILENT.load(Ordering::Relaxed) {
        return None;
    }
    let bar = ProgressBar::new(u64::try_from(steps).unwrap_or_default());
    if let Ok(style) = ProgressStyle::with_template("{bar:24.cyan} {pos}/{len} {wide_msg}") {
        bar.set_style(style);
    }
    Some(bar)
}

fn say(text: &str) {
    // If standard error is gone, there is nobody to tell.
    drop(writeln!(anstream::stderr().lock(), "{text}"));
}
