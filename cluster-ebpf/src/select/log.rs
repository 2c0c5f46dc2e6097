//! Following decisions one by one, for those who want to watch the kernel choose.

use aya_ebpf::{Global, programs::SkReuseportContext};
use aya_log_ebpf::info;
use cluster_common::{
    choose::{Decision, Verdict},
    packet::Kind,
};

/// 1 to log every decision. Set at load and read-only afterwards: at 0 the verifier removes the code.
#[unsafe(no_mangle)]
static TRACE: Global<u8> = Global::new(0);

/// Logs a decision.
#[inline(always)]
pub(crate) fn decision(ctx: &SkReuseportContext, kind: Kind, hash: u32, decision: Decision) {
    if TRACE.load() == 0 {
        return;
    }
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
