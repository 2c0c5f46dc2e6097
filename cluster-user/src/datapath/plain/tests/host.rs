//! A supervisor in plain mode, and workers of it.

use std::{
    collections::BTreeMap,
    env,
    future::poll_fn,
    io::{self, Read as _, Write as _},
    net::TcpStream,
    os::fd::AsFd as _,
    path::Path,
    time::{Duration, Instant},
};

use cluster_common::slot::Slot;

use super::{
    super::{Admission, DataPath as _, GroupKey, GroupOptions, Place, Plain, Report, filter},
    address,
};
use crate::{
    id::{AppId, GroupId, WorkerId},
    process::{
        spawn::{Bounds, Launch, Spawned, spawn},
        watch::{ExitStatus, reap},
    },
};

/// A data path, its runtime, and workers, which end with it.
pub(super) struct Host {
    pub(super) plain: Plain,
    runtime: tokio::runtime::Runtime,
    pub(super) ports: Vec<u16>,
    pub(super) workers: Vec<(WorkerId, Spawned)>,
}

impl Host {
    pub(super) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let plain = {
            let _context = runtime.enter();
            Plain::new().unwrap()
        };
        Self { plain, runtime, ports: Vec::new(), workers: Vec::new() }
    }

    pub(super) fn start(&mut self, command: &[&str]) -> WorkerId {
        self.start_of(AppId(0), command)
    }

    pub(super) fn start_of(&mut self, app: AppId, command: &[&str]) -> WorkerId {
        let worker = WorkerId(self.workers.len() as u64);
        let place = Place { app, cgroup: None, cgroup_path: None, ports: &self.ports, number: 0 };
        assert_eq!(self.plain.admit(worker, &place).unwrap(), Admission::Seccomp);
        let null = std::fs::File::options().write(true).open("/dev/null").unwrap();
        let args: Vec<String> = command.iter().map(|arg| (*arg).to_owned()).collect();
        let path = ("PATH".to_owned(), env::var("PATH").unwrap());
        let spawned = spawn(&Launch {
            program: Path::new(command[0]),
            args: &args,
            env: &[path, ("GODEBUG".to_owned(), "multipathtcp=0".to_owned())],
            cwd: Path::new("/tmp"),
            user: None,
            cgroup: None,
            stdout: null.as_fd(),
            stderr: io::stderr().as_fd(),
            inherited: &[],
            sockets: &[],
            filter: Some(&filter::PROGRAM),
            bounds: &Bounds::default(),
        });
        let mut spawned = spawned.unwrap();
        let notifier = spawned.notifier.take();
        self.plain.started(worker, spawned.pid, spawned.process.as_fd(), notifier);
        self.workers.push((worker, spawned));
        worker
    }

    /// What futures run in.
    pub(super) fn runtime(&self) -> &tokio::runtime::Runtime {
        &self.runtime
    }

    /// Ends the supervisor as a kill does, which closes its descriptors; another one takes the workers over.
    pub(super) fn succeed(&mut self) {
        let context = self.runtime.enter();
        // No fork carries the old one's descriptors on: they are closed before the next one begins.
        self.plain = Plain::new().unwrap();
        drop(context);
        for (id, spawned) in &self.workers {
            let place = Place {
                app: AppId(0),
                cgroup: None,
                cgroup_path: None,
                ports: &self.ports,
                number: 0,
            };
            self.plain.admit(*id, &place).unwrap();
            self.plain.started(*id, spawned.pid, spawned.process.as_fd(), None);
        }
    }

    /// The next report, if there is one in time.
    pub(super) fn poll(&mut self, patience: Duration) -> Option<Report> {
        let plain = &mut self.plain;
        self.runtime.block_on(async {
            tokio::time::timeout(patience, poll_fn(|context| plain.poll_report(context))).await.ok()
        })
    }

    pub(super) fn next(&mut self, is_it: impl Fn(&Report) -> bool) -> Report {
        loop {
            let report = self.poll(Duration::from_secs(30)).expect("a report in time");
            if is_it(&report) {
                return report;
            }
        }
    }

    /// Lets `count` sockets join one group.
    pub(super) fn join_all(&mut self, count: u16) -> Vec<GroupKey> {
        let mut keys = Vec::new();
        for slot in 1..=count {
            let report = self.next(|report| !matches!(report, Report::Binding { .. }));
            let Report::Listening { ticket, key, .. } = report else { panic!("{report:?}") };
            if slot == 1 {
                self.plain.open(GroupId(0), ticket, &options()).unwrap();
            }
            self.plain.join(ticket, GroupId(0), Slot::masked(slot)).unwrap();
            keys.push(key);
        }
        assert!(keys.windows(2).all(|pair| pair[0] == pair[1]));
        self.plain.publish(GroupId(0), &[Slot::masked(1)]).unwrap();
        assert!(self.plain.publish(GroupId(1), &[Slot::masked(1)]).is_err());
        keys
    }

    /// How often each worker answered.
    pub(super) fn asked(&self, times: usize) -> BTreeMap<String, u32> {
        let mut answers = BTreeMap::new();
        for _ in 0..times {
            let mut stream = TcpStream::connect(address()).unwrap();
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            let pid = answer.lines().last().unwrap().to_owned();
            assert!(
                self.workers.iter().any(|(_, worker)| worker.pid.to_string() == pid),
                "{answer}"
            );
            *answers.entry(pid).or_default() += 1;
        }
        answers
    }

    /// Waits until a worker has ended by itself, and badly, without having listened.
    pub(super) fn fails_to_bind(&mut self, worker: WorkerId) {
        let at = self.workers.iter().position(|(id, _)| *id == worker).unwrap();
        let (_, spawned) = self.workers.remove(at);
        let begin = Instant::now();
        let status = loop {
            assert!(begin.elapsed() < Duration::from_secs(30), "it goes on");
            let report = self.poll(Duration::from_millis(5));
            assert!(matches!(report, None | Some(Report::Binding { .. })), "{report:?}");
            if let Some(status) = reap(spawned.process.as_fd()).unwrap() {
                break status;
            }
        };
        assert_eq!(status, ExitStatus::Code(1));
    }

    pub(super) fn end(&mut self, worker: WorkerId) {
        let at = self.workers.iter().position(|(id, _)| *id == worker).unwrap();
        end(self.workers.remove(at).1);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.workers.drain(..).for_each(|(_, spawned)| end(spawned));
    }
}

pub(super) fn end(spawned: Spawned) {
    rustix::process::pidfd_send_signal(&spawned.process, rustix::process::Signal::KILL).unwrap();
    let mut ready = [rustix::event::PollFd::new(&spawned.process, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut ready, None).unwrap();
    reap(spawned.process.as_fd()).unwrap();
}

pub(super) fn options() -> GroupOptions {
    GroupOptions { app: "app".to_owned(), trace: false }
}
