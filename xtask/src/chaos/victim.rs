//! Victim: a worker that is killed, and exactly which connections it had when it was.

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use cluster_proof::failure::{Cause, Failure, Phase};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::process;

/// Longest time until a process that was told to stop has stopped, or one that was killed has closed all.
const PATIENCE: Duration = Duration::from_secs(5);

/// A worker that was killed.
#[derive(Clone, Debug)]
pub(super) struct Victim {
    /// Name of its app.
    pub(super) app: &'static str,
    pub(super) pid: u32,
    /// The clients' ports of the connections that it had accepted.
    pub(super) ports: BTreeSet<u16>,
    /// From when on it did nothing any more.
    stopped: Instant,
    /// When the last of its connections was closed.
    gone: Instant,
}

impl Victim {
    /// Kills a process; none when it has ended by itself in the meantime.
    ///
    /// It is stopped first. What it has accepted by then is what it is killed with: it cannot accept more, and
    /// what waits in its queue has not been accepted and must not be lost.
    pub(super) fn kill(app: &'static str, port: u16, pid: u32) -> anyhow::Result<Option<Self>> {
        if !freeze(pid)? {
            return Ok(None);
        }
        let stopped = Instant::now();
        let sockets = Sockets::of(pid)?;
        let ports = sockets.clients(port)?;
        kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL)?;
        let closed = process::until(PATIENCE, || sockets.are_closed().then_some(()));
        closed.with_context(|| format!("process {pid} keeps its sockets after SIGKILL"))?;
        Ok(Some(Self { app, pid, ports, stopped, gone: Instant::now() }))
    }

    /// One that closed its connections a minute after it was stopped.
    #[cfg(test)]
    pub(super) fn of(app: &'static str, pid: u32, ports: BTreeSet<u16>, stopped: Instant) -> Self {
        Self { app, pid, ports, stopped, gone: stopped + Duration::from_mins(1) }
    }

    /// Whether the request failed because this worker was executing it.
    pub(super) fn explains(&self, failure: &Failure) -> bool {
        let was_cut = match (&failure.cause, failure.phase) {
            (Cause::Closed | Cause::Reset, Phase::Send | Phase::Head | Phase::Body) => true,
            (Cause::Closed | Cause::Reset, Phase::Connect | Phase::After)
            | (
                Cause::Refused
                | Cause::TimedOut
                | Cause::Status(_)
                | Cause::Wrong(_)
                | Cause::WrongByte { .. }
                | Cause::Surplus
                | Cause::System(_)
                | Cause::Crowded,
                _,
            ) => false,
        };
        was_cut
            && failure.target == self.app
            && failure.local.is_some_and(|local| self.ports.contains(&local.port()))
            && failure.worker.is_none_or(|worker| worker == self.pid)
            && failure.began <= self.gone
            && failure.failed >= self.stopped
    }
}

/// Stops a process and waits until no thread of it runs; whether it is there.
pub(super) fn freeze(pid: u32) -> anyhow::Result<bool> {
    match kill(Pid::from_raw(pid.cast_signed()), Signal::SIGSTOP) {
        Ok(()) => {}
        Err(Errno::ESRCH) => return Ok(false),
        Err(error) => return Err(error).with_context(|| format!("failed to stop {pid}")),
    }
    let is_still = process::until(PATIENCE, || {
        let states = states(pid);
        let is_over = states.iter().all(|state| matches!(state, 'Z' | 'X'));
        (is_over || states.iter().all(|state| *state == 'T')).then_some(!is_over)
    });
    is_still.with_context(|| format!("process {pid} still runs after SIGSTOP"))
}

/// Lets a stopped process go on, if it is there.
pub(super) fn thaw(pid: u32) -> anyhow::Result<()> {
    match kill(Pid::from_raw(pid.cast_signed()), Signal::SIGCONT) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("failed to continue {pid}")),
    }
}

/// The state of each thread, as `/proc` names it.
fn states(pid: u32) -> Vec<char> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let stats = tasks.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
    stats.filter_map(|stat| stat.rsplit_once(") ")?.1.chars().next()).collect()
}

/// Sockets of a process, by inode.
struct Sockets(BTreeSet<u64>);

/// A line of the kernel's table of TCP sockets.
struct Row {
    local: u16,
    remote: u16,
    inode: u64,
}

impl Sockets {
    fn of(pid: u32) -> anyhow::Result<Self> {
        let files = fs::read_dir(format!("/proc/{pid}/fd"))?.flatten();
        let links = files.filter_map(|file| fs::read_link(file.path()).ok());
        let inodes = links.filter_map(|link| {
            let name = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            name.parse().ok()
        });
        Ok(Self(inodes.collect()))
    }

    /// Ports at the other ends of those that serve this port.
    fn clients(&self, port: u16) -> anyhow::Result<BTreeSet<u16>> {
        let rows = table()?.into_iter().filter(|row| row.local == port && row.remote != 0);
        Ok(rows.filter(|row| self.0.contains(&row.inode)).map(|row| row.remote).collect())
    }

    /// A socket that no process has open any more has no inode.
    fn are_closed(&self) -> bool {
        table().is_ok_and(|rows| rows.iter().all(|row| !self.0.contains(&row.inode)))
    }
}

/// TCP sockets of this network.
fn table() -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for name in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/thread-self/net/{name}"))
            .with_context(|| format!("failed to read the table of {name} sockets"))?;
        rows.extend(text.lines().skip(1).filter_map(row));
    }
    Ok(rows)
}

/// `0: 0100007F:1F41 0100007F:D431 01 00000000:00000000 00:00000000 00000000 0 0 12345 …`
fn row(line: &str) -> Option<Row> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let port = |field: &str| u16::from_str_radix(field.rsplit_once(':')?.1, 16).ok();
    Some(Row {
        local: port(fields.get(1)?)?,
        remote: port(fields.get(2)?)?,
        inode: fields.get(9)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader},
        net::{SocketAddr, TcpStream},
        process::{Command, Stdio},
    };

    use cluster_proof::request::Kind;

    use super::*;

    #[test]
    fn a_victim_has_what_it_accepted_and_not_what_waits_in_its_queue() {
        // Accepts one connection and then does nothing.
        let program = "import socket, time\n\
            server = socket.create_server(('127.0.0.1', 0))\n\
            print(server.getsockname()[1], flush=True)\n\
            kept = server.accept()\nprint('accepted', flush=True)\ntime.sleep(60)\n";
        let mut python = Command::new("python3");
        let mut child = python.args(["-c", program]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port: u16 = lines.next().unwrap().unwrap().parse().unwrap();
        let accepted = TcpStream::connect(("127.0.0.1", port)).unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "accepted");
        let queued = TcpStream::connect(("127.0.0.1", port)).unwrap();

        let began = Instant::now();
        let victim = Victim::kill("app", port, child.id()).unwrap().unwrap();
        child.wait().unwrap();
        let port_of = |stream: &TcpStream| stream.local_addr().unwrap().port();
        assert_eq!(victim.ports, [port_of(&accepted)].into());

        let cut = failure(&accepted, Phase::Head, Cause::Closed, began);
        assert!(victim.explains(&cut));
        let lost = failure(&queued, Phase::Head, Cause::Closed, began);
        assert!(!victim.explains(&lost), "what waits in a queue must not be lost");
        for (phase, cause) in [
            (Phase::Connect, Cause::Refused),
            (Phase::Head, Cause::TimedOut),
            (Phase::Body, Cause::WrongByte { at: 1 }),
        ] {
            assert!(!victim.explains(&failure(&accepted, phase, cause, began)));
        }
        let later = Instant::now();
        assert!(!victim.explains(&failure(&accepted, Phase::Head, Cause::Closed, later)));
        let mut before = failure(&accepted, Phase::Head, Cause::Closed, began);
        before.failed = began;
        assert!(!victim.explains(&before));
        let mut elsewhere = failure(&accepted, Phase::Head, Cause::Closed, began);
        elsewhere.worker = Some(victim.pid + 1);
        assert!(!victim.explains(&elsewhere));
    }

    #[test]
    fn a_process_that_is_gone_is_no_victim() {
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert!(Victim::kill("app", 80, child.id()).unwrap().is_none());
    }

    fn failure(stream: &TcpStream, phase: Phase, cause: Cause, began: Instant) -> Failure {
        let local: SocketAddr = stream.local_addr().unwrap();
        Failure {
            id: 1,
            target: "app".to_owned(),
            kind: Kind::Kept,
            phase,
            cause,
            errno: None,
            due: began,
            began,
            failed: Instant::now(),
            local: Some(local),
            worker: None,
            earlier: 0,
            sent: 10,
            received: 0,
        }
    }
}
