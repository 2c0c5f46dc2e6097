//! What guests get when there are more of them than places.

use std::{
    io,
    net::SocketAddr,
    sync::atomic::{AtomicU32, Ordering},
};

use axum::routing::get;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinSet,
};

use super::*;

/// Far less than the time after which who says nothing is sent away anyway.
const SOON: Duration = Duration::from_secs(5);
/// Bytes of an answer that no socket's buffers hold.
const LONG: usize = 64 << 20;

#[tokio::test]
async fn who_asks_is_answered_though_the_room_is_full_of_those_who_do_not() {
    let address = open();
    let mut silent = Vec::new();
    for number in 0..3 * MOST {
        let mut stream = TcpStream::connect(address).await.unwrap();
        if number % 2 == 1 {
            stream.write_all(b"GET /").await.unwrap();
        }
        silent.push(stream);
    }
    let mut stream = TcpStream::connect(address).await.unwrap();
    let answer = timeout(SOON, ask(&mut stream)).await;
    assert!(answer.expect("it is answered at once").ends_with("well"));
    let mut last = silent.pop().unwrap();
    assert!(timeout(SOON, ask(&mut last)).await.is_ok(), "the newest have stayed");
}

#[tokio::test]
async fn who_was_answered_longest_ago_goes_for_one_more() {
    let address = open();
    let mut kept = Vec::new();
    for _ in 0..=MOST {
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert!(timeout(SOON, ask(&mut stream)).await.unwrap().ends_with("well"));
        kept.push(stream);
    }
    let end = timeout(SOON, kept[0].read(&mut [0; 8])).await;
    assert_eq!(end.expect("the first one was closed").unwrap(), 0);
    assert!(timeout(SOON, ask(&mut kept[1])).await.unwrap().ends_with("well"));
}

#[tokio::test]
async fn those_who_come_back_when_they_are_sent_away_leave_others_a_place() {
    let address = open();
    let answered = Arc::new(AtomicU32::new(0));
    let mut pollers = JoinSet::new();
    for _ in 0..MOST + 8 {
        let answered = Arc::clone(&answered);
        pollers.spawn(async move {
            loop {
                let mut stream = TcpStream::connect(address).await.unwrap();
                // It may be sent away while it asks: that is what makes it come back.
                if try_ask(&mut stream).await.is_ok_and(|answer| answer.ends_with("well")) {
                    answered.fetch_add(1, Ordering::Relaxed);
                    drop(stream.read(&mut [0; 8]).await);
                }
            }
        });
    }
    let full = async {
        while answered.load(Ordering::Relaxed) < MOST {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, full).await.expect("all places are taken");
    for probe in 0..6 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let answer = timeout(SOON, try_ask(&mut stream)).await.expect("it is answered at once");
        assert!(answer.is_ok_and(|answer| answer.ends_with("well")), "probe {probe}");
    }
}

#[tokio::test]
async fn who_still_reads_its_answer_is_not_idle() {
    let address = open();
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"GET /long HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    // The answer has begun, and is more than the kernel holds.
    slow.readable().await.unwrap();
    let mut kept = Vec::new();
    for _ in 0..MOST {
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert!(timeout(SOON, ask(&mut stream)).await.unwrap().ends_with("well"));
        kept.push(stream);
    }
    let end = timeout(SOON, kept[0].read(&mut [0; 8])).await;
    assert_eq!(end.expect("one that was answered goes").unwrap(), 0);
    slow.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answers = Vec::new();
    timeout(4 * SOON, slow.read_to_end(&mut answers)).await.unwrap().unwrap();
    assert!(answers.len() > LONG && answers.ends_with(b"well"), "it was kept, and asked again");
}

#[test]
fn who_is_mute_goes_before_who_is_idle_and_who_is_new_or_slow_after_it() {
    let start = Instant::now();
    let rank = |phase: Phase, age: Duration| phase.rank(start + age).map(|it| it.0);
    let [silent, answered, writing] =
        [Phase::Silent(start), Phase::Answered(start), Phase::Writing(start)];
    assert_eq!(rank(silent, PATIENCE), Some(Rank::Mute));
    assert_eq!(rank(answered, Duration::ZERO), Some(Rank::Idle));
    assert_eq!(rank(silent, GRACE), Some(Rank::New));
    assert_eq!(rank(writing, TAKING), Some(Rank::Slow));
    assert!(Rank::Mute < Rank::Idle && Rank::Idle < Rank::New && Rank::New < Rank::Slow);
    let stays = [silent, writing, Phase::Asking, Phase::Leaving];
    assert_eq!(stays.map(|phase| rank(phase, Duration::ZERO)), [None; 4]);
}

/// A server of `/` and `/long`, which goes with the test's runtime.
fn open() -> SocketAddr {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap();
    drop(port);
    let door = Arc::new(Door::open(address).unwrap());
    let router = Router::new().route("/", get(async || "well"));
    let router = router.route("/long", get(async || "x".repeat(LONG)));
    tokio::spawn(async move {
        let (_stop, stopped) = oneshot::channel();
        serve(door, router, stopped).await;
    });
    address
}

async fn ask(stream: &mut TcpStream) -> String {
    try_ask(stream).await.unwrap()
}

async fn try_ask(stream: &mut TcpStream) -> io::Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await?;
    let mut answer = vec![0; 1024];
    let read = stream.read(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer[..read]).into_owned())
}
