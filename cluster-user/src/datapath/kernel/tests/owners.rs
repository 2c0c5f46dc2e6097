//! Whose port it is: an app's sockets share a port among themselves, and with no other app.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::world::{TCP, UDP, World, ask, in_a_world, slot};
use crate::{
    datapath::{DataPath as _, Report},
    id::{AppId, GroupId},
};

const FIRST: GroupId = GroupId(0);
const SECOND: GroupId = GroupId(1);

/// Tries to bind, by every means there is, and listens on port 9000 plus the error's number: 9098 is `EADDRINUSE`.
const TRIES: &str = "
import socket, sys, time
host, port, kind = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
family = socket.AF_INET6 if ':' in host else socket.AF_INET
s = socket.socket(family, kind)
if kind == socket.SOCK_STREAM: s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
if family == socket.AF_INET6: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
error = 0
try: s.bind((host, port))
except OSError as e: error = e.errno
told = socket.socket(); told.bind(('127.0.0.1', 9000 + error)); told.listen()
time.sleep(60)
";

#[test]
fn another_app_gets_eaddrinuse_and_takes_no_connection() {
    in_a_world(|world| {
        world.group_of(FIRST, 2, TCP, "0.0.0.0", 8080);
        world.publish(FIRST, &[1, 2]);
        let done = Arc::new(AtomicBool::new(false));
        // Threads inherit the network namespace.
        let clients = [(); 2].map(|()| {
            let done = Arc::clone(&done);
            thread::spawn(move || {
                let mut served = 0;
                while !done.load(Ordering::Relaxed) {
                    let said = ask("127.0.0.1:8080").expect("no connection is lost");
                    assert!(said == "1" || said == "2", "{said:?}");
                    served += 1;
                }
                served
            })
        });

        world.app = AppId(1);
        for host in ["127.0.0.1", "0.0.0.0", "::", "::ffff:127.0.0.1"] {
            assert_eq!(tried(world, host, 8080, "1"), libc::EADDRINUSE, "{host}");
        }

        done.store(true, Ordering::Relaxed);
        let served: u32 = clients.into_iter().map(|client| client.join().unwrap()).sum();
        assert!(served > 0);
    });
}

#[test]
fn an_address_that_is_in_nobodys_way_is_shared() {
    in_a_world(|world| {
        world.group_of(FIRST, 1, TCP, "127.0.0.1", 8080);
        world.publish(FIRST, &[1]);

        world.app = AppId(1);
        world.group_of(SECOND, 2, TCP, "127.0.0.2", 8080);
        world.publish(SECOND, &[1, 2]);

        assert_eq!(ask("127.0.0.2:8080").unwrap(), "1");
        assert_eq!(ask("127.0.0.2:8080").unwrap(), "2");
        assert_eq!(tried(world, "127.0.0.1", 8080, "1"), libc::EADDRINUSE);
        world.app = AppId(0);
        assert_eq!(tried(world, "0.0.0.0", 8080, "1"), libc::EADDRINUSE, "not even the first");
    });
}

#[test]
fn an_app_may_overlap_itself() {
    in_a_world(|world| {
        for (group, host) in [(0, "0.0.0.0"), (1, "127.0.0.1"), (2, "::1"), (3, "::ffff:127.0.0.2")]
        {
            world.group_of(GroupId(group), 2, TCP, host, 8080);
            world.publish(GroupId(group), &[1, 2]);
        }
        assert_eq!(ask("127.0.0.1:8080").unwrap(), "1");
        assert_eq!(ask("[::1]:8080").unwrap(), "1");
    });
}

#[test]
fn a_worker_may_have_two_sockets_on_one_port() {
    in_a_world(|world| {
        let twice = format!(
            "import socket\nother = socket.socket(); other.bind(('127.0.0.2', 8080)); other.listen()\n{TCP}"
        );
        for number in [1, 2] {
            world.spawn(&twice, &["127.0.0.1", "8080", &number.to_string()]);
            for _ in 0..2 {
                let socket = world.listening();
                let group = GroupId(u32::from(socket.key.address.ip().to_string() == "127.0.0.2"));
                if number == 1 {
                    world.open(group, &socket);
                }
                world.kernel.join(socket.ticket, group, slot(number)).unwrap();
            }
        }
        world.publish(FIRST, &[1, 2]);
        assert_eq!((ask("127.0.0.1:8080").unwrap(), ask("127.0.0.1:8080").unwrap()), both());
    });
}

#[test]
fn tcp_and_udp_on_one_port_may_be_of_two_apps() {
    in_a_world(|world| {
        world.group_of(FIRST, 1, TCP, "0.0.0.0", 5353);
        world.app = AppId(1);
        world.group_of(SECOND, 2, UDP, "0.0.0.0", 5353);

        assert_eq!(tried(world, "0.0.0.0", 5353, "1"), libc::EADDRINUSE);
        world.app = AppId(0);
        assert_eq!(tried(world, "127.0.0.1", 5353, "2"), libc::EADDRINUSE);
    });
}

#[test]
fn datagram_sockets_that_reuse_their_address_are_seen_at_least() {
    in_a_world(|world| {
        let reuse = UDP
            .replace("s.bind(", "s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(");
        world.group_of(FIRST, 1, &reuse, "0.0.0.0", 5353);
        world.app = AppId(1);

        let worker = world.spawn(&reuse, &["127.0.0.1", "5353", "1"]);

        // The kernel allows it with or without us.
        let socket = world.listening();
        assert_eq!(socket.worker, worker);
        world.kernel.refuse(socket.ticket);
    });
}

#[test]
fn a_port_is_anybodys_when_its_app_has_closed_it() {
    in_a_world(|world| {
        let workers = world.group_of(FIRST, 1, TCP, "0.0.0.0", 8080);
        world.group_of(GroupId(7), 1, TCP, "::1", 8080);
        world.kill(workers[0]);
        world.kernel.close(FIRST);
        world.app = AppId(1);
        assert_eq!(tried(world, "::1", 8080, "1"), libc::EADDRINUSE, "the app has that still");

        world.group_of(SECOND, 2, TCP, "0.0.0.0", 8080);
        world.publish(SECOND, &[1, 2]);
        assert_eq!((ask("127.0.0.1:8080").unwrap(), ask("127.0.0.1:8080").unwrap()), both());
    });
}

#[test]
fn an_app_whose_cgroup_was_made_anew_keeps_its_port() {
    in_a_world(|world| {
        let workers = world.group_of(FIRST, 1, TCP, "0.0.0.0", 8080);
        world.publish(FIRST, &[1]);
        world.kill(workers[0]);
        world.kernel.dismiss(workers[0]);
        world.remove_app();

        world.spawn(TCP, &["0.0.0.0", "8080", "2"]);
        let socket = world.listening();
        world.kernel.join(socket.ticket, FIRST, slot(2)).unwrap();
        world.publish(FIRST, &[2]);
        assert_eq!(ask("127.0.0.1:8080").unwrap(), "2");
    });
}

/// The error that a worker gets when it binds; it is reported, and ended.
fn tried(world: &mut World, host: &str, port: u16, kind: &str) -> i32 {
    let worker = world.spawn(TRIES, &[host, &port.to_string(), kind]);
    let first = world.report();
    assert!(
        matches!(&first, Report::Binding { worker: of, address, .. } if *of == worker && address.port() == port),
        "{first:?}"
    );
    let told = world.listening();
    assert_eq!(told.worker, worker);
    world.kernel.refuse(told.ticket);
    world.kill(worker);
    world.run_for(Duration::from_millis(1));
    i32::from(told.key.address.port() - 9000)
}

fn both() -> (String, String) {
    ("1".to_owned(), "2".to_owned())
}
