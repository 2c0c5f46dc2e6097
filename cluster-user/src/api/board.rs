//! What happened last, and whoever wants to hear what happens next.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::sync::{
    broadcast::{self, error::RecvError},
    mpsc,
};

use super::message::{EventsRequest, Failure, Happening, Line, Reason, Subject, What};
use crate::{
    config::target::{Scope, Target, TargetError},
    id::{Generation, Instance},
};

/// So many happenings are remembered.
const REMEMBERED: usize = 1000;
/// The same in bytes of text, because a few may be long.
const BYTES: usize = 256 << 10;
/// So many wait for a reader before it misses some.
const WAITING: usize = 256;
/// So many follow at a time: far fewer than there may be connections ([`super::server::MAX_CONNECTIONS`]), because they
/// stay, and whoever wants to stop an app must get through.
const FOLLOWERS: usize = 128;
/// Longest text of a happening.
const LONGEST: usize = 16 << 10;

/// The board: one for a daemon, cheap to copy.
#[derive(Clone, Debug)]
pub struct Board(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    remembered: VecDeque<Arc<Happening>>,
    bytes: usize,
    last: u64,
    /// Absent when the daemon ends.
    readers: Option<broadcast::Sender<Arc<Happening>>>,
}

/// What happened, before it gets a number and a time.
#[derive(Clone, Debug)]
pub struct Note {
    /// What.
    pub what: What,
    /// To which app.
    pub app: Option<Subject>,
    /// To which of its workers.
    pub instance: Option<Instance>,
    /// Of which version.
    pub generation: Option<Generation>,
    /// The worker's process id.
    pub pid: Option<u32>,
    /// In words.
    pub detail: Option<String>,
    /// A message, as text of JSON.
    pub data: Option<String>,
}

impl Note {
    /// Something that happened to nobody in particular.
    pub fn new(what: What) -> Self {
        let (app, instance, generation) = (None, None, None);
        Self { what, app, instance, generation, pid: None, detail: None, data: None }
    }

    /// The same, in words.
    #[must_use]
    pub fn detail(self, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }
}

impl Default for Board {
    fn default() -> Self {
        let readers = Some(broadcast::Sender::new(WAITING));
        let remembered = VecDeque::new();
        Self(Arc::new(Mutex::new(Inner { remembered, bytes: 0, last: 0, readers })))
    }
}

impl Board {
    /// Remembers something, and tells whoever wants to hear of it. Waits for nobody.
    pub fn post(&self, note: Note) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.last += 1;
        let happening = Arc::new(Happening {
            number: inner.last,
            at_ms: now(),
            what: note.what,
            app: note.app,
            instance: note.instance,
            generation: note.generation,
            pid: note.pid,
            detail: note.detail.map(|text| cut(&text)),
            data: note.data.and_then(|text| serde_json::from_str(&text).ok()),
        });
        inner.bytes += size(&happening);
        inner.remembered.push_back(Arc::clone(&happening));
        while inner.remembered.len() > REMEMBERED || inner.bytes > BYTES {
            let Some(oldest) = inner.remembered.pop_front() else { break };
            inner.bytes -= size(&oldest);
        }
        if let Some(readers) = &inner.readers {
            // There may be nobody.
            drop(readers.send(happening));
        }
    }

    /// Ends what readers hear.
    pub fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).readers = None;
    }

    /// What is asked for, as it comes, until the daemon ends or nobody reads.
    ///
    /// # Errors
    /// When a target is malformed, or too many follow already.
    pub(super) fn read(&self, asked: &EventsRequest) -> Result<mpsc::Receiver<Line>, Failure> {
        let targets = asked.targets.iter().map(|target| Target::parse(target));
        let targets = targets.collect::<Result<Vec<_>, _>>();
        let targets = targets
            .map_err(|error: TargetError| Failure::new(Reason::BadRequest, error.to_string()))?;
        let (sender, lines) = mpsc::channel(1);
        let (past, readers) = {
            let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let is_meant = |happening: &&Arc<Happening>| {
                happening.at_ms >= asked.since_ms && meant(&targets, happening)
            };
            let mut past: Vec<_> = inner.remembered.iter().filter(is_meant).cloned().collect();
            if let Some(last) = asked.last {
                past.drain(..past.len().saturating_sub(last));
            }
            let follow = inner.readers.as_ref().filter(|_| asked.follow);
            if follow.is_some_and(|readers| readers.receiver_count() >= FOLLOWERS) {
                let message = format!("{FOLLOWERS} readers follow the events already");
                return Err(Failure::new(Reason::Unavailable, message).hint("end some of them"));
            }
            (past, follow.map(broadcast::Sender::subscribe))
        };
        tokio::spawn(hand_on(past, readers, targets, sender));
        Ok(lines)
    }
}

async fn hand_on(
    past: Vec<Arc<Happening>>,
    readers: Option<broadcast::Receiver<Arc<Happening>>>,
    targets: Vec<Target>,
    sender: mpsc::Sender<Line>,
) {
    let mut last = 0;
    for happening in past {
        last = happening.number;
        if sender.send(line(&happening)).await.is_err() {
            return;
        }
    }
    let Some(mut readers) = readers else { return };
    loop {
        let next = tokio::select! {
            next = readers.recv() => next,
            () = sender.closed() => return,
        };
        let next = match next {
            Ok(happening) => {
                last = happening.number;
                meant(&targets, &happening).then(|| line(&happening))
            }
            Err(RecvError::Lagged(missed)) => Some(Line::Event(Box::new(Happening {
                number: last + missed,
                at_ms: now(),
                what: What::Missed,
                app: None,
                instance: None,
                generation: None,
                pid: None,
                detail: Some(format!("{missed} events, because they were not read fast enough")),
                data: None,
            }))),
            Err(RecvError::Closed) => return,
        };
        if let Some(line) = next
            && sender.send(line).await.is_err()
        {
            return;
        }
    }
}

fn line(happening: &Happening) -> Line {
    Line::Event(Box::new(happening.clone()))
}

/// Whether a reader asked for it; without targets for all.
fn meant(targets: &[Target], happening: &Happening) -> bool {
    let Some(app) = &happening.app else { return targets.is_empty() };
    targets.is_empty()
        || targets.iter().any(|target| match target.matches(app.id, &app.name, &app.namespace) {
            Some(Scope::App) => true,
            // What happens to an app happens to each of its workers.
            Some(Scope::Worker(instance)) => happening.instance.is_none_or(|of| of == instance),
            None => false,
        })
}

fn size(happening: &Happening) -> usize {
    let text = happening.detail.as_ref().map_or(0, String::len);
    // As text again: a tree of values takes a few times as much, which the limit has room for.
    let data = happening.data.as_ref().map_or(0, |data| data.to_string().len());
    size_of::<Happening>() + text + data
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::AppId;

    #[tokio::test]
    async fn the_past_comes_first_and_then_what_happens() {
        let board = Board::default();
        board.post(of("web", 0, What::WorkerOnline));
        board.post(of("api", 1, What::WorkerOnline));
        let mut all = board.read(&EventsRequest { follow: true, ..asked(&[]) }).unwrap();
        let mut web = board.read(&EventsRequest { follow: true, ..asked(&["web:0"]) }).unwrap();

        board.post(of("web", 0, What::Message));
        board.close();

        assert_eq!(numbers(&mut all).await, [1, 2, 3]);
        assert_eq!(numbers(&mut web).await, [1, 3]);
    }

    #[tokio::test]
    async fn only_the_last_are_remembered_and_asked_for() {
        let board = Board::default();
        (0..REMEMBERED + 5).for_each(|_| board.post(of("web", 0, What::Message)));
        let mut some = board.read(&EventsRequest { last: Some(2), ..asked(&[]) }).unwrap();
        assert_eq!(numbers(&mut some).await, [1004, 1005]);
        let long = Note { detail: Some("x".repeat(1 << 20)), ..of("web", 0, What::Status) };
        (0..100).for_each(|_| board.post(long.clone()));
        let mut rest = board.read(&asked(&[])).unwrap();
        let rest = numbers(&mut rest).await.len();
        assert!(rest > 10 && rest * LONGEST <= BYTES, "{rest}");
    }

    #[tokio::test]
    async fn a_slow_reader_holds_nobody_up_and_hears_how_much_it_missed() {
        let board = Board::default();
        let mut slow = board.read(&EventsRequest { follow: true, ..asked(&[]) }).unwrap();
        tokio::task::yield_now().await;
        (0..5000).for_each(|_| board.post(of("web", 0, What::Message)));
        board.close();

        let mut seen = 0;
        let mut missed = 0;
        while let Some(line) = slow.recv().await {
            let Line::Event(happening) = line else { panic!("{line:?}") };
            if happening.what == What::Missed {
                let text = happening.detail.unwrap();
                missed += text.split(' ').next().unwrap().parse::<usize>().unwrap();
            } else {
                seen += 1;
            }
        }
        assert!(missed > 0);
        assert_eq!(seen + missed, 5000);
    }

    #[tokio::test]
    async fn readers_that_stay_are_not_too_many() {
        let (board, follow) = (Board::default(), EventsRequest { follow: true, ..asked(&[]) });
        let mut readers: Vec<_> = (0..FOLLOWERS).map(|_| board.read(&follow).unwrap()).collect();
        assert_eq!(board.read(&follow).unwrap_err().reason, Reason::Unavailable);
        assert!(board.read(&asked(&[])).is_ok(), "who does not stay is welcome");
        readers.pop();
        let mut again = board.read(&follow);
        while again.is_err() {
            tokio::task::yield_now().await;
            again = board.read(&follow);
        }
    }

    #[test]
    fn a_target_that_makes_no_sense_is_refused() {
        assert!(Board::default().read(&asked(&["/(/"])).is_err());
    }

    fn of(name: &str, instance: u32, what: What) -> Note {
        let (name, namespace) = (name.to_owned(), "default".to_owned());
        let app = Some(Subject { id: AppId(0), name, namespace });
        Note { app, instance: Some(Instance(instance)), ..Note::new(what) }
    }

    fn asked(targets: &[&str]) -> EventsRequest {
        let targets = targets.iter().map(|target| (*target).to_owned()).collect();
        EventsRequest { targets, last: None, since_ms: 0, follow: false }
    }

    async fn numbers(lines: &mut mpsc::Receiver<Line>) -> Vec<u64> {
        let mut numbers = Vec::new();
        while let Some(line) = lines.recv().await {
            let Line::Event(happening) = line else { panic!("{line:?}") };
            numbers.push(happening.number);
        }
        numbers
    }
}
