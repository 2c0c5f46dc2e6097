//! The command line: one file per command, and the few that all of them share.

mod apply;
mod command;
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
#[cfg(test)]
mod help;
mod history;
mod human;
mod id;
mod import;
mod init;
mod jlist;
mod kill;
mod later;
mod launch;
mod list;
mod logs;
mod output;
mod past;
mod pid;
mod ping;
mod pm2;
mod printer;
mod promote;
mod reload;
mod reload_logs;
mod restart;
mod resurrect;
#[cfg(test)]
mod sample;
mod save;
mod scale;
mod schema;
mod selection;
mod send;
mod session;
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

use std::ffi::OsString;

use clap::{CommandFactory as _, Parser as _, error::ErrorKind};

pub use self::command::Cli;
use self::exit::Exit;

/// The definition of the command line, for help, completions and manual pages.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Reads a command line, the program's name first. Help and mistakes are printed here.
///
/// # Errors
/// What to exit with when there is nothing to run.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, Exit> {
    Cli::try_parse_from(args).map_err(|error| {
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
pub fn run(cli: Cli) -> Exit {
    match cli.command.run() {
        Ok(()) => Exit::Done,
        Err(error) => {
            output::error(&error);
            error.exit
        }
    }
}
