//! What is told to which connections, tried on connections that are played: clients, servers and networks of every mood.

use std::cell::Cell;

use cluster_common::{
    exchange::{CHUNK, Exchange, Moment, NOTICE, Segment, Verdict},
    http::{Reading, TABLE, WINDOW},
};
use proptest::{prelude::*, test_runner::TestRunner};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn the_next_response_of_a_connection_at_rest_tells() {
    let mut play = Play::new(true);
    play.request(GET);
    assert_eq!(play.write(OK), Verdict::Insert(15));
    assert_eq!(play.told, 1);
    play.request(GET);
    assert_eq!(play.write(OK), Verdict::Leave, "once is enough");
}

#[test]
fn a_connection_at_work_is_looked_at_first() {
    let mut play = Play::new(false);
    assert_eq!(play.write(OK), Verdict::Leave, "its request was not seen");
    play.request(GET);
    assert_eq!(play.write(OK), Verdict::Leave);
    play.request(GET);
    assert_eq!(play.write(OK), Verdict::Insert(15));
}

#[test]
fn only_the_first_write_after_a_request_tells() {
    let mut play = Play::new(true);
    play.request(GET);
    assert_eq!(play.write(b"HTTP/1"), Verdict::Leave, "a head in pieces is none");
    assert_eq!(play.write(OK), Verdict::Leave, "this may be its body");
    play.request(GET);
    assert_eq!(play.write(b"HTTP/1.1 200 OK\r\n"), Verdict::Insert(15), "the rest may follow");
}

#[test]
fn the_rest_of_a_request_that_was_not_seen_makes_it_wait_for_one_exchange_more() {
    let mut play = Play::new(true);
    play.request(b"the rest of a body");
    assert!(play.exchange.is_strange());
    assert_eq!(play.write(OK), Verdict::Leave);
    play.request(GET);
    assert_eq!(play.write(OK), Verdict::Leave);
    play.request(GET);
    assert_eq!(play.write(OK), Verdict::Insert(15));

    let mut play = Play::new(false);
    play.request(GET);
    assert_eq!(play.write(OK), Verdict::Leave);
    play.request(b"what is this");
    play.request(GET);
    assert_eq!(play.write(OK), Verdict::Leave, "behind a request it is another protocol");
    assert!(play.exchange.is_left() && play.exchange.is_strange());
}

#[test]
fn what_has_not_been_read_is_not_answered() {
    let mut play = Play::new(true);
    play.arrive(GET);
    assert_eq!(play.write(OK), Verdict::Leave);
}

#[test]
fn several_requests_at_a_time_leave_it_alone_for_good() {
    let mut play = Play::new(true);
    play.request(&[GET, GET].concat());
    assert!(play.exchange.is_left());

    let mut play = Play::new(true);
    play.request(GET);
    play.request(GET);
    assert_eq!(play.write(OK), Verdict::Leave);
    assert_eq!(play.write(OK), Verdict::Leave);
    play.request(GET);
    assert_eq!(play.write(OK), Verdict::Leave);

    let mut play = Play::new(false);
    play.request(GET);
    assert_eq!(play.write(OK), Verdict::Leave);
    play.arrive_acknowledging(GET, 0);
    assert!(play.exchange.is_left(), "it asks again before it has seen the answer");
}

#[test]
fn a_response_under_way_is_left_alone_even_if_another_request_comes() {
    let mut play = Play::new(false);
    play.request(GET);
    assert_eq!(play.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"), Verdict::Leave);
    play.request(GET);
    assert_eq!(play.write(OK), Verdict::Leave, "this is its body");
}

#[test]
fn a_request_may_come_in_pieces() {
    let post: &[u8] = b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nGET /";
    for cut in 1..post.len() {
        let mut play = Play::new(true);
        play.request(&post[..cut]);
        if cut < post.len() {
            assert_eq!(play.exchange.may_answer(&play.moment()), cut >= post.len() - 5);
        }
        play.request(&post[cut..]);
        assert_eq!(play.write(OK), Verdict::Insert(15), "cut at {cut}");
    }
}

#[test]
fn a_long_head_is_read_in_steps() {
    let field = format!("Cookie: {}\r\n", "x".repeat(3 * CHUNK));
    let get = [b"GET / HTTP/1.1\r\n", field.as_bytes(), b"\r\n"].concat();
    let mut play = Play::new(true);
    play.request(&get);
    assert_eq!(play.write(OK), Verdict::Insert(15));
}

#[test]
fn an_answer_that_comes_before_the_body_is_left_alone() {
    let mut play = Play::new(true);
    play.request(b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhe");
    assert_eq!(play.write(OK), Verdict::Leave);
}

#[test]
fn a_request_of_unknown_length_leaves_the_connection_alone_for_good() {
    for field in
        ["Transfer-Encoding: chunked", "Content-Length: 1, 1", "Content-Length: 1234567890"]
    {
        let mut play = Play::new(true);
        play.request(format!("POST / HTTP/1.1\r\n{field}\r\n\r\n").as_bytes());
        assert_eq!(play.write(OK), Verdict::Leave);
        assert!(play.exchange.is_left(), "{field}");
    }
}

#[test]
fn an_interim_response_is_waited_out() {
    let mut play = Play::new(true);
    play.request(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(play.write(b"HTTP/1.1 100 Continue\r\n\r\n"), Verdict::Leave);
    play.request(b"hello");
    assert_eq!(play.write(OK), Verdict::Insert(15));
}

#[test]
fn an_upgrade_and_a_tunnel_are_left_alone() {
    let mut play = Play::new(true);
    play.request(b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
    assert_eq!(play.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"), Verdict::Leave);
    play.request(GET);
    assert_eq!(play.write(OK), Verdict::Leave, "another protocol by now");

    let mut play = Play::new(true);
    play.request(b"CONNECT a:1 HTTP/1.1\r\n\r\n");
    assert_eq!(play.write(OK), Verdict::Leave);
    assert!(play.exchange.is_strange());
}

#[test]
fn a_response_that_says_so_itself_is_left_alone() {
    let mut play = Play::new(true);
    play.request(GET);
    assert_eq!(play.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"), Verdict::Leave);
    assert!(play.exchange.is_told());
}

#[test]
fn a_packet_that_is_lost_makes_no_difference_or_none_that_harms() {
    let mut play = Play::new(true);
    play.lose();
    assert_eq!(play.write(OK), Verdict::Leave);
    play.request(GET);
    assert_eq!(play.write(OK), Verdict::Insert(15));

    let mut play = Play::new(true);
    play.request(GET);
    play.repeat(GET);
    assert_eq!(play.write(OK), Verdict::Insert(15), "sent again, and known");
}

/// A client that waits for its answers, as nearly all do: from whatever moment on it is watched, and whatever the bodies
/// look like.
#[test]
fn only_heads_are_ever_changed() {
    let told = play_many((scene(false), 0..40_usize), |(scene, from)| act(&scene, from, false));
    assert!(told > 100, "told {told} times only");
}

/// A client that does not: watched from its first request on, of which what is told it is the last.
#[test]
fn only_the_last_head_is_changed() {
    let told = play_many(scene(true), |scene| act(&scene, 0, true));
    assert!(told > 100, "told {told} times only");
}

/// Plays many scenes and says how often a connection was told to close.
fn play_many<S: Strategy>(scenes: S, act: impl Fn(S::Value) -> Result<u32, TestCaseError>) -> u32 {
    let told = Cell::new(0);
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4096) };
    let played = TestRunner::new(config).run(&scenes, |scene| {
        told.set(told.get() + act(scene)?);
        Ok(())
    });
    played.unwrap_or_else(|error| panic!("{error}"));
    told.get()
}

/// Exchanges to be played, and the dice.
#[derive(Clone, Debug)]
struct Scene {
    exchanges: Vec<(Vec<u8>, Vec<Vec<u8>>)>,
    moves: Vec<(u8, usize)>,
    start: (u32, u32),
}

fn scene(pipelining: bool) -> impl Strategy<Value = Scene> {
    let piece = prop_oneof![
        Just(OK.to_vec()),
        Just(b"HTTP/1.1 200 OK\r\n".to_vec()),
        Just(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()),
        Just(GET.to_vec()),
        "[ -~]{0,20}".prop_map(String::into_bytes),
    ];
    let body = proptest::collection::vec(piece, 0..5);
    let exchange = (body.clone(), body, 0..3_u8).prop_map(|(asked, answer, kind)| {
        let asked = asked.concat();
        let length = asked.len();
        let request = match kind {
            0 => GET.to_vec(),
            1 => {
                [format!("PUT / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n").into_bytes(), asked]
                    .concat()
            }
            _ => [
                b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
                format!("{length:x}\r\n").into_bytes(),
                asked,
                b"\r\n0\r\n\r\n".to_vec(),
            ]
            .concat(),
        };
        let length: usize = answer.iter().map(Vec::len).sum();
        let mut response = vec![
            b"HTTP/1.1 203 So\r\n".to_vec(),
            format!("Content-Length: {length}\r\n").into_bytes(),
            b"\r\n".to_vec(),
        ];
        response.extend(answer);
        response.retain(|piece| !piece.is_empty());
        (request, response)
    });
    let moves =
        proptest::collection::vec((0..if pipelining { 5_u8 } else { 4 }, 1..60_usize), 10..120);
    (proptest::collection::vec(exchange, 1..6), moves, any::<(u32, u32)>())
        .prop_map(|(exchanges, moves, start)| Scene { exchanges, moves, start })
}

/// Plays a scene, and checks every verdict against what is known to be true.
fn act(scene: &Scene, watched_from: usize, pipelining: bool) -> Result<u32, TestCaseError> {
    let mut play = Play::at(scene.start.0, scene.start.1, watched_from == 0);
    // The whole of both streams, and where what begins in them.
    let requests: Vec<u8> =
        scene.exchanges.iter().flat_map(|(request, _)| request.clone()).collect();
    let asked_by = ends(scene.exchanges.iter().map(|(request, _)| request.len()));
    let answered_by =
        ends(scene.exchanges.iter().map(|(_, pieces)| pieces.iter().map(Vec::len).sum()));
    let pieces: Vec<&Vec<u8>> = scene.exchanges.iter().flat_map(|(_, pieces)| pieces).collect();
    let (mut sent, mut piece, mut written, mut received) = (0, 0, 0, 0);
    for (step, (kind, amount)) in scene.moves.iter().enumerate() {
        if step == watched_from && step > 0 {
            // At rest as far as `tcp_info` tells: all was read, and the last that happened was an answer.
            play.exchange = Exchange::new(false);
            play.watched = true;
        } else if step == 0 {
            play.watched = watched_from == 0;
        }
        // Requests that have been answered whole, and those whose answer the client has whole.
        let answered = answered_by.iter().filter(|end| **end <= written).count();
        match kind {
            // The client sends: of the request whose turn it is, or of any.
            0 | 4 => {
                let seen = answered_by.iter().filter(|end| **end <= received).count();
                let limit =
                    if pipelining { asked_by.len() - 1 } else { seen.min(asked_by.len() - 1) };
                let end = asked_by[limit].min(sent + amount);
                if end > sent {
                    play.arrive_acknowledging(&requests[sent..end], received);
                    sent = end;
                }
            }
            // The server reads.
            1 => play.read(),
            // The client receives.
            2 => received = (received + amount * 3).min(written),
            // The server writes, if it has read enough to have begun.
            _ => {
                let read = play.have_read();
                let begun = if answered == 0 { 0 } else { asked_by[answered - 1] };
                if piece < pieces.len() && read > begun {
                    let bytes = pieces[piece];
                    let begins =
                        written == if answered == 0 { 0 } else { answered_by[answered - 1] };
                    match play.write_unseen(bytes) {
                        Verdict::Leave => {}
                        Verdict::Insert(at) => {
                            prop_assert!(
                                begins,
                                "this is a body: {:?}",
                                String::from_utf8_lossy(bytes)
                            );
                            prop_assert_eq!(at, 15, "behind the status");
                            prop_assert_eq!(read, asked_by[answered], "not the last request");
                            prop_assert_eq!(sent, asked_by[answered], "not the last request");
                        }
                    }
                    written += bytes.len();
                    piece += 1;
                }
            }
        }
    }
    prop_assert!(play.told <= 1);
    Ok(play.told)
}

fn ends(lengths: impl Iterator<Item = usize>) -> Vec<usize> {
    lengths
        .scan(0, |end, length| {
            *end += length;
            Some(*end)
        })
        .collect()
}

/// A connection, played.
struct Play {
    exchange: Exchange,
    watched: bool,
    told: u32,
    /// First sequence numbers of both directions.
    start: (u32, u32),
    arrived: usize,
    read: usize,
    written: usize,
}

impl Play {
    fn new(at_rest: bool) -> Self {
        let mut play = Self::at(u32::MAX - 10, u32::MAX - 20, at_rest);
        play.watched = true;
        play
    }

    fn at(peer: u32, own: u32, at_rest: bool) -> Self {
        let exchange = Exchange::new(at_rest);
        Self {
            exchange,
            watched: false,
            told: 0,
            start: (peer, own),
            arrived: 0,
            read: 0,
            written: 0,
        }
    }

    /// A segment arrives, and is read.
    fn request(&mut self, bytes: &[u8]) {
        self.arrive(bytes);
        self.read();
    }

    fn arrive(&mut self, bytes: &[u8]) {
        self.arrive_acknowledging(bytes, self.written);
    }

    fn arrive_acknowledging(&mut self, bytes: &[u8], received: usize) {
        let sequence = self.arrived;
        self.show(bytes, sequence, received);
        self.arrived += bytes.len();
    }

    /// The last segment comes once more.
    fn repeat(&mut self, bytes: &[u8]) {
        self.show(bytes, self.arrived - bytes.len(), self.written);
    }

    /// A request in two segments arrives, the second of them first.
    fn lose(&mut self) {
        let received = self.written;
        self.show(&GET[5..], self.arrived + 5, received);
        self.show(&GET[..5], self.arrived, received);
        self.arrived += GET.len();
        self.read();
    }

    fn show(&mut self, bytes: &[u8], sequence: usize, received: usize) {
        if !self.watched {
            return;
        }
        let segment = Segment {
            sequence: number(self.start.0, sequence),
            acknowledged: number(self.start.1, received),
            length: length(bytes),
            expected: number(self.start.0, self.arrived),
            sent: number(self.start.1, self.written),
        };
        if !self.exchange.arrive(&segment) {
            return;
        }
        for rest in bytes.chunks(CHUNK) {
            let mut chunk = [0; CHUNK];
            chunk[..rest.len()].copy_from_slice(rest);
            if !self.exchange.read(&TABLE, &chunk) {
                break;
            }
        }
    }

    fn read(&mut self) {
        self.read = self.arrived;
    }

    fn have_read(&self) -> usize {
        self.read
    }

    fn moment(&self) -> Moment {
        Moment {
            written: number(self.start.1, self.written),
            arrived: number(self.start.0, self.arrived),
            read: number(self.start.0, self.read),
        }
    }

    /// Something is sent, as the kernel's program would have it.
    fn write_unseen(&mut self, bytes: &[u8]) -> Verdict {
        let moment = self.moment();
        let mut verdict = Verdict::Leave;
        if self.watched && self.exchange.may_answer(&moment) {
            let mut head = Reading::RESPONSE;
            bytes.iter().take(WINDOW as usize).for_each(|byte| head.step(&TABLE, *byte));
            verdict = self.exchange.depart(&moment, &head, length(bytes));
        }
        self.written += bytes.len();
        if let Verdict::Insert(at) = verdict {
            assert!(bytes[at as usize..].starts_with(b"\r\n"));
            self.exchange.told();
            self.told += 1;
            self.start.1 = self.start.1.wrapping_add(length(&NOTICE));
        }
        verdict
    }

    /// The same, and the client has received it before it does anything else.
    fn write(&mut self, bytes: &[u8]) -> Verdict {
        self.write_unseen(bytes)
    }
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("a segment is short")
}

fn number(start: u32, offset: usize) -> u32 {
    start.wrapping_add(u32::try_from(offset).expect("a play is short"))
}
