//! What the core announces, in the words of the API.

use super::run::Supervisor;
use crate::{
    api::{
        board::Note,
        message::{Subject, What},
    },
    config::{duration, scheduling::Policy, size, spec::recycle::Worn},
    datapath::Protocol,
    id::AppId,
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
        let (what, detail) = told(what, || self.follows(app));
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

    /// What follows for a worker of an app that has fallen silent.
    fn follows(&self, app: AppId) -> Option<&'static str> {
        let app = self.state.app_of(app)?;
        let protocols = app.ports.iter().map(|(protocol, ..)| *protocol);
        let cannot = self.host.datapath.cannot_distrust();
        follows(&app.spec.scheduling.policy, app.takes_turns, protocols, cannot)
    }
}

/// What follows for a worker that has fallen silent, besides what stands in the way everywhere; nothing when its app serves no
/// port. `takes_turns` is whether it is scheduled by turns instead of its policy.
fn follows(
    policy: &Policy,
    takes_turns: bool,
    protocols: impl Iterator<Item = Protocol>,
    cannot: Option<&'static str>,
) -> Option<&'static str> {
    let (mut tcp, mut udp) = (false, false);
    for protocol in protocols {
        match protocol {
            Protocol::Tcp => tcp = true,
            Protocol::Udp => udp = true,
        }
    }
    match (tcp, udp) {
        (false, false) => None,
        (false, true) => Some("datagrams go on coming to it"),
        (true, _) if cannot.is_some() => cannot,
        (true, _) if *policy == Policy::None && !takes_turns => {
            Some("connections go on coming to it: policy none leaves them to the kernel's hash")
        }
        (true, true) => Some("new connections go to others, and datagrams go on coming to it"),
        (true, false) => Some("new connections go to others"),
    }
}

/// `follows` says what follows for a worker that has fallen silent.
fn told(what: Core, follows: impl FnOnce() -> Option<&'static str>) -> (What, Option<String>) {
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
            let said = format!("no WATCHDOG=1 for {}", duration::format(silence));
            let detail = match follows() {
                Some(follows) => format!("{said}: {follows}"),
                None => said,
            };
            (What::WorkerSilent, Some(detail))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_silent_worker_it_is_said_what_follows_where_it_does() {
        let said = |policy, turns, protocols: &[Protocol], cannot| {
            follows(&policy, turns, protocols.iter().copied(), cannot)
        };
        let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
        let others = "new connections go to others";
        assert_eq!(said(Policy::LeastConn, false, &[tcp, tcp], None), Some(others));
        assert_eq!(said(Policy::None, true, &[tcp], None), Some(others), "a canary has its share");
        for (policy, protocols, cannot, expected) in [
            (Policy::None, &[tcp][..], None, "go on coming to it: policy none"),
            (Policy::None, &[tcp], Some("it cannot"), "it cannot"),
            (Policy::RoundRobin, &[udp, udp], None, "datagrams go on coming to it"),
            (Policy::RoundRobin, &[udp, tcp], None, "and datagrams go on coming to it"),
            (Policy::RoundRobin, &[tcp, udp], Some("it cannot"), "it cannot"),
        ] {
            let said = said(policy, false, protocols, cannot).unwrap();
            assert!(said.contains(expected) && said != others, "{said}");
        }
        assert_eq!(said(Policy::RoundRobin, false, &[], None), None, "it serves no port");
    }
}
