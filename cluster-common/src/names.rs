//! Names of programs, maps and globals in the three objects. The supervisor finds them by these.

/// Select object: the programs of policies.
pub const SELECT: [&str; 10] = [
    ROUND_ROBIN,
    "cluster_least",
    "cluster_p2c",
    "cluster_queue",
    "cluster_hash",
    "cluster_sticky",
    "cluster_cpu",
    "cluster_random",
    "cluster_class",
    CUSTOM,
];
/// Select object: round robin that logs its decisions.
pub const SELECT_TRACED: &str = "cluster_traced";
/// Select object: the program that a group begins with.
pub const ROUND_ROBIN: &str = "cluster_select";
/// Select object: what a program of the user's is joined to.
pub const CUSTOM: &str = "cluster_custom";

/// Join object: before a worker's IPv4 bind.
pub const BIND4: &str = "cluster_bind4";
/// Join object: before a worker's IPv6 bind.
pub const BIND6: &str = "cluster_bind6";
/// Join object: after a worker's IPv4 bind.
pub const POST_BIND4: &str = "cluster_bound4";
/// Join object: after a worker's IPv6 bind.
pub const POST_BIND6: &str = "cluster_bound6";
/// Join object: somebody has read from a TCP socket.
pub const FIRST: &str = "cluster_first";
/// Join object: a worker's TCP socket listens, is connected, or changes its state.
pub const SOCK_OPS: &str = "cluster_listen";

/// Drain object: something arrives at a connection.
pub const ARRIVE: &str = "cluster_arrive";
/// Drain object: what goes on after [`ARRIVE`], through [`STEPS`].
pub const READ: &str = "cluster_read";
/// Drain object: something is sent over a connection.
pub const DEPART: &str = "cluster_depart";

/// Select object: slot → socket, values of 8 bytes so that cookies can be read back.
pub const SOCKETS: &str = "SOCKETS";
/// Select object: the two route tables.
pub const ROUTES: &str = "ROUTES";
/// Select object: one cursor per lane.
pub const CURSORS: &str = "CURSORS";
/// Select object: remembered SYNs.
pub const FLOWS: &str = "FLOWS";
/// Select object: [`Config`](crate::abi::Config), one entry.
pub const CONFIG: &str = "CONFIG";
/// Select object: [`Source`](crate::steer::Source) → slot, a `u32`.
pub const STEERING: &str = "STEERING";
/// Select object: [`SlotStats`](crate::stats::SlotStats) per slot.
pub const SLOT_STATS: &str = "SLOT_STATS";
/// Select object: [`GroupStats`](crate::stats::GroupStats), one entry.
pub const GROUP_STATS: &str = "GROUP_STATS";
/// Both: [`Load`](crate::load::Load) per [`Seat`](crate::load::Seat), of all groups.
pub const LOADS: &str = "LOADS";
/// Both: cookie of a connection that moved → its seat now, a `u32`.
pub const MOVED: &str = "MOVED";
/// Select object: CPU → workers near it, see [`cpu`](crate::cpu).
pub const CPUS: &str = "CPUS";
/// Select object: flow of datagrams → slot, a `u32`.
pub const PINS: &str = "PINS";
/// Select object: [`Sign`](crate::class::Sign) → number of the first class that it fits, a `u32`.
pub const RULES: &str = "RULES";
/// Select object: for each lane and number of a class how many turns its clients took, see [`class`](crate::class).
pub const CLASS_TURNS: &str = "CLASS_TURNS";
/// Select object, a [`Layout`](crate::abi::Layout) global: where this kernel has what the programs read.
pub const LAYOUT: &str = "LAYOUT";
/// Select object, a `u32` global: nanoseconds of a jiffy.
pub const JIFFY: &str = "JIFFY";
/// Select object, a `u32` global: [what tells clients](crate::class::Sign::is_looked_for) beside their address.
pub const SIGNS: &str = "SIGNS";
/// Join object: the [`Tag`](crate::meter::Tag) kept with a socket.
pub const TAGS: &str = "TAGS";
/// Join object: [`Meter`](crate::meter::Meter) per seat that is in use.
pub const METERS: &str = "METERS";
/// Select object: what [`SELECT_TRACED`] writes. The others need only a page.
pub const TRACE_LOG: &str = "AYA_LOGS";

/// Join object: ring buffer of [`Event`](crate::event::Event).
pub const EVENTS: &str = "EVENTS";
/// Join object: how many events found the ring buffer full, one `u64`.
pub const LOST_EVENTS: &str = "LOST_EVENTS";
/// Join object: socket cookie → worker's cgroup id, of the sockets that have been made to share their port.
pub const JOINING: &str = "JOINING";
/// Join object: worker's cgroup id → [`PortFilter`](crate::event::PortFilter). No entry: every port is balanced.
pub const PORT_FILTER: &str = "PORT_FILTER";
/// Join object: [`owner::key`](crate::owner::key) of a port → [`PortOwners`](crate::owner::PortOwners). No entry: nobody's.
pub const PORT_OWNER: &str = "PORT_OWNER";
/// Join object, an `i32` global: how deep below the root of the hierarchy the workers' cgroups are.
pub const WORKER_LEVEL: &str = "WORKER_LEVEL";

/// Drain object: cookie → socket, of the connections whose writes [`DEPART`] sees.
pub const CONNECTIONS: &str = "CONNECTIONS";
/// Drain object: the [`Exchange`](crate::exchange::Exchange) kept with a socket.
pub const EXCHANGES: &str = "EXCHANGES";
/// Drain object: one entry, for [`READ`].
pub const STEPS: &str = "STEPS";
/// Drain object: [`DrainStats`](crate::stats::DrainStats), one entry.
pub const DRAIN_STATS: &str = "DRAIN_STATS";
/// Drain object, a [`TcpSock`](crate::exchange::TcpSock) global: where this kernel has what the programs read.
pub const TCP_SOCK: &str = "TCP_SOCK";
