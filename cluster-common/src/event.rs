//! What the joining programs report through their ring buffer, and the filter they obey.

/// [`Event::kind`]: a TCP socket listens.
pub const LISTENING: u32 = 1;
/// [`Event::kind`]: a UDP socket is bound.
pub const UDP_BOUND: u32 = 2;
/// [`Event::kind`]: a socket is about to be bound. If no other event follows, the kernel refused (`EADDRINUSE`).
pub const BINDING: u32 = 3;

/// [`Event::family`] of IPv4 (`AF_INET`).
pub const IPV4: u32 = 2;
/// [`Event::family`] of IPv6 (`AF_INET6`).
pub const IPV6: u32 = 10;

/// One report. Sent only for sockets that a worker binds to a port of its own choice, never for port 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// [`LISTENING`], [`UDP_BOUND`] or [`BINDING`].
    pub kind: u32,
    /// [`IPV4`] or [`IPV6`].
    pub family: u32,
    /// IP protocol number.
    pub protocol: u32,
    /// In host byte order.
    pub port: u32,
    /// As on the wire; an IPv4 address is in the first four bytes.
    pub addr: [u8; 16],
    /// The socket's cookie, as `SO_COOKIE` gives it.
    pub cookie: u64,
    /// Id of the worker's cgroup, which is the inode number of its directory.
    pub cgroup: u64,
}

const _: () = assert!(size_of::<Event>() == 48);

/// Ports that a [`PortFilter`] can list.
pub const FILTER_PORTS: usize = 16;

/// Which ports of a worker are balanced. A port that is not listed is left alone: not shared and not reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PortFilter {
    /// Ports in use.
    pub count: u32,
    /// In host byte order, the first `count` valid.
    pub ports: [u16; FILTER_PORTS],
}

const _: () = assert!(size_of::<PortFilter>() == 36);

impl PortFilter {
    /// Whether `port` is listed.
    #[inline(always)]
    pub fn lists(&self, port: u16) -> bool {
        let mut index = 0;
        // A constant bound and a separate test of the count: the verifier has to see that this ends inside the array.
        while index < FILTER_PORTS {
            if index < self.count as usize && self.ports[index] == port {
                return true;
            }
            index += 1;
        }
        false
    }
}

#[cfg(feature = "user")]
// SAFETY: plain integers without padding, as the assertion above proves.
unsafe impl aya::Pod for Event {}
#[cfg(feature = "user")]
// SAFETY: plain integers without padding, as the assertion above proves.
unsafe impl aya::Pod for PortFilter {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_lists_its_first_count_ports() {
        let mut filter = PortFilter { count: 2, ports: [0; FILTER_PORTS] };
        filter.ports[..3].copy_from_slice(&[80, 443, 8080]);

        assert!(filter.lists(80) && filter.lists(443));
        assert!(!filter.lists(8080), "beyond the count");
        assert!(!filter.lists(0));
    }

    #[test]
    fn a_count_beyond_the_array_is_harmless() {
        let filter = PortFilter { count: u32::MAX, ports: [1; FILTER_PORTS] };

        assert!(filter.lists(1) && !filter.lists(2));
    }
}
