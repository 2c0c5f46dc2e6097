//! Telemetry: what the kernel counted for a worker or a group, without the app's help.

use serde::{Deserialize, Serialize};

/// What the kernel counted for a worker, over all its sockets, since it started.
///
/// What this host cannot count is `None`; [`Telemetry::missing`] says why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Telemetry {
    /// Connections (TCP) or datagrams (UDP) that were sent to it.
    pub selected: u64,
    /// Connections whose handshake it ended and which it accepted.
    pub accepted: Option<u64>,
    /// Connections that it has not closed, in its accept queues and in service.
    pub live: Option<u64>,
    /// Connections in its accept queues now.
    pub queued: Option<u64>,
    /// The most that was seen there at a time.
    pub queued_peak: Option<u64>,
    /// Connections that moved here because their listener was closed.
    pub migrated_in: u64,
    /// Connections that left its accept queues because their listener was closed: they moved, or were broken off when there
    /// was nobody to take them.
    pub migrated_out: Option<u64>,
    /// Connections and datagrams that the kernel dropped because its queues were full (`sk_drops` of its sockets, as it was
    /// last looked at).
    pub dropped: Option<u64>,
    /// Times a policy's pick was kept away from it by the guard.
    pub guarded: Option<u64>,
    /// Whether it accepts nothing although connections wait, so that the guard keeps others away: seen by the guard, or at the
    /// second time that this is asked.
    #[serde(default)]
    pub stalled: Option<bool>,
    /// Bytes received over its connections, counted when they are closed. The kernel counts the end of a stream as one.
    pub bytes_in: Option<u64>,
    /// Bytes that clients acknowledged, as above.
    pub bytes_out: Option<u64>,
    /// How long closed connections lasted, from the end of the handshake to the worker's close, in microseconds.
    pub lifetime: Option<Histogram>,
    /// How long connections waited from the end of the handshake until the worker first read, in microseconds.
    pub wait: Option<Histogram>,
    /// Smoothed round-trip times when connections were closed, in microseconds.
    pub round_trip: Option<Histogram>,
    /// Why what is missing is missing, a lowercase fragment.
    pub missing: Option<String>,
}

/// What the kernel counted for a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupTelemetry {
    /// Turns that were drawn again because their socket was gone.
    pub misses: u64,
    /// Connections sent to the waiting room.
    pub waited: u64,
    /// Connections refused because nobody was there.
    pub refused: u64,
    /// Connections refused because every worker had enough.
    pub shed: u64,
    /// Packets that start no connection.
    pub other: u64,
    /// Connections left to the kernel's hash.
    pub hashed: u64,
    /// Times that a policy of the user's named nobody, or somebody who is not there: round robin chose instead.
    #[serde(default)]
    pub unfollowed: u64,
    /// Runs of its program, and the nanoseconds they took, while the kernel counts that (`kernel.bpf_stats_enabled`).
    pub runs: Option<(u64, u64)>,
}

/// Counts by powers of two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    /// `buckets[n]` counts values below 2^n that the ones before do not: 0, 1, 2 to 3, 4 to 7 and so on. The last
    /// bucket has everything above.
    pub buckets: Vec<u64>,
    /// Sum of all values.
    pub sum: u64,
}
