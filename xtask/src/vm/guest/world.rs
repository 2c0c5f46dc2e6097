//! World: what programs expect of a host, made out of what the kernel has alone.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::Path,
    process::Command,
};

use anyhow::Context as _;
use nix::{
    kmod::{ModuleInitFlags, finit_module},
    mount::{MsFlags, mount},
};

use crate::process;

/// Where modules are in the image, in the order in which they are to be loaded.
pub(in crate::vm) const MODULES: &str = "/modules";

/// Kind, place and options of what is mounted.
const MOUNTS: [(&str, &str, &str); 7] = [
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("devtmpfs", "/dev", ""),
    ("devpts", "/dev/pts", "ptmxmode=0666"),
    ("tmpfs", "/dev/shm", ""),
    ("tmpfs", "/tmp", "mode=1777"),
    ("cgroup2", "/sys/fs/cgroup", ""),
];

/// Mounts what there is, loads modules, and brings up the loopback interface.
pub(super) fn prepare() -> anyhow::Result<()> {
    for (kind, at, options) in MOUNTS {
        if !Path::new(at).exists() {
            fs::create_dir_all(at)?;
        }
        mount(Some(kind), at, Some(kind), MsFlags::empty(), Some(options))
            .with_context(|| format!("failed to mount {kind} at {at}"))?;
    }
    for (name, to) in [("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")] {
        symlink(format!("/proc/self/fd{to}"), format!("/dev/{name}"))?;
    }
    let mut modules = fs::read_dir(MODULES)?.collect::<Result<Vec<_>, _>>()?;
    modules.sort_by_key(fs::DirEntry::file_name);
    for module in modules {
        finit_module(File::open(module.path())?, c"", ModuleInitFlags::empty())
            .with_context(|| format!("failed to load {}", module.path().display()))?;
    }
    process::run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    Ok(())
}

/// Milliseconds since the kernel's first moment.
pub(super) fn uptime_ms() -> anyhow::Result<u64> {
    let uptime = fs::read_to_string("/proc/uptime")?;
    let seconds = uptime.split(' ').next().unwrap_or_default().replace('.', "");
    // It has two digits behind the point.
    Ok(seconds.parse::<u64>().context("no time in /proc/uptime")? * 10)
}
