//! What users are told, in the words of the API.

use std::net::SocketAddr;

use tokio::sync::mpsc::UnboundedSender;

use super::run::Supervisor;
use crate::{
    api::message::{Detail, Done, Failure, Line, Progress, Reason},
    config::{instances::MAX_INSTANCES, spec::Readiness},
    datapath::{Protocol, holder, socket},
    id::{AppId, Instance},
    state::{
        effect::{Refusal, Tale},
        event::CallId,
    },
};

impl Supervisor {
    /// Tells a user; whoever does not wait any more is forgotten.
    pub(super) fn tell(&mut self, call: CallId, tale: Tale) {
        let Some(reply) = self.host.callers.get(&call).cloned() else { return };
        let line = match tale {
            Tale::Progress { app, instance, reached, wanted } => {
                // Whoever asked may have gone; what was asked for goes on.
                if let Some(line) = self.progress(app, instance, reached, wanted) {
                    drop(reply.send(Line::Progress(line)));
                }
                return;
            }
            Tale::Done { apps, deleted } => {
                Line::Done(Done { apps: self.views(&apps, Detail::Usual), deleted })
            }
            Tale::Refused(refusal) => Line::Failed(refused(&refusal)),
            Tale::Failed { app, name, instance, reason, binding } => {
                Line::Failed(self.failed(app, &name, instance, &reason, binding))
            }
        };
        self.host.callers.remove(&call);
        self.send(reply, line);
    }

    /// Sends the last line, when the log files are as empty as it says.
    fn send(&mut self, reply: UnboundedSender<Line>, mut line: Line) {
        let flushing = std::mem::take(&mut self.host.flushing);
        if flushing.is_empty() {
            drop(reply.send(line));
            return;
        }
        tokio::spawn(async move {
            for flushed in flushing {
                if let Err(error) = flushed.await {
                    let message = format!("failed to empty a log file: {error}");
                    line = Line::Failed(Failure::new(Reason::Failed, message));
                }
            }
            drop(reply.send(line));
        });
    }

    fn progress(
        &mut self,
        app: AppId,
        instance: Instance,
        reached: u32,
        wanted: u32,
    ) -> Option<Progress> {
        let view = self.state.app_of(app)?;
        let seat = view.seats.iter().find(|seat| seat.instance == instance)?;
        let status = super::view::status(seat.status);
        Some(Progress { app: view.spec.name.to_string(), instance, status, reached, wanted })
    }

    fn failed(
        &self,
        app: AppId,
        name: &str,
        instance: Instance,
        reason: &str,
        binding: Option<(Protocol, SocketAddr)>,
    ) -> Failure {
        let output = self.host.last_words.get(&(app, instance)).cloned().unwrap_or_default();
        let holder = binding.and_then(|(protocol, address)| self.holder(protocol, address));
        let mut message = format!("worker {instance} of app `{name}`: {reason}");
        let mut hint =
            format!("cluster logs {name} shows more; cluster restart {name} tries again");
        let ports = self.state.app_of(app).map(|view| &view.spec.readiness);
        if ports.is_some_and(|readiness| *readiness != Readiness::Running) {
            if reason.starts_with("did not listen") {
                hint = format!("if it serves no port, start it with --no-port; {hint}");
            } else if reason.starts_with("exited with code 0 ") {
                hint = format!(
                    "a worker must keep running; one that serves no port needs --no-port, and one that \
                     does its work and ends --no-autorestart too; {hint}"
                );
            }
        }
        if let Some((address, holder)) = holder {
            message = format!("{message}: {address} is held by {holder}");
            "end that process, or choose another port".clone_into(&mut hint);
        }
        Failure { output, ..Failure::new(Reason::Failed, message).hint(hint) }
    }

    /// Who holds an address that a worker could not bind.
    fn holder(&self, protocol: Protocol, address: SocketAddr) -> Option<(SocketAddr, String)> {
        let daemon = std::process::id();
        // Its waiting rooms hold an address for the workers they belong to.
        let own = socket::sockets_of(daemon).unwrap_or_default();
        let own = own.into_iter().map(|socket| socket.inode).collect();
        let holder = holder::stranger(daemon, protocol, address, &own)?;
        let ours = holder.process.as_ref().and_then(|(pid, _)| {
            let running =
                self.host.workers.values().find(|worker| worker.tree.pids().contains(pid))?;
            let app = self.state.app_of(running.app)?;
            Some(format!("worker {} of app `{}`", running.instance, app.spec.name))
        });
        Some((address, ours.unwrap_or_else(|| holder.to_string())))
    }
}

fn refused(refusal: &Refusal) -> Failure {
    match refusal {
        Refusal::Unknown { target, names } => unknown(target, names),
        Refusal::NameInUse { name, id } => {
            Failure::new(Reason::Conflict, format!("name `{name}` is in use by app {id}"))
                .hint(format!(
                    "cluster scale {name} N changes the number of workers, cluster restart {name} starts them \
                     anew; for other options or another environment: cluster delete {name}, then start; or \
                     give another --name"
                ))
        }
        Refusal::BadScale { from, to } => Failure::new(
            Reason::BadRequest,
            format!("{to} workers are asked for, {from} there are: the number must be 1 to {MAX_INSTANCES}"),
        )
        .hint("cluster stop ends all workers of an app"),
        Refusal::Ambiguous { names } => {
            Failure::new(Reason::BadRequest, format!("one app is expected, but the target means {}", names.join(", ")))
        }
        Refusal::Ending => Failure::new(Reason::Unavailable, "the daemon is ending"),
        Refusal::Superseded { name } => {
            Failure::new(Reason::Conflict, format!("another command changed app `{name}` in the meantime"))
                .hint("cluster list shows how it is now")
        }
    }
}

/// No app is meant by a target.
pub(super) fn unknown(target: &str, names: &[String]) -> Failure {
    let hint = if names.is_empty() {
        "no app has been started: cluster start <script>".to_owned()
    } else {
        format!("there is {}", names.join(", "))
    };
    Failure::new(Reason::NotFound, format!("no app, worker or namespace is meant by `{target}`"))
        .hint(hint)
}
