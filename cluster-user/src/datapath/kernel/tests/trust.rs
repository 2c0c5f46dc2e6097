//! Workers that have fallen silent: new connections go to others, whatever the policy.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use super::{
    adopting::adopt,
    scheduling::{ADDRESS, GROUP, unguarded, with_workers},
    world::{TCP, World, ask, ask_many, in_a_world, slot, wait_until},
};
use crate::{
    config::scheduling::{Guard, Policy, Scheduling, Sticky},
    datapath::DataPath as _,
    id::{GroupId, WorkerId},
};

/// Serves two ports, the second one after the first.
const TWO_PORTS: &str = "
import select, socket, sys
def listen(port):
    s = socket.socket(); s.bind(('0.0.0.0', port)); s.listen(100)
    return s
sockets = [listen(8080), listen(8081)]
while True:
    for s in select.select(sockets, [], [])[0]:
        c, _ = s.accept(); c.sendall(sys.argv[1].encode()); c.close()
";

#[test]
fn a_silent_worker_gets_nothing_by_any_policy_until_it_speaks() {
    with_workers(4, Policy::RoundRobin, |world, workers| {
        let policies = [
            Policy::RoundRobin,
            Policy::LeastConn,
            Policy::P2c,
            Policy::Queue,
            Policy::Hash,
            Policy::Sticky(Sticky { v4: 32, ..Sticky::default() }),
            Policy::CpuLocal,
            Policy::Random,
            "class 127.0.0.0/8=0-9".parse().unwrap(),
            "class *=0-9:least-conn".parse().unwrap(),
        ];
        for policy in policies {
            let rule = Scheduling { policy, ..Scheduling::default() };
            world.kernel.schedule(GROUP, &rule).unwrap();
            for (number, worker) in (1..).zip(workers) {
                let before = world.kernel.counters(GROUP, slot(number)).selected;
                world.kernel.distrust(*worker, true).unwrap();
                let answers = ask_many(ADDRESS, 40);
                assert_eq!(answers.values().sum::<usize>(), 40);
                let after = world.kernel.counters(GROUP, slot(number)).selected;
                assert_eq!(after, before, "{:?}: {answers:?}", rule.policy);
                world.kernel.distrust(*worker, false).unwrap();
            }
            if !matches!(rule.policy, Policy::Sticky(_)) {
                // A tie of two idle workers is broken by chance in some.
                let served = || ask_many(ADDRESS, 40).len() == 4;
                wait_until("each is trusted again", served);
            }
        }
    });
}

#[test]
fn when_all_are_silent_they_serve_all_the_same() {
    with_workers(3, Policy::RoundRobin, |world, workers| {
        for policy in [Policy::RoundRobin, Policy::LeastConn, Policy::Random] {
            let rule = Scheduling { policy, ..Scheduling::default() };
            world.kernel.schedule(GROUP, &rule).unwrap();
            for worker in workers {
                world.kernel.distrust(*worker, true).unwrap();
            }
            assert_eq!(ask_many(ADDRESS, 30).values().sum::<usize>(), 30);
            for worker in workers {
                world.kernel.distrust(*worker, false).unwrap();
            }
        }
    });
}

#[test]
fn silence_counts_where_nothing_else_does_and_not_where_it_is_switched_off() {
    with_workers(2, Policy::RoundRobin, |world, workers| {
        world.kernel.distrust(workers[0], true).unwrap();
        let guard = |text: &str| text.parse::<Guard>().unwrap();
        for (guard, serving) in [
            (guard("stalled=off"), 1),
            (guard("heartbeat=off"), 2),
            (Guard::OFF, 2),
            (guard("heartbeat=1s,queue=5"), 1),
        ] {
            let rule = Scheduling { guard, ..unguarded(Policy::RoundRobin) };
            world.kernel.schedule(GROUP, &rule).unwrap();
            assert_eq!(ask_many(ADDRESS, 20).len(), serving, "{guard}");
        }
    });
}

#[test]
fn a_socket_that_joins_later_is_kept_away_from_as_well() {
    in_a_world(|world| {
        let workers: Vec<_> = ["1", "2"].map(|label| world.spawn(TWO_PORTS, &[label])).into();
        let mut sockets: Vec<_> = (0..4).map(|_| world.listening()).collect();
        sockets.sort_by_key(|socket| (socket.key.address.port(), socket.worker));
        for (nth, socket) in (0..).zip(&sockets) {
            let group = GroupId(nth / 2);
            if nth == 2 {
                world.kernel.distrust(workers[0], true).unwrap();
            }
            if nth % 2 == 0 {
                world.open(group, socket);
                world.kernel.schedule(group, &Scheduling::default()).unwrap();
            }
            let at = slot(u16::try_from(nth % 2).unwrap() + 1);
            world.kernel.join(socket.ticket, group, at).unwrap();
        }
        for (group, address) in [(GroupId(0), ADDRESS), (GroupId(1), "127.0.0.1:8081")] {
            world.publish(group, &[1, 2]);
            let answers = ask_many(address, 20);
            assert_eq!(answers.get("2"), Some(&20), "{address}: {answers:?}");
        }
        world.kernel.distrust(workers[0], false).unwrap();
        assert_eq!(ask_many("127.0.0.1:8081", 20).len(), 2);
    });
}

#[test]
fn the_next_daemon_finds_whom_the_last_one_distrusted_and_can_trust_him_again() {
    in_a_world(|world| {
        let record = world.killed_after(|world: &mut World| {
            let workers = world.group_of(GROUP, 2, TCP, "0.0.0.0", 8080);
            world.kernel.schedule(GROUP, &Scheduling::default()).unwrap();
            world.publish(GROUP, &[1, 2]);
            world.kernel.distrust(workers[0], true).unwrap();
            world.kernel.record(GROUP).unwrap()
        });
        assert_eq!(ask_many(ADDRESS, 20).len(), 1, "nobody is there");
        world.succeed();
        adopt(world, &record);
        world.kernel.settle();
        assert_eq!(ask_many(ADDRESS, 20).len(), 1, "nobody has said anything yet");

        world.kernel.distrust(WorkerId(1), false).unwrap();
        assert_eq!(ask_many(ADDRESS, 20).len(), 2);
        assert!(world.kernel.distrust(WorkerId(77), true).is_err(), "nobody knows it");
    });
}

#[test]
fn nothing_that_programs_count_is_lost_while_the_supervisor_writes_beside_it() {
    const COUNT: usize = 1500;
    with_workers(2, Policy::LeastConn, |world, workers| {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..COUNT {
                    ask(ADDRESS).unwrap();
                }
                done.store(true, Ordering::Relaxed);
            });
            let mut heavier = false;
            while !done.load(Ordering::Relaxed) {
                heavier = !heavier;
                world.publish(GROUP, if heavier { &[1, 1, 2] } else { &[1, 2, 2] });
                world.kernel.distrust(workers[0], heavier).unwrap();
            }
        });
        wait_until("all are closed", || {
            let counted = world.kernel.telemetry().unwrap();
            let live: u64 = workers.iter().map(|worker| counted[worker].live.unwrap()).sum();
            live == 0
        });
        let counted = world.kernel.telemetry().unwrap();
        let accepted: u64 = workers.iter().map(|worker| counted[worker].accepted.unwrap()).sum();
        assert_eq!(accepted, u64::try_from(COUNT).unwrap());
    });
}
