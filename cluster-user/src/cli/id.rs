//! `cluster id`.

use clap::Args;

use super::{
    error::Error,
    output,
    selection::Selection,
    session::{Session, block_on},
};
use crate::{api::message::Detail, id::AppId};

/// Prints the ids of apps, one a line
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cluster id web      as in PM2: the number by which web may be called too

With --json: an array of numbers")]
pub(super) struct Id {
    /// Names, namespaces, `all`, or /REGEX/; all when left out
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Id {
    pub(super) fn run(self) -> Result<(), Error> {
        Selection::parse(&self.targets)?;
        let session = Session::new()?;
        let apps = block_on(session.needed_apps(&self.targets, Detail::Usual))?;
        let ids: Vec<AppId> = apps.iter().map(|app| app.id).collect();
        if self.json {
            return Ok(output::json(&ids)?);
        }
        let lines: Vec<String> = ids.iter().map(AppId::to_string).collect();
        Ok(output::answer(&lines.join("\n"))?)
    }
}
