//! The route: whose turn it is, written down for the kernel program to walk.

use cluster_common::{route::ROUTE_ENTRIES, slot::Slot};

/// A worker in a route.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    /// Its sockets, at least one; they take its turns one after the other.
    pub(super) sockets: Vec<Slot>,
    /// Its weight against the others, at least 1.
    pub(super) weight: u32,
}

/// A route in which every worker has turns in proportion to its weight, spread as evenly as they can be.
///
/// This is the smooth weighted round robin of nginx (`ngx_http_upstream_get_peer`, 2012): each turn goes to the worker
/// that is furthest behind its share.
pub(super) fn build(workers: &[Turns]) -> Vec<Slot> {
    let weights = fitting(workers);
    let total: u64 = weights.iter().sum();
    // Whole rounds, so that each socket of a worker with several has as many turns as the next.
    let most_sockets = workers.iter().map(|worker| worker.sockets.len()).max().unwrap_or_default();
    let rounds = u64::try_from(most_sockets).unwrap_or(1);
    let length = usize::try_from(total * rounds).unwrap_or(usize::MAX);
    if length > ROUTE_ENTRIES {
        // No room for that; nobody may be left out.
        return workers.iter().flat_map(|worker| worker.sockets.iter().copied()).collect();
    }
    // Equal shares are plain turns: what follows comes to the same, and looks at all workers for each turn.
    if weights.windows(2).all(|pair| pair[0] == pair[1]) {
        let turns = length / workers.len().max(1);
        let turn =
            |nth| workers.iter().map(move |worker| worker.sockets[nth % worker.sockets.len()]);
        return (0..turns).flat_map(turn).collect();
    }
    spread(workers, &weights, length)
}

/// Takes `length` turns, each by the worker that is furthest behind its share.
fn spread(workers: &[Turns], weights: &[u64], length: usize) -> Vec<Slot> {
    let total: u64 = weights.iter().sum();
    let mut ahead = vec![0_i64; workers.len()];
    let mut taken = vec![0_usize; workers.len()];
    let mut route = Vec::with_capacity(length);
    for _ in 0..length {
        for (ahead, weight) in ahead.iter_mut().zip(weights) {
            *ahead += i64::try_from(*weight).unwrap_or(i64::MAX);
        }
        // The first of those furthest behind: `max_by_key` takes the last of equals.
        let Some(next) = (0..workers.len()).rev().max_by_key(|&nth| ahead[nth]) else { break };
        ahead[next] -= i64::try_from(total).unwrap_or(i64::MAX);
        let sockets = &workers[next].sockets;
        route.push(sockets[taken[next] % sockets.len()]);
        taken[next] += 1;
    }
    route
}

/// Weights, made small enough for a route to have room for them; as near to what was wanted as that allows.
fn fitting(workers: &[Turns]) -> Vec<u64> {
    let room = u64::try_from(ROUTE_ENTRIES).unwrap_or(u64::MAX);
    let most_sockets = workers.iter().map(|worker| worker.sockets.len()).max().unwrap_or(1);
    let room = (room / u64::try_from(most_sockets.max(1)).unwrap_or(1)).max(1);
    let weights: Vec<u64> = workers.iter().map(|worker| worker.weight.max(1).into()).collect();
    let total: u64 = weights.iter().sum();
    if total <= room {
        return weights;
    }
    // What rounding up adds must fit too.
    let spare = room.saturating_sub(u64::try_from(workers.len()).unwrap_or(room)).max(1);
    weights.iter().map(|weight| (weight * spare / total).max(1)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_weights_are_plain_round_robin() {
        let route = build(&[worker(&[1], 1), worker(&[2], 1), worker(&[3], 1)]);
        assert_eq!(route, slots(&[1, 2, 3]));
    }

    #[test]
    fn a_small_share_is_spread_and_not_bunched() {
        let route = build(&[worker(&[1], 5), worker(&[2], 1), worker(&[3], 1)]);
        assert_eq!(route, slots(&[1, 1, 2, 1, 3, 1, 1]));
    }

    #[test]
    fn a_worker_of_several_sockets_has_no_more_turns_than_the_others() {
        let route = build(&[worker(&[1, 3, 5], 1), worker(&[2], 1), worker(&[4], 1)]);
        assert_eq!(route, slots(&[1, 2, 4, 3, 2, 4, 5, 2, 4]));
    }

    #[test]
    fn where_turns_do_not_fit_no_socket_is_left_out() {
        let mut workers: Vec<_> = (1..500).map(|slot| worker(&[slot], 1)).collect();
        workers.push(worker(&(500..520).collect::<Vec<_>>(), 1));
        let mut route = build(&workers);
        route.sort_unstable();
        assert_eq!(route, (1..520).map(Slot::masked).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn equal_shares_are_spread_as_others_are(
            sockets in prop::collection::vec(1u16..4, 1..20), weight in 1u32..6,
        ) {
            let first = |nth: usize| 10 * u16::try_from(nth).unwrap();
            let slots = |(nth, count): (usize, &u16)| (0..*count).map(|n| first(nth) + n).collect::<Vec<_>>();
            let workers: Vec<_> =
                sockets.iter().enumerate().map(|it| worker(&slots(it), weight)).collect();
            let route = build(&workers);
            prop_assert_eq!(&route, &spread(&workers, &fitting(&workers), route.len()));
        }

        #[test]
        fn shares_are_exact_where_they_fit(weights in prop::collection::vec(1u32..60, 1..30)) {
            let workers: Vec<_> =
                weights.iter().zip(1..).map(|(weight, slot)| worker(&[slot], *weight)).collect();
            let turns = count(&build(&workers));
            let total: u32 = weights.iter().sum();
            prop_assert_eq!(turns.values().sum::<u32>(), total);
            for (weight, slot) in weights.iter().zip(1..) {
                prop_assert_eq!(turns[&Slot::masked(slot)], *weight);
            }
        }

        #[test]
        fn a_route_is_never_too_long_and_forgets_nobody(weights in prop::collection::vec(1u32..1_000_000, 1..300)) {
            let workers: Vec<_> =
                weights.iter().zip(1..).map(|(weight, slot)| worker(&[slot], *weight)).collect();
            let route = build(&workers);
            prop_assert!(route.len() <= ROUTE_ENTRIES);
            prop_assert_eq!(count(&route).len(), weights.len());
        }
    }

    fn count(route: &[Slot]) -> BTreeMap<Slot, u32> {
        let mut turns = BTreeMap::new();
        for slot in route {
            *turns.entry(*slot).or_insert(0) += 1;
        }
        turns
    }

    fn worker(slots: &[u16], weight: u32) -> Turns {
        Turns { sockets: slots.iter().map(|slot| Slot::masked(*slot)).collect(), weight }
    }

    fn slots(slots: &[u16]) -> Vec<Slot> {
        slots.iter().map(|slot| Slot::masked(*slot)).collect()
    }
}
