//! The real PM2, for tests of moving away from it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use crate::{built, command, host::Host};

/// A PM2 with its folder in the host's `HOME`; it is ended with this.
#[derive(Debug)]
pub struct Pm2<'a> {
    host: &'a Host,
}

/// Where the benchmarks keep theirs, too; installed there when it is not.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let target =
        built::programs().parent().expect("programs are built in a folder of it").to_owned();
    let folder = target.join("bench");
    if !folder.join("node_modules/.bin/pm2").exists() {
        fs::create_dir_all(&folder).expect("failed to create a folder");
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-fund", "--no-audit", "--no-save", "--prefix"]).arg(&folder);
        drop(command::run(npm.arg("pm2@7")).ok());
    }
    folder.join("node_modules/.bin")
});

/// Installs PM2 unless it is there: from a thread that is in no network of a host, which has no way out.
pub fn install() {
    LazyLock::force(&FOLDER);
}

impl<'a> Pm2<'a> {
    /// PM2 on a host, not running yet; [`install`] comes before there is a host.
    pub fn on(host: &'a Host) -> Self {
        Self { host }
    }

    /// A command that finds `pm2` on its `PATH`.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = self.host.command(program);
        let path = command.get_envs().find(|(key, _)| *key == "PATH").and_then(|(_, path)| path);
        let path = path.expect("commands of a host have one").to_string_lossy().into_owned();
        command
            .env("PATH", format!("{}:{path}", FOLDER.display()))
            .env("PM2_DISABLE_VERSION_CHECK", "true");
        command
    }

    /// Runs `pm2` with these arguments.
    pub fn run(&self, args: &[&str]) -> command::Output {
        command::run(self.command(FOLDER.join("pm2")).args(args))
    }
}

impl Drop for Pm2<'_> {
    fn drop(&mut self) {
        drop(command::try_run(self.command(FOLDER.join("pm2")).arg("kill")));
    }
}
