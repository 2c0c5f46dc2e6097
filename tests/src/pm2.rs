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
static FOLDER: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
    let target =
        built::programs().parent().expect("programs are built in a folder of it").to_owned();
    installed("npm", &target.join("bench"))
});

/// Installs PM2 unless it is there: from a thread that is in no network of a host, which has no way out.
///
/// # Panics
/// When it cannot be had, in every test that needs it: with what that needs.
#[track_caller]
pub fn install() {
    folder();
}

#[track_caller]
fn folder() -> &'static Path {
    match &*FOLDER {
        Ok(folder) => folder,
        Err(why) => panic!("{why}"),
    }
}

/// Where `pm2` is, once a program like npm has put it below a folder.
fn installed(npm: &str, folder: &Path) -> Result<PathBuf, String> {
    let programs = folder.join("node_modules/.bin");
    if programs.join("pm2").exists() {
        return Ok(programs);
    }
    let need = |why: &str| {
        let folder = folder.display();
        format!(
            "this test needs PM2 7, which is not in {folder}, and npm could not get it: {why}\n\
             hint: with a network to the registry of npm: npm install --prefix {folder} pm2@7"
        )
    };
    fs::create_dir_all(folder).map_err(|error| need(&error.to_string()))?;
    let mut install = Command::new(npm);
    install.args(["install", "--no-fund", "--no-audit", "--no-save", "--prefix"]).arg(folder);
    let output =
        command::try_run(install.arg("pm2@7")).map_err(|error| need(&error.to_string()))?;
    match output.code {
        0 if programs.join("pm2").exists() => Ok(programs),
        0 => Err(need("it installed something else")),
        ..0 => Err(need("it was still at it when a command's time was over")),
        _ => Err(need(output.stderr.trim())),
    }
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
            .env("PATH", format!("{}:{path}", folder().display()))
            .env("PM2_DISABLE_VERSION_CHECK", "true");
        command
    }

    /// Runs `pm2` with these arguments.
    pub fn run(&self, args: &[&str]) -> command::Output {
        command::run(self.command(folder().join("pm2")).args(args))
    }
}

impl Drop for Pm2<'_> {
    fn drop(&mut self) {
        drop(command::try_run(self.command(folder().join("pm2")).arg("kill")));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn without_pm2_and_a_network_it_is_said_what_is_needed() {
        let folder = tempfile::tempdir().unwrap();
        let npm = folder.path().join("npm");
        fs::write(&npm, "#!/bin/sh\necho no network >&2\nexit 1\n").unwrap();
        fs::set_permissions(&npm, fs::Permissions::from_mode(0o755)).unwrap();
        for (npm, why) in [(npm.to_str().unwrap(), "no network"), ("/no/such/npm", "No such file")]
        {
            let said = installed(npm, &folder.path().join("bench")).unwrap_err();
            assert!(said.contains("needs PM2 7") && said.contains(why), "{said}");
            assert!(said.contains("npm install --prefix"), "{said}");
        }
    }
}
