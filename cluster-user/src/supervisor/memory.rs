//! Memory that the allocator keeps, and the kernel could have.

use std::time::Duration;

/// Has large blocks go back to the kernel as soon as they are free.
///
/// glibc learns from a block of some megabytes that is freed (the kernel's description of its types is one) to keep as much
/// for the next one, which never comes (`M_MMAP_THRESHOLD` in mallopt(3)): five megabytes for as long as the daemon lives.
pub(super) fn give_back_large_blocks() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets a number of the allocator, before there are other threads; where it fails all stays as it was.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 * 1024);
    }
}

/// How long nothing may have happened when small blocks go back to the kernel.
pub(super) const QUIET: Duration = Duration::from_secs(2);

/// Has all that is free go back to the kernel.
///
/// By itself glibc gives back only what is free at the end of its heap: a megabyte less after 500 workers have started.
pub(super) fn give_back_what_is_free() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it has no conditions (malloc_trim(3)).
    unsafe {
        libc::malloc_trim(0);
    }
}
