//! Groups: which worker's socket sits in which slot, and which slots the route names.

use std::collections::BTreeMap;

use cluster_common::slot::Slot;
use serde::{Deserialize, Serialize};

use super::{
    route::{self, Turns},
    scheduling::Rule,
};
use crate::{
    datapath::GroupKey,
    id::{AppId, GroupId, Ticket, WorkerId},
    moment::Moment,
};

/// One reuseport group and its slots.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Group {
    pub(super) id: GroupId,
    pub(super) key: GroupKey,
    pub(super) app: AppId,
    /// Whether the data path has opened it.
    pub(super) open: bool,
    /// Sockets that came while it was being opened.
    #[serde(skip)]
    pub(super) queue: Vec<(Ticket, WorkerId)>,
    /// Taken slots; one stays taken until no process of its worker is left, so that it never holds two.
    #[serde(with = "by_number")]
    pub(super) slots: BTreeMap<Slot, Member>,
    /// What was published last. A supervisor that takes over publishes anew.
    #[serde(skip)]
    pub(super) route: Vec<Slot>,
    /// By which rule workers are picked there. A supervisor that takes over says so anew.
    #[serde(skip)]
    pub(super) rule: Rule,
    /// Whether and how long an empty route is bridged.
    pub(super) vacancy: Vacancy,
}

/// A taken slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Member {
    pub(super) worker: WorkerId,
    pub(super) state: MemberState,
}

/// How far a socket has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum MemberState {
    /// `Effect::Join` is not answered yet.
    Joining,
    /// In the map; in the route when its worker is online.
    Joined,
}

/// Whether and how long an empty route is bridged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Vacancy {
    /// The route is not empty, or was never filled.
    None,
    /// The waiting room holds connections until then.
    Waiting(Moment),
    /// They are refused.
    Refused,
}

impl Group {
    pub(super) fn new(id: GroupId, key: GroupKey, app: AppId) -> Self {
        let (queue, slots, route) = (Vec::new(), BTreeMap::new(), Vec::new());
        let (rule, vacancy) = (Rule::default(), Vacancy::None);
        Self { id, key, app, open: false, queue, slots, route, rule, vacancy }
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

    /// Whether a worker has a socket in the map, or one on its way there.
    pub(super) fn has(&self, worker: WorkerId) -> bool {
        self.slots.values().any(|member| member.worker == worker)
            || self.queue.iter().any(|(_, of)| *of == worker)
    }

    /// The route as it should be: every worker that is `online` has turns in proportion to its weight. One with
    /// several sockets, as when its children listen for themselves, is one worker.
    pub(super) fn wanted_route(
        &self,
        online: impl Fn(WorkerId) -> bool,
        weight: impl Fn(WorkerId) -> u32,
    ) -> Vec<Slot> {
        let workers = self.served_by(online).into_iter();
        let turns: Vec<_> =
            workers.map(|(id, sockets)| Turns { sockets, weight: weight(id) }).collect();
        route::build(&turns)
    }

    /// The joined sockets of each worker that is `online`, the lowest slot first.
    pub(super) fn served_by(
        &self,
        online: impl Fn(WorkerId) -> bool,
    ) -> Vec<(WorkerId, Vec<Slot>)> {
        let mut places = BTreeMap::new();
        let mut workers: Vec<(WorkerId, Vec<Slot>)> = Vec::new();
        let joined = self.slots.iter().filter(|(_, member)| member.state == MemberState::Joined);
        for (slot, member) in joined.filter(|(_, member)| online(member.worker)) {
            let place = *places.entry(member.worker).or_insert(workers.len());
            match workers.get_mut(place) {
                Some((_, sockets)) => sockets.push(*slot),
                None => workers.push((member.worker, vec![*slot])),
            }
        }
        workers
    }
}

/// Slots as numbers: what is a key in JSON is a text.
mod by_number {
    use std::collections::BTreeMap;

    use cluster_common::slot::Slot;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use super::Member;

    pub(super) fn serialize<S: Serializer>(
        slots: &BTreeMap<Slot, Member>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let slots = slots.iter().map(|(slot, member)| (slot.get(), *member));
        slots.collect::<Vec<(u16, Member)>>().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<BTreeMap<Slot, Member>, D::Error> {
        let slots = Vec::<(u16, Member)>::deserialize(from)?;
        // What is no slot was never one.
        Ok(slots
            .into_iter()
            .filter_map(|(slot, member)| Some((Slot::new(slot)?, member)))
            .collect())
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
            group.wanted_route(|worker| worker != WorkerId(3), |_| 1),
            [Slot::masked(1), Slot::masked(3)]
        );
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
