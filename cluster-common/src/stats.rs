//! Counters as they lie in the maps: written by the kernel program only, read by the supervisor through mapped memory.

/// What one slot has been given since its group exists.
///
/// A slot may have had several workers: whoever puts a socket into a slot takes note of the counters at that moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct SlotStats {
    /// Turns of new connections and datagrams. Under SYN cookies these are SYNs, of which some never become connections.
    pub selected: u64,
    /// Connections that moved here because their listener was closed.
    pub migrated_in: u64,
    /// ACKs of SYN cookies whose SYN was not remembered, and stray ACKs.
    pub cookie: u64,
    /// Connections that the guard kept away from here.
    pub guarded: u64,
    /// Fills the cache line, so that CPUs counting for different workers do not meet.
    pub reserved: [u64; 4],
}

/// What has happened in a group beside selecting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct GroupStats {
    /// Turns whose slot could not be selected, because its socket is gone.
    pub misses: u64,
    /// Connections sent to the waiting room.
    pub waited: u64,
    /// Connections refused.
    pub refused: u64,
    /// Packets that start no connection.
    pub other: u64,
    /// Connections left to the kernel's hash.
    pub hashed: u64,
    /// Turns lost because two publications overtook the decision.
    pub overtaken: u64,
    /// Packets of steered connections: one each, and another under SYN cookies.
    pub steered: u64,
    /// Connections refused because every worker had enough.
    pub shed: u64,
    /// Times that a program of the user's named nobody, or a place that the route does not have.
    pub unfollowed: u64,
    /// Fills the cache line.
    pub reserved: [u64; 7],
}

/// What became of connections that were to be told to close.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct DrainStats {
    /// Connections that were told.
    pub told: u64,
    /// Responses that could not be changed for lack of memory.
    pub failed: u64,
    /// Fills the cache line.
    pub reserved: [u64; 6],
}

const _: () = assert!(size_of::<SlotStats>() == 64);
const _: () = assert!(size_of::<DrainStats>() == 64);
const _: () = assert!(size_of::<GroupStats>() == 128);

#[cfg(feature = "user")]
// SAFETY: plain integers without padding, as the assertion above proves.
unsafe impl aya::Pod for SlotStats {}
#[cfg(feature = "user")]
// SAFETY: plain integers without padding, as the assertion above proves.
unsafe impl aya::Pod for GroupStats {}
#[cfg(feature = "user")]
// SAFETY: plain integers without padding, as the assertion above proves.
unsafe impl aya::Pod for DrainStats {}
