//! Flows of datagrams: they stay with their worker across a reload, and it is known when they have ended.

use std::{
    net::{Ipv4Addr, UdpSocket},
    time::{Duration, Instant},
};

use super::world::{PATIENCE, UDP, World, in_a_world, wait_until};
use crate::{
    config::scheduling::{Policy, Scheduling, Sticky},
    datapath::DataPath as _,
    id::{GroupId, WorkerId},
};

const GROUP: GroupId = GroupId(0);
const ADDRESS: &str = "127.0.0.1:8080";

#[test]
fn a_flow_stays_with_a_worker_that_no_route_names_any_more() {
    with_sticky(Sticky::default(), |world, workers| {
        let flows: Vec<_> = (1..=40).map(Flow::new).collect();
        let before: Vec<_> = flows.iter().map(|flow| flow.ask(b"x")).collect();
        assert!(before.iter().any(|label| label == "1"), "{before:?}");

        world.publish(GROUP, &[2, 3]);

        for _ in 0..3 {
            let after: Vec<_> = flows.iter().map(|flow| flow.ask(b"x")).collect();
            assert_eq!(after, before);
        }
        for client in 41..=80 {
            assert_ne!(Flow::new(client).ask(b"x"), "1", "a new one is not for who leaves");
        }
        world.kernel.drain(workers[0]).unwrap();
        world.kill(workers[0]);
        for (flow, before) in flows.iter().zip(&before) {
            let after = flow.ask(b"x");
            assert!(after == *before || before == "1" && after != "1", "{before} {after}");
        }
    });
}

#[test]
fn a_quic_connection_stays_with_its_worker_when_its_port_changes_during_a_reload() {
    with_sticky(Sticky { quic: Some(8), ..Sticky::default() }, |world, _| {
        let mut stayed = 0;
        for client in 1..=20 {
            let id = [client; 8];
            let flow = Flow::new(client);
            // The id is the server's choice: it is known by the packets after the first one.
            let worker = flow.ask(&long(id));
            assert_eq!(flow.ask(&short(id)), worker);
            world.publish(GROUP, &[2, 3]);
            stayed += u32::from(worker == "1");
            for _ in 0..3 {
                // A translator gives it another port, and another address for good measure.
                let moved = Flow::new(client + 100);
                assert_eq!(moved.ask(&short(id)), worker);
                assert_eq!(moved.ask(&short(id)), worker);
            }
            world.publish(GROUP, &[1, 2, 3]);
        }
        assert!(stayed > 0, "some were on the worker that left");
    });
}

#[test]
fn a_worker_that_drains_has_flows_until_nothing_comes_any_more() {
    with_sticky(Sticky::default(), |world, workers| {
        let flow = (1..=100).map(Flow::new).find(|flow| flow.ask(b"x") == "1").unwrap();
        world.publish(GROUP, &[2, 3]);
        let drain = |world: &mut World| world.kernel.drain(workers[0]).unwrap().flows;
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(3) {
            assert_eq!(flow.ask(b"x"), "1");
            assert!(drain(world), "it still sends, after {:?}", began.elapsed());
            std::thread::sleep(Duration::from_millis(50));
        }
        let silent = Instant::now();
        wait_until("nothing comes any more", || !drain(world));
        assert!(silent.elapsed() > Duration::from_millis(1900), "{:?}", silent.elapsed());
    });
}

#[test]
fn who_got_no_datagram_or_need_not_keep_its_flows_waits_for_none() {
    with_sticky(Sticky::default(), |world, workers| {
        assert!(!world.kernel.drain(workers[2]).unwrap().flows, "nothing ever came");
        world.kernel.schedule(GROUP, &Scheduling::default()).unwrap();
        (1..=6).for_each(|client| drop(Flow::new(client).ask(b"x")));
        assert!(!world.kernel.drain(workers[0]).unwrap().flows, "the next one goes elsewhere");
    });
}

fn with_sticky(sticky: Sticky, test: impl FnOnce(&mut World, &[WorkerId]) + Send + 'static) {
    in_a_world(move |world| {
        let workers = world.group_of(GROUP, 3, UDP, "0.0.0.0", 8080);
        let rule = Scheduling { policy: Policy::Sticky(sticky), ..Scheduling::default() };
        world.kernel.schedule(GROUP, &rule).unwrap();
        world.publish(GROUP, &[1, 2, 3]);
        test(world, &workers);
    });
}

/// A client.
struct Flow(UdpSocket);

impl Flow {
    /// One with an address of its own, and any port.
    fn new(client: u8) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 1, client), 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect(ADDRESS).unwrap();
        Self(socket)
    }

    /// Who answers.
    fn ask(&self, datagram: &[u8]) -> String {
        self.0.send(datagram).unwrap();
        let mut answer = [0; 16];
        let length = self.0.recv(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    }
}

/// As much of a packet with a long header as is looked at (RFC 9000, section 17.2).
fn long(id: [u8; 8]) -> Vec<u8> {
    [&[0xc0, 0, 0, 0, 1, 8][..], &id, &[0; 30]].concat()
}

/// The same with a short header (RFC 9000, section 17.3).
fn short(id: [u8; 8]) -> Vec<u8> {
    [&[0x40][..], &id, &[0; 30]].concat()
}
