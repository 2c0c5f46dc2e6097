//! `cluster restart`.

use clap::Args;

use super::{
    apply::{self, File, How, Wish},
    error::Error,
    session::Doing,
    start_or,
    verb::Verb,
};
use crate::{api::message::Request, config::pace::Pace};

/// Stops and starts workers again; starts stopped and errored ones
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cluster restart all
  cluster restart ecosystem.config.js        its apps; those that have changed are reloaded")]
pub(super) struct Restart {
    #[command(flatten)]
    verb: Verb,
}

impl Restart {
    pub(super) fn run(self) -> Result<(), Error> {
        let files = apply::only_files(&self.verb.targets)?;
        if !files.is_empty() {
            let files: Vec<_> = files.into_iter().map(|file| File::new(file)).collect();
            let how = How { wait: !self.verb.no_wait, pace: Pace::default(), force: false };
            return start_or::run(&files, Wish::Restart, how, self.verb.json);
        }
        let doing = Doing { verb: "restarting", reached: "ready" };
        let done = self.verb.carry_out(Request::Restart, doing)?;
        self.verb.show(done)
    }
}
