//! `cluster sendSignal`, also `cluster signal`.

use clap::Args;

use super::{
    error::Error,
    human, list, output,
    selection::Selection,
    session::{Doing, Session, block_on},
};
use crate::{
    api::message::{AppView, Request, SignalRequest},
    config::signal::StopSignal,
};

/// Sends a signal to the main process of workers
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cluster sendSignal SIGUSR2 web    to every worker of web
  cluster signal HUP web:1 api      to one worker of web, and to api
  cluster signal web HUP            this order is understood too
  cluster signal --tree USR1 web    to every process that the workers have started

A signal is a name, with SIG or without, or a number. What follows is the worker's business: one
that ends is started again like any other; cluster stop and cluster restart do that in good order.

With --json: the apps concerned, in the shape of `cluster list --json`")]
pub(super) struct Signal {
    /// The signal, then names, ids, NAME:INSTANCE, namespaces, `all`, or /REGEX/
    #[arg(required = true, num_args = 2.., value_names = ["SIGNAL", "TARGET"])]
    words: Vec<String>,

    /// To all processes of a worker, not only the main one
    #[arg(long)]
    tree: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Signal {
    pub(super) fn run(self) -> Result<(), Error> {
        let (signal, targets) = order(self.words)?;
        Selection::parse(&targets)?;
        let session = Session::new()?;
        let request = SignalRequest { targets, signal: signal.0, tree: self.tree };
        let done = block_on(async {
            let mut client = session.connect().await?;
            let doing = Doing { verb: "signalling", reached: "signalled" };
            session.carry_out(&mut client, &Request::Signal(request), doing).await
        })?;
        if self.json {
            return Ok(output::json(&list::shared(done.apps))?);
        }
        let name = |app: &AppView| human::plain(&app.name);
        let names: Vec<_> = done.apps.iter().map(name).collect();
        Ok(output::answer(&format!("sent {signal} to {}", names.join(", ")))?)
    }
}

/// Signal and targets. PM2 has the signal first; whoever types it last means the same.
fn order(mut words: Vec<String>) -> Result<(StopSignal, Vec<String>), Error> {
    let refused = match words.first().map(|word| word.parse::<StopSignal>()) {
        Some(Ok(signal)) => {
            words.remove(0);
            return Ok((signal, words));
        }
        Some(Err(error)) => error,
        None => return Err(Error::usage("no signal and no target are named")),
    };
    match words.pop().map(|word| word.parse::<StopSignal>()) {
        Some(Ok(signal)) if !words.is_empty() => Ok((signal, words)),
        Some(Ok(_) | Err(_)) | None => {
            Err(Error::usage(refused.to_string()).hint("cluster sendSignal SIGNAL TARGET"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signal_may_come_first_or_last() {
        let order = |line: &str| order(line.split(' ').map(str::to_owned).collect());
        let (signal, targets) = order("SIGUSR2 web api:1").unwrap();
        assert_eq!((signal.to_string().as_str(), targets.len()), ("SIGUSR2", 2));
        let (signal, targets) = order("web hup").unwrap();
        assert_eq!((signal.to_string(), targets), ("SIGHUP".to_owned(), vec!["web".to_owned()]));
        // An app may be called as a signal is, or by its number.
        assert_eq!(order("9 15").unwrap(), (StopSignal(9), vec!["15".to_owned()]));
        let error = order("SIGNOPE web").unwrap_err();
        assert!(error.message.contains("SIGNOPE"), "{}", error.message);
        assert!(order("SIGNOPE nope").unwrap_err().hint.is_some());
    }
}
