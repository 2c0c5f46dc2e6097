//! Commands that are run at turns of a worker's life.

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::value::Time;

/// Commands that are run at turns of a worker's life.
#[skip_serializing_none]
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[command(
    next_help_heading = "Hooks (command lines, run as the worker is, with CLUSTER_HOOK, CLUSTER_APP and CLUSTER_INSTANCE)"
)]
pub struct Hooks {
    /// Before a worker is started, which it is not when this fails
    #[arg(long, value_name = "COMMAND")]
    pub pre_start: Option<String>,

    /// When a worker is online
    #[arg(long, value_name = "COMMAND")]
    pub post_ready: Option<String>,

    /// When a worker has drained, before the stop signal
    #[arg(long, value_name = "COMMAND")]
    pub pre_stop: Option<String>,

    /// When a worker has ended, with all its processes
    #[arg(long, value_name = "COMMAND")]
    pub post_stop: Option<String>,

    /// When a worker has failed; `CLUSTER_REASON` says why
    #[arg(long, value_name = "COMMAND")]
    pub on_failure: Option<String>,

    /// How long each of them may take [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub hook_timeout: Option<Time>,
}
