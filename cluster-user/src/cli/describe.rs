//! `cluster describe`.

use std::fmt::Write as _;

use clap::Args;

use super::{
    counted,
    error::Error,
    human, list, output, policy,
    selection::Selection,
    session::{Session, block_on},
    table::{Cell, Column, KEEP, Table},
};
use crate::{
    api::message::{AppView, Detail, WorkerView},
    config::{
        duration, readiness, secret,
        signal::StopSignal,
        size,
        spec::{AppSpec, hooks::Hook, identity::INSTANCE_VAR},
    },
    datapath::Protocol,
};

/// Shows everything about apps
#[derive(Args, Debug)]
#[command(after_help = "Example: cluster describe web

Below the workers: what the kernel counted for each and for all since the app's start, how long
connections waited, lasted and took to and fro (buckets by powers of two, so p50, p90 and p99 are
estimates), and for each port what its program did.

With --json: the shape of `cluster list --verbose --json`")]
pub(super) struct Describe {
    /// Names, ids, NAME:INSTANCE, namespaces, `all`, or /REGEX/
    #[arg(required = true, value_name = "TARGET")]
    targets: Vec<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Describe {
    pub(super) fn run(self) -> Result<(), Error> {
        let selection = Selection::parse(&self.targets)?;
        let session = Session::new()?;
        let apps = block_on(session.needed_apps(&self.targets, Detail::Connections))?;
        if self.json {
            return Ok(output::json(&list::shared(apps))?);
        }
        let (width, colour) = (output::width(), output::colour());
        let texts = apps.iter().map(|app| draw(app, &selection, width, colour));
        Ok(output::answer(&texts.collect::<Vec<_>>().join("\n"))?)
    }
}

fn draw(app: &AppView, selection: &Selection, width: Option<usize>, colour: bool) -> String {
    let mut about = Table::pairs();
    let mut pair = |name: &str, value: Cell| about.row(vec![name.into(), value]);
    pair("id", app.id.into());
    pair("name", (&app.name).into());
    pair("namespace", (&app.namespace).into());
    pair("status", Cell::styled(human::status(app.status), human::status_style(app.status)));
    pair("mode", list::mode(app.mode).into());
    pair("generation", human::generation(app).into());
    if let Some(reload) = &app.reload {
        let ago = human::uptime(human::ago(reload.began_ms));
        pair("reload", format!("by {}, {ago} ago", reload.who).into());
    }
    pair("instances", format!("{} online of {}", app.online, app.instances).into());
    for port in &app.ports {
        let protocol = match port.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        pair("port", format!("{protocol} {}, served by {}", port.address, port.workers).into());
    }
    for (name, value) in policy::settings_of(app) {
        pair(name, value.into());
    }
    pair("restarts", app.restarts.into());
    pair("cpu", human::percent(app.cpu_percent).into());
    pair("memory", human::bytes(app.memory_bytes).into());
    pair("uptime", app.uptime_ms.map_or_else(|| "-".to_owned(), human::uptime).into());
    for (name, value) in settings(&app.spec) {
        pair(name, value.into());
    }

    let column = |title, importance, right| Column { title, importance, right, cut: false };
    let mut workers = Table::new(&[
        column("instance", KEEP, true),
        column("pid", 9, true),
        column("status", KEEP, false),
        column("generation", if human::in_transit(app) { KEEP } else { 0 }, true),
        Column { title: "reason", importance: 8, right: false, cut: true },
        column("↺", 7, true),
        column("unstable", 1, true),
        column("connections", 6, true),
        column("selected", 2, true),
        column("cpu", 3, true),
        column("memory", 4, true),
        column("uptime", 5, true),
    ]);
    let mut logs = Table::pairs();
    let dash = || "-".to_owned();
    for worker in app.workers.iter().filter(|worker| selection.means(app, worker)) {
        workers.row(vec![
            worker.instance.into(),
            worker.pid.map_or_else(dash, |pid| pid.to_string()).into(),
            Cell::styled(human::status(worker.status), human::status_style(worker.status)),
            worker.generation.to_string().into(),
            worker.reason.clone().unwrap_or_default().into(),
            worker.restarts.into(),
            worker.unstable.into(),
            worker.connections.map_or_else(dash, |count| count.to_string()).into(),
            worker.selected.map_or_else(dash, |count| count.to_string()).into(),
            human::percent(worker.cpu_percent).into(),
            human::bytes(worker.memory_bytes).into(),
            worker.uptime_ms.map_or_else(dash, human::uptime).into(),
        ]);
        for other in &worker.others {
            let mut row = vec![Cell::from(""); 12];
            row[0] = worker.instance.into();
            row[1] = other.pid.map_or_else(dash, |pid| pid.to_string()).into();
            row[2] = Cell::styled(human::status(other.status), human::status_style(other.status));
            row[3] = other.generation.to_string().into();
            workers.row(row);
        }
        let instance = worker.instance;
        logs.row(vec![format!("{instance} out").into(), worker.logs.out.display().into()]);
        logs.row(vec![format!("{instance} err").into(), worker.logs.err.display().into()]);
        if let Some(both) = &worker.logs.combined {
            logs.row(vec![format!("{instance} both").into(), both.display().into()]);
        }
        if let Some(text) = said(worker) {
            logs.row(vec![format!("{instance} says").into(), text.into()]);
        }
        if worker.dropped_bytes > 0 {
            let dropped = human::bytes(worker.dropped_bytes);
            let said = format!("{dropped} not written: see daemon.log");
            logs.row(vec![format!("{instance} lost").into(), said.into()]);
        }
    }
    // Paths and arguments are there to be copied: only the table of workers gives way to the terminal.
    [
        about.render(None, colour),
        workers.render(width, colour),
        counted::sections(app, selection, width, colour),
        counted::reasons(std::slice::from_ref(app)),
        logs.render(None, colour),
        last_words(app, selection),
    ]
    .concat()
}

/// What a worker says of itself.
fn said(worker: &WorkerView) -> Option<String> {
    let errno = worker.errno.map(|number| {
        format!("error {number}: {}", nix::errno::Errno::from_raw(number).desc().to_lowercase())
    });
    let main = worker.main_pid.map(|pid| format!("its main process is {pid}"));
    let said: Vec<_> = [worker.status_text.clone(), errno, main].into_iter().flatten().collect();
    (!said.is_empty()).then(|| said.join("; "))
}

/// What those workers wrote last that are not running although they should.
fn last_words(app: &AppView, selection: &Selection) -> String {
    let meant = app.workers.iter().filter(|worker| selection.means(app, worker));
    let mut text = String::new();
    for worker in meant.filter(|worker| !worker.last_words.is_empty()) {
        let _infallible = writeln!(text, "last lines of worker {}:", worker.instance);
        for line in &worker.last_words {
            let _infallible = writeln!(text, "  | {}", human::written(line));
        }
    }
    text
}

/// What an app was started with, by name of the option.
pub(super) fn settings(spec: &AppSpec) -> Vec<(&'static str, String)> {
    let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let joined = |numbers: &[String]| {
        if numbers.is_empty() { "-".to_owned() } else { numbers.join(", ") }
    };
    let listen: Vec<String> = spec.listen.iter().map(ToString::to_string).collect();
    let instance_var = spec.identity.instance_var.as_deref().unwrap_or(INSTANCE_VAR);
    let pid_file = spec.identity.pid_file.as_ref();
    let pid_file = pid_file.map_or_else(|| "-".to_owned(), |path| path.display().to_string());
    let ports: Vec<String> = spec.ports.iter().map(u16::to_string).collect();
    let codes: Vec<String> = spec.restart.stop_exit_codes.iter().map(i32::to_string).collect();
    let dash = || "-".to_owned();
    let liveness = spec.liveness.as_ref().map_or_else(dash, readiness::shown);
    let stop = if spec.stop.with_message {
        "message `shutdown`".to_owned()
    } else {
        StopSignal(spec.stop.signal).to_string()
    };
    let user = spec.user.as_ref().map_or_else(
        || "the daemon's".to_owned(),
        |user| format!("uid {}, gid {}", user.uid, user.gid),
    );
    let arguments = if spec.args.is_empty() { "-".to_owned() } else { shown_arguments(&spec.args) };
    let mut settings = vec![
        ("script", secret::text(&spec.script).into_owned()),
        ("program", spec.program.display().to_string()),
        ("arguments", arguments),
        ("cwd", spec.cwd.display().to_string()),
        ("user", user),
        ("only ports", if ports.is_empty() { "all".to_owned() } else { joined(&ports) }),
        ("listen", if listen.is_empty() { dash() } else { listen.join(", ") }),
        ("instance variable", instance_var.to_owned()),
        ("increment variable", spec.identity.increment_var.clone().unwrap_or_else(dash)),
        ("pid file", pid_file),
        ("ready when", readiness::ready_when(spec)),
        ("liveness", liveness),
        ("watchdog", spec.watchdog.map_or_else(dash, duration::format)),
        ("overlap", yes_no(spec.overlap)),
        ("autorestart", yes_no(spec.restart.autorestart)),
        ("max restarts", spec.restart.max_restarts.to_string()),
        ("min uptime", duration::format(spec.restart.min_uptime)),
        ("restart delay", duration::format(spec.restart.restart_delay)),
        ("stop exit codes", joined(&codes)),
        ("stop signal", stop),
        ("drain timeout", duration::format(spec.stop.drain_timeout)),
        ("kill timeout", duration::format(spec.stop.kill_timeout)),
        ("wait timeout", duration::format(spec.wait_timeout)),
        ("trace", yes_no(spec.trace)),
        ("require kernel", yes_no(spec.require_kernel)),
    ];
    settings.extend(kept_up(spec));
    settings
}

/// What keeps an app up over time, and what it may use; most have little of it, so only that is shown.
fn kept_up(spec: &AppSpec) -> Vec<(&'static str, String)> {
    let AppSpec { watch, recycle, hooks, resources, .. } = spec;
    let watched = watch.as_ref().map(|watch| {
        let paths: Vec<_> = watch.paths.iter().map(|path| path.display().to_string()).collect();
        let ignored: Vec<_> = watch.ignore.iter().map(ToString::to_string).collect();
        match ignored.as_slice() {
            [] => paths.join(", "),
            ignored => format!("{}, except {}", paths.join(", "), ignored.join(", ")),
        }
    });
    let mut shown = vec![
        ("watch", watched),
        ("watch delay", watch.as_ref().map(|watch| duration::format(watch.delay))),
        ("max memory", recycle.max_memory.map(size::format)),
        ("max lifetime", recycle.max_lifetime.map(duration::format)),
        ("cron restart", recycle.cron.as_ref().map(ToString::to_string)),
    ];
    let hook = |hook| hooks.line(hook).map(|line| secret::text(line).into_owned());
    shown.extend([
        ("pre start", hook(Hook::PreStart)),
        ("post ready", hook(Hook::PostReady)),
        ("pre stop", hook(Hook::PreStop)),
        ("post stop", hook(Hook::PostStop)),
        ("on failure", hook(Hook::OnFailure)),
    ]);
    let has_hook = Hook::ALL.into_iter().any(|hook| hooks.line(hook).is_some());
    shown.push(("hook timeout", has_hook.then(|| duration::format(hooks.timeout))));
    let cpus = |thousandths: u32| format!("{} CPUs", f64::from(thousandths) / 1000.0);
    let limits: Vec<_> =
        resources.rlimits.iter().map(|(name, limit)| format!("{name}={limit}")).collect();
    shown.extend([
        ("memory max", resources.memory_max.map(size::format)),
        ("memory high", resources.memory_high.map(size::format)),
        ("cpu max", resources.cpu_max.map(cpus)),
        ("cpu weight", resources.cpu_weight.map(|weight| weight.to_string())),
        ("pids max", resources.pids_max.map(|count| count.to_string())),
        ("cpus", resources.cpus.as_ref().map(ToString::to_string)),
        ("nice", resources.nice.map(|nice| nice.to_string())),
        ("rlimits", (!limits.is_empty()).then(|| limits.join(", "))),
        ("umask", resources.umask.map(|umask| format!("{umask:03o}"))),
        ("oom score", resources.oom_score_adj.map(|score| score.to_string())),
    ]);
    shown.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// Quoted where a shell needs it; what stands for a secret is not to be pasted anyway.
fn shown_arguments(args: &[String]) -> String {
    let shown = secret::arguments(args);
    let words = shown.iter().map(|arg| {
        if arg.contains(secret::MASK) { arg.as_str().into() } else { shell_words::quote(arg) }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::{super::sample::app, *};

    #[test]
    fn everything_about_an_app_is_shown() {
        let all = Selection::parse(&[]).unwrap();
        insta::assert_snapshot!(draw(&app(), &all, Some(100), false), @r"
        ┌────────────────────┬───────────────────────────────┐
        │ id                 │ 0                             │
        │ name               │ web                           │
        │ namespace          │ default                       │
        │ status             │ online                        │
        │ mode               │ kernel                        │
        │ generation         │ 1                             │
        │ instances          │ 1 online of 2                 │
        │ port               │ tcp 0.0.0.0:8080, served by 1 │
        │ port               │ tcp [::]:8080, served by 1    │
        │ port               │ tcp 0.0.0.0:9090, served by 1 │
        │ policy             │ round-robin                   │
        │ weights            │ equal                         │
        │ guard              │ on                            │
        │ shed               │ off                           │
        │ restarts           │ 3                             │
        │ cpu                │ 12.3%                         │
        │ memory             │ 52.4 MB                       │
        │ uptime             │ 1h                            │
        │ script             │ server.js                     │
        │ program            │ /usr/bin/node                 │
        │ arguments          │ /srv/server.js 'a b'          │
        │ cwd                │ /srv                          │
        │ user               │ the daemon's                  │
        │ only ports         │ all                           │
        │ listen             │ -                             │
        │ instance variable  │ NODE_APP_INSTANCE             │
        │ increment variable │ -                             │
        │ pid file           │ -                             │
        │ ready when         │ listening, within 30s         │
        │ liveness           │ -                             │
        │ watchdog           │ -                             │
        │ overlap            │ yes                           │
        │ autorestart        │ yes                           │
        │ max restarts       │ 16                            │
        │ min uptime         │ 1s                            │
        │ restart delay      │ 0ms                           │
        │ stop exit codes    │ -                             │
        │ stop signal        │ SIGTERM                       │
        │ drain timeout      │ 30s                           │
        │ kill timeout       │ 10s                           │
        │ wait timeout       │ 30s                           │
        │ trace              │ no                            │
        │ require kernel     │ no                            │
        └────────────────────┴───────────────────────────────┘
        ┌──────────┬──────┬─────────┬──────────────────────────┬────┬─────────────┬─────────┬────────┐
        │ instance │  pid │ status  │ reason                   │  ↺ │ connections │  memory │ uptime │
        ├──────────┼──────┼─────────┼──────────────────────────┼────┼─────────────┼─────────┼────────┤
        │        0 │ 4001 │ online  │                          │  0 │           7 │ 52.4 MB │     1h │
        │        1 │    - │ errored │ exited with code 1, 16 … │ 16 │           - │ 52.4 MB │      - │
        └──────────┴──────┴─────────┴──────────────────────────┴────┴─────────────┴─────────┴────────┘
        ┌────────┬───────────────────────────────────────┐
        │ 0 out  │ /var/lib/cluster/logs/web-out-0.log   │
        │ 0 err  │ /var/lib/cluster/logs/web-error-0.log │
        │ 0 says │ 7 requests in flight                  │
        │ 0 lost │ 4.0 KB not written: see daemon.log    │
        │ 1 out  │ /var/lib/cluster/logs/web-out-1.log   │
        │ 1 err  │ /var/lib/cluster/logs/web-error-1.log │
        └────────┴───────────────────────────────────────┘
        last lines of worker 1:
          | Error: listen EADDRINUSE
          |     at Server.listen
        ");
    }
}
