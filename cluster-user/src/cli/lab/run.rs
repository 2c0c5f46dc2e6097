//! `cluster lab run`.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use clap::Args;
use cluster_lab::{
    experiment::Experiment,
    preset, report,
    results::{Record, Results},
    run::{self, Order},
    table,
    verdict::Verdict,
};
use nix::sys::signal::{SigSet, Signal};

use super::{audience::Screen, contenders, options::Changes};
use crate::{
    api::message::Notice,
    cli::{error::Error, output},
};

/// Runs an experiment, and writes a table, JSON, CSV, and a report in HTML
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cluster lab run --preset tail --quick             does it work here?
  cluster lab run experiment.toml --out results     into this folder; --resume goes on
  cluster lab run --preset frozen --policy none,least-conn --seed 1,2,3,4,5
  cluster lab run --app 'node app.js' --port 3000 --path / --rate 500 --policy plain,default

Each point is a run in a network of its own, with a daemon of its own, and nothing is left of it. Of
the policies, `none` is the kernel's hash and `shared` one queue for all workers, both without
cluster; `default` is cluster without any option, and `least-conn --shed 8` one with options.

Latency counts from when a request was due. A point whose generator was late is no result, and it is
said. What has been measured stays in OUT/raw, one file per point.")]
#[expect(clippy::struct_excessive_bools, reason = "each is one option of the command line")]
pub(super) struct Run {
    /// The experiment, as TOML; by default one that --print shows
    #[arg(conflicts_with = "preset")]
    file: Option<PathBuf>,

    /// An experiment that is ready: tail, frozen, bimodal, reload, scale, overload, or affinity
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,

    /// Folder of the results; by default lab-NAME
    #[arg(short, long, value_name = "FOLDER")]
    out: Option<PathBuf>,

    /// Go on with the results that are there already
    #[arg(long)]
    resume: bool,

    /// Every point once, and short: whether it works, no more
    #[arg(long)]
    quick: bool,

    /// Show the experiment as TOML, and run nothing
    #[arg(long)]
    print: bool,

    /// Print the results as JSON, too
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    changes: Changes,
}

impl Run {
    pub(super) fn run(self) -> Result<(), Error> {
        let mut experiment = match (&self.file, &self.preset) {
            (Some(file), _) => Experiment::read(file)?,
            (None, Some(name)) => preset::named(name)?.experiment()?,
            (None, None) => Experiment::default(),
        };
        let is_load_said = self.changes.says_load();
        self.changes.apply(&mut experiment);
        if self.quick {
            experiment = experiment.quick();
        }
        experiment.check().map_err(|refusal| Changes::reword(is_load_said, refusal))?;
        contenders::check(&experiment)?;
        if self.print {
            return Ok(output::answer(&experiment.to_toml())?);
        }
        if self.file.is_none() && self.preset.is_none() {
            output::quiet(&format!("the default experiment: {}", experiment.summary()));
            output::quiet("--print shows all of it; a FILE or --preset NAME is another one");
        }
        let (points, takes) = run::estimate(&experiment)?;
        let minutes = takes.as_secs() / 60;
        output::quiet(&format!(
            "{points} points, {minutes} min {} s or more",
            takes.as_secs() % 60
        ));
        let out =
            self.out.unwrap_or_else(|| PathBuf::from(format!("lab-{}", file_name(&experiment))));
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let order = Order { experiment, out, resume: self.resume, version };
        let is_enough = heed_signals()?;
        let mut screen = Screen::default();
        let results = run::run(&order, &mut screen, &is_enough);
        screen.end();
        show(&order, &results?, self.json)
    }
}

fn show(order: &Order, results: &Results, json: bool) -> Result<(), Error> {
    let [json_file, csv_file] = results.write(&order.out)?;
    let report_file = order.out.join("report.html");
    let report = report::html(results).map_err(|error| Error::failed(format!("{error:#}")))?;
    std::fs::write(&report_file, report).map_err(|error| {
        Error::failed(format!("failed to write {}: {error}", report_file.display()))
    })?;
    if json {
        output::json(results)?;
    } else {
        output::answer(&table::shown(results, super::width()))?;
    }
    for line in table::missing(results) {
        output::notice(&Notice { message: format!("no result: {line}"), hint: None });
    }
    for message in table::doubts(results) {
        output::notice(&Notice { message, hint: None });
    }
    output::quiet(&format!(
        "times in ms, means over the seeds; ×: mean in proportion to the first; lag, overrun: p99; {}, {}, {}",
        report_file.display(),
        json_file.display(),
        csv_file.display()
    ));
    if results.records.iter().all(|record| record.verdict.outcome().is_none()) {
        return Err(Error::failed("nothing could be measured"));
    }
    let failed = |record: &&Record| matches!(record.verdict, Verdict::Failed(_));
    match results.records.iter().filter(failed).count() {
        0 => Ok(()),
        failed => {
            Err(Error::failed(format!("{failed} of {} points failed", results.records.len()))
                .hint("--resume tries them again"))
        }
    }
}

/// Notes it when the user has had enough, instead of ending at once: what was started is to be ended first.
fn heed_signals() -> Result<Arc<AtomicBool>, Error> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    // Before there is any other thread, so that it holds for all of them.
    signals
        .thread_block()
        .map_err(|error| Error::failed(format!("failed to block signals: {error}")))?;
    let is_enough = Arc::new(AtomicBool::new(false));
    let noted = Arc::clone(&is_enough);
    // Not joined: it waits for as long as the program runs.
    let _waiting = thread::spawn(move || {
        if signals.wait().is_ok() {
            noted.store(true, Ordering::SeqCst);
        }
    });
    Ok(is_enough)
}

fn file_name(experiment: &Experiment) -> String {
    let plain = |letter: char| if letter.is_alphanumeric() { letter } else { '-' };
    experiment.name.chars().take(40).map(plain).collect()
}
