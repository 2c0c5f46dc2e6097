//! Failure: a request that was not answered as it should have been: at which point, and by what.

use std::{fmt, io, net::SocketAddr, time::Instant};

use crate::request::Kind;

/// How far a request had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Connecting.
    Connect,
    /// Sending the request.
    Send,
    /// All is sent; the head of the answer is not complete.
    Head,
    /// The head is there, the body is not complete.
    Body,
    /// The answer was complete.
    After,
}

/// What ended a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Nobody listens: `ECONNREFUSED`.
    Refused,
    /// `ECONNRESET` or `EPIPE`.
    Reset,
    /// The peer closed the connection: FIN where more was due.
    Closed,
    /// Nothing came in time.
    TimedOut,
    /// Another status than 200.
    Status(u16),
    /// An answer, but not to this request or not by the rules; says what was wrong.
    Wrong(String),
    /// The first byte of the body that is not what it should be.
    WrongByte {
        /// Its place.
        at: usize,
    },
    /// Bytes that nobody asked for, after the end of an answer.
    Surplus,
    /// Any other error of the operating system.
    System(io::ErrorKind),
    /// The client had too many requests under way to make another.
    Crowded,
}

/// One request that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Number of the request.
    pub id: u64,
    /// Name of the app that was asked.
    pub target: String,
    /// In which manner.
    pub kind: Kind,
    /// How far it had come.
    pub phase: Phase,
    /// What ended it.
    pub cause: Cause,
    /// The system's number for the error, when there was one.
    pub errno: Option<i32>,
    /// When it was due.
    pub due: Instant,
    /// When it was begun: with a connection to be opened or with one that was kept.
    pub began: Instant,
    /// When it had failed.
    pub failed: Instant,
    /// The client's end of the connection.
    pub local: Option<SocketAddr>,
    /// Process that gave an earlier answer over this connection, or the head of this one.
    pub worker: Option<u32>,
    /// Answers that came over this connection before.
    pub earlier: u32,
    /// Bytes of this request that were taken.
    pub sent: usize,
    /// Bytes of the answer that had come.
    pub received: usize,
}

impl Cause {
    pub(crate) fn of(error: &io::Error) -> Self {
        let is = |kinds: &[io::ErrorKind]| kinds.contains(&error.kind());
        if is(&[io::ErrorKind::ConnectionRefused]) {
            Self::Refused
        } else if is(&[io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe]) {
            Self::Reset
        } else if is(&[io::ErrorKind::TimedOut]) {
            Self::TimedOut
        } else {
            Self::System(error.kind())
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Connect => "connecting",
            Self::Send => "sending",
            Self::Head => "waiting for the head",
            Self::Body => "in the body",
            Self::After => "after the answer",
        })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("refused"),
            Self::Reset => f.write_str("reset"),
            Self::Closed => f.write_str("closed"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::Wrong(what) => write!(f, "wrong answer: {what}"),
            Self::WrongByte { at } => write!(f, "wrong byte at {at}"),
            Self::Surplus => f.write_str("bytes that nobody asked for"),
            Self::System(kind) => write!(f, "{kind}"),
            Self::Crowded => f.write_str("too many requests under way"),
        }
    }
}

impl fmt::Display for Failure {
    /// `#17 kept to node: reset waiting for the head (errno 104), …`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, kind, target, cause, phase, earlier, sent, received, .. } = self;
        write!(f, "#{id} {kind} to {target}: {cause} {phase}")?;
        if let Some(errno) = self.errno {
            write!(f, " (errno {errno})")?;
        }
        let late = self.failed.saturating_duration_since(self.began).as_millis();
        write!(f, " after {late} ms, {sent} bytes sent, {received} received")?;
        if let Some(local) = self.local {
            write!(f, ", from port {}", local.port())?;
        }
        match self.worker {
            Some(worker) => write!(f, ", worker {worker}, {earlier} answers before"),
            None => f.write_str(", worker not known"),
        }
    }
}
