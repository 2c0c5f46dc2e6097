//! Experiments: what is compared under which conditions, as a TOML file says it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{
    arrival::Arrivals,
    contender::Contender,
    distribution::Service,
    fault::{Fault, FaultKind},
    input, nearest,
    refusal::{HINT, Refusal},
    span::Span,
};

/// The next step after a load that nobody can serve, in words of the file.
pub const OVERLOAD: &str = "`overload = true` when it is meant";
/// Most workers of one point.
const MOST_WORKERS: u32 = 4096;

/// An experiment. Every list is one dimension of its matrix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Experiment {
    /// What reports call it.
    pub name: String,
    /// Who is compared.
    pub policies: Vec<Contender>,
    /// How many workers there are.
    pub workers: Vec<u32>,
    /// Offered load as a share of what all workers can serve; above 1 only with `overload`.
    pub load: Vec<f64>,
    /// Requests per second instead of `load`.
    pub rate: Vec<f64>,
    /// Service times.
    pub service: Vec<Service>,
    /// Whether a busy worker sleeps or computes.
    pub kind: Vec<Kind>,
    /// Requests per connection; 1 is a new connection for each.
    pub reuse: Vec<u32>,
    /// What happens meanwhile.
    pub fault: Vec<Fault>,
    /// How clients reach the workers; anything but `loopback` needs root.
    pub link: Vec<Link>,
    /// 4 or 6.
    pub ip: Vec<Family>,
    /// `net.ipv4.tcp_syncookies`: 0 off, 1 when the queue is full, 2 always.
    pub syncookies: Vec<u8>,
    /// Each makes other arrivals; the same ones for every policy.
    pub seeds: Vec<u64>,
    /// How requests arrive.
    pub arrivals: Arrivals,
    /// How long is measured, for each point.
    pub duration: Span,
    /// How long is not measured before.
    pub warmup: Span,
    /// How long a client waits for an answer.
    pub patience: Span,
    /// Addresses that clients have.
    pub clients: u32,
    /// Threads that make the load.
    pub generators: u32,
    /// Whether the generator has a CPU of its own, where there are two.
    pub pin: bool,
    /// Whether each worker is kept on one CPU, in turn; `cpu-local` needs it.
    pub pin_workers: bool,
    /// Whether loads above 1 are meant.
    pub overload: bool,
    /// A point whose generator was later than this (99th percentile) is no result.
    pub max_lag: Option<Span>,
    /// Accept queue of the laboratory's own workers.
    pub backlog: u32,
    /// Where the workers serve.
    pub port: u16,
    /// A server of one's own instead of the laboratory's: a command line.
    pub app: Option<String>,
    /// What it is asked; `{us}` becomes the service time in microseconds.
    pub path: String,
}

/// What a busy worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Waits, as for a database: there are as many servers as workers, however few CPUs there are.
    Sleep,
    /// Computes: the time is that of a CPU.
    Cpu,
}

/// How clients reach the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Link {
    /// `lo`.
    Loopback,
    /// A pair of virtual interfaces, with the clients in a network namespace of their own.
    Veth,
}

/// Version of the Internet Protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Default for Experiment {
    fn default() -> Self {
        Self {
            name: "experiment".to_owned(),
            policies: ["none", "default", "shared"]
                .map(|name| name.parse().expect("known policies"))
                .to_vec(),
            workers: vec![4],
            load: vec![0.7],
            rate: Vec::new(),
            service: vec![Service::Exponential(Span::millis(2))],
            kind: vec![Kind::Sleep],
            reuse: vec![1],
            fault: vec![Fault::default()],
            link: vec![Link::Loopback],
            ip: vec![Family::V4],
            syncookies: vec![1],
            seeds: vec![1, 2, 3],
            arrivals: Arrivals::Poisson,
            duration: Span::millis(10_000),
            warmup: Span::millis(1_000),
            patience: Span::millis(10_000),
            clients: 1,
            generators: 1,
            pin: true,
            pin_workers: false,
            overload: false,
            max_lag: None,
            backlog: 1024,
            port: 8080,
            app: None,
            path: "/?us={us}".to_owned(),
        }
    }
}

impl Experiment {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, or makes no sense: with the line, and the nearest word.
    pub fn read(path: &Path) -> Result<Self, Refusal> {
        let shown = path.display();
        let text = input::read(path, input::EXPERIMENT).map_err(|error| {
            Refusal::usage(format!("failed to read {shown}: {error}"))
                .hint("cluster lab presets lists experiments that are ready")
        })?;
        Self::parse(&text, &shown.to_string())
    }

    /// Reads TOML.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(text: &str, name: &str) -> Result<Self, Refusal> {
        let experiment: Self = toml::from_str(text).map_err(|error| refuse(text, name, &error))?;
        Ok(experiment)
    }

    /// What it runs, as one line.
    pub fn summary(&self) -> String {
        fn list<T: ToString>(values: &[T]) -> String {
            values.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
        }
        let load = if self.rate.is_empty() {
            format!("load {}", list(&self.load))
        } else {
            format!("{} requests per second", list(&self.rate))
        };
        let asked = match &self.app {
            Some(app) => format!("`{app}`"),
            None => list(&self.service),
        };
        format!(
            "policies {}; {} workers; {load}; {asked}; seeds {}",
            list(&self.policies),
            list(&self.workers),
            list(&self.seeds)
        )
    }

    /// As TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }

    /// The same, with as little as shows that it works.
    #[must_use]
    pub fn quick(mut self) -> Self {
        self.duration = self.duration.min(Span::millis(1_000));
        self.warmup = self.warmup.min(Span::millis(200));
        self.seeds.truncate(1);
        for fault in &mut self.fault {
            // Their times are parts of a shorter run now.
            (fault.at, fault.lasts) = (None, None);
        }
        self
    }

    /// Whether it can be done at all.
    ///
    /// # Errors
    /// Names what is impossible.
    pub fn check(&self) -> Result<(), Refusal> {
        let wrong = |why: String| Err(Refusal::usage(why));
        let lists = [
            ("policies", self.policies.len()),
            ("workers", self.workers.len()),
            ("service", self.service.len()),
            ("kind", self.kind.len()),
            ("reuse", self.reuse.len()),
            ("fault", self.fault.len()),
            ("link", self.link.len()),
            ("ip", self.ip.len()),
            ("syncookies", self.syncookies.len()),
            ("seeds", self.seeds.len()),
            ("load", self.load.len().max(self.rate.len())),
        ];
        if let Some((name, _)) = lists.iter().find(|(_, count)| *count == 0) {
            return wrong(format!("`{name}` is empty: there is nothing to measure"));
        }
        if let Some(workers) = self.workers.iter().find(|it| !(1..=MOST_WORKERS).contains(*it)) {
            return wrong(format!("`workers` has {workers}: it is 1 to {MOST_WORKERS}"));
        }
        for load in &self.load {
            if !(*load > 0.0 && *load <= 100.0) {
                return wrong(format!(
                    "`load` has {load}: it is above 0, and 1 is all that the workers can do"
                ));
            }
            if *load >= 1.0 && self.rate.is_empty() && !self.overload {
                return Err(Refusal::usage(format!("`load` has {load}: nobody can serve that"))
                    .hint(OVERLOAD));
            }
        }
        if let Some(rate) = self.rate.iter().find(|rate| !(**rate > 0.0 && rate.is_finite())) {
            return wrong(format!("`rate` has {rate}: it is above 0"));
        }
        if let Some(value) = self.syncookies.iter().find(|value| **value > 2) {
            return wrong(format!("`syncookies` has {value}: it is 0, 1, or 2"));
        }
        for (name, count, most) in [
            ("clients", self.clients, 250),
            ("generators", self.generators, 64),
            ("backlog", self.backlog, 65_535),
        ] {
            if !(1..=most).contains(&count) {
                return wrong(format!("`{name}` is {count}: it is 1 to {most}"));
            }
        }
        if let Some(reuse) = self.reuse.iter().find(|reuse| **reuse == 0) {
            return wrong(format!(
                "`reuse` has {reuse}: a connection carries one request at least"
            ));
        }
        if self.duration < Span::millis(100) {
            return wrong(format!("`duration` is {}: it is 100ms at least", self.duration));
        }
        if self.patience.0.is_zero() {
            return wrong("`patience` is 0s: every answer would come too late".to_owned());
        }
        if self.port == 0 {
            return wrong("`port` is 0".to_owned());
        }
        if self.app.is_some() && self.rate.is_empty() {
            return Err(Refusal::usage("how busy an app of one's own gets is unknown")
                .hint("`rate = [1000]`, in requests per second, or --rate, instead of `load`"));
        }
        for fault in &self.fault {
            self.check_fault(fault)?;
        }
        for service in &self.service {
            service.source()?;
        }
        self.arrivals.check()?;
        Ok(())
    }

    fn check_fault(&self, fault: &Fault) -> Result<(), Refusal> {
        let fewest = self.workers.iter().min().copied().unwrap_or_default();
        if fault.kind.has_victim() && fault.worker >= fewest {
            return Err(Refusal::usage(format!(
                "`{fault}` happens to worker {}, and there are workers 0 to {}",
                fault.worker,
                fewest - 1
            )));
        }
        let filled = fault.clone().within(self.duration);
        let end = filled.at.unwrap_or_default().0 + filled.lasts.unwrap_or_default().0;
        if end > self.duration.0 {
            return Err(Refusal::usage(format!(
                "`{filled}` is over after {}, and the run after {}",
                Span(end),
                self.duration
            )));
        }
        if fault.kind == FaultKind::Slow && self.app.is_some() {
            return Err(Refusal::usage("`slow` is for the workers of the laboratory")
                .hint("`noise` slows an app of one's own"));
        }
        Ok(())
    }
}

impl TryFrom<u8> for Family {
    type Error = Refusal;

    fn try_from(version: u8) -> Result<Self, Refusal> {
        match version {
            4 => Ok(Self::V4),
            6 => Ok(Self::V6),
            other => Err(Refusal::usage(format!("`ip` has {other}: it is 4 or 6"))),
        }
    }
}

impl From<Family> for u8 {
    fn from(family: Family) -> Self {
        match family {
            Family::V4 => 4,
            Family::V6 => 6,
        }
    }
}

impl Kind {
    /// As experiments name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sleep => "sleep",
            Self::Cpu => "cpu",
        }
    }
}

impl Link {
    /// As experiments name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Veth => "veth",
        }
    }
}

/// What is wrong with a file, where, and what was meant.
fn refuse(text: &str, name: &str, error: &toml::de::Error) -> Refusal {
    let before = |span: std::ops::Range<usize>| text.get(..span.start).unwrap_or(text);
    let line = error.span().map(|span| before(span).matches('\n').count() + 1);
    let place = line.map_or_else(|| name.to_owned(), |line| format!("{name}:{line}"));
    let message = error.message();
    // A word of ours that is wrong has come through serde, hint and all.
    let (message, hint) = match message.split_once(HINT) {
        Some((message, hint)) => (message, Some(hint.to_owned())),
        None => (message, None),
    };
    let mut refusal = Refusal::usage(format!("{place}: {message}"));
    refusal.hint = hint;
    // `unknown field `polices`, expected one of `name`, `policies`, …`: serde's own words.
    if message.starts_with("unknown ") {
        let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
        if let Some((word, known)) = quoted.split_first() {
            refusal.message = format!("{place}: `{word}` is unknown");
            refusal = refusal.hint(nearest::hint(word, known));
        }
    }
    refusal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_read() {
        let experiment = Experiment::default();
        assert_eq!(Experiment::parse(&experiment.to_toml(), "").unwrap(), experiment);
        experiment.check().unwrap();
    }

    #[test]
    fn mistakes_are_refused_with_their_line_and_the_nearest_word() {
        for (text, message, hint) in [
            ("polices = []", "a.toml:1: `polices` is unknown", Some("did you mean `policies`?")),
            ("name = 'a'\n\npolices = []", "a.toml:3: `polices` is unknown", None),
            (
                "name = 'a'\nkind = ['slep']",
                "a.toml:2: `slep` is unknown",
                Some("did you mean `sleep`?"),
            ),
            ("name = 'a'\nservice = ['fixed soon']", "a.toml:2: `soon`", None),
            ("fault = ['freze']", "a.toml:1: `freze`", Some("did you mean `freeze`?")),
            ("ip = [5]", "it is 4 or 6", None),
            ("workers = [0]", "`workers` has 0", None),
            ("workers = []", "`workers` is empty", None),
            ("load = [1.2]", "nobody can serve", Some("`overload = true` when it is meant")),
            ("load = [-1.0]", "`load` has -1", None),
            ("load = [nan]", "`load` has NaN", None),
            ("syncookies = [3]", "`syncookies` has 3", None),
            ("fault = ['freeze worker=4']", "workers 0 to 3", None),
            ("fault = ['freeze at=9s for=3s']", "is over after 12s", None),
            ("duration = '0s'", "`duration` is 0s", None),
            ("reuse = [0]", "`reuse` has 0", None),
            (
                "app = 'node x.js'",
                "unknown",
                Some("`rate = [1000]`, in requests per second, or --rate, instead of `load`"),
            ),
            ("service = ['trace /no/such']", "/no/such", None),
            ("service = ['trace /dev/zero']", "the trace /dev/zero: it is no regular file", None),
            ("arrivals = 'trace /dev/zero'", "the trace /dev/zero: it is no regular file", None),
        ] {
            let read = Experiment::parse(text, "a.toml");
            let refused = read.and_then(|experiment| experiment.check()).unwrap_err();
            assert!(refused.message.contains(message), "{text}: {}", refused.message);
            if hint.is_some() {
                assert_eq!(refused.hint.as_deref(), hint, "{text}");
            }
        }
    }

    #[test]
    fn what_is_quick_is_still_possible() {
        let mut experiment = Experiment {
            fault: vec!["freeze at=4s for=3s".parse().unwrap()],
            ..Experiment::default()
        };
        experiment = experiment.quick();
        experiment.check().unwrap();
        assert_eq!(experiment.seeds, [1]);
    }
}
