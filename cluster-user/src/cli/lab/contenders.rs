//! Contenders: whether `cluster start` will take what an experiment says of them, before anything begins.

use std::ffi::OsString;

use clap::Parser as _;
use cluster_lab::{contender::Contender, experiment::Experiment};

use crate::{
    cli::{
        command::{Cli, Command},
        error::Error,
        exit::Exit,
    },
    config::resolve::Surroundings,
};

/// Checks all of them, with every number of workers.
///
/// # Errors
/// Names the one that cannot be started, and what is wrong with it.
pub(super) fn check(experiment: &Experiment) -> Result<(), Error> {
    let around = Surroundings::here()?;
    let script: OsString = match &experiment.app {
        Some(app) => app.into(),
        None => std::env::current_exe().unwrap_or_else(|_gone| "/proc/self/exe".into()).into(),
    };
    for contender in &experiment.policies {
        for workers in &experiment.workers {
            let Some(options) = contender.options(*workers, experiment.pin_workers) else {
                continue;
            };
            let words = ["cluster".into(), "start".into(), script.clone()];
            let line = words.into_iter().chain(options);
            try_start(line, &around).map_err(|error| refuse(contender, error))?;
        }
    }
    Ok(())
}

fn try_start(line: impl Iterator<Item = OsString>, around: &Surroundings) -> Result<(), Error> {
    let cli = Cli::try_parse_from(line).map_err(|error| {
        let text = error.to_string();
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let first = lines.next().unwrap_or_default();
        let mistake = Error::usage(first.strip_prefix("error: ").unwrap_or(first));
        let tip = lines.find_map(|line| line.strip_prefix("tip: "));
        mistake.hint(tip.unwrap_or("cluster help start shows all options"))
    })?;
    let Command::Start(start) = cli.command else {
        return Err(Error::usage("it is not for cluster start"));
    };
    start.check(around)
}

fn refuse(contender: &Contender, error: Error) -> Error {
    let message = format!("policy `{contender}`: {}", error.message);
    Error { message, exit: Exit::Usage, ..error }
}
