//! `cluster env`.

use clap::Args;

use super::{
    error::Error,
    human, output,
    selection::Selection,
    session::{Session, block_on},
};
use crate::api::message::Detail;

/// Prints the environment of a worker, sorted
#[derive(Args, Debug)]
#[command(after_help = "Example: cluster env web:2

With --json: an object")]
pub(super) struct Env {
    /// Name or id of an app (its first worker), or NAME:INSTANCE
    #[arg(value_name = "TARGET")]
    target: String,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Env {
    pub(super) fn run(self) -> Result<(), Error> {
        let targets = [self.target];
        let selection = Selection::parse(&targets)?;
        let session = Session::new()?;
        let apps = block_on(session.needed_apps(&targets, Detail::Usual))?;
        let shown = human::plain(&targets[0]);
        let mut workers = selection.workers(&apps);
        let Some((app, worker)) = workers.next() else {
            return Err(Error::failed(format!("`{shown}` has no worker")));
        };
        if let Some((other, _)) = workers.find(|(other, _)| other.id != app.id) {
            let names =
                format!("`{}` and `{}`", human::plain(&app.name), human::plain(&other.name));
            return Err(Error::usage(format!("`{shown}` means more than one app: {names}"))
                .hint("name one of them"));
        }
        let mut env = app.spec.environment();
        env.extend(worker.env.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        if self.json {
            return Ok(output::json(&env)?);
        }
        let lines: Vec<String> =
            env.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
        Ok(output::raw(lines.concat().as_bytes())?)
    }
}
