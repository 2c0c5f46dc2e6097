//! The command line: one file per command, and the few that all of them share.

mod apply;
mod command;
mod completion;
mod counted;
mod daemon;
mod delete;
mod describe;
mod diff;
mod doctor;
mod env;
mod error;
mod events;
pub mod exit;
mod flush;
mod follow;
mod groups;
#[cfg(test)]
mod help;
mod history;
mod human;
mod id;
mod import;
mod init;
mod jlist;
mod kill;
mod lab;
mod later;
mod launch;
mod list;
mod logs;
mod man;
mod metrics;
mod output;
mod past;
mod pid;
mod ping;
mod pm2;
mod policy;
mod printer;
mod promote;
mod reload;
mod reload_logs;
mod report;
mod reset;
mod restart;
mod resurrect;
mod runtime;
#[cfg(test)]
mod sample;
mod save;
mod scale;
mod schema;
mod selection;
mod send;
mod serve;
mod session;
mod signal;
mod sort;
mod start;
mod start_or;
mod startup;
mod stop;
mod table;
mod tail;
mod takeover;
mod upgrade;
mod verb;
mod when;
mod version;

use std::{ffi::OsString, process::ExitCode};

use clap::{CommandFactory as _, FromArgMatches as _, error::ErrorKind};

pub use self::command::Cli;
use self::exit::Exit;

/// The definition of the command line, for help, completions and manual pages.
pub fn command() -> clap::Command {
    groups::arrange(Cli::command())
}

/// Reads a command line, the program's name first. Help and mistakes are printed here, and so is what a shell
/// wants to offer.
///
/// # Errors
/// What to exit with when there is nothing to run.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, Exit> {
    let args = runtime::by_name(args.into_iter().collect());
    match completion::answer(&args) {
        Ok(false) => {}
        Ok(true) => return Err(Exit::Done),
        Err(error) => {
            output::usage(&error);
            return Err(Exit::Usage);
        }
    }
    // Groups take a look at every command, which the usual call need not wait for.
    let overview =
        args.get(1).is_none_or(|word| ["-h", "--help", "help"].iter().any(|it| word == it));
    let definition = if overview { command() } else { Cli::command() };
    let read = definition.try_get_matches_from(args);
    let read = read.and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches));
    read.map_err(|error| {
        if let Some(answer) = later::answer(&error) {
            output::error(&answer);
            return answer.exit;
        }
        output::usage(&error);
        let asked = [ErrorKind::DisplayHelp, ErrorKind::DisplayVersion];
        if asked.contains(&error.kind()) { Exit::Done } else { Exit::Usage }
    })
}

/// Runs a command line and prints why, when it fails.
pub fn run(cli: Cli) -> ExitCode {
    output::choose(cli.silent, cli.no_color);
    match cli.command.run() {
        Ok(()) => Exit::Done.into(),
        Err(error) => {
            output::error(&error);
            error.code.map_or_else(|| error.exit.into(), ExitCode::from)
        }
    }
}
