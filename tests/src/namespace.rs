//! Namespace: a network and a mount table that only one test and what it starts can see.

use std::{fs, path::PathBuf, process::Command};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

/// A private network namespace, which the calling thread and all it starts are in from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// `net:[4026531840]`, as the links in `/proc/<pid>/ns` say.
    name: PathBuf,
}

impl Namespace {
    /// Moves the calling thread into a new namespace with `lo` up.
    pub fn enter() -> Self {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
            .expect("tests make namespaces, which needs root: run `cargo xtask test` as root");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
            .expect("failed to make mounts private");
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(up.expect("failed to run `ip`").success(), "failed to bring `lo` up");
        Self {
            name: fs::read_link("/proc/thread-self/ns/net").expect("failed to read own namespace"),
        }
    }

    /// Every living process in this namespace. The test itself is not: only its thread is.
    pub fn processes(&self) -> Vec<u32> {
        let own = std::process::id();
        let numbers = fs::read_dir("/proc")
            .expect("failed to read /proc")
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        numbers
            .filter(|pid| *pid != own)
            .filter(|pid| {
                fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|name| name == self.name)
            })
            .collect()
    }
}

/// Sets a sysctl of the calling thread's network namespace, such as `net/ipv4/tcp_syncookies`.
pub fn sysctl(name: &str, value: &str) {
    let path = format!("/proc/sys/{name}");
    fs::write(&path, value).unwrap_or_else(|error| panic!("failed to write {path}: {error}"));
}

/// Mounts an empty tmpfs of that many bytes, its user's alone; only this test sees it.
pub fn mount_small_disk(at: &std::path::Path, bytes: u64) {
    fs::create_dir_all(at).expect("failed to create a mount point");
    let size = format!("size={bytes},mode=0700");
    mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some(size.as_str()))
        .expect("failed to mount a tmpfs");
}

/// A `/dev` with nothing but what programs need, seen by this test only; it is made at a folder of the test's.
pub fn own_devices(at: &std::path::Path) {
    mount_small_disk(at, 1 << 20);
    fs::set_permissions(at, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("a folder of this test");
    for name in ["null", "zero", "full", "random", "urandom"] {
        let (from, to) = (PathBuf::from("/dev").join(name), at.join(name));
        fs::write(&to, "").expect("failed to make a file to mount at");
        mount(Some(&from), &to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .expect("failed to bind a device");
    }
    for (name, target) in [("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")]
    {
        let target = format!("/proc/self/{target}");
        std::os::unix::fs::symlink(target, at.join(name)).expect("failed to make a link");
    }
    mount(Some(at), "/dev", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .expect("failed to move a mount");
}
