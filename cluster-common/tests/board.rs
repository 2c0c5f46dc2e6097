//! Round robin across publications, on the same code that runs in the kernel and in the supervisor.
//!
//! The board here lets decisions happen in the middle of a publication: after every single write, and between the look at
//! a cursor and its exchange. What must hold is the promise of `route`: over any stretch of time, two workers that were in
//! every route of it had the same number of turns, give or take one.

use std::collections::BTreeMap;

use cluster_common::{
    publish::{Board, Mapped, RouteTooLong, publish},
    route::{
        BUFFERS, Cursor, CursorLine, Entry, LANES, Lane, OTHERS, ROUTE_ENTRIES, RouteTable,
        TABLE_ENTRIES, Table, Turn, look_up,
    },
};
use proptest::prelude::*;

const WORKERS: u32 = 7;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn workers_that_stay_have_equal_turns_across_publications(steps in steps()) {
        let mut world = World::new(steps.picks);
        for members in steps.routes {
            let entries: Vec<u32> = (1..=WORKERS).filter(|worker| members & 1 << worker != 0).collect();
            world.publish(&entries);
        }
        world.decide(9);

        for lane in Lane::ALL {
            check_alternation(&world.log, lane)?;
        }
    }

    #[test]
    fn a_publisher_may_die_anywhere(steps in steps(), deaths in prop::collection::vec(0..14_usize, 12)) {
        let mut world = World::new(steps.picks);
        for (members, death) in steps.routes.into_iter().zip(deaths.into_iter().cycle()) {
            let entries: Vec<u32> = (1..=WORKERS).filter(|worker| members & 1 << worker != 0).collect();
            world.publish_and_die(&entries, death);
            world.decide(3);
        }
        world.publish(&[1, 2]);
        let before = world.log.len();
        world.decide(8);

        let turns: Vec<u32> = world.log[before..].iter().filter_map(|entry| entry.turn(Lane::Syn)).collect();
        prop_assert!(turns.windows(2).all(|pair| pair[0] != pair[1]), "{turns:?}");
        prop_assert_eq!(turns.len(), 8);
    }

    #[test]
    fn the_walk_over_one_table_gives_every_entry_its_share(
        entries in prop::collection::vec(1..50_u32, 1..300),
        rounds in 1..3_usize,
    ) {
        let mut world = World::new(Vec::new());
        world.publish(&entries);
        world.log.clear();
        world.decide(entries.len() * rounds);

        let turns: Vec<u32> = world.log.iter().filter_map(|entry| entry.turn(Lane::Syn)).collect();
        prop_assert_eq!(turns, entries.repeat(rounds));
    }
}

#[test]
fn a_decision_overtaken_by_two_publications_notices() {
    let mut world = World::new(Vec::new());
    world.publish(&[1, 2]);
    let drawn = world.draw(Lane::Syn);

    world.publish(&[3]);
    let after_one = look_up(world.table(drawn.buffer()), drawn, drawn.position());
    assert!(
        matches!(after_one, Turn::Of(pick) if pick.entry.word() == 1),
        "one publication leaves its table alone"
    );

    world.publish(&[4]);
    let after_two = look_up(world.table(drawn.buffer()), drawn, drawn.position());
    assert_eq!(after_two, Turn::Overtaken);
}

#[test]
fn a_route_that_does_not_fit_is_refused_and_changes_nothing() {
    let mut world = World::new(Vec::new());
    world.publish(&[1]);
    let before = world.words;

    let entries = vec![1; ROUTE_ENTRIES + 1];
    assert_eq!(
        publish(&mut world, &entries, &[]),
        Err(RouteTooLong { entries: ROUTE_ENTRIES + 1, behind: 0 })
    );
    assert_eq!(world.words, before);
}

#[test]
#[expect(clippy::large_stack_arrays, reason = "a table is what it is")]
fn mapped_memory_is_a_board() {
    let mut tables = vec![
        RouteTable {
            version: 0,
            len: 0,
            others_len: 0,
            reserved: 0,
            others: [0; OTHERS],
            entries: [0; TABLE_ENTRIES]
        };
        BUFFERS as usize
    ];
    let mut cursors =
        vec![CursorLine { word: 0, cookie_seen: 0, reserved: [0; 6] }; LANES as usize];
    // SAFETY: as many as there must be, alive until the end, used by nothing else.
    let mut board = unsafe { Mapped::new(tables.as_mut_ptr(), cursors.as_mut_ptr()) };

    assert_eq!(publish(&mut board, &[1, 2, 3], &[8, 9]), Ok(1));
    assert_eq!(board.cursor(Lane::Syn), Cursor::new(1, 0));
    assert_eq!(
        (board.entries(1), &board.behind(1)[..3]),
        ([1, 2, 3].as_slice(), [8, 9, 0].as_slice())
    );
    assert_eq!(board.exchange(Lane::Syn, Cursor::new(1, 0), Cursor::new(1, 2)), Ok(()));
    assert_eq!(publish(&mut board, &[2, 3, 4], &[]), Ok(2));

    assert_eq!(board.cursor(Lane::Syn), Cursor::new(2, 1), "3 is next, as it was");
    assert_eq!(board.cursor(Lane::Cookie), Cursor::new(2, 0), "2 is next: 1 was, and left");
    assert_eq!((board.version(0), board.entries(0)), (2, [2, 3, 4].as_slice()));
}

/// What happened, in order.
#[derive(Clone, Debug)]
enum Happened {
    /// From here on decisions in this lane draw from this route.
    Route(Lane, Vec<u32>),
    /// A turn.
    Turn(Lane, u32),
}

impl Happened {
    fn turn(&self, of: Lane) -> Option<u32> {
        match self {
            Self::Turn(lane, slot) if *lane == of => Some(*slot),
            Self::Turn(..) | Self::Route(..) => None,
        }
    }
}

/// Checks every pair of workers over every stretch in which both are in the route.
///
/// Over all stretches at once: the difference may not vary by more than one between any two moments of a stretch.
fn check_alternation(log: &[Happened], of: Lane) -> Result<(), TestCaseError> {
    let mut ranges: BTreeMap<(u32, u32), (i64, i64, i64)> = BTreeMap::new();
    for entry in log {
        match entry {
            Happened::Route(lane, route) if *lane == of => {
                ranges.retain(|(one, other), _| route.contains(one) && route.contains(other));
                for &one in route {
                    for &other in route.iter().filter(|&&other| other > one) {
                        ranges.entry((one, other)).or_insert((0, 0, 0));
                    }
                }
            }
            Happened::Turn(lane, slot) if *lane == of => {
                for ((one, other), (difference, low, high)) in &mut ranges {
                    *difference += i64::from(slot == one) - i64::from(slot == other);
                    *low = (*low).min(*difference);
                    *high = (*high).max(*difference);
                    prop_assert!(*high - *low <= 1, "{one} and {other} differ by {}", *high - *low);
                }
            }
            Happened::Route(..) | Happened::Turn(..) => {}
        }
    }
    Ok(())
}

/// The shared memory of a group, in which decisions happen whenever somebody touches it.
struct World {
    tables: Vec<(u32, Vec<u32>)>,
    words: [u64; LANES as usize],
    /// How many decisions happen at the next points, and in which lane.
    picks: Vec<(u8, bool)>,
    /// Writes that still take effect.
    life: usize,
    log: Vec<Happened>,
}

impl World {
    fn new(picks: Vec<(u8, bool)>) -> Self {
        let tables = vec![(0, Vec::new()); BUFFERS as usize];
        Self { tables, words: [0; LANES as usize], picks, life: usize::MAX, log: Vec::new() }
    }

    fn publish(&mut self, entries: &[u32]) {
        publish(self, entries, &[]).expect("it fits");
    }

    /// Publishes, but nothing reaches the memory after `life` writes.
    fn publish_and_die(&mut self, entries: &[u32], life: usize) {
        self.life = life;
        publish(self, entries, &[]).expect("it fits");
        self.life = usize::MAX;
    }

    fn alive(&mut self) -> bool {
        let alive = self.life > 0;
        self.life = self.life.saturating_sub(1);
        alive
    }

    /// A point at which decisions may happen.
    fn point(&mut self) {
        if let Some((count, cookie)) = self.picks.pop() {
            for _ in 0..count {
                self.pick(if cookie { Lane::Cookie } else { Lane::Syn });
            }
        }
    }

    fn decide(&mut self, count: usize) {
        for _ in 0..count {
            self.pick(Lane::Syn);
        }
    }

    fn draw(&mut self, lane: Lane) -> Cursor {
        let word = &mut self.words[lane.index() as usize];
        *word += 1;
        Cursor::from_word(*word - 1)
    }

    fn pick(&mut self, lane: Lane) {
        let cursor = self.draw(lane);
        match look_up(self.table(cursor.buffer()), cursor, cursor.position()) {
            Turn::Of(pick) => self.log.push(Happened::Turn(lane, pick.entry.word())),
            Turn::Nobody => {}
            Turn::Overtaken => {
                unreachable!("a decision between draw and look-up is not part of this")
            }
        }
    }

    fn table(&self, buffer: u32) -> View<'_> {
        let (version, entries) = &self.tables[buffer as usize];
        View { version: *version, entries }
    }
}

impl Board for World {
    fn version(&self, buffer: u32) -> u32 {
        self.tables[buffer as usize].0
    }

    fn entries(&self, buffer: u32) -> &[u32] {
        &self.tables[buffer as usize].1
    }

    fn write(&mut self, buffer: u32, version: u32, entries: &[u32], behind: &[u32]) {
        assert!(behind.is_empty(), "round robin keeps nothing there");
        if self.alive() {
            self.tables[buffer as usize].0 = version;
        }
        self.point();
        for length in 0..=entries.len() {
            if self.alive() {
                self.tables[buffer as usize].1 = entries[..length].to_vec();
            }
            self.point();
        }
    }

    fn cursor(&self, lane: Lane) -> Cursor {
        Cursor::from_word(self.words[lane.index() as usize])
    }

    fn exchange(&mut self, lane: Lane, expected: Cursor, new: Cursor) -> Result<(), Cursor> {
        self.point();
        let now = self.cursor(lane);
        if now != expected {
            return Err(now);
        }
        if self.alive() {
            self.words[lane.index() as usize] = new.word();
            self.log.push(Happened::Route(lane, self.entries(new.buffer()).to_vec()));
        }
        self.point();
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct View<'a> {
    version: u32,
    entries: &'a [u32],
}

impl Table for View<'_> {
    fn version(self) -> u32 {
        self.version
    }

    fn length(self) -> u32 {
        u32::try_from(self.entries.len()).expect("it fits")
    }

    fn entry(self, index: u32) -> Entry {
        Entry::from_word(self.entries[index as usize])
    }
}

#[derive(Debug)]
struct Steps {
    /// Members of each route, as bits.
    routes: Vec<u32>,
    picks: Vec<(u8, bool)>,
}

fn steps() -> impl Strategy<Value = Steps> {
    let routes = prop::collection::vec(0..1_u32 << (WORKERS + 1), 1..12);
    let picks = prop::collection::vec((0..12_u8, any::<bool>()), 0..200);
    (routes, picks).prop_map(|(routes, picks)| Steps { routes, picks })
}
