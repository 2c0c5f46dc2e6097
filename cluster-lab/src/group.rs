//! A group of workers, whoever runs them.

use std::{
    net::{SocketAddr, TcpStream},
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use socket2::Socket;

use crate::{
    arena::{self, WORKER_COMMAND},
    contender::{By, NAME},
    point::Point,
    worker,
};

/// Exit code of `cluster` when the host lacks something.
const UNSUPPORTED: i32 = 5;
/// How long workers may take to serve.
const PATIENCE: Duration = Duration::from_mins(1);
/// The same for an app that is ready and serves other ports.
const ELSEWHERE: Duration = Duration::from_secs(10);
/// Between two looks whether they do: at first, and at most. The kernel goes through all of its connections for a look.
const LOOKS: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(250)];

/// Workers that serve; they end with it.
#[derive(Debug)]
pub(crate) struct Group {
    point: Point,
    home: PathBuf,
    address: SocketAddr,
    /// Those that the laboratory runs by itself, by their numbers.
    own: Vec<Child>,
    /// The one socket of all of them.
    shared: Option<Socket>,
}

/// Why there is no group.
#[derive(Debug)]
pub(crate) enum NoGroup {
    /// This cluster, or this host, does not have the policy.
    NotAvailable(String),
    /// The workers were started, and nobody serves the port.
    NotServing(String),
    /// Something went wrong.
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for NoGroup {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl Group {
    /// Starts the workers of a point and waits until they serve.
    pub(crate) fn start(
        point: &Point,
        folder: &Path,
        address: SocketAddr,
    ) -> Result<Self, NoGroup> {
        let home = arena::home(folder);
        let point = point.clone();
        let mut group = Self { point, home, address, own: Vec::new(), shared: None };
        match group.point.policy.by.clone() {
            By::Cluster { .. } => {
                group.start_cluster()?;
                group.expect_kernel_mode()?;
            }
            By::Plain => group.start_cluster()?,
            By::Hash | By::Shared if group.point.setup.app.is_some() => {
                return Err(NoGroup::NotAvailable(format!(
                    "`{}` runs workers of the laboratory, and not an app of one's own; `plain` is the kernel's hash",
                    group.point.policy
                )));
            }
            By::Hash => group.start_own()?,
            By::Shared => {
                let socket = worker::bind(address, false, group.point.setup.backlog);
                group.shared = Some(socket.context("failed to listen").map_err(NoGroup::Failed)?);
                group.start_own()?;
            }
        }
        group.await_serving()?;
        Ok(group)
    }

    /// Process ids of the workers, by their numbers.
    pub(crate) fn pids(&self) -> anyhow::Result<Vec<Pid>> {
        if !self.own.is_empty() {
            return Ok(self.own.iter().map(|it| Pid::from_raw(it.id().cast_signed())).collect());
        }
        let app = self.app()?;
        let mut pids: Vec<(u64, i32)> = workers(&app)
            .filter_map(|worker| {
                let pid = i32::try_from(worker["pid"].as_i64()?).ok()?;
                Some((worker["instance"].as_u64()?, pid))
            })
            .collect();
        pids.sort_unstable();
        Ok(pids.into_iter().map(|(_, pid)| Pid::from_raw(pid)).collect())
    }

    /// Connections that the kernel has given to each worker, where it counts them.
    pub(crate) fn selected(&self) -> Vec<u64> {
        if !self.own.is_empty() {
            return Vec::new();
        }
        let Ok(app) = self.app() else { return Vec::new() };
        workers(&app).filter_map(|worker| worker["selected"].as_u64()).collect()
    }

    /// Replaces all workers, as their manager does.
    pub(crate) fn reload(&mut self) -> anyhow::Result<()> {
        if self.own.is_empty() {
            return run(self.cluster().args(["reload", NAME])).map(drop);
        }
        // Without a manager: new ones come, and old ones go with what waits in their queues.
        let old = std::mem::take(&mut self.own);
        let started = self.start_own();
        for mut child in old {
            kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap_or_default();
            child.wait().context("failed to wait for a worker")?;
        }
        started
    }

    /// Kills a worker. Those of the laboratory have nobody else to start them again.
    pub(crate) fn kill(&mut self, number: usize) -> anyhow::Result<()> {
        let pid = self.pids()?.get(number).copied().context("there is no such worker")?;
        kill(pid, Signal::SIGKILL).context("failed to kill a worker")?;
        if let Some(child) = self.own.get_mut(number) {
            child.wait().context("failed to wait for a worker")?;
            self.own[number] = self.spawn(number)?;
        }
        Ok(())
    }

    fn start_cluster(&self) -> Result<(), NoGroup> {
        let setup = &self.point.setup;
        let mut command = self.cluster();
        command.arg("start");
        match &setup.app {
            Some(app) => command.arg(app).env("PORT", setup.port.to_string()),
            None => command.arg(arena::program()),
        };
        let options = self.point.policy.options(self.point.cell.workers, setup.pin_workers);
        command.args(options.unwrap_or_default());
        if setup.app.is_none() {
            command.arg("--").args(self.worker_arguments());
        }
        let output = command.output().context("failed to run `cluster start`")?;
        if output.status.success() {
            return Ok(());
        }
        let said = last_words(&output.stderr);
        // A kernel that lacks it. What makes no sense was refused before anything began.
        if output.status.code() == Some(UNSUPPORTED) && self.point.policy.by != By::Plain {
            return Err(NoGroup::NotAvailable(said));
        }
        Err(NoGroup::Failed(anyhow::anyhow!("`cluster start` failed: {said}")))
    }

    fn expect_kernel_mode(&self) -> Result<(), NoGroup> {
        let app = self.app()?;
        if app["mode"] == "kernel" {
            return Ok(());
        }
        Err(NoGroup::NotAvailable("policies need kernel mode: see `cluster doctor`".to_owned()))
    }

    fn app(&self) -> anyhow::Result<Value> {
        let shown = run(self.cluster().args(["list", "--json"]))?;
        let apps: Value = serde_json::from_str(&shown).context("`cluster list` printed no JSON")?;
        let app = apps.as_array().and_then(|apps| apps.iter().find(|app| app["name"] == NAME));
        app.cloned().context("the app is not in the list")
    }

    fn start_own(&mut self) -> anyhow::Result<()> {
        for number in 0..self.point.cell.workers as usize {
            let child = self.spawn(number)?;
            self.own.push(child);
        }
        Ok(())
    }

    fn spawn(&self, number: usize) -> anyhow::Result<Child> {
        let mut command = Command::new(arena::program());
        command.args(self.worker_arguments()).args(["--worker-name", &number.to_string()]);
        match &self.shared {
            Some(socket) => {
                // Left open for the worker; the others that this process starts do not know of it.
                fcntl(socket, FcntlArg::F_SETFD(FdFlag::empty())).context("failed to share")?;
                command.args(["--inherited", &socket.as_raw_fd().to_string()]);
            }
            None => drop(command.arg("--reuse-port")),
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        // As `cluster` does: each session has a share of the CPUs of its own (sched(7), autogroups), and workers that
        // shared one would be slower for that alone.
        // SAFETY: setsid(2) may be called between fork and exec.
        unsafe {
            command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(std::io::Error::from));
        }
        command.spawn().context("failed to start a worker")
    }

    fn worker_arguments(&self) -> Vec<String> {
        let backlog = self.point.setup.backlog.to_string();
        [WORKER_COMMAND, "--address", &self.address.to_string(), "--backlog", &backlog]
            .map(str::to_owned)
            .to_vec()
    }

    /// Workers of the laboratory that share an address are all there when each is in its group.
    fn await_serving(&self) -> Result<(), NoGroup> {
        let began = Instant::now();
        let (elsewhere_at, end) = (began + ELSEWHERE, began + PATIENCE);
        let [mut pause, longest] = LOOKS;
        let wanted = if self.own.is_empty() || self.shared.is_some() { 1 } else { self.own.len() };
        while listening(self.address.port()) < wanted
            || TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).is_err()
        {
            let now = Instant::now();
            let elsewhere = if now < elsewhere_at { None } else { self.elsewhere() };
            if elsewhere.is_some() || now >= end {
                let said = format!(
                    "nobody serves port {} after {} s",
                    self.address.port(),
                    began.elapsed().as_secs()
                );
                return Err(NoGroup::NotServing(match elsewhere {
                    Some(ports) => format!("{said}, and the app serves {ports}"),
                    None => said,
                }));
            }
            thread::sleep(pause);
            pause = (pause * 2).min(longest);
        }
        Ok(())
    }

    /// The ports that the app serves, if the one that is asked is none of them.
    fn elsewhere(&self) -> Option<String> {
        let app = self.app().ok()?;
        let shown = app["ports"].as_array()?.iter().filter_map(|port| port["address"].as_str());
        let ports: Vec<SocketAddr> = shown.filter_map(|address| address.parse().ok()).collect();
        let serves = |port: u16| ports.iter().any(|address| address.port() == port);
        let is_elsewhere = !ports.is_empty() && !serves(self.address.port());
        is_elsewhere.then(|| ports.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", "))
    }

    fn cluster(&self) -> Command {
        let mut command = Command::new(arena::program());
        command.env("CLUSTER_HOME", &self.home).env("NO_COLOR", "1").stdin(Stdio::null());
        if self.point.policy.by == By::Plain {
            command.env("CLUSTER_MODE", "plain");
        } else {
            command.env_remove("CLUSTER_MODE");
        }
        command
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.home.exists() {
            // The arena ends what does not end by itself.
            drop(self.cluster().arg("kill").output());
        }
        for child in &mut self.own {
            child.kill().unwrap_or_default();
            drop(child.wait());
        }
    }
}

fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().context("failed to run `cluster`")?;
    anyhow::ensure!(output.status.success(), "`cluster` failed: {}", last_words(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn workers(app: &Value) -> impl Iterator<Item = &Value> {
    app["workers"].as_array().into_iter().flatten()
}

/// What a command said last, without what it says to people: `error: …`.
fn last_words(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let error = text.find("error: ").map_or(&*text, |at| &text[at + 7..]);
    let lines: Vec<&str> = error.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    // What follows a mistake in a command line is about that command line, which nobody here has typed.
    let about =
        lines.iter().position(|line| line.starts_with("tip:") || line.starts_with("Usage:"));
    lines[..about.unwrap_or(lines.len()).min(4)].join("; ")
}

/// How many sockets listen on a port, in this network (`/proc/net/tcp`: proc(5); state 0A is LISTEN).
fn listening(port: u16) -> usize {
    let end = format!(":{port:04X}");
    let listens = |line: &&str| {
        let mut fields = line.split_whitespace();
        fields.nth(1).is_some_and(|local| local.ends_with(&end)) && fields.nth(1) == Some("0A")
    };
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|file| std::fs::read_to_string(file).ok())
        .map(|text| text.lines().filter(listens).count())
        .sum()
}
