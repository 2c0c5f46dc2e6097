//! Smoke: the real program, tried on the real kernel as its first user would.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use cluster_proof::{
    account::Account,
    failure::{Cause, Failure},
    load::{Load, Plan, Target},
    request::Kind,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::Deserialize;

use super::super::{
    complexity::Program,
    kernel::Promise,
    report::{Check, Feature, Report},
};
use crate::{
    chaos::manager::{Listed, Pong, eventually},
    process,
};

/// Where the programs are in the image.
pub(in crate::vm) const CLUSTER: &str = "/usr/bin/cluster";
pub(in crate::vm) const APP: &str = "/opt/app";
pub(in crate::vm) const PAGES: &str = "/opt/pages.py";
pub(in crate::vm) const VERIFIER: &str = "/opt/verifier";
pub(in crate::vm) const PYTHON: &str = "/usr/bin/python3";

/// Longest time that one thing may take, where everything takes many times as long as usual.
const PATIENCE: Duration = Duration::from_mins(1);
/// Workers of each app.
const WORKERS: usize = 4;
const APP_PORT: u16 = 8001;
const PAGES_PORT: u16 = 8002;
/// Requests per second under load: less than what two emulated CPUs do beside all else where the host is busy, for what comes
/// too fast is only waited for longer and longer.
const RATE: f64 = 6.0;

/// What `ping --json` says besides its number.
#[derive(Deserialize)]
struct Mode {
    mode: String,
}

/// Tries the program as a whole; what came of it is in the report.
pub(super) fn run(promise: Promise, report: &mut Report) {
    let mut smoke = Smoke { promise, report };
    smoke.check("the daemon is in the mode that doctor said", Smoke::mode);
    smoke.check("four workers share a port", Smoke::balance);
    smoke.check("a worker that is killed is replaced", |_| worker());
    smoke.check("a reload under load", Smoke::reload);
    smoke.check("a daemon that is killed under load finds its workers again", Smoke::daemon);
    smoke.check("nothing is left of a daemon that ends", |_| end());
}

/// Only looks at what this kernel takes.
pub(super) fn look(promise: Promise, report: &mut Report) {
    let mut smoke = Smoke { promise, report };
    smoke.check("the kernel programs are measured", Smoke::measure);
    smoke.check("doctor says what this kernel lacks", Smoke::doctor);
}

struct Smoke<'a> {
    promise: Promise,
    report: &'a mut Report,
}

impl Smoke<'_> {
    /// `attempt` says what it found, or why it does not hold.
    fn check(&mut self, name: &str, attempt: impl FnOnce(&mut Self) -> anyhow::Result<String>) {
        let began = Instant::now();
        let (found, error) = match attempt(self) {
            Ok(found) => (found, None),
            Err(error) => (String::new(), Some(format!("{error:#}"))),
        };
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let check = Check { name: name.to_owned(), found, error, took_ms };
        let said = check
            .error
            .as_ref()
            .map_or_else(|| check.found.clone(), |error| format!("FAILED: {error}"));
        println!("vm: {name}: {said} ({took_ms} ms)");
        self.report.checks.push(check);
    }

    fn measure(&mut self) -> anyhow::Result<String> {
        let said = process::run(&mut Command::new(VERIFIER))?;
        self.report.programs = serde_json::from_str(&said).context("it prints no programs")?;
        ensure!(!self.report.programs.is_empty(), "it has measured none");
        let taken = self.report.programs.iter().filter(|program| program.cost.is_ok()).count();
        for Program { name, cost, .. } in &self.report.programs {
            if let Err(error) = cost {
                println!("vm: {name}: {error}");
            }
        }
        Ok(format!("{taken} of {} are taken", self.report.programs.len()))
    }

    fn doctor(&mut self) -> anyhow::Result<String> {
        let said = cluster(&["doctor", "--json"])?;
        self.report.features = serde_json::from_str(&said).context("it prints no features")?;
        ensure!(!self.report.features.is_empty(), "it has tried nothing");
        println!("{}", cluster(&["doctor"])?);
        let lacks = |feature: &&Feature| !feature.ok;
        let missing: Vec<_> = self.report.features.iter().filter(lacks).collect();
        for Feature { name, hint, .. } in &missing {
            ensure!(hint.is_some(), "{name} is missing, and nothing says how to get it");
        }
        let kernel = missing.iter().filter(|feature| feature.needed_for == "kernel mode").count();
        match self.promise {
            Promise::Everything => {
                let names: Vec<_> = missing.iter().map(|feature| feature.name.as_str()).collect();
                ensure!(names.is_empty(), "it lacks {}", names.join(", "));
            }
            Promise::Plain => {
                ensure!(kernel > 0, "nothing that kernel mode needs is missing");
                let plain = missing.iter().find(|feature| feature.needed_for == "plain mode");
                ensure!(plain.is_none(), "{plain:?} is missing for plain mode");
            }
        }
        Ok(format!("{} of {} are missing", missing.len(), self.report.features.len()))
    }

    fn mode(&mut self) -> anyhow::Result<String> {
        let port = format!("PORT={APP_PORT}");
        let workers = WORKERS.to_string();
        cluster(&["start", APP, "--name", "app", "-i", &workers, "--env", &port])?;
        let Mode { mode } = serde_json::from_str(&cluster(&["ping", "--json"])?)?;
        let expected = match self.promise {
            Promise::Everything => "kernel",
            Promise::Plain => "plain",
        };
        ensure!(mode == expected, "{mode} mode instead of {expected} mode");
        Ok(format!("{mode} mode"))
    }

    fn balance(&mut self) -> anyhow::Result<String> {
        settle("app")?;
        let mut answers: BTreeMap<String, usize> = BTreeMap::new();
        for _ in 0..10 * WORKERS {
            *answers.entry(ask(APP_PORT)?).or_default() += 1;
        }
        let counts: Vec<usize> = answers.values().copied().collect();
        match self.promise {
            Promise::Everything => {
                ensure!(counts == [10; WORKERS], "40 requests were spread like {counts:?}");
            }
            // That a hash sends all 40 to one of four happens once in 4^39 runs.
            Promise::Plain => ensure!(counts.len() > 1, "all 40 requests went to one worker"),
        }
        Ok(format!("40 requests: {counts:?}"))
    }

    fn reload(&mut self) -> anyhow::Result<String> {
        let port = format!("PORT={PAGES_PORT}");
        let drain = match self.promise {
            // As long as it takes: on a busy host, what is in a queue is answered much later.
            Promise::Everything => "60s",
            // Without the programs that tell clients to close, kept connections are waited for to the end of it.
            Promise::Plain => "3s",
        };
        cluster(&[
            "start",
            PAGES,
            "--name",
            "pages",
            "-i",
            "2",
            "--env",
            &port,
            "--interpreter",
            PYTHON,
            "--drain-timeout",
            drain,
            "--listen-timeout",
            "30s",
        ])?;
        let before = settle("pages")?.pids();
        let load = load()?;
        let reloaded = cluster(&["reload", "pages"]);
        let account = load.stop();
        reloaded?;
        let after = settle("pages")?.pids();
        ensure!(before.is_disjoint(&after), "{before:?} and {after:?} are not all others");
        self.judge(&account)
    }

    fn daemon(&mut self) -> anyhow::Result<String> {
        let before = [settle("app")?.pids(), settle("pages")?.pids()];
        let pong: Pong = serde_json::from_str(&cluster(&["ping", "--json"])?)?;
        let load = load()?;
        kill(Pid::from_raw(pong.pid.cast_signed()), Signal::SIGKILL)?;
        let adopted = eventually(PATIENCE, || {
            let now: Pong = serde_json::from_str(&cluster(&["ping", "--json"])?)?;
            ensure!(now.pid != pong.pid, "the daemon lives");
            let after = [settle("app")?.pids(), settle("pages")?.pids()];
            ensure!(before == after, "{before:?} became {after:?}");
            Ok(())
        });
        let account = load.stop();
        adopted?;
        self.judge(&account)
    }

    fn judge(&self, account: &Account) -> anyhow::Result<String> {
        let (asked, failed) = (account.asked, account.failed());
        ensure!(asked > 10 && account.answered() > 0, "{asked} requests are no load: {account}");
        match self.promise {
            Promise::Everything => ensure!(failed == 0, "{failed} of {asked} failed: {account}"),
            // A worker that closes its socket resets what is in its queue, and what clients send over connections that
            // they kept meets its end: without the kernel's help nobody could tell them.
            Promise::Plain => {
                let was_cut = |failure: &Failure| match failure.cause {
                    Cause::Closed | Cause::Reset => true,
                    Cause::Refused
                    | Cause::TimedOut
                    | Cause::Status(_)
                    | Cause::Wrong(_)
                    | Cause::WrongByte { .. }
                    | Cause::Surplus
                    | Cause::System(_)
                    | Cause::Crowded => false,
                };
                let is_explained = account.failures.iter().all(was_cut);
                ensure!(
                    is_explained && failed * 10 < usize::try_from(asked)?,
                    "{failed} of {asked} failed: {account}"
                );
            }
        }
        Ok(format!("{asked} requests, {failed} failed"))
    }
}

/// Clients of the app in Python, which account for every request.
fn load() -> anyhow::Result<Load> {
    let target = Target {
        name: "pages".to_owned(),
        address: address(PAGES_PORT),
        rate: RATE,
        connections: 4,
        mix: vec![(Kind::Kept, 1), (Kind::Fresh, 2)],
    };
    let plan = Plan { seed: 5, targets: vec![target], patience: PATIENCE, limit: 1000 };
    let load = Load::start(plan)?;
    // It is a load when it has been answered.
    eventually(PATIENCE, || {
        ensure!(load.so_far().answered() >= 10, "nothing is answered");
        Ok(())
    })?;
    Ok(load)
}

/// Runs a command to its end.
fn cluster(args: &[&str]) -> anyhow::Result<String> {
    process::run(Command::new(CLUSTER).args(args).stderr(Stdio::piped()))
}

fn app(name: &str) -> anyhow::Result<Listed> {
    let list: Vec<Listed> = serde_json::from_str(&cluster(&["list", "--json"])?)?;
    list.into_iter().find(|app| app.name == name).with_context(|| format!("there is no {name}"))
}

/// Waits until all workers of an app are online.
fn settle(name: &str) -> anyhow::Result<Listed> {
    eventually(PATIENCE, || {
        let listed = app(name)?;
        ensure!(listed.is_settled(), "{name} does not settle: {listed:?}");
        Ok(listed)
    })
}

fn worker() -> anyhow::Result<String> {
    let before = settle("app")?.pids();
    let victim = *before.first().context("it has workers")?;
    end_process(victim)?;
    eventually(PATIENCE, || {
        let now = app("app")?;
        ensure!(now.is_settled() && !now.pids().contains(&victim), "{victim} is not replaced");
        Ok(())
    })?;
    for _ in 0..10 {
        ask(APP_PORT)?;
    }
    Ok("10 of 10 requests were answered afterwards".to_owned())
}

fn end() -> anyhow::Result<String> {
    let workers: Vec<u32> = [app("app")?, app("pages")?].iter().flat_map(Listed::pids).collect();
    cluster(&["kill"])?;
    let gone = process::until(PATIENCE, || {
        (!workers.iter().any(|pid| process::is_alive(*pid))).then_some(())
    });
    gone.context("workers are left")?;
    let refused = TcpStream::connect(address(APP_PORT)).is_err();
    ensure!(refused, "somebody still listens");
    Ok(format!("{} workers ended", workers.len()))
}

fn end_process(pid: u32) -> anyhow::Result<()> {
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL)?;
    Ok(())
}

fn address(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// The body of the answer to one request over a connection of its own.
fn ask(port: u16) -> anyhow::Result<String> {
    let mut connection = TcpStream::connect_timeout(&address(port), PATIENCE)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.write_all(b"GET / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").context("it is no answer")?;
    Ok(body.to_owned())
}
