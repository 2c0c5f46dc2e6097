//! What tests, chaos and benchmarks prove things with: clients that account for every request, a look at what
//! is left behind, and waiting for conditions.
//!
//! Requests are due at times of a seeded Poisson process, whether or not earlier ones have been answered, so a
//! stall is seen by as many of them as real clients would have sent meanwhile. Latency counts from when a
//! request was due. Each one ends as answered or as a [`Failure`](failure::Failure) that says at which point
//! and by what; none is tried again. The apps that are asked answer [`content`] and know nothing of `cluster`.

pub mod load;
pub mod account;
pub mod request;
pub mod failure;
pub mod content;
mod pool;
mod exchange;
mod connection;
mod head;
mod chunks;
pub mod assembler;
pub mod leftover;
pub mod wait;
#[cfg(test)]
mod misbehaving;
