//! Questions to servers that answer in every way.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream as Connection},
    thread,
    time::Instant,
};

use super::*;

const PATIENCE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_good_status_is_a_good_answer() {
    for status in ["200 OK", "204 No Content", "301 Moved", "399 Odd"] {
        let asked = ask(&format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")).await;
        assert_eq!(asked.answer, Ok(()), "{status}");
    }
}

#[tokio::test]
async fn what_is_asked_is_a_plain_request() {
    let asked = ask("HTTP/1.1 200 OK\r\n\r\nbody until the end").await;

    let head = asked.heard.to_lowercase();
    assert!(head.starts_with("get /health?x=1 http/1.1\r\n"), "{head}");
    for line in ["host: localhost:", "connection: close\r\n", "user-agent: cluster-probe/"] {
        assert!(head.contains(line), "{head}");
    }
}

#[tokio::test]
async fn a_bad_answer_says_what_was_bad() {
    for (answer, message) in [
        (
            "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
            "answered 503 Service Unavailable",
        ),
        ("HTTP/1.1 404 Not Found\r\n\r\n", "answered 404 Not Found"),
        ("", "closed without an answer"),
        ("HTTP/1.1 200", "closed without an answer"),
        ("SSH-2.0-OpenSSH\r\n\r\n", "not HTTP"),
        ("\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\n", "not HTTP"),
    ] {
        let error = ask(answer).await.answer.unwrap_err();
        assert!(error.contains(message), "{answer:?}: {error}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_not_waited_for_for_ever() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let question = Question::new(to).unwrap();
    let asked = Instant::now();

    let error = question.ask(&http(None), Duration::from_millis(50)).await.unwrap_err();

    assert_eq!(error, format!("no answer from {to} within 50ms"));
    assert!(asked.elapsed() < PATIENCE);
}

#[tokio::test]
async fn a_body_without_an_end_is_not_waited_for() {
    let asked = Instant::now();
    let (to, server) = serve("HTTP/1.1 200 OK\r\n\r\n", true);

    let answer = Question::new(to).unwrap().ask(&http(None), Duration::from_secs(30)).await;

    assert_eq!(answer, Ok(()));
    assert!(asked.elapsed() < PATIENCE);
    // The connection ends in a task of this thread.
    tokio::task::spawn_blocking(|| server.join().unwrap()).await.unwrap();
}

#[tokio::test]
async fn nobody_there_is_refused() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = Question::new(gone).unwrap().ask(&http(None), PATIENCE).await.unwrap_err();
    assert_eq!(error, format!("{gone} refused the connection"));
}

#[tokio::test]
async fn to_be_accepted_is_enough_for_tcp_and_comes_from_the_source() {
    for at in ["0.0.0.0:0", "127.0.0.2:0", "[::]:0", "[::1]:0"] {
        let listener = TcpListener::bind(at).unwrap();
        let question = Question::new(listener.local_addr().unwrap()).unwrap();
        let (from, to) = (question.from(), question.to());
        assert!(!to.ip().is_unspecified() && from.port() != 0, "{at}: {from} to {to}");

        question.ask(&ProbeTarget::Tcp { port: None }, PATIENCE).await.unwrap();

        assert_eq!(listener.accept().unwrap().1, from, "{at}");
    }
}

struct Asked {
    answer: Result<(), String>,
    heard: String,
}

/// Asks a server that says this and hangs up.
async fn ask(says: &str) -> Asked {
    let (to, server) = serve(says, false);
    let question = Question::new(to).unwrap();
    let answer = question.ask(&http(Some("localhost")), PATIENCE).await;
    Asked { answer, heard: server.join().unwrap() }
}

fn http(host: Option<&str>) -> ProbeTarget {
    let path = "/health?x=1".to_owned();
    ProbeTarget::Http { host: host.map(str::to_owned), port: None, path }
}

/// A server for one connection, and what it hears. It goes on talking until the client hangs up, if it is to.
fn serve(says: &str, endlessly: bool) -> (SocketAddr, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (to, says) = (listener.local_addr().unwrap(), says.to_owned());
    let server = thread::spawn(move || {
        let mut connection = listener.accept().unwrap().0;
        let heard = head(&mut connection);
        connection.write_all(says.as_bytes()).unwrap();
        while endlessly && connection.write_all(&[b'x'; 1024]).is_ok() {}
        heard
    });
    (to, server)
}

fn head(connection: &mut Connection) -> String {
    let mut heard = Vec::new();
    let mut byte = [0];
    while !heard.ends_with(b"\r\n\r\n") && connection.read(&mut byte).unwrap() == 1 {
        heard.extend(byte);
    }
    String::from_utf8(heard).unwrap()
}
