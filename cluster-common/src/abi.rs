//! The version of everything in this crate that lies in memory shared between kernel programs and supervisors.

/// Changes whenever a layout, a name or the meaning of a value changes.
///
/// Programs and maps outlive the supervisor that loaded them: the next one compares before it takes over.
pub const VERSION: u32 = 8;

/// A group's settings, written by the supervisor and read by the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Config {
    /// [`VERSION`] of the supervisor that loaded the program.
    pub abi: u32,
    /// An [`OnMiss`](crate::choose::OnMiss) as a number.
    pub on_miss: u32,
    /// How many [sources](crate::steer::Source) are steered. Unless it is 0 the program looks each connection's source up.
    pub steered: u32,
    /// 1 where everything is left to the kernel's hash.
    pub abstains: u32,
    /// A worker with as many connections as this has enough; 0 for no such bound.
    pub shed: u32,
    /// [Ticks](crate::load::tick) between two looks of the guard at a worker; 0 for no guard.
    pub patience: u32,
    /// A worker with more than this many connections in its accept queue is spared; 0 for no such bound.
    pub queue: u32,
    /// Ticks in which a new worker gets its full share little by little; 0 for at once.
    pub slow_start: u32,
    /// Leading bits by which IPv4 clients are told apart, counted in the mapped address: 97 to 128.
    pub prefix_v4: u32,
    /// Leading bits by which IPv6 clients are told apart, 1 to 128.
    pub prefix_v6: u32,
    /// Bytes of a QUIC connection id; 0 where datagrams are not of QUIC.
    pub connection_id: u32,
    /// 1 where workers are spared that are [distrusted](crate::load::Load::distrusted).
    pub heartbeat: u32,
    /// Cookie of the waiting room, or of the one before it for as long as that is being emptied.
    pub room: u64,
}

const _: () = assert!(size_of::<Config>() == 56);

impl Config {
    /// As it lies in the map.
    pub const fn to_bytes(self) -> [u8; size_of::<Self>()] {
        // SAFETY: plain integers without padding, as the assertion above proves.
        unsafe { core::mem::transmute(self) }
    }

    /// What lies in the map.
    pub const fn from_bytes(bytes: [u8; size_of::<Self>()]) -> Self {
        // SAFETY: as above; every byte pattern is valid.
        unsafe { core::mem::transmute(bytes) }
    }

    /// Whether any guard is wanted.
    #[inline(always)]
    pub const fn guards(&self) -> bool {
        self.patience | self.queue | self.slow_start | self.heartbeat != 0
    }
}

/// Where this kernel has what the programs read of its own structures, in bytes; all zero where it cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Layout {
    /// `sk_reuseport_kern.selected_sk`
    pub selected: u32,
    /// `sock.sk_ack_backlog`
    pub backlog: u32,
}

const _: () = assert!(size_of::<Layout>() == 8);

#[cfg(feature = "user")]
// SAFETY: plain integers without padding, as the assertion above proves.
unsafe impl aya::Pod for Config {}
#[cfg(feature = "user")]
// SAFETY: plain integers without padding, as the assertion above proves.
unsafe impl aya::Pod for Layout {}
