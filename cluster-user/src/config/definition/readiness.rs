//! When a worker is ready, and what it has to go on doing.

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::value::{Question, Switch, Time};

/// More answers in a row than this are asked for by mistake.
pub const MOST: i64 = 10_000;

/// When a worker is ready, and what it has to go on doing.
#[skip_serializing_none]
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[command(next_help_heading = "Ports and readiness")]
pub struct Readiness {
    /// From start to ready, else the start has failed [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub listen_timeout: Option<Time>,

    /// What a new worker must answer to be ready: http://:PORT/PATH, /PATH, tcp, or a command
    #[arg(long, value_name = "PROBE")]
    pub probe: Option<Question>,

    /// From one answer to the next question [default: 1s]
    #[arg(long, value_name = "TIME")]
    pub probe_interval: Option<Time>,

    /// How long an answer may take [default: 1s]
    #[arg(long, value_name = "TIME")]
    pub probe_timeout: Option<Time>,

    /// This many good answers in a row, and a worker is ready [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MOST))]
    pub probe_successes: Option<u32>,

    /// This many bad answers in a row from a worker that was ready, and it has failed [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MOST))]
    pub probe_failures: Option<u32>,

    /// A worker is ready when it says `READY=1` on its `NOTIFY_SOCKET`, as for systemd
    #[arg(long, value_name = "on|off", num_args = 0..=1, require_equals = true, default_missing_value = "on")]
    pub notify: Option<Switch>,

    /// A worker is ready when it says so: process.send('ready')
    #[arg(long, value_name = "on|off", num_args = 0..=1, require_equals = true, default_missing_value = "on")]
    pub wait_ready: Option<Switch>,

    /// What a worker must go on answering, else it is replaced; as for --probe
    #[arg(long, value_name = "PROBE")]
    pub liveness: Option<Question>,

    /// From one answer to the next question [default: 10s]
    #[arg(long, value_name = "TIME")]
    pub liveness_interval: Option<Time>,

    /// How long an answer may take [default: 1s]
    #[arg(long, value_name = "TIME")]
    pub liveness_timeout: Option<Time>,

    /// This many bad answers in a row, and a worker is replaced [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MOST))]
    pub liveness_failures: Option<u32>,

    /// A worker must say `WATCHDOG=1` on its `NOTIFY_SOCKET` at least this often, else it is replaced
    #[arg(long, value_name = "TIME")]
    pub watchdog: Option<Time>,

    /// Whether a reload starts the new worker beside the old one; off: after it [default: on]
    #[arg(long, value_name = "on|off")]
    pub overlap: Option<Switch>,
}
