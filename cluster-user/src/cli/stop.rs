//! `cluster stop`.

use clap::Args;

use super::{error::Error, session::Doing, verb::Verb};
use crate::api::message::Request;

/// Stops workers: no new connections, what they have is finished, then the stop signal
#[derive(Args, Debug)]
#[command(after_help = "Example: cluster stop web api:2")]
pub(super) struct Stop {
    #[command(flatten)]
    verb: Verb,
}

impl Stop {
    pub(super) fn run(self) -> Result<(), Error> {
        let doing = Doing { verb: "stopping", reached: "stopped" };
        let done = self.verb.carry_out(Request::Stop, doing)?;
        self.verb.show(done)
    }
}
