//! Commands that wait for something, and when each is answered.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use super::{
    State,
    app::SeatState,
    effect::{Effect, Refusal, Tale},
    event::CallId,
    why::Why,
    worker::Worker,
};
use crate::{
    datapath::Protocol,
    id::{AppId, Instance},
};

/// A command that is being carried out.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) goal: Goal,
    pub(super) seats: BTreeSet<(AppId, Instance)>,
    /// Names of the apps that are gone when it is done.
    pub(super) deleted: Vec<String>,
    /// Seats that had reached the goal when the user was last told.
    pub(super) reached: u32,
}

/// What all seats of a call shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// Online.
    Up,
    /// Empty.
    Down,
    /// Empty, and the daemon ended.
    End,
    /// Apps rolled out; those that are not yet, and how it ended for the others.
    Rolled(BTreeMap<AppId, Option<Tale>>),
}

enum Progress {
    Reached,
    Underway,
    Failed { why: Option<Why>, binding: Option<(Protocol, SocketAddr)> },
    Superseded,
}

impl Call {
    pub(super) fn new(goal: Goal, seats: BTreeSet<(AppId, Instance)>) -> Self {
        Self { goal, seats, deleted: Vec::new(), reached: 0 }
    }
}

impl State {
    /// Tells users what changed; forgets the calls that are answered.
    pub(super) fn settle_calls(&mut self) {
        let calls = std::mem::take(&mut self.calls);
        for (id, mut call) in calls {
            if !self.settle_call(id, &mut call) {
                self.calls.insert(id, call);
            }
        }
    }

    fn settle_call(&mut self, id: CallId, call: &mut Call) -> bool {
        if let Goal::Rolled(apps) = &call.goal {
            return self.settle_rolled(id, apps);
        }
        let mut reached = 0;
        let mut last = None;
        for &(app, instance) in &call.seats {
            match self.progress(call, app, instance) {
                Progress::Reached => {
                    reached += 1;
                    last = Some((app, instance));
                }
                Progress::Underway => {}
                Progress::Failed { why, binding } => {
                    let name = self.name(app);
                    let (worker, rolled_back) = (None, false);
                    self.tell(
                        id,
                        Tale::Failed { app, name, instance, worker, why, binding, rolled_back },
                    );
                    return true;
                }
                Progress::Superseded => {
                    let name = self.name(app);
                    self.tell(id, Tale::Refused(Refusal::Superseded { name }));
                    return true;
                }
            }
        }
        let wanted = u32::try_from(call.seats.len()).unwrap_or(u32::MAX);
        if reached != call.reached
            && let Some((app, instance)) = last
        {
            call.reached = reached;
            self.tell(id, Tale::Progress { app, instance, reached, wanted });
        }
        if reached < wanted || (call.goal == Goal::End && !self.apps.is_empty()) {
            return false;
        }
        let apps: BTreeSet<_> = call.seats.iter().map(|(app, _)| *app).collect();
        self.done(id, apps, std::mem::take(&mut call.deleted));
        if call.goal == Goal::End {
            self.effects.push(Effect::End);
        }
        true
    }

    /// Says how the reloads of a call ended, when all have: the first that failed, if one did.
    fn settle_rolled(&mut self, id: CallId, apps: &BTreeMap<AppId, Option<Tale>>) -> bool {
        let Some(ends) = apps.values().map(Option::as_ref).collect::<Option<Vec<_>>>() else {
            return false;
        };
        match ends.into_iter().find(|end| !matches!(end, Tale::Done { .. })) {
            Some(failed) => self.tell(id, failed.clone()),
            None => self.done(id, apps.keys().copied().collect(), Vec::new()),
        }
        true
    }

    fn done(&mut self, id: CallId, apps: BTreeSet<AppId>, deleted: Vec<String>) {
        let apps = apps.into_iter().filter(|app| self.apps.contains_key(app)).collect();
        self.tell(id, Tale::Done { apps, deleted });
    }

    /// The reload of an app has ended for those who wait for it.
    pub(super) fn rolled(&mut self, calls: Vec<CallId>, app: AppId, end: &Tale) {
        for call in calls {
            if let Some(Call { goal: Goal::Rolled(apps), .. }) = self.calls.get_mut(&call) {
                apps.insert(app, Some(end.clone()));
            }
        }
    }

    fn progress(&self, call: &Call, app: AppId, instance: Instance) -> Progress {
        let seat = self.apps.get(&app).and_then(|app| app.seats.get(&instance));
        match call.goal {
            Goal::Down | Goal::End => match seat.map(|seat| (seat.wanted, seat.state)) {
                None => Progress::Reached,
                Some((_, SeatState::Empty { .. } | SeatState::Errored))
                    if seat.is_none_or(super::app::Seat::is_left) =>
                {
                    Progress::Reached
                }
                Some((true, _)) => Progress::Superseded,
                Some((false, _)) => Progress::Underway,
            },
            Goal::Up => {
                let Some(seat) = seat else { return Progress::Superseded };
                match seat.state {
                    SeatState::Errored | SeatState::Empty { failed: true } => {
                        Progress::Failed { why: seat.reason.clone(), binding: seat.binding }
                    }
                    // Finished, and well.
                    SeatState::Empty { failed: false } if seat.reason.is_some() => {
                        Progress::Reached
                    }
                    SeatState::Empty { failed: false } => Progress::Superseded,
                    SeatState::Taken(_) if !seat.wanted => Progress::Superseded,
                    SeatState::Taken(_) if self.awaits_restart(app, instance) => Progress::Underway,
                    SeatState::Taken(worker)
                        if self.workers.get(&worker).is_some_and(Worker::online) =>
                    {
                        Progress::Reached
                    }
                    SeatState::Taken(_) | SeatState::Backoff { .. } => Progress::Underway,
                }
            }
            Goal::Rolled(_) => Progress::Underway,
        }
    }

    fn awaits_restart(&self, app: AppId, instance: Instance) -> bool {
        self.apps.get(&app).is_some_and(|app| app.restarting.contains(&instance))
    }

    pub(super) fn name(&self, app: AppId) -> String {
        self.apps.get(&app).map_or_else(|| app.to_string(), |app| app.spec().name.to_string())
    }

    pub(super) fn tell(&mut self, call: CallId, tale: Tale) {
        self.effects.push(Effect::Tell { call, tale });
    }
}
