//! `cluster promote` and `cluster rollback`: what becomes of a canary.

use clap::Args;

use super::{error::Error, reload, selection::Selection, session::Session};
use crate::api::message::{Request, TargetsRequest};

/// Replaces all workers by the generation that a canary has shown
#[derive(Args, Debug)]
#[command(
    after_help = "Example: cluster reload web --canary 5%, and when all is well: cluster promote web"
)]
pub(super) struct Promote {
    #[command(flatten)]
    typed: Typed,
}

/// Turns a reload back; without one, goes back to what was deployed before
#[derive(Args, Debug)]
#[command(after_help = "Example: cluster rollback web

Program, arguments, environment and options go back. Files on disk do not: put the old code in its
place first, if the new one replaced it. A second rollback undoes the first.")]
pub(super) struct Rollback {
    #[command(flatten)]
    typed: Typed,
}

/// What was typed after the word.
#[derive(Args, Debug)]
struct Typed {
    /// Names, ids, namespaces, `all`, or /REGEX/
    #[arg(required = true, value_name = "TARGET")]
    targets: Vec<String>,

    /// Return at once
    #[arg(long)]
    no_wait: bool,

    /// Print each step as a line of JSON, as `cluster reload --json` does
    #[arg(long)]
    json: bool,
}

impl Promote {
    pub(super) fn run(self) -> Result<(), Error> {
        self.typed.run(Request::Promote, "promoting")
    }
}

impl Rollback {
    pub(super) fn run(self) -> Result<(), Error> {
        self.typed.run(Request::Rollback, "rolling back")
    }
}

impl Typed {
    fn run(
        self,
        request: impl FnOnce(TargetsRequest) -> Request,
        verb: &'static str,
    ) -> Result<(), Error> {
        Selection::parse(&self.targets)?.whole()?;
        let session = Session::new()?;
        let request = request(TargetsRequest { targets: self.targets, wait: !self.no_wait });
        reload::carry_out(&session, &request, verb, self.json)
    }
}
