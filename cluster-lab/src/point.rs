//! A point: one cell of the matrix with one seed, which is one run.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    arrival::Arrivals,
    contender::Contender,
    distribution::Service,
    experiment::{Family, Kind, Link},
    fault::{Fault, FaultKind},
    span::Span,
};

/// Everything that one run needs to know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// Under which conditions.
    pub cell: Cell,
    /// Whose workers.
    pub policy: Contender,
    /// Which arrivals.
    pub seed: u64,
    /// Requests per second.
    pub rate: f64,
    /// The rest, which is the same for all points of an experiment.
    pub setup: Setup,
}

/// Conditions under which policies are compared with each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cell {
    /// How many workers.
    pub workers: u32,
    /// Share of what they can serve; `None` when a rate was asked for.
    pub load: Option<f64>,
    /// Requests per second that were asked for instead.
    pub rate: Option<f64>,
    /// Service times.
    pub service: Service,
    /// What a busy worker does.
    pub kind: Kind,
    /// Requests per connection.
    pub reuse: u32,
    /// What happens meanwhile.
    pub fault: Fault,
    /// How clients reach the workers.
    pub link: Link,
    /// 4 or 6.
    pub ip: Family,
    /// `net.ipv4.tcp_syncookies`.
    pub syncookies: u8,
}

/// What is the same for all points of an experiment; see [`Experiment`](crate::experiment::Experiment).
#[expect(missing_docs, reason = "the fields of `Experiment` with these names say what they are")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    pub arrivals: Arrivals,
    pub duration: Span,
    pub warmup: Span,
    pub patience: Span,
    pub clients: u32,
    pub generators: u32,
    pub pin: bool,
    pub pin_workers: bool,
    pub max_lag: Option<Span>,
    pub backlog: u32,
    pub port: u16,
    pub app: Option<String>,
    pub path: String,
}

impl Point {
    /// Name of its file: what it is, and a digest of all that it is.
    pub fn file_name(&self) -> String {
        let all = serde_json::to_vec(self).unwrap_or_default();
        let digest = Sha256::digest(&all);
        let digest = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
        let name = format!("{}-w{}-s{}", self.policy, self.cell.workers, self.seed);
        let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
        let name: String = name.chars().take(60).map(plain).collect();
        format!("{name}-{digest:08x}.json")
    }

    /// From the first request to the last.
    pub fn length(&self) -> std::time::Duration {
        self.setup.warmup.0 + self.setup.duration.0
    }
}

impl Cell {
    /// How it is told from others; what is as usual is left out.
    pub fn label(&self) -> String {
        let mut parts = vec![format!("{} workers", self.workers), self.service.to_string()];
        if self.kind == Kind::Cpu {
            parts.push("cpu".to_owned());
        }
        if self.reuse > 1 {
            parts.push(format!("reuse {}", self.reuse));
        }
        if self.fault.kind != FaultKind::None {
            parts.push(self.fault.to_string());
        }
        if self.link == Link::Veth {
            parts.push("veth".to_owned());
        }
        if self.ip == Family::V6 {
            parts.push("IPv6".to_owned());
        }
        if self.syncookies != 1 {
            parts.push(format!("syncookies {}", self.syncookies));
        }
        parts.join(", ")
    }

    /// The load, as it was asked for.
    pub fn load_label(&self) -> String {
        match (self.load, self.rate) {
            (Some(load), _) => format!("load {load}"),
            (None, Some(rate)) => format!("{rate}/s"),
            (None, None) => String::new(),
        }
    }
}
