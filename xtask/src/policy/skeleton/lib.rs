//! @NAME@: which worker a connection goes to, as a function of what can be seen.
#![cfg_attr(not(test), no_std)]

use cluster_common::custom::NO_CHOICE;

/// Workers that are compared: the kernel wants to see that a loop ends.
pub const COMPARED: u32 = 32;

/// The one of `length` workers with the fewest connections; of several, the first from `start` on.
///
/// `connections` tells how many the worker at an index of the route has.
#[inline(always)]
pub fn pick(length: u32, start: u32, mut connections: impl FnMut(u32) -> u64) -> u32 {
    let mut best = NO_CHOICE;
    let mut fewest = u64::MAX;
    let mut nth = 0;
    while nth < COMPARED {
        if nth >= length {
            break;
        }
        let index = start.wrapping_add(nth) % length;
        let connections = connections(index);
        if connections < fewest {
            fewest = connections;
            best = index;
        }
        nth += 1;
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick_of(connections: &[u64], start: u32) -> u32 {
        let length = u32::try_from(connections.len()).unwrap();
        pick(length, start, |index| connections[index as usize])
    }

    #[test]
    fn the_one_with_the_fewest_connections_is_picked_wherever_it_is() {
        for start in [0, 1, 2, 7, u32::MAX] {
            assert_eq!(pick_of(&[5, 2, 9], start), 1);
        }
    }

    #[test]
    fn of_equals_it_is_another_one_each_time() {
        assert_eq!([0, 1, 2, 3].map(|start| pick_of(&[1, 1, 1], start)), [0, 1, 2, 0]);
    }

    #[test]
    fn without_workers_nothing_is_picked() {
        assert_eq!(pick_of(&[], 3), NO_CHOICE);
    }
}
