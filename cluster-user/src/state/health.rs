//! Whether a worker that is ready still is: its liveness probe, its watchdog, and how long it may be silent.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{why::Why, worker::Step};
use crate::{
    config::spec::{AppSpec, Probe},
    moment::Moment,
};

/// What is known of a worker's health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Health {
    /// When it is asked again; absent while it is asked, and where there is no probe.
    next: Option<Moment>,
    /// Failed probes in a row.
    failures: u32,
    /// When it last said that it lives.
    beat: Moment,
    /// Whether it has ever said so.
    #[serde(default)]
    speaks: bool,
    /// Whether it was silent for longer than the guard of its app allows, and has not spoken since.
    #[serde(default)]
    silent: bool,
    /// How long that is, brought in line with the app's settings at every event; `None` when it is for ever.
    #[serde(skip)]
    silence: Option<Duration>,
    /// What the data path was told last of its being silent; `None` when nobody knows.
    #[serde(skip)]
    told: Option<bool>,
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
    /// That of a worker that is not ready yet: nobody has been told anything of it.
    pub(super) fn unheard() -> Self {
        Self {
            next: None,
            failures: 0,
            beat: Moment::default(),
            speaks: false,
            silent: false,
            silence: None,
            told: Some(false),
        }
    }

    /// Nobody knows what the data path was told of it.
    pub(super) fn taken_in(&mut self) {
        self.told = None;
    }

    /// The worker is ready from now on.
    pub(super) fn begin(&mut self, now: Moment, spec: &AppSpec) {
        self.failures = 0;
        self.again(now, spec);
    }

    /// Nobody looked at the worker for a while. One that had fallen silent is not trusted for that.
    pub(super) fn again(&mut self, now: Moment, spec: &AppSpec) {
        self.next = spec.liveness.as_ref().map(|probe| now + probe.interval);
        self.beat = now;
    }

    pub(super) fn deadline(&self, spec: &AppSpec) -> Option<Moment> {
        let hung = spec.watchdog.map(|watchdog| self.beat + watchdog);
        let expected = self.is_expected(spec.watchdog.is_some()) && !self.silent;
        let silent = self.silence.filter(|_| expected).map(|silence| self.beat + silence);
        self.next.into_iter().chain(hung).chain(silent).min()
    }

    pub(super) fn beat(&mut self, now: Moment) -> Step {
        (self.beat, self.speaks, self.silent) = (now, true, false);
        Step::default()
    }

    /// Whether it is silent, now that it may be for so long; whoever asks tells the data path.
    pub(super) fn listen(&mut self, now: Moment, silence: Option<Duration>, watched: bool) -> bool {
        self.silence = silence;
        self.silent = self.is_expected(watched)
            && silence.is_some_and(|silence| self.silent || now >= self.beat + silence);
        self.told = Some(self.silent);
        self.silent
    }

    /// What the data path was told last of its being silent.
    pub(super) fn told(&self) -> Option<bool> {
        self.told
    }

    /// How long it was silent at least, if it has fallen silent.
    pub(super) fn silent_for(&self) -> Option<Duration> {
        self.silence.filter(|_| self.silent)
    }

    /// Whether it is to say that it lives: it has a watchdog, or did so without being asked to.
    fn is_expected(&self, watched: bool) -> bool {
        self.speaks || watched
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
