//! Verdict: which failed requests are explained, and by what.

use cluster_proof::{account::Account, failure::Failure};

use super::{timeline::Timeline, victim::Victim};

/// Every failed request, told apart.
#[derive(Default)]
pub(super) struct Verdict {
    /// Those that a killed worker was executing, and what is said of them.
    pub(super) explained: Vec<String>,
    /// All others.
    pub(super) lost: Vec<String>,
}

impl Verdict {
    /// Judges each failure.
    pub(super) fn of(account: &Account, victims: &[Victim], timeline: &Timeline) -> Self {
        let mut verdict = Self::default();
        for failure in &account.failures {
            let at = failure.failed.saturating_duration_since(timeline.began).as_secs_f64();
            let told = format!("[{at:6.2} s] {failure}");
            match victims.iter().find(|victim| victim.explains(failure)) {
                Some(victim) => {
                    let pid = victim.pid;
                    verdict
                        .explained
                        .push(format!("{told}: in service at worker {pid} when it was killed -9"));
                }
                None => verdict.lost.push(format!("{told}{}", under_way(failure, timeline))),
            }
        }
        verdict
    }
}

fn under_way(failure: &Failure, timeline: &Timeline) -> String {
    let moves = timeline.during(failure.began, failure.failed, &failure.target);
    let lines = moves.iter().map(|line| format!("\n    during {line}"));
    let lines = lines.collect::<String>();
    if lines.is_empty() { "\n    during no move".to_owned() } else { lines }
}
