//! Before and after a worker's bind.

use aya_ebpf::{
    EbpfContext as _,
    cty::c_int,
    helpers::generated::{
        bpf_get_current_ancestor_cgroup_id, bpf_get_socket_cookie, bpf_setsockopt,
    },
    programs::{SockAddrContext, SockContext},
};
use cluster_common::{
    event::{BINDING, Event, IPV4, UDP_BOUND},
    owner::{self, mapped},
    packet::{TCP, UDP},
};

use crate::{
    maps::{JOINING, PORT_FILTER, PORT_OWNER, WORKER_LEVEL},
    report::{lost, octets, report},
};

/// From the kernel's `socket.h` of every architecture that cluster supports.
const SOL_SOCKET: c_int = 1;
const SO_REUSEPORT: c_int = 15;

/// Makes the socket share the port it is about to be bound to, if that is to be balanced and no other app is in the way.
#[inline(always)]
pub(crate) fn share(ctx: &SockAddrContext, family: u32) {
    let addr = ctx.sock_addr;
    // SAFETY: the context is valid for the whole run, here and below.
    let [high, low, ..] = unsafe { (*addr).user_port }.to_ne_bytes();
    let port = u16::from_be_bytes([high, low]);
    // SAFETY: as above.
    let protocol = unsafe { (*addr).protocol };
    // Port 0 asks for any free port: two workers must not get the same one.
    if port == 0 || (protocol != TCP && protocol != UDP) {
        return;
    }
    let Some(cgroup) = worker() else { return };
    // SAFETY: nobody keeps the reference beyond this line.
    if unsafe { PORT_FILTER.get(cgroup) }.is_some_and(|filter| !filter.lists(port)) {
        return;
    }
    let (addr, comparable) = if family == IPV4 {
        // SAFETY: as above.
        let ip = unsafe { (*addr).user_ip4 };
        (octets([ip, 0, 0, 0]), mapped(ip.to_ne_bytes()))
    } else {
        // SAFETY: as above.
        let ip = octets(unsafe { (*addr).user_ip6 });
        (ip, ip)
    };
    // Beside another app the bind fails as it would without us: a more specific address would take that app's connections
    // until the supervisor noticed. The option is taken away even from a program that sets it by itself.
    let on = c_int::from(!is_anothers(port, protocol, owner::address(comparable)));
    // SAFETY: a context of this run, and a value of the size that is given. If it fails, the bind is an ordinary one.
    unsafe {
        bpf_setsockopt(ctx.as_ptr(), SOL_SOCKET, SO_REUSEPORT, (&raw const on).cast_mut().cast(), 4)
    };
    // Also of a socket that does not share: should it be bound all the same, as two of UDP with `SO_REUSEADDR` can be, the
    // supervisor must see it to refuse it.
    // SAFETY: a context of this run.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    if JOINING.insert(cookie, cgroup, 0).is_err() {
        // Out of memory at most: its listening would not be recognised, so the supervisor must look for itself.
        lost();
    }

    report(Event { kind: BINDING, family, protocol, port: port.into(), addr, cookie, cgroup });
}

/// Reports a bound UDP socket; a TCP socket is reported when it listens.
#[inline(always)]
pub(crate) fn bound(ctx: &SockContext, family: u32) {
    let sock = ctx.sock;
    // SAFETY: the context is valid for the whole run, here and below.
    let protocol = unsafe { (*sock).protocol };
    if protocol != UDP {
        return;
    }
    // SAFETY: a context of this run.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    // Absent for a port that the kernel chose and for one that is not to be balanced.
    // SAFETY: the value is copied at once.
    let Some(&cgroup) = (unsafe { JOINING.get(cookie) }) else { return };
    // SAFETY: as above.
    let port = unsafe { (*sock).src_port };
    let addr = if family == IPV4 {
        // SAFETY: as above.
        octets([unsafe { (*sock).src_ip4 }, 0, 0, 0])
    } else {
        // SAFETY: as above.
        octets(unsafe { (*sock).src_ip6 })
    };
    report(Event { kind: UDP_BOUND, family, protocol, port, addr, cookie, cgroup });
}

/// Whether a group of another app than the one that is running is in the way of an address.
#[inline(always)]
fn is_anothers(port: u16, protocol: u32, address: [u64; 2]) -> bool {
    // SAFETY: nobody keeps the reference beyond this function.
    let Some(owners) = (unsafe { PORT_OWNER.get(owner::key(port, protocol)) }) else {
        return false;
    };
    // SAFETY: no pointers are involved. There is one, for there is a worker's below it.
    let app = unsafe { bpf_get_current_ancestor_cgroup_id(WORKER_LEVEL.load() - 1) };
    owners.refuse(app, address)
}

/// The cgroup of the worker that is running, or `None` if it is not a worker that runs.
#[inline(always)]
fn worker() -> Option<u64> {
    // SAFETY: no pointers are involved.
    let id = unsafe { bpf_get_current_ancestor_cgroup_id(WORKER_LEVEL.load()) };
    // 0 if the task's cgroup is not that deep: the supervisor itself, for one.
    (id != 0).then_some(id)
}
