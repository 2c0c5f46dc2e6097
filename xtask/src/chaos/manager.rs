//! Manager: `cluster` as an operator uses it, and what it says about its workers.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{Read as _, Seek as _},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde::Deserialize;

use crate::{arena::Arena, process};

/// Longest run of a command: a reload of six workers that all take their time, and more.
const PATIENCE: Duration = Duration::from_mins(3);

/// Between two attempts, which are processes each.
const BETWEEN: Duration = Duration::from_millis(20);

/// `cluster` in an arena.
#[derive(Clone, Copy)]
pub(crate) struct Manager<'a> {
    pub(crate) arena: &'a Arena,
}

/// What came of a command.
pub(crate) struct Called {
    line: String,
    /// Exit code; none when a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    stderr: String,
    pub(crate) took: Duration,
}

/// What `list --json` says about an app; it says more.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) online: u32,
    pub(crate) instances: u32,
    pub(crate) workers: Vec<Worker>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Worker {
    pub(crate) pid: Option<u32>,
    pub(crate) status: String,
}

/// What `ping --json` says; it says more.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Pong {
    pub(crate) pid: u32,
    pub(crate) uptime_ms: u64,
}

impl Manager<'_> {
    /// Runs a command to its end. Its output goes to files, so a daemon that kept a descriptor could not hold
    /// it up.
    pub(crate) fn call(self, args: &[&str]) -> anyhow::Result<Called> {
        let began = Instant::now();
        let (mut stdout, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
        let line = format!("cluster {}", args.join(" "));
        let mut child = self
            .arena
            .command("cluster")?
            .args(args)
            .stdin(Stdio::null())
            .stdout(stdout.try_clone()?)
            .stderr(stderr.try_clone()?)
            .spawn()
            .with_context(|| format!("failed to run `{line}`"))?;
        let status = process::until(PATIENCE, || child.try_wait().transpose()).transpose()?;
        if status.is_none() {
            child.kill()?;
            child.wait()?;
            anyhow::bail!("`{line}` still ran after {} s", PATIENCE.as_secs());
        }
        Ok(Called {
            line,
            code: status.and_then(|status| status.code()),
            stdout: contents(&mut stdout)?,
            stderr: contents(&mut stderr)?,
            took: began.elapsed(),
        })
    }

    /// All apps.
    pub(crate) fn list(self) -> anyhow::Result<Vec<Listed>> {
        let called = self.call(&["list", "--json"])?.ok()?;
        serde_json::from_str(&called.stdout).context("`cluster list --json` printed no list")
    }

    /// One app.
    pub(crate) fn app(self, name: &str) -> anyhow::Result<Listed> {
        let found = self.list()?.into_iter().find(|app| app.name == name);
        found.with_context(|| format!("`cluster list` does not show {name}"))
    }

    /// The daemon about itself.
    pub(crate) fn ping(self) -> anyhow::Result<Pong> {
        let called = self.call(&["ping", "--json"])?.ok()?;
        serde_json::from_str(&called.stdout).context("`cluster ping --json` printed no pong")
    }

    /// Waits until all workers of an app are online, and as many as there should be.
    pub(crate) fn settle(self, name: &str) -> anyhow::Result<Listed> {
        eventually(Duration::from_mins(1), || {
            let listed = self.app(name)?;
            anyhow::ensure!(listed.is_settled(), "{name} does not settle: {listed:?}");
            Ok(listed)
        })
    }
}

/// Tries until it succeeds; the last error when it does not in time.
pub(crate) fn eventually<T>(
    limit: Duration,
    mut attempt: impl FnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match attempt() {
            Ok(done) => return Ok(done),
            Err(error) if Instant::now() > deadline => {
                return Err(error.context(format!("waited {} s", limit.as_secs())));
            }
            Err(_too_early) => std::thread::sleep(BETWEEN),
        }
    }
}

impl Listed {
    /// Whether all workers are online, and as many as there should be.
    pub(crate) fn is_settled(&self) -> bool {
        self.online == self.instances
            && self.workers.len() == self.instances as usize
            && self.workers.iter().all(|worker| worker.status == "online")
    }

    /// Processes of its workers.
    pub(crate) fn pids(&self) -> BTreeSet<u32> {
        self.workers.iter().filter_map(|worker| worker.pid).collect()
    }
}

impl Called {
    /// Checks that it succeeded.
    pub(crate) fn ok(self) -> anyhow::Result<Self> {
        anyhow::ensure!(self.code == Some(0), "{}", self.told());
        Ok(self)
    }

    /// Checks that it ended as a command may when it was disturbed: done, failed, or with no daemon to ask; and
    /// says how.
    pub(crate) fn disturbed(&self) -> anyhow::Result<String> {
        let has_crashed = self.stderr.contains("panicked");
        match self.code {
            Some(code @ (0 | 1 | 3)) if !has_crashed => Ok(format!("exit {code} (disturbed)")),
            Some(_) | None => anyhow::bail!("{}", self.told()),
        }
    }

    /// All of it, for people.
    pub(crate) fn told(&self) -> String {
        let Self { line, code, stdout, stderr, .. } = self;
        let code = code.map_or_else(|| "by a signal".to_owned(), |code| format!("with {code}"));
        let said = format!("{stdout}\n{stderr}");
        let said: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
        format!("`{line}` ended {code}: {}", said.join(" / "))
    }
}

fn contents(file: &mut File) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
