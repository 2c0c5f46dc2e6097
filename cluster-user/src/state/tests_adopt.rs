//! Stories of supervisors that die, and of those that take over.

use std::collections::BTreeMap;

use super::{
    State,
    adopt::{Found, Stray},
    effect::Effect,
    event::Exit,
    tests_reload::{GROUP, batch, online, reload, slots},
    view::{RolloutStage, Status},
};
use crate::{
    config::spec::User,
    id::{AppId, Instance, WorkerId},
};

#[test]
fn a_supervisor_that_dies_leaves_workers_that_the_next_one_takes_over() {
    let mut world = online(2);
    world.take_over();
    assert_eq!(slots(&world), [1, 2]);
    let view = world.state.app_of(AppId(0)).unwrap();
    assert!(view.seats.iter().all(|seat| seat.status == Status::Online && seat.restarts == 0));
    world.exit(WorkerId(0), Exit::Signal(9));
    world.deliver_all();
    assert_eq!(world.state.app_of(AppId(0)).unwrap().seats[0].restarts, 1);
}

#[test]
fn what_ended_while_nobody_looked_is_replaced() {
    let mut world = online(2);
    world.exit(WorkerId(1), Exit::Signal(9));
    world.take_over();
    world.deliver_all();
    assert_eq!(slots(&world), [1]);
    world.listen(world.worker(0, 1).unwrap(), 80);
    world.deliver_all();
    assert_eq!(slots(&world), [1, 2]);
}

#[test]
fn a_reload_goes_on_with_the_next_supervisor() {
    let mut world = online(2);
    reload(&mut world, batch(1));
    world.deliver_all();
    let new = world.successor(0, 0).unwrap();
    world.take_over();
    world.listen(new, 80);
    world.deliver_all();
    world.take_over();
    for worker in [0, 1] {
        world.exit(WorkerId(worker), Exit::Signal(15));
        world.deliver_all();
        if let Some(next) = world.successor(0, 1).or(world.worker(0, 1)) {
            world.listen(next, 80);
        }
        world.deliver_all();
    }
    let view = world.state.app_of(AppId(0)).unwrap();
    assert!(view.rollout.is_none(), "{view:?}");
}

#[test]
fn a_reload_does_not_fail_because_a_worker_was_not_spawned_any_more() {
    let mut world = online(2);
    reload(&mut world, batch(1));
    let new = world.successor(0, 0).unwrap();
    world.never_spawned(new);
    world.take_over();
    world.deliver_all();
    assert_eq!(world.successor(0, 0), Some(new), "it is spawned now");
    world.listen(new, 80);
    world.deliver_all();
    let rollout = world.state.app_of(AppId(0)).unwrap().rollout.unwrap();
    assert_eq!(rollout.stage, RolloutStage::Forward);
}

#[test]
fn workers_that_an_old_journal_does_not_know_keep_serving() {
    let mut world = online(1);
    let bytes = serde_json::to_vec(&world.state).unwrap();
    let mut state: State = serde_json::from_slice(&bytes).unwrap();
    state.complete().unwrap();
    // A reload has put 7 where 0 was, and another app was started, and none of it could be written down.
    let strays = [stray(0, 7, "web"), stray(1, 8, "other")];
    let seats = BTreeMap::from([(*world.routes[&GROUP].first().unwrap(), WorkerId(7))]);
    let alive = strays.iter().map(|stray| (stray.worker, stray.pid)).collect();
    let found = Found { alive, groups: BTreeMap::from([(GROUP, seats)]) };
    state.take_in(world.now, &strays, &found.alive);

    let effects = state.adopt(world.now, &found);

    let unwanted = |effect: &&Effect| {
        matches!(effect, Effect::Spawn { .. } | Effect::Vacate { .. } | Effect::Kill { .. })
    };
    assert!(!effects.iter().any(|effect| unwanted(&effect)), "{effects:?}");
    world.state = state;
    let seated = |app| world.state.app_of(AppId(app)).unwrap().seats[0].worker;
    assert_eq!([seated(0), seated(1)], [Some(WorkerId(7)), Some(WorkerId(8))]);
}

fn stray(app: u32, worker: u64, name: &str) -> Stray {
    Stray {
        app: AppId(app),
        worker: WorkerId(worker),
        instance: Instance(0),
        pid: 4000,
        name: name.to_owned(),
        program: "/bin/app".into(),
        args: Vec::new(),
        cwd: "/".into(),
        env: BTreeMap::new(),
        user: User { uid: 0, gid: 0, groups: Vec::new() },
        listens: true,
    }
}
