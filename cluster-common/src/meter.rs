//! Metering: what is counted of a worker's connections without the worker's help.
//!
//! A listener's storage says in which [`Seat`](crate::load::Seat) it is counted. The kernel copies that storage to each connection it
//! takes (`BPF_F_CLONE`, `bpf_sk_storage_clone` in Linux), where it goes on as what is known of that one connection. A connection
//! counts as closed when the *app* closes it, not when the kernel has seen the last of it.

/// What a listener passes on, and what is known of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Tag {
    /// Number of the [`Seat`](crate::load::Seat).
    pub seat: u32,
    /// [`Load::generation`](crate::load::Load::generation) that it was given out in.
    pub generation: u32,
    /// When the handshake ended, in nanoseconds since boot; 0 for a listener.
    pub established: u64,
    /// [`COUNTED`], [`READ`] and [`CLOSED`].
    pub flags: u32,
    /// Fills the word.
    pub reserved: u32,
    /// Bytes received that are in [`Meter::bytes_in`].
    pub bytes_in: u64,
    /// Bytes acknowledged that are in [`Meter::bytes_out`].
    pub bytes_out: u64,
}

/// [`Tag::flags`]: it is in [`Load::live`](crate::load::Load::live).
pub const COUNTED: u32 = 1;
/// [`Tag::flags`]: the app has read from it.
pub const READ: u32 = 2;
/// [`Tag::flags`]: the app has closed it, and the kernel may still be sending what was written to it.
pub const CLOSED: u32 = 4;

/// Bytes of a [`Tag`].
pub const TAG_BYTES: u32 = 40;

const _: () = assert!(size_of::<Tag>() == TAG_BYTES as usize);

/// Buckets of a [`Histogram`].
pub const BUCKETS: usize = 28;

/// Counts by powers of two: bucket `n` has the values below `2^n` that the ones before it have not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Histogram {
    /// The counts; the last has everything above.
    pub buckets: [u64; BUCKETS],
    /// Sum of all values.
    pub sum: u64,
}

/// The bucket of a value: the number of its significant bits, as far as there are buckets.
#[inline(always)]
pub const fn bucket(value: u64) -> usize {
    // Without counting leading zeros, for which the instruction set has nothing: five comparisons.
    let mut rest = if value >> 32 != 0 { u32::MAX as u64 } else { value };
    let mut bits = 0;
    if rest >> 16 != 0 {
        bits += 16;
        rest >>= 16;
    }
    if rest >> 8 != 0 {
        bits += 8;
        rest >>= 8;
    }
    if rest >> 4 != 0 {
        bits += 4;
        rest >>= 4;
    }
    if rest >> 2 != 0 {
        bits += 2;
        rest >>= 2;
    }
    if rest >> 1 != 0 {
        bits += 1;
        rest >>= 1;
    }
    let bits = bits + rest as usize;
    if bits < BUCKETS { bits } else { BUCKETS - 1 }
}

/// What has become of the connections of one seat, written when they close.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Meter {
    /// Connections that the app has closed, or that were broken off.
    pub closed: u64,
    /// Bytes received over them (`tcp_sock.bytes_received`, where a FIN is one byte).
    pub bytes_in: u64,
    /// Bytes sent over them that were acknowledged, before the app closed them and after (`tcp_sock.bytes_acked`, where a
    /// FIN is one byte).
    pub bytes_out: u64,
    /// Connections that were in the accept queue when the listener was closed: they moved, or were broken off.
    pub left: u64,
    /// How long they lasted, in microseconds.
    pub lifetime: Histogram,
    /// How long it was from the end of the handshake until the app first read, in microseconds.
    pub wait: Histogram,
    /// Smoothed round-trip times at their end, in microseconds.
    pub round_trip: Histogram,
}

const _: () = assert!(size_of::<Meter>() == 32 + 3 * 8 * (BUCKETS + 1));

#[cfg(feature = "user")]
// SAFETY: plain integers without padding, as the assertion above proves.
unsafe impl aya::Pod for Tag {}
#[cfg(feature = "user")]
// SAFETY: plain integers without padding, as the assertion above proves.
unsafe impl aya::Pod for Meter {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_has_the_values_below_its_power_of_two() {
        assert_eq!([0, 1, 2, 3, 4, 7, 8].map(bucket), [0, 1, 2, 2, 3, 3, 4]);
        for bits in 1..BUCKETS {
            assert_eq!(bucket((1 << bits) - 1), bits.min(BUCKETS - 1));
        }
        assert_eq!([1 << 27, 1 << 32, u64::MAX].map(bucket), [BUCKETS - 1; 3]);
    }
}
