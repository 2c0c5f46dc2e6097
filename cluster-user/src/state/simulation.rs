//! Any order of events: thousands of random histories against the world that watches the invariants.

use std::time::Duration;

use proptest::prelude::*;

use super::{
    event::{Command, Event, Exit, Reload, Word},
    view::{RolloutStage, Status},
    world::{Faults, World, spec, start, targets},
};
use crate::{
    config::{
        change::Change,
        instances::Scale,
        pace::{Batch, Canary, Pace},
        scheduling::{Guard, Scheduling, Shed, Switch},
        spec::{AppSpec, hooks::Hooks, recycle::Worn},
        target::Target,
    },
    datapath::Traffic,
    id::{AppId, GroupId},
};

/// What can happen next.
#[derive(Clone, Debug)]
enum Move {
    Start { app: u8, instances: u32 },
    Stop { app: u8, instance: Option<u32> },
    Restart { app: u8 },
    Reload { app: u8, pace: Pace, force: bool, overlap: bool },
    Promote { app: u8 },
    Rollback { app: u8 },
    Crash { effects: u32 },
    Delete { app: u8 },
    Scale { app: u8, by: i32 },
    Switch { app: Option<u8>, switch: Switch },
    Listen { nth: usize, port: u16 },
    Exit { nth: usize, code: i32 },
    CloseSocket { nth: usize },
    Deliver { nth: usize },
    Pass { millis: u64 },
    Traffic { busy: u32 },
    Worn { nth: usize },
    Beat { nth: usize },
    Reset { app: u8 },
    Faults(Faults),
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn every_history_keeps_the_invariants_and_comes_to_rest(
        opens_late in any::<bool>(),
        moves in prop::collection::vec(any_move(), 1..120),
    ) {
        let mut world = World::new();
        world.opens_late = opens_late;
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
            // Only a canary waits for somebody's word.
            let waits = app.rollout.as_ref().is_none_or(|rollout| rollout.stage == RolloutStage::Canary);
            prop_assert!(waits, "{:?} at rest", app.rollout);
            let others = app.seats.iter().map(|seat| seat.others.len()).sum::<usize>();
            prop_assert!(others == 0 || app.rollout.is_some(), "{:?} at rest", app.seats);
        }
        for call in world.told.keys() {
            prop_assert!(world.answer(*call).is_some(), "{call:?} was never answered");
        }
        // Whatever was refused meanwhile: the next supervisor tells every group.
        world.take_over();
        come_to_rest(&mut world);
        prop_assert!(world.stale.is_empty());
        world.check_rules();
        let call = world.command(Command::Kill);
        come_to_rest(&mut world);
        prop_assert!(world.ended && world.answer(call).is_some());
        prop_assert!(world.alive.is_empty() && world.routes.is_empty() && world.sockets.is_empty());
    }
}

/// What can happen to an app whose old workers never fail.
#[derive(Clone, Debug)]
enum Deploy {
    Reload { pace: Pace, force: bool },
    Promote,
    Rollback,
    Listen { nth: usize },
    Fail { nth: usize },
    Obey,
    Crash { effects: u32 },
    Deliver { nth: usize },
    Pass { millis: u64 },
    Traffic { established: u32 },
    Worn { nth: usize },
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_reload_never_leaves_an_address_with_fewer_workers(deploys in prop::collection::vec(any_deploy(), 1..120)) {
        let mut world = World::new();
        world.command(start(spec("app0x", 3)));
        world.deliver_all();
        for instance in 0..3 {
            world.listen(world.worker(0, instance).unwrap(), 80);
            world.deliver_all();
        }
        for next in deploys {
            deploy(&mut world, next);
            let route: std::collections::BTreeSet<_> = world.routes[&GROUP]
                .iter()
                .filter_map(|slot| world.sockets.get(&(GROUP, *slot)))
                .collect();
            prop_assert!(route.len() >= 3, "{route:?}");
        }
    }
}

const GROUP: GroupId = GroupId(0);

fn any_deploy() -> impl Strategy<Value = Deploy> {
    prop_oneof![
        2 => (any_pace(), any::<bool>()).prop_map(|(pace, force)| Deploy::Reload { pace, force }),
        1 => Just(Deploy::Promote),
        1 => Just(Deploy::Rollback),
        6 => (0..9usize).prop_map(|nth| Deploy::Listen { nth }),
        1 => (0..9usize).prop_map(|nth| Deploy::Fail { nth }),
        2 => Just(Deploy::Obey),
        1 => (0..4u32).prop_map(|effects| Deploy::Crash { effects }),
        8 => (0..8usize).prop_map(|nth| Deploy::Deliver { nth }),
        2 => (1..20_000u64).prop_map(|millis| Deploy::Pass { millis }),
        1 => (0..2u32).prop_map(|established| Deploy::Traffic { established }),
        2 => (0..9usize).prop_map(|nth| Deploy::Worn { nth }),
    ]
}

fn deploy(world: &mut World, next: Deploy) {
    // Those that no connection was ever sent to.
    let starting = |world: &World| -> Vec<_> {
        let view = world.state.app_of(AppId(0)).unwrap();
        let others = view.seats.iter().flat_map(|seat| seat.others.clone());
        let starting =
            others.filter(|other| matches!(other.status, Status::Starting | Status::Ready));
        starting.map(|other| other.worker).collect()
    };
    let targets = targets("app0x");
    let who = "somebody".to_owned();
    match next {
        Deploy::Reload { pace, force } => {
            let change = Change::default();
            let reload = Reload { targets, change, pace, force, who, yields: false, wait: true };
            world.command(Command::Reload(Box::new(reload)));
        }
        Deploy::Promote => drop(world.command(Command::Promote { targets, wait: true })),
        Deploy::Rollback => drop(world.command(Command::Rollback { targets, who, wait: true })),
        Deploy::Listen { nth } => {
            let starting = starting(world);
            if let Some(worker) = starting.get(nth % starting.len().max(1)) {
                world.listen(*worker, 80);
            }
        }
        Deploy::Fail { nth } => {
            // One that dies in the very moment it gets ready is in the route until that is known.
            let mut starting = starting(world);
            starting.retain(|worker| !world.sockets.values().any(|of| of == worker));
            if let Some(worker) = starting.get(nth % starting.len().max(1)) {
                world.exit(*worker, Exit::Code(1));
            }
        }
        Deploy::Obey => {
            for (worker, _) in std::mem::take(&mut world.signals) {
                world.exit(worker, Exit::Signal(15));
            }
        }
        Deploy::Crash { effects: 0 } => world.take_over(),
        Deploy::Crash { effects } => world.fuse = Some(effects),
        Deploy::Deliver { nth } => world.deliver(nth),
        Deploy::Pass { millis } => world.pass(Duration::from_millis(millis)),
        Deploy::Worn { nth } => wear(world, nth),
        Deploy::Traffic { established } => {
            world.traffic = Traffic { established, busy: established, ..Traffic::default() };
        }
    }
}

fn any_move() -> impl Strategy<Value = Move> {
    let app = 0..3u8;
    prop_oneof![
        2 => (app.clone(), 1..4u32).prop_map(|(app, instances)| Move::Start { app, instances }),
        1 => (app.clone(), prop::option::of(0..4u32)).prop_map(|(app, instance)| Move::Stop { app, instance }),
        1 => app.clone().prop_map(|app| Move::Restart { app }),
        4 => (app.clone(), any_pace(), any::<bool>(), any::<bool>())
            .prop_map(|(app, pace, force, overlap)| Move::Reload { app, pace, force, overlap }),
        1 => app.clone().prop_map(|app| Move::Promote { app }),
        1 => app.clone().prop_map(|app| Move::Rollback { app }),
        2 => (0..4u32).prop_map(|effects| Move::Crash { effects }),
        1 => app.clone().prop_map(|app| Move::Delete { app }),
        1 => (app, -3..4i32).prop_map(|(app, by)| Move::Scale { app, by }),
        8 => (0..16usize, 80..83u16).prop_map(|(nth, port)| Move::Listen { nth, port }),
        3 => (0..16usize, 0..2i32).prop_map(|(nth, code)| Move::Exit { nth, code }),
        1 => (0..16usize).prop_map(|nth| Move::CloseSocket { nth }),
        12 => (0..8usize).prop_map(|nth| Move::Deliver { nth }),
        3 => (1..40_000u64).prop_map(|millis| Move::Pass { millis }),
        1 => (0..2u32).prop_map(|busy| Move::Traffic { busy }),
        2 => (0..16usize).prop_map(|nth| Move::Worn { nth }),
        4 => (0..16usize).prop_map(|nth| Move::Beat { nth }),
        1 => (0..3u8).prop_map(|app| Move::Reset { app }),
        3 => (prop::option::of(0..3u8), any_switch()).prop_map(|(app, switch)| Move::Switch { app, switch }),
        1 => any::<(bool, bool, bool, bool)>().prop_map(|(spawn, open, join, schedule)| {
            Move::Faults(Faults { spawn, open, join, schedule })
        }),
    ]
}

/// Weights are right for some numbers of workers only.
fn any_switch() -> impl Strategy<Value = Switch> {
    let policy = prop_oneof![
        Just("round-robin"),
        Just("least-conn"),
        Just("sticky prefix=24"),
        Just("class 10.0.0.0/8=0 *=1"),
    ];
    let policy = prop::option::of(policy.prop_map(|text| text.parse().unwrap()));
    let weights = prop::option::of(prop::collection::vec(1..5u32, 0..4));
    let guard = prop_oneof![
        Just(Guard::OFF),
        Just(Guard { heartbeat: Some(Duration::from_secs(3)), ..Guard::default() }),
    ];
    let guard = prop::option::of(guard);
    let shed = prop::option::of(prop_oneof![Just(Shed::Off), Just(Shed::At(7))]);
    (policy, weights, guard, shed).prop_map(|(policy, weights, guard, shed)| Switch {
        policy,
        weights,
        guard,
        shed,
    })
}

fn any_pace() -> impl Strategy<Value = Pace> {
    let canary = prop_oneof![
        Just(None),
        Just(Some(Canary::Workers(1))),
        Just(Some(Canary::Share { part: 1, of: 20 })),
    ];
    (1..4u32, 0..3u64, canary).prop_map(|(batch, soak, canary)| Pace {
        batch: Batch::Workers(batch),
        soak: Duration::from_secs(soak),
        canary,
    })
}

fn play(world: &mut World, next: Move) {
    let name = |app: u8| format!("app{app}x");
    match next {
        Move::Start { app, instances } => {
            // Some have hooks, some wait for a word.
            let hooks =
                Hooks { pre_stop: (app == 0).then(|| "true".to_owned()), ..Hooks::default() };
            let autostart = app != 1 || instances != 3;
            // Some are to be heard, without a watchdog: nobody is replaced for his silence.
            let heartbeat = (app == 2).then(|| Duration::from_secs(3));
            let guard = Guard { heartbeat, ..Guard::default() };
            let scheduling = Scheduling { guard, ..Scheduling::default() };
            world.command(start(AppSpec {
                autostart,
                hooks,
                scheduling,
                ..spec(&name(app), instances)
            }));
        }
        Move::Stop { app, instance } => {
            let target =
                instance.map_or_else(|| name(app), |instance| format!("{}:{instance}", name(app)));
            world.command(Command::Stop { targets: targets(&target), wait: true });
        }
        Move::Restart { app } => {
            world.command(Command::Restart { targets: targets(&name(app)), wait: true });
        }
        Move::Reload { app, pace, force, overlap } => {
            let change = Change {
                spec: Some(Box::new(AppSpec { overlap, ..spec("x", 1) })),
                ..Change::default()
            };
            let targets = targets(&name(app));
            let who = "somebody".to_owned();
            let reload = Reload {
                targets,
                change,
                pace,
                force,
                who,
                yields: !overlap && !force,
                wait: !overlap || force,
            };
            world.command(Command::Reload(Box::new(reload)));
        }
        Move::Promote { app } => {
            world.command(Command::Promote { targets: targets(&name(app)), wait: true });
        }
        Move::Rollback { app } => {
            let (targets, who) = (targets(&name(app)), "somebody".to_owned());
            world.command(Command::Rollback { targets, who, wait: true });
        }
        Move::Crash { effects: 0 } => world.take_over(),
        Move::Crash { effects } => world.fuse = Some(effects),
        Move::Delete { app } => {
            world.command(Command::Delete { targets: targets(&name(app)), wait: true });
        }
        Move::Scale { app, by } => {
            let target = Target::parse(&name(app)).unwrap();
            world.command(Command::Scale { target, to: Scale::By(by), wait: true });
        }
        Move::Switch { app, switch } => {
            let target = app.map_or_else(|| "all".to_owned(), name);
            world.command(Command::Switch { targets: targets(&target), switch: Box::new(switch) });
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
        Move::Faults(faults) => world.faults = faults,
        Move::Worn { nth } => wear(world, nth),
        Move::Beat { nth } => {
            let workers: Vec<_> = world.alive.keys().copied().collect();
            if let Some(worker) = workers.get(nth % workers.len().max(1)) {
                world.handle(Event::Said { worker: *worker, word: Word::Watchdog });
            }
        }
        Move::Reset { app } => {
            world.command(Command::Reset { targets: targets(&name(app)) });
        }
        Move::Traffic { busy } => {
            world.traffic = Traffic { busy, established: busy, ..Traffic::default() };
        }
    }
}

fn wear(world: &mut World, nth: usize) {
    let workers: Vec<_> = world.alive.keys().copied().collect();
    if let Some(worker) = workers.get(nth % workers.len().max(1)) {
        let worn = Worn::Memory { used: 2, max: 1 };
        world.handle(Event::Worn { worker: *worker, worn });
    }
}

/// From now on everybody behaves: workers listen, obey signals, and finish what they have.
fn come_to_rest(world: &mut World) {
    world.traffic = Traffic::default();
    world.faults = Faults::default();
    world.fuse = None;
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
            let Some(seat) = view.seats.iter().find(|seat| seat.instance == instance) else {
                continue;
            };
            let starts = (seat.worker == Some(worker) && seat.status == Status::Starting)
                || seat
                    .others
                    .iter()
                    .any(|other| other.worker == worker && other.status == Status::Starting);
            if starts {
                // Where others of its app listen, which it must not do without.
                let ports: Vec<_> =
                    view.ports.iter().map(|(_, address, _)| address.port()).collect();
                for port in ports.into_iter().chain([90 + u16::try_from(app.0).unwrap()]) {
                    world.listen(worker, port);
                }
            }
        }
        world.deliver_all();
        let Some(deadline) = world.state.deadline() else { return };
        world.pass(deadline - world.now);
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
