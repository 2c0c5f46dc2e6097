//! Side: an app that `cluster` or PM2 manages, and how each is told the same.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::Command,
    time::Duration,
};

use anyhow::Context as _;
use serde::Deserialize;

use super::By;
use crate::{
    arena::Arena,
    bench::{WORKERS, contestant::Contestant},
    chaos::{
        app::{App, Language},
        manager::{Listed, Manager},
    },
    process,
};

const PORT: u16 = 8080;

/// A column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Column {
    Node,
    Python,
    Go,
    /// PM2 in cluster mode, with the same Node app.
    Pm2,
}

/// An app with four workers, until this is dropped.
pub(super) struct Side<'a> {
    pub(super) column: Column,
    manager: Manager<'a>,
    pub(super) app: App,
    by: By,
}

/// What `pm2 jlist` says about a worker; it says more.
#[derive(Deserialize)]
struct Shown {
    pid: u32,
}

/// Where the app serves.
pub(super) fn address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))
}

/// One request at each worker, which turns are taken for, that is answered only after this time.
pub(super) fn hold(time: Duration) -> anyhow::Result<Vec<TcpStream>> {
    let request =
        format!("GET /?id=1&size=1&wait={} HTTP/1.1\r\nHost: bench\r\n\r\n", time.as_millis());
    let held = (0..WORKERS).map(|_| {
        let mut stream = TcpStream::connect(address())?;
        stream.write_all(request.as_bytes())?;
        Ok(stream)
    });
    held.collect()
}

impl Column {
    pub(super) const ALL: [Self; 4] = [Self::Node, Self::Python, Self::Go, Self::Pm2];

    /// As the head of the column says it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Node => "cluster, Node",
            Self::Python => "cluster, Python",
            Self::Go => "cluster, Go",
            Self::Pm2 => "PM2, Node",
        }
    }

    /// Requests per second that leave CPU time for the boots of new workers. Python's server has a thread for
    /// each connection.
    pub(super) fn rate(self) -> f64 {
        match self {
            Self::Node | Self::Go | Self::Pm2 => 1_000.0,
            Self::Python => 300.0,
        }
    }
}

impl<'a> Side<'a> {
    /// Starts the app.
    pub(super) fn start(arena: &'a Arena, column: Column, by: By) -> anyhow::Result<Self> {
        let (name, language) = match column {
            Column::Node | Column::Pm2 => ("node", Language::Node),
            Column::Python => ("python", Language::Python),
            Column::Go => ("go", Language::Go),
        };
        let workers = u32::try_from(WORKERS)?;
        let app = App::new(arena, name, language, PORT, workers, 0.0)?;
        let side = Self { column, manager: Manager { arena }, app, by };
        if column == Column::Pm2 {
            let mut start = side.pm2()?;
            start.arg("start").arg(side.app.file()).args(["-i", &WORKERS.to_string()]);
            start.args(["--name", name]).env("PORT", PORT.to_string());
            process::run(&mut start)?;
        } else {
            let line = side.app.start()?;
            side.manager.call(&line.iter().map(String::as_str).collect::<Vec<_>>())?.ok()?;
        }
        Ok(side)
    }

    /// Its workers.
    pub(super) fn pids(&self) -> anyhow::Result<BTreeSet<u32>> {
        if self.column == Column::Pm2 {
            let shown = process::run(self.pm2()?.arg("jlist"))?;
            // Whatever it has to say before that.
            let list = shown.lines().rfind(|line| line.starts_with('[')).context("no list")?;
            let workers: Vec<Shown> = serde_json::from_str(list)?;
            return Ok(workers.iter().map(|worker| worker.pid).filter(|pid| *pid > 0).collect());
        }
        Ok(self.manager.list()?.iter().flat_map(Listed::pids).collect())
    }

    /// Replaces all workers; the exit code.
    pub(super) fn reload(&self) -> anyhow::Result<Option<i32>> {
        let verb = match self.by {
            By::Reload => "reload",
            By::Restart => "restart",
        };
        if self.column == Column::Pm2 {
            let output = self.pm2()?.args([verb, self.app.name]).output()?;
            return Ok(output.status.code());
        }
        self.call(&[verb, self.app.name])
    }

    /// Replaces all workers in one step, so that all of the old ones drain at the same time.
    pub(super) fn reload_at_once(&self) -> anyhow::Result<Option<i32>> {
        match self.by {
            By::Reload => self.call(&["reload", self.app.name, "--batch", "100%"]),
            By::Restart => self.reload(),
        }
    }

    fn call(&self, words: &[&str]) -> anyhow::Result<Option<i32>> {
        let called = self.manager.call(words)?;
        if called.code != Some(0) {
            println!("bench: {}", called.told());
        }
        Ok(called.code)
    }

    /// The manager's process.
    pub(super) fn daemon(&self) -> anyhow::Result<u32> {
        if self.column == Column::Pm2 {
            let pid = fs::read_to_string(self.manager.arena.path("pm2").join("pm2.pid"))?;
            return pid.trim().parse().context("pm2.pid is no process id");
        }
        Ok(self.manager.ping()?.pid)
    }

    fn pm2(&self) -> anyhow::Result<Command> {
        Contestant::Pm2.command(self.manager.arena)
    }
}

impl Drop for Side<'_> {
    fn drop(&mut self) {
        let ended = if self.column == Column::Pm2 {
            self.pm2().and_then(|mut pm2| process::run(pm2.arg("kill")).map(drop))
        } else {
            self.manager.call(&["kill"]).map(drop)
        };
        if let Err(error) = ended {
            eprintln!("bench: {error:#}");
        }
        self.manager.arena.clear();
    }
}
