//! What is counted of connections, whatever becomes of them and of their listener.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use aya_obj::generated::bpf_cmd;
use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};

use super::{
    super::bpf,
    scheduling::{ADDRESS, GROUP, hold, live, unguarded, with_workers},
    world::{SILENT, World, ask_many, in_a_world, slot, wait_until},
};
use crate::{
    config::scheduling::Policy,
    datapath::{DataPath as _, Protocol, diag, telemetry::Telemetry},
};

/// Answers every connection with more than the kernel sends at once, and closes it without waiting.
const LONG: &str = "
import socket, sys
s = socket.socket()
s.bind((sys.argv[1], int(sys.argv[2]))); s.listen(512)
while True:
    c, _ = s.accept()
    c.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    c.recv(100)
    c.sendall(b'x' * 400_000)
    c.close()
";

/// Takes one connection, listens no more, and answers when it is asked.
const LEAVING: &str = "
import socket, sys, time
s = socket.socket()
s.bind((sys.argv[1], int(sys.argv[2]))); s.listen(512)
c, _ = s.accept()
s.close()
c.recv(100)
c.sendall(b'answer')
c.close()
time.sleep(100)
";

/// Listens for one connection at a time and takes none.
const NARROW: &str = "
import socket, sys, time
s = socket.socket()
s.bind((sys.argv[1], int(sys.argv[2]))); s.listen(1)
time.sleep(100)
";

#[test]
fn live_connections_are_counted_without_drift() {
    with_workers(2, Policy::LeastConn, |world, workers| {
        let answers = ask_many(ADDRESS, 2000);
        assert_eq!(answers.values().sum::<usize>(), 2000);
        wait_until("all are closed", || workers.iter().all(|worker| live(world, *worker) == 0));
        let telemetry = world.kernel.telemetry().unwrap();
        let sum = |of: fn(&Telemetry) -> u64| {
            workers.iter().map(|worker| of(&telemetry[worker])).sum::<u64>()
        };
        assert_eq!(sum(|told| told.selected), 2000);
        assert_eq!(sum(|told| told.accepted.unwrap()), 2000);
        assert_eq!(sum(|told| told.lifetime.as_ref().unwrap().buckets.iter().sum()), 2000);
        assert_eq!(telemetry[&workers[0]].missing, None);
    });
}

#[test]
fn a_killed_workers_connections_are_taken_off_and_what_moves_is_counted_where_it_is() {
    with_workers(2, Policy::RoundRobin, |world, workers| {
        world.signal(workers[0], Signal::SIGSTOP);
        world.signal(workers[1], Signal::SIGSTOP);
        let held = hold(20);
        wait_until("they are counted", || live(world, workers[1]) == 10);
        world.kill(workers[0]);
        wait_until("they have moved", || live(world, workers[1]) == 20);
        drop(held);
        world.signal(workers[1], Signal::SIGCONT);
        wait_until("all are closed", || live(world, workers[1]) == 0);
        let telemetry = world.kernel.telemetry().unwrap();
        assert_eq!(telemetry[&workers[1]].migrated_in, 10);
        assert_eq!(telemetry[&workers[1]].accepted, Some(20));
        let killed = &telemetry[&workers[0]];
        assert_eq!((killed.migrated_out, killed.accepted), (Some(10), Some(0)));
    });
}

/// Who drains it waits for them: nobody else knows whose they are, since they stay in the cgroup of who is gone.
#[test]
fn what_moved_to_a_worker_before_there_was_this_daemon_is_found_with_it() {
    in_a_world(|world| {
        let workers = world.group_of(GROUP, 2, SILENT, "0.0.0.0", 8080);
        world.publish(GROUP, &[1, 2]);
        for worker in &workers {
            world.signal(*worker, Signal::SIGSTOP);
        }
        let held = hold(6);
        wait_until("they are there", || live(world, workers[1]) == 3);
        world.kill(workers[0]);
        wait_until("they have moved", || live(world, workers[1]) == 6);
        world.signal(workers[1], Signal::SIGCONT);
        let traffic = |world: &mut World| world.kernel.traffic(workers[1]).unwrap();
        wait_until("they are accepted", || traffic(world).queued == 0);
        assert_eq!(traffic(world).established, 6);

        world.die();
        world.succeed();
        world.kernel.settle();
        let [socket] = &world.all_listening()[..] else { panic!("one worker listens") };
        // It is in a group that has not seen them move.
        world.open(GROUP, socket);
        world.kernel.join(socket.ticket, GROUP, slot(1)).unwrap();

        assert_eq!(traffic(world).established, 6);
        drop(held);
        wait_until("they are closed", || traffic(world).established == 0);
    });
}

#[test]
fn what_is_sent_after_the_app_has_closed_is_counted() {
    in_a_world(|world| {
        let workers = world.group_of(GROUP, 1, LONG, "0.0.0.0", 8080);
        world.publish(GROUP, &[1]);
        for _ in 0..3 {
            let mut connection = TcpStream::connect(ADDRESS).unwrap();
            connection.write_all(b"please").unwrap();
            wait_until("the app has closed it", || live(world, workers[0]) == 0);
            let mut answer = Vec::new();
            connection.read_to_end(&mut answer).unwrap();
            assert_eq!(answer.len(), 400_000);
        }
        let mut told = Telemetry::default();
        wait_until("all is acknowledged", || {
            told = world.kernel.telemetry().unwrap()[&workers[0]].clone();
            told.bytes_out >= Some(1_200_000)
        });
        // The end of a stream counts as a byte, in both directions.
        assert!(told.bytes_out.is_some_and(|bytes| bytes <= 1_200_003), "{told:?}");
        assert!(told.bytes_in.is_some_and(|bytes| (18..=21).contains(&bytes)), "{told:?}");
    });
}

#[test]
fn connections_of_a_worker_that_listens_no_more_are_counted_until_their_end() {
    in_a_world(|world| {
        let workers = world.group_of(GROUP, 2, LEAVING, "0.0.0.0", 8080);
        world.publish(GROUP, &[1]);
        let mut connection = TcpStream::connect(ADDRESS).unwrap();
        world.publish(GROUP, &[2]);
        // The other worker and the waiting room do.
        wait_until("it listens no more", || {
            diag::listeners(Protocol::Tcp, 8080).unwrap().len() == 2
        });
        world.kernel.vacate(GROUP, slot(1));
        assert_eq!(live(world, workers[0]), 1);

        connection.write_all(b"please").unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        drop(connection);

        wait_until("it is closed", || live(world, workers[0]) == 0);
        let mut told = Telemetry::default();
        wait_until("all is acknowledged", || {
            told = world.kernel.telemetry().unwrap()[&workers[0]].clone();
            told.bytes_out >= Some(6)
        });
        assert_eq!((told.selected, told.accepted), (1, Some(1)));
        assert_eq!(told.lifetime.unwrap().buckets.iter().sum::<u64>(), 1);
        assert_eq!(told.wait.unwrap().buckets.iter().sum::<u64>(), 1);
        world.kernel.dismiss(workers[0]);
        assert!(!world.kernel.telemetry().unwrap().contains_key(&workers[0]));
    });
}

#[test]
fn what_the_kernel_drops_because_a_queue_is_full_is_counted() {
    in_a_world(|world| {
        let workers = world.group_of(GROUP, 1, NARROW, "0.0.0.0", 8080);
        world.publish(GROUP, &[1]);
        let address: SocketAddr = ADDRESS.parse().unwrap();
        let _clients: Vec<Socket> = (0..10)
            .map(|_| {
                let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                client.set_nonblocking(true).unwrap();
                // In progress: what is dropped is tried again, for longer than this takes.
                client.connect(&address.into()).unwrap_err();
                client
            })
            .collect();
        wait_until("some are dropped", || {
            world.kernel.telemetry().unwrap()[&workers[0]].dropped > Some(0)
        });
    });
}

#[test]
fn runs_of_the_program_are_told_while_the_kernel_counts_them() {
    with_workers(1, Policy::RoundRobin, |world, _| {
        /// `union bpf_attr` for `BPF_ENABLE_STATS`: run times, for as long as the descriptor is open.
        #[repr(C)]
        struct Statistics {
            kind: u32,
        }
        let runs = |world: &World| {
            world.kernel.group_telemetry(GROUP).unwrap().runs.map_or(0, |(count, _)| count)
        };
        let counting = bpf::descriptor(bpf_cmd::BPF_ENABLE_STATS, &Statistics { kind: 0 }).unwrap();
        ask_many(ADDRESS, 20);
        let before = runs(world);
        assert!(before >= 20, "{before}");
        world.kernel.schedule(GROUP, &unguarded(Policy::Hash)).unwrap();
        ask_many(ADDRESS, 20);
        assert!(runs(world) >= before + 20, "those of the program before count too");
        let (count, time) = world.kernel.group_telemetry(GROUP).unwrap().runs.unwrap();
        assert!((1..1_000_000).contains(&(time / count)), "{time} ns in {count} runs");
        drop(counting);
    });
}
