//! `cluster kill`.

use std::{fs, time::Duration};

use clap::Args;
use tokio::time::{sleep, timeout};

use super::{
    error::Error,
    output,
    session::{Doing, Session, apps, block_on},
};
use crate::{
    api::{
        client::Client,
        message::{Detail, KillRequest, Request},
        socket::Lock,
    },
    config::spec::hooks::Hook,
    process::watch,
    supervisor::guardian,
};

/// How long the daemon may take to end after it has answered.
const ENDING: Duration = Duration::from_secs(10);
/// The same without an answer: it may have broken off because the daemon was ending already.
const BROKEN_OFF: Duration = Duration::from_secs(1);
/// How long its process may take to go when the daemon has let go of everything.
const LAST_MOMENT: Duration = Duration::from_secs(1);
/// How often it is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(5);

/// Stops every app and ends the daemon
#[derive(Args, Debug)]
#[command(after_help = "Example: cluster kill

Afterwards only what cluster save wrote down is remembered: cluster resurrect starts it again. Log
files stay in CLUSTER_HOME.")]
pub(super) struct Kill {}

impl Kill {
    pub(super) fn run() -> Result<(), Error> {
        let session = Session::new()?;
        let running = block_on(kill(&session))?;
        let said = if running {
            "all apps are stopped, and the daemon has ended"
        } else {
            "no daemon is running"
        };
        Ok(output::answer(said)?)
    }
}

/// Whether there was a daemon. When this returns, there is none.
async fn kill(session: &Session) -> Result<bool, Error> {
    let Some(mut client) = session.find().await? else { return Ok(false) };
    // It holds the lock as long as it answers, and so it is the one whose pid is in there.
    let pid = fs::read_to_string(session.home.lock()).unwrap_or_default();
    let pid = pid.trim().parse().ok().filter(|_| Lock::is_held(&session.home));
    let guardian = pid.and_then(guardian::of);
    let processes: Vec<_> =
        pid.into_iter().chain(guardian).filter_map(|pid| watch::end_of(pid).ok()).collect();
    let ending = ENDING + last_hooks(&mut client).await;
    let doing = Doing { verb: "stopping", reached: "stopped" };
    let carried_out = session.carry_out(&mut client, &Request::Kill(KillRequest {}), doing).await;
    let patience = if carried_out.is_ok() { ending } else { BROKEN_OFF };
    let ended = timeout(patience, async {
        while Lock::is_held(&session.home) {
            sleep(LOOK).await;
        }
    });
    if ended.await.is_err() {
        carried_out?;
        let error = Error::failed(format!("the daemon does not end within {} s", ending.as_secs()));
        // The guardian first: it would start the daemon again.
        let pids: Vec<_> = guardian.into_iter().chain(pid).map(|pid| pid.to_string()).collect();
        let pids = pids.join(" ");
        return Err(error.hint(format!("kill -9 {pids} ends it, and leaves its apps running")));
    }
    // It has let go of everything by now; its process takes a moment more, and its guardian another. One in another
    // pid namespace cannot be seen.
    for process in processes {
        drop(timeout(LAST_MOMENT, process).await);
    }
    // That it is gone is what was wanted, whether or not its answer arrived.
    Ok(true)
}

/// How long the daemon may wait for hooks after the last worker has ended.
async fn last_hooks(client: &mut Client) -> Duration {
    // Whoever cannot say is ended all the same.
    let apps = apps(client, &[], Detail::Usual).await.unwrap_or_default();
    let hooks = apps.iter().map(|app| &app.spec.hooks);
    let waited = hooks.filter(|hooks| {
        [Hook::PostReady, Hook::PostStop, Hook::OnFailure]
            .into_iter()
            .any(|hook| hooks.line(hook).is_some())
    });
    waited.map(|hooks| hooks.timeout).max().unwrap_or_default()
}
