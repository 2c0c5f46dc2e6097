//! What draining does to connections, byte by byte.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener},
    time::{Duration, Instant},
};

use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    signal::Signal,
};

use super::{
    puppet::{
        ConcatLines as _, GROUP, OK, PUPPET, TOLD, Wire, drain, hang_up, hex, request, told,
        told_of, with_puppet, write, write_later,
    },
    world::{in_a_world, wait_until},
};
use crate::datapath::{DataPath as _, Traffic};

#[test]
fn the_next_response_of_an_idle_connection_tells_it_to_close() {
    with_puppet(|world, worker| {
        let mut wire = Wire::at_rest();
        drain(world, worker);
        wire.ask(&write(OK));
        wire.expect(TOLD);
        wire.ask(&write(OK));
        wire.expect(OK);
        wire.close();
        wait_until("nothing is left", || drain(world, worker).established == 0);
        assert_eq!(told(world), 1);
    });
}

#[test]
fn a_response_under_way_stays_as_it_is_whatever_its_body_looks_like() {
    with_puppet(|world, worker| {
        let mut wire = Wire::open();
        let begin = "HTTP/1.1 200 OK\r\nContent-Length: 80\r\n\r\n";
        // The worker waits for bytes of a body that the head does not announce, and goes on when they come.
        wire.ask(&[write(begin), "take 1".to_owned(), write(OK), write(OK)].concat_lines());
        wire.expect(begin);
        drain(world, worker);
        wire.send(b"x");
        wire.expect(&[OK, OK].concat());
        assert_eq!(told(world), 0);
    });
}

#[test]
fn a_connection_that_is_at_work_is_told_by_the_next_response_but_one() {
    with_puppet(|world, worker| {
        let mut wire = Wire::open();
        wire.send(b"POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\n");
        // It is busy before it has been accepted, too.
        wait_until("it is at work and seen", || {
            drain(world, worker).busy == 1 && world.kernel.drain.connections() == 1
        });
        let rest = format!("{:100}", write(OK));
        wire.send(rest.as_bytes());
        wire.expect(OK);
        wire.ask(&write(OK));
        wire.expect(OK);
        wire.ask(&write(OK));
        wire.expect(TOLD);

        let mut wire = Wire::at_rest();
        wire.send(b"POST / HTTP/1.1\r\nContent-Length: 93\r\n\r\n");
        world.signal(worker, Signal::SIGSTOP);
        wire.send(format!("{:93}", write(OK)).as_bytes());
        drain(world, worker);
        world.signal(worker, Signal::SIGCONT);
        wire.expect(OK);
        wire.ask(&write(OK));
        wire.expect(OK);
        wire.ask(&write(OK));
        wire.expect(TOLD);
    });
}

#[test]
fn a_response_in_several_writes_is_told_once() {
    with_puppet(|world, worker| {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 80\r\n\r\n";
        let mut wire = Wire::at_rest();
        drain(world, worker);
        wire.ask(&[write(head), write(OK), write(OK)].concat_lines());
        wire.expect(&told_of(&[head, OK, OK].concat()));
    });
}

#[test]
fn a_head_in_several_writes_is_told_if_its_first_line_is_whole() {
    with_puppet(|world, worker| {
        let mut wire = Wire::at_rest();
        drain(world, worker);
        wire.ask(
            &[write("HTTP/1.1 "), write("200 OK\r\nContent-Length: 2\r\n\r\nok")].concat_lines(),
        );
        wire.expect(OK);
        wire.ask(
            &[write("HTTP/1.1 200 OK\r"), write("\nContent-Length: 2\r\n\r\nok")].concat_lines(),
        );
        wire.expect(OK);
        wire.ask(
            &[write("HTTP/1.1 200 OK\r\n"), write("Content-Length: 2\r\n\r\nok")].concat_lines(),
        );
        wire.expect(TOLD);
    });
}

#[test]
fn responses_of_every_kind_are_told() {
    with_puppet(|world, worker| {
        for response in [
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\n\r\n",
            "HTTP/1.1 500 Internal Server Error\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: HTTP/1.1 200 OK\r\n\r\n",
        ] {
            let mut wire = Wire::at_rest();
            drain(world, worker);
            wire.ask(&write(response));
            wire.expect(&told_of(response));
        }
    });
}

#[test]
fn what_is_no_final_head_goes_out_as_it_is() {
    with_puppet(|world, worker| {
        for response in [
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n",
            "HTTP/1.1 2OO OK\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\n\n",
            "\u{16}\u{3}\u{3}",
            "HTTP/1.",
            "H",
        ] {
            let mut wire = Wire::at_rest();
            drain(world, worker);
            wire.ask(&write(response));
            wire.expect(response);
        }
        assert_eq!(told(world), 0);
    });
}

#[test]
fn an_upgraded_connection_is_another_protocols() {
    with_puppet(|world, worker| {
        let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n";
        let mut wire = Wire::at_rest();
        drain(world, worker);
        wire.ask(&write(switch));
        wire.expect(switch);
        // In whatever is spoken by now this may be part of a message.
        wire.ask(&write(OK));
        wire.expect(OK);

        let mut earlier = Wire::at_rest();
        earlier.ask(&[write(switch), "take 2".to_owned(), write(OK)].concat_lines());
        earlier.expect(switch);
        drain(world, worker);
        earlier.send(b"\x81\x00");
        earlier.expect(OK);
        earlier.ask(&write(OK));
        earlier.expect(OK);
    });
}

#[test]
fn an_expected_body_is_waited_for() {
    with_puppet(|world, worker| {
        let mut wire = Wire::at_rest();
        drain(world, worker);
        let body = write(OK);
        let length = body.len();
        wire.send(
            format!("POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n")
                .as_bytes(),
        );
        wire.expect("HTTP/1.1 100 Continue\r\n\r\n");
        wire.send(body.as_bytes());
        wire.expect(TOLD);
    });
}

#[test]
fn pipelined_requests_get_all_their_answers() {
    with_puppet(|world, worker| {
        for pause in [false, true] {
            let mut wire = Wire::at_rest();
            drain(world, worker);
            let requests: Vec<_> = (0..5).map(|_| request(&write(OK))).collect();
            if pause {
                world.signal(worker, Signal::SIGSTOP);
                for request in &requests {
                    wire.send(request);
                }
                world.signal(worker, Signal::SIGCONT);
            } else {
                wire.send(&requests.concat());
            }
            wire.expect(&OK.repeat(5));
        }
        assert_eq!(told(world), 0);
    });
}

#[test]
fn bodies_of_files_pass_unchanged() {
    with_puppet(|world, worker| {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 82\r\n\r\n";
        for way in ["sendfile", "splice"] {
            let mut wire = Wire::at_rest();
            drain(world, worker);
            let twice = format!("{way} {}", hex(OK));
            wire.ask(&[write(head), twice.clone(), twice].concat_lines());
            wire.expect(&told_of(&[head, OK, OK].concat()));

            // A head that comes out of a file is one, too; the file stays as it is.
            let mut wire = Wire::at_rest();
            drain(world, worker);
            wire.ask(&format!("{way} {}", hex(OK)));
            wire.expect(TOLD);
        }
    });
}

#[test]
fn a_client_that_does_not_read_holds_up_its_worker_as_before_and_gets_everything() {
    with_puppet(|world, worker| {
        const LENGTH: usize = 20_000_000;
        let mut wire = Wire::at_rest();
        drain(world, worker);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
        wire.ask(&[write(&head), format!("fill {LENGTH}")].concat_lines());
        let held_up = Traffic { established: 1, busy: 1, ..Traffic::default() };
        // For a while: on the way there it may look like work by chance, or wait for its turn on a busy host.
        let mut still = || {
            std::thread::sleep(Duration::from_millis(10));
            drain(world, worker) == held_up
        };
        wait_until("it is held up", || (0..20).all(|_| still()));
        assert_eq!(hang_up(world, worker), 0);
        wire.expect(&told_of(&head));
        let mut body = vec![0; LENGTH];
        wire.0.read_exact(&mut body).unwrap();
        assert!(body.iter().all(|byte| *byte == b'x'));
    });
}

#[test]
fn a_large_response_in_one_write_is_told() {
    with_puppet(|world, worker| {
        let body = "0123456789".repeat(60_000);
        let response = format!("HTTP/1.1 200 OK\r\nContent-Length: 600000\r\n\r\n{body}");
        let mut wire = Wire::at_rest();
        drain(world, worker);
        wire.ask(&write(&response));
        let mut said = vec![0; response.len()];
        wire.0.read_exact(&mut said).unwrap();
        let said = String::from_utf8(said).unwrap();
        // Told or not, for want of a large piece of memory: the body is the same.
        if said != response {
            wire.expect(&response[response.len() - 19..]);
            assert_eq!(said, told_of(&response)[..response.len()]);
        }
    });
}

#[test]
fn a_request_that_is_very_long_or_comes_in_many_segments_is_understood() {
    with_puppet(|world, worker| {
        let mut wire = Wire::at_rest();
        drain(world, worker);
        let cookie = "x".repeat(3000);
        let body = write(OK);
        let length = body.len();
        let long = format!(
            "POST / HTTP/1.1\r\nCookie: {cookie}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        wire.send(long.as_bytes());
        wire.expect(TOLD);

        let mut wire = Wire::at_rest();
        drain(world, worker);
        for part in request(&write(OK)).chunks(7) {
            wire.send(part);
        }
        wire.expect(TOLD);
    });
}

#[test]
fn a_connection_that_is_being_closed_does_no_harm() {
    with_puppet(|world, worker| {
        let mut wires: Vec<_> = (0..4).map(|_| Wire::at_rest()).collect();
        wires[0].0.shutdown(Shutdown::Write).unwrap();
        wires[1].ask("close");
        drain(world, worker);
        wires[2].0.shutdown(Shutdown::Write).unwrap();
        wires[3].ask(&[write(OK), "close".to_owned()].concat_lines());
        wires[3].expect(TOLD);
        wires.iter_mut().for_each(Wire::expect_end);
        wait_until("nothing is left", || drain(world, worker).established == 0);
        wait_until("the map is empty", || world.kernel.drain.connections() == 0);
    });
}

#[test]
fn a_connection_that_is_accepted_after_the_first_step_is_covered_by_the_next() {
    with_puppet(|world, worker| {
        world.signal(worker, Signal::SIGSTOP);
        let mut wire = Wire::open();
        wait_until("it waits", || drain(world, worker).queued == 1);
        world.signal(worker, Signal::SIGCONT);
        wire.ask(&write_later(OK));
        wire.expect(OK);
        drain(world, worker);
        wire.ask(&write(OK));
        wire.expect(TOLD);
    });
}

#[test]
fn thousands_of_connections_are_told() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    // For the worker, too, which inherits it.
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    with_puppet(|world, worker| {
        const MANY: usize = 2000;
        let mut wires: Vec<_> = (0..MANY).map(|_| Wire::open()).collect();
        for wire in &mut wires {
            wire.ask(&write_later(OK));
        }
        for wire in &mut wires {
            wire.expect(OK);
        }
        let began = Instant::now();
        let mut calls = 0;
        while world.kernel.drain.connections() < MANY {
            drain(world, worker);
            calls += 1;
            assert!(calls < 1000, "{}", world.kernel.drain.connections());
        }
        let first = began.elapsed();
        let began = Instant::now();
        assert_eq!(drain(world, worker).established, u32::try_from(MANY).unwrap());
        let again = began.elapsed();
        println!("{MANY} connections: {first:?} in {calls} calls, then {again:?}");
        for wire in &mut wires {
            wire.ask(&write(OK));
        }
        for wire in &mut wires {
            wire.expect(TOLD);
        }
        drop(wires);
        wait_until("nothing is left", || drain(world, worker).established == 0);
        wait_until("the map is empty", || world.kernel.drain.connections() == 0);
    });
}

#[test]
fn what_a_worker_says_to_others_is_its_own_business() {
    with_puppet(|world, worker| {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = other.local_addr().unwrap().port();
        let mut wire = Wire::open();
        wire.ask(&[format!("dial {port}"), write_later(OK)].concat_lines());
        wire.expect(OK);
        let (mut dialled, _) = other.accept().unwrap();
        assert_eq!(drain(world, worker).established, 1);
        assert_eq!(world.kernel.drain.connections(), 1);
        dialled.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        wire.ask(&[format!("tell {}", hex(OK)), write(OK)].concat_lines());
        wire.expect(TOLD);
        let mut said = vec![0; OK.len()];
        dialled.read_exact(&mut said).unwrap();
        assert_eq!(said, OK.as_bytes());
    });
}

#[test]
fn a_worker_that_comes_back_is_left_alone_again() {
    with_puppet(|world, worker| {
        let mut wire = Wire::at_rest();
        world.kernel.resume(worker);
        drain(world, worker);
        world.kernel.resume(worker);
        assert_eq!(world.kernel.drain.connections(), 0);
        wire.ask(&write_later(OK));
        wire.expect(OK);
        drain(world, worker);
        wire.ask(&write(OK));
        wire.expect(TOLD);
    });
}

#[test]
fn connections_over_ipv6_are_told_as_well() {
    in_a_world(|world| {
        let worker = world.group_of(GROUP, 1, PUPPET, "::1", 8080)[0];
        world.publish(GROUP, &[1]);
        let mut wire = Wire::to("[::1]:8080");
        wire.ask(&write_later(OK));
        wire.expect(OK);
        drain(world, worker);
        wire.ask(&write(OK));
        wire.expect(TOLD);
    });
}

#[test]
fn only_what_is_idle_is_hung_up_and_with_an_orderly_end() {
    with_puppet(|world, worker| {
        let mut idle = Wire::at_rest();
        let mut foreign = Wire::at_rest();
        let mut waits = Wire::at_rest();
        drain(world, worker);
        let strange = [b"\x81\x00 is no request\r\n", &*request(&write_later(OK))].concat();
        foreign.send(&strange);
        foreign.expect(OK);
        waits.send(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n");
        assert_eq!(world.kernel.hang_up(worker, Duration::from_hours(1)).unwrap(), 0);

        wait_until("one is hung up", || hang_up(world, worker) == 1);

        idle.expect_end();
        idle.close();
        wait_until("two are left", || drain(world, worker).established == 2);
        foreign.send(&strange);
        foreign.expect(OK);
        waits.send(b"123456789");
        waits.ask(&write(OK));
        waits.expect(OK);
    });
}
