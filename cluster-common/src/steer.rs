//! Steering: connections from certain sources go to a certain slot, whatever the route says.
//!
//! The supervisor asks *one* worker through the port that all share: it binds the source of its question, enters it here,
//! and connects. The worker need not be in the route for that, and the question takes nobody's turn.

/// Sources that can be steered at a time. The kernel makes room for those there are only.
pub const STEERED: u32 = 4096;

/// Where a connection comes from, as the key of the steering map has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Source {
    /// The IPv6 address in network order; one of IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
    /// The port, as a number. Wider than it need be, so that there is no padding, of which the map would take notice.
    pub port: u32,
}

impl Source {
    /// A source of IPv4.
    #[inline(always)]
    pub const fn v4([a, b, c, d]: [u8; 4], port: u16) -> Self {
        Self { address: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d], port: port as u32 }
    }

    /// A source of IPv6.
    #[inline(always)]
    pub const fn v6(address: [u8; 16], port: u16) -> Self {
        Self { address, port: port as u32 }
    }
}

/// Whether an address is one of IPv4, in its mapped form.
#[inline(always)]
pub const fn is_mapped(address: &[u8; 16]) -> bool {
    // SAFETY: sixteen bytes are four words, and every byte pattern is valid.
    let words: [u32; 4] = unsafe { core::mem::transmute(*address) };
    words[0] == 0 && words[1] == 0 && words[2] == u32::from_ne_bytes([0, 0, 0xff, 0xff])
}

const _: () = assert!(size_of::<Source>() == 20);

#[cfg(feature = "user")]
// SAFETY: plain integers without padding, as the assertion above proves.
unsafe impl aya::Pod for Source {}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_source_of_ipv4_is_its_mapped_address() {
        let source = Source::v4([127, 0, 0, 1], 40_000);

        assert_eq!(source.address, Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets());
        assert_eq!(source, Source::v6(source.address, 40_000));
    }
}
