//! Programs of users that pick workers: what they answer, and where they are joined to ours.
//!
//! A user's program is not attached by itself. Its instructions are appended to those of a program of ours, which calls
//! it as a function, so that everything around the pick is as with any other policy.

/// What a user's program answers when it does not want to pick: the next turn of round robin it is.
///
/// Any other number is an index into the current route table; one that is not below its length is as good as this.
pub const NO_CHOICE: u32 = u32::MAX;

/// Number of a helper that no kernel has. Its call is where a user's program is called instead.
pub const PICK: u32 = 0x636c_7573;

/// Name of the global, a `u32`, by which an object says for which [`VERSION`](crate::abi::VERSION) it was made.
pub const ABI: &str = "CLUSTER_ABI";
