//! System: what starts services on this host, and how it is told to.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use clap::ValueEnum;
use nix::unistd::{Uid, User};

use super::{
    super::{error::Error, output},
    file::File,
    not_permitted, script,
    service::{Owner, Service},
    unit,
};
use crate::api::message::Notice;

/// What starts services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum System {
    /// Most distributions
    Systemd,
    /// Alpine, Gentoo
    Openrc,
    /// Scripts in /etc/init.d
    #[value(alias = "systemv", alias = "sysvinit")]
    Sysv,
}

/// What this host has.
pub(super) fn detect() -> Option<System> {
    let is_there = |path: &str| Path::new(path).exists();
    // sd_booted(3).
    if is_there("/run/systemd/system") {
        Some(System::Systemd)
    } else if is_there("/run/openrc") || is_there("/sbin/openrc-run") {
        Some(System::Openrc)
    } else if is_there("/etc/init.d") && (is_there("/sbin/init") || is_there("/etc/inittab")) {
        Some(System::Sysv)
    } else {
        None
    }
}

impl System {
    /// The file that it reads.
    pub(super) fn file(self, service: &Service) -> Result<File, Error> {
        let name = &service.name;
        match (self, &service.owner) {
            (Self::Systemd, Owner::Own) => {
                let path = units_of_user()?.join(format!("{name}.service"));
                Ok(File::new(path, &unit::unit(service), 0o644))
            }
            (Self::Systemd, Owner::Root | Owner::Other(_)) => {
                let path = format!("/etc/systemd/system/{name}.service");
                Ok(File::new(path.into(), &unit::unit(service), 0o644))
            }
            (Self::Openrc | Self::Sysv, Owner::Own) => {
                Err(not_permitted("make a service here").hint("sudo cluster startup -u $USER"))
            }
            (Self::Openrc, Owner::Root | Owner::Other(_)) => {
                Ok(File::new(format!("/etc/init.d/{name}").into(), &script::openrc(service), 0o755))
            }
            (Self::Sysv, Owner::Root | Owner::Other(_)) => {
                Ok(File::new(format!("/etc/init.d/{name}").into(), &script::sysv(service), 0o755))
            }
        }
    }

    /// Has the service started now and at every boot.
    pub(super) fn enable(self, service: &Service) -> Result<(), Error> {
        let name = service.name.as_str();
        match self {
            Self::Systemd => {
                systemctl(service, &["daemon-reload"])?;
                let unit = format!("{name}.service");
                systemctl(service, &["enable", "--quiet", &unit])?;
                systemctl(service, &["start", &unit]).map_err(|error| {
                    let user = if is_own(service) { "--user " } else { "" };
                    error.hint(format!("journalctl {user}-u {name} shows why"))
                })?;
                if is_own(service) {
                    linger();
                }
                Ok(())
            }
            Self::Openrc => {
                run("rc-update", &["add", name, "default"])?;
                run("rc-service", &[name, "start"])
            }
            Self::Sysv => {
                match run("update-rc.d", &[name, "defaults"]) {
                    // The tool of other distributions.
                    Err(_) if find("chkconfig").is_some() => run("chkconfig", &["--add", name])?,
                    other => other?,
                }
                run(&format!("/etc/init.d/{name}"), &["start"])
            }
        }
    }

    /// Has the service not started at the next boot. What runs goes on.
    pub(super) fn disable(self, service: &Service) -> Result<(), Error> {
        let name = service.name.as_str();
        match self {
            Self::Systemd => {
                systemctl(service, &["disable", "--quiet", &format!("{name}.service")])
            }
            Self::Openrc => run("rc-update", &["delete", name, "default"]),
            Self::Sysv => match run("update-rc.d", &["-f", name, "remove"]) {
                Err(_) if find("chkconfig").is_some() => run("chkconfig", &["--del", name]),
                other => other,
            },
        }
    }

    /// Tells it that the file is gone.
    pub(super) fn forget(self, service: &Service) -> Result<(), Error> {
        match self {
            Self::Systemd => systemctl(service, &["daemon-reload"]),
            Self::Openrc | Self::Sysv => Ok(()),
        }
    }

    /// The command that shows how the service is.
    pub(super) fn status(self, service: &Service) -> String {
        let name = &service.name;
        match self {
            Self::Systemd if is_own(service) => format!("systemctl --user status {name}"),
            Self::Systemd => format!("systemctl status {name}"),
            Self::Openrc => format!("rc-service {name} status"),
            Self::Sysv => format!("/etc/init.d/{name} status"),
        }
    }
}

fn is_own(service: &Service) -> bool {
    matches!(service.owner, Owner::Own)
}

fn units_of_user() -> Result<PathBuf, Error> {
    let set = |key: &str| env::var_os(key).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")));
    let folder = folder.ok_or_else(|| {
        Error::failed("no home folder: neither HOME nor XDG_CONFIG_HOME is set").hint("set HOME")
    })?;
    Ok(folder.join("systemd/user"))
}

fn systemctl(service: &Service, args: &[&str]) -> Result<(), Error> {
    if !is_own(service) {
        return run("systemctl", args);
    }
    let mut all = vec!["--user"];
    all.extend(args);
    run("systemctl", &all).map_err(|error| {
        error.hint("log in as that user, not through su; or: sudo cluster startup -u USER")
    })
}

/// Has the user's systemd run from boot on, and after the last logout.
fn linger() {
    let name = User::from_uid(Uid::effective()).ok().flatten().map(|user| user.name);
    let name = name.unwrap_or_default();
    if Path::new("/var/lib/systemd/linger").join(&name).exists() {
        return;
    }
    if run("loginctl", &["enable-linger"]).is_err() {
        output::notice(&Notice {
            message: "the service runs only while you are logged in".to_owned(),
            hint: Some(format!("sudo loginctl enable-linger {name}")),
        });
    }
}

/// Where a tool of administrators is.
fn find(tool: &str) -> Option<PathBuf> {
    let path = env::var("PATH").unwrap_or_default();
    // Those who come through `su` do not have these.
    which::which_in(tool, Some(format!("{path}:/usr/sbin:/sbin")), "/").ok()
}

fn run(tool: &str, args: &[&str]) -> Result<(), Error> {
    let Some(path) = find(tool) else {
        return Err(Error::failed(format!("`{tool}` is not there"))
            .hint("say what starts services on this host: cluster startup --help"));
    };
    let mut command = Command::new(path);
    command.args(args).stdin(Stdio::null());
    if args.first() == Some(&"--user") && env::var_os("XDG_RUNTIME_DIR").is_none() {
        command.env("XDG_RUNTIME_DIR", format!("/run/user/{}", Uid::effective()));
    }
    let shown = format!("{tool} {}", args.join(" "));
    let output = command
        .output()
        .map_err(|error| Error::failed(format!("failed to run `{shown}`: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let mut error = Error::failed(format!("`{shown}` failed, with {}", output.status));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    error.output = said.lines().map(str::to_owned).collect();
    Err(error)
}
