//! What clients of a class have in common: where they come from, how their packets are marked, or what they send first.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use super::text::{SchedulingError, refused, short};

/// Bytes at the beginning of what a client sends that can be looked at.
const MOST_BYTES: usize = 16;
/// Values of the differentiated services field (RFC 2474): six bits.
const MOST_DSCP: u8 = 63;

/// What clients of a class have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// `10.0.0.0/8`: their address begins with so many bits of this one, whose other bits are 0.
    Source {
        /// The network.
        network: IpAddr,
        /// Leading bits that count: up to 32 or 128, 0 for every address of the family.
        prefix: u8,
    },
    /// `dscp:46`: the differentiated services field of their packets, 0 to 63.
    Dscp(u8),
    /// `bytes:474554`: what they send begins with these, 1 to 16; seen in datagrams, and in TCP Fast Open.
    Bytes(Vec<u8>),
}

impl FromStr for Match {
    type Err = SchedulingError;

    fn from_str(text: &str) -> Result<Self, SchedulingError> {
        if let Some(value) = text.strip_prefix("dscp:") {
            return match value.parse() {
                Ok(value @ 0..=MOST_DSCP) => Ok(Self::Dscp(value)),
                Ok(_) | Err(_) => refused(format!(
                    "policy class: `{}` is no mark: dscp:0 to dscp:63",
                    short(text)
                )),
            };
        }
        if let Some(digits) = text.strip_prefix("bytes:") {
            let Some(bytes) = bytes(digits) else {
                return refused(format!(
                    "policy class: `{}` are no bytes: 1 to {MOST_BYTES} in hexadecimal, such as bytes:474554",
                    short(text)
                ));
            };
            return Ok(Self::Bytes(bytes));
        }
        source(text).ok_or_else(|| {
            SchedulingError(format!(
                "policy class: `{}` tells no clients: expected a network such as 10.0.0.0/8, dscp:46, bytes:474554, \
                 or * for the rest",
                short(text)
            ))
        })
    }
}

fn source(text: &str) -> Option<Match> {
    let (address, prefix) =
        text.split_once('/').map_or((text, None), |(at, bits)| (at, Some(bits)));
    let address: IpAddr = address.parse().ok()?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let prefix = prefix.map_or(Some(longest), |prefix| prefix.parse::<u8>().ok())?;
    (prefix <= longest).then(|| Match::Source { network: network(address, prefix), prefix })
}

/// An address with none but its leading bits.
fn network(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    let is_whole =
        digits.len().is_multiple_of(2) && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if digits.is_empty() || digits.len() > 2 * MOST_BYTES || !is_whole {
        return None;
    }
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok())
        .collect()
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source { network, prefix } => write!(f, "{network}/{prefix}"),
            Self::Dscp(value) => write!(f, "dscp:{value}"),
            Self::Bytes(bytes) => {
                f.write_str("bytes:")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn clients_are_told_by_network_mark_or_bytes() {
        for (text, shown) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("192.168.1.7", "192.168.1.7/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::1", "::1/128"),
            ("dscp:46", "dscp:46"),
            ("bytes:474554", "bytes:474554"),
            ("bytes:FF", "bytes:ff"),
        ] {
            assert_eq!(text.parse::<Match>().unwrap().to_string(), shown);
        }
        for text in [
            "",
            "10",
            "10.0.0.0/33",
            "10.0.0.0/",
            "::/129",
            "dscp:64",
            "dscp:",
            "bytes:",
            "bytes:4",
            "bytes:gg",
            "bytes:000102030405060708090a0b0c0d0e0f10",
            "bytes:äh",
            "host",
            "10.0.0.0/-1",
        ] {
            let error = text.parse::<Match>().unwrap_err().to_string();
            assert!(error.starts_with("policy class: "), "{text}: {error}");
        }
    }

    pub(in super::super) fn any_match() -> impl Strategy<Value = Match> {
        let v4 = (any::<u32>(), 0..=32u8)
            .prop_map(|(bits, prefix)| (IpAddr::from(bits.to_be_bytes()), prefix));
        let v6 = (any::<u128>(), 0..=128u8)
            .prop_map(|(bits, prefix)| (IpAddr::from(bits.to_be_bytes()), prefix));
        let source = prop_oneof![v4, v6].prop_map(|(address, prefix)| Match::Source {
            network: network(address, prefix),
            prefix,
        });
        let bytes = prop::collection::vec(any::<u8>(), 1..=MOST_BYTES).prop_map(Match::Bytes);
        prop_oneof![source, (0..=MOST_DSCP).prop_map(Match::Dscp), bytes]
    }
}
