//! `cluster ping`.

use clap::Args;

use super::{
    error::Error,
    human, list, output,
    session::{self, Session, block_on},
};

/// Asks the daemon whether it is alive
#[derive(Args, Debug)]
#[command(after_help = "Example: cluster ping

With --json: an object with version, release, pid, home, mode, missing, uptime_ms")]
pub(super) struct Ping {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Ping {
    pub(super) fn run(self) -> Result<(), Error> {
        let session = Session::new()?;
        let pong = block_on(async { session::ping(&mut session.connect().await?).await })?;
        if self.json {
            return Ok(output::json(&pong)?);
        }
        let text = format!(
            "pong\npid      {}\nrelease  {}\nmode     {}\nuptime   {}\nhome     {}",
            pong.pid,
            human::plain(&pong.release),
            list::mode(pong.mode),
            human::uptime(pong.uptime_ms),
            pong.home.display(),
        );
        output::answer(&text)?;
        pong.missing.iter().chain(&pong.found).for_each(output::notice);
        Ok(())
    }
}
