//! What the kernel knows of a TCP connection.

use aya_ebpf::{cty::c_void, helpers::generated::bpf_skc_to_tcp_sock};

/// A `struct tcp_sock`.
pub(crate) struct Tcp(*const u32);

impl Tcp {
    /// That behind a socket; `None` if it is none of TCP.
    #[inline(always)]
    pub(crate) fn of(socket: *mut c_void) -> Option<Self> {
        // SAFETY: a socket of the context.
        let found = unsafe { bpf_skc_to_tcp_sock(socket) };
        if found.is_null() { None } else { Some(Self(found.cast_const().cast())) }
    }

    /// The number at this offset. The verifier compares it with the kernel's own type information.
    #[inline(always)]
    pub(crate) fn number(&self, offset: u32) -> u32 {
        // SAFETY: the verifier lets through only what lies inside.
        let place = unsafe { self.0.byte_add(offset as usize) };
        // SAFETY: as above; the kernel may be changing it.
        unsafe { place.read_volatile() }
    }
}
