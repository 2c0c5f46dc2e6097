//! `cluster reset`.

use clap::Args;

use super::{error::Error, session::Doing, verb::Verb};
use crate::api::message::Request;

/// Has the counters of restarts begin anew
#[derive(Args, Debug)]
#[command(after_help = "Example: cluster reset web")]
pub(super) struct Reset {
    #[command(flatten)]
    verb: Verb,
}

impl Reset {
    pub(super) fn run(self) -> Result<(), Error> {
        let doing = Doing { verb: "resetting", reached: "reset" };
        let done = self.verb.carry_out(Request::Reset, doing)?;
        self.verb.show(done)
    }
}
