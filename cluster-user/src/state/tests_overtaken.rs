//! What takes long and is overtaken: groups that nobody waits for any more when they are opened, and wishes that others follow.

use super::{
    effect::{Aside, Effect, Refusal, Tale},
    event::{CallId, Command, Event, Exit, Reload},
    view::Status,
    world::{Faults, World, spec, start, targets},
};
use crate::{
    config::{
        change::Change,
        pace::Pace,
        scheduling::{Scheduling, Switch},
        spec::AppSpec,
    },
    id::{GroupId, Ticket},
};

const FIRST: GroupId = GroupId(0);

#[test]
fn the_waiting_room_of_a_group_that_is_being_opened_goes_with_its_app() {
    let mut world = opening();
    world.command(Command::Delete { targets: targets("web"), wait: false });
    end_first(&mut world);
    assert!(world.state.apps(&[]).is_empty(), "nothing waits for the group");
    assert!(world.routes.is_empty(), "the port is free");
    // The answer may have been on its way.
    let late = Event::Opened { group: FIRST, ticket: Ticket(0), unscheduled: None };
    let effects = world.state.handle(world.now, late);
    assert!(matches!(effects[..], [Effect::Refuse { .. }]), "{effects:?}");
}

#[test]
fn the_waiting_room_of_a_group_that_is_being_opened_goes_when_its_app_is_stopped() {
    let mut world = opening();
    world.command(Command::Stop { targets: targets("web"), wait: false });
    assert!(!world.routes.is_empty(), "whoever founded it is there still");
    end_first(&mut world);
    assert!(world.routes.is_empty(), "the port is free");
    assert_eq!(world.state.apps(&[]).len(), 1);
}

#[test]
fn a_group_that_is_being_opened_waits_for_the_next_worker() {
    let mut world = opening();
    end_first(&mut world);
    assert!(world.routes.contains_key(&FIRST));
    // The next one comes at once.
    world.listen(world.worker(0, 0).unwrap(), 80);
    world.deliver_all();
    assert_eq!(world.state.apps(&[])[0].seats[0].status, Status::Online);
    assert_eq!(world.routes[&FIRST].len(), 1);
}

#[test]
fn a_switch_that_comes_after_a_later_one_is_refused() {
    let mut world = serving("web");
    let early = world.reserve();
    world.command(switch("hash guard=off"));
    world.deliver_all();
    assert_superseded(&mut world, early, switch("/srv/slow.bpf.o"));
    let now = &world.state.apps(&[])[0].spec.scheduling;
    assert_eq!(*now, scheduling("hash guard=off"));
}

#[test]
fn of_two_switches_that_are_both_late_the_one_that_was_asked_for_last_counts() {
    for overtaken in [false, true] {
        let mut world = serving("web");
        let (first, second) = (world.reserve(), world.reserve());
        if !overtaken {
            world.command_as(first, switch("hash"));
            world.deliver_all();
        }
        world.command_as(second, switch("random"));
        world.deliver_all();
        assert!(matches!(world.answer(second), Some(Tale::Done { .. })));
        if overtaken {
            assert_superseded(&mut world, first, switch("hash"));
        }
        assert_eq!(world.state.apps(&[])[0].spec.scheduling, scheduling("random"));
    }
}

#[test]
fn a_switch_never_reaches_a_later_app_of_that_name() {
    let mut world = serving("web");
    let early = world.reserve();
    world.command(Command::Delete { targets: targets("web"), wait: false });
    end_first(&mut world);
    assert!(world.state.apps(&[]).is_empty());
    world.command(start(spec("web", 1)));
    world.deliver_all();
    assert_superseded(&mut world, early, switch("/srv/slow.bpf.o"));
    assert_eq!(world.state.apps(&[])[0].spec.scheduling, Scheduling::default());
}

#[test]
fn a_definition_that_comes_after_a_later_one_is_refused() {
    let mut world = serving("web");
    let (reload, again) = (world.reserve(), world.reserve());
    world.command(switch("hash"));
    world.deliver_all();
    let change = Change { spec: Some(Box::new(spec("web", 1))), ..Change::default() };
    assert_superseded(&mut world, reload, reloading(change));
    assert!(world.state.apps(&[])[0].rollout.is_none());
    world.command(Command::Stop { targets: targets("web"), wait: false });
    end_first(&mut world);
    assert_superseded(&mut world, again, start(spec("web", 3)));
    assert_eq!(world.state.apps(&[])[0].spec.instances, 1);
}

#[test]
fn whoever_waits_for_a_start_hears_that_its_program_is_not_to_be_had() {
    let mut world = World::new();
    world.faults = Faults { schedule: true, ..Faults::default() };
    let own = AppSpec { scheduling: scheduling("/srv/mine.bpf.o"), ..spec("web", 1) };
    let call = world.command(start(own));
    world.deliver_all();
    world.listen(world.worker(0, 0).unwrap(), 80);
    world.deliver_all();
    let (name, why) = ("web".to_owned(), "it is gone".to_owned());
    assert!(world.told[&call].contains(&Tale::Aside(Aside::NotScheduled { name, why })));
    assert!(matches!(world.answer(call), Some(Tale::Done { .. })), "{:?}", world.answer(call));
}

/// A world with a worker that waits for its group to be opened.
fn opening() -> World {
    let mut world = World::new();
    world.opens_late = true;
    world.command(start(spec("web", 1)));
    world.deliver_all();
    world.listen(world.worker(0, 0).unwrap(), 80);
    assert!(world.routes.contains_key(&FIRST));
    world
}

/// A world with an app of one worker that serves a port.
fn serving(name: &str) -> World {
    let mut world = World::new();
    world.command(start(spec(name, 1)));
    world.deliver_all();
    world.listen(world.worker(0, 0).unwrap(), 80);
    world.deliver_all();
    world
}

#[track_caller]
fn assert_superseded(world: &mut World, call: CallId, command: Command) {
    world.command_as(call, command);
    world.deliver_all();
    let answer = world.answer(call);
    assert!(matches!(answer, Some(Tale::Refused(Refusal::Superseded { .. }))), "{answer:?}");
}

fn words(text: &str) -> Switch {
    Switch::of_words(&text.split(' ').map(str::to_owned).collect::<Vec<_>>()).unwrap()
}

fn scheduling(text: &str) -> Scheduling {
    words(text).apply(&Scheduling::default())
}

fn switch(text: &str) -> Command {
    Command::Switch { targets: targets("web"), switch: Box::new(words(text)) }
}

fn reloading(change: Change) -> Command {
    Command::Reload(Box::new(Reload {
        targets: targets("web"),
        change,
        pace: Pace::default(),
        force: false,
        who: "somebody".to_owned(),
        yields: false,
        wait: true,
    }))
}

/// Has the first worker end, and nothing else happen.
fn end_first(world: &mut World) {
    world.exit(world.worker(0, 0).unwrap(), Exit::Signal(15));
    world.deliver_but_opened();
}

impl World {
    /// Delivers all that comes before a group is opened.
    fn deliver_but_opened(&mut self) {
        let comes_before = |event: &Event| !matches!(event, Event::Opened { .. });
        loop {
            if !self.answers.is_empty() {
                self.deliver(0);
            } else if let Some(at) = self.mail.iter().position(comes_before) {
                let event = self.mail.remove(at);
                self.handle(event);
            } else {
                return;
            }
        }
    }
}
