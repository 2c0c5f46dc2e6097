//! Who gets a connection.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use super::world::{TCP, ask, ask_many, in_a_world, slot, wait_until};
use crate::{datapath::DataPath as _, id::GroupId};

const GROUP: GroupId = GroupId(0);

#[test]
fn every_worker_gets_every_fourth_connection() {
    in_a_world(|world| {
        world.group_of(GROUP, 4, TCP, "0.0.0.0", 8080);
        world.publish(GROUP, &[1, 2, 3, 4]);

        let answers = ask_many("127.0.0.1:8080", 40);

        assert_eq!(answers.values().collect::<Vec<_>>(), [&10; 4], "{answers:?}");
        for number in 1..=4 {
            assert_eq!(world.kernel.counters(GROUP, slot(number)).selected, 10);
        }
    });
}

#[test]
fn a_worker_outside_of_the_route_gets_nothing() {
    in_a_world(|world| {
        world.group_of(GROUP, 3, TCP, "0.0.0.0", 8080);
        world.publish(GROUP, &[1, 3]);

        let answers = ask_many("127.0.0.1:8080", 20);

        assert_eq!(answers, BTreeMap::from([("1".to_owned(), 10), ("3".to_owned(), 10)]));
    });
}

#[test]
fn no_turn_is_skipped_or_doubled_while_routes_are_published() {
    in_a_world(|world| {
        world.group_of(GROUP, 3, TCP, "0.0.0.0", 8080);
        world.publish(GROUP, &[1, 2]);
        let over = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..3)
            .map(|_| {
                let over = Arc::clone(&over);
                thread::spawn(move || {
                    let mut answers = BTreeMap::<String, u64>::new();
                    while !over.load(Ordering::Relaxed) {
                        *answers.entry(ask("127.0.0.1:8080").unwrap()).or_default() += 1;
                    }
                    answers
                })
            })
            .collect();

        let (mut published, started) = (0_u32, Instant::now());
        while started.elapsed() < Duration::from_millis(1500) {
            world.publish(GROUP, &[1, 2, 3]);
            thread::sleep(Duration::from_micros(200));
            world.publish(GROUP, &[1, 2]);
            published += 2;
            thread::sleep(Duration::from_micros(100));
        }
        over.store(true, Ordering::Relaxed);

        let mut sums = BTreeMap::<String, u64>::new();
        for client in clients {
            for (label, count) in client.join().unwrap() {
                *sums.entry(label).or_default() += count;
            }
        }
        println!("{published} publications, {sums:?}");
        assert!(sums["1"].abs_diff(sums["2"]) <= 1, "{sums:?}");
        assert!(sums.contains_key("3"));
    });
}

#[test]
fn a_killed_workers_queue_moves_to_the_others() {
    in_a_world(|world| {
        let workers = world.group_of(GROUP, 2, TCP, "0.0.0.0", 8080);
        world.publish(GROUP, &[1, 2]);
        world.signal(workers[0], Signal::SIGSTOP);
        let clients: Vec<_> = (0..40).map(|_| thread::spawn(|| ask("127.0.0.1:8080"))).collect();
        // Half of them wait in the stopped worker's queue.
        wait_until("all have connected", || {
            let counted = |number| world.kernel.counters(GROUP, slot(number)).selected;
            counted(1) + counted(2) == 40
        });

        world.kill(workers[0]);

        for client in clients {
            assert_eq!(client.join().unwrap().unwrap(), "2");
        }
        assert_eq!(world.kernel.counters(GROUP, slot(2)).migrated_in, 20);
    });
}

#[test]
fn a_closed_socket_is_found_without_a_connection_after_another_has_joined() {
    in_a_world(|world| {
        let workers = world.group_of(GROUP, 2, TCP, "0.0.0.0", 8080);
        world.kill(workers[0]);
        assert_eq!(world.kernel.lost(GROUP), [slot(1)]);
    });
}

#[test]
fn a_closed_socket_is_found_lost_once_it_was_missed() {
    in_a_world(|world| {
        let workers = world.group_of(GROUP, 2, TCP, "0.0.0.0", 8080);
        world.publish(GROUP, &[1, 2]);
        ask_many("127.0.0.1:8080", 2);
        assert_eq!(world.kernel.lost(GROUP), []);

        world.kill(workers[1]);
        let answers = ask_many("127.0.0.1:8080", 4);

        assert_eq!(answers, BTreeMap::from([("1".to_owned(), 4)]));
        assert_eq!(world.kernel.lost(GROUP), [slot(2)]);
        world.kernel.vacate(GROUP, slot(2));
        world.publish(GROUP, &[1]);
        ask_many("127.0.0.1:8080", 2);
        assert_eq!(world.kernel.lost(GROUP), []);
    });
}

#[test]
fn two_groups_know_nothing_of_each_other() {
    in_a_world(|world| {
        let other = GroupId(1);
        world.group_of(GROUP, 2, TCP, "0.0.0.0", 8080);
        world.group_of(other, 1, TCP, "0.0.0.0", 8081);
        world.publish(GROUP, &[1, 2]);
        world.publish(other, &[1]);

        assert_eq!(ask_many("127.0.0.1:8080", 6).len(), 2);
        assert_eq!(ask_many("127.0.0.1:8081", 3), BTreeMap::from([("1".to_owned(), 3)]));
        assert_eq!(world.kernel.counters(other, slot(1)).selected, 3);
        assert_eq!(world.kernel.counters(GROUP, slot(1)).selected, 3);

        world.kernel.close(other);
        assert_eq!(ask_many("127.0.0.1:8080", 2).len(), 2);
    });
}

#[test]
fn a_slot_that_is_filled_again_counts_from_nought() {
    in_a_world(|world| {
        let workers = world.group_of(GROUP, 1, TCP, "0.0.0.0", 8080);
        world.publish(GROUP, &[1]);
        ask_many("127.0.0.1:8080", 5);
        world.kill(workers[0]);

        world.spawn(TCP, &["0.0.0.0", "8080", "new"]);
        let socket = world.listening();
        world.kernel.join(socket.ticket, GROUP, slot(1)).unwrap();
        assert_eq!(world.kernel.counters(GROUP, slot(1)).selected, 0);

        ask_many("127.0.0.1:8080", 2);
        assert_eq!(world.kernel.counters(GROUP, slot(1)).selected, 2);
    });
}
