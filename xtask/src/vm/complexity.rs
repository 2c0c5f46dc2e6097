//! Complexity: how many instructions each kernel program has, and how many of them each verifier walked.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use comfy_table::{Cell, CellAlignment, Table, presets::UTF8_HORIZONTAL_ONLY};
use serde::{Deserialize, Serialize};

use crate::step;

/// What was recorded, relative to the workspace: beside the objects that it is about.
const RECORD: &str = "cluster-ebpf/object/complexity.json";
/// Percent by which a number may grow before somebody has to say that this is meant.
const GROWTH: u32 = 20;
/// Numbers this small grow by half when an argument is added.
const SMALL: u32 = 200;
/// Most instructions that a verifier may walk: half of where Linux gives up (`BPF_COMPLEXITY_LIMIT_INSNS`, a million).
const MOST_PROCESSED: u32 = 500_000;

/// A program of an object, as the kernel took it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Program {
    /// `object/program`
    pub(super) name: String,
    /// What it cost, or what the kernel said.
    pub(super) cost: Result<Cost, String>,
}

/// What a program costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cost {
    /// Instructions as loaded.
    pub(super) instructions: u32,
    /// Instructions that the verifier walked, over all paths.
    pub(super) processed: u32,
    /// Most states that it kept at one time.
    pub(super) states: u32,
}

/// By kernel series (`6.1`), by program; none for a program that the kernel does not take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record(BTreeMap<String, BTreeMap<String, Option<Cost>>>);

/// One program on one kernel, then and now.
struct Row {
    kernel: String,
    program: String,
    /// None when nothing was recorded, or that the kernel does not take it.
    before: Option<Cost>,
    now: Option<Cost>,
    /// Why it is no good.
    problem: Option<String>,
}

/// Everything that was measured, beside what was recorded.
#[derive(Default)]
pub(super) struct Comparison {
    rows: Vec<Row>,
    /// Kernels of which there is no record.
    unknown: Vec<String>,
}

impl Record {
    /// What is checked in; empty when nothing is.
    pub(super) fn read() -> anyhow::Result<Self> {
        let path = Self::path();
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = fs::read_to_string(&path)?;
        serde_json::from_str(&text).with_context(|| format!("failed to read {}", path.display()))
    }

    /// Writes what is to be checked in.
    pub(super) fn write(&self) -> anyhow::Result<PathBuf> {
        let path = Self::path();
        fs::write(&path, format!("{}\n", serde_json::to_string_pretty(self)?))?;
        Ok(path)
    }

    fn path() -> PathBuf {
        step::root().join(Path::new(RECORD))
    }

    /// Takes over what was measured on a kernel.
    pub(super) fn replace(&mut self, release: &str, programs: &[Program]) {
        let programs =
            programs.iter().map(|program| (program.name.clone(), program.cost.clone().ok()));
        self.0.insert(series(release), programs.collect());
    }
}

impl Comparison {
    /// Compares what was measured on a kernel.
    pub(super) fn add(&mut self, record: &Record, release: &str, programs: &[Program]) {
        let kernel = series(release);
        let recorded = record.0.get(&kernel);
        if recorded.is_none() {
            self.unknown.push(kernel.clone());
        }
        for Program { name, cost } in programs {
            let before = recorded.and_then(|recorded| recorded.get(name)).copied();
            let problem = match (recorded.is_some(), before, cost) {
                (_, Some(None), Err(_)) => None,
                (_, _, Err(error)) => Some(format!("is not taken: {error}")),
                (true, None, Ok(_)) => Some("is not recorded".to_owned()),
                (_, before, Ok(now)) => now.problem(before.flatten()),
            };
            let (kernel, program, now) = (kernel.clone(), name.clone(), cost.clone().ok());
            let before = before.flatten();
            self.rows.push(Row { kernel, program, before, now, problem });
        }
        let gone = recorded
            .into_iter()
            .flatten()
            .filter(|(name, _)| !programs.iter().any(|program| program.name == **name));
        for (program, before) in gone {
            let problem = Some("is recorded and not there any more".to_owned());
            let (kernel, program) = (kernel.clone(), program.clone());
            self.rows.push(Row { kernel, program, before: *before, now: None, problem });
        }
    }

    /// What is no good.
    pub(super) fn problems(&self) -> Vec<String> {
        let say = |row: &Row| {
            let problem = row.problem.as_ref()?;
            Some(format!("{} on {}: {problem}", row.program, row.kernel))
        };
        self.rows.iter().filter_map(say).collect()
    }

    /// For people.
    pub(super) fn show(&self) -> String {
        let mut table = Table::new();
        table.load_preset(UTF8_HORIZONTAL_ONLY);
        table.set_header(["kernel", "program", "instructions", "walked", "states", ""]);
        for row in &self.rows {
            let before = row.before;
            let number = |of: fn(&Cost) -> u32| {
                let text = match (before.as_ref().map(of), row.now.as_ref().map(of)) {
                    (Some(before), Some(now)) if before != now => format!("{before} → {now}"),
                    (_, Some(now)) => now.to_string(),
                    (Some(before), None) => format!("{before} → –"),
                    (None, None) => "–".to_owned(),
                };
                Cell::new(text).set_alignment(CellAlignment::Right)
            };
            let problem = row.problem.as_deref().unwrap_or("");
            let problem = problem.lines().next().unwrap_or_default();
            table.add_row([
                Cell::new(&row.kernel),
                Cell::new(&row.program),
                number(|cost| cost.instructions),
                number(|cost| cost.processed),
                number(|cost| cost.states),
                Cell::new(problem.chars().take(60).collect::<String>()),
            ]);
        }
        if self.unknown.is_empty() {
            return table.to_string();
        }
        let unknown = self.unknown.join(", ");
        format!("{table}\nnothing is recorded of {unknown}: compared with the bounds alone")
    }
}

impl Cost {
    /// Why it is too much.
    fn problem(&self, before: Option<Self>) -> Option<String> {
        if self.processed > MOST_PROCESSED {
            return Some(format!(
                "the verifier walks {}, more than {MOST_PROCESSED}",
                self.processed
            ));
        }
        let before = before?;
        let grown = |what: &str, before: u32, now: u32| {
            let limit = (before + before / 100 * GROWTH + before % 100 * GROWTH / 100).max(SMALL);
            (now > limit).then(|| format!("{what} grew by more than {GROWTH} %: {before} to {now}"))
        };
        grown("instructions", before.instructions, self.instructions)
            .or_else(|| grown("instructions walked", before.processed, self.processed))
    }
}

/// `6.1` of `6.1.0-56-cloud-amd64`.
pub(super) fn series(release: &str) -> String {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).take(2);
    format!("{}.{}", numbers.next().unwrap_or("0"), numbers.next().unwrap_or("0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_the_first_two_numbers() {
        assert_eq!(series("6.1.0-56-cloud-amd64"), "6.1");
        assert_eq!(series("7.2.13+deb14-cloud-amd64"), "7.2");
        assert_eq!(series("6.18-rc1"), "6.18");
    }

    #[test]
    fn a_jump_is_a_problem_and_a_step_is_none() {
        let record = record(&[("select/cluster_select", Some(cost(1000)))]);
        assert_eq!(compare(&record, &[("select/cluster_select", Ok(cost(1200)))]), [""; 0]);
        let problems = compare(&record, &[("select/cluster_select", Ok(cost(1201)))]);
        assert_eq!(
            problems,
            [
                "select/cluster_select on 6.1: instructions walked grew by more than 20 %: 1000 to 1201"
            ]
        );
    }

    #[test]
    fn a_bound_holds_whatever_was_recorded() {
        let record = record(&[("a", Some(cost(450_000)))]);
        assert_eq!(compare(&record, &[("a", Ok(cost(500_000)))]).len(), 0);
        assert_eq!(compare(&record, &[("a", Ok(cost(500_001)))]).len(), 1);
        assert_eq!(compare(&Record::default(), &[("a", Ok(cost(500_001)))]).len(), 1);
        assert_eq!(compare(&Record::default(), &[("a", Ok(cost(500_000)))]).len(), 0);
    }

    #[test]
    fn small_programs_may_grow() {
        let record = record(&[("a", Some(cost(20)))]);
        assert_eq!(compare(&record, &[("a", Ok(cost(200)))]).len(), 0);
        assert_eq!(compare(&record, &[("a", Ok(cost(201)))]).len(), 1);
    }

    #[test]
    fn what_a_kernel_refuses_is_a_problem_unless_it_always_did() {
        let record = record(&[("a", None), ("b", Some(cost(10)))]);
        let refused = || Err("no".to_owned());
        assert_eq!(compare(&record, &[("a", refused()), ("b", Ok(cost(10)))]), [""; 0]);
        assert_eq!(
            compare(&record, &[("a", refused()), ("b", refused())]),
            ["b on 6.1: is not taken: no"]
        );
    }

    #[test]
    fn programs_that_come_and_go_have_to_be_recorded() {
        let record = record(&[("a", Some(cost(10)))]);
        assert_eq!(
            compare(&record, &[("b", Ok(cost(10)))]),
            ["b on 6.1: is not recorded", "a on 6.1: is recorded and not there any more"]
        );
    }

    fn cost(processed: u32) -> Cost {
        Cost { instructions: 10, processed, states: 1 }
    }

    fn record(programs: &[(&str, Option<Cost>)]) -> Record {
        let programs = programs.iter().map(|(name, cost)| ((*name).to_owned(), *cost)).collect();
        Record([("6.1".to_owned(), programs)].into())
    }

    fn compare(record: &Record, programs: &[(&str, Result<Cost, String>)]) -> Vec<String> {
        let programs = programs.iter();
        let programs: Vec<_> = programs
            .map(|(name, cost)| Program { name: (*name).to_owned(), cost: cost.clone() })
            .collect();
        let mut comparison = Comparison::default();
        comparison.add(record, "6.1.0-56-cloud-amd64", &programs);
        comparison.problems()
    }
}
