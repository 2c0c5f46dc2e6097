//! `cluster kill`.

use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, sleep};

use super::{
    error::Error,
    output,
    session::{Doing, Session, block_on},
};
use crate::api::{
    message::{KillRequest, Request},
    socket::Lock,
};

/// How long the daemon may take to end after it has answered.
const ENDING: Duration = Duration::from_secs(10);
/// How often it is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(5);

/// Stops every app and ends the daemon
#[derive(Args, Debug)]
#[command(
    after_help = "Nothing remembers the apps afterwards: start them anew. Their log files stay in CLUSTER_HOME."
)]
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
    let doing = Doing { verb: "stopping", reached: "stopped" };
    let carried_out = session.carry_out(&mut client, &Request::Kill(KillRequest {}), doing).await;
    let deadline = Instant::now() + if carried_out.is_ok() { ENDING } else { Duration::ZERO };
    while Lock::is_held(&session.home) {
        if Instant::now() >= deadline {
            carried_out?;
            let pid = std::fs::read_to_string(session.home.lock()).unwrap_or_default();
            let error =
                Error::failed(format!("the daemon does not end within {} s", ENDING.as_secs()));
            return Err(
                error.hint(format!("kill -9 {} ends it, and leaves its apps running", pid.trim()))
            );
        }
        sleep(LOOK).await;
    }
    // That it is gone is what was wanted, whether or not its answer arrived.
    Ok(true)
}
