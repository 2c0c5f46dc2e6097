//! What the kernel program and the supervisor agree on.
#![cfg_attr(not(test), no_std)]

pub mod slot;
