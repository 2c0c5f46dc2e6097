//! How a worker is ended.

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::value::{Switch, Time};
use crate::config::signal::StopSignal;

/// How a worker is ended.
#[skip_serializing_none]
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[command(next_help_heading = "Stopping")]
pub struct Stopping {
    /// From the stop signal to SIGKILL [default: 10s]
    #[arg(short, long, value_name = "TIME")]
    pub kill_timeout: Option<Time>,

    /// Signal that asks a worker to end [default: SIGTERM]
    #[arg(long, value_name = "SIGNAL")]
    pub kill_signal: Option<StopSignal>,

    /// Ask it with the message `shutdown` of Node's IPC channel instead of a signal
    #[arg(long, value_name = "on|off", num_args = 0..=1, require_equals = true, default_missing_value = "on")]
    pub shutdown_with_message: Option<Switch>,

    /// How long a worker may finish what it has, before the stop signal [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub drain_timeout: Option<Time>,
}
