//! Unmodified servers on one port, as root and without a privilege.
//!
//! Each test runs itself again in a process of its own, in a network namespace of its own.

mod adopting;
mod host;
mod rescue;

use std::{
    env,
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::PathBuf,
    process::Command,
    thread,
    time::Instant,
};

use nix::sched::{CloneFlags, unshare};

use self::host::{Host, options};
use super::*;

const PORT: u16 = 8080;

/// Answers with its pid. `http.server` knows nothing of its neighbours.
const PYTHON: &str = "
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(str(os.getpid()).encode())
    def log_message(self, *args): pass
http.server.HTTPServer(('127.0.0.1', 8080), Handler).serve_forever()
";

const NODE: &str =
    "require('http').createServer((_, answer) => answer.end(String(process.pid))).listen(8080)";

const GO: &str = "
package main
import (
    \"fmt\"
    \"net/http\"
    \"os\"
)
func main() {
    http.HandleFunc(\"/\", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, os.Getpid()) })
    fmt.Println(http.ListenAndServe(\"127.0.0.1:8080\", nil))
}
";

#[test]
fn python_servers_share_a_port() {
    inside("python_servers_share_a_port", &[0, 65534], || {
        let mut host = Host::new();
        for _ in 0..2 {
            host.start(&["/usr/bin/python3", "-c", PYTHON]);
        }
        host.join_all(2);
        assert_eq!(host.asked(60).len(), 2);
    });
}

#[test]
fn node_servers_share_a_port() {
    inside("node_servers_share_a_port", &[0, 65534], || {
        let Some(node) = installed("node") else { return };
        let mut host = Host::new();
        for _ in 0..2 {
            host.start(&[&node, "-e", NODE]);
        }
        host.join_all(2);
        assert_eq!(host.asked(60).len(), 2);
    });
}

#[test]
fn static_go_servers_share_a_port() {
    inside("static_go_servers_share_a_port", &[0], || {
        let Some(go) = installed("go") else { return };
        let folder = env::temp_dir().join(format!("cluster-go-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("main.go"), GO).unwrap();
        let mut build = Command::new(go);
        build
            .args(["build", "-o", "server", "main.go"])
            .current_dir(&folder)
            .env("CGO_ENABLED", "0");
        let built = build.status().unwrap().success();
        let server = folder.join("server");
        let mut host = Host::new();
        for _ in 0..2 {
            host.start(&[server.to_str().unwrap()]);
        }
        host.join_all(2);
        assert_eq!(host.asked(60).len(), 2);
        drop(host);
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(built);
    });
}

#[test]
fn udp_servers_share_a_port_and_are_reported_once_bound() {
    const ECHO: &str = "
import os, socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('127.0.0.1', 8080))
while True:
    data, peer = s.recvfrom(99)
    s.sendto(str(os.getpid()).encode(), peer)
";
    inside("udp_servers_share_a_port_and_are_reported_once_bound", &[0, 65534], || {
        let mut host = Host::new();
        for _ in 0..2 {
            host.start(&["/usr/bin/python3", "-c", ECHO]);
        }
        let keys = host.join_all(2);
        assert!(keys.iter().all(|key| key.protocol == Protocol::Udp));
        let mut answers = BTreeMap::<String, u32>::new();
        for _ in 0..60 {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            socket.send_to(b"who?", address()).unwrap();
            let mut answer = [0; 32];
            let length = socket.recv(&mut answer).unwrap();
            *answers.entry(String::from_utf8_lossy(&answer[..length]).into_owned()).or_default() +=
                1;
        }
        assert_eq!(answers.len(), 2);
    });
}

#[test]
fn what_is_not_ours_runs_untouched() {
    // A port chosen by the kernel, one that is not to be balanced, a Unix socket, a taken port, and a
    // socket that does not listen: the script says what it saw.
    const SCRIPT: &str = "
import socket, os, tempfile
one = socket.create_server(('127.0.0.1', 0))
assert one.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 0
two = socket.create_server(('127.0.0.1', 9999))
assert two.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 0
path = tempfile.mktemp()
three = socket.socket(socket.AF_UNIX); three.bind(path); three.listen(); os.unlink(path)
try:
    socket.create_server(('127.0.0.1', 9999))
    assert False
except OSError as error:
    assert error.errno == 98
try:
    socket.socket(socket.AF_UNIX).listen()
    assert False
except OSError as error:
    assert error.errno == 22
try:
    socket.socket(fileno=os.open('/dev/null', 0), family=2, type=1, proto=0).bind(('127.0.0.1', 8080))
    assert False
except OSError as error:
    assert error.errno == 88
four = socket.create_server(('127.0.0.1', 8080), backlog=7)
assert four.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 1
";
    inside("what_is_not_ours_runs_untouched", &[0, 65534], || {
        let mut host = Host::new();
        host.ports = vec![PORT];
        host.start(&["/usr/bin/python3", "-c", SCRIPT]);
        let Report::Listening { key, .. } =
            host.next(|report| matches!(report, Report::Listening { .. }))
        else {
            unreachable!()
        };
        assert_eq!(key.address, address());
        // The script has come to its last line: had it seen anything else, it would not listen now.
    });
}

#[test]
fn threads_and_descendants_of_a_worker_are_the_worker() {
    const SCRIPT: &str = "
import socket, os, threading, time
main = os.getpid()
def serve(port):
    held = socket.create_server(('127.0.0.1', port))
    while os.getpid() == main or os.getppid() == main: time.sleep(0.02)
if os.fork() == 0:
    os.setsid()
    serve(8081)
    os._exit(0)
threading.Thread(target=serve, args=(8080,)).start()
";
    inside("threads_and_descendants_of_a_worker_are_the_worker", &[0, 65534], || {
        let mut host = Host::new();
        let worker = host.start(&["/usr/bin/python3", "-c", SCRIPT]);
        let mut ports = Vec::new();
        for _ in 0..2 {
            let report = host.next(|report| matches!(report, Report::Listening { .. }));
            let Report::Listening { worker: of, key, .. } = report else { unreachable!() };
            assert_eq!(of, worker);
            ports.push(key.address.port());
        }
        ports.sort_unstable();
        assert_eq!(ports, [8080, 8081]);
    });
}

#[test]
fn a_worker_cannot_bind_beside_a_stranger_who_shares() {
    inside("a_worker_cannot_bind_beside_a_stranger_who_shares", &[0, 65534], || {
        let stranger = sharing();
        stranger.bind(&address().into()).unwrap();
        stranger.listen(16).unwrap();
        let mut host = Host::new();
        let worker = host.start(&["/usr/bin/python3", "-c", PYTHON]);
        host.fails_to_bind(worker);
    });
}

#[test]
fn a_worker_cannot_listen_beside_a_stranger_who_was_faster() {
    inside("a_worker_cannot_listen_beside_a_stranger_who_was_faster", &[0, 65534], || {
        let script = "
import errno, signal, socket, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
s = socket.socket()
s.bind(('127.0.0.1', 8080))
signal.sigwait([signal.SIGUSR1])
try:
    s.listen()
except OSError as error:
    sys.exit(error.errno == errno.EADDRINUSE)
";
        let mut host = Host::new();
        let worker = host.start(&["/usr/bin/python3", "-c", script]);
        host.next(|report| matches!(report, Report::Binding { .. }));
        let stranger = sharing();
        stranger.bind(&address().into()).unwrap();
        stranger.listen(16).unwrap();
        let (_, spawned) = &host.workers[0];
        rustix::process::pidfd_send_signal(&spawned.process, rustix::process::Signal::USR1)
            .unwrap();
        host.fails_to_bind(worker);
    });
}

#[test]
fn workers_of_two_apps_cannot_bind_to_the_same_port_or_in_its_way() {
    inside("workers_of_two_apps_cannot_bind_to_the_same_port_or_in_its_way", &[0, 65534], || {
        let mut host = Host::new();
        host.start(&["/usr/bin/python3", "-c", PYTHON]);
        host.join_all(1);
        for at in ["127.0.0.1", "0.0.0.0"] {
            let rival = PYTHON.replace("127.0.0.1", at);
            let rival = host.start_of(AppId(1), &["/usr/bin/python3", "-c", &rival]);
            host.fails_to_bind(rival);
        }
        let same = host.start(&["/usr/bin/python3", "-c", PYTHON]);
        host.next(|report| matches!(report, Report::Listening { worker, .. } if *worker == same));
        assert_eq!(host.asked(20).len(), 2);
    });
}

#[test]
fn connections_of_a_worker_are_counted() {
    inside("connections_of_a_worker_are_counted", &[0, 65534], || {
        const ACCEPT_TWO: &str = "
import socket, time
s = socket.create_server(('127.0.0.1', 8080))
held = [s.accept() for _ in range(2)]
time.sleep(1000)
";
        let mut host = Host::new();
        let worker = host.start(&["/usr/bin/python3", "-c", ACCEPT_TWO]);
        host.join_all(1);
        assert_eq!(host.plain.traffic(worker).unwrap(), Traffic::default());
        let _held: Vec<_> = (0..5).map(|_| TcpStream::connect(address()).unwrap()).collect();
        let wanted = Traffic { queued: 3, established: 5, ..Traffic::default() };
        let begin = Instant::now();
        while host.plain.traffic(worker).unwrap() != wanted {
            assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", host.plain.traffic(worker));
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(host.plain.connections().unwrap(), BTreeMap::from([(worker, 5)]));
    });
}

#[test]
fn a_worker_that_dies_or_is_dismissed_is_forgotten() {
    inside("a_worker_that_dies_or_is_dismissed_is_forgotten", &[0], || {
        let mut host = Host::new();
        let worker = host.start(&["/usr/bin/python3", "-c", PYTHON]);
        let report = host.next(|report| matches!(report, Report::Listening { .. }));
        let Report::Listening { ticket, .. } = report else { unreachable!() };
        host.end(worker);
        // Its notifier has nobody left; this must not keep the loop busy.
        assert!(host.poll(Duration::from_millis(50)).is_none());
        host.plain.dismiss(worker);
        assert!(matches!(host.plain.open(GroupId(0), ticket, &options()), Err(JoinError::Gone)));
        // The port is free: the duplicate went with the ticket.
        drop(TcpListener::bind(address()).unwrap());
    });
}

/// A socket that shares its port by its own will.
fn sharing() -> socket2::Socket {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket
}

fn address() -> SocketAddr {
    ([127, 0, 0, 1], PORT).into()
}

/// Path of a program on PATH that anybody may execute.
fn installed(program: &str) -> Option<String> {
    let found: Option<PathBuf> = which::which(program).ok();
    if found.is_none() {
        eprintln!("skipped: {program} is not installed");
    }
    found.map(|path| path.to_string_lossy().into_owned())
}

/// Runs `body` in a process and a network namespace of its own, once as each of `uids`.
fn inside(test: &str, uids: &[u32], body: impl Fn()) {
    const INSIDE: &str = "CLUSTER_TEST_INSIDE";
    if env::var_os(INSIDE).is_some() {
        return body();
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can make network namespaces");
        return;
    }
    let name = format!("{}::{test}", module_path!().split_once("::").unwrap().1);
    // Namespaces belong to threads; one that ends takes its own with it.
    let failed = thread::scope(|scope| {
        let run = || {
            uids.iter().copied().find(|uid| {
                unshare(CloneFlags::CLONE_NEWNET).unwrap();
                Command::new("/bin/sh").args(["-c", "ip link set lo up"]).status().unwrap();
                let mut command = Command::new(env::current_exe().unwrap());
                command
                    .args(["--exact", &name, "--nocapture"])
                    .env(INSIDE, "1")
                    .uid(*uid)
                    .gid(*uid);
                let status = command.status().unwrap();
                status.code() != Some(0) || status.signal().is_some()
            })
        };
        scope.spawn(run).join().unwrap()
    });
    assert_eq!(failed, None, "failed as this uid");
}
