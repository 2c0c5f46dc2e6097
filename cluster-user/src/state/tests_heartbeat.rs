//! Workers that say that they live, fall silent, and say it again.

use std::time::Duration;

use super::{
    announcement::What,
    event::{Command, Event, Word},
    tests_reload::{batch, reload},
    world::{World, spec, start, targets},
};
use crate::{
    config::{
        scheduling::{Guard, Scheduling, Switch},
        spec::AppSpec,
    },
    datapath::Traffic,
    id::{AppId, WorkerId},
};

const FIRST: WorkerId = WorkerId(0);
const SECOND: WorkerId = WorkerId(1);

#[test]
fn a_worker_that_falls_silent_is_distrusted_until_it_speaks() {
    let mut world = online("heartbeat=1s", None);
    beat(&mut world, FIRST);
    pass(&mut world, 999);
    assert!(world.distrusted.is_empty());
    pass(&mut world, 1);
    assert!(world.distrusted.contains(&FIRST), "and the other one has never spoken");
    assert_eq!(world.distrusted.len(), 1);
    assert!(shown(&world).is_some());
    pass(&mut world, 100_000);
    assert_eq!(world.worker(0, 0), Some(FIRST), "without a watchdog nobody is replaced");

    beat(&mut world, FIRST);
    assert!(world.distrusted.is_empty() && shown(&world).is_none());
    pass(&mut world, 1000);
    assert!(world.distrusted.contains(&FIRST));
    let silent = What::Silent { silence: Duration::from_secs(1) };
    let words = [silent.clone(), What::Heard, silent];
    let told = world.news.iter().filter(|news| words.contains(&news.what));
    let told: Vec<_> = told.map(|news| (news.about.unwrap().worker, &news.what)).collect();
    assert_eq!(told, words.each_ref().map(|word| (FIRST, word)));
}

#[test]
fn nobody_is_silent_because_the_supervisor_stood_still() {
    let mut world = online("heartbeat=1s", Some(Duration::from_secs(2)));
    beat(&mut world, FIRST);
    // What they have said meanwhile is read after this.
    world.now = world.now + Duration::from_mins(1);
    world.handle(Event::Tick);
    assert!(world.distrusted.is_empty() && world.kills.is_empty());
    pass(&mut world, 1000);
    assert_eq!(world.distrusted.len(), 2, "since then nobody has said a word");
    pass(&mut world, 1000);
    assert_eq!(world.kills, [FIRST, SECOND]);
}

#[test]
fn a_watchdog_is_reason_enough_to_expect_it() {
    let mut world = online("on", Some(Duration::from_secs(2)));
    pass(&mut world, 1499);
    assert!(world.distrusted.is_empty());
    pass(&mut world, 1);
    assert_eq!(world.distrusted.len(), 2, "neither has ever spoken");
    assert!(world.kills.is_empty());
    beat(&mut world, FIRST);
    pass(&mut world, 500);
    assert_eq!(world.kills, [SECOND], "its time is over");
}

#[test]
fn who_never_spoke_or_need_not_is_trusted() {
    for guard in ["heartbeat=off", "off"] {
        let mut world = online(guard, Some(Duration::from_secs(20)));
        beat(&mut world, FIRST);
        pass(&mut world, 19_000);
        assert!(world.distrusted.is_empty(), "{guard}");
    }
    let mut world = online("on", None);
    beat(&mut world, FIRST);
    pass(&mut world, 100_000);
    assert!(world.distrusted.is_empty(), "nothing says how long it may be silent");
}

#[test]
fn what_was_said_before_it_was_ready_counts() {
    let mut world = begun("heartbeat=1s", None);
    beat(&mut world, FIRST);
    listen(&mut world);
    pass(&mut world, 1000);
    assert_eq!(world.distrusted.iter().collect::<Vec<_>>(), [&FIRST]);
}

#[test]
fn another_guard_holds_at_once() {
    let mut world = online("heartbeat=1s", None);
    beat(&mut world, FIRST);
    pass(&mut world, 5000);
    assert!(world.distrusted.contains(&FIRST));
    switch(&mut world, "off");
    assert!(world.distrusted.is_empty());
    switch(&mut world, "heartbeat=10s");
    assert!(world.distrusted.is_empty(), "it was silent for five seconds");
    pass(&mut world, 5000);
    assert!(world.distrusted.contains(&FIRST));
}

#[test]
fn the_next_supervisor_says_so_again() {
    let mut world = online("heartbeat=1s", None);
    beat(&mut world, FIRST);
    beat(&mut world, SECOND);
    pass(&mut world, 1000);
    beat(&mut world, SECOND);
    assert!(world.distrusted.contains(&FIRST));
    // What the data path has is whatever the last one left there.
    world.distrusted.clear();
    world.distrusted.insert(SECOND);
    let told = world.news.len();
    world.take_over();
    assert_eq!(world.distrusted.iter().collect::<Vec<_>>(), [&FIRST], "one and not the other");
    let news = world.news[told..].iter();
    assert_eq!(news.filter(|news| matches!(news.what, What::Silent { .. })).count(), 0, "no news");

    pass(&mut world, 999);
    assert!(!world.distrusted.contains(&SECOND), "it may have spoken to nobody");
    beat(&mut world, FIRST);
    assert!(world.distrusted.is_empty());
}

#[test]
fn whoever_serves_again_instead_of_ending_was_heard_while_it_drained() {
    let mut world = online("heartbeat=1s", Some(Duration::from_secs(2)));
    reload(&mut world, batch(1));
    world.deliver_all();
    let new = world.successor(0, 0).unwrap();
    world.traffic = Traffic { established: 1, busy: 1, ..Traffic::default() };
    world.listen(new, 80);
    world.deliver_all();
    assert_eq!(world.state.app_of(AppId(0)).unwrap().seats[0].worker, Some(new));
    for _ in 0..10 {
        pass(&mut world, 900);
        for worker in [FIRST, SECOND, new] {
            beat(&mut world, worker);
        }
        world.deliver_all();
    }
    let who = "somebody".to_owned();
    world.command(Command::Rollback { targets: targets("web"), who, wait: false });
    world.deliver_all();
    assert_eq!(world.resumed, [FIRST]);
    pass(&mut world, 900);
    assert!(world.kills.is_empty() && world.distrusted.is_empty());
    beat(&mut world, SECOND);
    pass(&mut world, 100);
    assert_eq!(world.distrusted.iter().collect::<Vec<_>>(), [&FIRST], "as always");
}

fn begun(guard: &str, watchdog: Option<Duration>) -> World {
    let mut world = World::new();
    let scheduling = Scheduling { guard: guard.parse().unwrap(), ..Scheduling::default() };
    world.command(start(AppSpec { watchdog, scheduling, ..spec("web", 2) }));
    world.deliver_all();
    world
}

fn listen(world: &mut World) {
    for instance in 0..2 {
        world.listen(world.worker(0, instance).unwrap(), 80);
        world.deliver_all();
    }
}

fn online(guard: &str, watchdog: Option<Duration>) -> World {
    let mut world = begun(guard, watchdog);
    listen(&mut world);
    world
}

fn beat(world: &mut World, worker: WorkerId) {
    world.handle(Event::Said { worker, word: Word::Watchdog });
}

fn pass(world: &mut World, millis: u64) {
    world.pass(Duration::from_millis(millis));
}

fn switch(world: &mut World, guard: &str) {
    let guard: Guard = guard.parse().unwrap();
    let switch = Box::new(Switch { guard: Some(guard), ..Switch::default() });
    world.command(Command::Switch { targets: targets("web"), switch });
    world.deliver_all();
}

/// How long the first worker was silent, as it is shown.
fn shown(world: &World) -> Option<Duration> {
    world.state.app_of(AppId(0)).unwrap().seats[0].silent
}
