//! `cluster send`.

use clap::Args;
use serde_json::Value;

use super::{
    error::Error,
    human, output,
    selection::Selection,
    session::{Doing, Session, block_on},
};
use crate::api::message::{Request, SendRequest};

/// Sends workers a message over Node's IPC channel
#[derive(Args, Debug)]
#[command(
    after_help = "The app gets it with process.on('message', m => …). Node, Bun and Deno have the channel.

Examples:
  cluster send api '{\"refresh\": true}'            m is { refresh: true }
  cluster send api:0 --raw reload-config          m is 'reload-config'
  cluster send api --topic cache '[\"users\"]'      m is { type: 'process:msg', topic: 'cache',
                                                  data: ['users'], id: 0 }, as PM2's API sends it"
)]
pub(super) struct Send {
    /// Name, id, NAME:INSTANCE, namespace, `all`, or /REGEX/
    #[arg(value_name = "TARGET")]
    target: String,

    /// The message: any JSON
    #[arg(value_name = "JSON")]
    message: String,

    /// The message is a string, as it is typed
    #[arg(long)]
    raw: bool,

    /// Put it into a packet of PM2's kind (process:msg) about this
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,

    /// Print JSON: {"sent": number of workers}
    #[arg(long)]
    json: bool,
}

impl Send {
    pub(super) fn run(self) -> Result<(), Error> {
        let targets = vec![self.target];
        Selection::parse(&targets)?;
        let message = read(&self.message, self.raw)?;
        let request = Request::Send(SendRequest { targets, message, topic: self.topic });
        let session = Session::new()?;
        let doing = Doing { verb: "sending", reached: "told" };
        let done = block_on(async {
            let mut client = session.connect().await?;
            session.carry_out(&mut client, &request, doing).await
        })?;
        if self.json {
            return Ok(output::json(&serde_json::json!({ "sent": done.sent }))?);
        }
        let workers = if done.sent == 1 { "worker" } else { "workers" };
        Ok(output::answer(&format!("sent to {} {workers}", done.sent))?)
    }
}

fn read(typed: &str, raw: bool) -> Result<Value, Error> {
    if raw {
        return Ok(typed.into());
    }
    serde_json::from_str(typed).map_err(|error| {
        let shown: String = human::plain(typed).chars().take(60).collect();
        Error::usage(format!("`{shown}` is no JSON: {error}"))
            .hint("quote it for the shell, '{\"key\": 1}'; or send it as a string with --raw")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_json_or_raw() {
        assert_eq!(read("{\"a\":[1]}", false).unwrap(), serde_json::json!({"a": [1]}));
        assert_eq!(read("\"x\"", false).unwrap(), serde_json::json!("x"));
        assert_eq!(read("\"x\"", true).unwrap(), serde_json::json!("\"x\""));
        let error = read("shutdown now", false).unwrap_err();
        assert!(error.message.contains("is no JSON"), "{}", error.message);
        assert!(error.hint.unwrap().contains("--raw"));
    }
}
