//! What is run, as whom, where, and how many times.

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::value::{Scalar, Words, optional_text, several, several_schema};
use crate::config::{instances::Instances, name::Name};

/// What is run, as whom, where, and how many times.
#[skip_serializing_none]
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Run {
    /// Script, program or command line
    #[arg(skip)]
    pub script: Option<String>,

    /// Arguments for the script
    #[arg(skip)]
    pub args: Option<Words>,

    /// How many workers: a number, `max` (or 0) for one per CPU, -N for that many fewer [default: 1]
    #[arg(short, long, value_name = "N", allow_hyphen_values = true)]
    pub instances: Option<Instances>,

    /// Name of the app; by default that of the script without its extension
    #[arg(short, long)]
    #[schemars(with = "Option<String>")]
    pub name: Option<Name>,

    /// Group of apps to be named together [default: default]
    #[arg(long)]
    #[schemars(with = "Option<String>")]
    pub namespace: Option<Name>,

    /// Working folder; by default the current one
    #[arg(long, value_name = "FOLDER")]
    pub cwd: Option<String>,

    /// Program that runs the script, or `none` to execute it directly
    #[arg(long, value_name = "PROGRAM", help_heading = "How it is run")]
    pub interpreter: Option<String>,

    /// Arguments for the interpreter, in one string
    #[arg(
        long,
        visible_alias = "node-args",
        value_name = "ARGS",
        allow_hyphen_values = true,
        help_heading = "How it is run"
    )]
    pub interpreter_args: Option<Words>,

    /// Variables of the shell that workers do not get: names, `*` for any letters; `*` alone for all of them
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', help_heading = "How it is run")]
    #[serde(deserialize_with = "several", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "several_schema")]
    pub filter_env: Vec<String>,

    /// User to run as, by name or number
    #[arg(
        long,
        alias = "user",
        short_alias = 'u',
        value_name = "USER",
        help_heading = "How it is run"
    )]
    #[serde(deserialize_with = "optional_text")]
    #[schemars(with = "Option<Scalar>")]
    pub uid: Option<String>,

    /// Group to run as, by name or number
    #[arg(long, value_name = "GROUP", help_heading = "How it is run")]
    #[serde(deserialize_with = "optional_text")]
    #[schemars(with = "Option<Scalar>")]
    pub gid: Option<String>,
}
