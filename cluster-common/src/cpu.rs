//! CPUs: which worker is near the one that received a packet.

/// CPUs that can have a worker of their own.
pub const CPUS: u32 = 1024;

/// Workers that a CPU can have.
pub const EACH: u32 = 4;

/// Entries of the map of CPUs.
pub const PLACES: u32 = CPUS * EACH;

/// The place of a CPU's next worker in the map.
#[inline(always)]
pub const fn place(cpu: u32, turn: u64) -> u32 {
    (cpu & (CPUS - 1)) * EACH + (turn as u32 & (EACH - 1))
}

/// Whether somebody near who is burdened like this passes a connection on to another: with twice as much and a little.
#[inline(always)]
pub const fn spills(near: u64, other: u64) -> bool {
    near > 2 * other + 4 * crate::load::UNIT as u64
}

/// The map's contents: for each CPU the workers pinned to it, else those of its node, else nobody.
///
/// `workers` are entries of the route with the CPUs they may run on; `nodes` tells the node of a CPU. Workers that may run
/// anywhere are pinned to none and are left out by whoever calls.
#[cfg(not(target_arch = "bpf"))]
pub fn fill(workers: &[(u32, &[u32])], node: impl Fn(u32) -> u32, places: &mut [u32]) {
    places.fill(0);
    for cpu in 0..CPUS {
        let on_cpu = |&&(_, cpus): &&(u32, &[u32])| cpus.contains(&cpu);
        let on_node =
            |&&(_, cpus): &&(u32, &[u32])| cpus.iter().any(|&other| node(other) == node(cpu));
        let pinned = workers.iter().filter(on_cpu).count();
        for each in 0..EACH as usize {
            let near = if pinned > 0 {
                workers.iter().filter(on_cpu).nth(each % pinned)
            } else {
                let there = workers.iter().filter(on_node).count();
                // Spread over the node's workers, so that not all of its other CPUs choose the same.
                let nth = (cpu as usize + each).checked_rem(there);
                nth.and_then(|nth| workers.iter().filter(on_node).nth(nth))
            };
            if let (Some(place), Some((entry, _))) =
                (places.get_mut(place(cpu, each as u64) as usize), near)
            {
                *place = *entry;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::UNIT;

    #[test]
    fn a_cpu_has_its_own_workers_or_those_of_its_node() {
        let mut places = vec![0; PLACES as usize];
        // CPUs 0 to 3 are one node, the others another.
        fill(&[(11, &[0]), (12, &[0]), (13, &[1])], |cpu| cpu / 4, &mut places);
        let of = |cpu| [0, 1, 2, 3].map(|turn| places[place(cpu, turn) as usize]);
        assert_eq!(of(0), [11, 12, 11, 12]);
        assert_eq!(of(1), [13; 4]);
        let near = of(2);
        assert!(near.iter().all(|entry| (11..=13).contains(entry)), "{near:?}");
        assert_ne!(near[0], near[1]);
        assert_eq!(of(4), [0; 4], "nobody is in that node");
    }

    #[test]
    fn only_clearly_more_spills_over() {
        let unit = u64::from(UNIT);
        assert!(!spills(6 * unit, unit) && spills(7 * unit, unit));
        assert!(!spills(100 * unit, 60 * unit));
    }
}
