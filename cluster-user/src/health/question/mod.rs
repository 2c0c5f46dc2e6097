//! Asking a worker over the network: the source is known before the connection is made, so that it can be steered.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::http;
use crate::config::{duration, spec::ProbeTarget};

/// A connection to be, bound to its source.
#[derive(Debug)]
pub struct Question {
    socket: TcpSocket,
    from: SocketAddr,
    to: SocketAddr,
}

impl Question {
    /// Prepares a question to who listens on an address; where that stands for all, it is asked over loopback.
    /// To be called inside a tokio runtime.
    ///
    /// # Errors
    /// When no source can be bound: ports have run out, or the address is no longer this host's.
    pub fn new(listening: SocketAddr) -> io::Result<Self> {
        let mut to = listening;
        match listening.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => to.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => to.set_ip(Ipv6Addr::LOCALHOST.into()),
            IpAddr::V4(_) | IpAddr::V6(_) => {}
        }
        let bound = Self::bind(to);
        // A host may have no IPv6 on its loopback while a socket for both families serves IPv4.
        match (bound, listening.ip()) {
            (Err(_), IpAddr::V6(ip)) if ip.is_unspecified() => {
                Self::bind((Ipv4Addr::LOCALHOST, listening.port()).into())
            }
            (bound, _) => bound,
        }
    }

    fn bind(to: SocketAddr) -> io::Result<Self> {
        let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A host speaks to an address of its own from that address.
        let mut from = to;
        from.set_port(0);
        socket.bind(from)?;
        let from = socket.local_addr()?;
        Ok(Self { socket, from, to })
    }

    /// Where it comes from.
    pub fn from(&self) -> SocketAddr {
        self.from
    }

    /// Where it goes to.
    pub fn to(&self) -> SocketAddr {
        self.to
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// A lowercase fragment that completes "probe failed: …".
    pub async fn ask(self, target: &ProbeTarget, patience: Duration) -> Result<(), String> {
        let Self { socket, to, .. } = self;
        let answer = async {
            let stream = connect(socket, to).await?;
            match target {
                ProbeTarget::Http { host, path, .. } => {
                    let host = host.as_deref().map(|host| format!("{host}:{}", to.port()));
                    http::get(stream, &host.unwrap_or_else(|| to.to_string()), path).await
                }
                // That it was accepted is the answer. A command is not asked over the network.
                ProbeTarget::Tcp { .. } | ProbeTarget::Command(_) => Ok(()),
            }
        };
        timeout(patience, answer).await.unwrap_or_else(|_late| {
            Err(format!("no answer from {to} within {}", duration::format(patience)))
        })
    }
}

async fn connect(socket: TcpSocket, to: SocketAddr) -> Result<TcpStream, String> {
    socket.connect(to).await.map_err(|error| {
        if error.kind() == io::ErrorKind::ConnectionRefused {
            format!("{to} refused the connection")
        } else {
            format!("failed to connect to {to}: {error}")
        }
    })
}

#[cfg(test)]
mod tests;
