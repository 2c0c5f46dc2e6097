//! Segments: stray TCP segments, such as a scan or an old peer sends, to a port that listens.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Flag bits of a TCP header.
pub const FIN: u8 = 0x01;
/// See [`FIN`].
pub const RST: u8 = 0x04;
/// See [`FIN`].
pub const ACK: u8 = 0x10;

const HEADER: usize = 20;
const TCP: u8 = 6;

/// Sends segments that belong to no connection.
#[derive(Debug)]
pub struct Strays {
    socket: Socket,
    port: u16,
}

impl Strays {
    /// To a port of 127.0.0.1.
    pub fn to(port: u16) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP));
        Self { socket: socket.expect("a raw socket needs root"), port }
    }

    /// Sends one with these flags, from a port that no client here uses.
    pub fn send(&self, source: u16, flags: u8) {
        let to = SockAddr::from(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)));
        let segment = segment(source, self.port, flags);
        self.socket.send_to(&segment, &to).expect("failed to send a segment");
    }
}

/// Segments of no connection, as fast as they can be sent, until it is stopped.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<()>,
}

impl Flood {
    /// To a port of 127.0.0.1 in the network of the calling thread.
    pub fn start(port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let sender = thread::spawn(move || {
            let strays = Strays::to(port);
            let sources = (10_000..15_000).cycle();
            for source in sources.take_while(|_| !stopped.load(Ordering::Relaxed)) {
                for flags in [RST, FIN | ACK, ACK] {
                    strays.send(source, flags);
                }
            }
        });
        Self { stop, sender }
    }

    /// Sends no more.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.sender.join().expect("segments can be sent");
    }
}

/// A bare header with a right checksum; the kernel drops one with a wrong one before any lookup.
fn segment(source: u16, port: u16, flags: u8) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[0..2].copy_from_slice(&source.to_be_bytes());
    header[2..4].copy_from_slice(&port.to_be_bytes());
    header[4..8].copy_from_slice(&1_000_u32.to_be_bytes());
    header[8..12].copy_from_slice(&2_000_u32.to_be_bytes());
    header[12] = 5 << 4;
    header[13] = flags;
    header[14..16].copy_from_slice(&1_024_u16.to_be_bytes());
    let sum = checksum(&header);
    header[16..18].copy_from_slice(&sum.to_be_bytes());
    header
}

/// RFC 9293, section 3.1: over the header and the pseudo header, here from 127.0.0.1 to itself.
fn checksum(header: &[u8; HEADER]) -> u16 {
    let address = Ipv4Addr::LOCALHOST.octets();
    let length = [0, 20];
    let words = [&address[..], &address[..], &[0, TCP], &length[..], &header[..]].concat();
    let mut sum: u32 =
        words.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_with_its_checksum_adds_up_to_nothing() {
        assert_eq!(checksum(&segment(4_000, 8_080, ACK)), 0);
    }
}
