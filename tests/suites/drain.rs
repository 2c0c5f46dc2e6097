//! Workers leave while clients keep their connections: nothing is lost, and nothing is waited for.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use cluster_tests::{
    built::{fixture, static_go_server},
    host::{self, Host},
    http::{Connection, local},
    load::Load,
    wait,
};
use nix::sys::signal::Signal;

/// Far longer than any drain below takes.
const NEVER: &str = "60s";

#[test]
fn a_node_server_leaves_its_clients_without_a_loss() {
    leaves(&fixture("server.js"), "server");
}

#[test]
fn a_python_server_leaves_its_clients_without_a_loss() {
    leaves(&fixture("server.py"), "server");
}

#[test]
fn a_go_server_leaves_its_clients_without_a_loss() {
    leaves(&static_go_server().to_string_lossy(), "server-go");
}

/// Scales an unmodified app down and up again and stops some of it, under clients that keep their connections.
fn leaves(program: &str, name: &str) {
    let host = Host::kernel();
    host.cluster(&["start", program, "-i", "4", "--drain-timeout", NEVER]).ok();
    let load = Load::keep(local(8080), 16);
    for wanted in ["1", "4", "1"] {
        let began = Instant::now();
        host.cluster(&["scale", name, wanted]).ok();
        assert!(began.elapsed() < Duration::from_secs(20), "it was waited for");
    }
    let score = load.stop();
    assert_eq!(score.failed(), 0, "{score:#?}");
    assert!(score.answered() > 100, "{score:#?}");
}

#[test]
fn a_connection_that_has_waited_for_a_worker_is_told_as_well() {
    let host = Host::kernel();
    let server = fixture("server.js");
    let delay = ["--restart-delay", "500ms", "--drain-timeout", NEVER];
    host.cluster(&[&["start", &server, "--instances", "1"][..], &delay].concat()).ok();
    host::signal(host.pids("server")[0], Signal::SIGKILL);
    let mut waited = Connection::open(local(8080)).unwrap();
    waited.get().unwrap();

    let reload = host.begin(&["reload", "server"]);
    while !waited.is_closing() {
        assert!(waited.get().is_ok(), "it was not told, and the drain time is over");
    }
    drop(waited);

    reload.end().ok();
}

#[test]
fn a_restart_under_kept_connections_fails_no_request() {
    let host = Host::kernel();
    let server = fixture("server.js");
    host.cluster(&["start", &server, "-i", "2", "--drain-timeout", NEVER]).ok();
    let before = host.pids("server");
    let load = Load::keep(local(8080), 8);

    host.cluster(&["restart", "server"]).ok();

    let score = load.stop();
    assert_eq!(score.failed(), 0, "{score:#?}");
    assert!(host.pids("server").iter().all(|pid| !before.contains(pid)));
}

#[test]
fn a_stop_waits_for_the_answer_to_a_first_request() {
    let host = Host::kernel();
    let script = host.write("slow.js", SLOW);
    host.cluster(&["start", &script, "--drain-timeout", NEVER]).ok();
    // Some ask in the same tick of the kernel's clock in which their connection is made.
    let mut clients: Vec<_> = (0..16)
        .map(|_| {
            let mut stream = TcpStream::connect(local(8080)).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            stream
        })
        .collect();
    wait::until_true("all have asked", || host.work().join("all").exists());

    host.cluster(&["stop", "slow"]).ok();

    for client in &mut clients {
        let mut head = [0; 15];
        client.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1 200 OK");
    }
}

/// Answers after five seconds, and has no handler for its end.
const SLOW: &str = r#"
let asked = 0;
require("http").createServer((_, response) => {
    if (++asked === 16) require("fs").writeFileSync("all", "");
    setTimeout(() => response.end("late"), 5000);
}).listen(8080);
"#;

#[test]
fn a_connection_that_is_idle_is_told_when_it_asks_again() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "2", "--drain-timeout", NEVER]).ok();
    let mut kept: Vec<_> = (0..2).map(|_| Connection::open(local(8080)).unwrap()).collect();
    for connection in &mut kept {
        connection.get().unwrap();
    }

    thread::scope(|scope| {
        let scaling = scope.spawn(|| host.cluster(&["scale", "app", "1"]));
        host.until("app", "is draining one worker", |app| app.workers.len() == 2);
        // The one that is to leave says so; the other never does.
        while !kept.iter().any(Connection::is_closing) {
            for connection in &mut kept {
                connection.get().unwrap();
            }
        }
        kept.retain(|connection| !connection.is_closing());
        scaling.join().unwrap().ok();
    });

    assert_eq!(kept.len(), 1);
    kept[0].get().unwrap();
    assert!(!kept[0].is_closing());
}

#[test]
fn no_byte_of_any_body_changes() {
    let host = Host::kernel();
    host.cluster(&["start", &fixture("moods.py"), "-i", "4", "--drain-timeout", NEVER]).ok();
    let (stop, told, asked) = (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        for number in 0..12 {
            let (stop, told, asked) = (&stop, &told, &asked);
            scope.spawn(move || {
                let mut dice = number + 1;
                while !stop.load(Ordering::Relaxed) {
                    let mut wire = Wire::open(local(8080)).unwrap();
                    // Not for ever, or all of them would end up at the worker that stays.
                    for _ in 0..20 + roll(&mut dice, 20) {
                        let closing = wire.exchange(&mut dice).unwrap();
                        asked.fetch_add(1, Ordering::Relaxed);
                        if closing {
                            told.fetch_add(1, Ordering::Relaxed);
                            break;
                        }
                    }
                }
            });
        }
        let began = Instant::now();
        while told.load(Ordering::Relaxed) < 30 && began.elapsed() < Duration::from_secs(20) {
            for wanted in ["1", "4"] {
                host.cluster(&["scale", "moods", wanted]).ok();
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let (told, asked) = (told.into_inner(), asked.into_inner());
    assert!(told >= 30, "{told} connections were told, with {asked} requests");
    assert!(asked > 100, "{asked} requests");
}

/// A client that checks every byte.
struct Wire(BufReader<TcpStream>);

impl Wire {
    fn open(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(15)))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Asks in some way and checks the answer; says whether it was told to close.
    fn exchange(&mut self, dice: &mut u32) -> io::Result<bool> {
        let stream = self.0.get_mut();
        let body = "HTTP/1.1 200 OK\r\n\r\n".repeat(roll(dice, 3));
        let length = body.len();
        let request =
            format!("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}");
        let cut = roll(dice, request.len());
        match roll(dice, 3) {
            0 => stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")?,
            1 => stream.write_all(request.as_bytes())?,
            _ => {
                stream.write_all(&request.as_bytes()[..cut])?;
                stream.write_all(&request.as_bytes()[cut..])?;
            }
        }
        let mut said = Vec::new();
        self.line(&mut said)?;
        let opening = said.len();
        let (mut length, mut chunked, mut sum, mut told) = (0, false, None, false);
        loop {
            let from = said.len();
            self.line(&mut said)?;
            let line = String::from_utf8_lossy(&said[from..]).trim_end().to_ascii_lowercase();
            match line.split_once(": ") {
                None => break,
                // The one place where something may have been inserted.
                Some(("connection", "close")) if from == opening => {
                    assert_eq!(&said[from..], b"Connection: close\r\n");
                    said.truncate(from);
                    told = true;
                }
                Some(("content-length", value)) => length = value.parse().unwrap(),
                Some(("transfer-encoding", _)) => chunked = true,
                Some(("x-sum", value)) => {
                    sum = Some(u32::from_str_radix(value, 16).unwrap());
                    said[from..from + 15].copy_from_slice(b"X-Sum: 00000000");
                }
                Some(_) => {}
            }
        }
        while chunked {
            let from = said.len();
            self.line(&mut said)?;
            let size = String::from_utf8_lossy(&said[from..]);
            let size = usize::from_str_radix(size.trim_end(), 16).unwrap();
            self.bytes(&mut said, size + 2)?;
            chunked = size > 0;
        }
        self.bytes(&mut said, length)?;
        let text = || String::from_utf8_lossy(&said[..said.len().min(2000)]).into_owned();
        assert_eq!(sum, Some(crc32(&said)), "told: {told}: {}", text());
        Ok(told)
    }

    fn line(&mut self, said: &mut Vec<u8>) -> io::Result<()> {
        match self.0.read_until(b'\n', said)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    fn bytes(&mut self, said: &mut Vec<u8>, count: usize) -> io::Result<()> {
        let from = said.len();
        said.resize(from + count, 0);
        self.0.read_exact(&mut said[from..])
    }
}

/// A number below `sides`.
fn roll(dice: &mut u32, sides: usize) -> usize {
    *dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    (*dice >> 8) as usize % sides
}

/// As in `zlib`.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(sum & 1))
        })
    })
}
