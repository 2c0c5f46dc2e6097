//! Stories of workers that say something of themselves.

use std::time::Duration;

use super::{
    event::{Command, Event, Exit, Word},
    view::Status,
    world::{World, spec, start, targets},
};
use crate::{
    config::spec::{AppSpec, Readiness},
    datapath::Traffic,
    id::{GroupId, WorkerId},
};

const GROUP: GroupId = GroupId(0);

#[test]
fn a_worker_that_says_it_ends_gets_nothing_more_and_no_signal() {
    let mut world = online(spec("web", 2));
    let worker = world.worker(0, 0).unwrap();
    world.pass(Duration::from_secs(5));

    say(&mut world, worker, Word::Stopping);

    assert_eq!(world.routes[&GROUP].len(), 1);
    assert_eq!(status(&world), Status::Stopping);
    world.pass(Duration::from_secs(5));
    assert!(world.signals.is_empty() && world.kills.is_empty());
    world.exit(worker, Exit::Code(0));
    world.deliver_all();
    let next = world.worker(0, 0).unwrap();
    assert_ne!(next, worker, "another takes its seat");
}

#[test]
fn a_worker_that_says_it_ends_and_does_not_is_killed_in_the_end() {
    let mut world = online(spec("web", 1));
    let worker = world.worker(0, 0).unwrap();
    say(&mut world, worker, Word::Stopping);
    world.pass(Duration::from_secs(39));
    assert!(world.kills.is_empty(), "30 s to finish and 10 s to end");
    world.pass(Duration::from_millis(1500));
    assert_eq!(world.kills, [worker]);
}

#[test]
fn a_worker_that_needs_longer_to_start_or_to_end_says_so() {
    let mut slow = spec("web", 1);
    slow.readiness = Readiness::Notified;
    slow.listen_timeout = Duration::from_secs(5);
    let mut world = World::new();
    world.command(start(slow));
    world.deliver_all();
    let worker = world.worker(0, 0).unwrap();

    world.pass(Duration::from_secs(4));
    say(&mut world, worker, Word::Extend(Duration::from_secs(10)));
    world.pass(Duration::from_secs(9));
    assert!(world.kills.is_empty());
    say(&mut world, worker, Word::Extend(Duration::from_millis(1)));
    say(&mut world, worker, Word::Ready);
    assert_eq!(status(&world), Status::Online, "less than it had changes nothing");

    world.traffic = Traffic::default();
    world.command(Command::Stop { targets: targets("web"), wait: true });
    world.deliver_all();
    say(&mut world, worker, Word::Extend(Duration::from_secs(20)));
    world.pass(Duration::from_secs(15));
    assert!(world.kills.is_empty());
    world.pass(Duration::from_millis(5500));
    assert_eq!(world.kills, [worker]);
}

fn online(spec: AppSpec) -> World {
    let instances = spec.instances;
    let mut world = World::new();
    world.command(start(spec));
    world.deliver_all();
    for instance in 0..instances {
        world.listen(world.worker(0, instance).unwrap(), 80);
    }
    world.deliver_all();
    world
}

fn say(world: &mut World, worker: WorkerId, word: Word) {
    world.handle(Event::Said { worker, word });
    world.deliver_all();
}

fn status(world: &World) -> Status {
    world.state.apps(&[])[0].seats[0].status
}

#[test]
fn a_worker_that_does_not_look_at_the_socket_it_was_given_fails() {
    let mut given = spec("web", 1);
    given.listen = vec!["tcp://0.0.0.0:80".parse().unwrap()];
    given.readiness = Readiness::Running;
    let mut world = World::new();
    world.command(start(given));
    world.deliver_all();
    let worker = world.worker(0, 0).unwrap();
    world.listen(worker, 80);
    world.deliver_all();
    assert!(world.kills.is_empty());
    world.listen(worker, 81);
    world.deliver_all();
    assert!(world.kills.is_empty(), "another port is its own business");

    world.listen(worker, 80);
    world.deliver_all();

    assert_eq!(world.kills, [worker]);
}
