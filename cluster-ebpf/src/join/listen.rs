//! When a worker's TCP socket begins to listen.

use aya_ebpf::{
    EbpfContext as _, helpers::generated::bpf_get_socket_cookie, programs::SockOpsContext,
};
use cluster_common::{
    event::{Event, IPV4, LISTENING},
    packet::TCP,
};

use crate::{
    maps::JOINING,
    report::{octets, report},
};

/// Reports a socket that listens from now on.
#[inline(always)]
pub(crate) fn watch(ctx: &SockOpsContext) {
    // SAFETY: a context of this run.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    // Absent for a port that the kernel chose and for one that is not to be balanced.
    // SAFETY: the value is copied at once.
    let Some(&cgroup) = (unsafe { JOINING.get(cookie) }) else { return };
    let family = ctx.family();
    // Both are read, whichever is meant, and in a way that the compiler must keep: it would otherwise choose between two
    // places in the context and read once, which the verifier refuses.
    let ops = ctx.ops;
    // SAFETY: the context is valid for the whole run.
    let ip4 = unsafe { &raw const (*ops).local_ip4 };
    // SAFETY: as above.
    let ip4 = unsafe { ip4.read_volatile() };
    // SAFETY: as above.
    let ip6 = unsafe { &raw const (*ops).local_ip6 }.cast::<u32>();
    // SAFETY: as above; there are four words.
    let ip6 = [0, 1, 2, 3]
        .map(|word| unsafe { ip6.add(word) })
        .map(|word| unsafe { word.read_volatile() });
    let addr = octets(if family == IPV4 { [ip4, 0, 0, 0] } else { ip6 });
    report(Event {
        kind: LISTENING,
        family,
        protocol: TCP,
        port: ctx.local_port(),
        addr,
        cookie,
        cgroup,
    });
}
