//! One connection of a client, and the request that is under way on it.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr},
};

use mio::{Interest, Registry, Token, net::TcpStream};
use socket2::{Domain, Protocol, Socket, Type};

use super::answer::{Answer, Progress};
use crate::{arrival::Arrival, outcome::Failure};

/// Lets the kernel pick a port when it knows the other end: ports last longer (ip(7)).
const IP_BIND_ADDRESS_NO_PORT: i32 = libc::IP_BIND_ADDRESS_NO_PORT;

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    is_made: bool,
    asked: Option<Asked>,
    answer: Answer,
    /// How many requests may still be made on it.
    left: u32,
    /// Whether one was answered on it.
    is_used: bool,
}

#[derive(Debug)]
struct Asked {
    arrival: Arrival,
    begun: u64,
    text: Vec<u8>,
    written: usize,
}

/// What came of doing what a connection was ready for.
pub(super) enum Step {
    Wait,
    /// Nobody used it, and it has ended.
    Gone,
    Answered {
        arrival: Arrival,
        /// Who answers on this connection, if it says so: told once.
        worker: Option<String>,
        /// How much longer it took than it was to take, in nanoseconds, if that is said.
        overrun: Option<u64>,
        keep: bool,
        is_ok: bool,
    },
    Failed {
        arrival: Arrival,
        begun: u64,
        failure: Failure,
        /// A kept connection had ended before: every client asks again on a new one.
        again: bool,
    },
}

impl Connection {
    pub(super) fn begin(to: SocketAddr, from: Option<IpAddr>, reuse: u32) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(from) = from {
            let is_on: libc::c_int = 1;
            // SAFETY: the option takes one int, which outlives the call.
            unsafe {
                libc::setsockopt(
                    std::os::fd::AsRawFd::as_raw_fd(&socket),
                    libc::SOL_IP,
                    IP_BIND_ADDRESS_NO_PORT,
                    (&raw const is_on).cast(),
                    size_of::<libc::c_int>() as libc::socklen_t,
                )
            };
            socket.bind(&SocketAddr::new(from, 0).into())?;
        }
        match socket.connect(&to.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        let stream = TcpStream::from_std(socket.into());
        let answer = Answer::default();
        Ok(Self { stream, is_made: false, asked: None, answer, left: reuse, is_used: false })
    }

    pub(super) fn watch(&mut self, registry: &Registry, key: usize) -> io::Result<()> {
        registry.register(&mut self.stream, Token(key), Interest::READABLE | Interest::WRITABLE)
    }

    /// Whether the next request is the last one.
    pub(super) fn is_last(&self) -> bool {
        self.left == 1
    }

    pub(super) fn ask(&mut self, arrival: Arrival, text: Vec<u8>, begun: u64) {
        self.left -= 1;
        self.answer.clear();
        self.asked = Some(Asked { arrival, begun, text, written: 0 });
    }

    /// When its request was due, if it has one.
    pub(super) fn due(&self) -> Option<u64> {
        self.asked.as_ref().map(|asked| asked.arrival.due)
    }

    /// When its request was begun.
    pub(super) fn begun(&self) -> u64 {
        self.asked.as_ref().map_or(0, |asked| asked.begun)
    }

    /// Writes and reads as much as there is.
    pub(super) fn go_on(&mut self) -> Step {
        match self.try_go_on() {
            Ok(step) => step,
            Err(error) => self.fail(cause(&error)),
        }
    }

    fn try_go_on(&mut self) -> io::Result<Step> {
        if !self.is_made {
            if let Some(error) = self.stream.take_error()? {
                return Err(error);
            }
            match self.stream.peer_addr() {
                Ok(_) => self.is_made = true,
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(Step::Wait),
                Err(error) => return Err(error),
            }
        }
        if let Some(asked) = &mut self.asked {
            while asked.written < asked.text.len() {
                match self.stream.write(&asked.text[asked.written..]) {
                    Ok(count) => asked.written += count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
        let mut chunk = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) if self.asked.is_none() => return Ok(Step::Gone),
                Ok(0) => {
                    return Ok(match self.answer.end() {
                        Progress::Whole { worker, overrun, is_ok, .. } => {
                            self.whole(worker, overrun, false, is_ok)
                        }
                        Progress::Part | Progress::Bad => self.fail(Failure::Reset),
                    });
                }
                Ok(count) => match self.answer.take(&chunk[..count]) {
                    Progress::Part => {}
                    Progress::Whole { worker, overrun, keep, is_ok } => {
                        return Ok(self.whole(worker, overrun, keep, is_ok));
                    }
                    Progress::Bad => return Ok(self.fail(Failure::Bad)),
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Step::Wait),
                Err(error) => return Err(error),
            }
        }
    }

    fn whole(
        &mut self,
        worker: Option<String>,
        overrun: Option<u64>,
        keep: bool,
        is_ok: bool,
    ) -> Step {
        let Some(asked) = self.asked.take() else { return Step::Gone };
        let worker = worker.filter(|_| !self.is_used);
        self.is_used = true;
        let keep = keep && self.left > 0;
        Step::Answered { arrival: asked.arrival, worker, overrun, keep, is_ok }
    }

    fn fail(&mut self, failure: Failure) -> Step {
        let Some(asked) = self.asked.take() else { return Step::Gone };
        let again = self.is_used && self.answer.is_empty();
        Step::Failed { arrival: asked.arrival, begun: asked.begun, failure, again }
    }
}

/// What an error means for a client.
pub(super) fn cause(error: &io::Error) -> Failure {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => Failure::Refused,
        Some(libc::ETIMEDOUT) => Failure::Timeout,
        Some(libc::EMFILE | libc::ENFILE | libc::EADDRNOTAVAIL | libc::ENOBUFS | libc::ENOMEM) => {
            Failure::Unable
        }
        _ => Failure::Reset,
    }
}
