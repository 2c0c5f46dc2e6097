//! The data path without privileges: the kernel's own hash, and a seccomp filter that says who listens.
