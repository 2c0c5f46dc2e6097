//! The policies: one file each, each answering whose turn it is.

pub(crate) mod round_robin;
