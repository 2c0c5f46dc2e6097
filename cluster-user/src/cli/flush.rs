//! `cluster flush`.

use clap::Args;

use super::{
    error::Error,
    output,
    session::Doing,
    verb::{self, Verb},
};
use crate::api::message::Request;

/// Empties the log files of apps, and removes what was rotated of them
#[derive(Args, Debug)]
#[command(after_help = "Example: cluster flush web")]
pub(super) struct Flush {
    /// Names, ids, NAME:INSTANCE, namespaces, `all`, or /REGEX/; all when left out
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,

    /// Print the apps concerned as JSON, in the shape of `cluster list --json`
    #[arg(long)]
    json: bool,
}

impl Flush {
    pub(super) fn run(self) -> Result<(), Error> {
        let doing = Doing { verb: "flushing", reached: "flushed" };
        let all = || vec!["all".to_owned()];
        let targets = if self.targets.is_empty() { all() } else { self.targets };
        let verb = Verb { targets, no_wait: false, json: self.json };
        let done = verb.carry_out(Request::Flush, doing)?;
        if verb.json {
            return verb.show(done);
        }
        if done.apps.is_empty() {
            output::quiet("no app has been started");
            return Ok(());
        }
        Ok(output::answer(&format!("emptied the logs of {}", verb::names(&done.apps)))?)
    }
}
