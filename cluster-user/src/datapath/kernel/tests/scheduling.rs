//! Policies, the guard, and refusing what is too much.

use std::{
    collections::BTreeMap,
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use super::{
    adopting::{Clients, adopt, named},
    world::{TCP, World, ask, ask_many, in_a_world, slot, wait_until},
};
use crate::{
    config::scheduling::{Guard, Policy, Scheduling, Sticky},
    datapath::DataPath as _,
    id::{GroupId, WorkerId},
};

pub(super) const GROUP: GroupId = GroupId(0);
pub(super) const ADDRESS: &str = "127.0.0.1:8080";

pub(super) fn unguarded(policy: Policy) -> Scheduling {
    Scheduling { policy, guard: Guard::OFF, ..Scheduling::default() }
}

pub(super) fn with_workers(
    count: u16,
    policy: Policy,
    then: impl FnOnce(&mut World, &[WorkerId]) + Send + 'static,
) {
    in_a_world(move |world| {
        let workers = world.group_of(GROUP, count, TCP, "0.0.0.0", 8080);
        world.kernel.schedule(GROUP, &unguarded(policy)).unwrap();
        world.publish(GROUP, &(1..=count).collect::<Vec<_>>());
        then(world, &workers);
    });
}

pub(super) fn live(world: &mut World, worker: WorkerId) -> u64 {
    world.kernel.telemetry().unwrap()[&worker].live.unwrap()
}

/// Connects without asking anything, as often as is said.
pub(super) fn hold(count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect(ADDRESS).unwrap()).collect()
}

#[test]
fn every_policy_serves_and_can_be_changed_for_any_other() {
    with_workers(3, Policy::RoundRobin, |world, _| {
        let sticky = Policy::Sticky(Sticky::default());
        let policies = [
            Policy::LeastConn,
            Policy::P2c,
            Policy::Queue,
            Policy::Hash,
            sticky,
            Policy::CpuLocal,
            Policy::Random,
            "class 127.0.0.0/8=0-2:hash *=0".parse().unwrap(),
            Policy::None,
            Policy::RoundRobin,
        ];
        for policy in &policies {
            world.kernel.schedule(GROUP, &unguarded(policy.clone())).unwrap();
            let answers = ask_many(ADDRESS, 30);
            assert_eq!(answers.values().sum::<usize>(), 30, "{policy:?}: {answers:?}");
            let expected = if matches!(policy, Policy::Sticky(_)) { 1 } else { 2 };
            assert!(answers.len() >= expected, "{policy:?}: {answers:?}");
        }
    });
}

#[test]
fn least_conn_goes_to_whoever_has_fewest() {
    with_workers(3, Policy::LeastConn, |world, workers| {
        world.signal(workers[0], Signal::SIGSTOP);
        world.signal(workers[1], Signal::SIGSTOP);
        world.signal(workers[2], Signal::SIGSTOP);
        let held = hold(30);
        for worker in workers {
            assert_eq!(live(world, *worker), 10);
        }
        drop(held);
        // It is the app that closes.
        assert_eq!(live(world, workers[0]), 10);
        for worker in workers {
            world.signal(*worker, Signal::SIGCONT);
        }
        wait_until("all are closed", || workers.iter().all(|worker| live(world, *worker) == 0));
    });
}

/// It is not picked, since connections wait at it: the guard never comes to look at it twice.
#[test]
fn a_stopped_worker_that_is_not_picked_any_more_is_seen_to_be_stalled() {
    for policy in [Policy::LeastConn, Policy::Queue, Policy::P2c] {
        with_workers(3, policy.clone(), |world, workers| {
            let scheduling = Scheduling { policy, ..Scheduling::default() };
            world.kernel.schedule(GROUP, &scheduling).unwrap();
            world.signal(workers[0], Signal::SIGSTOP);
            let stalled = |world: &mut World, worker| {
                world.kernel.telemetry().unwrap()[&worker].stalled.unwrap()
            };
            let mut held = Vec::new();
            wait_until("a connection waits at it", || {
                held.extend(hold(1));
                world.kernel.telemetry().unwrap()[&workers[0]].queued >= Some(1)
            });
            wait_until("it is seen", || stalled(world, workers[0]));
            wait_until("the others are well", || {
                workers[1..].iter().all(|it| !stalled(world, *it))
            });
            world.signal(workers[0], Signal::SIGCONT);
            wait_until("it goes on", || !stalled(world, workers[0]));
        });
    }
}

#[test]
fn a_stopped_worker_gets_no_more_connections_by_the_usual_guard() {
    with_workers(4, Policy::RoundRobin, |world, workers| {
        world.kernel.schedule(GROUP, &Scheduling::default()).unwrap();
        ask_many(ADDRESS, 40);
        world.signal(workers[0], Signal::SIGSTOP);
        let before = world.kernel.counters(GROUP, slot(1)).selected;
        let held: Vec<_> = (0..200)
            .map(|_| {
                thread::sleep(Duration::from_millis(1));
                TcpStream::connect(ADDRESS).unwrap()
            })
            .collect();
        let given = world.kernel.counters(GROUP, slot(1)).selected - before;
        // Two looks at least are needed to see that it does not go on, and looks are some milliseconds apart.
        assert!(given <= 12, "{given} of 200 connections went to a worker that was stopped");
        let telemetry = world.kernel.telemetry().unwrap();
        assert!(telemetry[&workers[0]].guarded.unwrap() > 20);
        assert_eq!(telemetry[&workers[0]].stalled, Some(true));
        assert_eq!(telemetry[&workers[1]].stalled, Some(false));
        drop(held);

        world.signal(workers[0], Signal::SIGCONT);
        wait_until("it is back", || {
            ask(ADDRESS).unwrap();
            let again = world.kernel.counters(GROUP, slot(1)).selected - before;
            again > given + 5
        });
        assert_eq!(world.kernel.telemetry().unwrap()[&workers[0]].stalled, Some(false));
    });
}

#[test]
fn when_every_worker_has_enough_connections_are_refused_at_once() {
    with_workers(2, Policy::LeastConn, |world, workers| {
        let shed = Scheduling { shed: Some(5), ..unguarded(Policy::LeastConn) };
        world.kernel.schedule(GROUP, &shed).unwrap();
        for worker in workers {
            world.signal(*worker, Signal::SIGSTOP);
        }
        let held = hold(10);
        let began = Instant::now();
        let refused = TcpStream::connect(ADDRESS).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        assert!(began.elapsed() < Duration::from_millis(500), "not after a lost SYN");
        assert_eq!(world.kernel.group_telemetry(GROUP).unwrap().shed, 1);
        drop(held);
        for worker in workers {
            world.signal(*worker, Signal::SIGCONT);
        }
        wait_until("they are taken again", || TcpStream::connect(ADDRESS).is_ok());
    });
}

#[test]
fn sticky_clients_stay_and_only_those_of_a_lost_worker_move() {
    with_workers(4, Policy::Sticky(Sticky::default()), |world, _| {
        let ask_all = || -> BTreeMap<u8, String> {
            (1..=60).map(|last| (last, ask_from([127, 0, 0, last]))).collect()
        };
        let before = ask_all();
        assert_eq!(ask_all(), before, "each comes to the same again");
        let used: std::collections::BTreeSet<_> = before.values().collect();
        assert_eq!(used.len(), 4, "{before:?}");

        world.publish(GROUP, &[1, 2, 3]);
        for (client, worker) in ask_all() {
            assert!(worker == before[&client] || before[&client] == "4", "{client} moved");
        }
        world.publish(GROUP, &[1, 2, 3, 4]);
        assert_eq!(ask_all(), before);
    });
}

#[test]
fn a_prefix_keeps_a_network_together() {
    let sticky = Sticky { v4: 24, ..Sticky::default() };
    with_workers(4, Policy::Sticky(sticky), |_, _| {
        let answers: std::collections::BTreeSet<_> =
            (1..=20).map(|last| ask_from([127, 0, 7, last])).collect();
        assert_eq!(answers.len(), 1, "{answers:?}");
    });
}

/// Asks from a certain address of this host.
fn ask_from(address: [u8; 4]) -> String {
    use std::io::Read as _;
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from((address, 0)).into()).unwrap();
    socket.connect(&ADDRESS.parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    let mut answer = String::new();
    TcpStream::from(socket).read_to_string(&mut answer).unwrap();
    answer.trim().to_owned()
}

#[test]
fn a_group_whose_program_was_replaced_and_not_written_down_is_taken_over() {
    in_a_world(|world| {
        let record = world.killed_after(|world| {
            world.group_of(GROUP, 3, TCP, "0.0.0.0", 8080);
            world.publish(GROUP, &[1, 2, 3]);
            ask_many(ADDRESS, 30);
            let record = world.kernel.record(GROUP).unwrap();
            world.kernel.schedule(GROUP, &unguarded(Policy::LeastConn)).unwrap();
            record
        });
        let clients = Clients::start();

        world.succeed();
        let seats = adopt(world, &record);
        world.kernel.settle();

        clients.stop();
        assert_eq!(named(&seats), [(1, Some(1)), (2, Some(2)), (3, Some(3))]);
        assert_ne!(world.kernel.record(GROUP).unwrap().program, record.program);
        let counted: u64 = (1..=3).map(|at| world.kernel.counters(GROUP, slot(at)).selected).sum();
        assert!(counted >= 30, "what was counted before is kept: {counted}");
        // What the supervisor knows of is what there is.
        world.kernel.schedule(GROUP, &Scheduling::default()).unwrap();
        assert_eq!(ask_many(ADDRESS, 30).into_values().collect::<Vec<_>>(), [10, 10, 10]);
    });
}
