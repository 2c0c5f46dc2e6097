//! Commands that wait for something, and when each is answered.

use std::{collections::BTreeSet, net::SocketAddr};

use super::{
    State,
    app::SeatState,
    effect::{Effect, Refusal, Tale},
    event::CallId,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// Online.
    Up,
    /// Empty.
    Down,
    /// Empty, and the daemon ended.
    End,
}

enum Progress {
    Reached,
    Underway,
    Failed { reason: String, binding: Option<(Protocol, SocketAddr)> },
    Superseded,
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
        let mut reached = 0;
        let mut last = None;
        for &(app, instance) in &call.seats {
            match self.progress(call, app, instance) {
                Progress::Reached => {
                    reached += 1;
                    last = Some((app, instance));
                }
                Progress::Underway => {}
                Progress::Failed { reason, binding } => {
                    let name = self.name(app);
                    self.tell(id, Tale::Failed { app, name, instance, reason, binding });
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
        let apps = apps.into_iter().filter(|app| self.apps.contains_key(app)).collect();
        self.tell(id, Tale::Done { apps, deleted: std::mem::take(&mut call.deleted) });
        if call.goal == Goal::End {
            self.effects.push(Effect::End);
        }
        true
    }

    fn progress(&self, call: &Call, app: AppId, instance: Instance) -> Progress {
        let seat = self.apps.get(&app).and_then(|app| app.seats.get(&instance));
        match call.goal {
            Goal::Down | Goal::End => match seat.map(|seat| (seat.wanted, seat.state)) {
                None | Some((_, SeatState::Empty { .. } | SeatState::Errored)) => Progress::Reached,
                Some((true, _)) => Progress::Superseded,
                Some((false, _)) => Progress::Underway,
            },
            Goal::Up => {
                let Some(seat) = seat else { return Progress::Superseded };
                let reason = || seat.reason.clone().unwrap_or_default();
                match seat.state {
                    SeatState::Errored | SeatState::Empty { failed: true } => {
                        Progress::Failed { reason: reason(), binding: seat.binding }
                    }
                    // Finished, and well.
                    SeatState::Empty { failed: false } if seat.reason.is_some() => {
                        Progress::Reached
                    }
                    SeatState::Empty { failed: false } => Progress::Superseded,
                    SeatState::Taken(_) if !seat.wanted => Progress::Superseded,
                    SeatState::Taken(worker)
                        if self.workers.get(&worker).is_some_and(Worker::online) =>
                    {
                        Progress::Reached
                    }
                    SeatState::Taken(_) | SeatState::Backoff { .. } => Progress::Underway,
                }
            }
        }
    }

    fn name(&self, app: AppId) -> String {
        self.apps.get(&app).map_or_else(|| app.to_string(), |app| app.spec.name.to_string())
    }

    pub(super) fn tell(&mut self, call: CallId, tale: Tale) {
        self.effects.push(Effect::Tell { call, tale });
    }
}
