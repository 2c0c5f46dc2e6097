//! `cluster metrics`.

use std::net::SocketAddr;

use clap::Args;

use super::{
    error::Error,
    output,
    session::{Session, block_on, nonsense},
};
use crate::{
    api::{
        message::{ExportRequest, ExporterView, Line, Notice, Request},
        metrics,
    },
    config,
};

/// Prints what is counted, as Prometheus reads it; or has the daemon serve that over TCP
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cluster metrics                            what Prometheus would get
  cluster metrics --listen 9400              from now on on http://127.0.0.1:9400/metrics too
  cluster metrics --listen off               on the daemon's socket only again
  curl --unix-socket /var/lib/cluster/cluster.sock http://cluster/metrics

Beside /metrics there are /healthz (the daemon answers) and /readyz (every app that should run has
all its workers online, else 503 and their names; /readyz?app=NAME for one), and nothing else.
The address is kept: upgrades, crashes and boots do not lose it. CLUSTER_METRICS in the daemon's
environment goes before it. Anybody who can reach the address can read everything there.")]
pub(super) struct Metrics {
    /// Where to serve them: ADDRESS:PORT, a PORT of this host only, or off; without one, says where
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "")]
    listen: Option<String>,

    /// Print a table of all there are, in Markdown
    #[arg(long, conflicts_with = "listen")]
    names: bool,
}

impl Metrics {
    pub(super) fn run(self) -> Result<(), Error> {
        if self.names {
            return Ok(output::answer(&metrics::document())?);
        }
        let session = Session::new()?;
        let Some(listen) = self.listen else {
            let text = block_on(async { Ok(session.connect().await?.text("/metrics").await?) })?;
            return Ok(output::answer(&text)?);
        };
        let mut open = None;
        let request = if listen.is_empty() {
            Request::Exporter
        } else {
            // What makes no sense is found out before there is a daemon.
            let address = config::metrics::parse(&listen).map_err(|error| {
                Error::usage(error).hint("such as: cluster metrics --listen 9400")
            })?;
            open = address.filter(is_open);
            Request::Export(ExportRequest { listen })
        };
        let is_set = matches!(request, Request::Export(_));
        let view = block_on(async {
            // It may be set before there are apps.
            let mut client =
                if is_set { session.connect_or_launch().await? } else { session.connect().await? };
            match client.send(&request).await?.next().await? {
                Some(Line::Exporter(view)) => Ok(view),
                Some(Line::Failed(failure)) => Err(failure.into()),
                Some(
                    Line::Progress(_)
                    | Line::Rolling(_)
                    | Line::Notice(_)
                    | Line::Done(_)
                    | Line::Pong(_)
                    | Line::Event(_)
                    | Line::Telemetry(_)
                    | Line::Readiness(_),
                )
                | None => Err(nonsense()),
            }
        })?;
        open.into_iter().for_each(warn);
        Ok(output::answer(&shown(&view))?)
    }
}

fn shown(view: &ExporterView) -> String {
    match (&view.listen, &view.failure) {
        (Some(address), None) => format!("http://{address}/metrics"),
        (_, Some(failure)) => format!("nowhere but on the daemon's socket: {failure}"),
        (None, None) => "nowhere but on the daemon's socket".to_owned(),
    }
}

/// Whether others than this host's users may reach it.
fn is_open(address: &SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

fn warn(address: SocketAddr) {
    output::notice(&Notice {
        message: format!(
            "anybody who can reach {address} can read names, ports and figures of all apps"
        ),
        hint: Some("a firewall, or --listen with a port only, keeps others out".to_owned()),
    });
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn the_documentation_is_what_the_code_says() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
        let written = fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == metrics::document(),
            "docs/metrics.md is old: cargo run -p cluster-user -- metrics --names >docs/metrics.md"
        );
    }

    #[test]
    fn it_is_said_where_they_are() {
        let listen = Some("127.0.0.1:9400".parse().unwrap());
        let text = shown(&ExporterView { listen, failure: None });
        assert_eq!(text, "http://127.0.0.1:9400/metrics");
        let failure = Some("address in use".to_owned());
        assert!(shown(&ExporterView { listen, failure }).contains("address in use"));
        assert!(is_open(&"0.0.0.0:80".parse().unwrap()) && !is_open(&"[::1]:80".parse().unwrap()));
    }
}
