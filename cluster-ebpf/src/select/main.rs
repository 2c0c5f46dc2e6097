//! The program of a group: the kernel asks it for a socket, and it answers with the worker whose turn it is.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![expect(
    clippy::inline_always,
    reason = "the verifier follows pointers into maps better without calls"
)]

mod classify;
mod group;
mod load;
mod log;
mod maps;
mod migration;
mod pins;
mod policy;
mod steering;
mod table;

use aya_ebpf::{bindings::sk_action, macros::sk_reuseport, programs::SkReuseportContext};
use cluster_common::{
    choose::{Decision, Verdict, choose},
    packet::{Kind, TCP, TCP_FLAGS_OFFSET, classify},
    route::Cursor,
};
// Brings in the licence and the panic handler.
use cluster_ebpf as _;

use crate::{
    group::Kernel,
    maps::CONFIG,
    policy::{
        Policy,
        class::Class,
        cpu_local::CpuLocal,
        custom::Custom,
        hash::Hash,
        least_conn::LeastConn,
        p2c::P2c,
        queue::Queue,
        random::Random,
        round_robin::{RoundRobin, Traced},
        sticky::Sticky,
    },
};

/// The programs of policies: each chooses a socket for a packet, or for a connection whose listener was closed.
macro_rules! programs {
    ($($policy:ty: $name:ident;)*) => {$(
        #[sk_reuseport(migrate)]
        fn $name(ctx: SkReuseportContext) -> u32 {
            let (_, _, decision) = decide::<$policy>(&ctx);
            action(decision)
        }
    )*};
}

programs! {
    RoundRobin: cluster_select;
    LeastConn: cluster_least;
    P2c: cluster_p2c;
    Queue: cluster_queue;
    Hash: cluster_hash;
    Sticky: cluster_sticky;
    CpuLocal: cluster_cpu;
    Random: cluster_random;
    Class: cluster_class;
    Custom: cluster_custom;
}

/// As [`cluster_select`], and logs it. A program of its own: the verifier removes the branch of a switch that is off, but
/// not the load before it, and walks that for every end of a decision.
#[sk_reuseport(migrate)]
fn cluster_traced(ctx: SkReuseportContext) -> u32 {
    let (kind, hash, decision) = decide::<Traced>(&ctx);
    log::decision(&ctx, kind, hash, decision);
    action(decision)
}

#[inline(always)]
fn decide<P: Policy>(ctx: &SkReuseportContext) -> (Kind, u32, Decision) {
    let kind = kind_of(ctx);
    let hash = ctx.hash();
    let Some(config) = CONFIG.get_ptr(0) else {
        return (kind, hash, Decision { verdict: Verdict::Refused, cursor: Cursor::ZERO });
    };
    // SAFETY: a valid entry of the map. The supervisor may be changing it: each setting is a word.
    let config = unsafe { &*config };
    (kind, hash, choose(&mut Kernel::<P>::new(ctx, config), kind, hash))
}

#[inline(always)]
fn action(decision: Decision) -> u32 {
    match decision.verdict {
        Verdict::Refused => sk_action::SK_DROP,
        // To pass is to take what has been selected. Without a selection it asks for the kernel's hash, which is what
        // `Hashed` means; the other two are only returned after a selection.
        Verdict::Selected(_) | Verdict::Waiting | Verdict::Hashed => sk_action::SK_PASS,
    }
}

#[inline(always)]
fn kind_of(ctx: &SkReuseportContext) -> Kind {
    let migrating = ctx.migrating_sk().is_some();
    // SAFETY: the context is valid for the whole run.
    let protocol = unsafe { (*ctx.md).ip_protocol };
    let flags = if protocol == TCP { tcp_flags(ctx) } else { None };
    classify(migrating, protocol, flags)
}

/// The flag byte of the TCP header, at which the packet's data begins.
#[inline(always)]
fn tcp_flags(ctx: &SkReuseportContext) -> Option<u8> {
    let at = ctx.data() + TCP_FLAGS_OFFSET;
    if at + 1 > ctx.data_end() {
        return None;
    }
    // SAFETY: inside the packet, as the comparison before shows to the verifier as well.
    Some(unsafe { *(at as *const u8) })
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
