//! What this host can do of what kernel mode needs.

use std::path::Path;

use super::super::feature::Feature;

/// What is missing.
pub fn missing(_root: &Path) -> Vec<Feature> {
    Vec::new()
}
