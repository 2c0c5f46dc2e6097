//! `cluster flush`.

use clap::Args;

use super::{
    error::Error,
    output,
    session::Doing,
    verb::{self, Verb},
};
use crate::api::message::Request;

/// Empties the log files of apps
#[derive(Args, Debug)]
#[command(after_help = "Example: cluster flush all")]
pub(super) struct Flush {
    #[command(flatten)]
    verb: Verb,
}

impl Flush {
    pub(super) fn run(self) -> Result<(), Error> {
        let doing = Doing { verb: "flushing", reached: "flushed" };
        let done = self.verb.carry_out(Request::Flush, doing)?;
        if self.verb.json {
            return self.verb.show(done);
        }
        Ok(output::answer(&format!("emptied the logs of {}", verb::names(&done.apps)))?)
    }
}
