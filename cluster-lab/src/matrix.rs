//! The matrix: every combination of an experiment's lists, in the order in which they are run.

use crate::{
    experiment::Experiment,
    fault::Fault,
    point::{Cell, Point, Setup},
    refusal::Refusal,
};

/// All points. One seed after the other, so that an interrupted experiment has all of its matrix; and within
/// a cell the policies directly after each other, in another order with each seed, so that what changes on the
/// machine changes for all of them.
///
/// # Errors
/// When a distribution cannot be made ready.
pub fn points(experiment: &Experiment) -> Result<Vec<Point>, Refusal> {
    let cells = cells(experiment);
    let setup = setup(experiment);
    let mut points = Vec::new();
    for (turn, seed) in experiment.seeds.iter().enumerate() {
        for cell in &cells {
            let mean = cell.service.source()?.mean();
            let able = f64::from(cell.workers) / mean;
            let rate = cell.rate.unwrap_or_else(|| cell.load.unwrap_or_default() * able);
            let mut order: Vec<_> = experiment.policies.iter().collect();
            let first = turn % order.len();
            order.rotate_left(first);
            for policy in order {
                points.push(Point {
                    cell: cell.clone(),
                    policy: policy.clone(),
                    seed: *seed,
                    rate,
                    setup: setup.clone(),
                });
            }
        }
    }
    Ok(points)
}

/// All conditions.
pub fn cells(experiment: &Experiment) -> Vec<Cell> {
    let loads: Vec<(Option<f64>, Option<f64>)> = if experiment.rate.is_empty() {
        experiment.load.iter().map(|load| (Some(*load), None)).collect()
    } else {
        experiment.rate.iter().map(|rate| (None, Some(*rate))).collect()
    };
    let faults: Vec<Fault> =
        experiment.fault.iter().map(|fault| fault.clone().within(experiment.duration)).collect();
    let first = |workers: &u32| Cell {
        workers: *workers,
        load: None,
        rate: None,
        service: experiment.service[0].clone(),
        kind: experiment.kind[0],
        reuse: 1,
        fault: Fault::default(),
        link: experiment.link[0],
        ip: experiment.ip[0],
        syncookies: 1,
    };
    let cells = experiment.workers.iter().map(first).collect();
    let cells = times(cells, &experiment.service, |cell, it| cell.service = it.clone());
    let cells = times(cells, &experiment.kind, |cell, it| cell.kind = *it);
    let cells = times(cells, &experiment.reuse, |cell, it| cell.reuse = *it);
    let cells = times(cells, &faults, |cell, it| cell.fault = it.clone());
    let cells = times(cells, &experiment.link, |cell, it| cell.link = *it);
    let cells = times(cells, &experiment.ip, |cell, it| cell.ip = *it);
    let cells = times(cells, &experiment.syncookies, |cell, it| cell.syncookies = *it);
    times(cells, &loads, |cell, (load, rate)| (cell.load, cell.rate) = (*load, *rate))
}

/// Each cell with each value.
fn times<T>(cells: Vec<Cell>, values: &[T], set: impl Fn(&mut Cell, &T)) -> Vec<Cell> {
    let mut all = Vec::with_capacity(cells.len() * values.len());
    for cell in &cells {
        for value in values {
            let mut cell = cell.clone();
            set(&mut cell, value);
            all.push(cell);
        }
    }
    all
}

fn setup(experiment: &Experiment) -> Setup {
    let it = experiment.clone();
    Setup {
        arrivals: it.arrivals,
        duration: it.duration,
        warmup: it.warmup,
        patience: it.patience,
        clients: it.clients,
        generators: it.generators,
        pin: it.pin,
        pin_workers: it.pin_workers,
        max_lag: it.max_lag,
        backlog: it.backlog,
        port: it.port,
        app: it.app,
        path: it.path,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_combination_is_run_once() {
        let experiment = Experiment {
            workers: vec![2, 4],
            load: vec![0.5, 0.7, 0.9],
            reuse: vec![1, 10],
            ..Experiment::default()
        };
        let points = points(&experiment).unwrap();
        assert_eq!(points.len(), 2 * 3 * 2 * 3 * 3);
        let names: BTreeSet<String> = points.iter().map(Point::file_name).collect();
        assert_eq!(names.len(), points.len());
    }

    #[test]
    fn a_point_that_was_written_is_found_again() {
        let experiment = Experiment {
            fault: vec![Fault::default(), "slow".parse().unwrap(), "reload".parse().unwrap()],
            load: vec![0.1, 1.0 / 3.0],
            ..Experiment::default()
        };
        for point in points(&experiment).unwrap() {
            let text = serde_json::to_string(&point).unwrap();
            assert_eq!(serde_json::from_str::<Point>(&text).unwrap(), point);
        }
    }

    #[test]
    fn policies_take_turns_in_being_first() {
        let points = points(&Experiment::default()).unwrap();
        let order: Vec<&str> = points.iter().map(|point| point.policy.name.as_str()).collect();
        assert_eq!(
            order,
            ["none", "default", "shared", "default", "shared", "none", "shared", "none", "default"]
        );
    }

    #[test]
    fn the_rate_is_a_share_of_what_all_workers_can_do() {
        let points = points(&Experiment::default()).unwrap();
        assert!((points[0].rate - 1_400.0).abs() < 1e-6, "{}", points[0].rate);
    }
}
