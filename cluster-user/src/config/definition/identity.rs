//! Who each worker is, and the sockets it is given.

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::value::{several, several_schema};
use crate::config::listen::Listen;

/// Who each worker is, and the sockets it is given.
#[skip_serializing_none]
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[command(next_help_heading = "Identity and sockets")]
pub struct Identity {
    /// Variable with the worker's number, the same after a crash and a reload [default: `NODE_APP_INSTANCE`]
    #[arg(long, value_name = "VAR")]
    pub instance_var: Option<String>,

    /// Variable whose number each worker has one higher, such as PORT: it must be given with --env or --port
    #[arg(long, value_name = "VAR")]
    pub increment_var: Option<String>,

    /// File for the process id of worker 0; that of worker 1 has `-1` before the extension
    #[arg(short = 'p', long, visible_alias = "pid", value_name = "FILE")]
    pub pid_file: Option<String>,

    /// Socket given to workers as `LISTEN_FDS`: `tcp://0.0.0.0:80`, `udp://[::]:53`, `unix:/run/app.sock`; repeatable
    #[arg(long, value_name = "SOCKET")]
    #[serde(deserialize_with = "several", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "several_schema")]
    pub listen: Vec<Listen>,
}
