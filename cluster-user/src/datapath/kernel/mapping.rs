//! Memory of a map, shared with the kernel program.

use std::{
    io,
    num::NonZeroUsize,
    os::fd::BorrowedFd,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// The mapped values of an array (`BPF_F_MMAPABLE`), unmapped when dropped.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<libc::c_void>,
    bytes: usize,
}

// SAFETY: shared memory does not belong to a thread; all access through `&self` is atomic.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps the first `bytes` of an array for reading, and for writing if `writable`.
    pub(super) fn new(map: BorrowedFd<'_>, bytes: usize, writable: bool) -> io::Result<Self> {
        let length =
            NonZeroUsize::new(bytes).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut protection = ProtFlags::PROT_READ;
        protection.set(ProtFlags::PROT_WRITE, writable);
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let start = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, map, 0) }?;
        Ok(Self { start, bytes })
    }

    /// Its beginning, valid for as long as this value lives.
    pub(super) fn start<T>(&self) -> *mut T {
        self.start.as_ptr().cast()
    }

    /// The counter at `offset` bytes, a multiple of 8; 0 beyond the end.
    pub(super) fn counter(&self, offset: usize) -> u64 {
        if !offset.is_multiple_of(size_of::<u64>()) || offset + size_of::<u64>() > self.bytes {
            return 0;
        }
        // SAFETY: the offset is inside the mapping, as just checked.
        let place = unsafe { self.start.as_ptr().byte_add(offset) };
        // SAFETY: a page is aligned, so is the offset; the kernel writes these words with atomic adds only.
        unsafe { AtomicU64::from_ptr(place.cast()) }.load(Ordering::Relaxed)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` has mapped, and nothing borrowed from it outlives `self`.
        let unmapped = unsafe { munmap(self.start, self.bytes) };
        debug_assert!(unmapped.is_ok(), "a mapping of our own can be unmapped");
    }
}
