//! One thing a host can do or lacks, as `doctor` shows it.

use serde::{Deserialize, Serialize};

/// One thing a host can do or lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feature {
    /// A short name, such as `sk_reuseport programs`.
    pub name: String,
    /// Whether it was tried and works.
    pub ok: bool,
    /// What was found, or what the kernel said.
    pub detail: Option<String>,
    /// How to get it, when it is missing.
    pub hint: Option<String>,
    /// What cluster does with it.
    pub needed_for: String,
}
