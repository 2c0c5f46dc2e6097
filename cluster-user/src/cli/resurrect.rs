//! `cluster resurrect`.

use clap::Args;

use super::{
    error::Error,
    human, list, output,
    session::{Session, block_on},
};
use crate::{
    api::message::{Detail, Notice},
    config::home::Home,
    dump::{
        self, DumpError, Saved,
        resurrect::{End, Outcome, resurrect},
    },
};

/// Starts the apps that were saved and do not run
#[derive(Args, Debug)]
#[command(after_help = "Example: cluster resurrect

With --json: an array of all apps, in the shape of `cluster list --json`")]
pub(super) struct Resurrect {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Resurrect {
    pub(super) fn run(self) -> Result<(), Error> {
        let session = Session::new()?;
        let saved = read(&session.home)?;
        if saved.is_empty() {
            output::quiet("no app was saved: cluster save writes down those that run");
        }
        let of = saved.len();
        let (failed, apps) = block_on(async {
            // It starts the daemon if there is none.
            drop(session.connect_or_launch().await?);
            let mut failed = Vec::new();
            resurrect(&session.home, saved, |outcome| failed.extend(told(outcome))).await?;
            Ok((failed, session.apps(&[], Detail::Usual).await?.unwrap_or_default()))
        })?;
        if self.json {
            output::json(&list::shared(apps))?;
        } else {
            output::answer(&list::table(&apps, false))?;
        }
        if failed.is_empty() {
            return Ok(());
        }
        let names = failed.join(", ");
        Err(Error::failed(format!(
            "{} of {of} saved apps could not be started: {names}",
            failed.len()
        ))
        .hint("mend what is said of each, then: cluster resurrect"))
    }
}

/// Reads a dump, or says what to do about it.
fn read(home: &Home) -> Result<Saved, Error> {
    dump::read(home).map_err(|error| {
        let kept = dump::backup(home);
        let kept = kept.display();
        let has_kept = dump::backup(home).exists();
        let hint = match &error {
            DumpError::Absent { .. } | DumpError::Broken { .. } if has_kept => format!(
                "the one before it is {kept}: cp {kept} {}, then cluster resurrect",
                home.dump().display()
            ),
            DumpError::Absent { .. } => "cluster save writes down the apps that run".to_owned(),
            DumpError::Broken { .. } => "start the apps and save anew".to_owned(),
            DumpError::Newer { .. } => {
                "install that release of cluster, or start the apps and save anew".to_owned()
            }
            DumpError::Unreadable { .. } => "resurrect as the user whose daemon it is".to_owned(),
        };
        Error::failed(error.to_string()).hint(hint)
    })
}

/// Says what became of an app, and its name if it failed.
fn told(outcome: Outcome) -> Option<String> {
    for message in outcome.left_out() {
        let hint = Some("cluster save writes it down as it is now".to_owned());
        output::notice(&Notice { message: human::plain(&message), hint });
    }
    outcome.notices.iter().for_each(output::notice);
    let name = human::plain(&outcome.name);
    match outcome.end {
        End::Up => output::quiet(&format!("{name}: started")),
        End::Running => output::quiet(&format!("{name}: runs already")),
        End::Stopped => {
            output::quiet(&format!("{name}: was stopped when it was saved, and stays so"));
        }
        End::Failed(failure) => {
            let mut error = Error::from(failure);
            error.message = format!("app `{name}`: {}", error.message);
            output::error(&error);
            return Some(name);
        }
    }
    None
}
