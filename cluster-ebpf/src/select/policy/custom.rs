//! Custom: what a program of the user's picks. What it does not, or cannot be taken, is the next turn of round robin.

use core::mem::transmute;

use aya_ebpf::bindings::sk_reuseport_md;
use cluster_common::{
    custom::PICK,
    route::{Lane, Pick, Table as _, Turn, current},
};

use super::Policy;
use crate::{group::count_unfollowed, table};

pub(crate) struct Custom;

impl Policy for Custom {
    const TAKES_TURNS: bool = true;
    const WEIGHS: bool = true;

    #[inline(always)]
    fn draw(ctx: *mut sk_reuseport_md, lane: Lane, _hash: u32, attempt: u32) -> Turn {
        // A bad choice is made once, and cannot stop anything.
        if attempt == 0 {
            let cursor = table::current();
            let index = pick(ctx);
            let Some(table) = table::table(cursor) else { return Turn::Nobody };
            if index < table.length() {
                let entry = table.entry(index);
                // What it looked at may have been the next table already.
                let same = current(table, cursor) && table::current().version() == cursor.version();
                return if same { Turn::Of(Pick { entry, cursor }) } else { Turn::Overtaken };
            }
            count_unfollowed();
        }
        let Some(cursor) = table::advance(lane) else { return Turn::Nobody };
        table::turn(cursor, cursor.position())
    }
}

/// Calls the user's program.
///
/// Here it is the call of a helper that does not exist: to the compiler as opaque as what the loader puts in its place,
/// and to the kernel a reason to refuse the program if it did not.
#[inline(always)]
fn pick(ctx: *mut sk_reuseport_md) -> u32 {
    // SAFETY: a helper's number is its address. Like any function it takes its argument in the first register.
    let pick: unsafe extern "C" fn(*mut sk_reuseport_md) -> u32 =
        unsafe { transmute(PICK as usize) };
    // SAFETY: the context is valid for the whole run.
    unsafe { pick(ctx) }
}
