//! A worker that writes what its client tells it to, and such a client.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use super::world::{PATIENCE, World, in_a_world};
use crate::{
    datapath::{DataPath as _, Traffic},
    id::{GroupId, WorkerId},
};

pub(super) const GROUP: GroupId = GroupId(0);
const ADDRESS: &str = "127.0.0.1:8080";

/// Does what the body of each request says, line by line.
pub(super) const PUPPET: &str = "
import os, socket, sys, tempfile, threading, time
family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
s = socket.socket(family); s.bind((sys.argv[1], int(sys.argv[2]))); s.listen(4096)
threading.stack_size(256 * 1024)
def serve(c):
    c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    got, dialled = b'', None
    def more():
        nonlocal got
        # A signal makes a blocking call fail instead of going on, in a map of sockets (tcp_msg_wait_data).
        while True:
            try: some = c.recv(65536); break
            except BlockingIOError: pass
        got += some
        return some
    while True:
        while b'\\r\\n\\r\\n' not in got:
            if not more(): c.close(); return
        head, got = got.split(b'\\r\\n\\r\\n', 1)
        length = [int(l[15:]) for l in head.split(b'\\r\\n') if l.lower().startswith(b'content-length:')]
        length = length[0] if length else 0
        if b'100-continue' in head: c.sendall(b'HTTP/1.1 100 Continue\\r\\n\\r\\n')
        while len(got) < length:
            if not more(): c.close(); return
        body, got = got[:length], got[length:]
        for line in body.split(b'\\n'):
            word, _, rest = line.decode().partition(' ')
            if word == 'write': c.sendall(bytes.fromhex(rest))
            elif word == 'nap':
                # By the clock that ticks (CLOCK_MONOTONIC_COARSE): it may be late, as may the times that the kernel has.
                ticked = lambda: time.clock_gettime_ns(6)
                awake = ticked() + 20_000_000
                while ticked() < awake: time.sleep(0.001)
            elif word == 'fill': c.sendall(b'x' * int(rest))
            elif word == 'take':
                while len(got) < int(rest): more()
                got = got[int(rest):]
            elif word in ('sendfile', 'splice'):
                data = bytes.fromhex(rest)
                with tempfile.TemporaryFile() as f:
                    f.write(data); f.flush()
                    if word == 'sendfile':
                        os.sendfile(c.fileno(), f.fileno(), 0, len(data))
                    else:
                        f.seek(0)
                        r, w = os.pipe()
                        os.splice(f.fileno(), w, len(data)); os.splice(r, c.fileno(), len(data))
                        os.close(r); os.close(w)
            elif word == 'dial': dialled = socket.create_connection(('127.0.0.1', int(rest)))
            elif word == 'tell': dialled.sendall(bytes.fromhex(rest))
            elif word == 'close': c.close(); return
while True:
    threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
";

pub(super) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
pub(super) const TOLD: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";

/// Runs a test with one worker, a puppet.
pub(super) fn with_puppet(test: impl FnOnce(&mut World, WorkerId) + Send + 'static) {
    in_a_world(|world| {
        let worker = world.group_of(GROUP, 1, PUPPET, "127.0.0.1", 8080)[0];
        world.publish(GROUP, &[1]);
        test(world, worker);
    });
}

pub(super) fn drain(world: &mut World, worker: WorkerId) -> Traffic {
    world.kernel.drain(worker).unwrap()
}

pub(super) fn hang_up(world: &mut World, worker: WorkerId) -> u32 {
    world.kernel.hang_up(worker, Duration::from_millis(20)).unwrap()
}

/// How many connections were told so far.
pub(super) fn told(world: &World) -> u64 {
    world.kernel.drain.stats().unwrap().told
}

/// The response with the notice in it.
pub(super) fn told_of(response: &str) -> String {
    response.replacen("\r\n", "\r\nConnection: close\r\n", 1)
}

/// Writes a little later, so that anybody can see that this is at rest: by the clock of the kernel, which ticks every 10 ms
/// at least, it is answered later than it asked.
pub(super) fn write_later(text: &str) -> String {
    ["nap".to_owned(), write(text)].concat_lines()
}

pub(super) fn write(text: &str) -> String {
    format!("write {}", hex(text))
}

pub(super) fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

/// A request with these lines in its body.
pub(super) fn request(lines: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{lines}", lines.len())
        .into_bytes()
}

pub(super) trait ConcatLines {
    /// As the lines of one body.
    fn concat_lines(&self) -> String;
}

impl<const COUNT: usize> ConcatLines for [String; COUNT] {
    fn concat_lines(&self) -> String {
        self.join("\n")
    }
}

/// A client.
pub(super) struct Wire(pub(super) TcpStream);

impl Wire {
    pub(super) fn open() -> Self {
        Self::to(ADDRESS)
    }

    pub(super) fn to(address: &str) -> Self {
        let address: SocketAddr = address.parse().unwrap();
        let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    /// One that has been served and is idle.
    pub(super) fn at_rest() -> Self {
        let mut wire = Self::open();
        wire.ask(&write_later(OK));
        wire.expect(OK);
        wire
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    pub(super) fn ask(&mut self, lines: &str) {
        self.send(&request(lines));
    }

    #[track_caller]
    pub(super) fn expect(&mut self, text: &str) {
        let mut said = vec![0; text.len()];
        let result = self.0.read_exact(&mut said);
        let said = String::from_utf8_lossy(&said);
        assert!(result.is_ok(), "{result:?}: {said:?}");
        assert_eq!(said, text);
        // What is not acknowledged counts as under way, and an acknowledgement may be put off for 40 ms (tcp(7)).
        rustix::net::sockopt::set_tcp_quickack(&self.0, true).unwrap();
    }

    #[track_caller]
    pub(super) fn expect_end(&mut self) {
        assert_eq!(self.0.read(&mut [0; 100]).unwrap(), 0);
    }

    pub(super) fn close(self) {
        drop(self.0);
    }
}
