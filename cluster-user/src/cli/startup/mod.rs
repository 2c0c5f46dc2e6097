//! `cluster startup` and `cluster unstartup`: the daemon as a service of the host.

mod file;
mod script;
mod service;
mod system;
mod unit;

use clap::Args;

use self::{
    file::{Change, File},
    service::{Owner, Service},
    system::System,
};
use super::{error::Error, exit::Exit, output};

const ABOUT: &str = "Examples:
  sudo cluster startup              what is saved starts at boot from now on
  cluster startup --dry-run         shows the file that it would write

As root: a service of the host; with -u for another user. As any other user: a service of that
user's own systemd, which also runs while nobody is logged in (loginctl enable-linger).

A daemon that runs in the background already hands its apps over to the service, which loses
nothing. At boot the service starts the apps that cluster save wrote down.

  systemctl reload cluster     reloads all apps without losing a connection
  systemctl stop cluster       lets workers finish, stops every app and ends the daemon
  systemctl restart cluster    stops and starts everything: saved apps come back, others do not
  cluster upgrade              has the running service become another release; its workers run on

A file that was edited is kept, and what differs is shown; --force writes it anew.";

/// Has the apps that were saved started at every boot
#[derive(Args, Debug)]
#[command(after_help = ABOUT)]
pub(super) struct Startup {
    #[command(flatten)]
    which: Which,

    /// Print the file, and change nothing
    #[arg(long)]
    dry_run: bool,

    /// Write the file even if it was edited
    #[arg(long, short)]
    force: bool,
}

/// Undoes `startup`; apps that run go on
#[derive(Args, Debug)]
#[command(after_help = "Example: sudo cluster unstartup")]
pub(super) struct Unstartup {
    #[command(flatten)]
    which: Which,

    /// Remove the file even if it was edited
    #[arg(long, short)]
    force: bool,
}

/// Which service.
#[derive(Args, Debug)]
pub(super) struct Which {
    /// What starts services on this host; found out by default
    #[arg(value_enum, value_name = "SYSTEM")]
    system: Option<System>,

    /// The user whose apps they are; by default the one who runs this
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,

    /// Name of the service; by default `cluster`, or `cluster-USER` for another user
    #[arg(long, value_name = "NAME")]
    service_name: Option<String>,

    /// Home folder of that user, if not the usual one
    #[arg(long, value_name = "PATH")]
    hp: Option<std::path::PathBuf>,
}

impl Which {
    fn system(&self) -> Result<System, Error> {
        let system = self.system.or_else(system::detect).ok_or_else(|| {
            Error::failed("it is not clear what starts services on this host").hint(
                "say which: cluster startup systemd, openrc, or sysv; in a container, none does",
            )
        })?;
        Ok(system)
    }

    fn service(&self) -> Result<Service, Error> {
        Service::new(self.user.as_deref(), self.service_name.as_deref(), self.hp.clone())
    }
}

impl Startup {
    pub(super) fn run(self) -> Result<(), Error> {
        let system = self.which.system()?;
        let service = self.which.service()?;
        let file = system.file(&service)?;
        if let Some(doubt) = service.doubt_of_program() {
            output::notice(&doubt);
        }
        if self.dry_run {
            output::quiet(&format!("# {}", file.path.display()));
            return Ok(output::answer(&file.text)?);
        }
        service.create_home()?;
        let change = write(&file, self.force)?;
        system.enable(&service)?;
        let path = file.path.display();
        let what = match change {
            Change::Made => format!("wrote {path}"),
            Change::Replaced => format!("wrote {path} anew, which takes effect at the next start"),
            Change::None => format!("{path} is as it should be"),
        };
        output::answer(&format!(
            "{what}\nservice {} is started now and at every boot",
            service.name
        ))?;
        let status = system.status(&service);
        let user = match &service.owner {
            Owner::Other(user) => format!("sudo -u {user} "),
            Owner::Root | Owner::Own => String::new(),
        };
        output::quiet(&format!("next: {user}cluster save   {status}"));
        Ok(())
    }
}

fn write(file: &File, force: bool) -> Result<Change, Error> {
    if !force && let Some(difference) = file.edited()? {
        output::answer(&difference)?;
        let path = file.path.display();
        return Err(Error::failed(format!(
            "{path} was edited, and is kept; above is what differs"
        ))
        .hint("cluster startup --force writes it anew"));
    }
    file.write()
}

impl Unstartup {
    pub(super) fn run(self) -> Result<(), Error> {
        let system = self.which.system()?;
        let service = self.which.service()?;
        let file = system.file(&service)?;
        let path = file.path.display();
        if !file.exists() {
            return Err(Error::failed(format!("there is no {path}"))
                .hint("with --service-name or -u it may be another"));
        }
        if !self.force && file.edited()?.is_some() {
            return Err(Error::failed(format!("{path} was edited, and is kept"))
                .hint("cluster unstartup --force removes it"));
        }
        system.disable(&service)?;
        file.remove()?;
        system.forget(&service)?;
        output::answer(&format!("removed {path}; nothing is started at boot any more"))?;
        output::quiet("apps that run go on; cluster kill stops them");
        Ok(())
    }
}

fn not_permitted(what: &str) -> Error {
    Error::new(Exit::NotPermitted, format!("only root can {what}"))
}
