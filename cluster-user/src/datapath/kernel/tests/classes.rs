//! Classes: clients of a kind and their workers, whatever else happens.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};

use super::{
    adopting::key,
    world::{PATIENCE, TCP, UDP, World, answer, in_a_world, slot, step_back, turns, wait_until},
};
use crate::{
    config::scheduling::{Guard, Policy, Scheduling},
    datapath::{DataPath as _, GroupOptions},
    id::{GroupId, WorkerId},
};

const GROUP: GroupId = GroupId(0);
const ADDRESS: &str = "127.0.0.1:8080";

/// What a client says and whence.
#[derive(Clone, Copy, Debug)]
struct Client {
    from: &'static str,
    mark: u32,
    says: &'static [u8],
}

impl Client {
    const fn at(from: &'static str) -> Self {
        Self { from, mark: 0, says: b"" }
    }

    /// The label of whoever answers it.
    fn ask(self, to: &str) -> std::io::Result<String> {
        answer(self.connect(to)?)
    }

    fn connect(self, to: &str) -> std::io::Result<TcpStream> {
        let socket = self.socket(Type::STREAM);
        let to: SocketAddr = to.parse().unwrap();
        if self.says.is_empty() {
            socket.connect(&to.into())?;
        } else {
            socket.send_to_with_flags(self.says, &to.into(), libc::MSG_FASTOPEN)?;
        }
        Ok(socket.into())
    }

    fn ask_udp(self, to: &str) -> std::io::Result<String> {
        let socket: std::net::UdpSocket = self.socket(Type::DGRAM).into();
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(to)?;
        socket.send(self.says)?;
        let mut buffer = [0; 100];
        let length = socket.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    fn socket(self, kind: Type) -> Socket {
        let from = SocketAddr::new(self.from.parse().unwrap(), 0);
        let socket = Socket::new(Domain::for_address(from), kind, None).unwrap();
        if from.is_ipv4() {
            socket.set_tos_v4(self.mark << 2).unwrap();
        } else {
            socket.set_tclass_v6(self.mark << 2).unwrap();
        }
        socket.bind(&from.into()).unwrap();
        socket
    }
}

fn class(rules: &str) -> Scheduling {
    let policy: Policy = format!("class {rules}").parse().unwrap();
    Scheduling { policy, guard: Guard::OFF, ..Scheduling::default() }
}

/// A group of TCP servers whose labels are 1, 2, …: one more than their numbers.
fn with_workers(
    count: u16,
    rules: &'static str,
    then: impl FnOnce(&mut World, &[WorkerId]) + Send + 'static,
) {
    in_a_world(move |world| {
        let workers = world.group_of(GROUP, count, TCP, "0.0.0.0", 8080);
        world.kernel.schedule(GROUP, &class(rules)).unwrap();
        world.publish(GROUP, &(1..=count).collect::<Vec<_>>());
        then(world, &workers);
    });
}

/// How often each worker answers in so many connections.
#[track_caller]
fn tally(client: Client, count: usize) -> BTreeMap<String, usize> {
    let mut answers = BTreeMap::new();
    for _ in 0..count {
        *answers.entry(client.ask(ADDRESS).unwrap()).or_default() += 1;
    }
    answers
}

#[track_caller]
fn assert_reaches(from: &'static str, workers: &[(&str, usize)]) {
    let expected = workers.iter().map(|(label, count)| ((*label).to_owned(), *count)).collect();
    let count = workers.iter().map(|(_, count)| count).sum();
    assert_eq!(tally(Client::at(from), count), expected, "{from}");
}

#[test]
fn clients_of_a_network_reach_its_workers_in_turn_and_the_rest_the_others() {
    with_workers(4, "127.1.0.0/16=0-1 127.2.0.0/16=2 *=3", |world, _| {
        for _ in 0..3 {
            assert_reaches("127.1.2.3", &[("1", 10), ("2", 10)]);
            assert_reaches("127.2.2.3", &[("3", 5)]);
            assert_reaches("127.0.0.1", &[("4", 5)]);
            // The order of a route, and how often it is published, change nothing.
            world.publish(GROUP, &[4, 3, 2, 1]);
        }
        // A worker of the first class with three turns out of four, as new ones have while they are tried.
        world.publish(GROUP, &[1, 1, 2, 1, 3, 4]);
        assert_reaches("127.1.2.3", &[("1", 30), ("2", 10)]);
    });
}

#[test]
fn whom_no_class_fits_comes_to_all_workers_in_turn() {
    with_workers(3, "127.1.0.0/16=0", |_, _| {
        assert_reaches("127.0.0.1", &[("1", 10), ("2", 10), ("3", 10)]);
        assert_reaches("127.1.0.1", &[("1", 10)]);
    });
}

#[test]
fn the_first_class_that_fits_is_the_one_however_long_the_others_prefix_is() {
    with_workers(3, "127.1.2.0/24=0 127.1.0.0/16,127.1.2.3=1 127.1.3.3=2", |world, _| {
        assert_reaches("127.1.2.3", &[("1", 3)]);
        assert_reaches("127.1.3.3", &[("2", 3)]);
        world.kernel.schedule(GROUP, &class("127.1.3.3=2 127.1.0.0/16=1 127.1.2.0/24=0")).unwrap();
        assert_reaches("127.1.2.3", &[("2", 3)]);
        assert_reaches("127.1.3.3", &[("3", 3)]);
    });
}

#[test]
fn marks_are_seen_in_both_families_and_a_network_of_one_family_is_not_of_the_other() {
    in_a_world(|world| {
        world.group_of(GROUP, 4, TCP, "::", 8080);
        let rules = "dscp:46=0 ::/0=1 127.1.0.0/16=2 ::ffff:127.2.0.0/112=3";
        world.kernel.schedule(GROUP, &class(rules)).unwrap();
        world.publish(GROUP, &[1, 2, 3, 4]);
        let ask = |from, mark, to| Client { from, mark, says: b"" }.ask(to).unwrap();
        for _ in 0..5 {
            assert_eq!(ask("127.1.0.1", 46, ADDRESS), "1");
            assert_eq!(ask("::1", 46, "[::1]:8080"), "1");
            assert_eq!(ask("127.1.0.1", 45, ADDRESS), "3");
            assert_eq!(ask("::1", 45, "[::1]:8080"), "2");
            assert_eq!(ask("127.2.0.1", 0, ADDRESS), "4");
        }
        let others: BTreeSet<_> = (0..4).map(|_| ask("127.0.0.1", 0, ADDRESS)).collect();
        assert_eq!(others.len(), 4, "{others:?}");
    });
}

#[test]
fn datagrams_are_told_by_their_first_bytes() {
    in_a_world(|world| {
        world.group_of(GROUP, 4, UDP, "0.0.0.0", 5353);
        let rules =
            "bytes:474554=0 bytes:47=1 dscp:10,bytes:000102030405060708090a0b0c0d0e0f=2 *=3";
        world.kernel.schedule(GROUP, &class(rules)).unwrap();
        world.publish(GROUP, &[1, 2, 3, 4]);
        let long: &[u8] =
            b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f and more";
        for (says, mark, expected) in [
            (&b"GET / and so on, for some time"[..], 0, "1"),
            (b"GET", 0, "1"),
            (b"GE", 0, "2"),
            (b"G", 0, "2"),
            (b"POST", 0, "4"),
            (long, 0, "3"),
            (&long[..16], 0, "3"),
            (&long[..15], 0, "4"),
            (b"POST", 10, "3"),
            (b"GET", 10, "1"),
            (b"", 0, "4"),
        ] {
            let client = Client { from: "127.0.0.1", mark, says };
            assert_eq!(client.ask_udp("127.0.0.1:5353").unwrap(), expected, "{client:?}");
        }
    });
}

#[test]
fn what_a_syn_carries_is_seen_as_well() {
    in_a_world(|world| {
        // Clients send with the SYN, servers take it, without a cookie, on every listener.
        fs::write("/proc/sys/net/ipv4/tcp_fastopen", "1543").unwrap();
        // What was not read when a connection is closed resets it.
        let reading = TCP.replace("    try: c", "    c.recv(100)\n    try: c");
        world.group_of(GROUP, 3, &reading, "0.0.0.0", 8080);
        world.kernel.schedule(GROUP, &class("bytes:474554=0 *=1-2")).unwrap();
        world.publish(GROUP, &[1, 2, 3]);
        for says in
            [&b"GET / HTTP/1.1\r\n"[..], b"GET", b"GET / and as much as does not fit into a line"]
        {
            let client = Client { from: "127.0.0.1", mark: 0, says };
            assert_eq!(client.ask(ADDRESS).unwrap(), "1");
        }
        let other = Client { from: "127.0.0.1", mark: 0, says: b"POST" };
        assert_ne!(other.ask(ADDRESS).unwrap(), "1");
    });
}

#[test]
fn under_syn_cookies_classes_are_the_same() {
    with_workers(4, "127.1.0.0/16=0-1 *=2-3", |_, _| {
        fs::write("/proc/sys/net/ipv4/tcp_syncookies", "2").unwrap();
        assert_reaches("127.1.0.1", &[("1", 10), ("2", 10)]);
        assert_reaches("127.0.0.1", &[("3", 10), ("4", 10)]);
    });
}

#[test]
fn every_rule_inside_of_a_class_picks_among_its_workers() {
    with_workers(4, "*=0-2", |world, workers| {
        for inner in ["round-robin", "least-conn", "random", "hash"] {
            world.kernel.schedule(GROUP, &class(&format!("127.1.0.0/16=0-2:{inner} *=3"))).unwrap();
            let answers = tally(Client::at("127.1.0.1"), 60);
            assert_eq!(answers.len(), 3, "{inner}: {answers:?}");
            assert!(!answers.contains_key("4"), "{inner}: {answers:?}");
            assert_reaches("127.0.0.1", &[("4", 5)]);
        }
        world.kernel.schedule(GROUP, &class("127.1.0.0/16=0-2:least-conn *=3")).unwrap();
        for worker in workers {
            world.signal(*worker, Signal::SIGSTOP);
        }
        let held = hold(Client::at("127.1.0.1"), 30);
        assert_eq!(live(world, workers), [10, 10, 10, 0]);
        drop(held);
        // Those of a class without workers rotate all the same.
        let others = hold(Client::at("127.0.0.1"), 5);
        assert_eq!(live(world, workers), [10, 10, 10, 5]);
        drop(others);
    });
}

#[test]
fn a_dead_worker_is_missed_by_its_class_only() {
    with_workers(4, "127.1.0.0/16=0-2 *=3", |world, workers| {
        world.kill(workers[0]);
        let answers = tally(Client::at("127.1.0.1"), 30);
        assert_eq!(answers.keys().collect::<Vec<_>>(), ["2", "3"], "{answers:?}");
        assert_reaches("127.0.0.1", &[("4", 5)]);
        world.publish(GROUP, &[2, 3, 4]);
        assert_reaches("127.1.0.1", &[("2", 10), ("3", 10)]);
    });
}

#[test]
fn when_all_workers_of_a_class_are_gone_its_clients_reach_the_others() {
    with_workers(4, "127.1.0.0/16=0-1 *=2-3", |world, workers| {
        world.kill(workers[0]);
        world.kill(workers[1]);
        // Before the supervisor knows.
        let answers = tally(Client::at("127.1.0.1"), 20);
        assert_eq!(answers.keys().collect::<Vec<_>>(), ["3", "4"], "{answers:?}");
        for gone in [1, 2] {
            world.kernel.vacate(GROUP, slot(gone));
        }
        world.publish(GROUP, &[3, 4]);
        assert_reaches("127.1.0.1", &[("3", 10), ("4", 10)]);

        world.succeeds = Some(1);
        world.spawn(TCP, &["0.0.0.0", "8080", "new"]);
        let socket = world.listening();
        world.kernel.join(socket.ticket, GROUP, slot(5)).unwrap();
        world.publish(GROUP, &[3, 4, 5]);
        assert_reaches("127.1.0.1", &[("new", 10)]);
        assert_reaches("127.0.0.1", &[("3", 5), ("4", 5)]);
    });
}

#[test]
fn datagrams_of_a_class_without_workers_reach_the_others_at_once() {
    in_a_world(|world| {
        let workers = world.group_of(GROUP, 3, UDP, "0.0.0.0", 5353);
        world.kernel.schedule(GROUP, &class("bytes:47=0 *=1-2")).unwrap();
        world.publish(GROUP, &[1, 2, 3]);
        let client = Client { from: "127.0.0.1", mark: 0, says: b"GET" };
        assert_eq!(client.ask_udp("127.0.0.1:5353").unwrap(), "1");
        world.kill(workers[0]);
        for _ in 0..10 {
            assert_ne!(client.ask_udp("127.0.0.1:5353").unwrap(), "1");
        }
    });
}

#[test]
fn what_moves_stays_in_the_class_of_its_address() {
    for (host, from, to) in [
        ("0.0.0.0", "127.1.0.1", ADDRESS),
        ("::", "127.1.0.1", ADDRESS),
        ("::", "::1", "[::1]:8080"),
    ] {
        in_a_world(move |world| {
            let workers = world.group_of(GROUP, 4, TCP, host, 8080);
            world.kernel.schedule(GROUP, &class("127.1.0.0/16,::1=0-1 *=2-3")).unwrap();
            world.publish(GROUP, &[1, 2, 3, 4]);
            for worker in &workers {
                world.signal(*worker, Signal::SIGSTOP);
            }
            let held: Vec<_> = (0..10).map(|_| Client::at(from).connect(to).unwrap()).collect();
            assert_eq!(live(world, &workers), [5, 5, 0, 0]);
            world.kill(workers[0]);
            wait_until("they have moved", || live(world, &workers[1..]) == [10, 0, 0]);
            world.signal(workers[1], Signal::SIGCONT);
            for connection in held {
                assert_eq!(answer(connection).unwrap(), "2");
            }
        });
    }
}

#[test]
fn the_guard_spares_a_worker_for_others_of_its_class_and_sends_nobody_elsewhere() {
    with_workers(4, "*=0", |world, workers| {
        let guarded = Scheduling { guard: Guard::default(), ..class("127.1.0.0/16=0-1 *=2-3") };
        world.kernel.schedule(GROUP, &guarded).unwrap();
        world.signal(workers[0], Signal::SIGSTOP);
        let mut held = Vec::new();
        for _ in 0..100 {
            thread::sleep(Duration::from_millis(1));
            held.push(Client::at("127.1.0.1").connect(ADDRESS).unwrap());
        }
        let given = [1, 2, 3, 4].map(|at| world.kernel.counters(GROUP, slot(at)).selected);
        assert!(given[0] < 50 && given[0] + given[1] == 100, "{given:?}");
        assert_eq!(given[2..], [0, 0]);

        world.signal(workers[1], Signal::SIGSTOP);
        for _ in 0..50 {
            thread::sleep(Duration::from_millis(1));
            held.push(Client::at("127.1.0.1").connect(ADDRESS).unwrap());
        }
        let given = [1, 2, 3, 4].map(|at| world.kernel.counters(GROUP, slot(at)).selected);
        assert_eq!((given[0] + given[1], given[2], given[3]), (150, 0, 0));
    });
}

#[test]
fn a_class_that_has_enough_is_refused_and_others_are_not() {
    with_workers(2, "*=0", |world, workers| {
        let shed = Scheduling { shed: Some(5), ..class("127.1.0.0/16=0 *=1") };
        world.kernel.schedule(GROUP, &shed).unwrap();
        for worker in workers {
            world.signal(*worker, Signal::SIGSTOP);
        }
        let held = hold(Client::at("127.1.0.1"), 5);
        let refused = Client::at("127.1.0.1").connect(ADDRESS).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        assert_eq!(hold(Client::at("127.0.0.1"), 5).len(), 5);
        drop(held);
    });
}

/// Each rule of the switches gives the clients of a class some of these, and never number 3, which is nobody's.
#[test]
fn classes_hold_in_every_moment_of_a_switch_and_of_publications() {
    with_workers(4, "127.1.0.0/16=0-1 127.2.0.0/16=2 *=0-2", |world, _| {
        let over = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = ["127.1.0.1", "127.2.0.1"]
            .map(|from| {
                let over = Arc::clone(&over);
                // Threads inherit the network namespace.
                thread::spawn(move || {
                    step_back();
                    let mut answers = BTreeMap::<_, u32>::new();
                    while !over.load(Ordering::Relaxed) {
                        let label = Client::at(from).ask(ADDRESS).expect("no connection is lost");
                        *answers.entry(label).or_default() += 1;
                    }
                    answers
                })
            })
            .into();
        for round in turns(6, 30) {
            let rules = [
                // Whoever has these has the numbers of classes in another order.
                "127.2.0.0/16=2 127.9.0.0/16=3 127.1.0.0/16=0-1",
                "127.9.0.0/16=3 dscp:1=3 127.1.0.0/16=0-1:least-conn *=2",
                "127.1.0.0/16=0-1 127.2.0.0/16=2 *=3",
            ];
            world.kernel.schedule(GROUP, &class(rules[round % rules.len()])).unwrap();
            for route in [[1, 2, 3, 4], [4, 2, 3, 1], [3, 4, 1, 2]] {
                world.publish(GROUP, &route);
            }
        }
        over.store(true, Ordering::Relaxed);
        let answers: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        println!("{answers:?}");
        assert_eq!(answers[0].keys().collect::<Vec<_>>(), ["1", "2"], "{answers:?}");
        assert_eq!(answers[1].keys().collect::<Vec<_>>(), ["3"], "{answers:?}");
    });
}

#[test]
fn any_other_policy_takes_over_and_back_without_losing_a_connection() {
    with_workers(3, "127.1.0.0/16=0 *=1-2", |world, _| {
        for other in ["least-conn", "none", "sticky"] {
            let policy: Policy = other.parse().unwrap();
            let scheduling = Scheduling { policy, ..class("*=0") };
            world.kernel.schedule(GROUP, &scheduling).unwrap();
            assert_eq!(tally(Client::at("127.1.0.1"), 20).values().sum::<usize>(), 20, "{other}");
            world.kernel.schedule(GROUP, &class("127.1.0.0/16=0 *=1-2")).unwrap();
            assert_reaches("127.1.0.1", &[("1", 5)]);
            assert_reaches("127.0.0.1", &[("2", 5), ("3", 5)]);
        }
    });
}

#[test]
fn the_next_daemon_keeps_classes_before_it_is_told_of_them_and_after() {
    in_a_world(|world| {
        let rules = "127.1.0.0/16=0-1 *=2:hash";
        let record = world.killed_after(|world| {
            world.group_of(GROUP, 3, TCP, "0.0.0.0", 8080);
            world.kernel.schedule(GROUP, &class(rules)).unwrap();
            world.publish(GROUP, &[1, 2, 3]);
            world.kernel.record(GROUP).unwrap()
        });
        let check = || {
            assert_reaches("127.1.0.1", &[("1", 10), ("2", 10)]);
            assert_reaches("127.0.0.1", &[("3", 5)]);
        };
        check();
        world.succeed();
        let options = GroupOptions { app: "test".to_owned(), trace: false };
        world.kernel.adopt(GROUP, &key(8080), &record, &options).unwrap();
        world.kernel.settle();
        check();
        // Routes come before rules.
        world.publish(GROUP, &[3, 1, 2]);
        check();
        world.publish(GROUP, &[3, 1]);
        assert_reaches("127.1.0.1", &[("1", 10)]);
        world.publish(GROUP, &[1, 2, 3]);
        world.kernel.schedule(GROUP, &class(rules)).unwrap();
        check();
    });
}

#[test]
fn more_rules_than_fit_are_refused_and_change_nothing() {
    with_workers(3, "127.1.0.0/16=0 *=1-2", |world, _| {
        let each = |nth: usize| format!("10.{}.{}.0/24", nth / 256, nth % 256);
        let many = |count: usize| {
            (0..count).map(|nth| format!("{}=0", each(nth))).collect::<Vec<_>>().join(" ")
        };
        let networks = (0..1025).map(each).collect::<Vec<_>>().join(",");
        for (rules, expected) in [
            (many(32), "policy class has 32 rules, and 31 are possible"),
            (format!("{networks}=0"), "has 1025 networks, marks and bytes, and 1023 are possible"),
            (
                "*=0-1023 ".replace("*=", "10.0.0.0/8=").repeat(3),
                "3072 workers in its rules, and 2048",
            ),
        ] {
            let error = world.kernel.schedule(GROUP, &class(&rules)).unwrap_err();
            assert!(format!("{error:#}").contains(expected), "{error:#}");
            assert_reaches("127.1.0.1", &[("1", 5)]);
        }
        world.kernel.schedule(GROUP, &class(&format!("{} 127.1.0.0/16=2", many(30)))).unwrap();
        assert_reaches("127.1.0.1", &[("3", 5)]);
    });
}

/// Connects without asking anything, as often as is said.
fn hold(client: Client, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| client.connect(ADDRESS).unwrap()).collect()
}

/// How many connections each worker has.
fn live(world: &mut World, workers: &[WorkerId]) -> Vec<u64> {
    let telemetry = world.kernel.telemetry().unwrap();
    workers.iter().map(|worker| telemetry[worker].live.unwrap()).collect()
}
