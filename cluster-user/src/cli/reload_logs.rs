//! `cluster reloadLogs`.

use clap::Args;

use super::{
    error::Error,
    output,
    session::{Doing, Session, block_on},
};
use crate::api::message::Request;

/// Opens all log files anew, after something has renamed them
#[derive(Args, Debug)]
#[command(after_help = "Example: cluster reloadLogs

For logrotate and the like: signal SIGUSR2 to the daemon does the same. A file that was renamed or
removed is noticed within a second of output in any case. cluster rotates log files itself: see
--log-max-size of `cluster start`.")]
pub(super) struct ReloadLogs {}

impl ReloadLogs {
    pub(super) fn run() -> Result<(), Error> {
        let session = Session::new()?;
        let doing = Doing { verb: "opening log files", reached: "opened" };
        block_on(async {
            let mut client = session.connect().await?;
            session.carry_out(&mut client, &Request::Reopen, doing).await
        })?;
        Ok(output::answer("log files are opened anew")?)
    }
}
