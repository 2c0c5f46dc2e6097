//! Leftover: what a daemon may leave behind and must not.

use std::{
    collections::BTreeSet,
    ffi::c_long,
    fs, io,
    os::{
        fd::{FromRawFd as _, OwnedFd},
        unix::fs::FileTypeExt as _,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::wait;

/// What there was while the daemon ran, to be looked for after its end.
#[derive(Debug)]
pub struct Leftover {
    home: PathBuf,
    /// The daemon's folders in the cgroup hierarchy.
    cgroups: BTreeSet<PathBuf>,
    /// Numbers of the kernel programs that its processes hold.
    programs: BTreeSet<u32>,
}

impl Leftover {
    /// Notes what belongs to the daemon with this home and to `processes`.
    pub fn expected(home: &Path, processes: &[u32]) -> Self {
        let hierarchy = cgroup_hierarchy();
        let cgroups = processes.iter().filter_map(|pid| own_cgroup(hierarchy.as_deref()?, *pid));
        Self {
            home: home.to_owned(),
            cgroups: cgroups.collect(),
            programs: processes.iter().flat_map(|pid| held_programs(*pid)).collect(),
        }
    }

    /// What is still there, a line each.
    pub fn of(&self, processes: &[u32]) -> Vec<String> {
        let processes = processes.iter().map(|pid| format!("process {pid} ({})", name_of(*pid)));
        let cgroups = self.cgroups.iter().filter(|path| path.exists());
        let cgroups = cgroups.map(|path| format!("cgroup {}", path.display()));
        let mounts = self.mounts().into_iter().map(|at| format!("mount {}", at.display()));
        let sockets = sockets(&self.home).into_iter().map(|at| format!("socket {}", at.display()));
        let programs = self.programs.iter().filter(|number| is_loaded(**number));
        let programs = programs.map(|number| format!("kernel program {number}"));
        processes.chain(cgroups).chain(mounts).chain(sockets).chain(programs).collect()
    }

    /// Ends and removes what is still there, so that one failed test is not the failure of others. What
    /// resists has been reported.
    pub fn clean(&self, processes: &[u32]) {
        for pid in processes {
            kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap_or_default();
        }
        for cgroup in &self.cgroups {
            fs::write(cgroup.join("cgroup.kill"), "1").unwrap_or_default();
            wait::within(Duration::from_secs(2), || {
                remove_tree(cgroup);
                (!cgroup.exists()).then_some(())
            });
        }
        for mount in self.mounts() {
            umount2(&mount, MntFlags::MNT_DETACH).unwrap_or_default();
        }
    }

    fn mounts(&self) -> Vec<PathBuf> {
        let table = fs::read_to_string("/proc/thread-self/mounts").unwrap_or_default();
        let points = table.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
        points.filter(|at| at.starts_with(&self.home) && !is_of_the_test(at)).collect()
    }
}

/// Every socket below a folder.
pub fn sockets(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_socket() => found.push(entry.path()),
            Ok(kind) if kind.is_dir() => found.extend(sockets(&entry.path())),
            Ok(_) | Err(_) => {}
        }
    }
    found
}

/// Where the cgroup v2 hierarchy is mounted.
pub fn cgroup_hierarchy() -> Option<PathBuf> {
    let table = fs::read_to_string("/proc/self/mounts").ok()?;
    let fields = table.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields
        .filter(|fields| fields.get(2) == Some(&"cgroup2"))
        .find_map(|fields| fields.get(1).map(PathBuf::from))
}

/// The part of a process' cgroup that belongs to its daemon: down to the folder named `cluster-…`.
fn own_cgroup(hierarchy: &Path, pid: u32) -> Option<PathBuf> {
    let table = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = table.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let above = path.split('/').position(|folder| folder.starts_with("cluster-"))?;
    Some(hierarchy.join(path.split('/').take(above + 1).collect::<PathBuf>()))
}

/// Numbers of the kernel programs that a process has open.
pub fn held_programs(pid: u32) -> Vec<u32> {
    let entries = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
    let infos = entries.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    infos
        .filter_map(|info| {
            let number = info.lines().find_map(|line| line.strip_prefix("prog_id:"))?;
            number.trim().parse().ok()
        })
        .collect()
}

/// Whether a kernel program is there. Numbers are given anew only after all others have been.
fn is_loaded(number: u32) -> bool {
    match program(number) {
        Ok(_program) => true,
        Err(error) => error.raw_os_error() != Some(libc::ENOENT),
    }
}

/// Opens a kernel program by its number.
///
/// # Errors
/// `ENOENT` when there is none of this number.
pub fn program(number: u32) -> io::Result<OwnedFd> {
    // linux/bpf.h
    const BPF_PROG_GET_FD_BY_ID: c_long = 13;
    /// The head of `union bpf_attr` for this; the kernel takes what is missing as zeros.
    #[repr(C)]
    struct ById {
        id: u32,
        next_id: u32,
        open_flags: u32,
    }
    let by_id = ById { id: number, next_id: 0, open_flags: 0 };
    let size = size_of::<ById>();
    // SAFETY: The kernel reads `size` bytes of a structure that outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_GET_FD_BY_ID, &raw const by_id, size) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: The kernel has just made this descriptor, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A cgroup folder cannot be removed with its files, only folder by folder from below.
fn remove_tree(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    fs::remove_dir(folder).unwrap_or_default();
}

/// A small disk that a test mounted for logs to fill.
fn is_of_the_test(mount: &Path) -> bool {
    mount.file_name().is_some_and(|name| name == "logs")
}

fn name_of(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ").trim_end().to_owned()
}
