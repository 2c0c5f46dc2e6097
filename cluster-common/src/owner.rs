//! Who has a port: what the bind hook knows to keep the apps of one daemon apart.
//!
//! Invariant: an app's socket shares a port only where no other app's group is in the way. Where one is, the bind is left
//! to fail as it would without cluster.

/// Holdings that [`PortOwners`] has room for. Beyond it the supervisor still refuses what is in another app's way, but
/// only once it listens.
pub const HOLDINGS: usize = 8;

/// A group's address, and whose group it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Holding {
    /// Id of the app's cgroup, the parent of its workers'; 0 where there is no holding.
    pub app: u64,
    /// From [`address`].
    pub address: [u64; 2],
    /// 1 if it is an IPv6 address that takes no IPv4 (`IPV6_V6ONLY`).
    pub v6only: u64,
}

/// The groups on one port, of all apps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PortOwners {
    /// In any order, gaps allowed.
    pub holdings: [Holding; HOLDINGS],
}

const _: () = assert!(size_of::<Holding>() == 32 && size_of::<PortOwners>() == 32 * HOLDINGS);

impl Holding {
    /// Whether it is another app's and in the way of `address`.
    ///
    /// Whether a socket takes only IPv6 cannot be read before its bind: the IPv6 wildcard counts as dual-stack here.
    #[inline(always)]
    fn refuses(&self, app: u64, address: [u64; 2]) -> bool {
        self.app != 0
            && self.app != app
            && (self.address == address
                || covers(self.address, self.v6only == 1, address)
                || covers(address, false, self.address))
    }
}

impl PortOwners {
    /// Whether a group of another app than `app` is in the way of `address`.
    #[inline(always)]
    pub fn refuse(&self, app: u64, address: [u64; 2]) -> bool {
        let mut index = 0;
        while index < HOLDINGS {
            if self.holdings[index].refuses(app, address) {
                return true;
            }
            index += 1;
        }
        false
    }
}

/// The key of a port in the map of [`PortOwners`]: the port in host byte order, the protocol's number, and a zero byte.
#[inline(always)]
pub const fn key(port: u16, protocol: u32) -> u32 {
    port as u32 | (protocol & 0xff) << 16
}

/// An address in the form in which two can be compared: IPv6 in network order, IPv4 mapped into it.
#[inline(always)]
pub const fn address(octets: [u8; 16]) -> [u64; 2] {
    // SAFETY: sixteen bytes are two words, and every byte pattern is valid.
    unsafe { core::mem::transmute(octets) }
}

/// An IPv4 address as an IPv6 one.
#[inline(always)]
pub const fn mapped([a, b, c, d]: [u8; 4]) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

const ANY_V4: [u64; 2] = address(mapped([0; 4]));
const ANY_V6: [u64; 2] = [0; 2];
/// The bytes of the second word that tell a mapped IPv4 address.
const V4_MARK: u64 = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);

/// Whether a socket on `wildcard`, if it is one, takes connections to `other`.
#[inline(always)]
const fn covers(wildcard: [u64; 2], v6only: bool, other: [u64; 2]) -> bool {
    let v4 = other[0] == 0 && other[1] & V4_MARK == ANY_V4[1];
    if wildcard[0] == ANY_V6[0] && wildcard[1] == ANY_V6[1] {
        !(v6only && v4)
    } else {
        wildcard[0] == ANY_V4[0] && wildcard[1] == ANY_V4[1] && v4
    }
}

#[cfg(feature = "user")]
// SAFETY: plain integers without padding, as the assertion above proves.
unsafe impl aya::Pod for PortOwners {}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::*;

    const OWN: u64 = 7;
    const OTHER: u64 = 8;

    #[test]
    fn another_apps_address_is_refused_and_so_is_what_overlaps_it() {
        for (held, wanted) in [
            ("127.0.0.1", "127.0.0.1"),
            ("0.0.0.0", "127.0.0.1"),
            ("127.0.0.1", "0.0.0.0"),
            ("0.0.0.0", "::"),
            ("::", "0.0.0.0"),
            ("::", "10.0.0.1"),
            ("::1", "::"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
        ] {
            assert!(holding(OTHER, held).refuse(OWN, parse(wanted)), "{wanted} beside {held}");
            assert!(!holding(OWN, held).refuse(OWN, parse(wanted)), "an app may overlap itself");
        }
    }

    #[test]
    fn addresses_that_are_far_apart_are_shared() {
        for (held, wanted) in
            [("127.0.0.1", "127.0.0.2"), ("0.0.0.0", "::1"), ("::1", "0.0.0.0"), ("::1", "::2")]
        {
            assert!(!holding(OTHER, held).refuse(OWN, parse(wanted)), "{wanted} beside {held}");
        }
        let mut only = holding(OTHER, "::");
        only.holdings[HOLDINGS - 1].v6only = 1;
        assert!(!only.refuse(OWN, parse("0.0.0.0")) && !only.refuse(OWN, parse("10.0.0.1")));
        assert!(only.refuse(OWN, parse("::1")));
    }

    #[test]
    fn nothing_is_refused_where_nothing_is_held() {
        assert!(!PortOwners::default().refuse(OWN, parse("0.0.0.0")));
    }

    #[test]
    fn a_key_tells_ports_and_protocols_apart() {
        assert_eq!(key(8080, 6), 0x0006_1f90);
        assert_ne!(key(8080, 6), key(8080, 17));
    }

    fn holding(app: u64, at: &str) -> PortOwners {
        let mut owners = PortOwners::default();
        owners.holdings[HOLDINGS - 1] = Holding { app, address: parse(at), v6only: 0 };
        owners
    }

    fn parse(ip: &str) -> [u64; 2] {
        address(match ip.parse().unwrap() {
            IpAddr::V4(ip) => mapped(ip.octets()),
            IpAddr::V6(ip) => ip.octets(),
        })
    }
}
