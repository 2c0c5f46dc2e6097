//! Contestants: the columns of the table, and how each serves the same app.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;

use super::{PORT, WORKERS};
use crate::{arena::Arena, process, run, step};

/// Longest time anything may need to serve.
const PATIENCE: Duration = Duration::from_mins(1);

/// A column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Contestant {
    /// One process of the app.
    Bare,
    /// Workers that share a port, and the kernel's hash: `cluster` in plain mode, which adds nothing.
    Plain,
    /// `cluster` in kernel mode.
    Cluster,
    /// PM2 in cluster mode.
    Pm2,
    /// Node's own cluster module.
    NodeCluster,
}

/// An app that is served, until this is dropped.
pub(super) struct Serving<'a> {
    contestant: Contestant,
    arena: &'a Arena,
    child: Option<Child>,
}

/// Builds or installs what is to be measured; says what is left out, and why.
pub(super) fn prepare(quick: bool) -> anyhow::Result<Vec<Contestant>> {
    run::build()?;
    let mut contestants = vec![Contestant::Bare, Contestant::Plain, Contestant::Cluster];
    if pm2().exists() {
        contestants.push(Contestant::Pm2);
    } else if quick {
        println!("bench: PM2 is left out: a smoke run does not install it");
    } else if which::which("npm").is_err() {
        println!("bench: PM2 is left out: there is no `npm` to install it with");
    } else {
        let folder = folder();
        fs::create_dir_all(&folder)?;
        step::run(
            Command::new("npm")
                .args(["install", "--no-fund", "--no-audit", "--no-save", "--prefix"])
                .arg(folder)
                .arg("pm2@7"),
        )?;
        contestants.push(Contestant::Pm2);
    }
    contestants.push(Contestant::NodeCluster);
    Ok(contestants)
}

/// Where benchmarks keep what they install and write.
pub(super) fn folder() -> PathBuf {
    step::target().join("bench")
}

/// A file that comes with the benchmark.
pub(super) fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bench").join(name)
}

/// The process that answers one request over a new connection.
pub(super) fn ask(port: u16) -> Option<u32> {
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(1)).ok()?;
    // A manager may have handed the connection to a worker that is dead; the next one tells.
    stream.set_read_timeout(Some(Duration::from_millis(50))).ok()?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    body.lines().find_map(|line| line.trim().parse().ok().filter(|pid| *pid > 1))
}

impl Contestant {
    /// As the head of a column says it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bare => "one bare process",
            Self::Plain => "SO_REUSEPORT",
            Self::Cluster => "cluster",
            Self::Pm2 => "PM2 cluster mode",
            Self::NodeCluster => "node:cluster",
        }
    }

    /// How many processes answer.
    pub(super) fn workers(self) -> usize {
        if self == Self::Bare { 1 } else { WORKERS }
    }

    /// Whether there is a daemon that outlives the command that started the app.
    pub(super) fn has_daemon(self) -> bool {
        matches!(self, Self::Plain | Self::Cluster | Self::Pm2)
    }

    /// The command line of a manager, or the runtime itself.
    pub(super) fn command(self, arena: &Arena) -> anyhow::Result<Command> {
        match self {
            Self::Bare | Self::NodeCluster => arena.command("node"),
            Self::Cluster => arena.command("cluster"),
            Self::Plain => {
                let mut command = arena.command("cluster")?;
                command.env("CLUSTER_MODE", "plain");
                Ok(command)
            }
            Self::Pm2 => arena.command(pm2()),
        }
    }

    /// Starts the daemon, if there is one, so that starting the app is only that; ended with the value.
    pub(super) fn wake(self, arena: &Arena) -> anyhow::Result<Serving<'_>> {
        let mut serving = Serving { contestant: self, arena, child: None };
        match self {
            Self::Bare | Self::NodeCluster => {}
            Self::Pm2 => drop(process::run(self.command(arena)?.arg("ping"))?),
            Self::Plain | Self::Cluster => {
                serving.child = Some(spawn(self.command(arena)?.arg("daemon"))?);
                let answers = || process::run(self.command(arena).ok()?.arg("ping")).ok();
                process::until(PATIENCE, answers).context("the daemon does not answer")?;
            }
        }
        Ok(serving)
    }

    /// Starts the app and returns once every worker has answered.
    pub(super) fn serve(self, arena: &Arena) -> anyhow::Result<Serving<'_>> {
        let mut serving = self.wake(arena)?;
        serving.launch()?;
        serving.await_workers(&BTreeSet::new(), self.workers())?;
        Ok(serving)
    }
}

impl Serving<'_> {
    /// Starts the app.
    pub(super) fn launch(&mut self) -> anyhow::Result<()> {
        let mut command = self.contestant.command(self.arena)?;
        let app = source("app.js");
        match self.contestant {
            Contestant::Bare => self.child = Some(spawn(command.arg(app))?),
            Contestant::NodeCluster => {
                command.arg(source("cluster.js")).env("WORKERS", WORKERS.to_string());
                self.child = Some(spawn(&mut command)?);
            }
            Contestant::Plain | Contestant::Cluster | Contestant::Pm2 => {
                let workers = self.contestant.workers().to_string();
                process::run(command.arg("start").arg(app).args(["-i", &workers]))?;
            }
        }
        Ok(())
    }

    /// Waits until `count` workers that are none of `known` have answered; returns them.
    pub(super) fn await_workers(
        &self,
        known: &BTreeSet<u32>,
        count: usize,
    ) -> anyhow::Result<BTreeSet<u32>> {
        let mut seen = BTreeSet::new();
        let all = process::until(PATIENCE, || {
            // Workers that are there already answer without a pause between them.
            for _ in 0..4 * count {
                seen.extend(ask(PORT).filter(|pid| !known.contains(pid)));
            }
            (seen.len() >= count).then_some(())
        });
        all.with_context(|| format!("{}: only {seen:?} serve", self.contestant.name()))?;
        Ok(seen)
    }

    /// The process that manages the workers.
    pub(super) fn daemon(&self) -> anyhow::Result<u32> {
        match (&self.child, self.contestant) {
            (Some(child), _) => Ok(child.id()),
            (None, Contestant::Pm2) => {
                let pid = fs::read_to_string(self.arena.path("pm2").join("pm2.pid"))?;
                pid.trim().parse().context("pm2.pid is no process id")
            }
            (None, contestant) => {
                let shown = process::run(contestant.command(self.arena)?.args(["ping", "--json"]))?;
                let pong: serde_json::Value = serde_json::from_str(&shown)?;
                let pid = pong["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
                pid.with_context(|| format!("`cluster ping` told no pid: {shown}"))
            }
        }
    }
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        if self.contestant.has_daemon() {
            let ended = self
                .contestant
                .command(self.arena)
                .and_then(|mut command| process::run(command.arg("kill")));
            if let Err(error) = ended {
                eprintln!("bench: {error:#}");
            }
        }
        self.arena.clear();
        if let Some(child) = &mut self.child
            && let Err(error) = child.wait()
        {
            eprintln!("bench: {error:#}");
        }
    }
}

fn pm2() -> PathBuf {
    folder().join("node_modules/.bin/pm2")
}

fn spawn(command: &mut Command) -> anyhow::Result<Child> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    child.with_context(|| format!("failed to run `{}`", step::show(command)))
}
