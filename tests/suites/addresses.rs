//! Every address an app listens on is balanced: IPv4, IPv6, both at once, several ports, UDP.

use std::{collections::BTreeMap, net::UdpSocket, time::Duration};

use cluster_tests::{
    built::fixture,
    host::{Host, signal},
    http::{self, get, local, local6},
    in_both_modes, wait,
};
use cluster_user::{
    api::message::AppView,
    datapath::{Mode, Protocol},
};
use nix::sys::signal::Signal;

in_both_modes!(
    ipv4_is_balanced,
    ipv6_is_balanced,
    dual_stack_is_balanced_for_both,
    every_port_is_balanced_and_listed,
    port_zero_is_private_to_its_worker,
    unix_sockets_are_left_alone,
    a_server_that_listens_again_is_back,
    datagrams_are_balanced,
);

fn ipv4_is_balanced(host: &Host) {
    start(host, "127.0.0.1:8080");
    host.assert_balanced(local(8080), 3);
}

fn ipv6_is_balanced(host: &Host) {
    start(host, "[::]:8080");
    host.assert_balanced(local6(8080), 3);
    assert!(http::try_get(local(8080)).is_err(), "an IPv6-only socket takes no IPv4");
}

fn dual_stack_is_balanced_for_both(host: &Host) {
    start(host, "dual:8080");
    host.assert_balanced(local(8080), 3);
    host.assert_balanced(local6(8080), 3);
}

fn every_port_is_balanced_and_listed(host: &Host) {
    start(host, "0.0.0.0:8080 0.0.0.0:8081 [::]:8082");
    host.assert_balanced(local(8080), 3);
    host.assert_balanced(local(8081), 3);
    host.assert_balanced(local6(8082), 3);

    let app = host.until("addresses", "serves three ports", |app| {
        app.ports.len() == 3 && app.ports.iter().all(|port| port.workers == 3)
    });
    assert_eq!(ports(&app), [(Protocol::Tcp, 8080), (Protocol::Tcp, 8081), (Protocol::Tcp, 8082)]);
    host.cluster(&["list"]).ok().says("8080").says("8081").says("8082");
}

fn port_zero_is_private_to_its_worker(host: &Host) {
    host.cluster(&["start", &fixture("private.py"), "-i", "3"]).ok();
    host.assert_balanced(local(8080), 3);

    let mut seen = BTreeMap::new();
    wait::until_true("each worker has told its own port", || {
        let answer = get(local(8080));
        let (port, who) = answer.split_once(' ').unwrap();
        seen.insert(who.to_owned(), port.parse::<u16>().unwrap());
        seen.len() == 3
    });
    for (who, port) in seen {
        let answers = http::tally(local(port), 5);
        assert_eq!(answers, BTreeMap::from([(who, 5)]), "port {port} is one worker's own");
    }
    assert_eq!(ports(&host.app("private")), [(Protocol::Tcp, 8080)]);
}

fn unix_sockets_are_left_alone(host: &Host) {
    host.cluster(&["start", &fixture("unix.py"), "-i", "2"]).ok();
    host.assert_balanced(local(8080), 2);
    for instance in 0..2 {
        let path = host.work().join(format!("worker-{instance}.sock"));
        let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
        assert_eq!(answer, "unix\n");
    }
}

fn a_server_that_listens_again_is_back(host: &Host) {
    host.cluster(&["start", &fixture("again.py"), "-i", "2"]).ok();
    host.assert_balanced(local(8080), 2);
    let pids = host.pids("again");

    signal(pids[0], Signal::SIGUSR1);
    let who = format!("pid {} ", pids[0]);
    wait::until_true("the worker that listens again is chosen again", || {
        // Until it has closed the first of its sockets, that one answers.
        let second = |answer: String| answer.starts_with(&who) && answer.trim().ends_with("time 2");
        http::try_get(local(8080)).is_ok_and(second)
    });
    host.assert_balanced(local(8080), 2);
    assert_eq!(host.pids("again"), pids, "nothing was restarted");
}

fn datagrams_are_balanced(host: &Host) {
    host.cluster(&["start", &fixture("udp.py"), "-i", "4"]).ok();

    let mut answers = BTreeMap::<String, u32>::new();
    let mut ask = || *answers.entry(datagram(8080)).or_default() += 1;
    match host.mode() {
        Mode::Kernel => {
            (0..40).for_each(|_| ask());
            assert_eq!(answers.values().copied().collect::<Vec<_>>(), [10; 4], "{answers:#?}");
        }
        Mode::Plain => {
            (0..200).for_each(|_| ask());
            assert_eq!(answers.len(), 4, "{answers:#?}");
        }
    }
    assert_eq!(ports(&host.app("udp")), [(Protocol::Udp, 8080)]);
}

#[test]
fn only_the_ports_asked_for_are_balanced() {
    let host = Host::kernel();
    let mut args = vec!["start", "--port", "8081", "--env", "LISTEN=0.0.0.0:8081 0.0.0.0:8082"];
    let script = fixture("addresses.py");
    args.extend([script.as_str(), "-i", "1"]);
    host.cluster(&args).ok();
    assert_eq!(ports(&host.app("addresses")), [(Protocol::Tcp, 8081)]);
    get(local(8082));
}

fn start(host: &Host, listen: &str) {
    let listen = format!("LISTEN={listen}");
    host.cluster(&["start", &fixture("addresses.py"), "-i", "3", "--env", &listen]).ok();
}

fn ports(app: &AppView) -> Vec<(Protocol, u16)> {
    let mut ports: Vec<_> =
        app.ports.iter().map(|port| (port.protocol, port.address.port())).collect();
    ports.sort_unstable();
    ports
}

/// Sends one datagram from a port of its own; who answered.
fn datagram(port: u16) -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket.send_to(b"ping", local(port)).unwrap();
    let mut buffer = [0; 256];
    let (length, _) = socket.recv_from(&mut buffer).unwrap();
    let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
    answer.strip_prefix("ping ").unwrap().to_owned()
}
