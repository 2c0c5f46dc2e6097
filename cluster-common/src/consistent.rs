//! A consistent route: tables in which a worker keeps its places when others come and go.
//!
//! Rendezvous hashing (Thaler and Ravishankar, "Using name-based mappings to increase hit rates", IEEE/ACM Transactions on
//! Networking 6(1), 1998) over a fixed number of places: each place is the worker's whose hash with it is the highest. A
//! place changes hands only when its worker goes or a better one comes, so that one of *n* moves 1/*n* of them.

use crate::{pick::mix, route::ROUTE_ENTRIES};

/// Places of a table: all that a route has room for, so that shares are as even as can be.
pub const PLACES: usize = ROUTE_ENTRIES;

/// Whose a place is: the index of one of `keys`, which are what workers are known by whatever else of them changes.
/// `None` if there are no workers.
///
/// Takes time in proportion to the number of workers.
pub fn owner(place: usize, keys: &[u64]) -> Option<usize> {
    let spread = mix(place as u64 ^ 0x9e37_79b9_7f4a_7c15);
    (0..keys.len()).max_by_key(|&worker| (mix(keys[worker] ^ spread), keys[worker]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(keys: &[u64]) -> Vec<u64> {
        (0..PLACES).map(|place| keys[owner(place, keys).unwrap()]).collect()
    }

    #[test]
    fn everybody_has_about_the_same_share() {
        for workers in [1, 2, 4, 16, 64] {
            let keys: Vec<u64> = (0..workers).collect();
            let table = table(&keys);
            let even = PLACES / keys.len();
            for key in &keys {
                let share = table.iter().filter(|at| *at == key).count();
                // Four standard deviations of what chance would give.
                let off = share.abs_diff(even);
                assert!(off * off <= 16 * even, "{key} has {share}, not {even}");
            }
        }
    }

    #[test]
    fn losing_one_moves_its_own_and_nothing_else() {
        for workers in [2_u64, 4, 8, 32] {
            let keys: Vec<u64> = (0..workers).collect();
            for (before, after) in table(&keys).into_iter().zip(table(&keys[1..])) {
                assert!(before == after || before == 0);
            }
        }
    }

    #[test]
    fn the_order_does_not_matter() {
        assert_eq!(table(&[1, 2, 3, 4]), table(&[4, 3, 2, 1]));
        assert_eq!(owner(7, &[]), None);
    }
}
