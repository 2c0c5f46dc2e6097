//! Door: a TCP port that is listened on, and can be closed at once, whoever waits there.

use std::{
    future::poll_fn,
    io,
    net::{IpAddr, Shutdown, SocketAddr},
    sync::{Mutex, MutexGuard, PoisonError},
    task::Poll,
};

use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// A listening socket, until it is closed.
#[derive(Debug)]
pub(super) struct Door(Mutex<Option<TcpListener>>);

impl Door {
    /// Listens there.
    ///
    /// Never with `SO_REUSEPORT`, not even for a moment: the kernel remembers for as long as the port is in use that those who
    /// have it would share it (`fastreuseport` of the bind bucket), and lets in other programs of this user that say so, too.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub(super) fn open(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(Self(Mutex::new(Some(TcpListener::from_std(socket.into())?))))
    }

    /// Waits for somebody; for ever when it is closed.
    ///
    /// # Errors
    /// When accepting fails, for want of descriptors say.
    pub(super) async fn accept(&self) -> io::Result<TcpStream> {
        poll_fn(|context| match self.lock().as_ref() {
            Some(listener) => listener.poll_accept(context).map_ok(|(stream, _)| stream),
            None => Poll::Pending,
        })
        .await
    }

    /// Leaves the port to others, who have it once this returns.
    pub(super) fn close(&self) {
        if let Some(listener) = self.lock().take() {
            // A child that has not come to its exec holds the socket, too, and would keep it listening.
            if let Err(error) = SockRef::from(&listener).shutdown(Shutdown::Both) {
                log::debug!("failed to shut a listener down before it is closed: {error}");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<TcpListener>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether who listens on the one is in the way of who wants the other.
pub(super) fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let [a, b] = [one, other].map(|address| address.ip().to_canonical());
    // To listen on `::` is to listen on all addresses of IPv4, too.
    let covers = |a: IpAddr, b: IpAddr| {
        a.is_unspecified() && (a.is_ipv6() || b.is_ipv4() || b.is_unspecified())
    };
    one.port() == other.port() && (a == b || covers(a, b) || covers(b, a))
}
