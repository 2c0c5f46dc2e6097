//! What workers say of themselves and are told: kept for people, and posted as events.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{host::Host, perform, run::Supervisor, source, worker_log::Log};
use crate::{
    api::{
        board::Note,
        message::{Done, Failure, Line, Reason, SendRequest, Subject, What},
    },
    config::spec::identity,
    health::{Spoken, word::Word},
    id::WorkerId,
    state::event::{Event, Word as Core},
};

/// So many words of one worker in a [`WINDOW`] become events; the last one is kept in any case.
const WORDS: u32 = 20;
const WINDOW: Duration = Duration::from_secs(1);

/// What a worker said of itself, for people.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// `STATUS=`, the last one.
    pub(super) status: Option<String>,
    /// `ERRNO=`, the last one.
    pub(super) errno: Option<i32>,
    /// `MAINPID=`, a process of its own.
    pub(super) main_pid: Option<u32>,
    window: Option<(Instant, u32)>,
    /// Where its messages are written down.
    log: Option<Log>,
}

impl Said {
    /// Whether another word may become an event.
    fn may_tell(&mut self, now: Instant) -> bool {
        let (since, told) = self.window.unwrap_or((now, 0));
        let fresh = now.saturating_duration_since(since) > WINDOW;
        let (since, told) = if fresh { (now, 0) } else { (since, told) };
        self.window = Some((since, told.saturating_add(1)));
        told < WORDS
    }
}

impl Host {
    /// Nothing more comes of a worker's messages.
    pub(super) fn end_messages(&mut self, worker: WorkerId) {
        if let Some(log) = self.health.said.get_mut(&worker).and_then(|said| said.log.as_mut()) {
            log.end();
            self.output.detach(messages_of(worker));
        }
    }
}

/// Whose output a worker's messages are to the capture, which knows workers only: a number that no worker gets.
fn messages_of(worker: WorkerId) -> WorkerId {
    WorkerId((1 << 62) | worker.0)
}

impl Supervisor {
    /// A note about a worker.
    pub(super) fn note(&self, worker: WorkerId, what: What) -> Note {
        let seat = self.state.seat_of(worker);
        let subject = self.state.spec_of(worker).zip(seat).map(|(spec, (id, _))| Subject {
            id,
            name: spec.name.to_string(),
            namespace: spec.namespace.to_string(),
        });
        Note {
            app: subject,
            instance: seat.map(|(_, instance)| instance),
            generation: self.state.generation_of(worker),
            pid: self.host.workers.get(&worker).map(|running| running.tree.pid()),
            ..Note::new(what)
        }
    }

    /// Posts something that was said, unless its worker says too much.
    fn tell_word(&mut self, worker: WorkerId, what: What, detail: String) {
        if self.host.health.said.entry(worker).or_default().may_tell(Instant::now()) {
            let note = self.note(worker, what).detail(detail);
            self.host.board.post(note);
        }
    }

    /// What a worker said on its channel, as an event of the core.
    pub(super) fn spoken(&mut self, worker: WorkerId, spoken: Spoken) -> Option<Event> {
        // It may have gone while this was on its way.
        self.host.workers.get(&worker)?;
        match spoken {
            Spoken::Ready => {
                return Some(Event::Said { worker, word: Core::ReadyMessage });
            }
            Spoken::Message(text) => {
                self.write_message(worker, &text);
                let note = Note { data: Some(text), ..self.note(worker, What::Message) };
                self.host.board.post(note);
            }
            Spoken::Dropped { messages, longest, malformed } => {
                let mut detail = format!("{messages}");
                if malformed > 0 {
                    detail = format!("{detail}, {malformed} of them no JSON");
                }
                if longest > 0 {
                    detail = format!("{detail}, the longest of {longest} bytes");
                }
                let note = self.note(worker, What::MessagesDropped).detail(detail);
                self.host.board.post(note);
            }
        }
        None
    }

    /// Writes a message of an app into its worker's log. What `@pm2/io` says every second is left out.
    fn write_message(&mut self, worker: WorkerId, text: &str) {
        if text.contains("\"type\":\"axm:") {
            return;
        }
        let Some(((_, instance), spec)) =
            self.state.seat_of(worker).zip(self.state.spec_of(worker).cloned())
        else {
            return;
        };
        let said = self.host.health.said.entry(worker).or_default();
        if said.log.is_none() {
            let origin = perform::origin(&spec, instance);
            match self.host.output.attach(messages_of(worker), &origin) {
                Ok(ends) => said.log = Some(Log::new("message", ends.stdout)),
                Err(error) => log::error!("failed to write down messages of {worker}: {error}"),
            }
        }
        if let Some(log) = &mut said.log {
            log.say(text);
        }
    }

    /// What a worker said on the notification socket, as an event of the core.
    pub(super) fn notified(&mut self, worker: WorkerId, word: Word) -> Option<Event> {
        let said = |word| Some(Event::Said { worker, word });
        match word {
            Word::Ready => said(Core::Ready),
            Word::Alive => said(Core::Watchdog),
            Word::Trigger => said(Core::Trigger),
            Word::Stopping => {
                self.tell_word(worker, What::Stopping, "it ends by itself".to_owned());
                said(Core::Stopping)
            }
            Word::Extend(time) => {
                let detail = format!("{} s from now on", time.as_secs_f64());
                self.tell_word(worker, What::Extended, detail);
                said(Core::Extend(time))
            }
            Word::Reloading => {
                self.tell_word(worker, What::Reloading, "it reads its settings anew".to_owned());
                None
            }
            Word::Status(text) => {
                let said = self.host.health.said.entry(worker).or_default();
                if said.status.as_ref() != Some(&text) {
                    said.status = Some(text.clone());
                    self.tell_word(worker, What::Status, text);
                }
                None
            }
            Word::Errno(number) => {
                self.host.health.said.entry(worker).or_default().errno = Some(number);
                let detail = format!("{number}: {}", errno(number));
                self.tell_word(worker, What::Errno, detail);
                None
            }
            Word::MainPid(pid) => {
                let tree = self.host.workers.get(&worker).map(|running| &running.tree);
                if tree.is_some_and(|tree| tree.pids().contains(&pid)) {
                    self.host.health.said.entry(worker).or_default().main_pid = Some(pid);
                    self.tell_word(worker, What::MainPid, pid.to_string());
                } else {
                    log::debug!("worker {worker} says that pid {pid} is its own, which it is not");
                }
                None
            }
        }
    }

    /// The message that asks a worker to end could not be sent: a signal has to do.
    pub(super) fn not_told(&mut self, worker: WorkerId, error: &str) {
        log::warn!("failed to send worker {worker} {error}");
        let note = self.note(worker, What::SendFailed);
        self.host.board.post(note.detail(format!("{error}; it gets a signal instead")));
        let signal = self.state.spec_of(worker).map(|spec| spec.stop.signal);
        if let (Some(signal), Some(running)) = (signal, self.host.workers.get(&worker)) {
            // A process that has ended in this moment needs no signal.
            drop(running.tree.signal_all(signal));
        }
    }

    /// Sends workers a message that a user wants them to have.
    pub(super) fn send_message(&mut self, asked: &SendRequest) -> Result<Line, Failure> {
        let targets = source::some(&asked.targets)?;
        for target in &targets {
            if !target.is_all() && self.state.apps(std::slice::from_ref(target)).is_empty() {
                let names = self.state.apps(&[]);
                let names: Vec<_> = names.iter().map(|app| app.spec.name.to_string()).collect();
                return Err(super::answer::unknown(target.as_str(), &names));
            }
        }
        let workers = self.state.workers_of(&targets);
        let running: Vec<_> =
            workers.into_iter().filter(|worker| self.host.workers.contains_key(worker)).collect();
        if running.is_empty() {
            return Err(Failure::new(Reason::Conflict, "none of its workers is running")
                .hint("cluster list shows what runs"));
        }
        let (mut sent, mut failures) = (0, Vec::new());
        for worker in running {
            let Some((app, instance)) = self.state.seat_of(worker) else { continue };
            let message = match &asked.topic {
                None => asked.message.clone(),
                Some(topic) => packet(topic, &asked.message, identity::pm_id(app, instance)),
            };
            match self.host.message(worker, &message) {
                Ok(()) => {
                    sent += 1;
                    let note = self.note(worker, What::Sent);
                    self.host.board.post(Note { data: Some(message.to_string()), ..note });
                }
                Err(error) => {
                    let name = self.state.spec_of(worker).map(|spec| spec.name.to_string());
                    let name = name.unwrap_or_default();
                    failures.push(format!("worker {instance} of app `{name}`: {error:#}"));
                    let note = self.note(worker, What::SendFailed).detail(format!("{error:#}"));
                    self.host.board.post(note);
                }
            }
        }
        match failures.first() {
            None => Ok(Line::Done(Done { sent, ..Done::default() })),
            Some(first) => {
                let others = match failures.len() {
                    1 => String::new(),
                    more => format!(", and {} more", more - 1),
                };
                let message = format!("{first}{others}; sent to {sent} workers");
                Err(Failure::new(Reason::Failed, message)
                    .hint("cluster sendSignal and cluster reload reach programs of every kind"))
            }
        }
    }
}

/// A packet as PM2's `sendDataToProcessId` has it.
fn packet(topic: &str, data: &Value, pm_id: u64) -> Value {
    json!({ "type": "process:msg", "topic": topic, "data": data, "id": pm_id })
}

fn errno(number: i32) -> String {
    nix::errno::Errno::from_raw(number).desc().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_says_too_much_is_not_repeated() {
        let mut said = Said::default();
        let now = Instant::now();
        let told = (0..1000).filter(|_| said.may_tell(now)).count();
        assert_eq!(told, WORDS as usize);
        assert!(said.may_tell(now + WINDOW * 2));
    }
}
