//! What the kernel programs and the supervisor agree on: shared memory, events, and the rules of choosing.
//!
//! Everything here is pure and `no_std`. It is compiled three times: into the kernel programs, into the supervisor, and
//! into the tests that run the same code on the host. The modules are in reading order.
#![cfg_attr(not(test), no_std)]
#![expect(
    clippy::inline_always,
    reason = "a call costs more than most of these bodies, and the verifier follows bounds better without"
)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "words are unpacked into the parts they were packed from"
)]

pub mod slot;

pub mod load;

pub mod route;

// The kernel's half of a publication is reading: it needs no compare-and-exchange, and could not compile one.
#[cfg(not(target_arch = "bpf"))]
pub mod publish;

pub mod packet;

pub mod flow;

pub mod steer;

pub mod pick;

pub mod cpu;

pub mod class;

pub mod custom;

pub mod choose;

pub mod meter;

pub mod http;

pub mod exchange;

pub mod stats;

pub mod event;

pub mod owner;

pub mod names;

pub mod abi;
