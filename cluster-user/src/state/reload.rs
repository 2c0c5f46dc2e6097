//! `reload`, `promote` and `rollback`: what users want of generations.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    State,
    announcement::What,
    call::Goal,
    deployment::{Deployment, Kind, Outcome, REMEMBERED},
    effect::{Refusal, Tale},
    event::{CallId, Reload},
    rollout::{Rollout, Setback, Stage},
};
use crate::{
    config::{
        change::Change,
        pace::{Canary, Pace},
        spec::AppSpec,
        target::Target,
    },
    datapath::GroupKey,
    id::AppId,
    moment::Moment,
};

impl State {
    /// Begins the reload of every app that is meant, or of none; whoever waits is told how it goes.
    pub(super) fn reload(
        &mut self,
        now: Moment,
        call: CallId,
        reload: &Reload,
    ) -> Result<Goal, Refusal> {
        let waiting = reload.wait.then_some(call);
        let apps = self.select_apps(&reload.targets)?;
        self.all_running(&apps)?;
        for id in &apps {
            self.canary_fits(*id, reload.pace.canary)?;
        }
        if reload.change.spec.is_some() {
            apps.iter().try_for_each(|id| self.not_overtaken(call, *id))?;
        }
        if !reload.force {
            let gives_way = |id: &AppId| {
                let rollout = self.apps.get(id).and_then(|app| app.rollout.as_ref());
                !reload.yields && rollout.is_some_and(|rollout| rollout.yields)
            };
            self.not_rolling(apps.iter().copied().filter(|id| !gives_way(id)))?;
        }
        for id in &apps {
            if reload.change.spec.is_some() {
                self.says(call, *id);
            }
            let Some(app) = self.apps.get(id) else { continue };
            let spec = Arc::new(reload.change.apply(app.spec()));
            self.begin(now, *id, spec, Kind::Reload, reload.pace, &reload.who, waiting);
            if let Some(rollout) = self.apps.get_mut(id).and_then(|app| app.rollout.as_mut()) {
                rollout.yields = reload.yields;
            }
        }
        Ok(rolled(&apps))
    }

    /// Refuses a canary of more workers than there are: it would get half of the connections at the most, and not what was
    /// thought of.
    fn canary_fits(&self, id: AppId, canary: Option<Canary>) -> Result<(), Refusal> {
        let Some(Canary::Workers(asked)) = canary else { return Ok(()) };
        let instances = self.apps.get(&id).map_or(0, |app| app.spec().instances);
        if asked <= instances {
            return Ok(());
        }
        Err(Refusal::BigCanary { name: self.name(id), asked, instances })
    }

    /// Rolls out what a canary has shown.
    pub(super) fn promote(
        &mut self,
        waiting: Option<CallId>,
        targets: &[Target],
    ) -> Result<Goal, Refusal> {
        let apps = self.select_apps(targets)?;
        for id in &apps {
            let canary = self.apps.get(id).and_then(|app| app.rollout.as_ref());
            match canary.map(|rollout| &rollout.stage) {
                Some(Stage::Canary { .. }) => {}
                Some(Stage::Forward | Stage::Back(_) | Stage::Counting(_)) | None => {
                    return Err(Refusal::NothingToPromote { name: self.name(*id) });
                }
            }
        }
        for id in &apps {
            if let Some(rollout) = self.apps.get_mut(id).and_then(|app| app.rollout.as_mut()) {
                rollout.stage = Stage::Forward;
                rollout.calls.extend(waiting);
            }
        }
        Ok(rolled(&apps))
    }

    /// Turns the reloads that are under way back; an app that has none goes back to what was deployed before.
    pub(super) fn rollback(
        &mut self,
        now: Moment,
        call: CallId,
        wait: bool,
        targets: &[Target],
        who: &str,
    ) -> Result<Goal, Refusal> {
        let waiting = wait.then_some(call);
        let apps = self.select_apps(targets)?;
        self.all_running(&apps)?;
        let nothing = apps.iter().find(|id| {
            self.apps.get(id).is_none_or(|app| app.rollout.is_none() && app.previous.is_none())
        });
        if let Some(id) = nothing {
            return Err(Refusal::NothingToRollBack { name: self.name(*id) });
        }
        for id in &apps {
            self.says(call, *id);
            let Some(app) = self.apps.get_mut(id) else { continue };
            match (&mut app.rollout, app.previous) {
                (Some(rollout), _) => {
                    let mut surprised = Vec::new();
                    if rollout.advancing() {
                        rollout.stage = Stage::Back(Setback::Asked { who: who.to_owned() });
                        surprised = std::mem::take(&mut rollout.calls);
                    }
                    rollout.calls.extend(waiting);
                    // Who waits for the reload must not take this end for the one that was wanted.
                    let turned = Refusal::TurnedBack { name: self.name(*id), who: who.to_owned() };
                    self.rolled(surprised, *id, &Tale::Refused(turned));
                    self.tell_back(*id);
                }
                (None, Some(previous)) => {
                    let spec = Arc::clone(app.definition(previous));
                    let spec = Arc::new(Change::default().apply(&spec));
                    self.begin(now, *id, spec, Kind::Rollback, Pace::default(), who, waiting);
                }
                (None, None) => {}
            }
        }
        Ok(rolled(&apps))
    }

    #[expect(clippy::too_many_arguments, reason = "it is what a rollout is made of")]
    fn begin(
        &mut self,
        now: Moment,
        id: AppId,
        spec: Arc<AppSpec>,
        kind: Kind,
        pace: Pace,
        who: &str,
        waiting: Option<CallId>,
    ) {
        let origin = match self.supersede(now, id) {
            Some(rollout) => rollout.origin,
            None => match self.apps.get(&id) {
                Some(app) => app.generation,
                None => return,
            },
        };
        let serves = self.served(id, &spec);
        let Some(app) = self.apps.get_mut(&id) else { return };
        // All of them are replaced now.
        app.restarting.clear();
        let target = app.define(spec);
        for seat in app.seats.values_mut() {
            seat.attempts = (0, None);
        }
        let stage = match pace.canary {
            Some(_) => Stage::Canary { since: None, look: now, bad: 0 },
            None => Stage::Forward,
        };
        app.rollout = Some(Rollout {
            target,
            origin,
            kind,
            pace,
            who: who.to_owned(),
            yields: false,
            began: now,
            stage,
            serves,
            calls: waiting.into_iter().collect(),
            told: BTreeMap::new(),
        });
        self.announce(id, What::Deploying { generation: target, kind, who: who.to_owned() });
    }

    /// What an app serves now, less what its new definition says it does not serve any more.
    fn served(&self, id: AppId, new: &AppSpec) -> Vec<GroupKey> {
        let served = self.open_groups_of(id);
        let served = served.filter(|group| !group.served_by(|id| self.is_online(id)).is_empty());
        let named =
            |key: &GroupKey| new.ports.is_empty() || new.ports.contains(&key.address.port());
        served.map(|group| group.key.clone()).filter(named).collect()
    }

    /// Ends a reload whose place something else takes; its workers are dealt with by whoever does that.
    pub(super) fn supersede(&mut self, now: Moment, id: AppId) -> Option<Rollout> {
        let rollout = self.apps.get_mut(&id)?.rollout.take()?;
        self.superseded(id, rollout.calls.clone());
        self.remember(now, id, &rollout, Outcome::Superseded, 0);
        Some(rollout)
    }

    /// Tells those who wait for a reload that something else took its place.
    pub(super) fn superseded(&mut self, id: AppId, calls: Vec<CallId>) {
        let name = self.name(id);
        self.rolled(calls, id, &Tale::Refused(Refusal::Superseded { name }));
    }

    /// Writes a line of an app's history.
    pub(super) fn remember(
        &mut self,
        now: Moment,
        id: AppId,
        rollout: &Rollout,
        outcome: Outcome,
        moved: u64,
    ) {
        let what = What::Deployed {
            generation: rollout.target,
            kind: rollout.kind,
            outcome: outcome.clone(),
            took: now.since(rollout.began),
        };
        self.announce(id, what);
        let Some(app) = self.apps.get_mut(&id) else { return };
        app.history.push(Deployment {
            generation: rollout.target,
            from: Some(rollout.origin),
            kind: rollout.kind,
            outcome,
            who: rollout.who.clone(),
            began: rollout.began,
            took: now.since(rollout.began),
            moved,
        });
        let surplus = app.history.len().saturating_sub(REMEMBERED);
        app.history.drain(..surplus);
    }

    fn all_running(&self, apps: &BTreeSet<AppId>) -> Result<(), Refusal> {
        for id in apps {
            match self.apps.get(id) {
                Some(app) if app.deleting => {
                    return Err(Refusal::Superseded { name: self.name(*id) });
                }
                Some(app) if !app.running() => {
                    return Err(Refusal::NotRunning { name: self.name(*id) });
                }
                Some(_) | None => {}
            }
        }
        Ok(())
    }

    /// Refuses what would get into the way of a reload.
    pub(super) fn not_rolling(&self, apps: impl Iterator<Item = AppId>) -> Result<(), Refusal> {
        let mut rollouts = apps.filter_map(|id| Some((id, self.apps.get(&id)?.rollout.as_ref()?)));
        match rollouts.next() {
            None => Ok(()),
            Some((id, rollout)) => Err(Refusal::Rolling {
                name: self.name(id),
                who: rollout.who.clone(),
                since: rollout.began,
                canary: matches!(rollout.stage, Stage::Canary { .. }),
            }),
        }
    }
}

fn rolled(apps: &BTreeSet<AppId>) -> Goal {
    Goal::Rolled(apps.iter().map(|id| (*id, None)).collect())
}
