//! What an app asks for that plain mode cannot do, refused or adapted before it is started.

use super::run::Supervisor;
use crate::{
    api::message::{Failure, Notice, Reason, Request},
    config::{instances::Scale, spec::AppSpec, target::Target},
    datapath::Mode,
};

impl Supervisor {
    /// Adapts a request to plain mode, where one of several workers on a port cannot be asked; what the user is to know.
    ///
    /// # Errors
    /// When it cannot be adapted.
    pub(super) fn adapt(&self, request: &mut Request) -> Result<Option<Notice>, Failure> {
        match self.host.datapath.mode() {
            Mode::Kernel => return Ok(None),
            Mode::Plain => {}
        }
        match request {
            Request::Start(start) => {
                let Some(option) = asking(&start.spec) else { return Ok(None) };
                if start.spec.instances > 1 {
                    return Err(self.cannot_ask(option));
                }
                // Two workers beside each other would be asked as one.
                let overlapped = std::mem::replace(&mut start.spec.overlap, false);
                Ok(overlapped.then(|| Notice {
                    message: format!(
                        "a reload stops the worker before it starts the new one: plain mode cannot ask one of \
                         two workers on a port, as {option} needs"
                    ),
                    hint: Some(self.host.lacking().1),
                }))
            }
            Request::Scale(scale) => {
                let Ok(target) = Target::parse(&scale.target) else { return Ok(None) };
                let apps = self.state.apps(std::slice::from_ref(&target));
                let more = |app: &crate::state::view::AppView<'_>| match scale.to {
                    Scale::To(to) => to > 1,
                    Scale::By(by) => i64::from(app.spec.instances) + i64::from(by) > 1,
                };
                match apps.iter().filter(|app| more(app)).find_map(|app| asking(app.spec)) {
                    Some(option) => Err(self.cannot_ask(option)),
                    None => Ok(None),
                }
            }
            Request::Stop(_)
            | Request::Restart(_)
            | Request::Reload(_)
            | Request::Events(_)
            | Request::Send(_)
            | Request::Promote(_)
            | Request::Rollback(_)
            | Request::Delete(_)
            | Request::Policy(_)
            | Request::Flush(_)
            | Request::Reopen
            | Request::Signal(_)
            | Request::Reset(_)
            | Request::Upgrade(_)
            | Request::HandOver(_)
            | Request::Kill(_)
            | Request::Apps(_)
            | Request::Telemetry(_)
            | Request::Readiness
            | Request::Exporter
            | Request::Export(_)
            | Request::Ping => Ok(None),
        }
    }

    fn cannot_ask(&self, option: &str) -> Failure {
        let message = format!(
            "{option} asks a port that several workers share, and plain mode cannot ask one of them"
        );
        let hint =
            format!("use a command as the probe, or one worker; or {}", self.host.lacking().1);
        Failure::new(Reason::Unsupported, message).hint(hint)
    }
}

/// The option that asks a port of the app.
fn asking(spec: &AppSpec) -> Option<&'static str> {
    let asks = |probe: &Option<crate::config::spec::Probe>| {
        probe.as_ref().is_some_and(|probe| probe.what.asks_port())
    };
    if asks(&spec.probe) {
        Some("--probe")
    } else if asks(&spec.liveness) {
        Some("--liveness")
    } else {
        None
    }
}
