//! Commands that are run at turns of a worker's life.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::millis;
use crate::config::duration;

/// How long a hook may take when nothing else is said.
pub const HOOK_TIMEOUT: Duration = Duration::from_secs(30);

/// Command lines, run as the worker's user, in its folder and with its environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hooks {
    /// Before a worker is spawned; it is not spawned when this fails.
    #[serde(default)]
    pub pre_start: Option<String>,
    /// When a worker is online.
    #[serde(default)]
    pub post_ready: Option<String>,
    /// When a worker has drained, before it is asked to end.
    #[serde(default)]
    pub pre_stop: Option<String>,
    /// When nothing of a worker is left.
    #[serde(default)]
    pub post_stop: Option<String>,
    /// When a worker has failed.
    #[serde(default)]
    pub on_failure: Option<String>,
    /// How long each may take; it is killed then, and has failed.
    #[serde(with = "millis")]
    pub timeout: Duration,
}

impl Default for Hooks {
    fn default() -> Self {
        Self {
            pre_start: None,
            post_ready: None,
            pre_stop: None,
            post_stop: None,
            on_failure: None,
            timeout: HOOK_TIMEOUT,
        }
    }
}

impl Hooks {
    /// Checks what its types leave open.
    ///
    /// # Errors
    /// A lowercase fragment that names the field.
    pub fn check(&self) -> Result<(), String> {
        if self.timeout.is_zero() || self.timeout > duration::MAX {
            return Err("hook_timeout is 0, or longer than a year".to_owned());
        }
        for hook in Hook::ALL {
            if self.line(hook).is_some_and(|line| line.trim().is_empty() || line.contains('\0')) {
                return Err(format!("{hook} is empty or contains a null byte"));
            }
        }
        Ok(())
    }

    /// The command line of a hook; `None` when there is nothing to be run.
    pub fn line(&self, hook: Hook) -> Option<&str> {
        match hook {
            Hook::PreStart => &self.pre_start,
            Hook::PostReady => &self.post_ready,
            Hook::PreStop => &self.pre_stop,
            Hook::PostStop => &self.post_stop,
            Hook::OnFailure => &self.on_failure,
        }
        .as_deref()
    }
}

/// A turn of a worker's life at which a command can be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hook {
    /// Before it is spawned.
    PreStart,
    /// When it is online.
    PostReady,
    /// When it has drained, before it is asked to end.
    PreStop,
    /// When nothing of it is left.
    PostStop,
    /// When it has failed.
    OnFailure,
}

impl Hook {
    /// All of them, in the order of a life.
    pub const ALL: [Self; 5] =
        [Self::PreStart, Self::PostReady, Self::PreStop, Self::PostStop, Self::OnFailure];
}

/// As it is written in files.
impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PreStart => "pre_start",
            Self::PostReady => "post_ready",
            Self::PreStop => "pre_stop",
            Self::PostStop => "post_stop",
            Self::OnFailure => "on_failure",
        })
    }
}
