//! `cluster report`: what whoever is asked for help needs to know, and nothing that is secret.

use std::{fmt::Write as _, fs, path::Path};

use clap::Args;
use nix::sys::utsname::uname;
use serde::Serialize;

use super::{
    describe,
    error::Error,
    human, list, output,
    past::{self, Wanted},
    policy,
    session::{self, Session, block_on},
};
use crate::{
    api::message::{AppView, Detail, Pong},
    config::home::Home,
    datapath::{feature::Feature, kernel::probe},
};

/// Lines of the daemon's log.
const LINES: usize = 30;
/// Limits that matter here, as in `/proc/PID/limits`.
const LIMITS: [&str; 3] = ["Max open files", "Max processes", "Max locked memory"];
/// Settings that hold nothing private. Command lines, folders and whatever comes later do not belong here.
const PUBLIC: [&str; 15] = [
    "program",
    "only ports",
    "watchdog",
    "overlap",
    "autorestart",
    "max restarts",
    "min uptime",
    "restart delay",
    "stop exit codes",
    "stop signal",
    "drain timeout",
    "kill timeout",
    "wait timeout",
    "trace",
    "require kernel",
];

/// Prints what a bug report needs: versions, host, apps, log of the daemon; nothing secret
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cluster report                       text to be pasted
  cluster report --json > report.json

Values of variables, arguments of apps and what workers write are left out; names of apps and paths
are in it. Read it before you publish it.")]
pub(super) struct Report {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Facts {
    release: &'static str,
    daemon: Option<Daemon>,
    /// Why there is nothing about a daemon.
    no_daemon: Option<String>,
    host: Vec<(&'static str, String)>,
    features: Vec<Feature>,
    apps: Vec<App>,
    log: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Daemon {
    release: String,
    pid: u32,
    mode: &'static str,
    uptime_ms: u64,
    missing: Vec<String>,
    limits: Vec<String>,
}

#[derive(Debug, Serialize)]
struct App {
    name: String,
    status: &'static str,
    online: u32,
    instances: u32,
    restarts: u32,
    ports: String,
    memory_bytes: u64,
    /// Names only.
    variables: Vec<String>,
    settings: Vec<(&'static str, String)>,
    /// Instance and reason.
    troubles: Vec<String>,
}

impl Report {
    pub(super) fn run(self) -> Result<(), Error> {
        let session = Session::new()?;
        // A daemon that cannot be talked to is what many a report is about.
        let asked = block_on(async {
            let Some(mut client) = session.find().await? else { return Ok(None) };
            let pong = session::ping(&mut client).await?;
            let apps = session.apps(&[], Detail::Usual).await?;
            Ok(Some((pong, apps.unwrap_or_default())))
        });
        let (daemon, apps, no_daemon) = match asked {
            Ok(Some((pong, apps))) => (Some(daemon(&pong)), apps, None),
            Ok(None) => (None, Vec::new(), Some("no daemon is running".to_owned())),
            Err(error) => (None, Vec::new(), Some(error.message)),
        };
        let facts = Facts {
            release: env!("CARGO_PKG_VERSION"),
            daemon,
            no_daemon,
            host: host(),
            features: probe::features(None),
            apps: apps.iter().map(app).collect(),
            log: log(&session.home),
        };
        if self.json {
            return Ok(output::json(&facts)?);
        }
        Ok(output::answer(&draw(&facts))?)
    }
}

fn daemon(pong: &Pong) -> Daemon {
    let limits = fs::read_to_string(format!("/proc/{}/limits", pong.pid)).unwrap_or_default();
    let limits = limits.lines().filter(|line| LIMITS.iter().any(|limit| line.starts_with(limit)));
    Daemon {
        release: pong.release.clone(),
        pid: pong.pid,
        mode: list::mode(pong.mode),
        uptime_ms: pong.uptime_ms,
        missing: pong.missing.iter().map(|notice| notice.message.clone()).collect(),
        limits: limits.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect(),
    }
}

fn host() -> Vec<(&'static str, String)> {
    let mut host = Vec::new();
    if let Ok(kernel) = uname() {
        let text = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
        let (release, version) = (text(kernel.release()), text(kernel.version()));
        host.push(("kernel", format!("{release} {version} {}", text(kernel.machine()))));
    }
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    host.extend(name.map(|name| ("distribution", name.trim_matches('"').to_owned())));
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    host.push(("CPUs", cpus.to_string()));
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    host.extend(memory.map(|memory| ("memory", memory.trim().to_owned())));
    let first = fs::read_to_string("/proc/1/comm").unwrap_or_default();
    host.push(("process 1", first.trim().to_owned()));
    let container =
        ["/.dockerenv", "/run/.containerenv"].iter().any(|file| Path::new(file).exists());
    host.push(("container", if container { "yes" } else { "not seen" }.to_owned()));
    host.push(("user", nix::unistd::Uid::effective().to_string()));
    host
}

fn app(app: &AppView) -> App {
    let settings = describe::settings(&app.spec).into_iter();
    let mut settings: Vec<_> = settings.filter(|(name, _)| PUBLIC.contains(name)).collect();
    settings.extend(policy::settings_of(app));
    settings.push(("arguments", app.spec.args.len().to_string()));
    let troubles = app.workers.iter().filter_map(|worker| {
        let reason = worker.reason.as_ref()?;
        Some(format!("{}: {reason}", worker.instance))
    });
    App {
        name: app.name.clone(),
        status: human::status(app.status),
        online: app.online,
        instances: app.instances,
        restarts: app.restarts,
        ports: list::ports(&app.ports),
        memory_bytes: app.memory_bytes,
        variables: app.spec.environment().into_keys().map(str::to_owned).collect(),
        settings,
        troubles: troubles.collect(),
    }
}

fn log(home: &Home) -> Vec<String> {
    let wanted = Wanted { lines: Some(LINES), since: None, until: None, partial: true };
    let read = past::read(&home.logs(), &home.daemon_log(), wanted, &|_| true);
    let lines = read.map(|past| past.lines).unwrap_or_default();
    lines.iter().map(|line| human::written(&String::from_utf8_lossy(&line.text))).collect()
}

/// Text that a forge shows as it is.
fn draw(facts: &Facts) -> String {
    let mut text = format!("### cluster {}\n\n", facts.release);
    let mut line = |line: String| {
        let _infallible = writeln!(text, "{line}");
    };
    if let Some(daemon) = &facts.daemon {
        let up = human::uptime(daemon.uptime_ms);
        let (release, pid, mode) = (human::plain(&daemon.release), daemon.pid, daemon.mode);
        line(format!("- daemon: release {release}, {mode} mode, up {up}, pid {pid}"));
        for missing in &daemon.missing {
            line(format!("- missing: {}", human::plain(missing)));
        }
        for limit in &daemon.limits {
            line(format!("- limit: {limit}"));
        }
    } else {
        let why = facts.no_daemon.as_deref().unwrap_or("unknown");
        line(format!("- daemon: {}", human::plain(why)));
    }
    for (name, value) in &facts.host {
        line(format!("- {name}: {}", human::plain(value)));
    }
    line("\n### Features\n".to_owned());
    for feature in &facts.features {
        let word = if feature.ok { "ok" } else { "missing" };
        let detail = feature.detail.as_deref().map(|detail| format!(": {}", human::plain(detail)));
        line(format!("- {word}: {}{}", human::plain(&feature.name), detail.unwrap_or_default()));
    }
    for app in &facts.apps {
        let App { status, online, instances, restarts, ports, .. } = app;
        line(format!("\n### App {}\n", human::plain(&app.name)));
        let memory = human::bytes(app.memory_bytes);
        line(format!(
            "- {status}, {online}/{instances} online, {restarts} restarts, ports {ports}, {memory}"
        ));
        for trouble in &app.troubles {
            line(format!("- worker {}", human::plain(trouble)));
        }
        let settings = app.settings.iter();
        let settings: Vec<_> =
            settings.map(|(name, value)| format!("{name} {}", human::plain(value))).collect();
        line(format!("- {}", settings.join("; ")));
        line(format!("- {} variables", app.variables.len()));
    }
    line("\n### Log of the daemon\n\n```text".to_owned());
    facts.log.iter().for_each(|logged| line(logged.clone()));
    line("```".to_owned());
    text
}

#[cfg(test)]
mod tests {
    use super::{super::sample, *};

    #[test]
    fn a_report_has_no_secrets() {
        let mut view = sample::app();
        view.spec.env.insert("TOKEN".to_owned(), "hunter2".to_owned());
        view.spec.args.push("--password=hunter3".to_owned());
        view.spec.script = "node app.js --key hunter4".to_owned();
        let facts = Facts {
            release: "0",
            daemon: None,
            no_daemon: Some("no daemon is running".to_owned()),
            host: host(),
            features: Vec::new(),
            apps: vec![app(&view)],
            log: vec!["a line".to_owned()],
        };
        let text = draw(&facts);
        assert!(text.contains("### App web") && text.contains("a line"), "{text}");
        for told in [text, serde_json::to_string(&facts).unwrap()] {
            assert!(!told.contains("hunter"), "{told}");
        }
    }
}
