//! Class: by kind of client, each kind with workers of its own and a rule among these. Whom no class fits comes to all
//! workers in turn.
//!
//! Rules and places of workers are never those of different publications ([`cluster_common::class`]): what the program was
//! loaded with numbers the classes, and a table says where the workers of a number are, all in one publication.

use aya_ebpf::{bindings::sk_reuseport_md, helpers::generated::bpf_get_prandom_u32};
use cluster_common::{
    abi::Config,
    class::{FAITHFUL, NUMBERS, Part},
    route::{Lane, Turn},
};
use cluster_ebpf::fetch_add;

use super::Policy;
use crate::{
    classify::class_of,
    load::{burden, is_gone, now},
    maps::CLASS_TURNS,
    table,
};

pub(crate) struct Class;

impl Policy for Class {
    const WEIGHS: bool = true;

    #[inline(always)]
    fn key(ctx: *mut sk_reuseport_md, _config: &Config, _hash: u32) -> u32 {
        class_of(ctx)
    }

    #[inline(always)]
    fn draw(ctx: *mut sk_reuseport_md, lane: Lane, class: u32, attempt: u32) -> Turn {
        let turn = take_turn(lane, class);
        table::pick(table::current(), |table, len| {
            let mine = Part::of(table, len, class);
            if attempt == 0 {
                let tick = now();
                // SAFETY: the context is valid for the whole run.
                let hash = unsafe { (*ctx).hash };
                // SAFETY: has no arguments and no conditions.
                let random = || unsafe { bpf_get_prandom_u32() };
                return mine.pick(turn, hash, random, |entry, enough| burden(entry, tick, enough));
            }
            let next = mine.at(turn);
            if attempt < FAITHFUL || !is_gone(next) {
                return next;
            }
            // Nobody of the class is there any more, and the next route will say so, too.
            Part::of_all(table, len).at(turn)
        })
    }

    #[inline(always)]
    fn peek(class: u32, hash: u32) -> Turn {
        table::pick(table::current(), |table, len| Part::of(table, len, class).at(hash.into()))
    }
}

/// A number that grows by one with each turn of a class, in each lane.
#[inline(always)]
fn take_turn(lane: Lane, class: u32) -> u64 {
    let line = CLASS_TURNS.get_ptr_mut(lane.index() * NUMBERS + class);
    // SAFETY: an aligned word of the map.
    line.map_or(0, |line| unsafe { fetch_add(line.cast(), 1) })
}
