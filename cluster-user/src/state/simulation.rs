//! Any order of events: thousands of random histories against the world that watches the invariants.

use std::time::Duration;

use proptest::prelude::*;

use super::{
    event::{Command, Event, Exit},
    view::Status,
    world::{Faults, World, spec, start, targets},
};
use crate::{
    config::{instances::Scale, target::Target},
    datapath::Traffic,
};

/// What can happen next.
#[derive(Clone, Debug)]
enum Move {
    Start { app: u8, instances: u32 },
    Stop { app: u8, instance: Option<u32> },
    Restart { app: u8 },
    Delete { app: u8 },
    Scale { app: u8, by: i32 },
    Listen { nth: usize, port: u16 },
    Exit { nth: usize, code: i32 },
    CloseSocket { nth: usize },
    Deliver { nth: usize },
    Pass { millis: u64 },
    Traffic { busy: u32 },
    Faults { spawn: bool, open: bool, join: bool },
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn every_history_keeps_the_invariants_and_comes_to_rest(moves in prop::collection::vec(any_move(), 1..120)) {
        let mut world = World::new();
        for next in moves {
            play(&mut world, next);
        }
        come_to_rest(&mut world);
        for app in world.state.apps(&[]) {
            for seat in &app.seats {
                prop_assert!(
                    matches!(seat.status, Status::Online | Status::Errored | Status::Stopped),
                    "{:?} at rest", seat
                );
            }
        }
        for call in world.told.keys() {
            prop_assert!(world.answer(*call).is_some(), "{call:?} was never answered");
        }
        let call = world.command(Command::Kill);
        come_to_rest(&mut world);
        prop_assert!(world.ended && world.answer(call).is_some());
        prop_assert!(world.alive.is_empty() && world.routes.is_empty() && world.sockets.is_empty());
    }
}

fn any_move() -> impl Strategy<Value = Move> {
    let app = 0..3u8;
    prop_oneof![
        2 => (app.clone(), 1..4u32).prop_map(|(app, instances)| Move::Start { app, instances }),
        1 => (app.clone(), prop::option::of(0..4u32)).prop_map(|(app, instance)| Move::Stop { app, instance }),
        1 => app.clone().prop_map(|app| Move::Restart { app }),
        1 => app.clone().prop_map(|app| Move::Delete { app }),
        1 => (app, -3..4i32).prop_map(|(app, by)| Move::Scale { app, by }),
        8 => (0..16usize, 80..83u16).prop_map(|(nth, port)| Move::Listen { nth, port }),
        3 => (0..16usize, 0..2i32).prop_map(|(nth, code)| Move::Exit { nth, code }),
        1 => (0..16usize).prop_map(|nth| Move::CloseSocket { nth }),
        12 => (0..8usize).prop_map(|nth| Move::Deliver { nth }),
        3 => (1..40_000u64).prop_map(|millis| Move::Pass { millis }),
        1 => (0..2u32).prop_map(|busy| Move::Traffic { busy }),
        1 => any::<(bool, bool, bool)>().prop_map(|(spawn, open, join)| Move::Faults { spawn, open, join }),
    ]
}

fn play(world: &mut World, next: Move) {
    let name = |app: u8| format!("app{app}x");
    match next {
        Move::Start { app, instances } => {
            world.command(start(spec(&name(app), instances)));
        }
        Move::Stop { app, instance } => {
            let target =
                instance.map_or_else(|| name(app), |instance| format!("{}:{instance}", name(app)));
            world.command(Command::Stop { targets: targets(&target), wait: true });
        }
        Move::Restart { app } => {
            world.command(Command::Restart { targets: targets(&name(app)), wait: true });
        }
        Move::Delete { app } => {
            world.command(Command::Delete { targets: targets(&name(app)), wait: true });
        }
        Move::Scale { app, by } => {
            let target = Target::parse(&name(app)).unwrap();
            world.command(Command::Scale { target, to: Scale::By(by), wait: true });
        }
        Move::Listen { nth, port } => {
            let workers: Vec<_> =
                world.alive.keys().copied().filter(|id| !world.dying.contains(id)).collect();
            if let Some(worker) = workers.get(nth % workers.len().max(1)) {
                world.listen(*worker, port);
            }
        }
        Move::Exit { nth, code } => {
            let workers: Vec<_> = world.alive.keys().copied().collect();
            if let Some(worker) = workers.get(nth % workers.len().max(1)) {
                world.exit(*worker, Exit::Code(code));
            }
        }
        Move::CloseSocket { nth } => {
            let sockets: Vec<_> = world.sockets.keys().copied().collect();
            // Whether a socket has gone is asked only of slots that are known to be joined.
            if let Some((group, slot)) = sockets.get(nth % sockets.len().max(1)).copied()
                && !world.joining(group, slot)
            {
                world.sockets.remove(&(group, slot));
                world.mail.push(Event::Lost { group, slot });
            }
        }
        Move::Deliver { nth } => world.deliver(nth),
        Move::Pass { millis } => world.pass(Duration::from_millis(millis)),
        Move::Faults { spawn, open, join } => world.faults = Faults { spawn, open, join },
        Move::Traffic { busy } => {
            world.traffic = Traffic { busy, established: busy, ..Traffic::default() };
        }
    }
}

/// From now on everybody behaves: workers listen, obey signals, and finish what they have.
fn come_to_rest(world: &mut World) {
    world.traffic = Traffic::default();
    world.faults = Faults::default();
    for _ in 0..400 {
        world.deliver_all();
        for (worker, _) in std::mem::take(&mut world.signals) {
            world.exit(worker, Exit::Signal(15));
        }
        let waiting: Vec<_> =
            world.alive.keys().copied().filter(|id| !world.dying.contains(id)).collect();
        for worker in waiting {
            let Some((app, instance)) = world.state.seat_of(worker) else { continue };
            let view = world.state.app_of(app).unwrap();
            let seat = view.seats.iter().find(|seat| seat.instance == instance);
            if seat
                .is_some_and(|seat| seat.worker == Some(worker) && seat.status == Status::Starting)
            {
                world.listen(worker, 90 + u16::try_from(app.0).unwrap());
            }
        }
        world.deliver_all();
        let Some(deadline) = world.state.deadline() else { return };
        world.pass(deadline.saturating_duration_since(world.now));
    }
    let phases: Vec<_> = world
        .state
        .apps(&[])
        .iter()
        .map(|app| format!("{:?} {:?}", app.seats, app.ports))
        .collect();
    panic!(
        "still at work after 400 deadlines: {phases:?}, alive {:?}, dying {:?}",
        world.alive, world.dying
    );
}
