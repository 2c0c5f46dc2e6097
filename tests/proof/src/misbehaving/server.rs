//! A server that treats each request as a script says.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use socket2::{Domain, SockRef, Socket, Type};

use crate::content;

/// What it says its process is.
pub(super) const PID: u32 = 4_711;

/// Serves until the test's process ends.
pub(super) struct Server(SocketAddr);

/// A request as it came, on whose connection things are done as they are said.
pub(super) struct Asked {
    stream: TcpStream,
    head: String,
    posted: Vec<u8>,
    length: usize,
    number: usize,
    is_over: bool,
}

type Script = dyn Fn(Asked) -> Asked + Send + Sync;

impl Server {
    /// Serves each connection by a thread.
    pub(super) fn start(script: impl Fn(Asked) -> Asked + Send + Sync + 'static) -> Self {
        let listener = listen();
        let address = listener.local_addr().unwrap();
        let script: Arc<Script> = Arc::new(script);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let script = Arc::clone(&script);
                thread::spawn(move || serve(stream, &*script));
            }
        });
        Self(address)
    }

    /// Serves one connection after the other.
    pub(super) fn start_serially(script: impl Fn(Asked) -> Asked + Send + Sync + 'static) -> Self {
        let listener = listen();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            listener.incoming().flatten().for_each(|stream| serve(stream, &script));
        });
        Self(address)
    }

    /// Has a queue for one connection and takes none out of it.
    pub(super) fn that_never_accepts() -> SocketAddr {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        thread::spawn(move || {
            thread::park();
            drop(socket);
        });
        address
    }

    /// Where it serves.
    pub(super) fn address(&self) -> SocketAddr {
        self.0
    }
}

/// Listens, with a buffer so small that a body soon fills it.
fn listen() -> TcpListener {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    socket.listen(128).unwrap();
    socket.into()
}

/// Request by request, until the script has ended the connection or the client has.
fn serve(stream: TcpStream, script: &Script) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    for number in 0.. {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length = length.map_or(0, |length| length.parse().unwrap());
        let stream = stream.try_clone().unwrap();
        let posted = reader.buffer()[..length.min(reader.buffer().len())].to_vec();
        reader.consume(posted.len());
        let asked = script(Asked { stream, head, posted, length, number, is_over: false });
        if asked.is_over {
            return;
        }
    }
}

impl Asked {
    /// How many requests came over its connection before.
    pub(super) fn number(&self) -> usize {
        self.number
    }

    pub(super) fn id(&self) -> u64 {
        u64::try_from(self.query("id")).unwrap()
    }

    pub(super) fn size(&self) -> usize {
        self.query("size")
    }

    pub(super) fn from(&self) -> usize {
        self.query("from")
    }

    /// The right body.
    pub(super) fn body(&self) -> Vec<u8> {
        content::piece(self.from(), self.size()).to_vec()
    }

    /// The right head for a body with a length.
    pub(super) fn head(&self) -> String {
        let (id, size) = (self.id(), self.size());
        format!("HTTP/1.1 200 OK\r\nX-Id: {id}\r\nX-Pid: {PID}\r\nContent-Length: {size}\r\n\r\n")
    }

    /// Reads what the request has of a body.
    pub(super) fn reads(mut self) -> Self {
        let mut rest = vec![0; self.length - self.posted.len()];
        if self.stream.read_exact(&mut rest).is_ok() {
            self.posted.extend(rest);
        }
        self
    }

    /// Does all that it should.
    pub(super) fn answers(self) -> Self {
        self.reads().writes_answer()
    }

    /// The right answer.
    pub(super) fn writes_answer(self) -> Self {
        let body = if self.length > 0 { self.posted.clone() } else { self.body() };
        let pieces = self.query("pieces");
        let mut asked = if pieces == 0 {
            self.writes_head().writes(&body)
        } else {
            let (id, size) = (self.id(), body.len());
            let head = format!(
                "HTTP/1.1 200 OK\r\nX-Id: {id}\r\nX-Pid: {PID}\r\nTransfer-Encoding: chunked\r\n\r\n"
            );
            let parts = body.chunks(size.div_ceil(pieces));
            let parts = parts.fold(self.writes(&head), |asked, part| {
                asked.writes(format!("{:x}\r\n", part.len())).writes(part).writes("\r\n")
            });
            parts.writes("0\r\n\r\n")
        };
        if asked.head.contains("Connection: close") || asked.head.contains("HTTP/1.0") {
            asked = asked.closes();
        }
        asked
    }

    /// Sends the right head.
    pub(super) fn writes_head(self) -> Self {
        let head = self.head();
        self.writes(&head)
    }

    /// Sends bytes; a client that has gone does not get them.
    pub(super) fn writes(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.is_over |= self.stream.write_all(bytes.as_ref()).is_err();
        self
    }

    /// Closes as a process does that ends in order.
    pub(super) fn closes(mut self) -> Self {
        self.stream.shutdown(Shutdown::Both).unwrap_or_default();
        self.is_over = true;
        self
    }

    /// Closes as the kernel does when unread bytes are thrown away.
    pub(super) fn resets(mut self) -> Self {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
        self.is_over = true;
        self
    }

    /// Does nothing for that long.
    pub(super) fn pauses(self, time: Duration) -> Self {
        thread::sleep(time);
        self
    }

    /// Never does anything again.
    #[expect(clippy::unused_self, reason = "the connection stays open as long as it is held here")]
    pub(super) fn stalls(self) -> Self {
        loop {
            thread::park();
        }
    }

    fn query(&self, name: &str) -> usize {
        let (_, query) = self.head.split_once('?').unwrap();
        let query = query.split(' ').next().unwrap();
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).unwrap().1.parse().unwrap()
    }
}
