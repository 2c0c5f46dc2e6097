//! `cluster list`, and the table that verbs end with.

use anstyle::Style;
use clap::Args;

use super::{
    counted,
    error::Error,
    human, output,
    selection::Selection,
    session::{Session, block_on},
    sort::Sort,
    table::{Cell, Column, KEEP, Table},
};
use crate::{
    api::message::{AppView, Detail, OtherView, PortView, WorkerView},
    datapath::{Mode, Protocol},
};

/// Lists apps
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cluster list -v                    every worker, with its pid and connections
  cluster list --sort memory:desc    the largest first

Columns of -v: conns that are open; selected, accepted: connections since the worker's start (of the
app: since its start); queue: connections that wait for accept now, and the most there were; in,
out: bytes; rtt: half of the round trips were shorter; wait p99: 99 % waited less for accept.

With --json: an array with one object per app. Its members:
  id, name, namespace, mode (kernel | plain), status, online, instances, generation, reload (null,
  or {generation, stage (canary | forward | back), canary, who, began_ms}), ports [{protocol,
  address, workers}], policy (in plain mode hash, which is the kernel's own and not the policy of
  that name), unscheduled (why it has not its policy, or null), history, restarts, cpu_percent,
  memory_bytes, uptime_ms, created_ms, spec, and
  workers [{instance, generation, pid, status, reason, restarts, unstable, cpu_percent,
  memory_bytes, uptime_ms, connections (with -v), selected, migrated, logs {out, err}, and with -v
  connections_per_second and telemetry,
  dropped_bytes, last_words, status_text, errno, main_pid, env, others [{pid, generation,
  status}]}]. status_text: what the worker says of itself. others: processes of a reload that are
  to take the worker's place, or had it and finish what they have.
  status: starting | ready | online | draining | stopping | backoff | errored | stopped.
  With -v, telemetry is what the kernel counted, of the app since its start and of each worker:
  {selected, accepted, live, queued, queued_peak, migrated_in, migrated_out, dropped, guarded,
  stalled, bytes_in, bytes_out, lifetime, wait, round_trip, missing}, of ports {misses, waited,
  refused, shed, other, hashed, runs}. null: this host cannot count it, and missing says why.
  Histograms are {buckets, sum} in microseconds; buckets[n] counts values below 2^n that others do
  not.
  Members may be added, never changed. spec.env is left empty: see `cluster env`.")]
#[expect(clippy::struct_excessive_bools, reason = "each is one option of the command line")]
pub(super) struct List {
    /// Only these; see `cluster --help`
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,

    /// One row per worker too, with its pid and connections
    #[arg(short, long)]
    verbose: bool,

    /// Only id, name, status, cpu and memory
    #[arg(short, long = "mini-list", conflicts_with = "verbose")]
    mini: bool,

    /// In this order, by id otherwise: name, namespace, pid, status, restarts, cpu, memory or uptime
    #[arg(long, value_name = "FIELD[:desc]")]
    sort: Option<Sort>,

    /// Stopped ones too, as always
    #[arg(short, long, hide = true)]
    all: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl List {
    pub(super) fn run(self) -> Result<(), Error> {
        Selection::parse(&self.targets)?;
        let session = Session::new()?;
        let detail = if self.verbose { Detail::Connections } else { Detail::Usual };
        let apps = block_on(session.apps(&self.targets, detail))?;
        if apps.is_none() {
            output::quiet("no daemon is running");
        }
        let mut apps = apps.unwrap_or_default();
        if let Some(sort) = self.sort {
            sort.apply(&mut apps);
        }
        if self.json {
            return Ok(output::json(&shared(apps))?);
        }
        if self.mini {
            return Ok(output::answer(&mini(&apps, output::width(), output::colour()))?);
        }
        Ok(output::answer(&table(&apps, self.verbose))?)
    }
}

/// The few columns that fit beside something else.
fn mini(apps: &[AppView], width: Option<usize>, colour: bool) -> String {
    let column = |title, importance, right| Column { title, importance, right, cut: false };
    let mut table = Table::new(&[
        column("id", KEEP, false),
        Column { title: "name", importance: KEEP, right: false, cut: true },
        column("status", KEEP, false),
        column("cpu", 1, true),
        column("memory", 2, true),
    ]);
    for app in apps {
        table.row(vec![
            app.id.into(),
            app.name.as_str().into(),
            Cell::styled(human::status(app.status), human::status_style(app.status)),
            human::percent(app.cpu_percent).into(),
            human::bytes(app.memory_bytes).into(),
        ]);
    }
    table.render(width, colour)
}

/// Apps as they may be passed on: without the environments, where people keep their secrets.
pub(super) fn shared(mut apps: Vec<AppView>) -> Vec<AppView> {
    for app in &mut apps {
        app.spec.env.clear();
        app.spec.inherited.clear();
    }
    apps
}

/// The table of apps, and of their workers if `verbose`, as wide as the terminal.
pub(super) fn table(apps: &[AppView], verbose: bool) -> String {
    draw(apps, verbose, output::width(), output::colour())
}

fn draw(apps: &[AppView], verbose: bool, width: Option<usize>, colour: bool) -> String {
    let column = |title, importance, right| Column { title, importance, right, cut: false };
    let mut columns = vec![
        column("id", KEEP, false),
        Column { title: "name", importance: KEEP, right: false, cut: true },
        Column { title: "namespace", importance: 1, right: false, cut: true },
        column("mode", 4, false),
        column(if verbose { "pid" } else { "instances" }, 9, true),
        Column { title: "ports", importance: 6, right: false, cut: true },
        column(if verbose { "conns" } else { "policy" }, 2, verbose),
        column("↺", 7, true),
        column("status", KEEP, false),
        column("cpu", 3, true),
        column("memory", 5, true),
        column("uptime", 8, true),
    ];
    if apps.iter().all(|app| app.namespace == "default") {
        columns[2].importance = 0;
    }
    if verbose {
        // Connections given by the kernel program: unknown, and so in vain, in plain mode.
        let known = apps.iter().any(|app| app.mode == Mode::Kernel);
        columns.insert(7, column("selected", u8::from(known), true));
    }
    if verbose {
        columns.extend(counted::columns(apps));
    }
    // Only when somebody says something.
    let says = verbose && apps.iter().flat_map(|app| &app.workers).any(|w| w.status_text.is_some());
    if says {
        columns.push(Column { title: "says", importance: 4, right: false, cut: true });
    }
    // Only while it says something.
    let generations = apps.iter().any(human::in_transit);
    if generations {
        let after = if verbose { 10 } else { 9 };
        columns.insert(after, column("generation", KEEP, false));
    }
    let mut table = Table::new(&columns);
    let mut add = |mut row: Vec<Cell>, generation: Cell, word: Option<&str>| {
        if says {
            row.push(word.unwrap_or_default().into());
        }
        if generations {
            row.insert(if verbose { 10 } else { 9 }, generation);
        }
        table.row(row);
    };
    for app in apps {
        add(app_row(app, verbose), human::generation(app).into(), None);
        if verbose {
            for worker in &app.workers {
                let word = worker.status_text.as_deref();
                add(worker_row(app, worker), worker.generation.to_string().into(), word);
                for other in &worker.others {
                    let generation = other.generation.to_string().into();
                    add(other_row(app, worker, other), generation, None);
                }
            }
        }
    }
    let mut text = table.render(width, colour);
    if verbose {
        text.push_str(&counted::reasons(apps));
    }
    text
}

fn app_row(app: &AppView, verbose: bool) -> Vec<Cell> {
    let online = format!("{}/{}", app.online, app.instances);
    let all: u32 = app.workers.iter().filter_map(|worker| worker.connections).sum();
    let known = app.workers.iter().any(|worker| worker.connections.is_some());
    let connections = if known { all.to_string() } else { "-".to_owned() };
    // Like what was accepted: those that have gone included.
    let before = app.telemetry.as_ref().map(|telemetry| telemetry.selected);
    let selected = app.workers.iter().filter_map(|worker| worker.selected).reduce(|a, b| a + b);
    let selected = selected.map(|now| before.unwrap_or(now));
    let selected = selected.map_or_else(dash, |count| count.to_string());
    let mut row = vec![
        app.id.into(),
        Cell::styled(&app.name, if verbose { Style::new().bold() } else { Style::new() }),
        Cell::from(&app.namespace),
        mode(app.mode).into(),
        online.into(),
        ports(&app.ports).into(),
        if verbose { connections.into() } else { policy(app).into() },
        app.restarts.into(),
        Cell::styled(human::status(app.status), human::status_style(app.status)),
        human::percent(app.cpu_percent).into(),
        human::bytes(app.memory_bytes).into(),
        uptime(app.uptime_ms).into(),
    ];
    if verbose {
        row.insert(7, selected.into());
        let rates = app.workers.iter().filter_map(|worker| worker.connections_per_second);
        row.extend(counted::cells(app.telemetry.as_ref(), rates.reduce(|a, b| a + b)));
    }
    row
}

fn worker_row(app: &AppView, worker: &WorkerView) -> Vec<Cell> {
    let mut row = vec![
        format!("{}:{}", app.id, worker.instance).into(),
        format!("{}:{}", app.name, worker.instance).into(),
        "".into(),
        "".into(),
        worker.pid.map_or_else(dash, |pid| pid.to_string()).into(),
        "".into(),
        worker.connections.map_or_else(dash, |count| count.to_string()).into(),
        worker.selected.map_or_else(dash, |count| count.to_string()).into(),
        worker.restarts.into(),
        Cell::styled(human::status(worker.status), human::status_style(worker.status)),
        human::percent(worker.cpu_percent).into(),
        human::bytes(worker.memory_bytes).into(),
        uptime(worker.uptime_ms).into(),
    ];
    row.extend(counted::cells(worker.telemetry.as_ref(), worker.connections_per_second));
    row
}

/// A process beside a worker: its successor, or one that had its place.
fn other_row(app: &AppView, worker: &WorkerView, other: &OtherView) -> Vec<Cell> {
    let mut row = vec![Cell::from(""); 13 + counted::cells(None, None).len()];
    row[0] = format!("{}:{}", app.id, worker.instance).into();
    row[1] = format!("{}:{}", app.name, worker.instance).into();
    row[4] = other.pid.map_or_else(dash, |pid| pid.to_string()).into();
    row[9] = Cell::styled(human::status(other.status), human::status_style(other.status));
    row
}

fn dash() -> String {
    "-".to_owned()
}

/// The rule that workers are picked by. In plain mode it is that of the kernel, and not the policy `hash`.
fn policy(app: &AppView) -> String {
    match app.mode {
        Mode::Kernel => app.policy.clone(),
        Mode::Plain => "kernel's hash".to_owned(),
    }
}

/// The word for a mode.
pub(super) fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Kernel => "kernel",
        Mode::Plain => "plain",
    }
}

/// Ports in order, each once however many addresses it has: `80, 443, 53/udp`.
pub(super) fn ports(ports: &[PortView]) -> String {
    let mut numbers: Vec<_> =
        ports.iter().map(|port| (port.protocol, port.address.port())).collect();
    numbers.sort_unstable();
    numbers.dedup();
    if numbers.is_empty() {
        return "-".to_owned();
    }
    let texts = numbers.iter().map(|(protocol, number)| match protocol {
        Protocol::Tcp => number.to_string(),
        Protocol::Udp => format!("{number}/udp"),
    });
    texts.collect::<Vec<_>>().join(", ")
}

fn uptime(millis: Option<u64>) -> String {
    millis.map_or_else(|| "-".to_owned(), human::uptime)
}

#[cfg(test)]
mod tests {
    use super::{
        super::sample::{app, counted},
        *,
    };
    use crate::{
        api::message::{ReloadView, Stage, Status},
        id::Generation,
    };

    #[test]
    fn a_wide_terminal_shows_every_column() {
        insta::assert_snapshot!(draw(&[app()], false, None, false), @r"
        ┌────┬──────┬───────────┬────────┬───────────┬────────────┬─────────────┬───┬────────┬───────┬─────────┬────────┐
        │ id │ name │ namespace │ mode   │ instances │ ports      │ policy      │ ↺ │ status │   cpu │  memory │ uptime │
        ├────┼──────┼───────────┼────────┼───────────┼────────────┼─────────────┼───┼────────┼───────┼─────────┼────────┤
        │ 0  │ web  │ default   │ kernel │       1/2 │ 8080, 9090 │ round-robin │ 3 │ online │ 12.3% │ 52.4 MB │     1h │
        └────┴──────┴───────────┴────────┴───────────┴────────────┴─────────────┴───┴────────┴───────┴─────────┴────────┘
        ");
    }

    #[test]
    fn eighty_columns_are_enough_for_what_matters() {
        let text = draw(&[app()], false, Some(80), false);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        insta::assert_snapshot!(text, @r"
        ┌────┬──────┬────────┬───────────┬────────────┬───┬────────┬─────────┬────────┐
        │ id │ name │ mode   │ instances │ ports      │ ↺ │ status │  memory │ uptime │
        ├────┼──────┼────────┼───────────┼────────────┼───┼────────┼─────────┼────────┤
        │ 0  │ web  │ kernel │       1/2 │ 8080, 9090 │ 3 │ online │ 52.4 MB │     1h │
        └────┴──────┴────────┴───────────┴────────────┴───┴────────┴─────────┴────────┘
        ");
    }

    #[test]
    fn a_mini_list_has_five_columns() {
        insta::assert_snapshot!(mini(&[app()], None, false), @r"
        ┌────┬──────┬────────┬───────┬─────────┐
        │ id │ name │ status │   cpu │  memory │
        ├────┼──────┼────────┼───────┼─────────┤
        │ 0  │ web  │ online │ 12.3% │ 52.4 MB │
        └────┴──────┴────────┴───────┴─────────┘
        ");
    }

    #[test]
    fn verbose_shows_workers_with_pid_and_connections() {
        insta::assert_snapshot!(draw(&[counted()], true, None, false), @r"
        ┌─────┬───────┬───────────┬────────┬──────┬────────────┬───────┬──────────┬────┬─────────┬───────┬─────────┬────────┬────────┬───────┬──────────┬──────────┬─────────┬───────┬──────────┬──────────────────────┐
        │ id  │ name  │ namespace │ mode   │  pid │ ports      │ conns │ selected │  ↺ │ status  │   cpu │  memory │ uptime │ conn/s │ queue │ accepted │       in │     out │   rtt │ wait p99 │ says                 │
        ├─────┼───────┼───────────┼────────┼──────┼────────────┼───────┼──────────┼────┼─────────┼───────┼─────────┼────────┼────────┼───────┼──────────┼──────────┼─────────┼───────┼──────────┼──────────────────────┤
        │ 0   │ web   │ default   │ kernel │  1/2 │ 8080, 9090 │     7 │      240 │  3 │ online  │ 12.3% │ 52.4 MB │     1h │    3.2 │  4/31 │      236 │ 106.1 KB │ 14.6 MB │ 24 µs │   1.0 ms │                      │
        │ 0:0 │ web:0 │           │        │ 4001 │            │     7 │      120 │  0 │ online  │ 12.3% │ 52.4 MB │     1h │    3.2 │  2/31 │      118 │  53.0 KB │  7.3 MB │ 24 µs │   1.0 ms │ 7 requests in flight │
        │ 0:1 │ web:1 │           │        │    - │            │     - │      120 │ 16 │ errored │ 12.3% │ 52.4 MB │      - │      – │     – │        – │        – │       – │     – │        – │                      │
        └─────┴───────┴───────────┴────────┴──────┴────────────┴───────┴──────────┴────┴─────────┴───────┴─────────┴────────┴────────┴───────┴──────────┴──────────┴─────────┴───────┴──────────┴──────────────────────┘
        –: guarded: the app has no guard
        ");
    }

    #[test]
    fn a_reload_shows_both_generations_and_a_canary_its_share() {
        let mut app = app();
        app.reload = Some(ReloadView {
            generation: Generation(2),
            stage: Stage::Canary,
            canary: Some("5%".to_owned()),
            who: "root (pid 1)".to_owned(),
            began_ms: 0,
        });
        let status = Status::Ready;
        app.workers[0].others =
            vec![OtherView { pid: Some(4003), generation: Generation(2), status }];
        assert!(draw(&[app.clone()], false, Some(80), false).contains("1 → 2, canary 5%"));
        let text = draw(&[app.clone()], true, None, false);
        let successor = text.lines().find(|line| line.contains("4003")).unwrap();
        let cells: Vec<_> = successor.split('│').map(str::trim).collect();
        assert_eq!(cells[1..4], ["0:0", "web:0", ""]);
        assert_eq!(cells[10..12], ["ready", "2"]);
        app.reload.as_mut().unwrap().stage = Stage::Back;
        assert_eq!(human::generation(&app), "1 ← 2");
    }

    #[test]
    fn what_an_app_was_sent_includes_what_was_sent_to_workers_that_have_gone() {
        let mut app = counted();
        app.telemetry.as_mut().unwrap().selected = 6524;
        let text = draw(&[app.clone()], true, None, false);
        let cells: Vec<_> = text.lines().nth(3).unwrap().split('│').map(str::trim).collect();
        assert_eq!((cells[2], cells[8]), ("web", "6524"));
        app.workers.iter_mut().for_each(|worker| worker.selected = None);
        let text = draw(&[app], true, None, false);
        let cells: Vec<_> = text.lines().nth(3).unwrap().split('│').map(str::trim).collect();
        assert_eq!(cells[8], "-", "plain mode does not count it");
    }

    #[test]
    fn the_hash_of_plain_mode_is_not_taken_for_a_policy() {
        let mut app = app();
        (app.mode, app.policy) = (Mode::Plain, "hash".to_owned());
        assert!(draw(&[app], false, None, false).contains(" kernel's hash "));
    }

    #[test]
    fn what_is_shared_has_no_environment() {
        let text = serde_json::to_string(&shared(vec![app()])).unwrap();
        assert!(!text.contains("secret"), "{text}");
    }
}
