//! Going on: what is there already has to belong to the same experiment, or it would be lost from its results.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;

use crate::{point::Point, refusal::Refusal, results::Record};

/// Whether all that was measured in a folder belongs to these points. What failed there is nothing to lose.
///
/// # Errors
/// Names what is different now.
pub(crate) fn check(raw: &Path, points: &[Point]) -> Result<(), Refusal> {
    let names: BTreeSet<String> = points.iter().map(Point::file_name).collect();
    let others = fs::read_dir(raw)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|file| !names.contains(&*file.file_name().to_string_lossy()))
        .filter_map(|file| serde_json::from_slice(&fs::read(file.path()).ok()?).ok())
        .filter(|record: &Record| record.verdict.outcome().is_some());
    let others: Vec<Point> = others.map(|record| record.point).collect();
    let Some(first) = others.first() else { return Ok(()) };
    Err(Refusal::usage(format!(
        "{} points in {} are not of this experiment: {}",
        others.len(),
        raw.display(),
        difference(first, points)
    ))
    .hint("--out is another folder, and with the experiment as it was --resume goes on"))
}

/// What a point has that none of the others has.
fn difference(point: &Point, points: &[Point]) -> String {
    let (was, are) = (facts(point), points.iter().map(facts).collect::<Vec<_>>());
    let differs = |(name, value): &&(String, Value)| {
        !are.iter().flatten().any(|(other, now)| other == name && now == value)
    };
    let changed: Vec<String> = was
        .iter()
        .filter(differs)
        .map(|(name, value)| {
            let mut now: Vec<String> = Vec::new();
            for (_, value) in are.iter().flatten().filter(|(other, _)| other == name) {
                let shown = shown(value);
                if !now.contains(&shown) {
                    now.push(shown);
                }
            }
            format!("`{name}` was {}, and is {}", shown(value), now.join(", "))
        })
        .collect();
    if changed.is_empty() { "other lists are combined".to_owned() } else { changed.join("; ") }
}

/// All that a point is, by the names that experiments have for it.
fn facts(point: &Point) -> Vec<(String, Value)> {
    let Ok(Value::Object(all)) = serde_json::to_value(point) else { return Vec::new() };
    let mut facts = Vec::new();
    for (name, value) in all {
        match value {
            Value::Object(parts) => facts.extend(parts),
            // It follows from the load.
            _ if name == "rate" => {}
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => facts.push((name, value)),
        }
    }
    facts
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "none".to_owned(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{experiment::Experiment, matrix, outcome::Tally, span::Span, verdict::Verdict};

    #[test]
    fn what_was_measured_is_not_left_out_after_the_experiment_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let experiment = Experiment::default();
        let points = matrix::points(&experiment).unwrap();
        check(folder.path(), &points).unwrap();
        for point in &points {
            keep(
                folder.path(),
                point,
                Verdict::Measured(Box::new(Tally::new(0, 1).outcome(4, 1, 1.0))),
            );
        }
        check(folder.path(), &points).unwrap();
        let more = Experiment { seeds: vec![1, 2, 3, 4], ..experiment.clone() };
        check(folder.path(), &matrix::points(&more).unwrap()).unwrap();

        let shorter = Experiment { duration: Span::millis(5_000), ..experiment.clone() };
        let fewer = Experiment { seeds: vec![1, 2], ..experiment };
        for (other, said) in [
            (shorter, "9 points"),
            (fewer.clone(), "3 points"),
            (fewer, "`seed` was 3, and is 1, 2"),
        ] {
            let refused = check(folder.path(), &matrix::points(&other).unwrap()).unwrap_err();
            assert!(refused.message.contains(said), "{}", refused.message);
            assert!(refused.hint.unwrap().contains("--out"));
        }
    }

    #[test]
    fn what_failed_is_nothing_to_lose() {
        let folder = tempfile::tempdir().unwrap();
        let experiment = Experiment::default();
        keep(
            folder.path(),
            &matrix::points(&experiment).unwrap()[0],
            Verdict::Failed("no such app".to_owned()),
        );
        let other = Experiment { app: Some("app".to_owned()), ..experiment };
        check(folder.path(), &matrix::points(&other).unwrap()).unwrap();
    }

    fn keep(raw: &Path, point: &Point, verdict: Verdict) {
        let record = Record {
            format: crate::results::FORMAT,
            version: String::new(),
            date: String::new(),
            machine: crate::machine::Machine::here(),
            point: point.clone(),
            verdict,
        };
        let text = serde_json::to_vec(&record).unwrap();
        fs::write(raw.join(point.file_name()), text).unwrap();
    }
}
