//! `xtask run`: builds everything, then becomes `cluster` with the built examples on its PATH.

use std::{env, ffi::OsString, os::unix::process::CommandExt as _, path::Path, process::Command};

use anyhow::Context as _;
use nix::unistd::geteuid;

use crate::step;

/// Does not return when `cluster` could be executed: its exit code is the task's.
pub(crate) fn run(args: &[OsString]) -> anyhow::Result<()> {
    build()?;
    let built = step::target().join("release");
    let mut cluster = Command::new(built.join("cluster"));
    if args.is_empty() {
        cluster.arg("--help");
    }
    cluster.args(args).env("PATH", path_with(&built)?);
    if !geteuid().is_root() {
        eprintln!(
            "hint: without root, connections are spread by the kernel's hash; for exact round robin: \
             sudo env \"PATH=$PATH\" cargo xtask run -- …"
        );
    }
    Err(cluster.exec())
        .with_context(|| format!("failed to execute {}", built.join("cluster").display()))
}

/// The programs a user runs, and the examples they are tried with.
pub(crate) fn build() -> anyhow::Result<()> {
    let args = ["build", "--release", "--package", "cluster-user", "--bins", "--examples"];
    step::run(&mut step::cargo(args))
}

/// PATH with the examples first, then `cluster` itself: `start app` finds `app` as it finds any program.
pub(crate) fn path_with(built: &Path) -> anyhow::Result<OsString> {
    let inherited = env::var_os("PATH").unwrap_or_default();
    let folders = [built.join("examples"), built.to_owned()];
    env::join_paths(folders.into_iter().chain(env::split_paths(&inherited)))
        .context("failed to put the built programs on PATH")
}
