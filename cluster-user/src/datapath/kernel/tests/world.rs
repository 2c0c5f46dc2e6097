//! A little world for one test: a network namespace, a cgroup, a data path, and workers written in Python.

use std::{
    collections::BTreeMap,
    fs,
    future::poll_fn,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::{
        fd::AsFd as _,
        unix::{fs::MetadataExt as _, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use cluster_common::slot::Slot;
use nix::sys::signal::{Signal, kill};
use tokio::runtime::{Builder, Runtime};

use super::succession::Daemon;
use crate::{
    datapath::{
        DataPath as _, GroupKey, GroupOptions, Place, Report, kernel::Kernel, socket::pidfd_open,
    },
    id::{AppId, GroupId, Ticket, WorkerId},
};

/// Serves every connection with its label, like any server that knows nothing of clusters.
pub(super) const TCP: &str = "
import socket, sys
host, port, label = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()
family = socket.AF_INET6 if ':' in host else socket.AF_INET
s = socket.socket(family, socket.SOCK_STREAM)
if host == '::': s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
s.bind((host, port)); s.listen(512)
while True:
    c, _ = s.accept()
    try: c.sendall(label)
    except OSError: pass
    c.close()
";

/// Answers every datagram with its label.
pub(super) const UDP: &str = "
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], int(sys.argv[2])))
while True:
    _, peer = s.recvfrom(100)
    s.sendto(sys.argv[3].encode(), peer)
";

/// Accepts and says nothing until the client hangs up.
pub(super) const SILENT: &str = "
import socket, sys, threading
s = socket.socket(); s.bind((sys.argv[1], int(sys.argv[2]))); s.listen(512)
def serve(c):
    c.recv(1); c.close()
while True:
    threading.Thread(target=serve, args=(s.accept()[0],)).start()
";

/// Longest wait for anything that is to happen: emulated CPUs on a busy host take a hundred times as long as it usually
/// does.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);

/// Longest time for turns beyond those that there have to be.
const LONG: Duration = Duration::from_secs(5);

/// What a test runs in. Ends its workers and removes its cgroups when dropped.
pub(super) struct World {
    pub(super) kernel: Daemon,
    /// Whose workers are started next.
    pub(super) app: AppId,
    pub(super) runtime: Runtime,
    root: Root,
    workers: BTreeMap<WorkerId, Child>,
    pub(super) next_worker: u64,
    /// Number in its app of the worker that is started next, if it is not [`number_of`] it.
    pub(super) succeeds: Option<u32>,
}

/// A socket that was reported.
pub(super) struct Reported {
    pub(super) worker: WorkerId,
    pub(super) ticket: Ticket,
    pub(super) key: GroupKey,
}

/// Runs a test in a world of its own, on a thread of its own, for the namespace is the thread's.
pub(super) fn in_a_world(test: impl FnOnce(&mut World) + Send + 'static) {
    let ran = thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root is needed");
        raise_loopback();
        test(&mut World::new());
    });
    if let Err(panic) = ran.join() {
        std::panic::resume_unwind(panic);
    }
}

impl World {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mount = cgroup_mount();
        let root = mount.join(format!("cluster-test-{}-{number}", std::process::id()));
        fs::create_dir(&root).expect("cgroup v2 is needed");
        let root = Root(root);
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let (kernel, app, workers) = (Daemon::default(), AppId(0), BTreeMap::new());
        let mut world =
            Self { kernel, app, runtime, root, workers, next_worker: 1, succeeds: None };
        let started = Instant::now();
        world.start();
        println!("data path ready after {:?}", started.elapsed());
        world
    }

    /// The cgroup of the daemon.
    pub(super) fn root(&self) -> &Path {
        &self.root.0
    }

    /// Starts a worker that runs `code` with these arguments.
    pub(super) fn spawn(&mut self, code: &str, arguments: &[&str]) -> WorkerId {
        self.spawn_for(code, arguments, &[])
    }

    /// Starts a worker of which only some ports are balanced.
    pub(super) fn spawn_for(&mut self, code: &str, arguments: &[&str], ports: &[u16]) -> WorkerId {
        let id = WorkerId(self.next_worker);
        self.next_worker += 1;
        let cgroup = self.root.0.join(format!("app-{}", self.app.0)).join(format!("w{}", id.0));
        fs::create_dir_all(&cgroup).unwrap();
        let inode = fs::metadata(&cgroup).unwrap().ino();
        let place = Place {
            app: self.app,
            cgroup: Some(inode),
            cgroup_path: Some(&cgroup),
            ports,
            number: self.succeeds.take().unwrap_or(number_of(id)),
        };
        self.kernel.admit(id, &place).unwrap();
        let child = python(code, arguments, Some(&cgroup));
        let process = pidfd_open(child.id()).unwrap();
        self.kernel.started(id, child.id(), process.as_fd(), None);
        self.workers.insert(id, child);
        id
    }

    /// The next report.
    pub(super) fn report(&mut self) -> Report {
        let kernel: &mut Kernel = &mut self.kernel;
        let next = poll_fn(|context| kernel.poll_report(context));
        let next = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, next).await });
        next.expect("no report in time")
    }

    /// The next socket that is reported to listen.
    pub(super) fn listening(&mut self) -> Reported {
        loop {
            match self.report() {
                Report::Listening { worker, ticket, key } => {
                    return Reported { worker, ticket, key };
                }
                Report::Binding { .. } => {}
                Report::Unusable { reason, .. } => panic!("{reason}"),
            }
        }
    }

    /// Lets the data path do its work for a while; what it reports is lost.
    pub(super) fn run_for(&mut self, time: Duration) {
        let kernel: &mut Kernel = &mut self.kernel;
        let never = async {
            loop {
                drop(poll_fn(|context| kernel.poll_report(context)).await);
            }
        };
        let over: Result<(), _> =
            self.runtime.block_on(async { tokio::time::timeout(time, never).await });
        assert!(over.is_err());
    }

    /// Starts workers that run `code` and takes them into `group` in slots 1, 2, …; founds it with the first.
    pub(super) fn group_of(
        &mut self,
        group: GroupId,
        workers: u16,
        code: &str,
        host: &str,
        port: u16,
    ) -> Vec<WorkerId> {
        let port = port.to_string();
        let mut ids = vec![];
        for number in 1..=workers {
            ids.push(self.spawn(code, &[host, &port, &format!("{number}")]));
        }
        for number in 0..workers {
            let socket = self.listening();
            if number == 0 {
                self.open(group, &socket);
            }
            let place = ids.iter().position(|id| *id == socket.worker).unwrap();
            self.kernel
                .join(socket.ticket, group, slot(u16::try_from(place + 1).unwrap()))
                .unwrap();
        }
        ids
    }

    /// Founds a group with a socket.
    pub(super) fn open(&mut self, group: GroupId, socket: &Reported) {
        let options = GroupOptions { app: "test".to_owned(), trace: false };
        self.kernel.open(group, socket.ticket, &options).unwrap();
    }

    /// Publishes the slots with these numbers.
    pub(super) fn publish(&mut self, group: GroupId, route: &[u16]) {
        let route: Vec<Slot> = route.iter().map(|&number| slot(number)).collect();
        self.kernel.publish(group, &route).unwrap();
    }

    /// Sends a signal to a worker.
    pub(super) fn signal(&self, worker: WorkerId, signal: Signal) {
        let pid = nix::unistd::Pid::from_raw(self.workers[&worker].id().cast_signed());
        kill(pid, signal).unwrap();
        if signal == Signal::SIGSTOP {
            let stopped = || {
                let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
                stat.contains(") T ")
            };
            wait_until("the worker has stopped", stopped);
        }
    }

    /// Whether a worker's first process lives.
    pub(super) fn is_alive(&mut self, worker: WorkerId) -> bool {
        self.workers.get_mut(&worker).unwrap().try_wait().unwrap().is_none()
    }

    /// Ends a worker at once and waits until it is gone.
    pub(super) fn kill(&mut self, worker: WorkerId) {
        let mut child = self.workers.remove(&worker).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Removes the cgroups of the app, whose workers have ended.
    pub(super) fn remove_app(&self) {
        let folder = self.root.0.join(format!("app-{}", self.app.0));
        for entry in fs::read_dir(&folder).unwrap().flatten() {
            if entry.path().is_dir() {
                fs::remove_dir(entry.path()).unwrap();
            }
        }
        fs::remove_dir(folder).unwrap();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Those of a daemon that was killed are not our children.
        drop(fs::write(self.root.0.join("cgroup.kill"), "1"));
        wait_until("all workers are gone", || {
            let events = fs::read_to_string(self.root.0.join("cgroup.events"));
            events.is_ok_and(|events| events.contains("populated 0"))
        });
        for child in self.workers.values_mut() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// The cgroup above those of the workers, removed with them when dropped.
struct Root(PathBuf);

impl Drop for Root {
    fn drop(&mut self) {
        let below = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
        for app in below(&self.0) {
            for worker in below(&app.path()) {
                drop(fs::remove_dir(worker.path()));
            }
            drop(fs::remove_dir(app.path()));
        }
        drop(fs::remove_dir(&self.0));
    }
}

/// The number in its app of a worker that succeeds nobody.
pub(super) fn number_of(worker: WorkerId) -> u32 {
    u32::try_from(worker.0 - 1).unwrap()
}

/// The slot with this number.
pub(super) fn slot(number: u16) -> Slot {
    Slot::new(number).unwrap()
}

/// Starts Python in the network namespace of this thread, in a cgroup if one is given.
pub(super) fn python(code: &str, arguments: &[&str], cgroup: Option<&Path>) -> Child {
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-I", "-S", "-c", code]).args(arguments).stdin(Stdio::null());
    if let Some(cgroup) = cgroup {
        let processes = fs::OpenOptions::new().write(true).open(cgroup.join("cgroup.procs"));
        let processes = processes.unwrap();
        let enter = move || (&processes).write_all(b"0");
        // SAFETY: one write(2), which is allowed between fork and exec.
        unsafe { command.pre_exec(enter) };
    }
    command.spawn().unwrap()
}

/// Connects, and returns what the server said until it hung up.
pub(super) fn ask(address: &str) -> std::io::Result<String> {
    let address: SocketAddr = address.parse().unwrap();
    answer(TcpStream::connect_timeout(&address, PATIENCE)?)
}

/// What the server says until it hangs up.
pub(super) fn answer(mut connection: TcpStream) -> std::io::Result<String> {
    connection.set_read_timeout(Some(PATIENCE))?;
    let mut said = String::new();
    connection.read_to_string(&mut said)?;
    Ok(said)
}

/// How often each label was answered in `count` connections, one after the other.
pub(super) fn ask_many(address: &str, count: usize) -> BTreeMap<String, usize> {
    let mut answers = BTreeMap::new();
    for _ in 0..count {
        *answers.entry(ask(address).unwrap()).or_default() += 1;
    }
    answers
}

/// Counts from nought to `most`, or only a little further than `least` where every turn takes long, as it does when a
/// program is verified by an emulated CPU that clients are busy on.
pub(super) fn turns(least: usize, most: usize) -> impl Iterator<Item = usize> {
    let began = Instant::now();
    (0..most).take_while(move |turn| *turn < least || began.elapsed() < LONG)
}

/// Leaves this thread the time that nobody else wants: a client that never pauses must not keep what it is to be in the way
/// of from happening at all, where CPUs are few and slow.
pub(super) fn step_back() {
    rustix::process::setpriority_process(None, 19).unwrap();
}

/// Waits for something, for a while.
pub(super) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn cgroup_mount() -> PathBuf {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
    PathBuf::from(mount.expect("cgroup v2 is needed").split(' ').nth(1).unwrap())
}

fn raise_loopback() {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    // SAFETY: every bit pattern is a valid request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(*b"lo") {
        *place = libc::c_char::from_ne_bytes([byte]);
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP).unwrap();
    // SAFETY: a request of this kind takes this structure.
    let result = unsafe {
        libc::ioctl(
            std::os::fd::AsRawFd::as_raw_fd(&socket),
            libc::SIOCSIFFLAGS,
            &raw const request,
        )
    };
    assert_eq!(result, 0);
}
