//! Decisions about every kind of packet, with a fake of what is outside: the sockets.

use std::collections::{BTreeMap, BTreeSet};

use cluster_common::{
    choose::{GUARDED_DRAWS, GUARDED_TURNS, Group, MAX_DRAWS, OnMiss, Tally, Verdict, choose},
    flow::{FLOWS, Flow, bucket},
    load::Seat,
    packet::{Kind, TCP, UDP, classify},
    route::{Cursor, Entry, Lane, Pick, Turn},
    slot::Slot,
};
use proptest::prelude::*;

#[test]
fn connections_go_round() {
    let mut group = Fake::with_workers(&[1, 2, 3]);

    let order: Vec<Verdict> = (0..6).map(|hash| group.decide(Kind::Syn, hash)).collect();

    assert_eq!(order, [1, 2, 3, 1, 2, 3].map(selected));
    assert_eq!(group.tallies.len(), 6);
}

#[test]
fn a_closed_socket_costs_nobody_a_turn() {
    let mut group = Fake::with_workers(&[1, 2, 3]);
    group.open.remove(&2);

    let order: Vec<Verdict> = (0..6).map(|hash| group.decide(Kind::Syn, hash)).collect();

    assert_eq!(
        order,
        [1, 3, 1, 3, 1, 3].map(selected),
        "trying 2's neighbour instead would be 1, 3, 3"
    );
}

#[test]
fn the_ack_of_a_cookie_follows_its_syn() {
    let mut group = Fake::with_workers(&[1, 2]);
    for hash in 0..100 {
        let syn = group.decide(Kind::Syn, hash);
        assert_eq!(group.decide(Kind::CookieAck, hash), syn);
    }
    assert_eq!(group.cursors, [100, 0]);
    assert_eq!(group.tallies.len(), 100, "a connection counts once");
}

#[test]
fn a_heavy_worker_in_trouble_does_not_hide_the_others() {
    let mut route = vec![1; 20];
    route.push(2);
    let mut group = Fake::with_workers(&route);
    group.stalled.insert(1);
    for hash in 0..42 {
        assert_eq!(group.decide(Kind::Syn, hash), selected(2), "the guard's");
    }
    group.stalled.clear();
    group.full.insert(1);
    for hash in 0..42 {
        assert_eq!(group.decide(Kind::Syn, hash), selected(2), "with enough");
    }
}

#[test]
fn an_ack_whose_route_is_gone_draws_in_its_own_lane() {
    let mut group = Fake::with_workers(&[1, 2]);
    assert_eq!(group.decide(Kind::Syn, 7), selected(1));
    group.version += 1;
    group.route = vec![2, 3];
    group.open.insert(3);

    assert_eq!(group.decide(Kind::CookieAck, 7), selected(2));
    assert_eq!(group.cursors, [1, 1]);
    assert_eq!(group.tallies.last(), Some(&Tally::Cookie(Slot::masked(2))));
}

#[test]
fn an_ack_whose_worker_died_draws_in_its_own_lane() {
    let mut group = Fake::with_workers(&[1, 2]);
    assert_eq!(group.decide(Kind::Syn, 7), selected(1));
    group.open.remove(&1);

    assert_eq!(group.decide(Kind::CookieAck, 7), selected(2));
}

#[test]
fn a_migration_takes_a_turn_and_is_counted_apart() {
    let mut group = Fake::with_workers(&[1, 2]);

    assert_eq!(group.decide(Kind::Migration, 7), selected(1));
    assert_eq!(group.decide(Kind::Syn, 8), selected(2));
    assert_eq!(
        group.tallies,
        [Tally::MigratedIn(Slot::masked(1)), Tally::Selected(Slot::masked(2))]
    );
}

#[test]
fn a_worker_in_trouble_is_passed_over_and_the_others_take_turns() {
    let mut group = Fake::with_workers(&[1, 2, 3]);
    group.stalled.insert(2);

    let order: Vec<Verdict> = (0..6).map(|hash| group.decide(Kind::Syn, hash)).collect();

    assert_eq!(order, [1, 3, 1, 3, 1, 3].map(selected));
    let guarded = Tally::Guarded(Slot::masked(2));
    assert_eq!(group.tallies.iter().filter(|&&tally| tally == guarded).count(), 3);
    assert_eq!(group.expected, [1, 3, 1, 3, 1, 3], "a turn that was passed over expects nothing");
}

#[test]
fn when_all_are_in_trouble_connections_are_taken_all_the_same() {
    let mut group = Fake::with_workers(&[1, 2, 3]);
    group.stalled = BTreeSet::from([1, 2, 3]);

    assert!(matches!(group.decide(Kind::Syn, 1), Verdict::Selected(_)));
    let guarded = group.tallies.iter().filter(|tally| matches!(tally, Tally::Guarded(_))).count();
    assert_eq!(guarded, (GUARDED_TURNS + 1 + GUARDED_DRAWS) as usize);
}

#[test]
fn a_connection_is_refused_only_when_everybody_has_enough() {
    let mut group = Fake::with_workers(&[1, 2, 3]);
    group.full = BTreeSet::from([1, 3]);
    for hash in 0..6 {
        assert_eq!(group.decide(Kind::Syn, hash), selected(2));
    }

    group.full.insert(2);
    assert_eq!(group.decide(Kind::Syn, 7), Verdict::Refused);
    assert_eq!(group.tallies.last(), Some(&Tally::Shed));
    assert!(matches!(group.decide(Kind::Migration, 8), Verdict::Selected(_)), "it is here already");
    assert!(matches!(group.decide(Kind::Datagram, 9), Verdict::Selected(_)));
    assert_eq!(group.moved.len(), 1);
}

#[test]
fn datagrams_of_a_flow_stay_with_its_worker_for_as_long_as_that_is_there() {
    let mut group = Fake::with_workers(&[1, 2]);
    assert_eq!(group.decide(Kind::Datagram, 1), selected(1));
    group.route = vec![2];
    assert_eq!(group.decide(Kind::Datagram, 1), selected(1), "it is draining");
    assert_eq!(group.decide(Kind::Syn, 1), selected(2), "no flow of datagrams");

    group.open.remove(&1);
    assert_eq!(group.decide(Kind::Datagram, 1), selected(2));
    assert_eq!(group.pinned, Some(2));
}

#[test]
fn who_abstains_leaves_all_but_probes_to_the_kernel() {
    let mut group = Fake::with_workers(&[1, 2]);
    group.abstains = true;
    for kind in [Kind::Syn, Kind::CookieAck, Kind::Migration, Kind::Datagram, Kind::Other] {
        assert_eq!(group.decide(kind, 1), Verdict::Hashed);
    }
    group.steering = Some(2);
    assert_eq!(group.decide(Kind::Syn, 1), selected(2));
    assert_eq!(group.cursors, [0, 0]);
}

#[test]
fn nobody_left_means_the_waiting_room_and_then_refusal() {
    let mut group = Fake::with_workers(&[1, 2]);
    group.open = BTreeSet::from([0]);
    assert_eq!(group.decide(Kind::Syn, 1), Verdict::Waiting);
    assert_eq!(group.misses(), MAX_DRAWS as usize);
    assert!(
        group.flows.is_empty(),
        "the waiting room is not remembered: a worker may be there for the ACK"
    );

    group.open.clear();
    assert_eq!(group.decide(Kind::Syn, 1), Verdict::Refused);
}

#[test]
fn an_empty_route_is_not_searched() {
    let mut group = Fake::with_workers(&[]);
    for (on_miss, verdict) in [
        (OnMiss::Wait, Verdict::Refused),
        (OnMiss::Refuse, Verdict::Refused),
        (OnMiss::Hash, Verdict::Hashed),
    ] {
        group.on_miss = on_miss;
        assert_eq!(group.decide(Kind::Syn, 1), verdict);
    }
    assert_eq!(group.misses(), 0);
}

#[test]
fn a_steered_connection_takes_nobodys_turn() {
    let mut group = Fake::with_workers(&[1, 2]);
    group.open.insert(3);
    assert_eq!(group.decide(Kind::Syn, 1), selected(1));

    group.steering = Some(3);
    assert_eq!(group.decide(Kind::Syn, 2), selected(3), "a worker that no route names");
    assert_eq!(group.decide(Kind::CookieAck, 2), selected(3), "the ACK as well");
    group.steering = Some(0);

    assert_eq!(group.decide(Kind::Syn, 3), selected(2), "others are steered, not this one");
    assert_eq!(group.cursors, [2, 0]);
    assert_eq!(group.flows.len(), 2, "a steered SYN is not remembered");
    let steered = group.tallies.iter().filter(|&&tally| tally == Tally::Steered).count();
    assert_eq!((steered, group.tallies.len()), (2, 4), "it counts nowhere else");
}

#[test]
fn a_steered_connection_goes_to_no_other_worker() {
    let mut group = Fake::with_workers(&[1, 2]);
    group.steering = Some(3);

    assert_eq!(group.decide(Kind::Syn, 1), Verdict::Refused);
    assert_eq!(group.tallies, [Tally::Steered]);
}

#[test]
fn what_starts_no_connection_is_not_steered() {
    let mut group = Fake::with_workers(&[1, 2]);
    group.open.insert(3);
    group.steering = Some(3);

    for kind in [Kind::Migration, Kind::Datagram, Kind::Other] {
        assert_ne!(group.decide(kind, 1), selected(3), "{kind:?}");
    }
}

#[test]
fn a_setting_without_a_meaning_refuses() {
    assert_eq!(
        [0, 1, 2, 3, u32::MAX].map(OnMiss::from_word),
        [OnMiss::Wait, OnMiss::Refuse, OnMiss::Hash, OnMiss::Refuse, OnMiss::Refuse]
    );
}

proptest! {
    #[test]
    fn steering_changes_nothing_for_others(packets in prop::collection::vec((any::<u32>(), any::<bool>(), 0..9_u16), 0..200)) {
        let mut with = Fake::with_workers(&[1, 2, 3, 4, 5]);
        with.open.insert(6);
        let mut without = Fake::with_workers(&[1, 2, 3, 4, 5]);
        for (hash, ack, to) in packets {
            let kind = if ack { Kind::CookieAck } else { Kind::Syn };
            // A source that is steered to 0 is one of those that are not.
            with.steering = Some(to);
            let verdict = with.decide(kind, hash);
            if to == 0 {
                prop_assert_eq!(verdict, without.decide(kind, hash));
            } else {
                let expected = if to <= 6 { selected(to) } else { Verdict::Refused };
                prop_assert_eq!(verdict, expected);
            }
        }
        prop_assert_eq!(with.cursors, without.cursors);
        with.tallies.retain(|&tally| tally != Tally::Steered);
        prop_assert_eq!(with.tallies, without.tallies);
    }

    #[test]
    fn strays_change_nothing_for_connections(packets in packets()) {
        let mut with = Fake::with_workers(&[1, 2, 3, 4, 5]);
        let mut without = Fake::with_workers(&[1, 2, 3, 4, 5]);
        for (flags, hash) in packets {
            match classify(false, TCP, Some(flags)) {
                // An ACK may be a stray, too: hashes of connections have the low bit, those of strays have not.
                Kind::Syn => prop_assert_eq!(with.decide(Kind::Syn, hash | 1), without.decide(Kind::Syn, hash | 1)),
                kind @ (Kind::CookieAck | Kind::Other | Kind::Migration | Kind::Datagram) => {
                    let verdict = with.decide(kind, hash & !1);
                    prop_assert!(matches!(verdict, Verdict::Selected(_)), "{verdict:?}");
                }
            }
        }
        prop_assert_eq!(with.cursors[0], without.cursors[0]);
    }

    #[test]
    fn a_packet_is_never_left_to_the_hash_by_accident(
        route in prop::collection::vec(1..9_u16, 0..40),
        open in prop::collection::btree_set(0..9_u16, 0..9),
        packets in packets(),
        overtaken in 0..40_u32,
        wait in any::<bool>(),
    ) {
        let on_miss = if wait { OnMiss::Wait } else { OnMiss::Refuse };
        let mut group = Fake { open, on_miss, overtaken, ..Fake::with_workers(&route) };
        for (flags, hash) in packets {
            for (migrating, protocol) in [(false, TCP), (true, TCP), (false, UDP), (false, 0)] {
                group.selected = None;
                let verdict = group.decide(classify(migrating, protocol, Some(flags)), hash);
                match verdict {
                    Verdict::Selected(slot) => prop_assert_eq!(group.selected, Some(slot)),
                    Verdict::Waiting => prop_assert_eq!(group.selected, Some(Slot::WAITING_ROOM)),
                    Verdict::Refused => prop_assert_eq!(group.selected, None),
                    Verdict::Hashed => prop_assert!(false, "nobody asked for it"),
                }
                prop_assert!(group.cursors.iter().sum::<u64>() <= u64::from(MAX_DRAWS), "bounded");
                group.cursors = [0; 2];
            }
        }
    }

    #[test]
    fn live_workers_share_exactly_while_others_are_dead(
        dead in prop::collection::btree_set(1..=20_u16, 0..20),
        connections in 1..500_u32,
    ) {
        let mut group = Fake::with_workers(&(1..=20).collect::<Vec<_>>());
        group.open.retain(|slot| !dead.contains(slot));
        let mut turns: BTreeMap<u16, u32> = group.open.iter().map(|&slot| (slot, 0)).collect();
        for hash in 0..connections {
            let Verdict::Selected(slot) = group.decide(Kind::Syn, hash) else { panic!("somebody is alive") };
            *turns.entry(slot.get()).or_default() += 1;
        }
        let (least, most) = (turns.values().min().unwrap(), turns.values().max().unwrap());
        prop_assert!(most - least <= 1, "{turns:?}");
    }
}

/// A group in which a slot is open or is not.
struct Fake {
    version: u8,
    route: Vec<u16>,
    open: BTreeSet<u16>,
    on_miss: OnMiss,
    cursors: [u64; 2],
    flows: BTreeMap<u32, Flow>,
    tallies: Vec<Tally>,
    /// Draws that will be overtaken.
    overtaken: u32,
    selected: Option<Slot>,
    /// Where the source of the packet in hand is steered, if any source is.
    steering: Option<u16>,
    abstains: bool,
    full: BTreeSet<u16>,
    stalled: BTreeSet<u16>,
    expected: Vec<u16>,
    moved: Vec<u16>,
    /// Where the flow of the datagram in hand is pinned.
    pinned: Option<u16>,
}

impl Fake {
    fn with_workers(route: &[u16]) -> Self {
        Self {
            version: 1,
            route: route.to_vec(),
            open: route.iter().copied().collect(),
            on_miss: OnMiss::Wait,
            cursors: [0; 2],
            flows: BTreeMap::new(),
            tallies: Vec::new(),
            overtaken: 0,
            selected: None,
            steering: None,
            abstains: false,
            full: BTreeSet::new(),
            stalled: BTreeSet::new(),
            expected: Vec::new(),
            moved: Vec::new(),
            pinned: None,
        }
    }

    fn decide(&mut self, kind: Kind, hash: u32) -> Verdict {
        choose(self, kind, hash).verdict
    }

    fn misses(&self) -> usize {
        self.tallies.iter().filter(|&&tally| tally == Tally::Miss).count()
    }

    fn at(&self, position: u64) -> Turn {
        let Some(index) = usize::try_from(position).expect("64 bits").checked_rem(self.route.len())
        else {
            return Turn::Nobody;
        };
        let cursor = Cursor::new(self.version.into(), position);
        let entry = Entry::new(Slot::masked(self.route[index]), Seat::NONE);
        Turn::Of(Pick { entry, cursor })
    }
}

impl Group for Fake {
    const TAKES_TURNS: bool = true;

    fn abstains(&mut self) -> bool {
        self.abstains
    }

    fn sheds(&mut self) -> bool {
        !self.full.is_empty()
    }

    fn is_full(&mut self, entry: Entry) -> bool {
        self.full.contains(&entry.slot().get())
    }

    fn trusts(&mut self, entry: Entry) -> bool {
        assert_eq!(self.selected, Some(entry.slot()), "asked only about what was selected");
        !self.stalled.contains(&entry.slot().get())
    }

    fn missed(&mut self, entry: Entry) {
        assert!(!self.open.contains(&entry.slot().get()));
    }

    fn expect(&mut self, entry: Entry) {
        self.expected.push(entry.slot().get());
    }

    fn moved(&mut self, entry: Entry) {
        self.moved.push(entry.slot().get());
    }

    fn pinned(&mut self) -> Slot {
        Slot::masked(self.pinned.unwrap_or_default())
    }

    fn pin(&mut self, slot: Slot) {
        self.pinned = Some(slot.get());
    }

    fn draw(&mut self, lane: Lane, _hash: u32, _attempt: u32) -> Turn {
        let position = &mut self.cursors[lane.index() as usize];
        *position += 1;
        let position = *position - 1;
        if self.overtaken > 0 {
            self.overtaken -= 1;
            return Turn::Overtaken;
        }
        self.at(position)
    }

    fn aside(&mut self, attempt: u32) -> Turn {
        let mut others = self.route.clone();
        others.sort_unstable();
        others.dedup();
        let slot = others[attempt as usize % others.len()];
        let entry = Entry::new(Slot::masked(slot), Seat::NONE);
        Turn::Of(Pick { entry, cursor: Cursor::new(self.version.into(), self.cursors[0]) })
    }

    fn peek(&mut self, hash: u32) -> Turn {
        self.at(hash.into())
    }

    fn version(&mut self) -> u8 {
        self.version
    }

    fn steers(&mut self) -> bool {
        self.steering.is_some()
    }

    fn steered(&mut self) -> Slot {
        Slot::masked(self.steering.expect("asked first whether any source is steered"))
    }

    fn select(&mut self, slot: Slot) -> bool {
        let open = self.open.contains(&slot.get());
        if open {
            self.selected = Some(slot);
        }
        open
    }

    fn see_cookie(&mut self) {}

    fn remember(&mut self, hash: u32, flow: Flow) {
        self.flows.insert(bucket(hash), flow);
    }

    fn recall(&mut self, hash: u32) -> Flow {
        assert!(bucket(hash) < FLOWS);
        self.flows.get(&bucket(hash)).copied().unwrap_or(Flow::from_word(0))
    }

    fn on_miss(&mut self) -> OnMiss {
        self.on_miss
    }

    fn count(&mut self, what: Tally) {
        self.tallies.push(what);
    }
}

fn selected(slot: u16) -> Verdict {
    Verdict::Selected(Slot::masked(slot))
}

/// Flags and hashes of packets.
fn packets() -> impl Strategy<Value = Vec<(u8, u32)>> {
    let flags =
        prop_oneof![Just(0x02_u8), Just(0x10), Just(0x18), Just(0x04), Just(0x11), any::<u8>()];
    prop::collection::vec((flags, any::<u32>()), 0..100)
}
