//! By which rule workers are picked: the same in every group of an app and in every generation of it.
//!
//! Invariants, watched by the simulation:
//! 1. A group is opened with the rule of its app's definition, and has it from the first connection on. While a canary has
//!    its share, it takes turns instead where that rule would give the canary another one ([`Policy::keeps_shares`]).
//! 2. A switch is made when every open group of its apps has taken it; until then definitions, and with them the journal,
//!    have the rule before. One that a group refuses is taken back everywhere.
//! 3. After adopting nobody knows what groups have: each is told again. A switch that was under way has not been made.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use super::{
    State,
    announcement::What,
    app::App,
    call::Goal,
    effect::{Aside, Effect, Refusal, Tale},
    event::CallId,
    group::Group,
    rollout::{Rollout, Stage},
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
    /// What the data path was asked for last, or has; `None` when nobody knows.
    asked: Option<Scheduling>,
    /// How many of its answers are on their way.
    unanswered: u32,
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
        Self { asked: Some(scheduling), unanswered: 0, refused: None }
    }

    fn is(&self, scheduling: &Scheduling) -> bool {
        self.asked.as_ref() == Some(scheduling)
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
            // It may be another program than the last time, under the same name.
            if let Some(Policy::Custom(_)) = to.get(&group.app).map(|to| &to.policy) {
                group.rule.asked = None;
            }
        }
        self.switches.push(Switching { call, to });
        Ok(())
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
        entry.rule.unanswered = entry.rule.unanswered.saturating_sub(1);
        let Err(why) = result else {
            entry.rule.refused = None;
            return;
        };
        if entry.rule.unanswered > 0 {
            // It has been asked for something else since.
            return;
        }
        let app = entry.app;
        let before = self.apps.get(&app).map(|app| app.in_effect(&app.spec().scheduling));
        entry.rule.asked = before.map(Cow::into_owned);
        let switch = self.switches.iter().position(|switch| switch.to.contains_key(&app));
        if let Some(at) = switch {
            // Those that have taken it go back: what they shall have is the rule before again.
            let Switching { call, .. } = self.switches.remove(at);
            let name = self.name(app);
            self.refuse(call, Refusal::NotScheduled { name, why });
        } else {
            // Nobody asked for it now: it has been so all along, or was before this supervisor came.
            self.unscheduled(group, format!("{why}; what picked its workers before goes on"));
        }
    }

    /// A group has not the rule of its app.
    pub(super) fn unscheduled(&mut self, group: GroupId, why: String) {
        let Some(entry) = self.groups.get_mut(&group) else { return };
        entry.rule.refused = Some(why.clone());
        let app = entry.app;
        self.announce(app, What::NotScheduled { why });
    }

    /// Tells every group whose rule is not what it shall be, and ends the switches that all groups have taken.
    pub(super) fn settle_schedulings(&mut self) {
        let mut asks = Vec::new();
        for group in self.groups.values().filter(|group| group.open) {
            let Some(app) = self.apps.get(&group.app) else { continue };
            let switch = self.switches.iter().find_map(|switch| switch.to.get(&group.app));
            let wanted = app.in_effect(switch.unwrap_or(&app.spec().scheduling));
            if !group.rule.is(&wanted) {
                asks.push((group.id, wanted.into_owned()));
            }
        }
        for (group, scheduling) in asks {
            if let Some(entry) = self.groups.get_mut(&group) {
                entry.rule.asked = Some(scheduling.clone());
                entry.rule.unanswered += 1;
            }
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
        let waits = self.groups.values().any(|group| {
            group.open && switch.to.contains_key(&group.app) && group.rule.unanswered > 0
        });
        if waits {
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

    /// Tells those who wait for an app, when a group of datagrams is opened, how these are spread.
    pub(super) fn tell_of_opened(&mut self, group: GroupId) {
        let Some(app) =
            self.groups.get(&group).filter(|group| group.is_udp()).map(|group| group.app)
        else {
            return;
        };
        let about = |goal: &Goal| match goal {
            Goal::Rolled(apps) => apps.contains_key(&app),
            Goal::Up | Goal::Down | Goal::End => false,
        };
        let waiting = self.calls.iter().filter(|(_, call)| {
            about(&call.goal)
                || (call.goal == Goal::Up && call.seats.iter().any(|(of, _)| *of == app))
        });
        let waiting: Vec<_> = waiting.map(|(id, _)| *id).collect();
        self.tell_of_datagrams(app, &waiting);
        let mut of_app = self.groups.values().filter(|group| group.app == app && group.open);
        // Once, however many ports there are.
        if of_app.next().is_some() && of_app.next().is_none() {
            self.tell_of_unguarded(app, &waiting);
        }
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
        let mut of_app = self.groups.values().filter(|group| group.app == app && group.open);
        let is_udp = of_app.next().is_some_and(Group::is_udp) && of_app.all(Group::is_udp);
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
        let udp =
            self.groups.values().filter(|group| group.app == app && group.open && group.is_udp());
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
        if wanted.policy.keeps_shares() || !self.rollout.as_ref().is_some_and(Rollout::has_share) {
            return Cow::Borrowed(wanted);
        }
        Cow::Owned(Scheduling { policy: Policy::RoundRobin, ..wanted.clone() })
    }
}

impl Rollout {
    /// Whether a canary has a share of the connections.
    fn has_share(&self) -> bool {
        let is_share = matches!(self.pace.canary, Some(Canary::Share { .. }));
        is_share && matches!(self.stage, Stage::Canary { since: Some(_), .. })
    }
}

impl Group {
    fn is_udp(&self) -> bool {
        self.key.protocol == Protocol::Udp
    }
}
