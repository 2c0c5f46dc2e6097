//! `cluster version`.

use clap::Args;

use super::{
    error::Error,
    human, output,
    session::{self, Session, block_on},
};

/// Prints the release of this command and of the daemon
#[derive(Args, Debug)]
#[command(after_help = "Example: cluster version

With --json: an object with cluster and daemon, the latter null without a daemon")]
pub(super) struct Version {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Version {
    pub(super) fn run(self) -> Result<(), Error> {
        let own = env!("CARGO_PKG_VERSION");
        let session = Session::new()?;
        let daemon = block_on(async {
            let Some(mut client) = session.find().await? else { return Ok(None) };
            Ok(Some(session::ping(&mut client).await?.release))
        })?;
        if self.json {
            return Ok(output::json(&serde_json::json!({ "cluster": own, "daemon": daemon }))?);
        }
        let daemon = daemon.map_or_else(|| "none is running".to_owned(), |it| human::plain(&it));
        Ok(output::answer(&format!("cluster  {own}\ndaemon   {daemon}"))?)
    }
}
