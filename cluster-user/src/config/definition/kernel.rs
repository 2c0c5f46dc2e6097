//! How the kernel is used.

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::value::Switch;

/// How the kernel is used.
#[skip_serializing_none]
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[command(next_help_heading = "Kernel")]
pub struct Kernel {
    /// Log every decision of the kernel program
    #[arg(long, value_name = "on|off", num_args = 0..=1, require_equals = true, default_missing_value = "on")]
    pub trace: Option<Switch>,

    /// Fail where the kernel program cannot be used, instead of falling back to plain mode
    #[arg(long, value_name = "on|off", num_args = 0..=1, require_equals = true, default_missing_value = "on")]
    pub require_kernel: Option<Switch>,
}
