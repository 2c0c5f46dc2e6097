//! Changes that belong together: an editor writes a file in several steps, a checkout writes a thousand.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::upkeep::Files;

/// Without a pause a burst is over after this many times the pause, or [`LONGEST`], whichever is more.
const TIMES: u32 = 10;
/// See [`TIMES`].
const LONGEST: Duration = Duration::from_secs(5);
/// A burst is not over before this: what follows a rename at once belongs to it.
const SHORTEST: Duration = Duration::from_millis(20);

/// Changes since the last time it was quiet.
#[derive(Debug)]
pub(super) struct Burst {
    delay: Duration,
    files: Files,
    /// The first change and the last one.
    span: Option<(Instant, Instant)>,
}

impl Burst {
    pub(super) fn new(delay: Duration) -> Self {
        Self { delay: delay.max(SHORTEST), files: Files::default(), span: None }
    }

    pub(super) fn add(&mut self, file: PathBuf, now: Instant) {
        self.files.add(file);
        let first = self.span.map_or(now, |(first, _)| first);
        self.span = Some((first, now));
    }

    /// When it is over if nothing else changes.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let (first, last) = self.span?;
        let longest = self.delay.saturating_mul(TIMES).max(LONGEST);
        Some((last + self.delay).min(first + longest))
    }

    /// The files that changed, when it is over.
    pub(super) fn over(&mut self, now: Instant) -> Option<Files> {
        if self.deadline()? > now {
            return None;
        }
        self.span = None;
        Some(std::mem::take(&mut self.files))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_over_when_it_is_quiet() {
        let (start, ms) = (Instant::now(), Duration::from_millis);
        let mut burst = Burst::new(ms(200));
        assert_eq!(burst.deadline(), None);
        burst.add("/a".into(), start);
        burst.add("/b".into(), start + ms(150));
        assert_eq!(burst.over(start + ms(300)), None);
        let files = burst.over(start + ms(350)).unwrap();
        assert_eq!(files.named, [PathBuf::from("/a"), "/b".into()]);
        assert_eq!(burst.over(start + ms(1000)), None);
    }

    #[test]
    fn one_that_never_pauses_is_over_all_the_same() {
        let (start, ms) = (Instant::now(), Duration::from_millis);
        let mut burst = Burst::new(ms(100));
        let mut over = 0;
        for step in 0..200 {
            let now = start + ms(50 * step);
            burst.add(format!("/{step}").into(), now);
            over += usize::from(burst.over(now).is_some());
        }
        assert_eq!(over, 1, "in ten seconds");
    }
}
