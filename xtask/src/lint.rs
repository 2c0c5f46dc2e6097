//! `xtask lint`: formatting, clippy, the repository's own rules, and documentation.

use crate::{step, tidy};

/// Runs every check; the first that fails ends it.
pub(crate) fn run() -> anyhow::Result<()> {
    step::run(&mut step::cargo(["fmt", "--all", "--check"]))?;
    step::run(&mut step::cargo([
        "clippy",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--",
        "--deny",
        "warnings",
    ]))?;
    tidy::run()?;
    step::run(
        step::cargo(["doc", "--workspace", "--no-deps", "--document-private-items"])
            .env("RUSTDOCFLAGS", "--deny warnings"),
    )
}
