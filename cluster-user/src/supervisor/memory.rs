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

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;

    #[test]
    fn what_lies_between_blocks_in_use_is_given_back() {
        const SIZE: usize = 32 << 20;
        let mut blocks: Vec<Option<Box<[u8]>>> =
            (0..SIZE / 1024).map(|_| Some(vec![1; 1024].into())).collect();
        // What is left keeps the heap from shrinking.
        for block in
            blocks.iter_mut().enumerate().filter_map(|(n, block)| (n % 512 != 511).then_some(block))
        {
            *block = None;
        }
        let before = resident();
        give_back_what_is_free();
        let after = resident();
        // Other tests run beside this one.
        assert!(after + SIZE / 2 < before, "{before} bytes before, {after} after");
        drop(blocks);
    }

    /// Resident memory of this process in bytes.
    fn resident() -> usize {
        let pages = procfs::process::Process::myself().and_then(|me| me.statm());
        usize::try_from(pages.expect("it has memory").resident * procfs::page_size())
            .expect("it fits into its own memory")
    }
}
