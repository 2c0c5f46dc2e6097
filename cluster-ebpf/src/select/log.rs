//! Following decisions one by one, for those who want to watch the kernel choose.

use aya_ebpf::programs::SkReuseportContext;
use aya_log_ebpf::info;
use cluster_common::{
    choose::{Decision, Verdict},
    packet::Kind,
};

/// Logs a decision.
#[inline(always)]
pub(crate) fn decision(ctx: &SkReuseportContext, kind: Kind, hash: u32, decision: Decision) {
    let kind = match kind {
        Kind::Syn => "syn",
        Kind::CookieAck => "ack",
        Kind::Migration => "migration",
        Kind::Datagram => "udp",
        Kind::Other => "other",
    };
    let (verdict, slot) = match decision.verdict {
        Verdict::Selected(slot) => ("chosen", slot.get()),
        Verdict::Waiting => ("waiting", 0),
        Verdict::Refused => ("refused", 0),
        Verdict::Hashed => ("hashed", 0),
    };
    let (version, position) = (decision.cursor.version(), decision.cursor.position());
    info!(
        ctx,
        "{} {} slot={} version={} position={} hash={:x}",
        kind,
        verdict,
        slot,
        version,
        position,
        hash
    );
}
