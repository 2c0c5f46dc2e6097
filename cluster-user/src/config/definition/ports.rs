//! Which ports are balanced, and what becomes of connections while nobody serves them.

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::value::{Switch, Time, several, several_schema};

/// Which ports are balanced, and what becomes of connections while nobody serves them.
#[skip_serializing_none]
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[command(next_help_heading = "Ports and readiness")]
pub struct Ports {
    /// Balance only these ports; by default every port the app listens on
    #[arg(
        long,
        value_name = "PORT,…",
        value_delimiter = ',',
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    #[serde(deserialize_with = "several", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "several_schema")]
    pub port: Vec<u16>,

    /// The app serves no port: it is ready when it has run for --min-uptime
    #[arg(long, value_name = "on|off", num_args = 0..=1, require_equals = true, default_missing_value = "on")]
    pub no_port: Option<Switch>,

    /// How long connections wait for a worker while there is none [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub wait_timeout: Option<Time>,
}
