//! Request: what one client asks, in which manner, and the bytes it sends.

use std::{fmt, ops::RangeInclusive, time::Duration};

use crate::content;

/// In which manner a request is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A small answer over a connection that is kept.
    Kept,
    /// A small answer over a connection of its own, which one side or the other closes.
    Fresh,
    /// 64 KiB to 1 MiB over a connection that is kept.
    Large,
    /// An answer in chunks, with pauses between them.
    Chunked,
    /// A body that is sent and comes back.
    Echo,
    /// An answer that the app takes its time for.
    Late,
    /// A large answer that is read a little at a time.
    SlowReader,
    /// A body that is sent a little at a time.
    SlowSender,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Kept,
        Self::Fresh,
        Self::Large,
        Self::Chunked,
        Self::Echo,
        Self::Late,
        Self::SlowReader,
        Self::SlowSender,
    ];

    /// As reports name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Fresh => "fresh",
            Self::Large => "large",
            Self::Chunked => "chunked",
            Self::Echo => "echo",
            Self::Late => "late",
            Self::SlowReader => "slow reader",
            Self::SlowSender => "slow sender",
        }
    }

    /// Whether its connection comes from those that are kept, and is kept.
    pub fn keeps_its_connection(self) -> bool {
        match self {
            Self::Kept | Self::Large | Self::Chunked | Self::Echo | Self::Late => true,
            Self::Fresh | Self::SlowReader | Self::SlowSender => false,
        }
    }

    fn sizes(self) -> RangeInclusive<usize> {
        match self {
            Self::Kept | Self::Fresh | Self::Late => 0..=2 << 10,
            Self::Large => 64 << 10..=content::PERIOD,
            Self::Chunked => 1 << 10..=64 << 10,
            Self::Echo => 1..=256 << 10,
            Self::SlowReader => 256 << 10..=content::PERIOD,
            Self::SlowSender => 4 << 10..=32 << 10,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Unique within a load; comes back in the answer.
    pub id: u64,
    /// In which manner it is made.
    pub kind: Kind,
    /// Where in the text its body begins.
    pub from: usize,
    /// Bytes of the body of the answer; of the request's own too when it has one.
    pub size: usize,
    /// How long the app waits before it answers.
    pub wait: Duration,
    /// In how many chunks the app answers; 0 for an answer with its length in its head.
    pub pieces: usize,
    /// How long the app waits between chunks.
    pub pause: Duration,
    /// In how many turns the client reads, or sends what it has to send.
    pub turns: u32,
    /// How long the client waits between turns.
    pub rest: Duration,
}

impl Request {
    /// A request of that kind, all else as the numbers fall.
    pub fn random(id: u64, kind: Kind, numbers: &mut fastrand::Rng) -> Self {
        let (pieces, pause) = match kind {
            Kind::Chunked => (numbers.usize(2..=8), numbers.u64(0..=20)),
            Kind::Kept
            | Kind::Fresh
            | Kind::Large
            | Kind::Echo
            | Kind::Late
            | Kind::SlowReader
            | Kind::SlowSender => (0, 0),
        };
        let (turns, rest) = match kind {
            Kind::SlowReader | Kind::SlowSender => (numbers.u32(4..=20), numbers.u64(20..=100)),
            Kind::Kept | Kind::Fresh | Kind::Large | Kind::Chunked | Kind::Echo | Kind::Late => {
                (1, 0)
            }
        };
        let from = numbers.usize(0..content::PERIOD);
        Self {
            id,
            kind,
            // Half of the bodies begin as an answer does.
            from: if numbers.bool() { from } else { from / content::LINE * content::LINE },
            size: numbers.usize(kind.sizes()),
            wait: Duration::from_millis(if kind == Kind::Late {
                numbers.u64(50..=1_000)
            } else {
                0
            }),
            pieces,
            pause: Duration::from_millis(pause),
            turns,
            rest: Duration::from_millis(rest),
        }
    }

    /// What the body of the answer has to be.
    pub fn expected(&self) -> &'static [u8] {
        content::piece(self.from, self.size)
    }

    /// Whether it has a body.
    pub fn has_body(&self) -> bool {
        matches!(self.kind, Kind::Echo | Kind::SlowSender)
    }

    /// All that is sent.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let Self { id, from, size, pieces, .. } = self;
        let method = if self.has_body() { "POST" } else { "GET" };
        // Of connections that are not kept, a third is closed by each: the app, because it was asked to; the
        // app, because version 1.0 says so; the client.
        let (version, connection) = match (self.kind.keeps_its_connection(), id % 3) {
            (false, 0) => ("1.1", "Connection: close\r\n"),
            (false, 1) if !self.has_body() => ("1.0", ""),
            (false | true, _) => ("1.1", ""),
        };
        let length =
            if self.has_body() { format!("Content-Length: {size}\r\n") } else { String::new() };
        let (wait, pause) = (self.wait.as_millis(), self.pause.as_millis());
        let mut bytes = format!(
            "{method} /?id={id}&from={from}&size={size}&wait={wait}&pieces={pieces}&pause={pause} \
             HTTP/{version}\r\nHost: clients\r\n{connection}{length}\r\n"
        )
        .into_bytes();
        if self.has_body() {
            bytes.extend_from_slice(self.expected());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_requests() {
        let requests = |seed| {
            let mut numbers = fastrand::Rng::with_seed(seed);
            let kinds = Kind::ALL.into_iter().cycle().zip(0..100);
            kinds
                .map(|(kind, id)| Request::random(id, kind, &mut numbers).bytes())
                .collect::<Vec<_>>()
        };
        assert_eq!(requests(7), requests(7));
        assert_ne!(requests(7), requests(8));
    }

    #[test]
    fn a_body_is_announced_and_sent() {
        let mut numbers = fastrand::Rng::with_seed(1);
        let request = Request::random(5, Kind::Echo, &mut numbers);
        let bytes = request.bytes();
        assert!(bytes.ends_with(request.expected()));
        let head = String::from_utf8_lossy(&bytes[..bytes.len() - request.size]).into_owned();
        assert!(head.contains(&format!("Content-Length: {}\r\n\r\n", request.size)), "{head}");
    }
}
