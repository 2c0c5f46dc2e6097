//! cluster.
fn main() {}
