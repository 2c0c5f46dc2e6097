//! Groups: which worker's socket sits in which slot, and which slots the route names.

use std::{collections::BTreeMap, time::Instant};

use cluster_common::{route::ROUTE_ENTRIES, slot::Slot};

use crate::{
    datapath::GroupKey,
    id::{AppId, GroupId, Ticket, WorkerId},
};

/// One reuseport group and its slots.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) id: GroupId,
    pub(super) key: GroupKey,
    pub(super) app: AppId,
    /// Whether the data path has opened it.
    pub(super) open: bool,
    /// Sockets that came while it was being opened.
    pub(super) queue: Vec<(Ticket, WorkerId)>,
    /// Taken slots; one stays taken until no process of its worker is left, so that it never holds two.
    pub(super) slots: BTreeMap<Slot, Member>,
    /// What was published last.
    pub(super) route: Vec<Slot>,
    /// Whether and how long an empty route is bridged.
    pub(super) vacancy: Vacancy,
}

/// A taken slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) worker: WorkerId,
    pub(super) state: MemberState,
}

/// How far a socket has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MemberState {
    /// `Effect::Join` is not answered yet.
    Joining,
    /// In the map; in the route when its worker is online.
    Joined,
}

/// Whether and how long an empty route is bridged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vacancy {
    /// The route is not empty, or was never filled.
    None,
    /// The waiting room holds connections until then.
    Waiting(Instant),
    /// They are refused.
    Refused,
}

impl Group {
    pub(super) fn new(id: GroupId, key: GroupKey, app: AppId) -> Self {
        let (queue, slots, route) = (Vec::new(), BTreeMap::new(), Vec::new());
        Self { id, key, app, open: false, queue, slots, route, vacancy: Vacancy::None }
    }

    /// The lowest free slot, now taken; `None` when all are.
    pub(super) fn take(&mut self, worker: WorkerId) -> Option<Slot> {
        let slot =
            (1..u16::MAX).map_while(Slot::new).find(|slot| !self.slots.contains_key(slot))?;
        self.slots.insert(slot, Member { worker, state: MemberState::Joining });
        Some(slot)
    }

    /// Whether a worker's socket is in the map.
    pub(super) fn serves(&self, worker: WorkerId) -> bool {
        self.slots
            .values()
            .any(|member| member.worker == worker && member.state == MemberState::Joined)
    }

    /// The route as it should be: every worker that is `online` has as many turns as any other. One with several
    /// sockets, as when its children listen for themselves, is one worker: they take its turns one after the other.
    pub(super) fn wanted_route(&self, online: impl Fn(WorkerId) -> bool) -> Vec<Slot> {
        let workers = self.served_by(online);
        let rounds = workers.iter().map(Vec::len).max().unwrap_or_default();
        if rounds * workers.len() > ROUTE_ENTRIES {
            // No room for that; nobody may be left out.
            return workers.concat();
        }
        let turn = |round| workers.iter().map(move |sockets| sockets[round % sockets.len()]);
        (0..rounds).flat_map(turn).collect()
    }

    /// The joined sockets of each worker that is `online`, the lowest slot first.
    pub(super) fn served_by(&self, online: impl Fn(WorkerId) -> bool) -> Vec<Vec<Slot>> {
        let mut places = BTreeMap::new();
        let mut workers: Vec<Vec<Slot>> = Vec::new();
        let joined = self.slots.iter().filter(|(_, member)| member.state == MemberState::Joined);
        for (slot, member) in joined.filter(|(_, member)| online(member.worker)) {
            let place = *places.entry(member.worker).or_insert(workers.len());
            match workers.get_mut(place) {
                Some(sockets) => sockets.push(*slot),
                None => workers.push(vec![*slot]),
            }
        }
        workers
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use cluster_common::slot::SLOTS;

    use super::*;
    use crate::datapath::Protocol;

    #[test]
    fn a_slot_is_taken_once_and_the_waiting_rooms_never() {
        let mut group = group();
        let taken: Vec<_> = (0..3).map(|worker| group.take(WorkerId(worker)).unwrap()).collect();
        assert_eq!(taken, [Slot::masked(1), Slot::masked(2), Slot::masked(3)]);
        group.slots.remove(&Slot::masked(2));
        assert_eq!(group.take(WorkerId(9)), Some(Slot::masked(2)));
    }

    #[test]
    fn a_full_group_takes_no_more() {
        let mut group = group();
        assert_eq!(
            (1..SLOTS).filter_map(|n| group.take(WorkerId(u64::from(n)))).count(),
            SLOTS as usize - 1
        );
        assert_eq!(group.take(WorkerId(0)), None);
    }

    #[test]
    fn only_joined_sockets_of_online_workers_are_in_the_route() {
        let mut group = group();
        for worker in 0..4 {
            let slot = group.take(WorkerId(worker)).unwrap();
            group.slots.get_mut(&slot).unwrap().state = MemberState::Joined;
        }
        group.slots.get_mut(&Slot::masked(2)).unwrap().state = MemberState::Joining;
        assert_eq!(
            group.wanted_route(|worker| worker != WorkerId(3)),
            [Slot::masked(1), Slot::masked(3)]
        );
    }

    #[test]
    fn a_worker_of_several_sockets_has_no_more_turns_than_the_others() {
        let mut group = group();
        for worker in [0, 1, 0, 2, 0] {
            let slot = group.take(WorkerId(worker)).unwrap();
            group.slots.get_mut(&slot).unwrap().state = MemberState::Joined;
        }
        assert_eq!(group.wanted_route(|_| true), [1, 2, 4, 3, 2, 4, 5, 2, 4].map(Slot::masked));
    }

    #[test]
    fn where_turns_do_not_fit_no_socket_is_left_out() {
        let mut group = group();
        for worker in (1..500).chain([0; 20]) {
            let slot = group.take(WorkerId(worker)).unwrap();
            group.slots.get_mut(&slot).unwrap().state = MemberState::Joined;
        }
        let mut route = group.wanted_route(|_| true);
        route.sort_unstable();
        assert_eq!(route.len(), group.slots.len());
        assert!(route.iter().eq(group.slots.keys()));
    }

    fn group() -> Group {
        let key = GroupKey {
            protocol: Protocol::Tcp,
            address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 80)),
            v6only: false,
            uid: 0,
            device: 0,
            netns: 1,
        };
        Group::new(GroupId(0), key, AppId(0))
    }
}
