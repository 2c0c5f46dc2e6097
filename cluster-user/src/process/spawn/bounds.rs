//! What a process may use, in the form that the child needs.

use std::{collections::BTreeSet, ffi::CString};

use super::{super::limits, child};
use crate::{
    config::{
        cpus::{self, Cpus},
        rlimit::{Limit, Rlimit},
        spec::resources::Resources,
    },
    id::Instance,
};

/// What a process may use.
#[derive(Clone, Debug)]
pub struct Bounds {
    umask: Option<u16>,
    oom_score: Option<CString>,
    cpus: BTreeSet<u32>,
    mask: Vec<u8>,
    nice: Option<i8>,
    named: Vec<(Rlimit, Limit)>,
    rlimits: Vec<(u32, libc::rlimit)>,
}

impl Default for Bounds {
    /// As the daemon was started.
    fn default() -> Self {
        Self::of(&Resources::default(), Instance(0))
    }
}

impl Bounds {
    /// Those of a worker.
    pub fn of(resources: &Resources, instance: Instance) -> Self {
        // The daemon's own limit is not meant for it; what its app says goes before what was there.
        let descriptors = limits::for_workers().map(|limit| (libc::RLIMIT_NOFILE, limit));
        let named: Vec<_> = resources.rlimits.iter().map(|(name, limit)| (*name, *limit)).collect();
        let own = named.iter().map(|(name, limit)| (number(*name), in_c(*limit)));
        let cpus = match &resources.cpus {
            None => BTreeSet::new(),
            // The kernel leaves out what the daemon may not have.
            Some(Cpus::List(list)) => list.clone(),
            Some(Cpus::Spread) => Cpus::Spread.of(instance.0, &allowed()),
        };
        Self {
            umask: resources.umask,
            // Digits have no null among them.
            oom_score: resources
                .oom_score_adj
                .and_then(|score| CString::new(score.to_string()).ok()),
            mask: mask(&cpus),
            cpus,
            nice: resources.nice,
            rlimits: descriptors.into_iter().chain(own).collect(),
            named,
        }
    }

    pub(super) fn plan(&self) -> child::Bounds {
        let score = self.oom_score.as_ref();
        child::Bounds {
            umask: self.umask.map(Into::into),
            oom_score: score.map_or(std::ptr::null(), |text| text.as_ptr()),
            oom_score_length: score.map_or(0, |text| text.as_bytes().len()),
            cpus: self.mask.as_ptr(),
            cpus_length: self.mask.len(),
            nice: self.nice.map(Into::into),
            rlimits: self.rlimits.as_ptr(),
            rlimits_count: self.rlimits.len(),
        }
    }

    pub(super) fn oom_score(&self) -> String {
        self.oom_score.as_ref().map_or_else(String::new, |text| text.to_string_lossy().into_owned())
    }

    pub(super) fn cpus(&self) -> String {
        cpus::show(&self.cpus)
    }

    pub(super) fn nice(&self) -> i8 {
        self.nice.unwrap_or_default()
    }

    pub(super) fn rlimits(&self) -> String {
        let shown: Vec<_> =
            self.named.iter().map(|(name, limit)| format!("{name}={limit}")).collect();
        shown.join(", ")
    }
}

/// The CPUs that this process may run on.
fn allowed() -> BTreeSet<u32> {
    let set = rustix::thread::sched_getaffinity(None).unwrap_or_default();
    let all = 0..rustix::thread::CpuSet::MAX_CPU;
    all.filter(|cpu| set.is_set(*cpu)).filter_map(|cpu| u32::try_from(cpu).ok()).collect()
}

/// A bit for each, as `sched_setaffinity(2)` wants them: in whole words of the machine.
fn mask(cpus: &BTreeSet<u32>) -> Vec<u8> {
    let Some(last) = cpus.last() else { return Vec::new() };
    let words = last / u64::BITS + 1;
    let word = |word: u32| {
        let bits = (0..u64::BITS).filter(|bit| cpus.contains(&(word * u64::BITS + bit)));
        bits.fold(0_u64, |bits, bit| bits | 1 << bit).to_ne_bytes()
    };
    (0..words).flat_map(word).collect()
}

fn number(name: Rlimit) -> u32 {
    match name {
        Rlimit::As => libc::RLIMIT_AS,
        Rlimit::Core => libc::RLIMIT_CORE,
        Rlimit::Cpu => libc::RLIMIT_CPU,
        Rlimit::Data => libc::RLIMIT_DATA,
        Rlimit::Fsize => libc::RLIMIT_FSIZE,
        Rlimit::Memlock => libc::RLIMIT_MEMLOCK,
        Rlimit::Msgqueue => libc::RLIMIT_MSGQUEUE,
        Rlimit::Nice => libc::RLIMIT_NICE,
        Rlimit::Nofile => libc::RLIMIT_NOFILE,
        Rlimit::Nproc => libc::RLIMIT_NPROC,
        Rlimit::Rtprio => libc::RLIMIT_RTPRIO,
        Rlimit::Rttime => libc::RLIMIT_RTTIME,
        Rlimit::Sigpending => libc::RLIMIT_SIGPENDING,
        Rlimit::Stack => libc::RLIMIT_STACK,
    }
}

fn in_c(limit: Limit) -> libc::rlimit {
    let value = |value: Option<u64>| value.unwrap_or(libc::RLIM_INFINITY);
    libc::rlimit { rlim_cur: value(limit.soft), rlim_max: value(limit.hard) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_has_a_bit_for_each_cpu_in_whole_words() {
        assert!(mask(&BTreeSet::new()).is_empty());
        let found = mask(&BTreeSet::from([0, 9, 64]));
        assert_eq!(found.len(), 16);
        assert_eq!((found[0], found[1], found[8]), (1, 2, 1));
    }
}
