//! Network interfaces of an arena.

use std::io;

use anyhow::Context as _;
use socket2::{Domain, Socket, Type};

/// Brings an interface up (`SIOCSIFFLAGS`, netdevice(7)).
pub(super) fn up(name: &str) -> anyhow::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).context("failed to make a socket")?;
    // SAFETY: all zeros is a request with an empty name and no flags.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from.cast_signed();
    }
    let flags = libc::IFF_UP | libc::IFF_RUNNING;
    request.ifr_ifru.ifru_flags = i16::try_from(flags).unwrap_or_default();
    // SAFETY: the request is a whole ifreq that outlives the call.
    let done = unsafe {
        libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&socket), libc::SIOCSIFFLAGS, &raw mut request)
    };
    if done == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error()).with_context(|| format!("failed to bring `{name}` up"))
}
