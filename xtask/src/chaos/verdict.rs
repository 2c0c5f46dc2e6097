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

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use cluster_proof::{
        failure::{Cause, Phase},
        request::Kind,
    };

    use super::{super::schedule::Move, *};

    #[test]
    fn a_request_that_no_victim_explains_is_lost_and_told_with_what_was_under_way() {
        let timeline = Timeline::new();
        let number = timeline.begin(&Move::Scale { app: 0, to: 2 }, Some("node"));
        let other = timeline.begin(&Move::Restart { app: 1 }, Some("python"));
        let account = Account { failures: vec![failure()], ..Account::default() };
        let victim = Victim::of("node", 12, [99].into(), timeline.began);

        let verdict = Verdict::of(&account, &[victim], &timeline);

        assert!(verdict.explained.is_empty());
        assert!(verdict.lost[0].contains("node: scale to 2"), "{}", verdict.lost[0]);
        assert!(!verdict.lost[0].contains("restart"), "{}", verdict.lost[0]);
        assert!(verdict.lost[0].contains("reset waiting for the head"), "{}", verdict.lost[0]);
        timeline.end(number, Ok(String::new()));
        timeline.end(other, Err("two are left".to_owned()));
        assert_eq!(timeline.problems().len(), 1);
    }

    #[test]
    fn a_request_at_a_worker_that_was_killed_is_explained() {
        let timeline = Timeline::new();
        let account = Account { failures: vec![failure()], ..Account::default() };
        let victim = Victim::of("node", 12, [40_000].into(), timeline.began);

        let verdict = Verdict::of(&account, &[victim], &timeline);

        assert!(verdict.lost.is_empty());
        assert!(verdict.explained[0].ends_with("in service at worker 12 when it was killed -9"));
    }

    fn failure() -> Failure {
        let now = Instant::now();
        Failure {
            id: 1,
            target: "node".to_owned(),
            kind: Kind::Kept,
            phase: Phase::Head,
            cause: Cause::Reset,
            errno: Some(104),
            due: now,
            began: now,
            failed: now,
            local: Some(([127, 0, 0, 1], 40_000).into()),
            worker: Some(12),
            earlier: 3,
            sent: 90,
            received: 0,
        }
    }
}
