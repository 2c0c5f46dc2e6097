//! Connections that come while nobody can take them.

use std::{
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use super::world::{TCP, World, answer, ask, in_a_world, slot, wait_until};
use crate::{
    config::scheduling::{Policy, Scheduling},
    datapath::{DataPath as _, OnMiss},
    id::GroupId,
};

const GROUP: GroupId = GroupId(0);
const ADDRESS: &str = "127.0.0.1:8080";

/// Starts a worker and joins it to the group's slot 1.
fn replace(world: &mut World, label: &str) {
    world.spawn(TCP, &["0.0.0.0", "8080", label]);
    let socket = world.listening();
    world.kernel.join(socket.ticket, GROUP, slot(1)).unwrap();
}

#[test]
fn connections_wait_for_the_first_route() {
    in_a_world(|world| {
        world.group_of(GROUP, 1, TCP, "0.0.0.0", 8080);
        let waiting: Vec<_> = (0..10).map(|_| TcpStream::connect(ADDRESS).unwrap()).collect();

        world.publish(GROUP, &[1]);

        for connection in waiting {
            assert_eq!(answer(connection).unwrap(), "1");
        }
    });
}

#[test]
fn connections_wait_also_where_the_kernel_s_hash_decided_before() {
    in_a_world(|world| {
        let workers = world.group_of(GROUP, 1, TCP, "0.0.0.0", 8080);
        world.publish(GROUP, &[1]);
        for policy in [Policy::None, Policy::RoundRobin] {
            let scheduling = Scheduling { policy, ..Scheduling::default() };
            world.kernel.schedule(GROUP, &scheduling).unwrap();
        }
        world.kill(workers[0]);
        let waiting = TcpStream::connect(ADDRESS).unwrap();
        replace(world, "new");
        world.publish(GROUP, &[1]);
        assert_eq!(answer(waiting).unwrap(), "new");
    });
}

#[test]
fn connections_wait_for_the_replacement_of_the_last_worker() {
    in_a_world(|world| {
        let workers = world.group_of(GROUP, 1, TCP, "0.0.0.0", 8080);
        world.publish(GROUP, &[1]);
        world.kill(workers[0]);
        let waiting: Vec<_> = (0..10).map(|_| TcpStream::connect(ADDRESS).unwrap()).collect();
        // Told of them, with nobody there: they must neither be dropped nor keep the supervisor busy.
        world.run_for(Duration::from_millis(20));

        replace(world, "new");
        world.publish(GROUP, &[1]);

        for connection in waiting {
            assert_eq!(answer(connection).unwrap(), "new");
        }
        assert_eq!(ask(ADDRESS).unwrap(), "new");
    });
}

#[test]
fn a_connection_that_comes_to_wait_after_the_publication_is_handed_over_too() {
    in_a_world(|world| {
        world.group_of(GROUP, 1, TCP, "0.0.0.0", 8080);
        // More slots without a socket in a row than the program tries: some connections wait although 1 is there.
        let route: Vec<u16> = [1].into_iter().chain(100..160).collect();
        world.publish(GROUP, &route);
        let waiting: Vec<_> = (0..10).map(|_| TcpStream::connect(ADDRESS).unwrap()).collect();
        let clients: Vec<_> =
            waiting.into_iter().map(|waiting| thread::spawn(|| answer(waiting))).collect();

        world.run_for(Duration::from_millis(50));

        for client in clients {
            assert_eq!(client.join().unwrap().unwrap(), "1");
        }
    });
}

#[test]
fn every_connection_is_answered_though_all_workers_are_killed_under_load() {
    in_a_world(|world| {
        let workers = world.group_of(GROUP, 4, TCP, "0.0.0.0", 8080);
        world.publish(GROUP, &[1, 2, 3, 4]);
        // A worker that has accepted a connection takes it along. Only what is queued can be kept.
        for &worker in &workers {
            world.signal(worker, Signal::SIGSTOP);
        }
        let over = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..8)
            .map(|_| {
                let over = Arc::clone(&over);
                thread::spawn(move || {
                    let mut answered = 0;
                    while !over.load(Ordering::Relaxed) {
                        assert_eq!(ask(ADDRESS).unwrap(), "new");
                        answered += 1;
                    }
                    answered
                })
            })
            .collect();
        wait_until("all clients have connected", || {
            (1..=4).map(|n| world.kernel.counters(GROUP, slot(n)).selected).sum::<u64>() == 8
        });

        for worker in workers {
            world.kill(worker);
        }
        world.publish(GROUP, &[]);
        world.run_for(Duration::from_millis(50));
        replace(world, "new");
        world.publish(GROUP, &[1]);
        world.run_for(Duration::from_millis(300));
        over.store(true, Ordering::Relaxed);

        let answered: Vec<u32> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        assert!(answered.iter().all(|&count| count > 0), "{answered:?}");
    });
}

#[test]
fn refusing_refuses_the_newcomers_and_those_who_wait() {
    in_a_world(|world| {
        let workers = world.group_of(GROUP, 1, TCP, "0.0.0.0", 8080);
        world.publish(GROUP, &[]);
        let waiting = TcpStream::connect(ADDRESS).unwrap();
        wait_until("it is there", || world.kernel.serve());

        world.kernel.on_miss(GROUP, OnMiss::Refuse);

        assert_eq!(answer(waiting).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
        assert_eq!(ask(ADDRESS).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);

        world.kernel.on_miss(GROUP, OnMiss::Wait);
        let waiting = TcpStream::connect(ADDRESS).unwrap();
        world.publish(GROUP, &[1]);
        assert_eq!(answer(waiting).unwrap(), "1");
        drop(workers);
    });
}

#[test]
fn the_waiting_room_belongs_to_the_workers_user() {
    in_a_world(|world| {
        let nobody = format!("import os; os.setgid(65534); os.setuid(65534)\n{TCP}");
        world.group_of(GROUP, 2, &nobody, "0.0.0.0", 8080);
        let waiting = TcpStream::connect(ADDRESS).unwrap();

        world.publish(GROUP, &[1, 2]);

        assert_eq!(answer(waiting).unwrap(), "1");
    });
}

#[test]
fn no_connection_is_lost_while_the_route_comes_and_goes() {
    in_a_world(|world| {
        world.group_of(GROUP, 2, TCP, "0.0.0.0", 8080);
        world.publish(GROUP, &[1, 2]);
        let over = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..3)
            .map(|_| {
                let over = Arc::clone(&over);
                thread::spawn(move || {
                    let mut slowest = Duration::ZERO;
                    while !over.load(Ordering::Relaxed) {
                        let asked = Instant::now();
                        assert_ne!(ask(ADDRESS).unwrap(), "");
                        slowest = slowest.max(asked.elapsed());
                    }
                    slowest
                })
            })
            .collect();

        let (mut rounds, started) = (0_u32, Instant::now());
        while started.elapsed() < Duration::from_millis(1500) {
            world.publish(GROUP, &[]);
            world.run_for(Duration::from_micros(300));
            world.publish(GROUP, &[1, 2]);
            world.run_for(Duration::from_micros(300));
            rounds += 1;
        }
        over.store(true, Ordering::Relaxed);
        world.run_for(Duration::from_millis(100));

        let slowest: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        println!("{rounds} rounds, slowest {slowest:?}");
        // A lost connection would be tried again by the client's kernel a second later.
        assert!(slowest.iter().all(|&time| time < Duration::from_millis(900)), "{slowest:?}");
    });
}
