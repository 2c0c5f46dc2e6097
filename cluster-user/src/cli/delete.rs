//! `cluster delete`.

use clap::Args;

use super::{error::Error, human, output, session::Doing, verb::Verb};
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
        let doing = Doing { verb: "deleting", reached: "gone" };
        let done = self.verb.carry_out(Request::Delete, doing)?;
        if self.verb.json {
            return self.verb.show(done);
        }
        let names: Vec<_> = done.deleted.iter().map(|name| human::plain(name)).collect();
        let what = if names.is_empty() {
            "there is no app".to_owned()
        } else {
            format!("deleted {}", names.join(", "))
        };
        Ok(output::answer(&what)?)
    }
}
