//! Verdict: what came of one kernel, and the table of all.

use comfy_table::{Table, presets::UTF8_HORIZONTAL_ONLY};

use super::{
    alarm,
    complexity::Program,
    kernel::{Promise, Wanted},
    machine::Said,
    plan::Depth,
    report::{Feature, Outcome, Report},
};

/// What came of one kernel.
pub(super) struct Verdict {
    wanted: Wanted,
    outcome: Result<Ran, String>,
    depth: Depth,
}

/// A machine that ran to its end, or not.
struct Ran {
    report: Result<Report, String>,
    alarms: Vec<String>,
    left_out: Vec<(&'static str, &'static str)>,
    seconds: u64,
}

impl Verdict {
    /// Of a machine that was booted.
    pub(super) fn of(
        wanted: Wanted,
        depth: Depth,
        said: Said,
        left_out: &[(&'static str, &'static str)],
    ) -> Self {
        let report = said.report.map_err(|error| format!("{error:#}"));
        let mut alarms = report.as_ref().map(|report| report.alarms.clone()).unwrap_or_default();
        if alarms.is_empty() {
            alarms = alarm::find(&said.console);
        }
        let (left_out, seconds) = (left_out.to_vec(), said.took.as_secs());
        Self { wanted, outcome: Ok(Ran { report, alarms, left_out, seconds }), depth }
    }

    /// Of a kernel that cannot be had.
    pub(super) fn not_had(wanted: Wanted, depth: Depth, error: &anyhow::Error) -> Self {
        Self { wanted, outcome: Err(format!("{error:#}")), depth }
    }

    /// The kernel and why it was not tested, if it was not.
    pub(super) fn why_not_had(&self) -> Option<String> {
        let error = self.outcome.as_ref().err()?;
        Some(format!("{}, for it cannot be had: {error}", self.wanted.name))
    }

    fn report(&self) -> Option<&Report> {
        self.outcome.as_ref().ok()?.report.as_ref().ok()
    }

    /// The kernel's release and what its verifier said, if it came to that.
    pub(super) fn programs(&self) -> Option<(&str, &[Program])> {
        let report = self.report()?;
        (!report.programs.is_empty())
            .then_some((report.release.as_str(), report.programs.as_slice()))
    }

    /// The kernel, and what doctor found on it, if it came to that.
    pub(super) fn features(&self) -> Option<(&str, &[Feature])> {
        let report = self.report()?;
        (!report.features.is_empty()).then_some((self.wanted.name, report.features.as_slice()))
    }

    /// What does not hold of what was tested.
    pub(super) fn problems(&self) -> Vec<String> {
        let Ok(ran) = &self.outcome else { return Vec::new() };
        let mut problems = Vec::new();
        match &ran.report {
            Err(error) => problems.push(error.clone()),
            Ok(report) => {
                for check in &report.checks {
                    problems.extend(
                        check.error.as_ref().map(|error| format!("{}: {error}", check.name)),
                    );
                }
                for test in &report.tests {
                    match test.outcome {
                        Outcome::Passed => {}
                        Outcome::Failed => problems.push(format!("test {} failed", test.name)),
                        Outcome::Unfinished => {
                            problems.push(format!("test {} did not end", test.name));
                        }
                    }
                }
            }
        }
        if let Some(first) = ran.alarms.first() {
            problems.push(format!("the kernel said: {first}"));
        }
        problems.into_iter().map(|problem| format!("{}: {problem}", self.wanted.name)).collect()
    }

    /// Everything about it, for people.
    pub(super) fn show(&self) -> String {
        let name = self.wanted.name;
        let ran = match &self.outcome {
            Ok(ran) => ran,
            Err(error) => return format!("vm: {name}: cannot be had: {error}"),
        };
        let mut lines = Vec::new();
        if let Ok(report) = &ran.report {
            for check in &report.checks {
                let word = if check.error.is_some() { "FAILED" } else { "ok" };
                lines.push(format!(
                    "  {word:<6} {}: {} ({} ms)",
                    check.name, check.found, check.took_ms
                ));
            }
            let missing = report.features.iter().filter(|feature| !feature.ok);
            lines.extend(missing.map(|feature| {
                let detail = feature.detail.as_deref().unwrap_or("missing");
                format!("  lacks  {}: {detail}", feature.name)
            }));
            let refused = report.programs.iter().filter_map(|program| {
                Some(format!("  lacks  {}: {}", program.name, program.cost.as_ref().err()?))
            });
            lines.extend(refused);
            lines.extend(self.depth.without().map(|what| format!("  not run: {what}")));
            lines.push(format!(
                "  {} tests passed, {} failed, {} did not end",
                report.count(Outcome::Passed),
                report.count(Outcome::Failed),
                report.count(Outcome::Unfinished)
            ));
            lines.extend(report.said.lines().map(|line| format!("  | {line}")));
        }
        let left_out = ran.left_out.iter().map(|(name, why)| format!("  left out: {name}: {why}"));
        lines.extend(left_out);
        lines.extend(ran.alarms.iter().map(|line| format!("  kernel: {line}")));
        let release = self.report().map_or(name, |report| report.release.as_str());
        format!("vm: {name}: Linux {release}, {} s\n{}", ran.seconds, lines.join("\n"))
    }
}

/// All kernels.
pub(super) fn table(verdicts: &[Verdict]) -> String {
    let mut table = Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY);
    table.set_header([
        "kernel",
        "release",
        "mode",
        "first process",
        "tests",
        "checks",
        "seconds",
        "",
    ]);
    for verdict in verdicts {
        let name = verdict.wanted.name;
        let Ok(ran) = &verdict.outcome else {
            table.add_row([name, "", "", "", "", "", "", "cannot be had"]);
            continue;
        };
        let mode = match verdict.wanted.promise {
            Promise::Everything => "kernel",
            Promise::Plain => "plain",
        };
        let word = if verdict.problems().is_empty() { "ok" } else { "FAILED" };
        let report = verdict.report().cloned().unwrap_or_default();
        let tests = match verdict.depth {
            Depth::Verifier | Depth::Program => "not run".to_owned(),
            Depth::Tests => {
                format!("{} of {}", report.count(Outcome::Passed), report.tests.len())
            }
        };
        let held = report.checks.iter().filter(|check| check.error.is_none()).count();
        table.add_row([
            name,
            &report.release,
            mode,
            &format!("{} ms", report.boot_ms),
            &tests,
            &format!("{held} of {}", report.checks.len()),
            &ran.seconds.to_string(),
            word,
        ]);
    }
    table.to_string()
}
