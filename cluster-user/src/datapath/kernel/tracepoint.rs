//! Attaching a program to a tracepoint.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
};

use aya_obj::generated::bpf_cmd;

use super::bpf;

#[repr(C)]
struct Open {
    name: u64,
    program: RawFd,
    padding: u32,
    cookie: u64,
}

/// Attaches a program to the tracepoint that it was verified for; closing the descriptor detaches it.
///
/// # Errors
/// What the kernel said.
pub(super) fn link(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let program = program.as_raw_fd();
    let open = Open { name: 0, program, padding: 0, cookie: 0 };
    bpf::descriptor(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &open)
}
