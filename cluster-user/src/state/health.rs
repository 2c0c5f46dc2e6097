//! Whether a worker that is ready still is: its liveness probe and its watchdog.

use serde::{Deserialize, Serialize};

use super::{why::Why, worker::Step};
use crate::{
    config::spec::{AppSpec, Probe},
    moment::Moment,
};

/// What is known of a worker's health.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Health {
    /// When it is asked again; absent while it is asked, and where there is no probe.
    next: Option<Moment>,
    /// Failed probes in a row.
    failures: u32,
    /// When it last said that it lives.
    beat: Moment,
}

/// What follows from a look at a worker's health.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    Fine,
    /// It is time to ask.
    Ask(Box<Probe>),
    /// It answers wrongly or not at all, and may be finishing what it has.
    Unhealthy(Why),
    /// It does nothing any more.
    Hung(Why),
}

impl Health {
    /// That of a worker that is ready from now on.
    pub(super) fn begin(now: Moment, spec: &AppSpec) -> Self {
        let next = spec.liveness.as_ref().map(|probe| now + probe.interval);
        Self { next, failures: 0, beat: now }
    }

    /// That of a worker nobody looked at for a while.
    pub(super) fn again(&mut self, now: Moment, spec: &AppSpec) {
        let Self { next, beat, .. } = Self::begin(now, spec);
        (self.next, self.beat) = (next, beat);
    }

    pub(super) fn deadline(&self, spec: &AppSpec) -> Option<Moment> {
        let silent = spec.watchdog.map(|watchdog| self.beat + watchdog);
        self.next.into_iter().chain(silent).min()
    }

    pub(super) fn beat(&mut self, now: Moment) -> Step {
        self.beat = now;
        Step::default()
    }

    /// A deadline may have passed.
    pub(super) fn check(&mut self, now: Moment, spec: &AppSpec) -> Verdict {
        if let Some(watchdog) = spec.watchdog
            && now >= self.beat + watchdog
        {
            return Verdict::Hung(Why::Silent { watchdog });
        }
        match &spec.liveness {
            Some(probe) if self.next.is_some_and(|next| next <= now) => {
                self.next = None;
                Verdict::Ask(Box::new(probe.clone()))
            }
            Some(_) | None => Verdict::Fine,
        }
    }

    /// The probe was answered.
    pub(super) fn probed(
        &mut self,
        now: Moment,
        spec: &AppSpec,
        result: Result<(), String>,
    ) -> Verdict {
        let Some(probe) = &spec.liveness else { return Verdict::Fine };
        self.next = Some(now + probe.interval);
        match result {
            Ok(()) => self.failures = 0,
            Err(last) => {
                self.failures += 1;
                if self.failures >= probe.failures {
                    return Verdict::Unhealthy(Why::Unhealthy { times: self.failures, last });
                }
            }
        }
        Verdict::Fine
    }
}
