//! `cluster scale`.

use std::str::FromStr as _;

use clap::Args;

use super::{
    error::Error,
    list, output,
    selection::Selection,
    session::{Doing, Session, block_on},
};
use crate::{
    api::message::{Request, ScaleRequest},
    config::{
        instances::{Instances, Scale as To},
        resolve,
    },
};

/// Changes the number of workers; the highest leave first, and finish what they have
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cluster scale web 8     to eight workers
  cluster scale web +2    two more
  cluster scale web -1    one fewer
  cluster scale web max   one per CPU")]
pub(super) struct Scale {
    /// Name or id of the app
    #[arg(value_name = "TARGET")]
    target: String,

    /// A number, `max`, or by how many: +N or -N
    #[arg(value_name = "N|+N|-N|max", allow_hyphen_values = true, value_parser = to)]
    to: To,

    /// Return at once
    #[arg(long)]
    no_wait: bool,

    /// Print the app as JSON, in the shape of `cluster list --json`
    #[arg(long)]
    json: bool,
}

impl Scale {
    pub(super) fn run(self) -> Result<(), Error> {
        Selection::parse(std::slice::from_ref(&self.target))?;
        if self.to == To::To(0) {
            return Err(Error::usage("an app has at least one worker")
                .hint(format!("cluster stop {} stops all of them", self.target)));
        }
        let session = Session::new()?;
        let request =
            Request::Scale(ScaleRequest { target: self.target, to: self.to, wait: !self.no_wait });
        let doing = Doing { verb: "scaling", reached: "ready" };
        let done = block_on(async {
            let mut client = session.connect().await?;
            session.carry_out(&mut client, &request, doing).await
        })?;
        if self.json {
            return Ok(output::json(&list::shared(done.apps))?);
        }
        Ok(output::answer(&list::table(&done.apps, false))?)
    }
}

fn to(text: &str) -> Result<To, String> {
    match text {
        "max" => Ok(To::To(Instances::PerCpu.resolve(resolve::cpus()))),
        text => To::from_str(text).map_err(|error| {
            // `-i` has no `+N`.
            error.to_string().replace("`max`, or `-N`", "`max`, `+N` or `-N`")
        }),
    }
}
