//! The programs that bring unmodified servers into a group: every port a worker binds becomes a shared one.
//!
//! They hang on the supervisor's cgroup and see all of its workers' sockets, and no others. A worker's bind passes
//! through [`cluster_bind4`] or [`cluster_bind6`], which shares the port and reports the attempt; success is reported by
//! [`cluster_listen`] for TCP, and by [`cluster_bound4`] and [`cluster_bound6`] for UDP.
//!
//! MPTCP sockets cannot be members of a group. Their inner TCP socket is reported like any other; the supervisor finds
//! that out when it looks the socket up.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![expect(clippy::inline_always, reason = "the verifier allows only direct uses of a context")]

mod bind;
mod listen;
mod maps;
mod meter;
mod report;

use aya_ebpf::{
    bindings::{
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_TCP_LISTEN_CB,
    },
    macros::{btf_tracepoint, cgroup_sock, cgroup_sock_addr, sock_ops},
    programs::{BtfTracePointContext, SockAddrContext, SockContext, SockOpsContext},
};
use cluster_common::event::{IPV4, IPV6};
// Brings in the licence and the panic handler.
use cluster_ebpf as _;

/// What these programs answer: they watch, and refuse nothing.
const ALLOW: i32 = 1;

/// Before a worker's IPv4 bind.
#[cgroup_sock_addr(bind4)]
fn cluster_bind4(ctx: SockAddrContext) -> i32 {
    bind::share(&ctx, IPV4);
    ALLOW
}

/// Before a worker's IPv6 bind.
#[cgroup_sock_addr(bind6)]
fn cluster_bind6(ctx: SockAddrContext) -> i32 {
    bind::share(&ctx, IPV6);
    ALLOW
}

/// After a worker's IPv4 bind.
#[cgroup_sock(post_bind4)]
fn cluster_bound4(ctx: SockContext) -> i32 {
    bind::bound(&ctx, IPV4);
    ALLOW
}

/// After a worker's IPv6 bind.
#[cgroup_sock(post_bind6)]
fn cluster_bound6(ctx: SockContext) -> i32 {
    bind::bound(&ctx, IPV6);
    ALLOW
}

/// Something happens to a worker's TCP socket.
#[sock_ops]
fn cluster_listen(ctx: SockOpsContext) -> u32 {
    match ctx.op() {
        BPF_SOCK_OPS_TCP_LISTEN_CB => {
            listen::watch(&ctx);
            meter::listens(&ctx);
        }
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => meter::established(&ctx),
        BPF_SOCK_OPS_STATE_CB => meter::changed(&ctx),
        _ => {}
    }
    ALLOW as u32
}

/// A program has read from a TCP socket, of whomever.
#[btf_tracepoint(function = "tcp_rcv_space_adjust")]
fn cluster_first(ctx: BtfTracePointContext) -> i32 {
    meter::read_from(ctx.arg(0));
    0
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
