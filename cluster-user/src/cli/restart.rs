//! `cluster restart`.

use clap::Args;

use super::{error::Error, session::Doing, verb::Verb};
use crate::api::message::Request;

/// Stops and starts workers again; starts stopped and errored ones
#[derive(Args, Debug)]
#[command(after_help = "Example: cluster restart all")]
pub(super) struct Restart {
    #[command(flatten)]
    verb: Verb,
}

impl Restart {
    pub(super) fn run(self) -> Result<(), Error> {
        let doing = Doing { verb: "restarting", reached: "ready" };
        let done = self.verb.carry_out(Request::Restart, doing)?;
        self.verb.show(done)
    }
}
