//! Memory that the allocator keeps, and the kernel could have.

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

/// When small blocks go back to the kernel: after much has happened, and it is quiet again.
///
/// By itself glibc gives back only what is free at the end of its heap: a megabyte less after 500 workers have started.
#[derive(Debug, Default)]
pub(super) struct Rest {
    /// Looks at the clock since something happened.
    looks: u32,
}

impl Rest {
    /// Looks at the clock until it is quiet.
    const QUIET: u32 = 2;

    /// Something happens.
    pub(super) const fn disturb(&mut self) {
        self.looks = 0;
    }

    /// Some time has passed. Gives back what is free when it has become quiet, and then no more until it is disturbed.
    pub(super) fn pass(&mut self) {
        self.looks = self.looks.saturating_add(1);
        if self.looks == Self::QUIET {
            give_back_what_is_free();
        }
    }
}

fn give_back_what_is_free() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it has no conditions (malloc_trim(3)).
    unsafe {
        libc::malloc_trim(0);
    }
}
