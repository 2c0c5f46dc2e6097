//! How sockets become members of groups, and which do not.

use std::{
    collections::BTreeMap,
    net::{TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use super::world::{
    PATIENCE, SILENT, TCP, UDP, ask, ask_many, in_a_world, python, slot, wait_until,
};
use crate::{
    datapath::{DataPath as _, GroupOptions, JoinError, Protocol, Report, Traffic, diag},
    id::GroupId,
};

const GROUP: GroupId = GroupId(0);

/// A server that shares its port by itself.
const SHARING: &str = "
import socket, sys
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
s.bind(('0.0.0.0', int(sys.argv[1]))); s.listen()
while True: s.accept()
";

#[test]
fn a_worker_is_reported_binding_and_then_listening() {
    in_a_world(|world| {
        let worker = world.spawn(TCP, &["127.0.0.1", "8080", "1"]);

        let first = world.report();
        let second = world.listening();

        assert!(matches!(first, Report::Binding { worker: of, .. } if of == worker), "{first:?}");
        assert_eq!(second.worker, worker);
        assert_eq!(second.key.address, "127.0.0.1:8080".parse().unwrap());
        assert_eq!((second.key.protocol, second.key.uid), (Protocol::Tcp, 0));
    });
}

#[test]
fn a_founder_is_opened_joined_and_published() {
    in_a_world(|world| {
        world.spawn(TCP, &["0.0.0.0", "8080", "1"]);
        let socket = world.listening();
        let open = timed(|| world.open(GROUP, &socket));
        let join = timed(|| world.kernel.join(socket.ticket, GROUP, slot(1)).unwrap());
        let publish = timed(|| world.publish(GROUP, &[1]));

        println!("open {open:?}, join {join:?}, publish {publish:?}");
        assert_eq!(ask("127.0.0.1:8080").unwrap(), "1");
    });
}

/// Listens, stops it, and listens again with the same socket.
const AGAIN: &str = "
import socket, sys
s = socket.socket(); s.bind((sys.argv[1], int(sys.argv[2])))
s.listen(100); s.shutdown(socket.SHUT_RDWR); s.listen(100)
while True:
    c, _ = s.accept(); c.sendall(sys.argv[3].encode()); c.close()
";

#[test]
fn a_socket_that_listens_again_before_it_joined_is_one_member() {
    in_a_world(|world| {
        world.spawn(AGAIN, &["0.0.0.0", "8080", "1"]);
        let (first, second) = (world.listening(), world.listening());
        world.open(GROUP, &first);
        world.kernel.join(first.ticket, GROUP, slot(1)).unwrap();
        let again = world.kernel.join(second.ticket, GROUP, slot(2)).unwrap_err();
        assert!(matches!(again, JoinError::Gone), "{again}");
        world.publish(GROUP, &[1]);
        assert_eq!(ask("127.0.0.1:8080").unwrap(), "1");
    });
}

#[test]
fn a_strangers_group_is_left_alone() {
    in_a_world(|world| {
        let mut stranger = python(SHARING, &["8080"], None);
        wait_until("the stranger listens", || {
            !diag::listeners(Protocol::Tcp, 8080).unwrap().is_empty()
        });
        world.spawn(TCP, &["0.0.0.0", "8080", "1"]);
        let socket = world.listening();

        let options = GroupOptions { app: "test".to_owned(), trace: false };
        let refused = world.kernel.open(GROUP, socket.ticket, &options).unwrap_err();

        let holder = format!("pid {} (python3", stranger.id());
        assert!(
            matches!(&refused, JoinError::Stranger { holder: h } if h.starts_with(&holder)),
            "{refused}"
        );
        let again = world.kernel.open(GROUP, socket.ticket, &options).unwrap_err();
        assert!(matches!(again, JoinError::Gone), "the ticket is spent");
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    });
}

#[test]
fn workers_that_listen_before_anybody_looks_are_no_strangers() {
    in_a_world(|world| {
        for label in ["1", "2", "3"] {
            world.spawn(TCP, &["0.0.0.0", "8080", label]);
        }
        wait_until("all listen", || diag::listeners(Protocol::Tcp, 8080).unwrap().len() == 3);

        let socket = world.listening();
        world.open(GROUP, &socket);
    });
}

#[test]
fn datagrams_are_dealt_one_by_one() {
    in_a_world(|world| {
        world.group_of(GROUP, 2, UDP, "0.0.0.0", 5353);
        world.publish(GROUP, &[1, 2]);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.connect("127.0.0.1:5353").unwrap();

        let mut answers = BTreeMap::<Vec<u8>, u32>::new();
        for _ in 0..10 {
            client.send(b"?").unwrap();
            let mut buffer = [0; 8];
            let length = client.recv(&mut buffer).unwrap();
            *answers.entry(buffer[..length].to_vec()).or_default() += 1;
        }

        assert_eq!(answers, BTreeMap::from([(b"1".to_vec(), 5), (b"2".to_vec(), 5)]));
    });
}

#[test]
fn a_group_of_datagram_sockets_survives_the_death_of_all_its_workers() {
    in_a_world(|world| {
        let workers = world.group_of(GROUP, 1, UDP, "0.0.0.0", 5353);
        world.publish(GROUP, &[1]);
        world.kill(workers[0]);

        for number in [1, 2] {
            world.spawn(UDP, &["0.0.0.0", "5353", &number.to_string()]);
            let socket = world.listening();
            world.kernel.join(socket.ticket, GROUP, slot(number)).unwrap();
        }
        world.publish(GROUP, &[2]);

        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        for _ in 0..4 {
            client.send_to(b"?", "127.0.0.1:5353").unwrap();
            let mut buffer = [0; 8];
            let length = client.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"2", "the kernel's hash would choose 1 as well");
        }
    });
}

#[test]
fn a_dual_stack_group_serves_both_families() {
    in_a_world(|world| {
        world.group_of(GROUP, 2, TCP, "::", 8080);
        world.publish(GROUP, &[1, 2]);

        assert_eq!(ask_many("127.0.0.1:8080", 10).values().collect::<Vec<_>>(), [&5; 2]);
        assert_eq!(ask_many("[::1]:8080", 10).values().collect::<Vec<_>>(), [&5; 2]);
    });
}

#[test]
fn a_port_that_is_not_to_be_balanced_is_not_reported() {
    in_a_world(|world| {
        let two = format!(
            "import socket; other = socket.socket(); other.bind(('0.0.0.0', 8080)); other.listen()\n{TCP}"
        );
        world.spawn_for(&two, &["0.0.0.0", "8081", "1"], &[8081]);
        let socket = world.listening();
        assert_eq!(socket.key.address.port(), 8081);
    });
}

#[test]
fn multipath_tcp_is_unusable_and_says_what_to_do() {
    in_a_world(|world| {
        let multipath = TCP.replace("socket.SOCK_STREAM)", "socket.SOCK_STREAM, 262)");
        world.spawn(&multipath, &["0.0.0.0", "8080", "1"]);
        let reason = loop {
            match world.report() {
                Report::Binding { .. } => {}
                Report::Unusable { reason, .. } => break reason,
                listening @ Report::Listening { .. } => panic!("{listening:?}"),
            }
        };
        assert!(reason.contains("GODEBUG=multipathtcp=0"), "{reason}");
    });
}

#[test]
fn a_socket_that_is_gone_cannot_join() {
    in_a_world(|world| {
        let workers = world.group_of(GROUP, 1, TCP, "0.0.0.0", 8080);
        world.publish(GROUP, &[1]);
        let brief = "import socket, sys, time\ns = socket.socket(); s.bind(('0.0.0.0', 8080)); s.listen(); time.sleep(0.3); s.shutdown(0); time.sleep(9)";
        world.spawn(brief, &[]);
        let socket = world.listening();
        std::thread::sleep(Duration::from_millis(500));

        let refused = world.kernel.join(socket.ticket, GROUP, slot(2)).unwrap_err();

        assert!(matches!(refused, JoinError::Gone), "{refused}");
        drop(workers);
    });
}

#[test]
fn nothing_is_reported_of_a_dismissed_worker() {
    in_a_world(|world| {
        let worker = world.spawn(TCP, &["0.0.0.0", "8080", "1"]);
        let socket = world.listening();

        world.kernel.dismiss(worker);

        let gone = world.kernel.join(socket.ticket, GROUP, slot(1)).unwrap_err();
        assert!(matches!(gone, JoinError::Gone), "{gone}");
        assert!(world.kernel.traffic(worker).is_err());
    });
}

#[test]
fn traffic_counts_what_a_worker_has_not_finished() {
    in_a_world(|world| {
        let workers = world.group_of(GROUP, 2, SILENT, "0.0.0.0", 8080);
        world.publish(GROUP, &[1, 2]);

        let mut connections: Vec<_> =
            (0..6).map(|_| TcpStream::connect("127.0.0.1:8080").unwrap()).collect();
        let mut traffic = Traffic::default();
        wait_until("all are accepted", || {
            traffic = world.kernel.traffic(workers[0]).unwrap();
            traffic.queued == 0
        });
        assert_eq!(traffic, Traffic { established: 3, received: Some(3), ..Traffic::default() });

        connections.truncate(2);
        for worker in workers {
            wait_until("the others are closed", || {
                world.kernel.traffic(worker).unwrap().established == 1
            });
        }
    });
}

#[test]
fn traffic_counts_queued_connections_and_none_the_worker_made_itself() {
    in_a_world(|world| {
        let lazy = "import socket, time\ns = socket.socket(); s.bind(('0.0.0.0', 8080)); s.listen()\nc = socket.create_connection(('127.0.0.1', 9000)); time.sleep(60)";
        let elsewhere = std::net::TcpListener::bind("127.0.0.1:9000").unwrap();
        let worker = world.spawn(lazy, &[]);
        let socket = world.listening();
        world.open(GROUP, &socket);
        world.kernel.join(socket.ticket, GROUP, slot(1)).unwrap();
        world.publish(GROUP, &[1]);
        let _outgoing = elsewhere.accept().unwrap();
        let _waiting = TcpStream::connect("127.0.0.1:8080").unwrap();
        let expected =
            Traffic { queued: 1, established: 1, received: Some(1), ..Traffic::default() };

        // A client is connected before the last segment of its handshake is at the worker.
        wait_until("it is queued", || world.kernel.traffic(worker).unwrap().queued == 1);

        assert_eq!(world.kernel.traffic(worker).unwrap(), expected);
    });
}

#[test]
fn decisions_of_a_traced_group_are_written_down() {
    in_a_world(|world| {
        world.spawn(TCP, &["0.0.0.0", "8080", "1"]);
        let socket = world.listening();
        let app = format!("traced-{}", std::process::id());
        let options = GroupOptions { app: app.clone(), trace: true };
        world.kernel.open(GROUP, socket.ticket, &options).unwrap();
        world.kernel.join(socket.ticket, GROUP, slot(1)).unwrap();
        world.publish(GROUP, &[1]);

        ask("127.0.0.1:8080").unwrap();
        world.run_for(Duration::from_millis(50));

        let file = std::env::temp_dir().join(format!("{app}-trace.log"));
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert!(text.contains("syn chosen slot=1"), "{text}");
    });
}

fn timed(act: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    act();
    begin.elapsed()
}

#[test]
fn a_worker_is_found_although_its_event_was_lost() {
    in_a_world(|world| {
        // More binds than the ring buffer has room for, while nobody reads it.
        let restless = "import socket
for n in range(1500):
    s = socket.socket(); s.bind(('127.0.0.1', 10000 + n)); s.close()
private = socket.socket(); private.listen()
";
        let worker = world.spawn(&format!("{restless}{TCP}"), &["0.0.0.0", "8080", "1"]);
        wait_until("it listens", || !diag::listeners(Protocol::Tcp, 8080).unwrap().is_empty());

        let socket = world.listening();

        assert_eq!((socket.worker, socket.key.address.port()), (worker, 8080));
    });
}
