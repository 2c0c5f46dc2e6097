//! Connection: one TCP connection of a client, and what is known of its other end.

use std::{
    io,
    mem::MaybeUninit,
    net::SocketAddr,
    time::{Duration, Instant},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

/// Receive buffer of a slow reader: so small that the app has to wait for it.
const SMALL_BUFFER: u32 = 16 << 10;
/// Send buffer: so small that what counts as sent has arrived, but for so much.
const SEND_BUFFER: u32 = 64 << 10;
/// Read at once.
const READ: usize = 64 << 10;

/// Open, as far as the client knows.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    /// What has come and was not taken yet.
    buffer: Vec<u8>,
    /// The client's end.
    pub(crate) local: SocketAddr,
    /// Process that gave an answer over it.
    pub(crate) worker: Option<u32>,
    /// How many answers came over it.
    pub(crate) answers: u32,
    /// When it was used last.
    pub(crate) used: Instant,
    /// For how long the server keeps it without use, if it says so.
    pub(crate) idle_limit: Option<Duration>,
}

/// What a look at a connection that nobody uses shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Idle {
    /// Nothing has come: it can be used.
    Open,
    /// The server has closed it.
    Closed,
    /// The server, or the end of its process, has reset it.
    Reset,
    /// Bytes that belong to no answer.
    Surplus,
}

impl Connection {
    /// Connects; with a small receive buffer for who reads slowly.
    pub(crate) async fn open(to: SocketAddr, reads_slowly: bool) -> io::Result<Self> {
        let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_send_buffer_size(SEND_BUFFER)?;
        if reads_slowly {
            socket.set_recv_buffer_size(SMALL_BUFFER)?;
        }
        let stream = socket.connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            local: stream.local_addr()?,
            stream,
            buffer: Vec::new(),
            worker: None,
            answers: 0,
            used: Instant::now(),
            idle_limit: None,
        })
    }

    /// Sends some of these bytes; says how many.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes).await
    }

    /// Waits for more bytes and says how many came: 0 when the peer has closed.
    pub(crate) async fn receive(&mut self) -> io::Result<usize> {
        self.buffer.reserve(READ);
        self.stream.read_buf(&mut self.buffer).await
    }

    /// What has come and was not taken.
    pub(crate) fn buffered(&self) -> &[u8] {
        &self.buffer
    }

    /// Takes bytes from the front of what has come.
    pub(crate) fn consume(&mut self, count: usize) {
        self.buffer.drain(..count);
    }

    /// Asks the kernel itself: what the runtime knows of the socket may be a moment old, and a request sent
    /// into a connection that was closed before would be a failure of the client's own making.
    pub(crate) fn look(&self) -> Idle {
        if !self.buffer.is_empty() {
            return Idle::Surplus;
        }
        let mut byte = [MaybeUninit::uninit()];
        match SockRef::from(&self.stream).peek(&mut byte) {
            Ok(0) => Idle::Closed,
            Ok(_) => Idle::Surplus,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Idle::Open,
            Err(_) => Idle::Reset,
        }
    }
}
