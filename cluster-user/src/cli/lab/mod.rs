//! `cluster lab`: experiments with policies, and what they came to.

mod audience;
mod contenders;
mod inside;
mod options;
mod run;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use cluster_lab::{
    arena, compare,
    preset::{self, PRESETS, Preset},
    refusal::{self, Refusal},
    results::Results,
};

pub(super) use self::inside::{LabArena, LabWorker};
use self::run::Run;
use super::{error::Error, exit::Exit, output};

/// Compares policies: real workers, a load that is known, faults, and a report
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cluster lab run --preset frozen               one of four workers stands still
  cluster lab run experiment.toml --resume      goes on where it was interrupted
  cluster lab presets bimodal >experiment.toml  an experiment to change
  cluster lab compare before.json after.json    which differences are more than chance
  cluster lab clean                             nothing is left of runs that were killed")]
pub(super) struct Lab {
    #[command(subcommand)]
    command: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Run(Box<Run>),
    Presets(Presets),
    Compare(Compare),
    Clean(Clean),
}

/// Removes what is left of runs that were killed, as the next run does
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cluster lab clean

A run that ends or is interrupted leaves nothing but its results. Only when all its processes are
killed (kill -9) at once a folder and a cgroup are left. Runs that go on are not touched.")]
struct Clean {}

/// Lists the experiments that are ready, or shows one
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cluster lab presets         all of them
  cluster lab presets tail    one as TOML")]
struct Presets {
    /// Which one
    name: Option<String>,
}

/// Says which differences between two results are more than chance
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cluster lab compare lab-tail before/results.json   two runs of an experiment
  cluster lab compare lab-tail                       the policies of one, each with the first

Runs with the same seed are compared with each other: they had the same requests at the same times.
A difference counts when 1 is outside of the 95 % confidence interval of the ratio.")]
struct Compare {
    /// A results.json, or the folder it is in
    before: PathBuf,

    /// Another one
    after: Option<PathBuf>,

    /// Only differences that are more than chance
    #[arg(long)]
    significant: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Lab {
    pub(super) fn run(self) -> Result<(), Error> {
        match self.command {
            What::Run(command) => command.run(),
            What::Presets(command) => command.run(),
            What::Compare(command) => command.run(),
            What::Clean(Clean {}) => clean(),
        }
    }
}

fn clean() -> Result<(), Error> {
    let (removed, left) = arena::sweep();
    let text = match removed {
        0 if !left.is_empty() => String::new(),
        0 => "there was nothing to remove".to_owned(),
        1 => "removed what was left of 1 run".to_owned(),
        count => format!("removed what was left of {count} runs"),
    };
    if !text.is_empty() {
        output::answer(&text)?;
    }
    let left: Vec<_> = left.iter().map(|left| format!("{left:#}")).collect();
    if left.is_empty() {
        return Ok(());
    }
    Err(Error::failed(left.join("; ")).hint("end the processes in it, then: cluster lab clean"))
}

impl Presets {
    fn run(self) -> Result<(), Error> {
        if let Some(name) = self.name {
            return Ok(output::answer(preset::named(&name)?.toml)?);
        }
        let line = |preset: &Preset| format!("{:<10} {}", preset.name, preset.about);
        let text = PRESETS.iter().map(line).collect::<Vec<_>>().join("\n");
        Ok(output::answer(&text)?)
    }
}

impl Compare {
    fn run(self) -> Result<(), Error> {
        let before = Results::read(&self.before)?;
        let mut differences = match &self.after {
            Some(after) => compare::two(&before, &Results::read(after)?)?,
            None => compare::policies(&before)?,
        };
        if self.significant {
            differences.retain(|it| it.significant);
        }
        if self.json {
            return Ok(output::json(&differences)?);
        }
        if differences.is_empty() {
            output::quiet("no difference is more than chance: more seeds tell smaller ones");
            return Ok(());
        }
        Ok(output::answer(&compare::shown(&differences, width()))?)
    }
}

/// Columns of the terminal.
fn width() -> Option<u16> {
    output::width().and_then(|width| u16::try_from(width).ok())
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let exit = match refusal.kind {
            refusal::Kind::Usage => Exit::Usage,
            refusal::Kind::Failed | refusal::Kind::Interrupted => Exit::Failed,
        };
        // As a shell counts who is ended by SIGINT.
        let code = (refusal.kind == refusal::Kind::Interrupted).then_some(130);
        Self { code, hint: refusal.hint, ..Self::new(exit, refusal.message) }
    }
}
