//! Stories of reloads, rollbacks, and of supervisors that die in the middle of them.

use std::time::Duration;

use cluster_common::slot::Slot;

use super::{
    effect::{Refusal, Tale},
    event::{CallId, Command, Event, Exit, Reload, Word},
    world::{World, spec, start, targets},
};
use crate::{
    config::{
        change::Change,
        pace::{Batch, Pace},
        spec::{AppSpec, Probe, ProbeTarget, Readiness},
    },
    datapath::Traffic,
    id::{AppId, GroupId, WorkerId},
};

pub(super) const GROUP: GroupId = GroupId(0);

#[test]
fn a_new_worker_takes_the_place_of_the_old_one_in_one_publication() {
    let mut world = online(2);
    let call = reload(&mut world, batch(1));
    world.deliver_all();
    let (old, new) = (WorkerId(0), world.successor(0, 0).unwrap());
    assert_eq!(slots(&world), [1, 2], "the new one is not ready");
    world.listen(new, 80);
    world.traffic = Traffic { established: 1, ..Traffic::default() };
    world.deliver_all();
    assert_eq!(slots(&world), [2, 3], "in one step");
    assert!(world.signals.is_empty(), "the old one has a connection");
    world.traffic = Traffic::default();
    world.pass(Duration::from_secs(1));
    world.deliver_all();
    assert_eq!(world.signals, [(old, 15)]);
    world.exit(old, Exit::Signal(15));
    world.deliver_all();
    let last = world.successor(0, 1).expect("the next batch begins when this one is settled");
    world.listen(last, 80);
    world.deliver_all();
    world.exit(WorkerId(1), Exit::Signal(15));
    world.deliver_all();
    assert_eq!(world.answer(call), Some(&Tale::Done { apps: vec![AppId(0)], deleted: vec![] }));
    let view = world.state.app_of(AppId(0)).unwrap();
    assert_eq!((view.generation.0, view.history.len()), (2, 1));
}

#[test]
fn flows_of_datagrams_are_waited_for_by_a_reload_and_not_by_a_stop() {
    let mut world = online(2);
    reload(&mut world, batch(1));
    world.deliver_all();
    world.listen(world.successor(0, 0).unwrap(), 80);
    world.traffic = Traffic { flows: true, ..Traffic::default() };
    world.deliver_all();
    world.pass(Duration::from_secs(29));
    world.deliver_all();
    assert!(world.signals.is_empty(), "they go on, and the time to drain is not over");
    world.pass(Duration::from_secs(2));
    world.deliver_all();
    assert_eq!(world.signals, [(WorkerId(0), 15)]);

    world.command(Command::Stop { targets: targets("all"), wait: false });
    world.deliver_all();
    assert!(world.signals.contains(&(WorkerId(1), 15)), "nobody comes after it");
}

#[test]
fn a_batch_is_swapped_when_all_of_it_is_ready() {
    let mut world = online(3);
    reload(&mut world, batch(2));
    world.deliver_all();
    let [first, second] = [0, 1].map(|instance| world.successor(0, instance).unwrap());
    world.listen(first, 80);
    world.deliver_all();
    assert_eq!(slots(&world), [1, 2, 3], "the other one is not ready");
    world.listen(second, 80);
    world.deliver_all();
    assert_eq!(slots(&world), [3, 4, 5]);
}

#[test]
fn a_new_worker_that_dies_in_its_soak_takes_everything_back() {
    let mut world = online(2);
    let pace = Pace { soak: Duration::from_secs(10), ..batch(1) };
    let call = reload(&mut world, pace);
    world.deliver_all();
    let new = world.successor(0, 0).unwrap();
    world.listen(new, 80);
    world.deliver_all();
    world.pass(Duration::from_secs(5));
    assert_eq!(slots(&world), [1, 2], "it soaks");
    world.exit(new, Exit::Code(1));
    world.deliver_all();
    let Some(Tale::Failed { why: Some(why), worker, rolled_back: true, .. }) = world.answer(call)
    else {
        panic!("{:?}", world.answer(call))
    };
    assert_eq!((why.to_string().as_str(), *worker), ("exited with code 1 after 5.0 s", Some(new)));
    assert_eq!(slots(&world), [1, 2]);
    let view = world.state.app_of(AppId(0)).unwrap();
    assert_eq!(view.generation.0, 1, "what it is has not changed");
}

#[test]
fn an_old_worker_that_still_drains_comes_back() {
    let mut world = online(2);
    world.traffic = Traffic { established: 1, ..Traffic::default() };
    reload(&mut world, batch(1));
    world.deliver_all();
    let new = world.successor(0, 0).unwrap();
    world.listen(new, 80);
    world.deliver_all();
    assert_eq!(slots(&world), [2, 3]);
    world.exit(new, Exit::Signal(11));
    world.deliver(0);
    assert_eq!(slots(&world), [1, 2], "in the same step");
    assert_eq!(world.resumed, [WorkerId(0)]);
    world.deliver_all();
    assert!(world.signals.is_empty());
}

#[test]
fn an_old_worker_that_has_gone_is_started_again_from_the_old_definition() {
    let mut world = online(2);
    let call = reload(&mut world, batch(1));
    world.deliver_all();
    let new = world.successor(0, 0).unwrap();
    world.listen(new, 80);
    world.deliver_all();
    world.exit(WorkerId(0), Exit::Signal(15));
    world.deliver_all();
    let second = world.successor(0, 1).unwrap();
    world.exit(second, Exit::Code(1));
    world.deliver_all();
    assert!(slots(&world).contains(&3), "the new one serves until the old one does again");
    let again = world.successor(0, 0).unwrap();
    assert_eq!(world.answer(call), None);
    world.listen(again, 80);
    world.deliver_all();
    world.exit(new, Exit::Signal(15));
    world.deliver_all();
    assert!(matches!(world.answer(call), Some(Tale::Failed { rolled_back: true, .. })));
    let view = world.state.app_of(AppId(0)).unwrap();
    assert!(view.seats.iter().all(|seat| seat.generation.0 == 1));
}

#[test]
fn a_new_worker_that_crashes_is_replaced_by_one_old_one() {
    let mut world = online(2);
    reload(&mut world, batch(1));
    world.deliver_all();
    let new = world.successor(0, 0).unwrap();
    world.listen(new, 80);
    world.deliver_all();
    world.exit(WorkerId(0), Exit::Signal(15));
    world.deliver_all();
    world.exit(new, Exit::Signal(11));
    world.deliver_all();
    let seat = (AppId(0), crate::id::Instance(0));
    assert_eq!(world.alive.values().filter(|of| **of == seat).count(), 1);
    world.listen(world.worker(0, 0).unwrap(), 80);
    world.deliver_all();
    assert_eq!(slots(&world).len(), 2);
}

#[test]
fn a_new_version_that_listens_elsewhere_never_takes_over() {
    let mut world = online(1);
    let call = reload(&mut world, batch(1));
    world.deliver_all();
    let new = world.successor(0, 0).unwrap();
    world.listen(new, 81);
    world.deliver_all();
    assert_eq!(slots(&world), [1]);
    world.pass(Duration::from_secs(31));
    world.deliver_all();
    let Some(Tale::Failed { why: Some(why), .. }) = world.answer(call) else { panic!() };
    assert_eq!(
        why.to_string(),
        "does not listen on 0.0.0.0:80, which is being served, but on 0.0.0.0:81"
    );
}

#[test]
fn without_overlap_the_old_one_goes_first_and_the_room_bridges() {
    let mut world = online(1);
    let apart = AppSpec { overlap: false, ..spec("web", 1) };
    let change = Change { spec: Some(Box::new(apart)), ..Change::default() };
    let call = reload_with(&mut world, change, batch(1), false);
    world.deliver_all();
    assert!(slots(&world).is_empty());
    assert_eq!(world.signals, [(WorkerId(0), 15)]);
    world.exit(WorkerId(0), Exit::Signal(15));
    world.deliver_all();
    world.listen(world.worker(0, 0).unwrap(), 80);
    world.deliver_all();
    assert!(matches!(world.answer(call), Some(Tale::Done { .. })));
    assert_eq!(world.on_miss.get(&GROUP), Some(&crate::datapath::OnMiss::Wait), "never refused");
}

#[test]
fn who_waits_for_a_reload_that_somebody_turns_back_is_told_that_it_failed() {
    let mut world = online(2);
    let call = reload(&mut world, batch(1));
    world.deliver_all();
    let new = world.successor(0, 0).unwrap();
    let back = rollback(&mut world);
    world.deliver_all();
    let Some(Tale::Refused(Refusal::TurnedBack { name, .. })) = world.answer(call) else {
        panic!()
    };
    assert_eq!(name, "web");
    world.exit(new, Exit::Signal(15));
    world.deliver_all();
    assert!(matches!(world.answer(back), Some(Tale::Done { .. })), "{:?}", world.answer(back));
}

#[test]
fn a_second_reload_is_refused_or_takes_over() {
    let mut world = online(2);
    let first = reload(&mut world, batch(1));
    world.deliver_all();
    let second = reload(&mut world, batch(1));
    let Some(Tale::Refused(Refusal::Rolling { who, .. })) = world.answer(second) else { panic!() };
    assert_eq!(who, "somebody");
    let unfinished = world.successor(0, 0).unwrap();
    let forced = reload_with(&mut world, Change::default(), batch(2), true);
    assert!(matches!(world.answer(first), Some(Tale::Refused(Refusal::Superseded { .. }))));
    world.deliver_all();
    assert_eq!(world.signals, [(unfinished, 15)]);
    world.exit(unfinished, Exit::Signal(15));
    world.deliver_all();
    for instance in 0..2 {
        world.listen(world.successor(0, instance).unwrap(), 80);
        world.deliver_all();
    }
    for old in 0..2 {
        world.exit(WorkerId(old), Exit::Signal(15));
    }
    world.deliver_all();
    assert!(matches!(world.answer(forced), Some(Tale::Done { .. })), "{:?}", world.told);
}

#[test]
fn a_reload_that_nobody_asked_for_gives_way_to_one_that_somebody_does() {
    let mut world = online(1);
    let by_itself = |world: &mut World| {
        let (targets, who) = (targets("web"), "watch: app.js".to_owned());
        let (change, pace) = (Change::default(), batch(1));
        let reload = Reload { targets, change, pace, force: false, who, yields: true, wait: true };
        world.command(Command::Reload(Box::new(reload)))
    };
    by_itself(&mut world);
    world.deliver_all();
    let unfinished = world.successor(0, 0).unwrap();
    let another = by_itself(&mut world);
    assert!(matches!(world.answer(another), Some(Tale::Refused(Refusal::Rolling { .. }))));
    let asked = reload(&mut world, batch(1));
    assert!(world.answer(asked).is_none(), "{:?}", world.told);
    world.deliver_all();
    world.exit(unfinished, Exit::Signal(15));
    world.deliver_all();
    // Once somebody has asked, it is as any other.
    let another = by_itself(&mut world);
    assert!(matches!(world.answer(another), Some(Tale::Refused(Refusal::Rolling { .. }))));
    let second = reload(&mut world, batch(1));
    assert!(matches!(world.answer(second), Some(Tale::Refused(Refusal::Rolling { .. }))));
    world.listen(world.successor(0, 0).unwrap(), 80);
    world.deliver_all();
    world.exit(WorkerId(0), Exit::Signal(15));
    world.deliver_all();
    assert!(matches!(world.answer(asked), Some(Tale::Done { .. })), "{:?}", world.told);
}

#[test]
fn what_cannot_be_reloaded_promoted_or_rolled_back_is_refused() {
    let mut world = online(1);
    let promoted = world.command(Command::Promote { targets: targets("web"), wait: true });
    let back = rollback(&mut world);
    assert!(matches!(
        world.answer(promoted),
        Some(Tale::Refused(Refusal::NothingToPromote { .. }))
    ));
    assert!(matches!(world.answer(back), Some(Tale::Refused(Refusal::NothingToRollBack { .. }))));
    world.command(Command::Stop { targets: targets("web"), wait: true });
    let stopped = reload(&mut world, batch(1));
    assert!(matches!(world.answer(stopped), Some(Tale::Refused(Refusal::NotRunning { .. }))));
}

#[test]
fn stopping_ends_a_reload() {
    let mut world = online(1);
    let call = reload(&mut world, batch(1));
    world.deliver_all();
    let new = world.successor(0, 0).unwrap();
    let stopped = world.command(Command::Stop { targets: targets("web"), wait: true });
    assert!(matches!(world.answer(call), Some(Tale::Refused(Refusal::Superseded { .. }))));
    world.deliver_all();
    for worker in [new, WorkerId(0)] {
        world.exit(worker, Exit::Signal(15));
    }
    world.deliver_all();
    assert!(matches!(world.answer(stopped), Some(Tale::Done { .. })));
}

#[test]
fn a_probe_goes_before_every_other_sign() {
    let mut world = World::new();
    let probe = Probe {
        what: ProbeTarget::Tcp { port: None },
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        successes: 2,
        failures: 3,
    };
    let probed = AppSpec { probe: Some(probe), readiness: Readiness::Notified, ..spec("web", 1) };
    world.command(start(probed));
    world.deliver_all();
    let worker = WorkerId(0);
    world.handle(Event::Said { worker, word: Word::Ready });
    assert!(world.probes.is_empty(), "its port is not there yet");
    world.listen(worker, 80);
    world.deliver_all();
    assert_eq!((world.probes.len(), slots(&world).len()), (1, 0));
    for result in [Ok(()), Err("500".to_owned()), Ok(())] {
        world.handle(Event::Probed { worker, result });
        world.pass(Duration::from_millis(1500));
    }
    assert!(slots(&world).is_empty(), "two in a row are wanted");
    world.handle(Event::Probed { worker, result: Ok(()) });
    assert_eq!(slots(&world), [1]);
}

#[test]
fn a_worker_that_fails_its_liveness_probe_leaves_the_route_and_is_replaced() {
    let mut world = World::new();
    let probe = Probe {
        what: ProbeTarget::Tcp { port: None },
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        successes: 1,
        failures: 2,
    };
    world.command(start(AppSpec { liveness: Some(probe), ..spec("web", 1) }));
    world.deliver_all();
    world.listen(WorkerId(0), 80);
    world.deliver_all();
    for _ in 0..2 {
        world.pass(Duration::from_millis(1100));
        world.handle(Event::Probed { worker: WorkerId(0), result: Err("hangs".to_owned()) });
    }
    assert!(slots(&world).is_empty());
    world.deliver_all();
    assert_eq!(world.signals, [(WorkerId(0), 15)]);
    world.exit(WorkerId(0), Exit::Signal(15));
    world.deliver_all();
    assert_eq!(world.state.app_of(AppId(0)).unwrap().seats[0].restarts, 1);
}

#[test]
fn a_silent_worker_is_killed_when_its_watchdog_bites() {
    let mut world = World::new();
    let watchdog = Some(Duration::from_secs(2));
    world.command(start(AppSpec { watchdog, ..spec("web", 1) }));
    world.deliver_all();
    world.listen(WorkerId(0), 80);
    world.deliver_all();
    for _ in 0..5 {
        world.pass(Duration::from_millis(1500));
        world.handle(Event::Said { worker: WorkerId(0), word: Word::Watchdog });
    }
    assert!(world.kills.is_empty());
    world.pass(Duration::from_millis(2500));
    assert_eq!(world.kills, [WorkerId(0)]);
}

pub(super) fn slots(world: &World) -> Vec<u16> {
    let mut slots: Vec<_> = world.routes[&GROUP].iter().map(|slot| Slot::get(*slot)).collect();
    slots.sort_unstable();
    slots
}

pub(super) fn batch(workers: u32) -> Pace {
    Pace { batch: Batch::Workers(workers), ..Pace::default() }
}

pub(super) fn reload(world: &mut World, pace: Pace) -> CallId {
    reload_with(world, Change::default(), pace, false)
}

pub(super) fn reload_with(world: &mut World, change: Change, pace: Pace, force: bool) -> CallId {
    let (targets, who) = (targets("web"), "somebody".to_owned());
    let reload = Reload { targets, change, pace, force, who, yields: false, wait: true };
    world.command(Command::Reload(Box::new(reload)))
}

pub(super) fn rollback(world: &mut World) -> CallId {
    world.command(Command::Rollback {
        targets: targets("web"),
        who: "somebody".to_owned(),
        wait: true,
    })
}

pub(super) fn online(instances: u32) -> World {
    let mut world = World::new();
    world.command(start(spec("web", instances)));
    world.deliver_all();
    for instance in 0..instances {
        world.listen(world.worker(0, instance).unwrap(), 80);
        world.deliver_all();
    }
    world
}
