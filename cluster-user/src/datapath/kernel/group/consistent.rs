//! A consistent route: tables in which a worker keeps its places when others come and go.
//!
//! Rendezvous hashing (Thaler and Ravishankar, "Using name-based mappings to increase hit rates", IEEE/ACM Transactions on
//! Networking 6(1), 1998) over a fixed number of places: each place is the worker's whose hash with it is the highest. A
//! place changes hands only when its worker goes or a better one comes, so that one of *n* moves 1/*n* of them.

use cluster_common::{pick::mix, route::ROUTE_ENTRIES};

/// Places of a table: all that a route has room for, so that shares are as even as can be.
pub(super) const PLACES: usize = ROUTE_ENTRIES;

/// A worker that can have places.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// What it is known by, whatever else of it changes.
    pub(super) key: u64,
    /// Its share of the places, against the others; at least 1.
    pub(super) weight: u32,
}

/// Whose each place of a table is: the indices of candidates, [`PLACES`] of them, or none if there is no candidate.
///
/// With unequal weights the hash is taken as a time of arrival at the rate of the weight, and the first to arrive has the
/// place (Schindelhauer and Schomaker, "Weighted distributed hash tables", SPAA 2005): a weight that changes moves places
/// to its worker or away from it, and none between others. Takes time in proportion to the number of candidates.
pub(super) fn table(candidates: &[Candidate]) -> Vec<usize> {
    let even = candidates.windows(2).all(|two| two[0].weight == two[1].weight);
    let owner = |place: usize| {
        let spread = mix(place as u64 ^ 0x9e37_79b9_7f4a_7c15);
        let hash = |nth: usize| mix(candidates[nth].key ^ spread);
        let all = 0..candidates.len();
        if even {
            // What arrives first is what has the highest hash.
            return all.max_by_key(|&nth| (hash(nth), candidates[nth].key));
        }
        let arrival = |nth: usize| arrival(hash(nth), candidates[nth].weight);
        all.min_by(|&one, &other| arrival(one).total_cmp(&arrival(other)))
    };
    (0..PLACES).filter_map(owner).collect()
}

/// An exponentially distributed time.
#[expect(
    clippy::cast_precision_loss,
    reason = "53 bits of a hash are as many as there are in the number"
)]
fn arrival(hash: u64, rate: u32) -> f64 {
    let uniform = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -uniform.ln() / f64::from(rate.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(keys: impl IntoIterator<Item = u64>, weight: u32) -> Vec<Candidate> {
        keys.into_iter().map(|key| Candidate { key, weight }).collect()
    }

    /// Keys of the owners.
    fn owners(candidates: &[Candidate]) -> Vec<u64> {
        table(candidates).into_iter().map(|nth| candidates[nth].key).collect()
    }

    fn share(owners: &[u64], key: u64) -> usize {
        owners.iter().filter(|owner| **owner == key).count()
    }

    /// Four standard deviations of what chance would give.
    fn assert_about(share: usize, expected: usize) {
        let off = share.abs_diff(expected);
        assert!(off * off <= 16 * expected, "{share}, not {expected}");
    }

    #[test]
    fn everybody_has_about_the_same_share() {
        for workers in [1, 2, 4, 16, 64] {
            let owners = owners(&candidates(0..workers, 1));
            let even = PLACES / usize::try_from(workers).unwrap();
            (0..workers).for_each(|key| assert_about(share(&owners, key), even));
        }
    }

    #[test]
    fn losing_one_moves_its_own_and_nothing_else() {
        for workers in [2_u64, 4, 8, 32] {
            let before = owners(&candidates(0..workers, 1));
            for (before, after) in before.into_iter().zip(owners(&candidates(1..workers, 1))) {
                assert!(before == after || before == 0);
            }
        }
    }

    #[test]
    fn one_with_a_small_share_takes_that_from_all_and_moves_nothing_else() {
        let before = owners(&candidates(0..4, 1));
        let mut with_canary = candidates(0..4, 19);
        with_canary.push(Candidate { key: 1 << 40, weight: 4 });
        let after = owners(&with_canary);
        assert_about(share(&after, 1 << 40), PLACES / 20);
        (0..4).for_each(|key| assert_about(share(&after, key), PLACES * 19 / 80));
        for (before, after) in before.into_iter().zip(after) {
            assert!(before == after || after == 1 << 40);
        }
    }

    #[test]
    fn the_order_does_not_matter() {
        let mut turned = candidates([1, 2, 3, 4], 1);
        turned[0].weight = 3;
        let straight = owners(&turned);
        turned.reverse();
        assert_eq!(straight, owners(&turned));
        assert_eq!(owners(&candidates([1, 2, 3], 1)), owners(&candidates([3, 2, 1], 1)));
        assert!(table(&[]).is_empty());
    }
}
