//! Sockets into slots, slots into routes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use cluster_common::slot::Slot;

use super::{
    State,
    effect::Effect,
    group::{Group, MemberState, Vacancy},
    scheduling::Rule,
    why::Why,
    worker::{Input, Phase, Worker},
};
use crate::{
    config::spec::Readiness,
    datapath::{GroupKey, OnMiss},
    id::{AppId, GroupId, Ticket, WorkerId},
    moment::Moment,
};

impl State {
    /// A socket listens: it founds its group, joins it, or is refused.
    pub(super) fn listening(&mut self, now: Moment, id: WorkerId, ticket: Ticket, key: GroupKey) {
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
        let given = worker.spec.listen.iter().any(|own| own.is_at(key.protocol, key.address));
        if given && self.groups.values().any(|group| group.key == key && group.has(id)) {
            // Half of the connections would wait for ever in the one it does not look at.
            self.effects.push(Effect::Refuse { ticket });
            let reason = format!(
                "it listens on {} itself, which it was given as LISTEN_FDS; start it without --listen, or have it use that",
                key.address
            );
            return self.step(now, id, Input::Fail { why: Why::Unusable(reason), fatal: true });
        }
        if let Some(holder) = self.served_by_another(app, &key) {
            self.effects.push(Effect::Refuse { ticket });
            let why = cannot_serve(&key, holder);
            return self.step(now, id, Input::Fail { why, fatal: true });
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
        let name = self.name(group.app);
        Some(format!("app `{name}` serves {}", group.key.address))
    }

    fn found(&mut self, worker: WorkerId, ticket: Ticket, key: GroupKey) {
        let Some(founder) = self.workers.get(&worker) else { return };
        let group = GroupId(self.next_group);
        self.next_group += 1;
        let (app, trace) = (founder.spec.name.to_string(), founder.spec.trace);
        let mut entry = Group::new(group, key, founder.app);
        // That of the app: what the worker knows of itself may be older.
        let scheduling =
            self.apps.get(&founder.app).map(|app| app.in_effect(&app.spec().scheduling));
        let scheduling = scheduling.unwrap_or_default().into_owned();
        entry.rule = Rule::opened(scheduling.clone());
        entry.queue.push((ticket, worker));
        self.groups.insert(group, entry);
        let scheduling = Box::new(scheduling);
        self.effects.push(Effect::Open { group, ticket, app, trace, scheduling });
    }

    pub(super) fn opened(&mut self, now: Moment, group: GroupId, founder: Ticket) {
        let Some(entry) = self.groups.get_mut(&group) else {
            // Nobody wanted it any more while it was opened: it is closed already.
            return self.effects.push(Effect::Refuse { ticket: founder });
        };
        entry.open = true;
        for (ticket, worker) in std::mem::take(&mut entry.queue) {
            self.join(now, group, ticket, worker);
        }
        self.tell_of_opened(group);
    }

    pub(super) fn open_failed(&mut self, now: Moment, group: GroupId, reason: &str, fatal: bool) {
        let Some(entry) = self.groups.remove(&group) else { return };
        let why = cannot_serve(&entry.key, reason.to_owned());
        for (nth, (ticket, worker)) in entry.queue.into_iter().enumerate() {
            if nth > 0 {
                self.effects.push(Effect::Refuse { ticket });
            }
            self.step(now, worker, Input::Fail { why: why.clone(), fatal });
        }
    }

    fn join(&mut self, now: Moment, group: GroupId, ticket: Ticket, worker: WorkerId) {
        let Some(entry) = self.groups.get_mut(&group) else { return };
        if let Some(slot) = entry.take(worker) {
            self.effects.push(Effect::Join { ticket, group, slot });
        } else {
            self.effects.push(Effect::Refuse { ticket });
            let why = cannot_serve(&entry.key, "all slots are taken".to_owned());
            self.step(now, worker, Input::Fail { why, fatal: true });
        }
    }

    pub(super) fn joined(&mut self, now: Moment, group: GroupId, slot: Slot) {
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
        let lacking = self.workers.get(&worker).and_then(|worker| self.lacks(worker));
        let complete = lacking.is_none();
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.lacking = lacking;
        }
        if complete && self.workers.get(&worker).is_some_and(|worker| self.listens_enough(worker)) {
            self.step(now, worker, Input::Sign);
        }
    }

    pub(super) fn join_failed(
        &mut self,
        now: Moment,
        group: GroupId,
        slot: Slot,
        reason: Option<String>,
    ) {
        let Some(entry) = self.groups.get_mut(&group) else { return };
        let Some(member) = entry.slots.remove(&slot) else { return };
        if let Some(reason) = reason {
            let why = cannot_serve(&entry.key, reason);
            self.step(now, member.worker, Input::Fail { why, fatal: false });
        }
    }

    pub(super) fn lost(&mut self, group: GroupId, slot: Slot) {
        if let Some(entry) = self.groups.get_mut(&group) {
            entry.slots.remove(&slot);
            self.effects.push(Effect::Vacate { group, slot });
        }
    }

    /// Whether a worker is as good as ready when it serves every port it was told, or any, and does so.
    fn listens_enough(&self, worker: &Worker) -> bool {
        match worker.sign() {
            Readiness::Running | Readiness::Notified | Readiness::Message => return false,
            Readiness::Listening | Readiness::Settled => {}
        }
        let serves = |port: u16| {
            self.groups
                .values()
                .any(|group| group.key.address.port() == port && group.serves(worker.id))
        };
        worker.spec.ports.iter().all(|port| serves(*port))
    }

    /// What a worker of a new generation has to serve, because the old one does, and does not: an address, and where it
    /// listens instead.
    pub(super) fn lacks(&self, worker: &Worker) -> Option<(SocketAddr, Vec<SocketAddr>)> {
        let rollout = self.apps.get(&worker.app)?.rollout.as_ref()?;
        if rollout.target != worker.generation {
            return None;
        }
        let served = self.groups.values().filter(|group| group.serves(worker.id));
        let served: Vec<_> = served.map(|group| &group.key).collect();
        let missing = rollout.serves.iter().find(|key| !served.contains(key))?;
        let instead = served.iter().filter(|key| !rollout.serves.contains(key));
        Some((missing.address, instead.map(|key| key.address).collect()))
    }

    /// How many turns a worker has in a route of its app, against the others: by its weight, and a canary has its share.
    fn weights(&self, group: &Group) -> impl Fn(WorkerId) -> u32 {
        let rollout = self.apps.get(&group.app).and_then(|app| app.rollout.as_ref());
        let canary = rollout.and_then(|rollout| Some((rollout.canary()?, rollout.target)));
        let scheduling = self.apps.get(&group.app).map(|app| &app.spec().scheduling);
        let weight = |id: WorkerId| {
            let instance = self.workers.get(&id).map(|worker| worker.instance);
            scheduling.zip(instance).map_or(1, |(of, instance)| of.weight(instance.0))
        };
        let is_plain = canary.is_none() && scheduling.is_none_or(|of| of.weights.is_empty());
        let members = if is_plain { Vec::new() } else { group.served_by(|id| self.is_online(id)) };
        let weights: BTreeMap<_, _> = members.into_iter().map(|(id, _)| (id, weight(id))).collect();
        let is_new = |id: &WorkerId| {
            let of = self.workers.get(id).map(|worker| worker.generation);
            canary.is_some_and(|(_, target)| of == Some(target))
        };
        let new: BTreeSet<_> = weights.keys().copied().filter(is_new).collect();
        let sum = |of_new: bool| -> u32 {
            let side = weights.iter().filter(|(id, _)| new.contains(id) == of_new);
            side.map(|(_, weight)| weight).sum()
        };
        let (for_new, for_old) = match canary {
            Some((canary, _)) if !new.is_empty() && new.len() < weights.len() => {
                canary.turns(sum(true), sum(false))
            }
            Some(_) | None => (1, 1),
        };
        move |id| {
            let turns = if new.contains(&id) { for_new } else { for_old };
            turns.saturating_mul(weights.get(&id).copied().unwrap_or(1))
        }
    }

    pub(super) fn is_online(&self, id: WorkerId) -> bool {
        self.workers.get(&id).is_some_and(Worker::online)
    }

    /// Publishes the routes that changed and bridges those that became empty.
    pub(super) fn settle_groups(&mut self, now: Moment) -> Vec<Effect> {
        let mut first = Vec::new();
        let mut finished = Vec::new();
        let routes: Vec<_> = self
            .groups
            .values()
            .filter(|group| group.open)
            .map(|group| {
                let route = group.wanted_route(|id| self.is_online(id), self.weights(group));
                (group.id, route)
            })
            .collect();
        for (id, route) in routes {
            let Some(group) = self.groups.get_mut(&id) else { continue };
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
                let wait = app.map(|app| app.spec().wait_timeout).unwrap_or_default();
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
        // Nobody waits for these to be opened, and nobody else could have their ports.
        finished.extend(self.groups.values().filter_map(|group| {
            let app = self.apps.get(&group.app);
            let is_idle = !group.open && group.queue.is_empty();
            (is_idle && !app.is_some_and(super::app::App::hopeful)).then_some(group.id)
        }));
        for group in finished {
            self.groups.remove(&group);
            self.effects.push(Effect::Close { group });
        }
        first
    }
}

fn cannot_serve(key: &GroupKey, cause: String) -> Why {
    Why::CannotServe { address: key.address, cause }
}

impl Worker {
    /// Whether its sockets may join: not when it is being ended.
    fn takes_sockets(&self) -> bool {
        match self.phase {
            Phase::Spawning
            | Phase::Starting { .. }
            | Phase::Probing { .. }
            | Phase::Ready { .. }
            | Phase::Online { .. } => self.ending.is_none(),
            Phase::Draining { .. }
            | Phase::Hooking { .. }
            | Phase::Stopping { .. }
            | Phase::Killing { .. }
            | Phase::Sweeping => false,
        }
    }
}
