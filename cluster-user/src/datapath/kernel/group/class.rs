//! Classes of clients: what tells them, which the program is loaded with, and whose workers are whose, which is published
//! behind each route.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    os::fd::OwnedFd,
};

use anyhow::{Context as _, anyhow};
use aya::maps::{LpmTrie, Map, MapData, lpm_trie::Key};
use cluster_common::{
    class::{BYTES, NUMBERS, SETS, Section, Sign, number, set_of},
    names,
    publish::Board as _,
    route::{Entry, Lane, ROUTE_ENTRIES, TABLE_ENTRIES},
    slot::Slot,
};

use super::{Group, schedule::Form};
use crate::config::scheduling::{Class, Inner, Match};

/// The classes that a program has been loaded with.
#[derive(Debug)]
pub(super) struct Classes {
    /// As they were asked for.
    pub(super) rules: Vec<Class>,
    /// Whose numbers they have.
    set: u32,
}

/// A class in a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Members {
    number: u32,
    inner: cluster_common::class::Inner,
    /// Its workers' entries.
    entries: Vec<u32>,
}

impl Classes {
    /// Classes by these rules, with the numbers of a set.
    ///
    /// # Errors
    /// When there are more than fit.
    pub(super) fn new(rules: &[Class], set: u32) -> anyhow::Result<Self> {
        Class::fit(rules).map_err(anyhow::Error::msg)?;
        Ok(Self { rules: rules.to_vec(), set })
    }

    /// Every sign by which a client is told, with the number of the first class that fits whoever has it.
    ///
    /// The kernel finds the longest sign that fits. What shorter ones say is therefore part of what this one says, whose
    /// rule may come after theirs.
    fn signs(&self) -> anyhow::Result<BTreeMap<Sign, u32>> {
        let mut signs = Vec::new();
        for (number, class) in self.numbered() {
            if class.matches.is_empty() {
                signs.push((Sign::ANY, number));
            }
            for text in &class.matches {
                let told = text.parse::<Match>().map_err(|error| anyhow!("{error}"))?;
                signs.push((sign(&told), number));
            }
        }
        let first = |sign: &Sign| {
            let fitting = signs.iter().filter(|(other, _)| other.covers(sign));
            fitting.map(|(_, number)| *number).min()
        };
        Ok(signs.iter().filter_map(|(sign, _)| Some((*sign, first(sign)?))).collect())
    }

    /// By what clients are told beside their address.
    ///
    /// # Errors
    /// As for a rule that cannot be read.
    pub(super) fn looked_for(&self) -> anyhow::Result<u32> {
        Ok(self.signs()?.keys().fold(0, |all, sign| all | sign.is_looked_for()))
    }

    /// Enters what tells clients into the map of a program that is not attached yet.
    ///
    /// # Errors
    /// When there is no such map among these, and what the kernel said.
    pub(super) fn enter(&self, maps: &[(String, OwnedFd)]) -> anyhow::Result<()> {
        let map = maps.iter().find(|(name, _)| name == names::RULES);
        let (_, map) = map.context("the program of policy class has no rules")?;
        let map = Map::LpmTrie(MapData::from_fd(map.try_clone()?)?);
        let mut map: LpmTrie<_, [u8; BYTES + 4], u32> = map.try_into()?;
        for (sign, number) in self.signs()? {
            map.insert(&Key::new(sign.bits, sign.compared()), number, 0)
                .context("enter what tells clients")?;
        }
        Ok(())
    }

    /// Who of a route is in which class. `number` is that of a worker; `entry` is how it stands in a table.
    pub(super) fn members(
        &self,
        route: &[Slot],
        number: impl Fn(Slot) -> Option<u32>,
        entry: impl Fn(Slot) -> u32,
    ) -> Vec<Members> {
        let members = |(class_number, class): (u32, &Class)| {
            let is_its = |slot: &Slot| number(*slot).is_some_and(|at| class.workers.contains(&at));
            let its = route.iter().copied().filter(is_its);
            let entries = match class.policy {
                // By share, and not by turns.
                Inner::LeastConn => its.collect::<BTreeSet<_>>().into_iter().map(&entry).collect(),
                Inner::RoundRobin | Inner::Random | Inner::Hash => its.map(&entry).collect(),
            };
            Members { number: class_number, inner: inner(class.policy), entries }
        };
        self.numbered().map(members).collect()
    }

    fn numbered(&self) -> impl Iterator<Item = (u32, &Class)> {
        (0..).map(|nth| number(self.set, nth)).zip(&self.rules)
    }
}

/// The words behind a route of so many entries that tell who is in which class.
///
/// Where there is no room for every turn, each worker has fewer of them, and at least one.
pub(super) fn behind(route: usize, classes: &[Members]) -> Vec<u32> {
    if classes.is_empty() {
        return Vec::new();
    }
    let mut words = vec![0; NUMBERS as usize];
    let room = TABLE_ENTRIES.saturating_sub(route + words.len());
    let mut every = 1;
    while every < ROUTE_ENTRIES
        && classes.iter().map(|class| thin(&class.entries, every).count()).sum::<usize>() > room
    {
        every *= 2;
    }
    for class in classes {
        let first = route + words.len();
        let mut entries: Vec<u32> = thin(&class.entries, every).collect();
        if first + entries.len() > TABLE_ENTRIES {
            log::warn!("a class has {} sockets too many, and goes to all workers", entries.len());
            entries.clear();
        }
        let section = Section::new(word(first), word(entries.len()), class.inner);
        words[class.number as usize] = section.word();
        words.append(&mut entries);
    }
    words
}

/// Of every worker's entries the first of so many each.
fn thin(entries: &[u32], every: usize) -> impl Iterator<Item = u32> {
    let mut seen: BTreeMap<u32, usize> = BTreeMap::new();
    let is_kept = move |entry: &u32| {
        let nth = seen.entry(*entry).or_default();
        *nth += 1;
        (*nth - 1).is_multiple_of(every)
    };
    entries.iter().copied().filter(is_kept)
}

/// What the words behind a route of so many entries tell.
fn read(route: usize, behind: &[u32]) -> Vec<Members> {
    let class = |number| {
        let section = Section::from_word(*behind.get(usize::try_from(number).ok()?)?);
        let first = usize::try_from(section.first()).ok()?.saturating_sub(route);
        let length = usize::try_from(section.length()).ok()?;
        let entries = behind.get(first..first + length)?.to_vec();
        section.is_present().then_some(Members { number, inner: section.inner(), entries })
    };
    (0..NUMBERS).filter_map(class).collect()
}

impl Group {
    /// Who of a route is in which class, by the rules of the program that is attached.
    pub(super) fn members(&self, route: &[Slot]) -> Vec<Members> {
        if Form::of(&self.program.name) != Form::Classes {
            return Vec::new();
        }
        match &self.classes {
            Some(classes) => self.members_by(classes, route),
            None => self.members_before(route),
        }
    }

    /// Who of a route is in which class, by these rules.
    pub(super) fn members_by(&self, classes: &Classes, route: &[Slot]) -> Vec<Members> {
        let number = |slot| self.filled.get(&slot).and_then(|filled| filled.owner.number);
        classes.members(route, number, |slot| self.entry(slot))
    }

    /// Who was in which class when the route was published last, as far as they are in this one: a supervisor that has just
    /// come knows the table, and not the rules.
    fn members_before(&self, route: &[Slot]) -> Vec<Members> {
        let active = self.board.cursor(Lane::Syn).buffer();
        let mut before = read(self.board.entries(active).len(), self.board.behind(active));
        for class in &mut before {
            let slots = class.entries.iter().map(|entry| Entry::from_word(*entry).slot());
            let stay = slots.filter(|slot| route.contains(slot));
            class.entries = stay.map(|slot| self.entry(slot)).collect();
        }
        before
    }

    /// Whether the program that is attached is for these classes, or for none.
    pub(super) fn is_for(&self, classes: Option<&Classes>) -> bool {
        self.classes.as_ref().map(|classes| &classes.rules) == classes.map(|classes| &classes.rules)
    }

    /// A set of numbers that the program which is attached does not use.
    pub(super) fn free_set(&self) -> u32 {
        let running = self.members(&self.route);
        running.first().map_or(0, |class| (set_of(class.number) + 1) % SETS)
    }
}

fn inner(inner: Inner) -> cluster_common::class::Inner {
    match inner {
        Inner::RoundRobin => cluster_common::class::Inner::RoundRobin,
        Inner::LeastConn => cluster_common::class::Inner::LeastConn,
        Inner::Random => cluster_common::class::Inner::Random,
        Inner::Hash => cluster_common::class::Inner::Hash,
    }
}

fn sign(told: &Match) -> Sign {
    match told {
        Match::Source { network: IpAddr::V4(network), prefix } => {
            Sign::v4(network.octets(), (*prefix).into())
        }
        // Clients of IPv4 are known by their own kind of address, however it is written.
        Match::Source { network: IpAddr::V6(network), prefix } => {
            match (network.to_ipv4_mapped(), prefix.checked_sub(96)) {
                (Some(network), Some(prefix)) => Sign::v4(network.octets(), prefix.into()),
                (Some(_) | None, _) => Sign::v6(network.octets(), (*prefix).into()),
            }
        }
        Match::Dscp(mark) => Sign::mark(*mark),
        Match::Bytes(bytes) => {
            let mut padded = [0; BYTES];
            for (place, byte) in padded.iter_mut().zip(bytes) {
                *place = *byte;
            }
            Sign::payload(padded, word(bytes.len().min(BYTES)))
        }
    }
}

/// A number of entries, which is far below any limit.
fn word(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    use cluster_common::class::MOST;

    const BOTH: [u32; SETS as usize] = [0, 1];

    fn classes(rules: &str, set: u32) -> Classes {
        let rules: Vec<Class> = rules.split(' ').map(|rule| rule.parse().unwrap()).collect();
        Classes::new(&rules, set).unwrap()
    }

    /// What the kernel finds: the longest sign of the map that somebody has.
    fn longest(signs: &BTreeMap<Sign, u32>, of: &Sign) -> Option<u32> {
        let fitting = signs.iter().filter(|(sign, _)| sign.covers(of));
        fitting.max_by_key(|(sign, _)| sign.bits).map(|(_, number)| *number)
    }

    proptest! {
        #[test]
        fn the_longest_sign_that_fits_names_the_first_class_that_does(
            networks in prop::collection::vec((0..16_u32, 0..=4_u32), 1..12),
            rest in any::<bool>(),
            client in 0..16_u32,
        ) {
            // Networks in four bits: enough for each to be part of others.
            let network = |(bits, prefix): &(u32, u32)| format!("{}.0.0.0/{prefix}=0", bits << 4);
            let mut rules: Vec<String> = networks.iter().map(network).collect();
            if rest {
                rules.push("*=0".to_owned());
            }
            for set in BOTH {
                let signs = classes(&rules.join(" "), set).signs().unwrap();
                let fits = |(bits, prefix): &(u32, u32)| bits >> (4 - prefix) == client >> (4 - prefix);
                let first = networks.iter().position(fits).or(rest.then_some(networks.len()));
                let first = first.map(|nth| number(set, u32::try_from(nth).unwrap()));
                let client = Sign::v4([u8::try_from(client << 4).unwrap(), 9, 9, 9], 32);
                prop_assert_eq!(longest(&signs, &client), first);
            }
        }

        #[test]
        fn both_sets_of_a_switch_are_in_its_table_each_with_its_own(
            before in prop::collection::vec(prop::collection::vec(1..4096_u32, 0..9), 1..=MOST),
            after in prop::collection::vec(prop::collection::vec(1..4096_u32, 0..9), 1..=MOST),
            route in 0..=ROUTE_ENTRIES,
        ) {
            let members = |set, lists: &[Vec<u32>]| {
                let class = |(nth, entries): (u32, &Vec<u32>)| Members {
                    number: number(set, nth),
                    inner: cluster_common::class::Inner::Hash,
                    entries: entries.clone(),
                };
                (0..).zip(lists).map(class).collect::<Vec<_>>()
            };
            let both = [members(0, &before), members(1, &after)].concat();
            let words = behind(route, &both);
            prop_assert!(route + words.len() <= TABLE_ENTRIES);
            prop_assert_eq!(read(route, &words), both);
        }
    }

    #[test]
    fn a_class_has_the_entries_of_its_workers_and_by_share_each_once() {
        let route = [1, 1, 2, 1, 3].map(|slot| Slot::new(slot).unwrap());
        let number = |slot: Slot| (slot.get() < 3).then(|| u32::from(slot.get()) - 1);
        let entry = |slot: Slot| u32::from(slot.get()) * 10;
        let classes = classes("10.0.0.0/8=0-1 11.0.0.0/8=0-1:least-conn *=2", 1);
        let members = classes.members(&route, number, entry);
        let entries: Vec<_> = members.iter().map(|class| class.entries.as_slice()).collect();
        assert_eq!(entries, [&[10, 10, 20, 10][..], &[10, 20], &[]], "nobody's slot is in none");
        assert!(members.iter().all(|class| set_of(class.number) == 1));
    }

    #[test]
    fn where_there_is_no_room_for_every_turn_shares_stay_about_what_they_are() {
        let entries: Vec<u32> = (0..ROUTE_ENTRIES).map(|nth| u32::from(nth % 4 == 0)).collect();
        let class = |nth| Members {
            number: nth,
            inner: cluster_common::class::Inner::RoundRobin,
            entries: entries.clone(),
        };
        let all: Vec<_> = (0..20).map(class).collect();
        let words = behind(ROUTE_ENTRIES, &all);
        assert!(ROUTE_ENTRIES + words.len() <= TABLE_ENTRIES);
        for class in read(ROUTE_ENTRIES, &words) {
            let rare = class.entries.iter().filter(|entry| **entry == 1).count();
            assert_eq!(rare * 4, class.entries.len());
            assert!(rare > 100, "{rare}");
        }
        assert_eq!(thin(&[7, 8, 7, 7, 7], 4).collect::<Vec<_>>(), [7, 8]);
    }

    #[test]
    fn mapped_networks_are_of_the_other_family() {
        let signs = classes("::ffff:10.0.0.0/104=0 ::/0=0", 0).signs().unwrap();
        assert_eq!(longest(&signs, &Sign::v4([10, 2, 3, 4], 32)), Some(0));
        assert_eq!(longest(&signs, &Sign::v4([11, 2, 3, 4], 32)), None);
    }
}
