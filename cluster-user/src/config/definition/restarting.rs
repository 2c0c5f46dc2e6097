//! What follows when a worker ends.

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::value::{Switch, Time, several, several_schema};

/// What follows when a worker ends.
#[skip_serializing_none]
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[command(next_help_heading = "Restarting")]
pub struct Restarting {
    /// This many unstable runs in a row, and a worker is given up [default: 16]
    #[arg(long, value_name = "N")]
    pub max_restarts: Option<u32>,

    /// A shorter run is unstable [default: 1s]
    #[arg(long, value_name = "TIME")]
    pub min_uptime: Option<Time>,

    /// Fixed wait before a replacement; 0 for at once, growing while unstable [default: 0]
    #[arg(long, value_name = "TIME")]
    pub restart_delay: Option<Time>,

    /// First wait before a replacement, half as long again each time, up to 15s [default: 100ms from the second on]
    #[arg(long, value_name = "TIME")]
    pub exp_backoff_restart_delay: Option<Time>,

    /// Whether workers that end by themselves are replaced [default: on]
    #[arg(long, value_name = "on|off")]
    pub autorestart: Option<Switch>,

    /// Whether workers are started at all before `cluster start NAME` says so [default: on]
    #[arg(long, value_name = "on|off")]
    pub autostart: Option<Switch>,

    /// Exit codes after which a worker is not replaced
    #[arg(
        long,
        value_name = "CODE,…",
        value_delimiter = ',',
        value_parser = clap::value_parser!(i32).range(0..=255)
    )]
    #[serde(deserialize_with = "several", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "several_schema")]
    pub stop_exit_codes: Vec<i32>,
}
