//! What both kernel programs need and Rust does not give on this target: atomic additions, a licence, a panic handler.
//!
//! `src/select` becomes the object that chooses a worker for each connection, `src/join` the one that makes sockets
//! of unmodified programs share their port. Entry points only translate; what they decide is in `cluster-common`.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![cfg_attr(
    target_arch = "bpf",
    expect(unstable_features, reason = "assembly for BPF is not stable yet")
)]
#![expect(
    clippy::inline_always,
    reason = "the verifier follows pointers into maps better without calls"
)]

use aya_ebpf::{cty::c_void, helpers::generated::bpf_probe_read_kernel};

/// Adds to a word that several CPUs add to, and returns what it was before.
///
/// In assembly because a relaxed `fetch_add` of this LLVM loses the fetch (the "result" is the addend), which
/// a test of the checked-in object would notice. Needs Linux 5.12.
///
/// # Safety
///
/// `place` must be a valid pointer into a map, aligned to 8 bytes.
#[inline(always)]
pub unsafe fn fetch_add(place: *mut u64, value: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let before;
        // SAFETY: the caller's promise; the instruction touches nothing else.
        unsafe {
            core::arch::asm!(
                "{value} = atomic_fetch_add((u64 *)({place} + 0), {value})",
                place = in(reg) place,
                value = inout(reg) value => before,
            );
        }
        before
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        use core::sync::atomic::{AtomicU64, Ordering};
        // SAFETY: the caller's promise.
        unsafe { AtomicU64::from_ptr(place) }.fetch_add(value, Ordering::SeqCst)
    }
}

/// Adds to a counter that several CPUs add to.
///
/// # Safety
///
/// As for [`fetch_add`].
#[inline(always)]
pub unsafe fn add(place: *mut u64, value: u64) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: the caller's promise; the instruction touches nothing else.
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({place} + 0) += {value}",
            place = in(reg) place,
            value = in(reg) value,
        );
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller's promise.
    unsafe {
        fetch_add(place, value);
    }
}

/// Reads the kernel's memory; zero where there is nothing to read.
#[inline(always)]
pub fn peek<T: Copy + Default>(address: u64) -> T {
    let mut value = T::default();
    let to: *mut c_void = (&raw mut value).cast();
    #[expect(clippy::cast_possible_truncation, reason = "words")]
    let size = size_of::<T>() as u32;
    // SAFETY: as much memory as is said; the helper bears any address.
    if unsafe { bpf_probe_read_kernel(to, size, address as *const c_void) } != 0 {
        return T::default();
    }
    value
}

/// Reads a field behind a pointer that is valid, such as one into a map, where others may be writing it.
#[macro_export]
macro_rules! read {
    ($pointer:ident.$($field:ident).+) => {{
        // SAFETY: the pointer is valid, as the name of this says.
        let place = unsafe { &raw const (*$pointer).$($field).+ };
        // SAFETY: as above, and fields are aligned.
        unsafe { place.read_volatile() }
    }};
}

/// Writes a field behind a pointer that is valid, where others may be reading it.
#[macro_export]
macro_rules! write {
    ($pointer:ident.$field:ident, $value:expr) => {{
        let value = $value;
        // SAFETY: the pointer is valid, as the name of this says.
        let place = unsafe { &raw mut (*$pointer).$field };
        // SAFETY: as above, and fields are aligned.
        unsafe { place.write_volatile(value) };
    }};
}

/// Adds to a counter behind a pointer that is valid, to which several CPUs add.
#[macro_export]
macro_rules! count {
    ($pointer:ident.$field:ident, $value:expr) => {{
        let value = $value;
        // SAFETY: the pointer is valid, as the name of this says.
        let place = unsafe { &raw mut (*$pointer).$field };
        // SAFETY: as above, and fields are aligned.
        unsafe { $crate::add(place, value) };
    }};
}

/// The kernel lends most helpers only to programs under a licence it knows.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program from which this can be reached, so it never is.
    loop {}
}
