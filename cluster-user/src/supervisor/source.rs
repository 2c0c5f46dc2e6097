//! What happened, as events of the core: one of the two files that know both worlds.

use std::task::{Context, Poll};

use super::{host::News, perform, run::Supervisor, verify::Verdicts};
use crate::{
    api::{
        message::{
            AppsRequest, Detail, Done, Failure, Line, Notice, Pong, Reason, ReloadRequest, Request,
            StartRequest, TargetsRequest, TelemetryRequest, VERSION,
        },
        server::{Call, Peer},
    },
    config::{
        spec::AppSpec,
        target::{Target, TargetError},
    },
    datapath::{DataPath, Mode, Report},
    id::{AppId, Instance},
    process::{pid_file, watch::ExitStatus},
    state::event::{CallId, Command, Event, Exit, Reload},
};

/// Reports of the data path that are heard at once: others have their turn after so many.
const REPORTS: usize = 64;

/// Waits until the data path has something to report, and takes what there is: hundreds of workers that start together are
/// written down together.
pub(super) fn poll_reports(
    datapath: &mut dyn DataPath,
    context: &mut Context<'_>,
) -> Poll<Vec<Event>> {
    let mut events = Vec::new();
    while events.len() < REPORTS
        && let Poll::Ready(next) = datapath.poll_report(context)
    {
        events.push(report(next));
    }
    if events.is_empty() { Poll::Pending } else { Poll::Ready(events) }
}

fn report(report: Report) -> Event {
    match report {
        Report::Listening { worker, ticket, key } => Event::Listening { worker, ticket, key },
        Report::Binding { worker, protocol, address } => {
            Event::Binding { worker, protocol, address }
        }
        Report::Unusable { worker, address, reason } => {
            let reason = match address {
                Some(address) => format!("{address}: {reason}"),
                None => reason,
            };
            Event::Unusable { worker, reason }
        }
    }
}

impl Supervisor {
    /// News of a task.
    pub(super) fn news(&mut self, news: News) -> Event {
        match news {
            News::Exited(worker, status) => {
                // Its sockets that were not joined yet must not outlive it: their queues could not move.
                self.settle_account(worker);
                self.host.datapath.dismiss(worker);
                let exit = match status {
                    ExitStatus::Code(code) => Exit::Code(code),
                    ExitStatus::Signal { signal, .. } => Exit::Signal(signal),
                    // The core has no word for it yet; it is no orderly end in any case.
                    ExitStatus::Unknown => Exit::Code(-1),
                };
                Event::Exited { worker, exit }
            }
            News::Lost(group, slot) => Event::Lost { group, slot },
            News::Swept(worker, words) => {
                self.remove_pid_file(worker);
                self.host.forget(worker, words);
                Event::Swept { worker }
            }
        }
    }

    /// A user's request; those that only look are answered here.
    pub(super) fn call(&mut self, mut call: Call) -> Option<Event> {
        match self.adapt(&mut call.request) {
            Ok(None) => {}
            Ok(Some(notice)) => drop(call.reply.send(Line::Notice(notice))),
            Err(failure) => {
                drop(call.reply.send(Line::Failed(failure)));
                return None;
            }
        }
        // Now: what is verified may be decided after what was asked for later.
        let id = self.next_call();
        let call = self.verify(id, call)?;
        self.decide(id, call, Verdicts::new())
    }

    /// The same, with what the kernel said of what it asks for.
    pub(super) fn decide(
        &mut self,
        id: CallId,
        call: Call,
        mut verdicts: Verdicts,
    ) -> Option<Event> {
        let Call { request, reply, peer } = call;
        let command = match self.command(request, peer, &mut verdicts) {
            Ok(Asked::Command(command)) => command,
            Ok(Asked::Answer(line)) => {
                // Whoever asked may have gone.
                drop(reply.send(line));
                return None;
            }
            Err(failure) => {
                drop(reply.send(Line::Failed(failure)));
                return None;
            }
        };
        if matches!(command, Command::Start { .. })
            && let Some(notice) = self.makeshift()
        {
            drop(reply.send(Line::Notice(notice)));
        }
        self.in_vain(&command)
            .into_iter()
            .for_each(|notice| drop(reply.send(Line::Notice(notice))));
        let found = std::mem::take(&mut self.host.untold);
        for notice in found.into_iter().chain(std::mem::take(&mut self.host.upkeep.untold)) {
            drop(reply.send(Line::Notice(notice)));
        }
        // There may be room by now.
        if self.host.journal_fails.is_some() {
            self.write_down();
        }
        if let Some(error) = &self.host.journal_fails {
            drop(reply.send(Line::Notice(self.unwritten(error))));
        }
        self.host.callers.insert(id, reply);
        Some(Event::Command { call: id, command })
    }

    fn command(
        &mut self,
        request: Request,
        peer: Peer,
        verdicts: &mut Verdicts,
    ) -> Result<Asked, Failure> {
        Ok(Asked::Command(match request {
            Request::Start(start) => {
                self.can_run(&start.spec, verdicts)?;
                let StartRequest { spec, idle, wait } = *start;
                Command::Start { spec: Box::new(spec), idle, wait }
            }
            Request::Stop(TargetsRequest { targets, wait }) => {
                Command::Stop { targets: some(&targets)?, wait }
            }
            Request::Restart(TargetsRequest { targets, wait }) => {
                Command::Restart { targets: some(&targets)?, wait }
            }
            Request::Reload(reload) => {
                let ReloadRequest { targets, change, pace, force, wait } = *reload;
                let (targets, who) = (some(&targets)?, who(peer));
                if change.spec.is_some() {
                    for app in self.state.apps(&targets) {
                        self.can_run(&change.apply(app.spec), verdicts)?;
                    }
                }
                Command::Reload(Box::new(Reload {
                    targets,
                    change,
                    pace,
                    force,
                    who,
                    yields: false,
                    wait,
                }))
            }
            Request::Promote(TargetsRequest { targets, wait }) => {
                Command::Promote { targets: some(&targets)?, wait }
            }
            Request::Rollback(TargetsRequest { targets, wait }) => {
                Command::Rollback { targets: some(&targets)?, who: who(peer), wait }
            }
            Request::Delete(TargetsRequest { targets, wait }) => {
                Command::Delete { targets: some(&targets)?, wait }
            }
            Request::Scale(scale) => {
                Command::Scale { target: one(&scale.target)?, to: scale.to, wait: scale.wait }
            }
            Request::Policy(asked) => self.switch(some(&asked.targets)?, *asked, verdicts)?,
            Request::Flush(TargetsRequest { targets, .. }) => {
                Command::Flush { targets: some(&targets)? }
            }
            Request::Reopen => {
                self.host.output.reopen();
                return Ok(Asked::Answer(Line::Done(Done::default())));
            }
            Request::Signal(request) => return self.signal(&request).map(Asked::Answer),
            Request::Reset(TargetsRequest { targets, .. }) => {
                Command::Reset { targets: some(&targets)? }
            }
            Request::Upgrade(upgrade) => return self.upgrade(upgrade).map(Asked::Answer),
            Request::HandOver(hand_over) => return self.hand_over(&hand_over).map(Asked::Answer),
            Request::Kill(_) => Command::Kill,
            Request::Apps(AppsRequest { targets, detail }) => {
                return self.apps(&targets, detail).map(Asked::Answer);
            }
            Request::Send(send) => return self.send_message(&send).map(Asked::Answer),
            // The API reads the board by itself.
            Request::Events(_) => {
                let message = "events are not the supervisor's to tell";
                return Err(Failure::new(Reason::BadRequest, message));
            }
            Request::Telemetry(TelemetryRequest { targets }) => {
                return self.snapshot(&targets).map(Asked::Answer);
            }
            Request::Readiness => {
                return Ok(Asked::Answer(Line::Readiness(self.readiness())));
            }
            // The API has them itself.
            Request::Exporter | Request::Export(_) => {
                let message = "where metrics are read is not the supervisor's to tell";
                return Err(Failure::new(Reason::BadRequest, message));
            }
            Request::Ping => return Ok(Asked::Answer(Line::Pong(self.pong()))),
        }))
    }

    fn apps(&mut self, targets: &[String], detail: Detail) -> Result<Line, Failure> {
        let ids = self.meant(targets)?;
        Ok(Line::Done(Done { apps: self.views(&ids, detail), ..Done::default() }))
    }

    /// The apps that targets mean, all when there are none.
    ///
    /// # Errors
    /// When a target means nothing.
    pub(super) fn meant(&self, targets: &[String]) -> Result<Vec<AppId>, Failure> {
        let targets = targets.iter().map(|target| one(target)).collect::<Result<Vec<_>, _>>()?;
        for target in &targets {
            if !target.is_all() && self.state.apps(std::slice::from_ref(target)).is_empty() {
                let names: Vec<_> =
                    self.state.apps(&[]).iter().map(|app| app.spec.name.to_string()).collect();
                return Err(super::answer::unknown(target.as_str(), &names));
            }
        }
        Ok(self.state.apps(&targets).iter().map(|app| app.id).collect())
    }

    fn pong(&mut self) -> Pong {
        self.host.untold.clear();
        Pong {
            version: VERSION,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            home: self.host.home.path().to_owned(),
            mode: self.host.datapath.mode(),
            missing: self.host.missing.clone(),
            found: self.host.found.clone(),
            uptime_ms: super::host::millis(self.host.started.elapsed()),
        }
    }

    /// What whoever starts the first app should know: that it is not the full mode, why, and what to do.
    fn makeshift(&mut self) -> Option<Notice> {
        if std::mem::replace(&mut self.mode_told, true) {
            return None;
        }
        match self.host.datapath.mode() {
            Mode::Kernel => None,
            Mode::Plain => {
                let (reasons, hint) = self.host.lacking();
                let message = format!("plain mode, where the kernel's hash balances: {reasons}");
                Some(Notice { message, hint: Some(hint) })
            }
        }
    }

    /// What it means to whoever asks for something that the journal cannot be written.
    pub(super) fn unwritten(&self, error: &str) -> Notice {
        let path = self.journal.path().display();
        let message = format!(
            "the journal {path} cannot be written: {error}; a daemon after this one would not know what is done now"
        );
        let hint = Some("make room on its disk, or let the daemon write there".to_owned());
        Notice { message, hint }
    }

    /// Whether this host and this daemon have what a definition asks for, before anything is started or changed.
    fn can_run(&self, spec: &AppSpec, verdicts: &mut Verdicts) -> Result<(), Failure> {
        if spec.require_kernel && self.host.datapath.mode() == Mode::Plain {
            return Err(self.no_kernel());
        }
        self.can_schedule(&spec.name, &spec.scheduling, verdicts)?;
        self.check_logs(spec)?;
        check_pid_files(spec)?;
        self.can_limit(spec)
    }

    /// Whether the output of an app's workers can go where it is to, before any is started.
    fn check_logs(&self, spec: &AppSpec) -> Result<(), Failure> {
        (0..spec.instances).try_for_each(|instance| {
            let origin = perform::origin(spec, Instance(instance));
            self.host.output.check(&origin).map_err(|unusable| {
                let message = format!("app `{}`: {unusable}", spec.name);
                Failure::new(Reason::Failed, message).hint(unusable.hint())
            })
        })
    }

    fn no_kernel(&self) -> Failure {
        let (reasons, hint) = self.host.lacking();
        let message = format!("kernel mode is required and is not to be had: {reasons}");
        Failure::new(Reason::Unsupported, message).hint(hint)
    }
}

/// Whether the process ids of an app's workers would be written over something else.
fn check_pid_files(spec: &AppSpec) -> Result<(), Failure> {
    let files = (0..spec.instances).filter_map(|instance| spec.identity.pid_file_of(instance));
    for file in files {
        pid_file::check(&file).map_err(|error| {
            let message = format!("app `{}`: pid file `{}`: {error}", spec.name, file.display());
            Failure::new(Reason::Failed, message).hint("name another file, or move that away")
        })?;
    }
    Ok(())
}

enum Asked {
    Command(Command),
    Answer(Line),
}

/// Who asks, for those who want to know afterwards.
fn who(peer: Peer) -> String {
    let known = nix::unistd::User::from_uid(peer.uid.into()).ok().flatten();
    let name = known.map_or_else(|| format!("uid {}", peer.uid), |user| user.name);
    match peer.pid {
        Some(pid) => format!("{name} (pid {pid})"),
        None => name,
    }
}

pub(super) fn some(targets: &[String]) -> Result<Vec<Target>, Failure> {
    if targets.is_empty() {
        return Err(Failure::new(Reason::BadRequest, "no target is named")
            .hint("name an app, an id, or all"));
    }
    targets.iter().map(|target| one(target)).collect()
}

fn one(target: &str) -> Result<Target, Failure> {
    Target::parse(target)
        .map_err(|error: TargetError| Failure::new(Reason::BadRequest, error.to_string()))
}
