//! `xtask run`: builds what a user runs, then becomes `cluster` with the demonstration app on its PATH.

use std::{
    env,
    ffi::OsString,
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use nix::unistd::geteuid;

use crate::step;

/// The source of the demonstration app.
const DEMONSTRATION: &str = "cluster-user/examples/app.rs";

/// Does not return when `cluster` could be executed: its exit code is the task's.
pub(crate) fn run(args: &[OsString]) -> anyhow::Result<()> {
    let built = step::target().join("release");
    if !built.join("cluster").exists() {
        eprintln!("▸ the first build takes three to four minutes on two CPUs, later ones seconds");
    }
    step::run(&mut programs())?;
    let app = demonstration(&built)?;
    let mut cluster = Command::new(built.join("cluster"));
    if args.is_empty() {
        cluster.arg("--help");
    }
    cluster.args(args).env("PATH", path_of(&[&app, &built])?);
    if !geteuid().is_root() {
        eprintln!(
            "hint: without root, connections are spread by the kernel's hash; for exact round robin: \
             sudo env \"PATH=$PATH\" cargo xtask run -- …"
        );
    }
    Err(cluster.exec())
        .with_context(|| format!("failed to execute {}", built.join("cluster").display()))
}

/// Builds the programs a user runs. Examples are none of them: with the first of these cargo builds all that the tests need.
fn programs() -> Command {
    step::cargo(["build", "--release", "--package", "cluster-user", "--bins"])
}

/// Builds the demonstration app, which needs nothing but the standard library. Returns the folder it is in.
fn demonstration(built: &Path) -> anyhow::Result<PathBuf> {
    let folder = built.join("demonstration");
    let (source, program) = (step::root().join(DEMONSTRATION), folder.join("app"));
    let changed = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    if changed(&program).is_some_and(|program| Some(program) > changed(&source)) {
        return Ok(folder);
    }
    fs::create_dir_all(&folder)
        .with_context(|| format!("failed to create {}", folder.display()))?;
    let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    // The edition that `Cargo.toml` says.
    rustc.args(["--edition", "2024", "-O", "-o"]).arg(&program).arg(&source);
    step::run(&mut rustc)?;
    Ok(folder)
}

/// Builds the programs a user runs, and the examples that benchmarks and chaos start.
pub(crate) fn build() -> anyhow::Result<()> {
    step::run(programs().arg("--examples"))
}

/// PATH with the examples first, then `cluster` itself: `start app` finds `app` as it finds any program.
pub(crate) fn path_with(built: &Path) -> anyhow::Result<OsString> {
    path_of(&[&built.join("examples"), built])
}

fn path_of(folders: &[&Path]) -> anyhow::Result<OsString> {
    let inherited = env::var_os("PATH").unwrap_or_default();
    let folders = folders.iter().map(|folder| folder.to_path_buf());
    env::join_paths(folders.chain(env::split_paths(&inherited)))
        .context("failed to put the built programs on PATH")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_user_runs_is_built_without_what_tests_need() {
        let shown = step::show(&programs());
        assert!(shown.contains("--bins") && !shown.contains("--example"), "{shown}");
    }

    #[test]
    fn the_demonstration_needs_no_package() {
        let built = tempfile::tempdir().unwrap();
        let folder = demonstration(built.path()).unwrap();
        assert!(folder.join("app").is_file());
    }
}
