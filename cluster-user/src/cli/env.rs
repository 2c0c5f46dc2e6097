//! `cluster env`.

use std::{borrow::Cow, collections::BTreeMap};

use clap::Args;

use super::{
    error::Error,
    human, output,
    selection::Selection,
    session::{Session, block_on},
};
use crate::{api::message::Detail, config::secret};

/// Prints the environment of a worker, sorted
#[derive(Args, Debug)]
#[command(after_help = "Example: cluster env web:2

Values of secrets are hidden: of variables with names such as API_KEY, DB_PASSWORD or TOKEN,
passwords in URLs, and keys of well-known services.

With --json: an object")]
pub(super) struct Env {
    /// Name or id of an app (its first worker), or NAME:INSTANCE
    #[arg(value_name = "TARGET")]
    target: String,

    /// Show the values of secrets too
    #[arg(long, visible_alias = "reveal")]
    show_secrets: bool,

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
        let mut hidden = 0;
        let env: BTreeMap<&str, Cow<'_, str>> = env
            .into_iter()
            .map(|(key, value)| {
                let shown =
                    if self.show_secrets { value.into() } else { secret::shown(key, value) };
                hidden += usize::from(shown != value);
                (key, shown)
            })
            .collect();
        if hidden > 0 {
            let values = if hidden == 1 { "1 value is" } else { &format!("{hidden} values are") };
            output::quiet(&format!("{values} hidden; --show-secrets shows everything"));
        }
        if self.json {
            return Ok(output::json(&env)?);
        }
        let lines: Vec<String> =
            env.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
        Ok(output::raw(lines.concat().as_bytes())?)
    }
}
