//! Servers that fail their clients in each way there is, and what the account says of each.

mod server;

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use self::server::{Asked, Server};
use crate::{
    account::Account,
    content,
    failure::{Cause, Failure, Phase},
    load::{Load, Plan, Target},
    request::Kind,
};

const OK: &str = "HTTP/1.1 200 OK\r\n";

#[test]
fn good_answers_over_kept_connections_are_no_failures() {
    let server = Server::start(Asked::answers);
    let account = ask(server.address(), Kind::Kept, |account| account.answered() >= 50);
    assert_eq!(account.failed(), 0, "{account}");
    // When answers are late there are more than the target asks for, but each is used again and again.
    assert!(account.connections.opened * 2 < account.answered(), "{account}");
    assert_eq!(account.workers.keys().copied().collect::<Vec<_>>(), [server::PID]);
}

#[test]
fn every_kind_of_request_is_answered() {
    let server = Server::start(Asked::answers);
    for kind in Kind::ALL {
        let account = ask(server.address(), kind, |account| account.answered() >= 5);
        assert_eq!(account.failed(), 0, "{account}");
    }
}

#[test]
fn a_server_that_closes_before_it_answers_has_failed() {
    let failure = first_failure(Kind::Fresh, |asked| asked.reads().closes());
    assert_eq!((failure.phase, failure.cause), (Phase::Head, Cause::Closed));
    assert_eq!((failure.received, failure.worker, failure.earlier), (0, None, 0));
    assert!(failure.sent > 0 && failure.local.is_some());
}

#[test]
fn a_server_that_resets_before_it_answers_has_failed() {
    let failure = first_failure(Kind::Fresh, |asked| asked.reads().resets());
    assert_eq!((failure.phase, failure.cause), (Phase::Head, Cause::Reset));
    assert_eq!(failure.errno, Some(104));
}

#[test]
fn a_server_that_closes_within_the_head_has_failed() {
    let failure = first_failure(Kind::Fresh, |asked| asked.reads().writes(OK).closes());
    assert_eq!((failure.phase, failure.cause), (Phase::Head, Cause::Closed));
    assert_eq!(failure.received, OK.len());
}

#[test]
fn a_server_that_closes_within_the_body_has_failed() {
    let failure = first_failure(Kind::Large, |asked| {
        let body = asked.body();
        asked.reads().writes_head().writes(&body[..1_000]).closes()
    });
    assert_eq!((failure.phase, failure.cause), (Phase::Body, Cause::Closed));
    assert_eq!(failure.worker, Some(server::PID));
}

#[test]
fn a_server_that_resets_within_the_body_has_failed() {
    let failure = first_failure(Kind::Large, |asked| asked.reads().writes_head().resets());
    assert_eq!((failure.phase, failure.cause), (Phase::Body, Cause::Reset));
}

#[test]
fn a_byte_that_is_not_what_it_should_be_is_found() {
    let failure = first_failure(Kind::Large, |asked| {
        let mut body = asked.body();
        body[12_345] ^= 1;
        asked.reads().writes_head().writes(&body)
    });
    assert_eq!((failure.phase, failure.cause), (Phase::Body, Cause::WrongByte { at: 12_345 }));
}

#[test]
fn a_header_inserted_into_a_body_is_found() {
    let failure = first_failure(Kind::Large, |asked| {
        let mut body = asked.body();
        let inserted = b"Connection: close\r\n";
        let at = body.windows(2).position(|pair| pair == b"\r\n").unwrap() + 2;
        body.splice(at..at, *inserted);
        body.truncate(asked.size());
        asked.reads().writes_head().writes(&body)
    });
    assert!(matches!(failure.cause, Cause::WrongByte { .. }), "{failure}");
}

#[test]
fn a_body_of_another_request_is_found() {
    let failure = first_failure(Kind::Large, |asked| {
        let body = content::piece((asked.from() + content::LINE) % content::PERIOD, asked.size());
        asked.reads().writes_head().writes(body)
    });
    assert!(matches!(failure.cause, Cause::WrongByte { .. }), "{failure}");
}

#[test]
fn an_answer_to_another_request_is_found() {
    let failure = first_failure(Kind::Fresh, |asked| {
        let (size, body) = (asked.size(), asked.body());
        let head = format!("{OK}X-Id: 99\r\nContent-Length: {size}\r\n\r\n");
        asked.reads().writes(&head).writes(&body)
    });
    assert_eq!(failure.phase, Phase::Head);
    assert_eq!(failure.cause, Cause::Wrong("it answers request Some(99)".to_owned()));
}

#[test]
fn another_length_is_found() {
    let failure = first_failure(Kind::Large, |asked| {
        let (id, size) = (asked.id(), asked.size());
        let head = format!("{OK}X-Id: {id}\r\nContent-Length: {}\r\n\r\n", size - 1);
        asked.reads().writes(&head)
    });
    assert!(matches!(failure.cause, Cause::Wrong(_)), "{failure}");
    assert_eq!(failure.phase, Phase::Head);
}

#[test]
fn another_status_is_found() {
    let failure = first_failure(Kind::Fresh, |asked| {
        asked.reads().writes("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
    });
    assert_eq!((failure.phase, failure.cause), (Phase::Head, Cause::Status(503)));
}

#[test]
fn chunks_that_break_off_are_found() {
    let failure = first_failure(Kind::Chunked, |asked| {
        let head = format!("{OK}X-Id: {}\r\nTransfer-Encoding: chunked\r\n\r\n", asked.id());
        let body = asked.body();
        asked.reads().writes(&head).writes("10\r\n").writes(&body[..16]).writes("\r\n").closes()
    });
    assert_eq!((failure.phase, failure.cause), (Phase::Body, Cause::Closed));
}

#[test]
fn chunks_that_end_too_early_are_found() {
    let failure = first_failure(Kind::Chunked, |asked| {
        let head = format!("{OK}X-Id: {}\r\nTransfer-Encoding: chunked\r\n\r\n", asked.id());
        asked.reads().writes(&head).writes("0\r\n\r\n")
    });
    assert_eq!(failure.phase, Phase::Body);
    assert!(matches!(failure.cause, Cause::Wrong(_)), "{failure}");
}

#[test]
fn bytes_after_the_end_of_an_answer_are_found() {
    let failure = first_failure(Kind::Kept, |asked| {
        let mut all = asked.head().into_bytes();
        all.extend(asked.body());
        all.extend(b"HTTP/1.1 200 OK\r\n\r\n");
        asked.reads().writes(&all)
    });
    assert_eq!((failure.phase, failure.cause), (Phase::After, Cause::Surplus));
}

#[test]
fn bytes_that_come_while_nothing_is_asked_make_the_account_incomplete() {
    let server = Server::start(|asked| {
        asked.answers().pauses(Duration::from_millis(30)).writes("HTTP/1.1 408 Timeout\r\n\r\n")
    });
    let load = start(server.address(), Kind::Kept, 5.0);
    wait_for(&load, |account| account.connections.surplus_idle > 0);
    assert!(!load.stop().is_complete());
}

#[test]
fn a_server_that_does_not_answer_is_given_up() {
    let failure = first_failure(Kind::Fresh, |asked| asked.reads().stalls());
    assert_eq!((failure.phase, failure.cause), (Phase::Head, Cause::TimedOut));
    assert!(failure.failed - failure.began >= PATIENCE);
}

#[test]
fn a_server_that_stops_within_the_body_is_given_up() {
    let failure = first_failure(Kind::Large, |asked| asked.reads().writes_head().stalls());
    assert_eq!((failure.phase, failure.cause), (Phase::Body, Cause::TimedOut));
}

#[test]
fn a_server_that_does_not_read_is_given_up_while_sending() {
    let server = Server::start(Asked::stalls);
    let is_large = |failure: &Failure| failure.phase == Phase::Send;
    let load = start(server.address(), Kind::Echo, 50.0);
    wait_for(&load, |account| account.failures.iter().any(is_large));
    let failures = load.stop().failures;
    assert!(failures.iter().all(|failure| failure.cause == Cause::TimedOut));
    // What fits into the buffers has been sent, as far as a client can know.
    assert!(failures.iter().all(|failure| is_large(failure) || failure.phase == Phase::Head));
}

#[test]
fn a_server_that_resets_while_it_is_sent_to_has_failed() {
    let failure = first_failure(Kind::SlowSender, Asked::resets);
    assert_eq!((failure.phase, failure.cause), (Phase::Send, Cause::Reset));
}

#[test]
fn nobody_there_is_refused() {
    let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let load = start(nobody, Kind::Kept, 50.0);
    wait_for(&load, |account| account.failed() > 0);
    let failure = load.stop().failures.remove(0);
    assert_eq!((failure.phase, failure.cause), (Phase::Connect, Cause::Refused));
    assert_eq!((failure.errno, failure.local), (Some(111), None));
}

#[test]
fn a_full_queue_is_given_up_while_connecting() {
    let server = Server::that_never_accepts();
    let load = start(server, Kind::Fresh, 50.0);
    let is_in = |phase| move |failure: &Failure| failure.phase == phase;
    wait_for(&load, |account| account.failures.iter().any(is_in(Phase::Connect)));
    let failures = load.stop().failures;
    let failure = failures.into_iter().find(is_in(Phase::Connect)).unwrap();
    assert_eq!(failure.cause, Cause::TimedOut);
}

#[test]
fn a_connection_closed_while_idle_is_no_failure() {
    let server = Server::start(|asked| asked.answers().closes());
    let load = start(server.address(), Kind::Kept, 20.0);
    wait_for(&load, |account| account.answered() >= 20);
    let account = load.stop();
    assert_eq!(account.failed(), 0, "{account}");
    assert_eq!(account.connections.opened, account.answered());
    assert!(account.is_complete(), "{account}");
}

#[test]
fn a_connection_reset_while_idle_is_no_failure() {
    let server = Server::start(|asked| asked.answers().pauses(Duration::from_millis(20)).resets());
    let load = start(server.address(), Kind::Kept, 5.0);
    wait_for(&load, |account| account.connections.reset_idle > 0);
    let account = load.stop();
    assert_eq!(account.failed(), 0, "{account}");
}

#[test]
fn a_kept_connection_closed_after_the_next_request_was_read_has_failed() {
    let server =
        Server::start(
            |asked| {
                if asked.number() == 0 { asked.answers() } else { asked.reads().closes() }
            },
        );
    let load = start(server.address(), Kind::Kept, 50.0);
    wait_for(&load, |account| account.failed() > 0);
    let account = load.stop();
    let failure = &account.failures[0];
    assert_eq!((failure.phase, &failure.cause), (Phase::Head, &Cause::Closed), "{failure}");
    assert_eq!((failure.earlier, failure.worker), (1, Some(server::PID)));
}

#[test]
fn an_answer_that_says_close_is_obeyed() {
    let server = Server::start(|asked| {
        let (id, size, body) = (asked.id(), asked.size(), asked.body());
        let head = format!("{OK}Connection: close\r\nX-Id: {id}\r\nContent-Length: {size}\r\n\r\n");
        // Were another request sent over it, nobody would answer.
        asked.reads().writes(&head).writes(&body).stalls()
    });
    let account = ask(server.address(), Kind::Kept, |account| account.answered() >= 20);
    assert_eq!(account.failed(), 0, "{account}");
    assert_eq!(account.connections.told_to_close, account.answered());
    assert_eq!(account.connections.opened, account.answered());
}

#[test]
fn a_connection_is_left_before_the_server_closes_it() {
    let server = Server::start(|asked| {
        let (id, size, body) = (asked.id(), asked.size(), asked.body());
        let head =
            format!("{OK}Keep-Alive: timeout=1\r\nX-Id: {id}\r\nContent-Length: {size}\r\n\r\n");
        asked.reads().writes(&head).writes(&body)
    });
    let account = ask(server.address(), Kind::Kept, |account| account.answered() >= 20);
    assert_eq!(account.failed(), 0, "{account}");
    assert!(account.connections.outdated > 0, "{account}");
}

#[test]
fn a_stall_is_seen_by_every_request_that_was_due_meanwhile() {
    let stall = Duration::from_millis(400);
    let server = Server::start_serially(move |asked| {
        let is_first = asked.id() >> 4 == 0;
        let stalled = if is_first { asked.reads().pauses(stall) } else { asked.reads() };
        stalled.writes_answer().closes()
    });
    let load = start(server.address(), Kind::Fresh, 200.0);
    wait_for(&load, |account| account.answered() >= 200);
    let latency = load.stop().latency();
    // 200 a second for 0.4 s: about 80 were due; a client that waits for answers would have seen it once.
    let late = latency.len() - latency.count_between(0, 100_000);
    assert!(late >= 40, "only {late} requests were late");
}

/// Longest wait of the clients here.
const PATIENCE: Duration = Duration::from_millis(800);
const CONNECTIONS: usize = 4;

fn start(to: SocketAddr, kind: Kind, rate: f64) -> Load {
    let target = Target {
        name: "server".to_owned(),
        address: to,
        rate,
        connections: CONNECTIONS,
        mix: vec![(kind, 1)],
    };
    let patience = match kind {
        // They take their time; a server that stalls is seen by the others.
        Kind::SlowReader | Kind::SlowSender | Kind::Late => Duration::from_secs(10),
        Kind::Kept | Kind::Fresh | Kind::Large | Kind::Chunked | Kind::Echo => {
            PATIENCE.max(if kind == Kind::SlowSender { Duration::from_secs(4) } else { PATIENCE })
        }
    };
    Load::start(Plan { seed: 3, targets: vec![target], patience, limit: 1_000 }).unwrap()
}

/// Loads until the account is as described; each request is accounted for.
fn ask(to: SocketAddr, kind: Kind, is: impl Fn(&Account) -> bool) -> Account {
    let load = start(to, kind, 50.0);
    wait_for(&load, is);
    let account = load.stop();
    assert!(account.is_complete(), "{account}");
    account
}

/// What the first request to a server is entered as that treats each of them like this.
fn first_failure(kind: Kind, script: impl Fn(Asked) -> Asked + Send + Sync + 'static) -> Failure {
    let server = Server::start(script);
    let mut account = ask(server.address(), kind, |account| account.failed() > 0);
    assert_eq!(account.answered(), 0, "{account}");
    account.failures.remove(0)
}

fn wait_for(load: &Load, is: impl Fn(&Account) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is(&load.so_far()) {
        assert!(Instant::now() < deadline, "waited in vain: {}", *load.so_far());
        std::thread::sleep(Duration::from_millis(5));
    }
}
