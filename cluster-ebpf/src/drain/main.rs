//! The programs that tell connections to close: one sees what arrives at the workers, the other what they send.
//!
//! What they decide, and why no byte of a body can change, is in [`cluster_common::exchange`]. A connection that is not in
//! the maps is left alone by both.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![expect(
    clippy::inline_always,
    reason = "the verifier follows pointers into maps better without calls"
)]

mod arrive;
mod depart;
mod maps;
mod tcp;

use aya_ebpf::{
    macros::{cgroup_skb, sk_msg},
    programs::{SkBuffContext, SkMsgContext},
};
// Brings in the licence and the panic handler.
use cluster_ebpf as _;

/// What the programs answer that see what arrives: they watch, and refuse nothing.
const ALLOW: i32 = 1;

/// A packet is about to be given to a socket of a worker.
#[cgroup_skb(ingress)]
fn cluster_arrive(ctx: SkBuffContext) -> i32 {
    arrive::watch(&ctx);
    ALLOW
}

/// Goes on reading what arrived.
#[cgroup_skb(ingress)]
fn cluster_read(ctx: SkBuffContext) -> i32 {
    arrive::read(&ctx);
    ALLOW
}

/// A worker sends something.
#[sk_msg]
fn cluster_depart(ctx: SkMsgContext) -> u32 {
    depart::tell(&ctx)
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
