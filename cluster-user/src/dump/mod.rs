//! What `save` writes down and `resurrect` starts: every app of a daemon, its environment included.
#![forbid(unsafe_code)]

mod file;
mod mend;
pub mod resurrect;

use serde::{Deserialize, Serialize};

pub use self::file::{DumpError, backup, read, write};
use crate::{
    api::message::{AppView, Failure, Status},
    config::spec::AppSpec,
};

/// Format of the file. A program reads those up to its own.
pub const FORMAT: u32 = 1;

/// Every app of a daemon, each as an `App`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dump<App = SavedApp> {
    /// [`FORMAT`] of the program that wrote it.
    pub format: u32,
    /// Its release.
    pub release: String,
    /// The apps, in the order of their ids.
    pub apps: Vec<App>,
}

/// What can be made of a dump.
#[derive(Debug, Default)]
pub struct Saved {
    /// The apps, in the order of their ids.
    pub apps: Vec<SavedApp>,
    /// Those that this program cannot read.
    pub unread: Vec<Unread>,
}

/// An app of a dump that cannot be read: the others are not to wait for it to be mended.
#[derive(Debug)]
pub struct Unread {
    /// Its name, or where it is in the dump.
    pub name: String,
    /// Why it cannot be started.
    pub failure: Failure,
}

/// An app as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedApp {
    /// Whether somebody had stopped it. It is not started again then.
    pub stopped: bool,
    /// What it is; `instances` is how many workers were wanted.
    pub spec: AppSpec,
}

impl Dump {
    /// Those apps, to be written by this program.
    pub fn of(apps: Vec<AppView>) -> Self {
        let apps = apps.into_iter().map(SavedApp::of).collect();
        Self { format: FORMAT, release: env!("CARGO_PKG_VERSION").to_owned(), apps }
    }
}

impl Saved {
    /// How many apps were saved.
    pub fn len(&self) -> usize {
        self.apps.len() + self.unread.len()
    }

    /// Whether no app was.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl SavedApp {
    fn of(app: AppView) -> Self {
        let stopped = is_stopped(&app);
        Self { stopped, spec: AppSpec { instances: app.instances, ..app.spec } }
    }
}

/// Whether no worker runs, or is to. One that was given up is none of them: it gets another chance.
fn is_stopped(app: &AppView) -> bool {
    app.workers.iter().all(|worker| match worker.status {
        Status::Stopped => true,
        Status::Starting
        | Status::Ready
        | Status::Online
        | Status::Draining
        | Status::Stopping
        | Status::Backoff
        | Status::Errored => false,
    })
}
