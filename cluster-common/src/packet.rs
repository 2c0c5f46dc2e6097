//! What kind of packet a decision is about, because the program runs per lookup and not per connection.
//!
//! An orderly connection is looked up once, for its SYN. Under SYN cookies it is looked up again for the ACK that ends the
//! handshake, and that decision counts. Stray segments are looked up as well, and so is each connection that has to move
//! because its listener was closed (`inet_lookup_listener`, `reuseport_select_sock`, `reuseport_migrate_sock` in Linux).

/// IP protocol number of TCP.
pub const TCP: u32 = 6;
/// IP protocol number of UDP.
pub const UDP: u32 = 17;

/// Offset of the flags in a TCP header.
pub const TCP_FLAGS_OFFSET: usize = 13;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// The kinds that are treated differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// The first packet of a connection.
    Syn = 0,
    /// Perhaps the last packet of a handshake with SYN cookies; perhaps a stray. It may carry data.
    CookieAck = 1,
    /// A connection whose listener went away.
    Migration = 2,
    /// A UDP datagram.
    Datagram = 3,
    /// Nothing that starts a connection: RST, FIN, SYN with ACK, or something unreadable.
    Other = 4,
}

/// Tells the kind of a packet from what could be read of it.
///
/// `migrating` is whether the kernel asks for a connection that it moves, which decides alone: such a run has no packet or
/// the packet that found its listener gone. `flags` is the flag byte of the TCP header, `None` if there is none to read.
#[inline(always)]
pub const fn classify(migrating: bool, protocol: u32, flags: Option<u8>) -> Kind {
    if migrating {
        return Kind::Migration;
    }
    match (protocol, flags) {
        (UDP, _) => Kind::Datagram,
        (TCP, Some(flags)) => match flags & (SYN | ACK | RST | FIN) {
            // SYN with FIN does not start a connection: Linux drops it.
            SYN => Kind::Syn,
            ACK => Kind::CookieAck,
            _ => Kind::Other,
        },
        _ => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PSH: u8 = 0x08;
    const ECE_CWR: u8 = 0xc0;

    #[test]
    fn a_syn_is_a_syn_with_or_without_congestion_bits() {
        assert_eq!(classify(false, TCP, Some(SYN)), Kind::Syn);
        assert_eq!(classify(false, TCP, Some(SYN | ECE_CWR)), Kind::Syn);
    }

    #[test]
    fn the_ack_of_a_cookie_may_carry_data() {
        assert_eq!(classify(false, TCP, Some(ACK)), Kind::CookieAck);
        assert_eq!(classify(false, TCP, Some(ACK | PSH)), Kind::CookieAck);
    }

    #[test]
    fn what_starts_no_connection_is_other() {
        for flags in [RST, RST | ACK, FIN, FIN | ACK, SYN | ACK, SYN | FIN, SYN | RST, PSH, 0, 0xff]
        {
            assert_eq!(classify(false, TCP, Some(flags)), Kind::Other, "flags {flags:#x}");
        }
        assert_eq!(classify(false, TCP, None), Kind::Other);
        assert_eq!(classify(false, 132, Some(SYN)), Kind::Other);
    }

    #[test]
    fn a_migration_is_one_whatever_the_packet() {
        for flags in [None, Some(SYN), Some(ACK), Some(RST)] {
            assert_eq!(classify(true, TCP, flags), Kind::Migration);
        }
    }

    #[test]
    fn a_datagram_needs_no_flags() {
        assert_eq!(classify(false, UDP, None), Kind::Datagram);
    }
}
