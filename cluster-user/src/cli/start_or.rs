//! `cluster startOrReload` and `cluster startOrRestart`, as deployment scripts call them.

use clap::Args;

use super::{
    apply::{self, File, How, Wish},
    error::Error,
    list, output,
    session::{Session, block_on},
};
use crate::config::{file::Select, pace::Pace, resolve::Surroundings};

/// Starts the apps of a file that do not run, and reloads or restarts those that do
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cluster startOrReload ecosystem.config.js --env production
  cluster startOrRestart cluster.toml --only web

Apps that run and are defined otherwise now are always reloaded, without a connection lost.")]
#[expect(clippy::struct_excessive_bools, reason = "each is one option of the command line")]
pub(super) struct StartOr {
    /// File of apps, or `-` for standard input
    #[arg(value_name = "FILE")]
    file: String,

    /// Which of the file's environments
    #[arg(long, value_name = "NAME")]
    env: Option<String>,

    /// Only these apps of it
    #[arg(long, value_name = "APP,…", value_delimiter = ',')]
    only: Vec<String>,

    /// Give the workers the environment of this command
    #[arg(short = 'a', long)]
    update_env: bool,

    /// Take over from a reload that is under way
    #[arg(short, long)]
    force: bool,

    /// Return at once
    #[arg(long)]
    no_wait: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl StartOr {
    pub(super) fn run(self, wish: Wish) -> Result<(), Error> {
        let select = Select { only: self.only, env: self.env };
        let file = File { select, update_env: self.update_env, ..File::new(&self.file) };
        let how = How { wait: !self.no_wait, pace: Pace::default(), force: self.force };
        run(&[file], wish, how, self.json)
    }
}

/// Applies files, and shows the apps as they are then.
///
/// # Errors
/// When a file makes no sense, or what it asks for fails.
pub(super) fn run(files: &[File], wish: Wish, how: How, json: bool) -> Result<(), Error> {
    let (session, around) = (Session::new()?, Surroundings::here()?);
    block_on(async {
        let mut plans = Vec::new();
        for file in files {
            plans.extend(file.plans(&session, &around, wish).await?);
        }
        let apps = apply::carry_out(&session, plans, how).await?;
        if json {
            return Ok(output::json(&list::shared(apps))?);
        }
        Ok(output::answer(&list::table(&apps, false))?)
    })
}
