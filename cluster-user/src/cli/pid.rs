//! `cluster pid`.

use clap::Args;

use super::{
    error::Error,
    output,
    selection::Selection,
    session::{Session, block_on},
};
use crate::api::message::Detail;

/// Prints the process ids of workers, one a line
#[derive(Args, Debug)]
#[command(after_help = "Example: kill -USR1 $(cluster pid web)

With --json: an array of numbers")]
pub(super) struct Pid {
    /// Names, ids, NAME:INSTANCE, namespaces, `all`, or /REGEX/; all when left out
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Pid {
    pub(super) fn run(self) -> Result<(), Error> {
        let selection = Selection::parse(&self.targets)?;
        let session = Session::new()?;
        let apps = block_on(session.needed_apps(&self.targets, Detail::Usual))?;
        let pids: Vec<u32> =
            selection.workers(&apps).filter_map(|(_, worker)| worker.pid).collect();
        if self.json {
            return Ok(output::json(&pids)?);
        }
        if pids.is_empty() {
            return Err(Error::failed("no worker of that is running"));
        }
        let lines: Vec<String> = pids.iter().map(u32::to_string).collect();
        Ok(output::answer(&lines.join("\n"))?)
    }
}
