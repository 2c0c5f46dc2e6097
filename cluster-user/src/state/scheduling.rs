//! By which rule workers are picked: the same in every group of an app and in every generation of it.
//!
//! Invariants, watched by the simulation:
//! 1. A group is opened with the rule of its app's definition, and has it from the first connection on. While a canary has
//!    its share, it takes turns instead where that rule would give the canary another one ([`Policy::keeps_shares`]).
//! 2. A switch is made when every open group of its apps has taken it; until then definitions, and with them the journal,
//!    have the rule before. One that a group refuses is taken back everywhere.
//! 3. A group is believed to have a rule when it has said so, and not when it was asked. What it refuses it is not asked for
//!    again until somebody wants it; until then that is said.
//! 4. What is asked for last counts. A command may come late, since it waits for what the kernel says of a program: it is
//!    refused when another has said since what the app is, or when the app of that name is a newer one.
//! 5. After adopting nobody knows what groups have: each is told again. A switch that was under way has not been made.

use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::{
    State,
    announcement::What,
    app::App,
    call::Goal,
    effect::{Aside, Effect, Refusal, Tale},
    event::CallId,
    group::Group,
    rollout::Rollout,
};
use crate::{
    config::{
        pace::Canary,
        scheduling::{Guard, Policy, Scheduling, Switch},
        target::Target,
    },
    datapath::Protocol,
    id::{AppId, GroupId},
};

/// The rule of a group, as far as it is known.
#[derive(Clone, Debug, Default)]
pub(super) struct Rule {
    /// What the data path has; `None` when nobody knows.
    has: Option<Scheduling>,
    /// What it has been asked for and not answered yet, in order.
    asked: VecDeque<Scheduling>,
    /// What it refused, and is not asked for again by itself.
    vain: Option<Scheduling>,
    /// Whether it is asked in any case.
    again: bool,
    /// Why the data path has another one, when it does.
    pub(super) refused: Option<String>,
}

/// A switch that is under way.
#[derive(Clone, Debug)]
pub(super) struct Switching {
    call: CallId,
    /// What each of its apps shall have.
    to: BTreeMap<AppId, Scheduling>,
}

impl Rule {
    /// What a group is opened with.
    pub(super) fn opened(scheduling: Scheduling) -> Self {
        Self { has: Some(scheduling), ..Self::default() }
    }

    /// It was opened without that, and nobody knows what it has.
    pub(super) fn not_opened_with(&mut self) {
        self.vain = self.has.take();
    }

    /// Whether the data path is to be asked for this.
    fn lacks(&self, wanted: &Scheduling) -> bool {
        let lacks = match self.asked.back() {
            Some(asked) => asked != wanted,
            None => self.has.as_ref() != Some(wanted) && self.vain.as_ref() != Some(wanted),
        };
        self.again || lacks
    }

    /// Forgets what was refused, when that is not wanted any more.
    fn rests(&mut self, wanted: &Scheduling) {
        if self.asked.is_empty() && self.has.as_ref() == Some(wanted) {
            (self.vain, self.refused) = (None, None);
        }
    }
}

impl State {
    /// Begins to switch apps to another rule, all of them or none.
    pub(super) fn switch(
        &mut self,
        call: CallId,
        targets: &[Target],
        switch: &Switch,
    ) -> Result<(), Refusal> {
        let mut to = BTreeMap::new();
        for id in self.select_apps(targets)? {
            self.not_switching(id)?;
            self.not_overtaken(call, id)?;
            let Some(app) = self.apps.get(&id) else { continue };
            let (spec, name) = (app.spec(), self.name(id));
            if app.deleting {
                return Err(Refusal::Superseded { name });
            }
            let scheduling = switch.apply(&spec.scheduling);
            if let Err(why) = scheduling.check(spec.instances) {
                return Err(Refusal::Unschedulable { name, why });
            }
            to.insert(id, scheduling);
        }
        for group in self.groups.values_mut() {
            let Some(to) = to.get(&group.app) else { continue };
            // It may be another program than the last time, under the same name. And what was refused may be taken by now.
            group.rule.again =
                matches!(to.policy, Policy::Custom(_)) || group.rule.refused.is_some();
        }
        for id in to.keys() {
            self.says(call, *id);
        }
        self.switches.push(Switching { call, to });
        Ok(())
    }

    /// Refuses what was asked for before something that has been said of an app since.
    pub(super) fn not_overtaken(&self, call: CallId, id: AppId) -> Result<(), Refusal> {
        if self.apps.get(&id).is_some_and(|app| app.said_by > call) {
            return Err(Refusal::Superseded { name: self.name(id) });
        }
        Ok(())
    }

    /// Notes which command says what an app is or how it is scheduled.
    pub(super) fn says(&mut self, call: CallId, id: AppId) {
        if let Some(app) = self.apps.get_mut(&id) {
            app.said_by = call;
        }
    }

    /// Refuses what would get into the way of a switch.
    pub(super) fn not_switching(&self, id: AppId) -> Result<(), Refusal> {
        if self.switches.iter().any(|switch| switch.to.contains_key(&id)) {
            return Err(Refusal::Superseded { name: self.name(id) });
        }
        Ok(())
    }

    /// Makes a rule that of every generation of an app.
    pub(super) fn define_scheduling(&mut self, id: AppId, scheduling: &Scheduling) {
        let Some(app) = self.apps.get_mut(&id) else { return };
        for definition in app.definitions.values_mut() {
            if definition.scheduling != *scheduling {
                Arc::make_mut(definition).scheduling.clone_from(scheduling);
            }
        }
    }

    /// The data path has taken a rule, or refused it and has the one before.
    pub(super) fn scheduled(&mut self, group: GroupId, result: Result<(), String>) {
        let Some(entry) = self.groups.get_mut(&group) else { return };
        let (app, rule) = (entry.app, &mut entry.rule);
        let Some(asked) = rule.asked.pop_front() else { return };
        let Err(why) = result else {
            let before = rule.has.replace(asked);
            (rule.vain, rule.refused) = (None, None);
            return self.tell_of_turns(app, before.as_ref());
        };
        if !rule.asked.is_empty() {
            // It has been asked for something else since.
            return;
        }
        let switch = self.switches.iter().position(|switch| switch.to.contains_key(&app));
        if let Some(at) = switch {
            // Those that have taken it go back: what they shall have is the rule before again.
            let Switching { call, .. } = self.switches.remove(at);
            let name = self.name(app);
            self.refuse(call, Refusal::NotScheduled { name, why });
        } else {
            // Nobody asked for it now: it has been so all along, was before this supervisor came, or a canary wants it.
            rule.vain = Some(asked);
            self.unscheduled(group, format!("{why}; what picked its workers before goes on"));
        }
    }

    /// A group has not the rule of its app.
    pub(super) fn unscheduled(&mut self, group: GroupId, why: String) {
        let Some(entry) = self.groups.get_mut(&group) else { return };
        entry.rule.refused = Some(why.clone());
        let app = entry.app;
        for call in self.waiting_for(app) {
            let (name, why) = (self.name(app), why.clone());
            self.tell(call, Tale::Aside(Aside::NotScheduled { name, why }));
        }
        self.announce(app, What::NotScheduled { why });
    }

    /// Tells every group whose rule is not what it shall be, and ends the switches that all groups have taken.
    pub(super) fn settle_schedulings(&mut self) {
        let mut asks = Vec::new();
        for group in self.groups.values_mut().filter(|group| group.open) {
            let Some(app) = self.apps.get(&group.app) else { continue };
            let switch = self.switches.iter().find_map(|switch| switch.to.get(&group.app));
            let wanted = app.in_effect(switch.unwrap_or(&app.spec().scheduling));
            if group.rule.lacks(&wanted) {
                group.rule.again = false;
                group.rule.asked.push_back(wanted.clone().into_owned());
                asks.push((group.id, wanted.into_owned()));
            } else {
                group.rule.rests(&wanted);
            }
        }
        for (group, scheduling) in asks {
            self.effects.push(Effect::Schedule { group, scheduling: Box::new(scheduling) });
        }
        for switch in std::mem::take(&mut self.switches) {
            self.settle_switch(switch);
        }
    }

    fn settle_switch(&mut self, mut switch: Switching) {
        let gone = switch.to.keys().next().map(|id| self.name(*id));
        switch.to.retain(|id, _| self.apps.get(id).is_some_and(|app| !app.deleting));
        if let (true, Some(name)) = (switch.to.is_empty(), gone) {
            return self.refuse(switch.call, Refusal::Superseded { name });
        }
        if switch.to.keys().any(|id| self.is_asking(*id)) {
            return self.switches.push(switch);
        }
        let apps = switch.to.keys().copied().collect();
        for (id, scheduling) in switch.to {
            let Some(app) = self.apps.get(&id) else { continue };
            let before = app.spec().scheduling.clone();
            let ends = scheduling.weights.is_empty() && scheduling.policy != Policy::RoundRobin;
            if ends && !before.weights.is_empty() {
                let name = self.name(id);
                self.tell(switch.call, Tale::Aside(Aside::WeightsEnded { name }));
            }
            self.define_scheduling(id, &scheduling);
            if before.policy != scheduling.policy {
                self.tell_of_datagrams(id, &[switch.call]);
            }
            if (before.guard, before.shed) != (scheduling.guard, scheduling.shed) {
                self.tell_of_unguarded(id, &[switch.call]);
            }
            self.announce(id, What::Scheduled { scheduling });
        }
        self.tell(switch.call, Tale::Done { apps, deleted: Vec::new() });
    }

    /// Whether a group of an app has not answered yet.
    pub(super) fn is_asking(&self, id: AppId) -> bool {
        self.open_groups_of(id).any(|group| !group.rule.asked.is_empty())
    }

    /// Whether a group of an app has still to be asked, or to answer, for the rule that the app shall have.
    pub(super) fn is_settling(&self, id: AppId) -> bool {
        let Some(app) = self.apps.get(&id) else { return false };
        let switch = self.switches.iter().find_map(|switch| switch.to.get(&id));
        let wanted = app.in_effect(switch.unwrap_or(&app.spec().scheduling));
        self.open_groups_of(id)
            .any(|group| !group.rule.asked.is_empty() || group.rule.lacks(&wanted))
    }

    /// Tells who waits for a reload that its canary gets a share, which the policy of the app would not give it; when the last
    /// group has taken that.
    fn tell_of_turns(&mut self, id: AppId, before: Option<&Scheduling>) {
        let Some(app) = self.apps.get(&id) else { return };
        let policy = &app.spec().scheduling.policy;
        let turns = app.in_effect(&app.spec().scheduling);
        let has = |group: &Group| group.rule.has.as_ref() == Some(&*turns);
        if turns.policy == *policy
            || before.is_some_and(|before| before.policy == turns.policy)
            || !self.open_groups_of(id).all(has)
        {
            return;
        }
        let (policy, rollout) = (policy.clone(), app.rollout.as_ref());
        for call in rollout.map(|rollout| rollout.calls.clone()).unwrap_or_default() {
            let (name, policy) = (self.name(id), policy.clone());
            self.tell(call, Tale::Aside(Aside::Turns { name, policy }));
        }
    }

    /// Tells those who wait for an app, when a group of datagrams is opened, how these are spread.
    pub(super) fn tell_of_opened(&mut self, group: GroupId) {
        let Some(app) =
            self.groups.get(&group).filter(|group| group.is_udp()).map(|group| group.app)
        else {
            return;
        };
        let waiting = self.waiting_for(app);
        self.tell_of_datagrams(app, &waiting);
        // Once, however many ports there are.
        if self.open_groups_of(app).count() == 1 {
            self.tell_of_unguarded(app, &waiting);
        }
    }

    /// Who waits for an app to be up, or to be rolled out.
    fn waiting_for(&self, app: AppId) -> Vec<CallId> {
        let waiting = self.calls.iter().filter(|(_, call)| match &call.goal {
            Goal::Rolled(apps) => apps.contains_key(&app),
            Goal::Up => call.seats.iter().any(|(of, _)| *of == app),
            Goal::Down | Goal::End => false,
        });
        waiting.map(|(id, _)| *id).collect()
    }

    /// Tells of what was asked for in vain, because nothing of an app but datagrams comes.
    fn tell_of_unguarded(&mut self, app: AppId, calls: &[CallId]) {
        let Some(Scheduling { guard, shed, .. }) =
            self.apps.get(&app).map(|app| &app.spec().scheduling)
        else {
            return;
        };
        let asked = *guard != Guard::default() && *guard != Guard::OFF;
        let (guard, shed) = (asked.then_some(*guard), *shed);
        let is_udp = self.open_groups_of(app).next().is_some()
            && self.open_groups_of(app).all(Group::is_udp);
        if is_udp && (asked || shed.is_some()) {
            for call in calls {
                let name = self.name(app);
                self.tell(*call, Tale::Aside(Aside::Unguarded { name, guard, shed }));
            }
        }
    }

    fn tell_of_datagrams(&mut self, app: AppId, calls: &[CallId]) {
        let Some(spec) = self.apps.get(&app).map(|app| Arc::clone(app.spec())) else { return };
        if matches!(spec.scheduling.policy, Policy::Sticky(_)) {
            return;
        }
        let udp = self.open_groups_of(app).filter(|group| group.is_udp());
        let addresses: Vec<_> = udp.map(|group| group.key.address).collect();
        for address in addresses {
            for call in calls {
                let policy = spec.scheduling.policy.clone();
                self.tell(*call, Tale::Aside(Aside::Datagrams { address, policy }));
            }
        }
    }
}

impl App {
    /// The rule that groups have when an app shall be scheduled like this.
    ///
    /// A share is a number of turns. What goes by connections or queues would give a canary that has little to do more, and
    /// one that has nothing to do perhaps nothing.
    pub(super) fn in_effect<'a>(&self, wanted: &'a Scheduling) -> Cow<'a, Scheduling> {
        let canary = self.rollout.as_ref().and_then(Rollout::canary);
        if wanted.policy.keeps_shares() || !matches!(canary, Some(Canary::Share { .. })) {
            return Cow::Borrowed(wanted);
        }
        Cow::Owned(Scheduling { policy: Policy::RoundRobin, ..wanted.clone() })
    }
}

impl Group {
    fn is_udp(&self) -> bool {
        self.key.protocol == Protocol::Udp
    }
}
