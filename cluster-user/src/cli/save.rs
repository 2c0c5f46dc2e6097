//! `cluster save` and `cluster cleardump`.

use std::io;

use clap::Args;

use super::{
    error::Error,
    exit::Exit,
    output,
    session::{Session, block_on},
    verb,
};
use crate::{
    api::message::{AppView, Detail},
    config::home::Home,
    dump::{self, Dump},
};

/// Saves the apps as they are, for `resurrect` and for the next boot
#[derive(Args, Debug)]
#[command(after_help = "Example: cluster save

Writes dump.json in CLUSTER_HOME, which only its owner can read: the environments of the apps are in
it, secrets included. The one before it is kept as dump.json.bak. Apps that are stopped stay so.

Nothing is saved by itself: after a change that is to outlive a reboot, save again.")]
pub(super) struct Save {
    /// Save even when there is no app, or one that was saved and cannot be read would be lost
    #[arg(long, short)]
    force: bool,
}

/// Forgets the apps that were saved; those that run go on
#[derive(Args, Debug)]
#[command(after_help = "Example: cluster cleardump

What was saved is still in dump.json.bak afterwards.")]
pub(super) struct Cleardump {}

impl Save {
    pub(super) fn run(self) -> Result<(), Error> {
        let session = Session::new()?;
        let apps = block_on(session.apps(&[], Detail::Usual))?;
        let runs = apps.is_some();
        let apps = apps.unwrap_or_default();
        if apps.is_empty() && !self.force {
            let message = if runs {
                "there is no app to save"
            } else {
                "no daemon is running, so there is no app to save"
            };
            let exit = if runs { Exit::Failed } else { Exit::NoDaemon };
            return Err(Error::new(exit, message).hint(
                "what was saved before is kept; cluster save --force saves that there is none",
            ));
        }
        if !self.force {
            loses_nothing(&session.home, &apps)?;
        }
        let names = verb::names(&apps);
        let path = write(&session.home, &Dump::of(apps))?;
        if names.is_empty() {
            return Ok(output::answer(&format!("saved to {path} that there is no app"))?);
        }
        output::answer(&format!("saved {names} to {path}"))?;
        output::quiet("cluster resurrect starts them; cluster startup does so at every boot");
        Ok(())
    }
}

impl Cleardump {
    pub(super) fn run() -> Result<(), Error> {
        let home = Home::from_env()?;
        let path = write(&home, &Dump::of(Vec::new()))?;
        let kept = dump::backup(&home);
        let kept = if kept.exists() {
            format!("; what was is kept in {}", kept.display())
        } else {
            String::new()
        };
        Ok(output::answer(&format!("{path} has no app any more{kept}"))?)
    }
}

/// An app that was saved and cannot be read is not there, and would be saved no more.
fn loses_nothing(home: &Home, apps: &[AppView]) -> Result<(), Error> {
    // One that cannot be read at all is kept aside, and who resurrects has heard of it.
    let unread = dump::read(home).map(|saved| saved.unread).unwrap_or_default();
    let lost = unread.iter().find(|unread| apps.iter().all(|app| app.name != unread.name));
    let Some(lost) = lost else { return Ok(()) };
    let name = &lost.name;
    Err(Error::failed(format!("app `{name}` was saved and is not there: {}", lost.failure)).hint(
        format!(
            "mend {} and resurrect it, or start it, or cluster save --force does without it",
            home.dump().display()
        ),
    ))
}

/// Writes a dump, and says where to.
fn write(home: &Home, dump: &Dump) -> Result<String, Error> {
    // One that is there and cannot be written is said below.
    if !home.path().exists() {
        home.create()?;
    }
    let path = home.dump().display().to_string();
    dump::write(home, dump).map_err(|error| {
        let is = |kinds: &[io::ErrorKind]| kinds.contains(&error.kind());
        let step = if is(&[io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded]) {
            "make room on its disk"
        } else if is(&[io::ErrorKind::ReadOnlyFilesystem]) {
            "mount its disk for writing"
        } else {
            "see to it that its folder can be written"
        };
        Error::failed(format!("failed to save to {path}: {error}"))
            .hint(format!("{step}, and save again; what was saved before is as it was"))
    })?;
    Ok(path)
}
