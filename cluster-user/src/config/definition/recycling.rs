//! When a worker that is well is replaced all the same.

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::value::{Size, Time};

/// When a worker that is well is replaced all the same.
#[skip_serializing_none]
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[command(next_help_heading = "Recycling")]
pub struct Recycling {
    /// A worker that uses more memory, with all its processes, is replaced by a new one, without a request lost
    #[arg(long, value_name = "SIZE")]
    pub max_memory_restart: Option<Size>,

    /// A worker that has been online this long, less up to a tenth, is replaced by a new one, without a request lost
    #[arg(long, value_name = "TIME")]
    pub max_lifetime: Option<Time>,

    /// Reload at these times, as in a crontab, with a field for seconds in front if need be; 0 for never
    #[arg(long, short = 'c', visible_alias = "cron", value_name = "FIELDS")]
    #[serde(deserialize_with = "super::value::optional_text")]
    pub cron_restart: Option<String>,

    /// Time zone of --cron-restart, such as Europe/Berlin; by default the daemon's
    #[arg(long, visible_alias = "timezone", value_name = "ZONE")]
    pub cron_tz: Option<String>,
}
