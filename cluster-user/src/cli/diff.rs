//! `cluster diff`.

use clap::Args;

use super::{
    apply::{File, Plan, Wish, here},
    error::Error,
    output,
    session::{Session, block_on},
};
use crate::config::{file::Select, resolve::Surroundings};

/// Shows what `cluster start FILE` would change, and changes nothing
#[derive(Args, Debug)]
#[command(after_help = "Example: cluster diff ecosystem.config.js --env production

cluster start FILE does what is shown. cluster reload FILE does, too, and replaces the workers of
all apps of the file, as PM2's reload does; cluster restart FILE starts those anew that are defined
as they run.

Values of variables are not shown: + is new, ~ has another value, - is gone.")]
pub(super) struct Diff {
    /// File of apps, or `-` for standard input; by default the one in this folder
    #[arg(value_name = "FILE")]
    file: Option<String>,

    /// Which of the file's environments
    #[arg(long, value_name = "NAME")]
    env: Option<String>,

    /// Only these apps of it
    #[arg(long, value_name = "APP,…", value_delimiter = ',')]
    only: Vec<String>,

    /// As if workers got the environment of this command
    #[arg(long)]
    update_env: bool,
}

impl Diff {
    pub(super) fn run(self) -> Result<(), Error> {
        let around = Surroundings::here()?;
        let file = match &self.file {
            Some(file) => File::new(file),
            None => here(&around)?,
        };
        let select = Select { only: self.only, env: self.env };
        let file = File { select, update_env: self.update_env, ..file };
        let session = Session::new()?;
        let plans = block_on(file.plans(&session, &around, Wish::Start))?;
        let shown: String = plans.iter().map(Plan::shown).collect();
        output::answer(&shown)?;
        if plans.iter().any(|plan| !matches!(plan, Plan::Keep { .. })) {
            output::quiet(
                "next: cluster start with this file does that; cluster reload replaces all its workers, too",
            );
        }
        Ok(())
    }
}
