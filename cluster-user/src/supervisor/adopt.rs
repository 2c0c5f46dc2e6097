//! Taking over from a supervisor that died: its workers, their output, and its groups.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anyhow::Context as _;

use super::{
    health,
    host::{Host, notice},
    journal::{Entry, Found, Journal, TreeRecord},
};
use crate::{
    api::message::Notice,
    config::spec::Logs,
    datapath::{GroupKey, GroupOptions, Place, record::GroupRecord},
    id::{AppId, GroupId, Instance, WorkerId},
    process::{
        cgroup::WorkerCgroup,
        output::{self, Origin},
        tree::{self, Marker, Remains, Tree},
    },
    state::{
        State,
        adopt::{self, Stray},
        effect::Effect,
    },
};

/// A worker to be looked for.
struct Wanted<'a> {
    worker: WorkerId,
    app: AppId,
    instance: Instance,
    name: &'a str,
    instances: u32,
    logs: &'a Logs,
    ports: &'a [u16],
    record: Option<TreeRecord>,
}

impl Host {
    /// Takes over what a supervisor before this one left, if it left anything. Says what it knew, set right, what is to
    /// be done, and what users should hear.
    ///
    /// # Errors
    /// When it cannot be told what there is.
    pub(super) fn adopt(
        &mut self,
        journal: &Journal,
    ) -> anyhow::Result<(State, Vec<Effect>, Vec<Notice>)> {
        let path = journal.path().display().to_string();
        let found = journal.read().with_context(|| format!("failed to read {path}"))?;
        let mut notices = Vec::new();
        let adopted = match found {
            Found::Entry(mut entry) => {
                for (app, why) in entry.state.mend() {
                    let message = format!(
                        "app `{app}` goes on without what is refused of what an earlier release was told: {why}"
                    );
                    log::warn!("{message}");
                    notices.push(notice(&message, "cluster policy shows how it is scheduled now"));
                }
                let (state, effects, unknown) = self.adopt_known(*entry);
                if unknown > 0 {
                    let message = format!(
                        "the journal {path} is not up to date; {unknown} workers that it does not know were taken over"
                    );
                    log::error!("{message}");
                    notices.push(notice(
                        &message,
                        "look whether the disk is full, and whether their settings are right: cluster describe all",
                    ));
                }
                (state, effects)
            }
            Found::Nothing | Found::EarlierBoot => self.adopt_strays(),
            Found::Broken(why) => {
                let aside =
                    journal.set_aside().with_context(|| format!("failed to rename {path}"))?;
                let message = format!(
                    "the journal {path} {why}; it was set aside as {}, and the apps are known by their processes only",
                    aside.display()
                );
                log::error!("{message}");
                notices.push(notice(
                    &message,
                    "look whether their settings are right: cluster describe all",
                ));
                self.adopt_strays()
            }
        };
        let (state, effects) = adopted;
        self.datapath.settle();
        notices.extend(self.end_unclaimed()?);
        let workers = self.workers.len();
        if workers > 0 {
            self.begin_rates();
            log::info!("took over {workers} workers of the daemon before this one");
        }
        Ok((state, effects, notices))
    }

    /// By the journal; how many workers were found that it does not know.
    fn adopt_known(&mut self, entry: Entry<State>) -> (State, Vec<Effect>, usize) {
        let Entry { mut state, groups, trees, ledger, .. } = entry;
        self.ledger = ledger;
        let mut found = adopt::Found::default();
        let known = state.known_workers();
        let numbers = known.iter().map(|known| known.worker).collect();
        for known in known {
            let Some(spec) = state.spec_of(known.worker).map(Arc::clone) else { continue };
            self.disregard(known.app, known.instance, &spec);
            let wanted = Wanted {
                worker: known.worker,
                app: known.app,
                instance: known.instance,
                name: spec.name.as_str(),
                instances: spec.instances,
                logs: &spec.logs,
                ports: &spec.ports,
                record: trees.get(&known.worker).copied(),
            };
            if let Some(pid) = self.adopt_worker(&wanted) {
                found.alive.insert(known.worker, pid);
                if let Some(running) = self.workers.get(&known.worker) {
                    let tree = Arc::clone(&running.tree);
                    self.adopt_shared(known.app, &spec, &tree);
                }
                if health::wants_channel(&spec)
                    && let Some(running) = self.workers.get(&known.worker)
                {
                    let channel = wanted.record.and_then(|record| record.channel);
                    self.health.adopt(known.worker, &running.tree, channel);
                }
            }
        }
        // A worker is written down before it is spawned. One that is not is there because that could not be done: it serves,
        // perhaps in the place of one that is written down and has gone.
        let now = crate::moment::Moment::now();
        let strays = self.strays(&numbers);
        found.alive.extend(strays.iter().map(|stray| (stray.worker, stray.pid)));
        state.take_in(now, &strays, &found.alive);
        for (group, key, options) in state.known_groups() {
            let Some(record) = groups.get(&group) else { continue };
            if let Some(slots) = self.adopt_group(group, &key, record, &options) {
                found.groups.insert(group, slots);
            }
        }
        let effects = state.adopt(now, &found);
        (state, effects, strays.len())
    }

    /// Without a journal: by what the kernel knows of processes and groups.
    fn adopt_strays(&mut self) -> (State, Vec<Effect>) {
        let strays = self.strays(&BTreeSet::new());
        let now = crate::moment::Moment::now();
        let mut state = State::of_strays(now, &strays);
        let mut found = adopt::Found {
            alive: strays.iter().map(|stray| (stray.worker, stray.pid)).collect(),
            ..adopt::Found::default()
        };
        let groups = self.datapath.unadopted();
        for ((key, record), group) in
            groups.into_iter().zip(0..).map(|(of, nth)| (of, GroupId(nth)))
        {
            let options = GroupOptions { app: String::new(), trace: false };
            if let Some(slots) = self.adopt_group(group, &key, &record, &options) {
                state.insert_group(group, key, &slots);
                found.groups.insert(group, slots);
            }
        }
        let effects = state.adopt(now, &found);
        (state, effects)
    }

    /// Takes over the workers that are found and are none of `known`.
    fn strays(&mut self, known: &BTreeSet<WorkerId>) -> Vec<Stray> {
        let mut strays = Vec::new();
        for (app, worker, pids) in self.found() {
            if known.contains(&worker) {
                continue;
            }
            let Some(remains) = Remains::of(&pids) else { continue };
            let (Some(name), Some(instance)) =
                (remains.variable("CLUSTER_APP"), remains.variable("CLUSTER_INSTANCE"))
            else {
                continue;
            };
            let Ok(instance) = instance.parse().map(Instance) else { continue };
            let pipes = output::pipes_of(remains.pid);
            let record =
                TreeRecord { pid: remains.pid, started: remains.started, pipes, channel: None };
            let (logs, ports, record) = (&Logs::default(), &[][..], Some(record));
            let wanted = Wanted { worker, app, instance, name, instances: 1, logs, ports, record };
            if self.adopt_worker(&wanted).is_some() {
                strays.push(stray(app, worker, instance, &remains));
            }
        }
        strays
    }

    /// Every worker of this home that is there, with its processes.
    fn found(&self) -> Vec<(AppId, WorkerId, Vec<u32>)> {
        if let Some(hierarchy) = &self.hierarchy {
            let found = hierarchy.found().unwrap_or_else(|error| {
                log::error!("failed to look for workers: {error}");
                Vec::new()
            });
            return found.into_iter().map(|found| (found.app, found.worker, found.pids)).collect();
        }
        // Which of them belong together is said by the name of their app.
        let mut names: BTreeMap<String, u32> = BTreeMap::new();
        let marked = tree::marked(&self.home.id()).into_iter();
        marked
            .map(|(worker, pids)| {
                let name = Remains::of(&pids)
                    .and_then(|remains| remains.variable("CLUSTER_APP").map(str::to_owned));
                let next = u32::try_from(names.len()).unwrap_or(u32::MAX);
                let app = *names.entry(name.unwrap_or_default()).or_insert(next);
                (AppId(app), worker, pids)
            })
            .collect()
    }

    /// Takes over one worker, and says its pid; `None` when its main process is gone.
    fn adopt_worker(&mut self, wanted: &Wanted<'_>) -> Option<u32> {
        let &Wanted { worker, app, instance, name, instances, logs, ports, record } = wanted;
        let reopened =
            self.hierarchy.as_ref().map(|hierarchy| hierarchy.reopen_worker(app, worker));
        let marker = Marker::new(&self.home.id(), worker);
        let cgroup = match reopened {
            Some(Ok(cgroup)) => Some(cgroup),
            Some(Err(_)) => return None,
            None => None,
        };
        let pids = match &cgroup {
            Some(cgroup) => cgroup.pids().unwrap_or_default(),
            None => tree::marked(&self.home.id()).remove(&worker).unwrap_or_default(),
        };
        // Without a record it was spawned in the moment in which the supervisor died.
        let record = record.or_else(|| {
            let remains = Remains::of(&pids)?;
            let pipes = output::pipes_of(remains.pid);
            Some(TreeRecord { pid: remains.pid, started: remains.started, pipes, channel: None })
        })?;
        let place = Place {
            app,
            cgroup: cgroup.as_ref().map(WorkerCgroup::id),
            cgroup_path: cgroup.as_ref().map(WorkerCgroup::path),
            ports,
            number: instance.0,
        };
        if let Err(error) = self.datapath.admit(worker, &place) {
            log::error!("failed to take over worker {worker}: {error:#}");
            return None;
        }
        let tree = match cgroup {
            Some(cgroup) => Tree::adopt_in_cgroup(record.pid, record.started, cgroup, marker),
            None => Tree::adopt_marked(record.pid, record.started, marker),
        };
        let Some(tree) = tree.map(Arc::new) else {
            self.datapath.dismiss(worker);
            return None;
        };
        self.datapath.started(worker, record.pid, tree.process(), None);
        let mut pids = pids;
        pids.retain(|pid| *pid != record.pid);
        pids.insert(0, record.pid);
        let origin = Origin { app: name, instance, instances, logs };
        self.output.readopt(worker, &origin, &pids, record.pipes);
        if let Err(error) = self.keep(worker, app, instance, tree) {
            log::error!("failed to watch worker {worker}: {error}");
            return None;
        }
        Some(record.pid)
    }

    fn adopt_group(
        &mut self,
        group: GroupId,
        key: &GroupKey,
        record: &GroupRecord,
        options: &GroupOptions,
    ) -> Option<BTreeMap<cluster_common::slot::Slot, WorkerId>> {
        match self.datapath.adopt(group, key, record, options) {
            Ok(seated) => {
                // What is nobody's is vacated.
                let nobody = WorkerId(u64::MAX);
                let seats = seated.into_iter();
                Some(seats.map(|seat| (seat.slot, seat.worker.unwrap_or(nobody))).collect())
            }
            Err(error) => {
                // Its workers' sockets are reported anew, and found a group.
                log::warn!("the group on {} cannot be taken over: {error:#}", key.address);
                None
            }
        }
    }

    /// Ends the workers of this home that nobody knows.
    fn end_unclaimed(&self) -> anyhow::Result<Vec<Notice>> {
        let claimed: BTreeSet<_> = self.workers.keys().copied().collect();
        let mut processes = 0;
        if let Some(hierarchy) = &self.hierarchy {
            let left = hierarchy.end_unclaimed(&claimed);
            let left = left.context("failed to end what a killed daemon left")?;
            processes = left.iter().map(|leftover| leftover.pids.len()).sum();
        }
        // What there were no cgroups for, and what had gone to another one before its worker ended.
        processes += tree::end_unclaimed(&self.home.id(), &claimed);
        if processes == 0 {
            return Ok(Vec::new());
        }
        let message = format!(
            "the daemon before this one was killed; ended {processes} processes it left that belong to no worker"
        );
        log::warn!("{message}");
        Ok(vec![notice(&message, "cluster list shows what runs")])
    }
}

fn stray(app: AppId, worker: WorkerId, instance: Instance, remains: &Remains) -> Stray {
    let particular = [
        "CLUSTER_APP",
        "CLUSTER_INSTANCE",
        "LISTEN_FDNAMES",
        "LISTEN_FDS",
        "LISTEN_PID",
        "NODE_APP_INSTANCE",
        "NODE_CHANNEL_FD",
        "NODE_CHANNEL_SERIALIZATION_MODE",
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
        "name",
        "pm_id",
        Marker::NAME,
    ];
    let env = remains.env.iter().filter(|(key, _)| !particular.contains(&key.as_str()));
    Stray {
        app,
        worker,
        instance,
        pid: remains.pid,
        name: remains.variable("CLUSTER_APP").unwrap_or_default().to_owned(),
        program: remains.program.clone(),
        args: remains.args.iter().skip(1).cloned().collect(),
        cwd: remains.cwd.clone(),
        env: env.cloned().collect(),
        user: remains.user.clone(),
        listens: !remains.listening.is_empty(),
    }
}
