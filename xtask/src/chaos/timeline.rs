//! Timeline: every move that was made, and what came of it.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::schedule::Move;

/// For how long after its end a move may still be the cause of what happens.
const WAKE: Duration = Duration::from_millis(500);

/// All moves so far.
pub(super) struct Timeline {
    /// When the load began.
    pub(super) began: Instant,
    entries: Mutex<Vec<Entry>>,
}

/// One move.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) step: Move,
    /// Name of the app it is about, if it is about one.
    pub(super) app: Option<&'static str>,
    pub(super) began: Instant,
    pub(super) ended: Option<Instant>,
    /// What came of it; an error when that is not what had to come of it.
    pub(super) outcome: Option<Result<String, String>>,
}

impl Timeline {
    /// An empty one that begins now.
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), entries: Mutex::default() }
    }

    /// A move is made; the number is for [`end`](Self::end).
    pub(super) fn begin(&self, step: &Move, app: Option<&'static str>) -> usize {
        let mut entries = self.entries();
        let (step, began) = (step.clone(), Instant::now());
        entries.push(Entry { step, app, began, ended: None, outcome: None });
        entries.len() - 1
    }

    /// It has been made; it is returned as it stands.
    pub(super) fn end(&self, number: usize, outcome: Result<String, String>) -> Entry {
        let mut entries = self.entries();
        let entry = &mut entries[number];
        entry.ended = Some(Instant::now());
        entry.outcome = Some(outcome);
        entry.clone()
    }

    /// Whether a move as described was under way at any time since then.
    pub(super) fn met(&self, since: Instant, is: impl Fn(&Entry) -> bool) -> bool {
        let is_recent = |entry: &&Entry| entry.ended.is_none_or(|ended| ended + WAKE >= since);
        self.entries().iter().filter(is_recent).any(is)
    }

    /// Moves under way at any time between these two that can have to do with the app.
    pub(super) fn during(&self, from: Instant, to: Instant, app: &str) -> Vec<String> {
        let entries = self.entries();
        let concerned = entries.iter().filter(|entry| {
            entry.began <= to
                && entry.ended.is_none_or(|ended| ended + WAKE >= from)
                && entry.app.is_none_or(|name| name == app)
        });
        concerned.map(|entry| self.show(entry)).collect()
    }

    /// What had to come of a move and did not.
    pub(super) fn problems(&self) -> Vec<String> {
        let entries = self.entries();
        let problems = entries.iter().filter(|entry| matches!(entry.outcome, Some(Err(_))));
        problems.map(|entry| self.show(entry)).collect()
    }

    /// How many moves were made.
    pub(super) fn len(&self) -> usize {
        self.entries().len()
    }

    /// `[  1.25 –   2.50 s] node: scale to 6: 6 online`
    pub(super) fn show(&self, entry: &Entry) -> String {
        let at = |time: Instant| time.saturating_duration_since(self.began).as_secs_f64();
        let ended =
            entry.ended.map_or_else(|| "      ".to_owned(), |end| format!("{:6.2}", at(end)));
        let app = entry.app.map_or_else(String::new, |app| format!("{app}: "));
        let outcome = match &entry.outcome {
            Some(Ok(came)) => format!(": {came}"),
            Some(Err(wrong)) => format!(": WRONG: {wrong}"),
            None => String::new(),
        };
        format!("[{:6.2} – {ended} s] {app}{}{outcome}", at(entry.began), entry.step)
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
