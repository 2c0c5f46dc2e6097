//! The kernel side of cluster.
