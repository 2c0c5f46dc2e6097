//! What runs inside of an experiment: `cluster lab-arena` and `cluster lab-worker`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use cluster_lab::{
    arena::{self, Role},
    drive, worker,
};

use crate::{cli::error::Error, config::home::Home};

/// A part of a run of an experiment
#[derive(Args, Debug)]
pub(in crate::cli) struct LabArena {
    #[arg(value_parser = role)]
    role: Role,

    /// Where the arena keeps what it needs
    folder: Option<PathBuf>,
}

/// A worker that is as busy as its clients say
#[derive(Args, Debug)]
pub(in crate::cli) struct LabWorker {
    #[arg(long)]
    address: SocketAddr,

    #[arg(long)]
    reuse_port: bool,

    /// A socket that listens, by its descriptor
    #[arg(long)]
    inherited: Option<i32>,

    #[arg(long, default_value_t = 1024)]
    backlog: u32,

    /// What it calls itself
    #[arg(long, env = "CLUSTER_INSTANCE", default_value = "0")]
    worker_name: String,
}

impl LabArena {
    pub(in crate::cli) fn run(self) -> Result<(), Error> {
        let folder = self.folder.unwrap_or_default();
        let code = match self.role {
            Role::Keeper => arena::keep(home_id).map(|()| ExitCode::SUCCESS),
            Role::Init => arena::init::run(&folder),
            Role::Driver => drive::run(&folder).map(|()| ExitCode::SUCCESS),
        };
        match code {
            Ok(code) if code == ExitCode::SUCCESS => Ok(()),
            Ok(_) => Err(Error::failed("a run did not come to its end")),
            Err(error) => Err(Error::failed(format!("{error:#}"))),
        }
    }
}

impl LabWorker {
    pub(in crate::cli) fn run(self) -> Result<(), Error> {
        let options = worker::Options {
            address: self.address,
            reuse_port: self.reuse_port,
            inherited: self.inherited,
            backlog: self.backlog,
            name: self.worker_name,
        };
        worker::serve(&options).map_err(|error| Error::failed(format!("{error:#}")))
    }
}

fn role(name: &str) -> Result<Role, String> {
    Role::from_name(name).ok_or_else(|| "this is a part of `cluster lab run`".to_owned())
}

/// What the cgroups of a daemon with this home are called.
fn home_id(path: &Path) -> Option<String> {
    Home::at(path).ok().map(|home| home.id())
}
