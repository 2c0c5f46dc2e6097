//! What the core announces, in the words of the API.

use super::run::Supervisor;
use crate::{
    api::{
        board::Note,
        message::{Subject, What},
    },
    config::{duration, size, spec::recycle::Worn},
    datapath::Mode,
    state::{
        announcement::{Announcement, What as Core},
        deployment::{Kind, Outcome},
        view::Status,
    },
};

impl Supervisor {
    /// Posts what the core announces.
    pub(super) fn announce(&self, announcement: Announcement) {
        let Announcement { app, name, namespace, about, what } = announcement;
        let (what, detail) = told(what, self.host.datapath.mode());
        self.host.board.post(Note {
            what,
            app: Some(Subject { id: app, name, namespace }),
            instance: about.map(|about| about.instance),
            generation: about.map(|about| about.generation),
            pid: about.and_then(|about| about.pid),
            detail,
            data: None,
        });
    }
}

fn told(what: Core, mode: Mode) -> (What, Option<String>) {
    let kind = |kind: Kind| match kind {
        Kind::Reload => "reload",
        Kind::Rollback => "rollback",
    };
    match what {
        Core::Started => (What::AppStarted, None),
        Core::Deleted => (What::AppDeleted, None),
        Core::Scaled { to: 1 } => (What::AppScaled, Some("to 1 worker".to_owned())),
        Core::Scaled { to } => (What::AppScaled, Some(format!("to {to} workers"))),
        Core::Scheduled { scheduling } => (What::AppScheduled, Some(scheduling.to_string())),
        Core::NotScheduled { why } => {
            (What::Trouble, Some(format!("its policy is not to be had: {why}")))
        }
        Core::Deploying { generation, kind: of, who } => {
            let detail = format!("{} to generation {generation}, by {who}", kind(of));
            (What::ReloadBegun, Some(detail))
        }
        Core::Deployed { generation, kind: of, outcome, took } => {
            let took = duration::format(took);
            let subject = format!("{} to generation {generation}, after {took}", kind(of));
            match outcome {
                Outcome::Done => (What::ReloadDone, Some(subject)),
                Outcome::Failed { instance, why } => {
                    (What::ReloadFailed, Some(format!("{subject}: worker {instance} {why}")))
                }
                Outcome::RolledBack { who } => {
                    (What::RolledBack, Some(format!("{subject}, by {who}")))
                }
                Outcome::Superseded => {
                    let detail = format!("{subject}: another command took its place");
                    (What::ReloadSuperseded, Some(detail))
                }
            }
        }
        Core::Phase(status) => (phase(status), None),
        Core::Worn(Worn::Memory { used, max }) => {
            let detail = format!(
                "it uses {} of memory, more than {}",
                size::format(used),
                size::format(max)
            );
            (What::WorkerWorn, Some(detail))
        }
        Core::Worn(Worn::Lifetime { lived }) => {
            (What::WorkerWorn, Some(format!("it has served for {}", duration::format(lived))))
        }
        Core::Silent { silence } => {
            let silence = duration::format(silence);
            let follows = match mode {
                Mode::Kernel => "new connections go to others",
                Mode::Plain => "plain mode cannot keep connections away from it",
            };
            (What::WorkerSilent, Some(format!("no WATCHDOG=1 for {silence}: {follows}")))
        }
        Core::Heard => (What::WorkerHeard, None),
        Core::Outgrown { pause } => {
            let detail = format!(
                "each new worker soon uses more than max_memory_restart, so that it may be too little; from now on \
                 there are {} from one to the next",
                duration::format(pause)
            );
            (What::Trouble, Some(detail))
        }
        Core::Gone { why, failed } => {
            let detail = why.map(|why| why.to_string());
            (if failed { What::WorkerFailed } else { What::WorkerExited }, detail)
        }
        Core::Backoff { wait } => {
            (What::WorkerBackoff, Some(format!("another in {}", duration::format(wait))))
        }
        Core::GivenUp => (What::WorkerErrored, Some("it is not started again".to_owned())),
    }
}

fn phase(status: Status) -> What {
    match status {
        Status::Starting => What::WorkerStarting,
        Status::Ready => What::WorkerReady,
        Status::Online => What::WorkerOnline,
        Status::Draining => What::WorkerDraining,
        Status::Stopping => What::WorkerStopping,
        Status::Backoff => What::WorkerBackoff,
        Status::Errored => What::WorkerErrored,
        Status::Stopped => What::WorkerExited,
    }
}
