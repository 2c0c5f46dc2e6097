//! Connections that move to another worker because their listener was closed, and their load that moves with them.

use aya_ebpf::{
    bindings::{bpf_sock, sk_reuseport_md},
    cty::c_void,
    helpers::generated::bpf_get_socket_cookie,
};
use cluster_common::route::Entry;
use cluster_ebpf::{count, read};

use crate::maps::{LOADS, MOVED};

/// `TCP_ESTABLISHED` of `net/tcp_states.h`.
const ESTABLISHED: u32 = 1;
/// As well: the client has ended its half.
const CLOSE_WAIT: u32 = 8;

/// Gives a connection to the worker that it moves to.
///
/// Its tag still names the seat that it came to, and cannot be changed from here: [`MOVED`] says which seat has it now. The
/// programs that count it find that out at its next event. Until then the seat that it left counts it, too: of a socket that
/// is gone.
#[inline(always)]
pub(crate) fn moved(ctx: *mut sk_reuseport_md, to: Entry, room: u64) {
    let listener = read!(ctx.__bindgen_anon_3.sk);
    let connection = read!(ctx.__bindgen_anon_4.migrating_sk);
    if listener.is_null() || connection.is_null() || !to.seat().counts() {
        return;
    }
    // What waited in the waiting room is not seen by the programs of the workers' cgroups.
    if cookie(listener) == room {
        return;
    }
    // A handshake is not counted yet, and what is made of it gets the tag of its new listener.
    let state = read!(connection.state);
    if state != ESTABLISHED && state != CLOSE_WAIT {
        return;
    }
    let Some(load) = LOADS.get_ptr_mut(to.seat().index()) else { return };
    let connection = cookie(connection);
    // SAFETY: the value is copied at once.
    if let Some(&before) = unsafe { MOVED.get(connection) }
        && let Some(left) = LOADS.get_ptr_mut(before)
    {
        // It has moved before, to a worker that is gone as well.
        count!(left.live, u64::MAX);
    }
    if MOVED.insert(connection, u32::from(to.seat().get()), 0).is_ok() {
        count!(load.live, 1);
        count!(load.established, 1);
    }
}

#[inline(always)]
fn cookie(socket: *mut bpf_sock) -> u64 {
    let socket: *mut c_void = socket.cast();
    // SAFETY: a socket of the context.
    unsafe { bpf_get_socket_cookie(socket) }
}
