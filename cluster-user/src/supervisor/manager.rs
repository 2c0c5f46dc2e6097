//! The service manager that started the daemon, systemd for example: what it is told (`sd_notify(3)`).
//!
//! A daemon in the background has none, and one that was started by hand has none either; then nobody is told.

use std::{env, time::Duration};

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::run::Supervisor;
use crate::{
    api::message::Status,
    config::{home::Home, spec::hooks::Hook},
    dump::{
        self, DumpError,
        resurrect::{End, Outcome, resurrect},
    },
};

/// The daemon is said to be ready after this long even if saved apps are still starting: one that hangs is not to keep a
/// whole host from booting. systemd itself waits for 90 s (`DefaultTimeoutStartSec`).
const PATIENCE: Duration = Duration::from_mins(1);
/// How much longer than its longest drain the daemon may take to end.
const SPARE: Duration = Duration::from_secs(15);

/// Whoever started the daemon as a service.
#[derive(Debug)]
pub(super) struct Manager {
    is_there: bool,
    /// The daemon has to give a sign of life this often.
    watchdog: Option<Duration>,
    /// What was last said of the daemon's state.
    status: String,
}

impl Manager {
    /// The one of this process.
    pub(super) fn new() -> Self {
        let is_there = env::var_os("NOTIFY_SOCKET").is_some();
        // Twice as often as need be, as sd_watchdog_enabled(3) advises.
        let watchdog = sd_notify::watchdog_enabled().filter(|_| is_there).map(|time| time / 2);
        Self { is_there, watchdog: watchdog.filter(|time| !time.is_zero()), status: String::new() }
    }

    /// Whether there is one.
    pub(super) fn is_there(&self) -> bool {
        self.is_there
    }

    /// When the next sign of life is due; never if none is wanted.
    pub(super) fn pulse(&self) -> Option<tokio::time::Interval> {
        let mut pulse = interval(self.watchdog?);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Some(pulse)
    }

    /// Gives a sign of life.
    pub(super) fn beat() {
        say(&[NotifyState::Watchdog]);
    }
}

/// Starts the apps that were saved. Done when each of them is up or has failed, or after a while.
pub(super) async fn resurrect_saved(home: Home) {
    let starting = tokio::spawn(async move { start_saved(&home).await });
    if timeout(PATIENCE, starting).await.is_err() {
        log::warn!("saved apps are still starting after {} s", PATIENCE.as_secs());
    }
}

async fn start_saved(home: &Home) {
    let saved = match dump::read(home) {
        Ok(saved) => saved,
        Err(error @ DumpError::Absent { .. }) => {
            log::info!("{error}; cluster save writes down the apps to start");
            return;
        }
        Err(error) => {
            log::error!("no saved app is started: {error}; see cluster resurrect");
            return;
        }
    };
    let of = saved.len();
    let mut failed = 0;
    let resurrected = resurrect(home, saved, |outcome| failed += u32::from(!told(outcome)));
    if let Err(error) = resurrected.await {
        log::error!("failed to start the saved apps: {error}");
        return;
    }
    if failed > 0 {
        log::error!(
            "{failed} of {of} saved apps could not be started; cluster resurrect tries again"
        );
    }
}

/// Writes down what became of an app; whether that is what was wanted.
fn told(outcome: Outcome) -> bool {
    outcome.left_out().for_each(|left_out| log::warn!("{left_out}"));
    let Outcome { name, end, refused: _, notices } = outcome;
    for notice in notices {
        log::info!("{}", notice.message);
    }
    match end {
        End::Up => log::info!("app {name} was saved, and is started"),
        End::Running | End::Stopped => {}
        End::Failed(failure) => {
            log::error!("app {name} was saved, and cannot be started: {failure}");
            for line in failure.output {
                log::error!("  | {line}");
            }
            return false;
        }
    }
    true
}

impl Supervisor {
    /// Says that the daemon is there, and how the apps are that it begins with.
    pub(super) fn announce_begin(&mut self) {
        self.announce_status();
        say(&[NotifyState::Ready]);
    }

    /// Says that the daemon ends, and how long it may take: what its workers have to do may be long.
    pub(super) fn announce_end(&self) {
        let apps = self.state.apps(&[]);
        let longest = apps.iter().map(|app| {
            let (stop, hooks) = (&app.spec.stop, &app.spec.hooks);
            let last = [Hook::PreStop, Hook::PostStop].map(|hook| match hooks.line(hook) {
                Some(_) => hooks.timeout,
                None => Duration::ZERO,
            });
            let parts = [stop.drain_timeout, stop.kill_timeout].into_iter().chain(last);
            parts.fold(Duration::ZERO, Duration::saturating_add)
        });
        let longest = longest.max().unwrap_or_default().saturating_add(SPARE);
        let extend = format!("EXTEND_TIMEOUT_USEC={}", longest.as_micros());
        say(&[
            NotifyState::Stopping,
            NotifyState::Status("its workers finish what they have"),
            NotifyState::Custom(&extend),
        ]);
    }

    /// Says how the apps are, if that has changed.
    pub(super) fn announce_status(&mut self) {
        if !self.host.manager.is_there {
            return;
        }
        let apps = self.state.apps(&[]);
        let workers = || apps.iter().flat_map(|app| &app.seats);
        let is_online = |status: Status| status == Status::Online;
        let online = workers().filter(|seat| is_online(super::view::status(seat.status))).count();
        let (of, apps) = (workers().count(), apps.len());
        let plural = if apps == 1 { "" } else { "s" };
        let status = format!("{apps} app{plural}, {online} of {of} workers online");
        if status != self.host.manager.status {
            say(&[NotifyState::Status(&status)]);
            self.host.manager.status = status;
        }
    }
}

fn say(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::warn!("failed to tell the service manager: {error}");
    }
}
