//! Stories of the core, each as short as it can be told.

use std::time::Duration;

use cluster_common::slot::Slot;

use super::{
    effect::{Refusal, Tale},
    event::{Command, Event, Exit},
    view::Status,
    world::{World, spec, start, targets},
};
use crate::{
    config::{instances::Scale, target::Target},
    datapath::{OnMiss, Traffic},
    id::{AppId, GroupId, WorkerId},
};

const GROUP: GroupId = GroupId(0);

#[test]
fn a_started_app_is_done_when_all_its_workers_listen() {
    let mut world = World::new();
    let call = world.command(start(spec("web", 2)));
    world.deliver_all();
    world.listen(world.worker(0, 0).unwrap(), 80);
    world.deliver_all();
    assert_eq!(world.answer(call), None);
    world.listen(world.worker(0, 1).unwrap(), 80);
    world.deliver_all();
    assert_eq!(world.answer(call), Some(&Tale::Done { apps: vec![AppId(0)], deleted: vec![] }));
    assert_eq!(world.routes[&GROUP], [Slot::masked(1), Slot::masked(2)]);
}

#[test]
fn a_crashed_worker_leaves_the_route_and_is_replaced_at_once_in_its_seat() {
    let mut world = online("web", 2);
    world.pass(Duration::from_secs(5));
    world.exit(world.worker(0, 0).unwrap(), Exit::Signal(11));
    world.deliver(0);
    assert_eq!(world.routes[&GROUP], [Slot::masked(2)]);
    world.deliver_all();
    let replacement = world.worker(0, 0).unwrap();
    world.listen(replacement, 80);
    world.deliver_all();
    assert_eq!(world.routes[&GROUP], [Slot::masked(1), Slot::masked(2)]);
    assert_eq!(world.state.apps(&[])[0].seats[0].restarts, 1);
}

#[test]
fn a_stopping_worker_leaves_the_route_before_it_is_signalled_and_is_killed_when_it_stays() {
    let mut world = online("web", 1);
    let worker = world.worker(0, 0).unwrap();
    let call = world.command(Command::Stop { targets: targets("web"), wait: true });
    assert!(world.routes[&GROUP].is_empty() && world.signals.is_empty(), "drained first");
    world.deliver_all();
    assert_eq!(world.signals, [(worker, 15)]);
    world.pass(Duration::from_millis(10_500));
    assert_eq!(world.kills, [worker]);
    world.deliver_all();
    assert_eq!(world.answer(call), Some(&Tale::Done { apps: vec![AppId(0)], deleted: vec![] }));
    assert_eq!(status(&world), [Status::Stopped]);
    assert!(world.routes.is_empty(), "its group is closed");
}

#[test]
fn a_busy_worker_is_not_signalled_before_its_drain_time_is_over() {
    let mut world = online("web", 1);
    world.traffic = Traffic { established: 1, busy: 1, ..Traffic::default() };
    world.command(Command::Stop { targets: targets("web"), wait: true });
    for _ in 0..100 {
        world.deliver_all();
        world.pass(Duration::from_millis(250));
    }
    assert!(world.signals.is_empty());
    world.pass(Duration::from_secs(10));
    assert_eq!(world.signals.len(), 1);
}

#[test]
fn scaling_down_waits_for_idle_connections_and_stopping_does_not() {
    for (command, signalled) in [
        (Command::Scale { target: Target::parse("web").unwrap(), to: Scale::To(1), wait: true }, 0),
        (Command::Stop { targets: targets("web:1"), wait: true }, 1),
    ] {
        let mut world = online("web", 2);
        world.traffic = Traffic { established: 3, ..Traffic::default() };
        world.command(command);
        world.deliver_all();
        assert_eq!(world.signals.len(), signalled);
        assert_eq!(world.routes[&GROUP], [Slot::masked(1)], "the highest number leaves");
    }
}

#[test]
fn what_never_listens_is_given_up_when_its_time_is_over() {
    let mut world = World::new();
    let call = world.command(start(spec("web", 1)));
    world.deliver_all();
    world.pass(Duration::from_secs(31));
    world.deliver_all();
    let Some(Tale::Failed { why: Some(why), .. }) = world.answer(call) else {
        panic!("{:?}", world.answer(call))
    };
    assert_eq!(why.to_string(), "did not listen within 30.0 s");
    assert_eq!(status(&world), [Status::Errored]);
}

#[test]
fn what_exits_at_once_is_given_up_after_three_attempts() {
    let mut world = World::new();
    let call = world.command(start(spec("web", 1)));
    for _ in 0..3 {
        world.deliver_all();
        world.exit(world.worker(0, 0).unwrap(), Exit::Code(1));
        world.deliver_all();
        world.pass(Duration::from_secs(1));
    }
    assert!(matches!(world.answer(call), Some(Tale::Failed { .. })));
    assert_eq!(status(&world), [Status::Errored]);
    let again = world.command(start(spec("web", 1)));
    assert_eq!(world.answer(again), None, "the corrected attempt takes the name over");
    assert!(world.worker(0, 0).is_some(), "and the id");
}

#[test]
fn a_worker_that_keeps_crashing_backs_off_and_ends_as_errored() {
    let mut world = online("web", 1);
    let mut lives = 0;
    while status(&world) != [Status::Errored] {
        world.deliver_all();
        if let Some(worker) = world.worker(0, 0) {
            world.listen(worker, 80);
            world.deliver_all();
            world.exit(worker, Exit::Code(3));
            lives += 1;
        } else if let Some(deadline) = world.state.deadline() {
            world.pass(deadline - world.now);
        }
    }
    assert_eq!(lives, 16);
    let view = &world.state.apps(&[])[0];
    let why = view.seats[0].reason.unwrap();
    assert_eq!(why.to_string(), "exited with code 3 after 0 ms");
}

#[test]
fn a_chosen_exit_code_is_not_replaced() {
    let mut world = World::new();
    let mut wanted = spec("job", 1);
    wanted.restart.stop_exit_codes = vec![7];
    world.command(start(wanted));
    world.deliver_all();
    world.exit(world.worker(0, 0).unwrap(), Exit::Code(7));
    world.deliver_all();
    assert_eq!((world.worker(0, 0), status(&world)), (None, vec![Status::Stopped]));
}

#[test]
fn with_nobody_left_connections_wait_and_are_refused_when_it_takes_too_long() {
    let mut world = online("web", 1);
    let mut slow = spec("slow", 1);
    slow.restart.restart_delay = Duration::from_secs(40);
    world.command(start(slow));
    world.deliver_all();
    world.listen(world.worker(1, 0).unwrap(), 81);
    world.deliver_all();
    world.exit(world.worker(1, 0).unwrap(), Exit::Code(0));
    world.deliver_all();
    assert_eq!(world.on_miss.get(&GroupId(1)), None, "it waits, as it does from the start");
    world.pass(Duration::from_secs(31));
    assert_eq!(world.on_miss.get(&GroupId(1)), Some(&OnMiss::Refuse));
    assert_eq!(world.on_miss.get(&GROUP), None, "the other app is not concerned");
}

#[test]
fn a_port_of_another_app_is_an_error_for_who_comes_second() {
    let mut world = online("web", 1);
    let call = world.command(start(spec("thief", 1)));
    world.deliver_all();
    world.listen(world.worker(1, 0).unwrap(), 80);
    world.deliver_all();
    let Some(Tale::Failed { why: Some(why), .. }) = world.answer(call) else { panic!() };
    assert_eq!(why.to_string(), "cannot serve 0.0.0.0:80: app `web` serves 0.0.0.0:80");
    assert_eq!(world.routes[&GROUP], [Slot::masked(1)], "web is not disturbed");
}

#[test]
fn a_name_in_use_an_unknown_target_and_an_impossible_scale_change_nothing() {
    let mut world = online("web", 2);
    let name = world.command(start(spec("web", 1)));
    assert!(matches!(world.answer(name), Some(Tale::Refused(Refusal::NameInUse { .. }))));
    let unknown = world.command(Command::Stop { targets: targets("nope"), wait: true });
    assert!(matches!(world.answer(unknown), Some(Tale::Refused(Refusal::Unknown { .. }))));
    for to in [Scale::By(-2), Scale::To(0), Scale::By(5000)] {
        let scale =
            world.command(Command::Scale { target: Target::parse("web").unwrap(), to, wait: true });
        assert!(matches!(world.answer(scale), Some(Tale::Refused(Refusal::BadScale { .. }))));
    }
    assert_eq!(status(&world), [Status::Online, Status::Online]);
}

#[test]
fn a_socket_that_its_worker_closed_leaves_the_route() {
    let mut world = online("web", 2);
    world.sockets.remove(&(GROUP, Slot::masked(1)));
    world.handle(Event::Lost { group: GROUP, slot: Slot::masked(1) });
    assert_eq!(world.routes[&GROUP], [Slot::masked(2)]);
    world.listen(WorkerId(0), 80);
    world.deliver_all();
    assert_eq!(world.routes[&GROUP], [Slot::masked(1), Slot::masked(2)]);
}

#[test]
fn an_app_is_forgotten_when_nothing_is_left_of_its_workers() {
    let mut world = online("web", 1);
    world.command(Command::Delete { targets: targets("web"), wait: true });
    world.deliver_all();
    assert!(world.forgotten.is_empty(), "its worker lives");
    world.exit(world.worker(0, 0).unwrap(), Exit::Signal(15));
    world.deliver_all();
    assert_eq!(world.forgotten, [AppId(0)]);
}

#[test]
fn kill_stops_everything_and_ends() {
    let mut world = online("web", 2);
    let call = world.command(Command::Kill);
    let late = world.command(start(spec("late", 1)));
    assert_eq!(world.answer(late), Some(&Tale::Refused(Refusal::Ending)));
    world.deliver_all();
    assert!(!world.ended);
    for worker in [WorkerId(0), WorkerId(1)] {
        world.exit(worker, Exit::Signal(15));
    }
    world.deliver_all();
    assert!(world.ended && world.answer(call).is_some());
}

fn online(name: &str, instances: u32) -> World {
    let mut world = World::new();
    world.command(start(spec(name, instances)));
    world.deliver_all();
    for instance in 0..instances {
        world.listen(world.worker(0, instance).unwrap(), 80);
        world.deliver_all();
    }
    world
}

fn status(world: &World) -> Vec<Status> {
    world.state.apps(&[]).iter().flat_map(|app| app.seats.iter().map(|seat| seat.status)).collect()
}

#[test]
fn a_restart_does_not_bring_back_what_is_scaled_away() {
    let mut world = online("web", 3);
    world.traffic = Traffic { established: 1, busy: 1, ..Traffic::default() };
    let target = Target::parse("web").unwrap();
    let scaled = world.command(Command::Scale { target, to: Scale::To(1), wait: true });
    world.command(Command::Restart { targets: targets("web"), wait: true });
    world.traffic = Traffic::default();
    for _ in 0..50 {
        world.deliver_all();
        world.pass(Duration::from_secs(1));
        for instance in 0..3 {
            world
                .worker(0, instance)
                .into_iter()
                .for_each(|worker| world.exit(worker, Exit::Code(0)));
        }
    }
    assert!(matches!(world.answer(scaled), Some(Tale::Done { .. })));
    assert_eq!(world.state.apps(&[])[0].seats.len(), 1);
}

#[test]
fn what_is_being_deleted_is_neither_restarted_nor_scaled() {
    let mut world = online("web", 1);
    let deleted = world.command(Command::Delete { targets: targets("web"), wait: true });
    let target = Target::parse("web").unwrap();
    let refused = [
        world.command(Command::Restart { targets: targets("web"), wait: true }),
        world.command(Command::Scale { target, to: Scale::By(1), wait: true }),
    ];
    for call in refused {
        let answer = world.answer(call);
        assert!(matches!(answer, Some(Tale::Refused(Refusal::Superseded { .. }))), "{answer:?}");
    }
    let worker = world.worker(0, 0).unwrap();
    world.deliver_all();
    world.exit(worker, Exit::Signal(15));
    world.deliver_all();
    assert!(matches!(world.answer(deleted), Some(Tale::Done { .. })));
    assert_eq!(world.forgotten, [AppId(0)]);
}

#[test]
fn a_restart_does_not_let_clients_wait_for_the_whole_drain_time() {
    let mut world = online("web", 1);
    world.traffic = Traffic { established: 1, busy: 1, ..Traffic::default() };
    world.command(Command::Restart { targets: targets("web"), wait: true });
    for _ in 0..44 {
        world.deliver_all();
        world.pass(Duration::from_millis(250));
    }
    assert_eq!(world.signals.len(), 1, "new connections are given up after 30 s");
}

#[test]
fn connections_that_stay_silent_are_closed_when_the_drain_time_is_over() {
    let mut world = online("web", 2);
    world.traffic = Traffic { established: 1, ..Traffic::default() };
    world.command(Command::Scale {
        target: Target::parse("web").unwrap(),
        to: Scale::To(1),
        wait: true,
    });
    for _ in 0..119 {
        world.deliver_all();
        world.pass(Duration::from_millis(250));
    }
    assert!(world.hung_up.is_empty() && world.signals.is_empty());
    world.pass(Duration::from_millis(500));
    assert_eq!(world.hung_up, [WorkerId(1)]);
    world.traffic = Traffic::default();
    world.pass(Duration::from_millis(500));
    world.deliver_all();
    assert_eq!(world.signals.len(), 1);
}

#[test]
fn half_of_the_workers_serve_while_the_other_half_is_restarted() {
    let mut world = online("web", 3);
    let call = world.command(Command::Restart { targets: targets("web"), wait: true });
    assert_eq!(world.routes[&GROUP], [Slot::masked(3)], "the larger half is away");
    world.deliver_all();
    for worker in [0, 1] {
        world.exit(WorkerId(worker), Exit::Signal(15));
    }
    world.deliver_all();
    for instance in [0, 1] {
        assert_eq!(world.answer(call), None);
        world.listen(world.worker(0, instance).unwrap(), 80);
        world.deliver_all();
    }
    assert_eq!(world.routes[&GROUP], [Slot::masked(1), Slot::masked(2)]);
    world.exit(WorkerId(2), Exit::Signal(15));
    world.deliver_all();
    world.listen(world.worker(0, 2).unwrap(), 80);
    world.deliver_all();
    assert!(matches!(world.answer(call), Some(Tale::Done { .. })));
}

#[test]
fn a_restart_that_fails_leaves_half_of_the_workers_alone() {
    let mut world = online("web", 2);
    let call = world.command(Command::Restart { targets: targets("web"), wait: true });
    world.deliver_all();
    for _ in 0..5 {
        if let Some(worker) = world.worker(0, 0) {
            world.exit(worker, Exit::Code(1));
        }
        world.deliver_all();
        world.pass(Duration::from_secs(1));
    }
    assert!(matches!(world.answer(call), Some(Tale::Failed { .. })));
    assert_eq!(world.routes[&GROUP], [Slot::masked(2)]);
}
