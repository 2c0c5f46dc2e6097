//! `cluster delete`.

use clap::Args;

use super::{
    error::Error,
    output,
    session::Doing,
    verb::{self, Verb},
};
use crate::api::message::Request;

/// Stops apps and forgets them
#[derive(Args, Debug)]
#[command(after_help = "Example: cluster delete web")]
pub(super) struct Delete {
    #[command(flatten)]
    verb: Verb,
}

impl Delete {
    pub(super) fn run(self) -> Result<(), Error> {
        // Afterwards nobody knows their names.
        let apps = self.verb.apps()?;
        let doing = Doing { verb: "deleting", reached: "gone" };
        let done = self.verb.carry_out(Request::Delete, doing)?;
        if self.verb.json {
            return self.verb.show(done);
        }
        Ok(output::answer(&match apps.as_slice() {
            [] => "there is no app".to_owned(),
            apps => format!("deleted {}", verb::names(apps)),
        })?)
    }
}
