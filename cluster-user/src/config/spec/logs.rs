//! What becomes of the output of an app's workers.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::optional_millis;
use crate::config::date_format::DateFormat;

/// Bytes after which a file is rotated when nothing else is said.
pub const MAX_SIZE: u64 = 10 * 1024 * 1024;
/// Age at which a file is rotated when nothing else is said.
pub const MAX_AGE: Duration = Duration::from_hours(7 * 24);
/// Rotated files that are kept when nothing else is said.
pub const KEEP: u32 = 5;

/// What becomes of output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logs {
    /// Where standard output goes.
    pub out: Place,
    /// Where standard error goes.
    pub error: Place,
    /// A file for both besides; absolute.
    pub combined: Option<PathBuf>,
    /// Whether all workers write to the same files, instead of each to its own.
    pub merge: bool,
    /// A time with which each line begins, in files.
    pub date_format: Option<DateFormat>,
    /// What a line in a file looks like.
    pub shape: Shape,
    /// Whether nothing is written anywhere.
    pub disabled: bool,
    /// Whether it goes to files.
    pub to_file: bool,
    /// A log service that gets it.
    pub service: Option<Service>,
    /// When files are rotated, and how many are kept.
    pub rotation: Rotation,
}

/// Where a stream goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// To a file of the usual name in the daemon's folder.
    #[default]
    Usual,
    /// Nowhere: it was called `NULL` or `/dev/null`.
    Nowhere,
    /// To this file; absolute. With more than one worker that do not share it, the worker's number goes before the ending.
    File(PathBuf),
}

/// What a line in a file looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// As it was written.
    #[default]
    Raw,
    /// A JSON object with PM2's keys: `message`, `timestamp`, `type`, `process_id`, `app_name`.
    Json,
}

/// A log service of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// systemd's, by its own protocol.
    Journald,
    /// Whatever listens at `/dev/log`.
    Syslog,
}

/// When files are rotated, and how many are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// Size in bytes that a file does not exceed, except to finish a line that did not fit; no matter when absent.
    pub max_size: Option<u64>,
    /// A file that was begun longer ago is rotated before the next line; no matter when absent.
    #[serde(with = "optional_millis")]
    pub max_age: Option<Duration>,
    /// Rotated files kept per file, beside the current one: `.1` is the newest.
    pub keep: u32,
    /// Whether rotated ones are compressed, a minute after they were written last.
    pub compress: bool,
}

impl Default for Logs {
    fn default() -> Self {
        Self {
            out: Place::Usual,
            error: Place::Usual,
            combined: None,
            merge: false,
            date_format: None,
            shape: Shape::Raw,
            disabled: false,
            to_file: true,
            service: None,
            rotation: Rotation::default(),
        }
    }
}

impl Default for Rotation {
    fn default() -> Self {
        Self { max_size: Some(MAX_SIZE), max_age: Some(MAX_AGE), keep: KEEP, compress: true }
    }
}
