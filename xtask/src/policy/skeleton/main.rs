//! @NAME@: the program in the kernel. It looks at the route and the loads of workers, and answers with an index.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

use aya_ebpf::{
    helpers::generated::bpf_get_prandom_u32,
    macros::{map, sk_reuseport},
    maps::Array,
    programs::SkReuseportContext,
};
use cluster_common::{
    abi,
    custom::NO_CHOICE,
    load::{Load, SEATS},
    route::{BUFFERS, Cursor, CursorLine, Entry, LANES, Lane, ROUTE_ENTRIES, RouteTable},
};
use @CRATE@::pick;

/// For which version of cluster this is: another one refuses it instead of misreading its maps.
#[used]
#[unsafe(no_mangle)]
pub static CLUSTER_ABI: u32 = abi::VERSION;

// Maps with these names are those of the app; any other one is this program's own.

/// The two tables of the route.
#[map]
static ROUTES: Array<RouteTable> = Array::with_max_entries(BUFFERS, 0);

/// Which of them is in use.
#[map]
static CURSORS: Array<CursorLine> = Array::with_max_entries(LANES, 0);

/// What each worker has to do.
#[map]
static LOADS: Array<Load> = Array::with_max_entries(SEATS, 0);

/// The index in the route of the worker that gets a connection; [`NO_CHOICE`] for the next one by round robin.
#[sk_reuseport]
fn @CRATE@(_ctx: SkReuseportContext) -> u32 {
    choose().unwrap_or(NO_CHOICE)
}

#[inline(always)]
fn choose() -> Option<u32> {
    let line = CURSORS.get_ptr(Lane::Syn.index())?;
    // SAFETY: an aligned word of the map, which others may be changing.
    let word = unsafe { (&raw const (*line).word).read_volatile() };
    let table = ROUTES.get_ptr(Cursor::from_word(word).buffer())?;
    // SAFETY: as above.
    let length = unsafe { (&raw const (*table).len).read_volatile() };
    // SAFETY: has no arguments and no conditions.
    let random = unsafe { bpf_get_prandom_u32() };
    Some(pick(length, random, |index| connections(table, index).unwrap_or(0)))
}

/// Connections that the worker at an index has, in its accept queue and in service.
#[inline(always)]
fn connections(table: *const RouteTable, index: u32) -> Option<u64> {
    // SAFETY: an entry of the map.
    let entries = unsafe { &raw const (*table).entries }.cast::<u32>();
    // SAFETY: the mask keeps the place inside the table, and shows that to the kernel.
    let place = unsafe { entries.add(index as usize & (ROUTE_ENTRIES - 1)) };
    // SAFETY: an aligned word of the map, which others may be changing.
    let entry = Entry::from_word(unsafe { place.read_volatile() });
    let load = LOADS.get_ptr(entry.seat().index())?;
    // SAFETY: as above.
    Some(unsafe { (&raw const (*load).live).read_volatile() })
}

/// The kernel lends most helpers only to programs under a licence that it knows.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The kernel refuses a program from which this can be reached, so it never is.
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
