//! Scheduling: by which rule the worker of each connection is picked.

mod check;
mod class;
mod guard;
pub mod known;
mod matching;
pub mod resolve;
mod switch;
mod text;

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

pub use self::{
    check::MAX_WEIGHT,
    matching::Match,
    switch::{Shed, Switch},
    text::SchedulingError,
};
use super::spec::{millis, optional_millis};

/// How connections are spread over an app's workers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scheduling {
    /// The rule.
    pub policy: Policy,
    /// Weights of the workers by their numbers, each at least 1; empty when all are equal.
    pub weights: Vec<u32>,
    /// Which workers a policy's pick is kept away from.
    pub guard: Guard,
    /// A connection is refused when every worker has this many; at least 1.
    pub shed: Option<u32>,
}

/// A rule that picks the worker of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Policy {
    /// One after the other, in proportion to their weights.
    #[default]
    RoundRobin,
    /// The one with the fewest connections, queued and in service.
    LeastConn,
    /// The better of two at random, by connections and how long they take.
    P2c,
    /// The one with the shortest accept queue.
    Queue,
    /// By the hash of both addresses and ports.
    Hash,
    /// By the client's address.
    Sticky(Sticky),
    /// The one that runs on the CPU which received the packet.
    CpuLocal,
    /// Any.
    Random,
    /// The kernel's own hash over the whole group.
    None,
    /// By kind of client, each kind with workers and a rule of its own: the first class that fits. Whom none fits reaches
    /// all workers, one after the other.
    Class(Vec<Class>),
    /// A program of the user's: absolute path of a compiled object.
    Custom(PathBuf),
}

/// What clients have in common that are to reach the same worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sticky {
    /// Leading bits of an IPv4 address, 1 to 32.
    pub v4: u8,
    /// Leading bits of an IPv6 address, 1 to 128.
    pub v6: u8,
    /// Bytes of a QUIC connection id, 1 to 20: datagrams are then recognised by it, too.
    pub quic: Option<u8>,
}

/// Clients of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// How they are told, each a [`Match`]: `10.0.0.0/8`, `dscp:46`, `bytes:474554`. One that fits is enough; none at all
    /// is for the rest, whom the classes before do not fit.
    pub matches: Vec<String>,
    /// Numbers of the workers that serve them, in order; at least one.
    pub workers: Vec<u32>,
    /// The rule among these.
    pub policy: Inner,
}

/// A rule inside of a class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Inner {
    /// As [`Policy::RoundRobin`].
    #[default]
    RoundRobin,
    /// As [`Policy::LeastConn`].
    LeastConn,
    /// As [`Policy::Random`].
    Random,
    /// As [`Policy::Hash`].
    Hash,
}

/// Which workers a policy's pick is kept away from, as long as there are others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Guard {
    /// Those that have not accepted a waiting connection for this long; zero for no such guard.
    #[serde(with = "millis")]
    pub stalled: Duration,
    /// Those that have said `WATCHDOG=1` before, or are to, and have not for this long; zero for no such guard. Where it is
    /// not said, what follows from the watchdog: see [`Guard::silence`].
    #[serde(with = "optional_millis")]
    pub heartbeat: Option<Duration>,
    /// Those with more than this many connections in their accept queue.
    pub queue: Option<u32>,
    /// Those that have just become ready get their full share only after this time, and less before; zero for at once.
    #[serde(with = "millis")]
    pub slow_start: Duration,
}

impl Default for Guard {
    fn default() -> Self {
        Self { stalled: Duration::from_millis(8), heartbeat: None, ..Self::OFF }
    }
}

impl Guard {
    /// No guard at all.
    pub const OFF: Self = Self {
        stalled: Duration::ZERO,
        heartbeat: Some(Duration::ZERO),
        queue: None,
        slow_start: Duration::ZERO,
    };

    /// Whether workers may be kept away from for their silence at all.
    pub fn minds_silence(&self) -> bool {
        self.heartbeat != Some(Duration::ZERO)
    }

    /// How long a worker with this watchdog may be silent before connections are kept away from it; `None` for ever.
    ///
    /// Where nothing is said it is three quarters of the watchdog's time: who is asked to speak at least that often speaks
    /// twice as often (`sd_watchdog_enabled(3)`), so that one word was missed by then, and the worker is not replaced yet.
    pub fn silence(&self, watchdog: Option<Duration>) -> Option<Duration> {
        let usual = || watchdog.map(|watchdog| watchdog * 3 / 4);
        self.heartbeat.or_else(usual).filter(|silence| !silence.is_zero())
    }
}

impl Default for Sticky {
    fn default() -> Self {
        Self { v4: 32, v6: 64, quic: None }
    }
}

impl Policy {
    /// The name by which users know it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
            Self::LeastConn => "least-conn",
            Self::P2c => "p2c",
            Self::Queue => "queue",
            Self::Hash => "hash",
            Self::Sticky(_) => "sticky",
            Self::CpuLocal => "cpu-local",
            Self::Random => "random",
            Self::None => "none",
            Self::Class(_) => "class",
            Self::Custom(_) => "custom",
        }
    }

    /// Whether workers get connections in proportion to their turns, whatever else they have to do. A class and a program of
    /// a user's are what the user made of them.
    pub const fn keeps_shares(&self) -> bool {
        match self {
            Self::RoundRobin
            | Self::Hash
            | Self::Sticky(_)
            | Self::Random
            | Self::Class(_)
            | Self::Custom(_) => true,
            Self::LeastConn | Self::P2c | Self::Queue | Self::CpuLocal | Self::None => false,
        }
    }
}
