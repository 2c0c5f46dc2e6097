//! Memory of a map, shared with the kernel program.

use std::{
    io,
    num::NonZeroUsize,
    os::fd::BorrowedFd,
    ptr::NonNull,
    sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering},
};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// The mapped values of an array (`BPF_F_MMAPABLE`), unmapped when dropped.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<libc::c_void>,
    bytes: usize,
    writable: bool,
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
        Ok(Self { start, bytes, writable })
    }

    /// Its beginning, valid for as long as this value lives.
    pub(super) fn start<T>(&self) -> *mut T {
        self.start.as_ptr().cast()
    }

    /// The counter at `offset` bytes, a multiple of 8; 0 beyond the end.
    pub(super) fn counter(&self, offset: usize) -> u64 {
        // SAFETY: aligned and inside, and the kernel writes these words with atomic adds only.
        let counter = self.place(offset).map(|place| unsafe { AtomicU64::from_ptr(place) });
        counter.map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// Writes 4 bytes at `offset`, a multiple of that, and nothing beside them; nothing at all beyond the end, and where the
    /// mapping is for reading.
    pub(super) fn set_word(&self, offset: usize, value: u32) {
        // SAFETY: aligned, inside and writable, and the kernel reads and writes whole words.
        let word = self.writable(offset).map(|place| unsafe { AtomicU32::from_ptr(place) });
        if let Some(word) = word {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// As [`Mapping::set_word`], for 2 bytes.
    pub(super) fn set_half(&self, offset: usize, value: u16) {
        // SAFETY: as above.
        let half = self.writable(offset).map(|place| unsafe { AtomicU16::from_ptr(place) });
        if let Some(half) = half {
            half.store(value, Ordering::Relaxed);
        }
    }

    fn writable<T>(&self, offset: usize) -> Option<*mut T> {
        self.place(offset).filter(|_| self.writable)
    }

    /// The place at `offset` bytes for a value of its alignment; `None` beyond the end.
    fn place<T>(&self, offset: usize) -> Option<*mut T> {
        let inside = offset.checked_add(size_of::<T>()).is_some_and(|end| end <= self.bytes);
        if !inside || !offset.is_multiple_of(size_of::<T>()) {
            return None;
        }
        // SAFETY: inside the mapping, as just checked; it begins at a page, so that the place is aligned.
        Some(unsafe { self.start.as_ptr().byte_add(offset) }.cast())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` has mapped, and nothing borrowed from it outlives `self`.
        let unmapped = unsafe { munmap(self.start, self.bytes) };
        debug_assert!(unmapped.is_ok(), "a mapping of our own can be unmapped");
    }
}
