//! What was counted, as people read it: for `list -v` and `describe`.

use std::fs;

use super::{
    human,
    selection::Selection,
    table::{Cell, Column, KEEP, Table},
};
use crate::{
    api::message::{AppView, PortView},
    datapath::{
        Protocol,
        telemetry::{GroupTelemetry, Histogram, Telemetry},
    },
};

/// Stands for what is not known.
pub(super) const UNKNOWN: &str = "–";

/// How wide a distribution is drawn.
const BAR: usize = 16;

/// Columns of a list that show what was counted; the least important one of those nobody knows anything of goes first.
pub(super) fn columns(apps: &[AppView]) -> Vec<Column> {
    let all = apps.iter().filter_map(|app| app.telemetry.as_ref());
    let known = |is: fn(&Telemetry) -> bool| all.clone().any(is);
    let column = |title, importance: u8, known: bool| {
        let importance = if known { importance } else { 0 };
        Column { title, importance, right: true, cut: false }
    };
    let kernel = apps.iter().any(|app| app.workers.iter().any(|worker| worker.selected.is_some()));
    vec![
        column("conn/s", 2, kernel),
        column("queue", 3, known(|t| t.queued.is_some())),
        column("accepted", 1, known(|t| t.accepted.is_some())),
        column("in", 1, known(|t| t.bytes_in.is_some())),
        column("out", 1, known(|t| t.bytes_out.is_some())),
        column("rtt", 1, known(|t| t.round_trip.is_some())),
        column("wait p99", 2, known(|t| t.wait.is_some())),
    ]
}

/// The cells of those columns.
pub(super) fn cells(telemetry: Option<&Telemetry>, per_second: Option<f64>) -> Vec<Cell> {
    let known = telemetry.cloned().unwrap_or_default();
    let share = |histogram: &Option<Histogram>, share| {
        let quantile = histogram.as_ref().and_then(|histogram| histogram.quantile(share));
        quantile.map_or_else(unknown, micros)
    };
    [
        rate(per_second),
        queue(&known),
        count(known.accepted),
        bytes(known.bytes_in),
        bytes(known.bytes_out),
        share(&known.round_trip, 0.5),
        share(&known.wait, 0.99),
    ]
    .into_iter()
    .map(Cell::from)
    .collect()
}

/// Why something is not known, each reason once; empty when all is.
pub(super) fn reasons(apps: &[AppView]) -> String {
    let workers = apps.iter().flat_map(|app| &app.workers);
    let of_workers = workers.filter_map(|worker| worker.telemetry.as_ref());
    let all = apps.iter().filter_map(|app| app.telemetry.as_ref()).chain(of_workers);
    let mut reasons: Vec<&str> = all.filter_map(|t| t.missing.as_deref()).collect();
    reasons.sort_unstable();
    reasons.dedup();
    let lines = reasons.into_iter().map(|reason| format!("{UNKNOWN}: {}\n", human::plain(reason)));
    lines.collect()
}

/// Everything that was counted for an app, its workers and its ports.
pub(super) fn sections(
    app: &AppView,
    selection: &Selection,
    width: Option<usize>,
    colour: bool,
) -> String {
    drawn(app, selection, width, colour, counts_runs())
}

/// Whether the kernel counts what its programs take; what it has counted before is no picture of now.
fn counts_runs() -> bool {
    fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled").is_ok_and(|value| value.trim() != "0")
}

fn drawn(
    app: &AppView,
    selection: &Selection,
    width: Option<usize>,
    colour: bool,
    counts_runs: bool,
) -> String {
    let Some(total) = &app.telemetry else { return String::new() };
    let column = |title, importance| Column { title, importance, right: true, cut: false };
    let mut traffic = Table::new(&[
        column("traffic", KEEP),
        column("live", KEEP),
        column("queue", 9),
        column("selected", 8),
        column("conn/s", 4),
        column("accepted", 7),
        column("moved in", 2),
        column("moved out", 2),
        column("dropped", 5),
        column("guarded", 3),
        column("in", 6),
        column("out", 6),
    ]);
    let mut times = Table::new(&[
        Column { title: "times", importance: KEEP, right: true, cut: false },
        Column { title: "of", importance: KEEP, right: false, cut: false },
        column("count", 1),
        column("p50", KEEP),
        column("p90", KEEP),
        column("p99", KEEP),
        Column { title: "distribution", importance: 2, right: false, cut: false },
    ]);
    let meant = app.workers.iter().filter(|worker| selection.means(app, worker));
    let mut known = false;
    for worker in meant {
        let Some(telemetry) = &worker.telemetry else { continue };
        let kernel = worker.selected.is_some();
        let name = worker.instance.to_string();
        traffic.row(row(&name, telemetry, kernel, worker.connections_per_second));
        known |= spread(&mut times, &name, telemetry);
    }
    let kernel = app.workers.iter().any(|worker| worker.selected.is_some());
    let rates = app.workers.iter().filter_map(|worker| worker.connections_per_second);
    traffic.row(row("all", total, kernel, rates.reduce(|a, b| a + b)));
    known |= spread(&mut times, "all", total);
    let mut text = traffic.render(width, colour);
    if known {
        text.push_str(&times.render(width, colour));
    }
    text.push_str(&ports(&app.ports, width, colour, counts_runs));
    text
}

fn row(name: &str, telemetry: &Telemetry, kernel: bool, per_second: Option<f64>) -> Vec<Cell> {
    let t = telemetry;
    let counted = |number| count(kernel.then_some(number));
    [
        name.to_owned(),
        count(t.live),
        queue(t),
        counted(t.selected),
        rate(per_second),
        count(t.accepted),
        counted(t.migrated_in),
        count(t.migrated_out),
        count(t.dropped),
        count(t.guarded),
        bytes(t.bytes_in),
        bytes(t.bytes_out),
    ]
    .into_iter()
    .map(Cell::from)
    .collect()
}

/// Adds rows for the times of a worker; whether there were any.
fn spread(table: &mut Table, name: &str, telemetry: &Telemetry) -> bool {
    let mut any = false;
    for (what, histogram) in [
        ("waiting for accept", &telemetry.wait),
        ("round trip", &telemetry.round_trip),
        ("connection", &telemetry.lifetime),
    ] {
        let Some(histogram) = histogram.as_ref().filter(|histogram| histogram.count() > 0) else {
            continue;
        };
        any = true;
        let share = |share| histogram.quantile(share).map_or_else(unknown, micros);
        table.row(vec![
            name.into(),
            what.into(),
            histogram.count().into(),
            share(0.5).into(),
            share(0.9).into(),
            share(0.99).into(),
            bar(histogram).into(),
        ]);
    }
    any
}

fn ports(ports: &[PortView], width: Option<usize>, colour: bool, counts_runs: bool) -> String {
    let counted: Vec<_> =
        ports.iter().filter_map(|port| Some((port, port.telemetry.as_ref()?))).collect();
    if counted.is_empty() {
        return String::new();
    }
    let column = |title, importance| Column { title, importance, right: true, cut: false };
    let unfollowed = counted.iter().any(|(_, telemetry)| telemetry.unfollowed > 0);
    let mut columns = vec![
        Column { title: "port", importance: KEEP, right: false, cut: false },
        column("drawn again", 2),
        column("waited", 6),
        column("refused", 7),
        column("shed", 5),
        column("hashed", 3),
        column("strays", 1),
        column("decision", 4),
    ];
    if unfollowed {
        // Only programs of the user's have answers that nobody can follow.
        columns.push(column("unfollowed", 6));
    }
    let mut table = Table::new(&columns);
    for (port, telemetry) in counted {
        let protocol = match port.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        let GroupTelemetry {
            misses,
            waited,
            refused,
            shed,
            other,
            hashed,
            unfollowed: of_user,
            runs,
        } = telemetry;
        // Nanoseconds of one.
        let decision = runs.filter(|_| counts_runs).and_then(|(runs, time)| time.checked_div(runs));
        let mut row = vec![
            format!("{protocol} {}", port.address).into(),
            misses.into(),
            waited.into(),
            refused.into(),
            shed.into(),
            hashed.into(),
            other.into(),
            decision.map_or_else(unknown, |time| format!("{time} ns")).into(),
        ];
        if columns.len() > row.len() {
            row.push((*of_user).into());
        }
        table.row(row);
    }
    table.render(width, colour)
}

fn unknown() -> String {
    UNKNOWN.to_owned()
}

fn count(number: Option<u64>) -> String {
    number.map_or_else(unknown, |number| number.to_string())
}

fn bytes(number: Option<u64>) -> String {
    number.map_or_else(unknown, human::bytes)
}

fn rate(per_second: Option<f64>) -> String {
    per_second.map_or_else(unknown, |rate| {
        if rate >= 10.0 { format!("{rate:.0}") } else { format!("{rate:.1}") }
    })
}

/// Now, and the most there were; and whether connections are kept away because nothing leaves it.
fn queue(telemetry: &Telemetry) -> String {
    let length = match (telemetry.queued, telemetry.queued_peak) {
        (None, None) => unknown(),
        (now, Some(peak)) => format!("{}/{peak}", count(now)),
        (now, None) => count(now),
    };
    if telemetry.stalled == Some(true) { format!("{length} stalled") } else { length }
}

/// `12 µs`, `1.2 ms`, `3.4 s`, `5m`: two figures are enough, because they are estimates.
fn micros(time: u64) -> String {
    let tenths = |unit: u64, name: &str| {
        let (whole, rest) = (time / unit, time % unit * 10 / unit);
        if whole >= 10 { format!("{whole} {name}") } else { format!("{whole}.{rest} {name}") }
    };
    match time {
        0..1_000 => format!("{time} µs"),
        1_000..1_000_000 => tenths(1_000, "ms"),
        1_000_000..60_000_000 => tenths(1_000_000, "s"),
        _ => human::uptime(time / 1000),
    }
}

/// From the least value to the largest, each step of the same factor.
fn bar(histogram: &Histogram) -> String {
    const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let buckets = &histogram.buckets;
    let (Some(first), Some(last)) =
        (buckets.iter().position(|count| *count > 0), buckets.iter().rposition(|count| *count > 0))
    else {
        return String::new();
    };
    // So many buckets share a step that it is not too wide.
    let share = (last - first + 1).div_ceil(BAR);
    let steps: Vec<u64> =
        buckets[first..=last].chunks(share).map(|chunk| chunk.iter().sum()).collect();
    let most = steps.iter().copied().max().unwrap_or(1).max(1);
    let drawn = steps.iter().map(|count| {
        match usize::try_from(u128::from(*count) * 8 / u128::from(most)) {
            _ if *count == 0 => ' ',
            Ok(height) => STEPS[height.saturating_sub(1).min(7)],
            Err(_) => STEPS[7],
        }
    });
    let drawn: String = drawn.collect();
    let bound = |n: usize| u32::try_from(n).ok().and_then(|n| 1_u64.checked_shl(n));
    let low = first.checked_sub(1).map_or(0, |n| bound(n).unwrap_or(u64::MAX));
    format!("{} {drawn} {}", micros(low), micros(bound(last).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::{super::sample::counted, *};

    #[test]
    fn everything_that_was_counted_is_shown() {
        let all = Selection::parse(&[]).unwrap();
        insta::assert_snapshot!(drawn(&counted(), &all, None, false, true));
    }

    #[test]
    fn how_long_decisions_took_is_shown_only_while_the_kernel_counts_that() {
        let all = Selection::parse(&[]).unwrap();
        assert!(drawn(&counted(), &all, None, false, true).contains(" 82 ns "));
        assert!(!drawn(&counted(), &all, None, false, false).contains(" ns "));
    }

    #[test]
    fn what_is_not_known_is_a_dash_and_its_reason_is_said_once() {
        let mut app = counted();
        let nothing = Telemetry {
            missing: Some("only kernel mode counts".to_owned()),
            ..Telemetry::default()
        };
        app.telemetry = Some(nothing.clone());
        for worker in &mut app.workers {
            (worker.selected, worker.connections_per_second) = (None, None);
            worker.telemetry = Some(nothing.clone());
        }
        app.ports.iter_mut().for_each(|port| port.telemetry = None);
        let all = Selection::parse(&[]).unwrap();
        insta::assert_snapshot!(format!(
            "{}{}",
            drawn(&app, &all, None, false, true),
            reasons(&[app])
        ));
    }

    #[test]
    fn times_have_two_figures() {
        for (time, text) in [
            (0, "0 µs"),
            (999, "999 µs"),
            (1_250, "1.2 ms"),
            (64_000, "64 ms"),
            (3_490_000, "3.4 s"),
            (300_000_000, "5m"),
        ] {
            assert_eq!(micros(time), text);
        }
    }

    #[test]
    fn a_distribution_is_never_wide() {
        let histogram = |buckets: &[u64]| Histogram { buckets: buckets.to_vec(), sum: 0 };
        assert_eq!(bar(&histogram(&[])), "");
        assert_eq!(bar(&histogram(&[0, 0, 0])), "");
        assert_eq!(bar(&histogram(&[5])), "0 µs █ 1 µs");
        assert_eq!(bar(&histogram(&[0, 8, 0, 1, 4])), "1 µs █ ▁▄ 16 µs");
        let wide = bar(&histogram(&[u64::MAX / 64; 64]));
        assert!(wide.chars().count() < BAR + 24, "{wide}");
    }
}
