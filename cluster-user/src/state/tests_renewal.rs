//! Stories of worn workers, hooks, apps that are known and do not run, and of what is told of all that.

use std::time::Duration;

use super::{
    announcement::What,
    effect::Tale,
    event::{Command, Event, Exit},
    tests_reload::{GROUP, batch, online, reload, slots},
    view::Status,
    world::{World, spec, start, targets},
};
use crate::{
    config::spec::{
        AppSpec,
        hooks::{Hook, Hooks},
        recycle::Worn,
    },
    id::{AppId, WorkerId},
};

const WORN: Worn = Worn::Memory { used: 3, max: 2 };

#[test]
fn a_worn_worker_serves_until_another_one_can() {
    let mut world = online(2);
    world.handle(Event::Worn { worker: WorkerId(0), worn: WORN });
    world.deliver_all();
    let new = world.successor(0, 0).unwrap();
    assert_eq!(slots(&world), [1, 2]);
    world.listen(new, 80);
    world.deliver_all();
    assert_eq!(slots(&world), [2, 3], "in one step");
    assert_eq!(world.signals, [(WorkerId(0), 15)]);
    world.exit(WorkerId(0), Exit::Signal(15));
    world.deliver_all();
    let view = world.state.app_of(AppId(0)).unwrap();
    assert_eq!((view.generation.0, view.history.len()), (1, 0), "it is no deployment");
    assert_eq!(view.seats.iter().map(|seat| seat.restarts).collect::<Vec<_>>(), [1, 0]);
}

#[test]
fn worn_workers_are_replaced_one_at_a_time() {
    let mut world = online(3);
    for worker in [0, 1] {
        world.handle(Event::Worn { worker: WorkerId(worker), worn: WORN });
    }
    world.deliver_all();
    assert_eq!(world.successor(0, 1), None, "the first one is under way");
    world.listen(world.successor(0, 0).unwrap(), 80);
    world.deliver_all();
    assert_eq!(world.successor(0, 1), None, "the old one is not gone");
    world.exit(WorkerId(0), Exit::Signal(15));
    world.deliver_all();
    assert!(world.successor(0, 1).is_some());
}

#[test]
fn a_worn_worker_stays_when_its_replacement_fails() {
    let mut world = online(1);
    let worn = || Event::Worn { worker: WorkerId(0), worn: WORN };
    world.handle(worn());
    world.deliver_all();
    world.exit(world.successor(0, 0).unwrap(), Exit::Code(1));
    world.deliver_all();
    assert_eq!(world.successor(0, 0), None);
    assert_eq!(slots(&world), [1]);
    world.handle(worn());
    world.deliver_all();
    assert_eq!(world.successor(0, 0), None, "not again so soon");
    world.pass(Duration::from_secs(61));
    world.handle(worn());
    world.deliver_all();
    assert!(world.successor(0, 0).is_some());
}

#[test]
fn workers_that_all_use_too_much_are_not_replaced_without_end() {
    let mut world = online(1);
    let mut renewed = 0;
    let mut seconds = 0;
    // As it is looked at: each worker is too big as soon as it is there.
    while seconds < 300 {
        let id = world.worker(0, 0).unwrap();
        world.handle(Event::Worn { worker: id, worn: WORN });
        world.deliver_all();
        if let Some(new) = world.successor(0, 0) {
            renewed += 1;
            world.listen(new, 80);
            world.deliver_all();
            world.exit(id, Exit::Signal(15));
            world.deliver_all();
        }
        world.pass(Duration::from_secs(3));
        seconds += 3;
    }
    assert!((3 + 3..=3 + 5).contains(&renewed), "{renewed} in five minutes");
    let told = world.news.iter().filter(|news| matches!(news.what, What::Outgrown { .. })).count();
    assert_eq!(told, 1);
    // Whoever grows slowly is replaced at once.
    world.pass(Duration::from_secs(150));
    let id = world.worker(0, 0).unwrap();
    world.handle(Event::Worn { worker: id, worn: WORN });
    world.deliver_all();
    assert!(world.successor(0, 0).is_some());
}

#[test]
fn a_reload_or_a_stop_goes_before_a_renewal() {
    let mut world = online(1);
    world.handle(Event::Worn { worker: WorkerId(0), worn: WORN });
    world.deliver_all();
    let renewal = world.successor(0, 0).unwrap();
    reload(&mut world, batch(1));
    world.deliver_all();
    assert_ne!(world.successor(0, 0), Some(renewal));
    assert_eq!(world.signals, [(renewal, 15)]);

    let mut world = online(1);
    world.handle(Event::Worn { worker: WorkerId(0), worn: WORN });
    world.deliver_all();
    let renewal = world.successor(0, 0).unwrap();
    world.command(Command::Stop { targets: targets("all"), wait: true });
    world.deliver_all();
    let told: Vec<_> = world.signals.iter().map(|(worker, _)| *worker).collect();
    assert!(told.contains(&renewal) && told.contains(&WorkerId(0)), "{told:?}");
}

#[test]
fn without_overlap_a_worn_worker_goes_first() {
    let mut world = online_with(AppSpec { overlap: false, ..spec("app0x", 1) });
    world.handle(Event::Worn { worker: WorkerId(0), worn: WORN });
    world.deliver_all();
    assert_eq!(world.signals, [(WorkerId(0), 15)]);
    world.exit(WorkerId(0), Exit::Signal(15));
    world.deliver_all();
    assert_eq!(world.worker(0, 0), Some(WorkerId(1)));
}

#[test]
fn hooks_are_run_at_their_turns() {
    let line = || Some("true".to_owned());
    let hooks = Hooks {
        pre_start: line(),
        post_ready: line(),
        pre_stop: line(),
        post_stop: line(),
        on_failure: line(),
        ..Hooks::default()
    };
    let mut world = online_with(AppSpec { hooks, ..spec("app0x", 1) });
    let first = WorkerId(0);
    assert_eq!(world.hooks, [(first, Hook::PostReady)]);
    world.command(Command::Stop { targets: targets("all"), wait: true });
    world.deliver(0);
    assert_eq!(world.hooks.last(), Some(&(first, Hook::PreStop)));
    assert!(world.signals.is_empty(), "the hook comes before the signal");
    world.deliver_all();
    assert_eq!(world.signals, [(first, 15)]);
    world.exit(first, Exit::Signal(15));
    world.deliver_all();
    assert_eq!(world.hooks.last(), Some(&(first, Hook::PostStop)), "nobody failed");

    world.command(Command::Restart { targets: targets("all"), wait: true });
    world.deliver_all();
    world.hooks.clear();
    world.exit(WorkerId(1), Exit::Code(1));
    world.deliver_all();
    let second = WorkerId(1);
    assert_eq!(world.hooks, [(second, Hook::PostStop), (second, Hook::OnFailure)]);
}

#[test]
fn a_hook_that_is_never_heard_of_again_does_not_keep_a_worker() {
    let hooks = Hooks { pre_stop: Some("true".to_owned()), ..Hooks::default() };
    let mut world = online_with(AppSpec { hooks, ..spec("app0x", 1) });
    world.command(Command::Stop { targets: targets("all"), wait: true });
    world.deliver(0);
    world.mail.retain(|event| !matches!(event, Event::Hooked { .. }));
    world.pass(Duration::from_secs(32));
    assert_eq!(world.signals, [(WorkerId(0), 15)]);
}

#[test]
fn what_is_started_idle_is_known_and_waits_for_a_word() {
    let mut world = World::new();
    let idle = AppSpec { autostart: false, ..spec("app0x", 2) };
    let call = world.command(start(idle));
    world.deliver_all();
    let done = Tale::Done { apps: vec![AppId(0)], deleted: vec![] };
    assert_eq!(world.answer(call), Some(&done));
    assert!(world.alive.is_empty());
    let view = world.state.app_of(AppId(0)).unwrap();
    assert!(view.seats.iter().all(|seat| seat.status == Status::Stopped));
    assert_eq!(view.seats.len(), 2);
    world.command(Command::Restart { targets: targets("app0x"), wait: true });
    assert_eq!(world.alive.len(), 2);
}

#[test]
fn a_stopped_app_is_started_as_it_is_defined_now() {
    let mut world = online(3);
    world.command(Command::Stop { targets: targets("all"), wait: true });
    world.deliver_all();
    for worker in 0..3 {
        world.exit(WorkerId(worker), Exit::Signal(15));
    }
    world.deliver_all();
    let other = AppSpec { script: "other".to_owned(), ..spec("web", 2) };
    world.command(start(other));
    world.deliver_all();
    assert_eq!(world.alive.len(), 2);
    let view = world.state.app_of(AppId(0)).unwrap();
    assert_eq!((view.spec.script.as_str(), view.seats.len()), ("other", 2));
    assert_eq!(view.generation.0, 2);
    let who = "somebody".to_owned();
    for worker in [3, 4] {
        world.listen(WorkerId(worker), 80);
    }
    world.deliver_all();
    world.command(Command::Rollback { targets: targets("all"), who, wait: false });
    let target = world.state.app_of(AppId(0)).unwrap().rollout.unwrap().target;
    assert_eq!(target.0, 3, "and back");
    let counts = world.state.apps[&AppId(0)].definitions.values().map(|spec| spec.instances);
    assert_eq!(counts.collect::<Vec<_>>(), [2, 2, 2], "with as many workers as it has now");
}

#[test]
fn counters_begin_anew() {
    let mut world = online(1);
    world.exit(WorkerId(0), Exit::Code(1));
    world.deliver_all();
    let counters = |world: &World| {
        let view = world.state.app_of(AppId(0)).unwrap();
        (view.seats[0].restarts, view.seats[0].unstable)
    };
    assert_eq!(counters(&world), (1, 1));
    world.command(Command::Reset { targets: targets("all") });
    assert_eq!(counters(&world), (0, 0));
}

#[test]
fn what_happens_is_told_once() {
    let mut world = online(1);
    world.exit(WorkerId(0), Exit::Code(1));
    world.deliver_all();
    world.command(Command::Delete { targets: targets("all"), wait: false });
    world.deliver_all();
    world.exit(WorkerId(1), Exit::Signal(15));
    world.deliver_all();
    let said = world.news.iter().map(|news| match &news.what {
        What::Started => "started".to_owned(),
        What::Deleted => "deleted".to_owned(),
        What::Phase(status) => format!("{status:?}"),
        What::Gone { failed, .. } => format!("gone {failed}"),
        other @ (What::Scaled { .. }
        | What::Scheduled { .. }
        | What::NotScheduled { .. }
        | What::Deploying { .. }
        | What::Deployed { .. }
        | What::Worn(_)
        | What::Silent { .. }
        | What::Heard
        | What::Backoff { .. }
        | What::Outgrown { .. }
        | What::GivenUp) => format!("{other:?}"),
    });
    assert_eq!(
        said.collect::<Vec<_>>(),
        [
            "started",
            "Starting",
            "Online",
            "Stopping",
            "gone true",
            "Starting",
            "Stopping",
            "gone false",
            "deleted"
        ]
    );
    assert!(world.news.iter().all(|news| news.name == "web"));
}

fn online_with(spec: AppSpec) -> World {
    let mut world = World::new();
    let instances = spec.instances;
    world.command(start(spec));
    world.deliver_all();
    for instance in 0..instances {
        world.listen(world.worker(0, instance).unwrap(), 80);
        world.deliver_all();
    }
    assert!(!world.routes[&GROUP].is_empty());
    world
}
