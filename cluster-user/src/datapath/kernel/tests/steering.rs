//! Connections that are meant for one worker.

use std::{
    fs,
    io::ErrorKind,
    net::{SocketAddr, TcpStream},
};

use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};

use super::world::{TCP, World, answer, ask_many, in_a_world, slot, wait_until};
use crate::{
    datapath::DataPath as _,
    id::{GroupId, WorkerId},
};

const GROUP: GroupId = GroupId(0);
const ADDRESS: &str = "127.0.0.1:8080";

/// A socket whose source is known before it connects.
pub(super) struct Question {
    socket: Socket,
    pub(super) from: SocketAddr,
}

impl Question {
    pub(super) fn new(from: &str) -> Self {
        let from: SocketAddr = from.parse().unwrap();
        let socket = Socket::new(Domain::for_address(from), Type::STREAM, None).unwrap();
        socket.bind(&from.into()).unwrap();
        let from = socket.local_addr().unwrap().as_socket().unwrap();
        Self { socket, from }
    }

    pub(super) fn ask(self, to: &str) -> std::io::Result<String> {
        self.socket.connect(&to.parse::<SocketAddr>().unwrap().into())?;
        answer(TcpStream::from(self.socket))
    }
}

/// Asks one worker through the port of its group.
fn ask_one(world: &mut World, worker: WorkerId, source: &str, to: &str) -> std::io::Result<String> {
    let question = Question::new(source);
    let (from, at) = (question.from, to.parse().unwrap());
    world.kernel.steer(worker, at, from).unwrap();
    let said = question.ask(to);
    world.kernel.unsteer(worker, at, from);
    said
}

#[test]
fn a_worker_is_asked_before_any_route_names_it_and_takes_nobodys_turn() {
    in_a_world(|world| {
        let workers = world.group_of(GROUP, 3, TCP, "0.0.0.0", 8080);
        world.publish(GROUP, &[1, 2]);

        for round in 0..20 {
            let number = round % 3;
            let said = ask_one(world, workers[number], "127.0.0.1:0", ADDRESS).unwrap();
            assert_eq!(said, format!("{}", number + 1));
            // Between two turns of others, who must not notice.
            assert_eq!(
                ask_many(ADDRESS, 1).into_keys().next().unwrap(),
                format!("{}", round % 2 + 1)
            );
        }
        let counted = [1, 2, 3].map(|number| world.kernel.counters(GROUP, slot(number)).selected);
        assert_eq!(counted, [10, 10, 0]);
    });
}

#[test]
fn other_connections_are_not_steered_meanwhile() {
    in_a_world(|world| {
        let workers = world.group_of(GROUP, 3, TCP, "0.0.0.0", 8080);
        world.publish(GROUP, &[1, 2]);
        let question = Question::new("127.0.0.1:0");
        world.kernel.steer(workers[2], ADDRESS.parse().unwrap(), question.from).unwrap();

        let answers = ask_many(ADDRESS, 10);

        assert_eq!(answers.into_values().collect::<Vec<_>>(), [5, 5]);
        assert_eq!(question.ask(ADDRESS).unwrap(), "3");
    });
}

#[test]
fn what_is_not_steered_any_more_goes_where_the_route_says() {
    in_a_world(|world| {
        let workers = world.group_of(GROUP, 2, TCP, "0.0.0.0", 8080);
        world.publish(GROUP, &[1]);
        let to = ADDRESS.parse().unwrap();
        let (first, second) = (Question::new("127.0.0.1:0"), Question::new("127.0.0.1:0"));
        world.kernel.steer(workers[1], to, first.from).unwrap();
        world.kernel.steer(workers[1], to, second.from).unwrap();

        world.kernel.unsteer(workers[1], to, first.from);

        assert_eq!(first.ask(ADDRESS).unwrap(), "1");
        assert_eq!(second.ask(ADDRESS).unwrap(), "2");
    });
}

#[test]
fn both_families_reach_a_worker_on_both() {
    in_a_world(|world| {
        let workers = world.group_of(GROUP, 2, TCP, "::", 8080);
        world.publish(GROUP, &[1]);

        assert_eq!(ask_one(world, workers[1], "[::1]:0", "[::1]:8080").unwrap(), "2");
        assert_eq!(ask_one(world, workers[1], "127.0.0.1:0", ADDRESS).unwrap(), "2");
        let question = Question::new("[::1]:0");
        world.kernel.steer(workers[1], "[::]:8080".parse().unwrap(), question.from).unwrap();
        assert_eq!(question.ask("[::1]:8080").unwrap(), "2", "by the group's own address");
    });
}

#[test]
fn syn_cookies_do_not_lead_astray() {
    in_a_world(|world| {
        fs::write("/proc/sys/net/ipv4/tcp_syncookies", "2").unwrap();
        let workers = world.group_of(GROUP, 2, TCP, "0.0.0.0", 8080);
        world.publish(GROUP, &[1]);

        for _ in 0..20 {
            assert_eq!(ask_one(world, workers[1], "127.0.0.1:0", ADDRESS).unwrap(), "2");
        }
        assert_eq!(world.kernel.counters(GROUP, slot(1)).selected, 0);
    });
}

#[test]
fn a_worker_that_listens_no_more_is_not_answered_for_by_others() {
    in_a_world(|world| {
        let workers = world.group_of(GROUP, 2, TCP, "0.0.0.0", 8080);
        world.publish(GROUP, &[1, 2]);
        world.kill(workers[1]);

        let error = ask_one(world, workers[1], "127.0.0.1:0", ADDRESS).unwrap_err();

        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_slot_that_is_vacated_is_steered_to_no_more() {
    in_a_world(|world| {
        let workers = world.group_of(GROUP, 2, TCP, "0.0.0.0", 8080);
        world.publish(GROUP, &[1]);
        let question = Question::new("127.0.0.1:0");
        world.kernel.steer(workers[1], ADDRESS.parse().unwrap(), question.from).unwrap();
        world.kill(workers[1]);
        world.kernel.vacate(GROUP, slot(2));
        world.spawn(TCP, &["0.0.0.0", "8080", "new"]);
        let socket = world.listening();
        world.kernel.join(socket.ticket, GROUP, slot(2)).unwrap();

        assert_eq!(question.ask(ADDRESS).unwrap(), "1", "the question was not for the new one");
    });
}

#[test]
fn who_is_not_there_cannot_be_asked() {
    in_a_world(|world| {
        let workers = world.group_of(GROUP, 1, TCP, "127.0.0.1", 8080);
        let from = "127.0.0.1:40000".parse().unwrap();
        let mut refused = |worker, to: &str| {
            let error = world.kernel.steer(worker, to.parse().unwrap(), from).unwrap_err();
            error.to_string()
        };

        assert!(refused(WorkerId(99), ADDRESS).contains("not known"));
        for to in ["127.0.0.1:8081", "127.0.0.2:8080", "[::1]:8080"] {
            assert!(refused(workers[0], to).contains("no socket in a group"), "{to}");
        }
    });
}

#[test]
fn what_waits_for_a_worker_that_hangs_is_answered_by_others() {
    in_a_world(|world| {
        let workers = world.group_of(GROUP, 3, TCP, "0.0.0.0", 8080);
        world.publish(GROUP, &[1]);
        world.signal(workers[0], Signal::SIGSTOP);
        let waiting: Vec<_> = (0..10).map(|_| TcpStream::connect(ADDRESS).unwrap()).collect();
        wait_until("they are queued", || world.kernel.traffic(workers[0]).unwrap().queued == 10);
        world.publish(GROUP, &[2, 3]);

        world.kernel.rescue(workers[0]).unwrap();

        let mut answers = [0; 2];
        for connection in waiting {
            let label = answer(connection).unwrap();
            answers[label.parse::<usize>().unwrap() - 2] += 1;
        }
        assert_eq!(answers, [5, 5]);
        assert!(world.is_alive(workers[0]), "it was not ended");
        assert_eq!(world.kernel.lost(GROUP), [slot(1)]);
        world.kernel.rescue(workers[0]).unwrap();
    });
}

#[test]
fn what_waits_for_the_last_worker_waits_for_the_next() {
    in_a_world(|world| {
        let workers = world.group_of(GROUP, 1, TCP, "0.0.0.0", 8080);
        world.publish(GROUP, &[1]);
        world.signal(workers[0], Signal::SIGSTOP);
        let waiting: Vec<_> = (0..10).map(|_| TcpStream::connect(ADDRESS).unwrap()).collect();
        world.publish(GROUP, &[]);

        world.kernel.rescue(workers[0]).unwrap();
        world.kernel.vacate(GROUP, slot(1));
        world.spawn(TCP, &["0.0.0.0", "8080", "new"]);
        let socket = world.listening();
        world.kernel.join(socket.ticket, GROUP, slot(1)).unwrap();
        world.publish(GROUP, &[1]);

        for connection in waiting {
            assert_eq!(answer(connection).unwrap(), "new");
        }
    });
}
