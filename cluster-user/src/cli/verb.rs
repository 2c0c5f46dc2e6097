//! What `stop`, `restart`, `delete` and `flush` have in common: targets, waiting, and the table afterwards.

use clap::Args;

use super::{
    error::Error,
    list, output,
    selection::Selection,
    session::{Doing, Session, block_on},
};
use crate::api::message::{AppView, Done, Request, TargetsRequest};

/// What was typed after the verb.
#[derive(Args, Debug)]
pub(super) struct Verb {
    /// Names, ids, NAME:INSTANCE, namespaces, `all`, /REGEX/, or a file of apps
    #[arg(required = true, value_name = "TARGET")]
    pub(super) targets: Vec<String>,

    /// Return at once
    #[arg(long)]
    pub(super) no_wait: bool,

    /// Print the apps concerned as JSON, in the shape of `cluster list --json`
    #[arg(long)]
    pub(super) json: bool,
}

impl Verb {
    /// Has it carried out by a daemon that must be there.
    pub(super) fn carry_out(
        &self,
        request: impl FnOnce(TargetsRequest) -> Request,
        doing: Doing,
    ) -> Result<Done, Error> {
        let targets = super::apply::targets(&self.targets)?;
        Selection::parse(&targets)?;
        let session = Session::new()?;
        let request = request(TargetsRequest { targets, wait: !self.no_wait });
        block_on(async {
            let mut client = session.connect().await?;
            session.carry_out(&mut client, &request, doing).await
        })
    }

    /// Shows the apps concerned.
    pub(super) fn show(&self, done: Done) -> Result<(), Error> {
        if self.json {
            return Ok(output::json(&list::shared(done.apps))?);
        }
        Ok(output::answer(&list::table(&done.apps, false))?)
    }
}

/// The names of apps, for a sentence.
pub(super) fn names(apps: &[AppView]) -> String {
    let names: Vec<String> = apps.iter().map(|app| super::human::plain(&app.name)).collect();
    names.join(", ")
}
