//! Stories of canaries: their share, what becomes of them, and what is said of that.

use std::time::Duration;

use super::{
    effect::{Aside, Refusal, Tale},
    event::{CallId, Command, Event, Exit},
    tests_reload::{batch, online, reload, rollback, slots},
    world::{World, targets},
};
use crate::{
    config::pace::{Batch, Canary, Pace},
    datapath::Traffic,
    id::{AppId, WorkerId},
};

#[test]
fn a_canary_has_its_exact_share_until_it_is_promoted() {
    let mut world = online(4);
    let pace = Pace { canary: Some(Canary::Share { part: 1, of: 20 }), ..batch(4) };
    let call = reload(&mut world, pace);
    world.deliver_all();
    let canary = world.successor(0, 0).unwrap();
    world.listen(canary, 80);
    world.deliver_all();
    assert!(matches!(world.answer(call), Some(Tale::Done { .. })), "it waits for a word");
    let turns = |slot: u16| slots(&world).iter().filter(|of| **of == slot).count();
    assert_eq!((turns(5) * 20, turns(1)), (slots(&world).len(), turns(4)));
    let promoted = world.command(Command::Promote { targets: targets("web"), wait: true });
    world.deliver_all();
    assert_eq!(slots(&world).len(), 4, "every worker is as good as any other");
    world.exit(WorkerId(0), Exit::Signal(15));
    world.deliver_all();
    for instance in 1..4 {
        let new = world.successor(0, instance).unwrap();
        world.listen(new, 80);
        world.deliver_all();
    }
    for old in 1..4 {
        world.exit(WorkerId(old), Exit::Signal(15));
    }
    world.deliver_all();
    assert!(matches!(world.answer(promoted), Some(Tale::Done { .. })));
    assert_eq!(world.state.app_of(AppId(0)).unwrap().generation.0, 2);
}

#[test]
fn a_canary_of_more_workers_than_there_are_is_refused_and_nothing_begins() {
    let mut world = online(4);
    let call = reload(&mut world, Pace { canary: Some(Canary::Workers(5)), ..batch(4) });
    let refused = Refusal::BigCanary { name: "web".to_owned(), asked: 5, instances: 4 };
    assert_eq!(world.answer(call), Some(&Tale::Refused(refused)));
    assert!(world.state.app_of(AppId(0)).unwrap().rollout.is_none());
    reload(&mut world, Pace { canary: Some(Canary::Workers(4)), ..batch(4) });
    assert!(world.state.app_of(AppId(0)).unwrap().rollout.is_some());
}

#[test]
fn a_canary_goes_back_in_one_publication() {
    let mut world = online(2);
    reload(&mut world, Pace { canary: Some(Canary::Workers(1)), ..batch(1) });
    world.deliver_all();
    let canary = world.successor(0, 0).unwrap();
    world.listen(canary, 80);
    world.deliver_all();
    assert_eq!(slots(&world), [1, 2, 3]);
    let back = rollback(&mut world);
    assert_eq!(slots(&world), [1, 2], "at once");
    world.deliver_all();
    world.exit(canary, Exit::Signal(15));
    world.deliver_all();
    assert!(matches!(world.answer(back), Some(Tale::Done { .. })));
}

#[test]
fn a_healthy_canary_is_promoted_by_itself_and_a_congested_one_goes_back() {
    for (queued, stays) in [(0, true), (100, false)] {
        let new = Traffic { queued, ..Traffic::default() };
        let (world, canary, _) = soaked(10, new, Traffic::default());
        let view = world.state.app_of(AppId(0)).unwrap();
        let seat = &view.seats[0];
        assert_eq!(seat.worker == Some(canary), stays, "{view:?}");
    }
}

#[test]
fn a_canary_to_which_nothing_came_is_promoted_and_that_is_said() {
    for (received, said) in [(Some(0), true), (Some(1), false), (None, false)] {
        let new = Traffic { received, ..Traffic::default() };
        let old = Traffic { received: Some(9), ..Traffic::default() };
        let (world, canary, call) = soaked(2, new, old);
        assert_eq!(world.state.app_of(AppId(0)).unwrap().seats[0].worker, Some(canary));
        let aside = Tale::Aside(Aside::Untried { name: "web".to_owned() });
        assert_eq!(world.told[&call].contains(&aside), said, "{received:?}");
    }
}

/// A canary of one worker whose soak of so many seconds is over, in which it had this traffic and the others had that one.
fn soaked(seconds: u64, new: Traffic, old: Traffic) -> (World, WorkerId, CallId) {
    let mut world = online(2);
    let pace = Pace {
        canary: Some(Canary::Workers(1)),
        soak: Duration::from_secs(seconds),
        batch: Batch::Workers(2),
    };
    let call = reload(&mut world, pace);
    world.deliver_all();
    let canary = world.successor(0, 0).unwrap();
    world.listen(canary, 80);
    world.deliver_all();
    for _ in 0..=seconds {
        world.pass(Duration::from_secs(1));
        while let Some(Event::Measured { worker, .. }) = world.answers.pop_front() {
            let traffic = Some(if worker == canary { new } else { old });
            world.handle(Event::Measured { worker, traffic });
        }
    }
    (world, canary, call)
}
