//! A thing the host can or cannot do, as `doctor` shows it.

use serde::{Deserialize, Serialize};

/// A thing the host can or cannot do, found out by trying it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Feature {
    /// What it is, in a few words.
    pub name: String,
    /// Whether it works.
    pub ok: bool,
    /// What was found, or what the kernel said.
    pub detail: Option<String>,
    /// How to get it, when it does not work.
    pub hint: Option<String>,
    /// What does not work without it.
    pub needed_for: String,
}
