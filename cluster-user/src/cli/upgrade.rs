//! `cluster upgrade`: another program as the daemon, while the workers go on.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::{
    error::Error,
    output,
    session::{self, Doing, Session, block_on},
};
use crate::{
    api::{
        message::{HandOverRequest, Pong, Request, UpgradeRequest},
        socket::Lock,
    },
    config::home::Home,
    supervisor::{journal, succession},
};

/// How long the new program may take until it answers.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(2);

/// Has the daemon become this program, or another; workers and connections do not notice
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cluster upgrade                               to the release of this command
  cluster upgrade --program /opt/new/cluster    to another program

Install the new release in the place of the old one, then: cluster upgrade
The service that cluster startup has set up goes on too: its process stays the same.")]
pub(super) struct Upgrade {
    /// The program to become; by default the one that this command is
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
}

/// What a program could take over from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct What {
    release: String,
    journal: u32,
}

impl What {
    /// What this program could take over from.
    pub(super) fn own() -> Self {
        Self { release: env!("CARGO_PKG_VERSION").to_owned(), journal: journal::FORMAT }
    }

    fn of(program: &Path) -> Result<Self, Error> {
        let shown = program.display();
        let output = Command::new(program).args(["daemon", "--what"]).output();
        let output =
            output.map_err(|error| Error::failed(format!("failed to run `{shown}`: {error}")))?;
        serde_json::from_slice(&output.stdout).map_err(|_no_json| {
            Error::failed(format!("`{shown}` is no cluster program, or one from before upgrades"))
                .hint("give the path of a cluster program")
        })
    }
}

impl Upgrade {
    pub(super) fn run(self) -> Result<(), Error> {
        let session = Session::new()?;
        let (program, what) = match self.program {
            None => (succession::own_program(), What::own()),
            Some(typed) => {
                let program = typed.canonicalize().map_err(|error| {
                    Error::failed(format!("failed to find `{}`: {error}", typed.display()))
                })?;
                let what = What::of(&program)?;
                (program, what)
            }
        };
        let began = Instant::now();
        let (before, after) = block_on(upgrade(&session, program, what))?;
        let (pid, release, away) = (after.pid, after.release, began.elapsed().as_millis());
        let from = if before.release == release {
            String::new()
        } else {
            format!(", from {}", before.release)
        };
        output::answer(&format!(
            "the daemon (pid {pid}) is release {release} now{from}; it was away for {away} ms, its workers were not"
        ))?;
        after.found.iter().for_each(output::notice);
        Ok(())
    }
}

async fn upgrade(session: &Session, program: PathBuf, what: What) -> Result<(Pong, Pong), Error> {
    let mut client = session.connect().await?;
    let before = session::ping(&mut client).await?;
    let asked = Instant::now();
    let request = UpgradeRequest { program, release: what.release, journal: what.journal };
    let doing = Doing { verb: "upgrading", reached: "taken over" };
    session.carry_out(&mut client, &Request::Upgrade(request), doing).await?;
    drop(client);
    while asked.elapsed() < PATIENCE {
        // Until it is there, nobody answers, or the one that is about to go does.
        if let Ok(Some(mut client)) = session.find().await
            && let Ok(after) = session::ping(&mut client).await
            && Duration::from_millis(after.uptime_ms) <= asked.elapsed()
        {
            return Ok((before, after));
        }
        sleep(LOOK).await;
    }
    Err(Error::failed("the daemon does not answer as the new program")
        .hint(format!("see {}; its workers run on", session.home.daemon_log().display())))
}

/// Asks the daemon that runs, if one does, to leave everything to this process.
pub(super) fn replace() -> Result<(), Error> {
    let session = Session::new()?;
    let What { release, journal } = What::own();
    let asked = block_on(async {
        let Some(mut client) = session.find().await? else { return Ok(false) };
        let doing = Doing { verb: "taking over", reached: "taken over" };
        let request = Request::HandOver(HandOverRequest { release, journal });
        session.carry_out(&mut client, &request, doing).await?;
        Ok(true)
    })?;
    if asked { wait_for_its_end(&session.home) } else { Ok(()) }
}

fn wait_for_its_end(home: &Home) -> Result<(), Error> {
    let began = Instant::now();
    while Lock::is_held(home) {
        if began.elapsed() > PATIENCE {
            return Err(Error::failed("the daemon that runs does not end"));
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}
