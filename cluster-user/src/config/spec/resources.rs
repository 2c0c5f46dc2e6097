//! What each worker may use of the host.

use serde::{Deserialize, Serialize};

use crate::config::{cpus::Cpus, rlimit::Rlimits, size};

/// Less memory than this no program can be started with.
const LEAST_MEMORY: u64 = 64 << 10;

/// The kernel's least quota is a millisecond of each tenth of a second (`min_bw_quota_period_us`, sched/core.c).
const LEAST_CPU: u32 = 10;

/// What each worker may use, all its processes together where a cgroup limits it, each of them otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Resources {
    /// Bytes of memory; beyond, the kernel kills one of its processes (`memory.max`).
    pub memory_max: Option<u64>,
    /// Bytes of memory; beyond, it is slowed down (`memory.high`).
    pub memory_high: Option<u64>,
    /// Thousandths of a CPU (`cpu.max`); at least 10.
    pub cpu_max: Option<u32>,
    /// Share of the CPUs when they are scarce, 1 to 10000, usually 100 (`cpu.weight`).
    pub cpu_weight: Option<u16>,
    /// Processes and threads (`pids.max`); at least 1.
    pub pids_max: Option<u32>,
    /// CPUs to run on.
    pub cpus: Option<Cpus>,
    /// Priority, -20 to 19, less is more.
    pub nice: Option<i8>,
    /// Limits of each process.
    pub rlimits: Rlimits,
    /// Permission bits that new files do not get, 0 to 0o777.
    pub umask: Option<u16>,
    /// How willingly the kernel kills it when memory runs out, -1000 to 1000.
    pub oom_score_adj: Option<i16>,
}

/// A controller of cgroup v2 that a limit needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Controller {
    /// `memory_max`, `memory_high`.
    Memory,
    /// `cpu_max`, `cpu_weight`.
    Cpu,
    /// `pids_max`.
    Pids,
}

impl Controller {
    /// All that are made use of.
    pub const ALL: [Self; 3] = [Self::Memory, Self::Cpu, Self::Pids];

    /// What the kernel calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Pids => "pids",
        }
    }

    /// The limits that need it.
    pub fn limits(self) -> &'static [&'static str] {
        match self {
            Self::Memory => &["memory_max", "memory_high"],
            Self::Cpu => &["cpu_max", "cpu_weight"],
            Self::Pids => &["pids_max"],
        }
    }
}

impl Resources {
    /// Files of a worker's cgroup that hold these limits, what is written into them, and the controller each needs.
    pub fn files(&self) -> Vec<(Controller, &'static str, String)> {
        use Controller::{Cpu, Memory, Pids};
        // Of every tenth of a second, as the kernel does by default.
        let quota = |thousandths: u32| format!("{} 100000", u64::from(thousandths) * 100);
        [
            // What is above `memory.max` never slows down: the lower one comes first.
            (Memory, "memory.high", self.memory_high.map(|bytes| bytes.to_string())),
            (Memory, "memory.max", self.memory_max.map(|bytes| bytes.to_string())),
            (Cpu, "cpu.max", self.cpu_max.map(quota)),
            (Cpu, "cpu.weight", self.cpu_weight.map(|weight| weight.to_string())),
            (Pids, "pids.max", self.pids_max.map(|count| count.to_string())),
        ]
        .into_iter()
        .filter_map(|(controller, file, value)| Some((controller, file, value?)))
        .collect()
    }

    /// Checks what its types leave open.
    ///
    /// # Errors
    /// A lowercase fragment that names the field.
    pub fn check(&self) -> Result<(), String> {
        let within = |name: &str, value: Option<i64>, least: i64, most: i64| match value {
            Some(value) if !(least..=most).contains(&value) => {
                Err(format!("{name} is {value}, not {least} to {most}"))
            }
            Some(_) | None => Ok(()),
        };
        // A page is what the kernel counts in, and a process has many.
        for (name, size) in [("memory_max", self.memory_max), ("memory_high", self.memory_high)] {
            if size.is_some_and(|size| size < LEAST_MEMORY) {
                return Err(format!("{name} is below {}", size::format(LEAST_MEMORY)));
            }
        }
        if let (Some(high), Some(max)) = (self.memory_high, self.memory_max)
            && high > max
        {
            let (high, max) = (size::format(high), size::format(max));
            return Err(format!("memory_high is {high}, more than memory_max, which is {max}"));
        }
        if self.cpu_max.is_some_and(|thousandths| thousandths < LEAST_CPU) {
            return Err("cpu_max is below 1% of a CPU".to_owned());
        }
        if self.umask.is_some_and(|umask| umask > 0o777) {
            return Err("umask is above 777".to_owned());
        }
        within("cpu_weight", self.cpu_weight.map(i64::from), 1, 10_000)?;
        within("pids_max", self.pids_max.map(i64::from), 1, 4_194_304)?;
        within("nice", self.nice.map(i64::from), -20, 19)?;
        within("oom_score_adj", self.oom_score_adj.map(i64::from), -1000, 1000)
    }

    /// The first limit that needs this controller, as it is written in files; `None` when none does.
    pub fn limit_by(&self, controller: Controller) -> Option<String> {
        let files = self.files();
        let (_, file, _) = files.into_iter().find(|(needed, _, _)| *needed == controller)?;
        Some(file.replace('.', "_"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_written_as_the_kernel_wants_them() {
        let resources = Resources {
            memory_max: Some(1 << 20),
            cpu_max: Some(1500),
            pids_max: Some(64),
            ..Resources::default()
        };
        let files: Vec<_> =
            resources.files().into_iter().map(|(_, file, value)| (file, value)).collect();
        let expected =
            [("memory.max", "1048576"), ("cpu.max", "150000 100000"), ("pids.max", "64")];
        assert_eq!(files, expected.map(|(file, value)| (file, value.to_owned())));
        assert_eq!(resources.limit_by(Controller::Memory).as_deref(), Some("memory_max"));
        assert!(Resources::default().files().is_empty());
    }
}
