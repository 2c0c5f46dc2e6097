//! Signals that users send to workers: no decision of the core, which hears of what follows as of anything else.

use super::{answer, run::Supervisor, source};
use crate::{
    api::message::{Detail, Done, Failure, Line, Reason, SignalRequest},
    config::target::Scope,
    id::{AppId, WorkerId},
};

impl Supervisor {
    /// Sends a signal to the workers that are meant and run.
    pub(super) fn signal(&mut self, asked: &SignalRequest) -> Result<Line, Failure> {
        let mut apps: Vec<AppId> = Vec::new();
        let mut workers: Vec<WorkerId> = Vec::new();
        for target in source::some(&asked.targets)? {
            let meant = self.state.apps(std::slice::from_ref(&target));
            if meant.is_empty() && !target.is_all() {
                let all = self.state.apps(&[]);
                let names: Vec<_> = all.iter().map(|app| app.spec.name.to_string()).collect();
                return Err(answer::unknown(target.as_str(), &names));
            }
            for app in meant {
                let (name, namespace) = (app.spec.name.as_str(), app.spec.namespace.as_str());
                let scope = target.matches(app.id, name, namespace);
                let seats = app.seats.iter().filter(|seat| match scope {
                    Some(Scope::App) => true,
                    Some(Scope::Worker(instance)) => instance == seat.instance,
                    None => false,
                });
                workers.extend(seats.filter_map(|seat| seat.worker));
                apps.push(app.id);
            }
        }
        apps.sort_unstable();
        apps.dedup();
        workers.sort_unstable();
        workers.dedup();
        let mut hit = false;
        for worker in workers {
            let Some(running) = self.host.workers.get(&worker) else { continue };
            let tree = &running.tree;
            let sent =
                if asked.tree { tree.signal_all(asked.signal) } else { tree.signal(asked.signal) };
            sent.map_err(|error| {
                let pid = tree.pid();
                Failure::new(Reason::Failed, format!("failed to signal process {pid}: {error}"))
            })?;
            hit = true;
        }
        if !hit {
            return Err(Failure::new(Reason::Conflict, "no worker of that is running")
                .hint("cluster list shows what is; cluster start NAME starts an app again"));
        }
        Ok(Line::Done(Done { apps: self.views(&apps, Detail::Usual), ..Done::default() }))
    }
}
