//! Stories of apps of which nobody said whether they serve a port.

use std::time::Duration;

use super::{
    tests_reload::{batch, reload},
    view::Status,
    world::{World, spec, start},
};
use crate::{
    config::spec::{AppSpec, Readiness, SETTLED},
    id::{AppId, WorkerId},
};

#[test]
fn one_without_a_port_is_ready_when_it_has_run_for_a_while() {
    let mut world = begun();
    assert_eq!(status(&world), Status::Starting);
    world.pass(SETTLED);
    world.deliver_all();
    assert_eq!(status(&world), Status::Online);
    reload(&mut world, batch(1));
    world.deliver_all();
    world.pass(SETTLED);
    world.deliver_all();
    assert_eq!(world.signals, [(WorkerId(0), 15)], "nor does its successor have to listen");
}

#[test]
fn one_that_listens_is_ready_at_once_and_its_successor_not_before_it_does() {
    let mut world = begun();
    world.listen(WorkerId(0), 80);
    world.deliver_all();
    assert_eq!(status(&world), Status::Online);
    reload(&mut world, batch(1));
    world.deliver_all();
    let new = world.successor(0, 0).unwrap();
    world.pass(SETTLED + Duration::from_secs(1));
    world.deliver_all();
    assert_eq!(world.signals, [], "the old one serves");
    world.listen(new, 80);
    world.deliver_all();
    assert_eq!(world.signals, [(WorkerId(0), 15)]);
}

fn begun() -> World {
    let mut world = World::new();
    world.command(start(AppSpec { readiness: Readiness::Settled, ..spec("web", 1) }));
    world.deliver_all();
    world
}

fn status(world: &World) -> Status {
    world.state.app_of(AppId(0)).unwrap().seats[0].status
}
