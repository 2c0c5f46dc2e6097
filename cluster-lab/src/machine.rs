//! The machine that something was measured on.

use std::fs;

use serde::{Deserialize, Serialize};

/// What a figure depends on besides what was measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Release of the kernel.
    pub kernel: String,
    /// Name of the CPU.
    pub cpu: String,
    /// How many CPUs this process may use.
    pub cpus: usize,
    /// Megabytes of memory.
    pub memory_mb: u64,
    /// Whether each run had a network of its own.
    pub private: bool,
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        let kernel = nix::sys::utsname::uname();
        let kernel = kernel.map(|it| it.release().to_string_lossy().into_owned());
        let cpu = field("/proc/cpuinfo", "model name").or_else(|| field("/proc/cpuinfo", "Model"));
        let memory = field("/proc/meminfo", "MemTotal").and_then(|it| {
            it.split_whitespace().next().and_then(|number| number.parse::<u64>().ok())
        });
        Self {
            kernel: kernel.unwrap_or_default(),
            cpu: cpu.unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mb: memory.unwrap_or_default() / 1024,
            private: crate::arena::is_private(),
        }
    }

    /// In one line.
    pub fn label(&self) -> String {
        format!("Linux {}, {} × {}, {} MB", self.kernel, self.cpus, self.cpu, self.memory_mb)
    }
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}
