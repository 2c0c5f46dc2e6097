//! Files whose change reloads an app.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::millis;
use crate::config::{duration, pattern::Pattern};

/// How long nothing may change before a burst of changes is over, when nothing else is said.
pub const WATCH_DELAY: Duration = Duration::from_millis(200);

/// Files whose change reloads an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watch {
    /// Absolute paths of files and folders, folders with all below them; at least one. They need not be there.
    pub paths: Vec<PathBuf>,
    /// What does not count below a folder, beside what never does (see [`Pattern::NEVER`]).
    pub ignore: Vec<Pattern>,
    /// How long nothing may change before a burst of changes is over.
    #[serde(with = "millis")]
    pub delay: Duration,
}

impl Watch {
    /// Checks what its types leave open.
    ///
    /// # Errors
    /// A lowercase fragment that names the field.
    pub fn check(&self) -> Result<(), String> {
        if self.paths.is_empty() {
            return Err("watch names no path".to_owned());
        }
        if let Some(path) = self.paths.iter().find(|path| !path.is_absolute()) {
            return Err(format!("watch has {}, which is no absolute path", path.display()));
        }
        if self.delay > duration::MAX {
            return Err("watch_delay is longer than a year".to_owned());
        }
        Ok(())
    }
}
