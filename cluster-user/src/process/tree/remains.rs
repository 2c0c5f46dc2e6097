//! What can be read of a worker when there is no journal that knew it.

use std::{collections::BTreeSet, fs, net::SocketAddr, path::PathBuf};

use procfs::{net::TcpState, process::Process};

use crate::{config::spec::User, environ, process::proc::Stat};

/// A running worker as `/proc` tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remains {
    /// Its main process: the leader of a session that was born first.
    pub pid: u32,
    /// When that started, in clock ticks since boot.
    pub started: u64,
    /// The file that it executes.
    pub program: PathBuf,
    /// Its arguments, the program's name first.
    pub args: Vec<String>,
    /// Its working folder.
    pub cwd: PathBuf,
    /// The environment it was started with.
    pub env: Vec<(String, String)>,
    /// Who it is.
    pub user: User,
    /// Where its processes listen (TCP).
    pub listening: BTreeSet<SocketAddr>,
}

impl Remains {
    /// Reads what there is of the worker with these processes; `None` when its main process is gone, or may not be
    /// read.
    pub fn of(pids: &[u32]) -> Option<Self> {
        let leaders = pids.iter().filter_map(|pid| Stat::of(*pid));
        let leaders = leaders.filter(|stat| stat.session == stat.pid && stat.state != 'Z');
        let main = leaders.min_by_key(|stat| (stat.started, stat.pid))?;
        let folder = PathBuf::from(format!("/proc/{}", main.pid));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let args = fs::read(folder.join("cmdline")).ok()?;
        let args = args.strip_suffix(b"\0").unwrap_or(&args);
        Some(Self {
            pid: main.pid,
            started: main.started,
            program: fs::read_link(folder.join("exe")).ok()?,
            args: args.split(|byte| *byte == 0).map(text).collect(),
            cwd: fs::read_link(folder.join("cwd")).ok()?,
            env: environ::of(main.pid),
            user: user(main.pid)?,
            listening: listening(pids),
        })
    }

    /// Value of a variable of its environment.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.env.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

fn user(pid: u32) -> Option<User> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| -> Option<Vec<u32>> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().map(|number| number.parse().ok()).collect()
    };
    // Real, effective, saved, and of the file system.
    let (uid, gid) = (*field("Uid:")?.get(1)?, *field("Gid:")?.get(1)?);
    Some(User { uid, gid, groups: field("Groups:")? })
}

fn listening(pids: &[u32]) -> BTreeSet<SocketAddr> {
    let mut open = BTreeSet::new();
    for pid in pids {
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        open.extend(entries.filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            inode.parse::<u64>().ok()
        }));
    }
    let viewer = pids.iter().find_map(|pid| Process::new(pid.cast_signed()).ok());
    let Some(viewer) = viewer else { return BTreeSet::new() };
    let tables = [viewer.tcp(), viewer.tcp6()].into_iter().filter_map(Result::ok).flatten();
    let listening =
        tables.filter(|entry| entry.state == TcpState::Listen && open.contains(&entry.inode));
    listening.map(|entry| entry.local_address).collect()
}

#[cfg(test)]
mod tests {
    use std::{
        net::TcpListener,
        os::{fd::OwnedFd, unix::process::CommandExt as _},
        path::Path,
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn a_worker_is_told_from_what_it_left_behind() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "sleep 1000 & exec sleep 1000", "an arg"])
            .env_clear()
            .env("CLUSTER_INSTANCE", "3")
            .current_dir("/tmp")
            .stdin(Stdio::from(OwnedFd::from(listener)));
        // SAFETY: one system call.
        unsafe { command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(Into::into)) };
        let mut main = command.spawn().unwrap();
        drop(command);
        let children = format!("/proc/{0}/task/{0}/children", main.id());
        let child = loop {
            let child = fs::read_to_string(&children).unwrap().trim().parse::<u32>();
            let name = fs::read_to_string(format!("/proc/{}/comm", main.id())).unwrap();
            if let (Ok(child), "sleep") = (child, name.trim()) {
                break child;
            }
            std::thread::yield_now();
        };

        let found = Remains::of(&[child, main.id()]).unwrap();

        assert_eq!(found.pid, main.id());
        assert_eq!(found.args, ["sleep", "1000"]);
        assert_eq!(found.cwd, Path::new("/tmp"));
        assert!(found.program.is_absolute());
        assert_eq!(found.variable("CLUSTER_INSTANCE"), Some("3"));
        assert_eq!(found.user.uid, nix::unistd::geteuid().as_raw());
        assert_eq!(found.listening, BTreeSet::from([address]));
        for pid in [child, main.id()] {
            nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid.cast_signed()),
                nix::sys::signal::Signal::SIGKILL,
            )
            .unwrap();
        }
        main.wait().unwrap();
        assert_eq!(Remains::of(&[main.id()]), None);
    }
}
