//! Sockets into slots, slots into routes.

use std::{fmt::Display, time::Instant};

use cluster_common::slot::Slot;

use super::{
    State,
    effect::Effect,
    group::{Group, MemberState, Vacancy},
    worker::{Input, Phase, Worker},
};
use crate::{
    config::spec::Readiness,
    datapath::{GroupKey, OnMiss},
    id::{AppId, GroupId, Ticket, WorkerId},
};

impl State {
    /// A socket listens: it founds its group, joins it, or is refused.
    pub(super) fn listening(&mut self, now: Instant, id: WorkerId, ticket: Ticket, key: GroupKey) {
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.takes_sockets()) else {
            return self.effects.push(Effect::Refuse { ticket });
        };
        if worker.binding == Some((key.protocol, key.address)) {
            worker.binding = None;
        }
        if !worker.spec.ports.is_empty() && !worker.spec.ports.contains(&key.address.port()) {
            return self.effects.push(Effect::Refuse { ticket });
        }
        let app = worker.app;
        if let Some(holder) = self.served_by_another(app, &key) {
            self.effects.push(Effect::Refuse { ticket });
            let reason = cannot_serve(&key, holder);
            return self.step(now, id, Input::Fail { reason, fatal: true });
        }
        let Some(entry) = self.groups.values_mut().find(|group| group.key == key) else {
            return self.found(id, ticket, key);
        };
        if entry.open {
            let group = entry.id;
            self.join(now, group, ticket, id);
        } else {
            entry.queue.push((ticket, id));
        }
    }

    /// Which other app has an address that is the same one or in its way, in words.
    fn served_by_another(&self, app: AppId, key: &GroupKey) -> Option<String> {
        let group =
            self.groups.values().find(|group| group.app != app && group.key.overlaps(key))?;
        let name = self.apps.get(&group.app).map(|app| app.spec.name.to_string());
        Some(format!("app `{}` serves {}", name.unwrap_or_default(), group.key.address))
    }

    fn found(&mut self, worker: WorkerId, ticket: Ticket, key: GroupKey) {
        let Some(founder) = self.workers.get(&worker) else { return };
        let group = GroupId(self.next_group);
        self.next_group += 1;
        let (app, trace) = (founder.spec.name.to_string(), founder.spec.trace);
        let mut entry = Group::new(group, key, founder.app);
        entry.queue.push((ticket, worker));
        self.groups.insert(group, entry);
        self.effects.push(Effect::Open { group, ticket, app, trace });
    }

    pub(super) fn opened(&mut self, now: Instant, group: GroupId, founder: Ticket) {
        let Some(entry) = self.groups.get_mut(&group) else {
            // Its app was deleted while it was opened.
            return self
                .effects
                .extend([Effect::Refuse { ticket: founder }, Effect::Close { group }]);
        };
        entry.open = true;
        for (ticket, worker) in std::mem::take(&mut entry.queue) {
            self.join(now, group, ticket, worker);
        }
    }

    pub(super) fn open_failed(&mut self, now: Instant, group: GroupId, reason: &str, fatal: bool) {
        let Some(entry) = self.groups.remove(&group) else { return };
        let reason = cannot_serve(&entry.key, reason);
        for (nth, (ticket, worker)) in entry.queue.into_iter().enumerate() {
            if nth > 0 {
                self.effects.push(Effect::Refuse { ticket });
            }
            self.step(now, worker, Input::Fail { reason: reason.clone(), fatal });
        }
    }

    fn join(&mut self, now: Instant, group: GroupId, ticket: Ticket, worker: WorkerId) {
        let Some(entry) = self.groups.get_mut(&group) else { return };
        if let Some(slot) = entry.take(worker) {
            self.effects.push(Effect::Join { ticket, group, slot });
        } else {
            self.effects.push(Effect::Refuse { ticket });
            let reason = cannot_serve(&entry.key, "all slots are taken");
            self.step(now, worker, Input::Fail { reason, fatal: true });
        }
    }

    pub(super) fn joined(&mut self, now: Instant, group: GroupId, slot: Slot) {
        let Some(member) = self.groups.get_mut(&group).and_then(|group| group.slots.get_mut(&slot))
        else {
            // Its worker has gone while it joined, and freed the slot.
            return self.effects.push(Effect::Vacate { group, slot });
        };
        member.state = MemberState::Joined;
        let worker = member.worker;
        let of_worker = |entry: &Group| entry.slots.values().filter(|m| m.worker == worker).count();
        if self.groups.get(&group).map(of_worker) > Some(1) {
            // It may have listened anew: the slot of a closed socket must not take turns from it.
            self.effects.push(Effect::Compare { group });
        }
        if self.workers.get(&worker).is_some_and(|worker| self.listens_enough(worker)) {
            self.step(now, worker, Input::Ready);
        }
    }

    pub(super) fn join_failed(
        &mut self,
        now: Instant,
        group: GroupId,
        slot: Slot,
        reason: Option<String>,
    ) {
        let Some(entry) = self.groups.get_mut(&group) else { return };
        let Some(member) = entry.slots.remove(&slot) else { return };
        if let Some(reason) = reason {
            let reason = cannot_serve(&entry.key, reason);
            self.step(now, member.worker, Input::Fail { reason, fatal: false });
        }
    }

    pub(super) fn lost(&mut self, group: GroupId, slot: Slot) {
        if let Some(entry) = self.groups.get_mut(&group) {
            entry.slots.remove(&slot);
            self.effects.push(Effect::Vacate { group, slot });
        }
    }

    /// Whether a worker serves what it is expected to: every port it was told, or any.
    fn listens_enough(&self, worker: &Worker) -> bool {
        match worker.spec.readiness {
            Readiness::Running => return false,
            Readiness::Listening | Readiness::Notified | Readiness::Message => {}
        }
        let serves = |port: u16| {
            self.groups
                .values()
                .any(|group| group.key.address.port() == port && group.serves(worker.id))
        };
        worker.spec.ports.iter().all(|port| serves(*port))
    }

    /// Publishes the routes that changed and bridges those that became empty.
    pub(super) fn settle_groups(&mut self, now: Instant) -> Vec<Effect> {
        let mut first = Vec::new();
        let mut finished = Vec::new();
        for group in self.groups.values_mut().filter(|group| group.open) {
            let online = |id| self.workers.get(&id).is_some_and(Worker::online);
            let route = group.wanted_route(online);
            let app = self.apps.get(&group.app);
            let hopeful = app.is_some_and(super::app::App::hopeful);
            if !route.is_empty() && group.vacancy != Vacancy::None {
                group.vacancy = Vacancy::None;
                first.push(Effect::OnMiss { group: group.id, on_miss: OnMiss::Wait });
            }
            let emptied = route.is_empty() && !group.route.is_empty();
            if route != group.route {
                first.push(Effect::Publish { group: group.id, route: route.clone() });
                group.route = route;
            }
            if emptied && hopeful {
                let wait = app.map(|app| app.spec.wait_timeout).unwrap_or_default();
                group.vacancy = Vacancy::Waiting(now + wait);
            }
            if group.route.is_empty() && !hopeful && group.vacancy != Vacancy::Refused {
                group.vacancy = Vacancy::Refused;
                first.push(Effect::OnMiss { group: group.id, on_miss: OnMiss::Refuse });
            }
            if group.vacancy == Vacancy::Refused && group.slots.is_empty() {
                finished.push(group.id);
            }
        }
        for group in finished {
            self.groups.remove(&group);
            self.effects.push(Effect::Close { group });
        }
        first
    }
}

/// A fragment that completes "worker 0 …".
fn cannot_serve(key: &GroupKey, why: impl Display) -> String {
    format!("cannot serve {}: {why}", key.address)
}

impl Worker {
    /// Whether its sockets may join: not when it is being ended.
    fn takes_sockets(&self) -> bool {
        match self.phase {
            Phase::Spawning | Phase::Starting { .. } | Phase::Online { .. } => {
                self.ending.is_none()
            }
            Phase::Draining { .. }
            | Phase::Stopping { .. }
            | Phase::Killing { .. }
            | Phase::Sweeping => false,
        }
    }
}
