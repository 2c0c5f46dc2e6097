//! What takes long and is overtaken: groups that nobody waits for any more when they are opened, and wishes that others follow.

use super::{
    effect::Effect,
    event::{Command, Event, Exit},
    view::Status,
    world::{World, spec, start, targets},
};
use crate::id::{GroupId, Ticket};

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
