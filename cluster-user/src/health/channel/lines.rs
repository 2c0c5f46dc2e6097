//! What a worker says on its channel, line by line: a bounded part of it is understood, the rest is counted.

use std::time::{Duration, Instant};

use super::super::Spoken;

/// Longest message that is shown. Whatever is longer is counted.
pub(super) const LONGEST: usize = 16 << 10;
/// So many messages are shown at once, and this many each second after that.
const BURST: u32 = 100;
const PER_SECOND: u32 = 20;
/// What was dropped is told this often.
const TELL: Duration = Duration::from_secs(1);

/// What Node says to the other Node, not to the program (`internalMessage` of `child_process`).
const INTERNAL: &[u8] = b"{\"cmd\":\"NODE_";
/// The one among those that wants an answer: nothing more is sent before it has come.
const HANDLE: &[u8] = b"{\"cmd\":\"NODE_HANDLE\"";
/// What PM2's own module says of the program, each second.
const METRICS: &[u8] = b"{\"type\":\"axm:";

/// Cuts what arrives into lines, and forgets those that are too long.
#[derive(Debug)]
pub(super) struct Lines {
    begun: Vec<u8>,
    too_long: bool,
    allowance: Allowance,
    dropped: Dropped,
}

/// What was not handed on.
#[derive(Debug, Default)]
struct Dropped {
    messages: u64,
    /// Length of the longest of them that was too long.
    longest: usize,
    /// Length of the one that is too long and has not ended yet.
    growing: usize,
    malformed: u64,
    /// When that was last told.
    told: Option<Instant>,
}

/// What follows from a piece.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) spoken: Vec<Spoken>,
    /// Sockets that were sent along, which nobody takes: each has to be acknowledged.
    pub(super) handles: usize,
}

impl Lines {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            begun: Vec::new(),
            too_long: false,
            allowance: Allowance { left: BURST, since: now },
            dropped: Dropped::default(),
        }
    }

    /// Takes the next piece.
    pub(super) fn take(&mut self, bytes: &[u8], now: Instant) -> Heard {
        let mut heard = Heard::default();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            if self.begun.is_empty() && ends && !self.too_long && text.len() <= LONGEST {
                // Most lines come whole, and need no copy.
                self.line(text, now, &mut heard);
                continue;
            }
            self.too_long |= self.begun.len() + text.len() > LONGEST;
            if self.too_long {
                self.dropped.growing += self.begun.len() + text.len();
                self.begun = Vec::new();
            } else {
                self.begun.extend_from_slice(text);
            }
            if !ends {
                continue;
            }
            if self.too_long {
                self.dropped.messages += 1;
                self.dropped.longest = self.dropped.longest.max(self.dropped.growing);
                self.dropped.growing = 0;
                self.too_long = false;
            } else {
                let line = std::mem::take(&mut self.begun);
                self.line(&line, now, &mut heard);
            }
        }
        heard
    }

    fn line(&mut self, line: &[u8], now: Instant, heard: &mut Heard) {
        let line = line.trim_ascii();
        if line.is_empty() {
        } else if line == b"\"ready\"" || line == b"\"online\"" {
            // Saying it again changes nothing, so once for each piece is enough.
            if !heard.spoken.contains(&Spoken::Ready) {
                heard.spoken.push(Spoken::Ready);
            }
        } else if line.starts_with(INTERNAL) {
            heard.handles += usize::from(line.starts_with(HANDLE));
        } else if line.starts_with(METRICS) {
        } else if !self.allowance.take(now) {
            self.dropped.messages += 1;
        } else if serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok()
            && let Ok(text) = str::from_utf8(line)
        {
            heard.spoken.push(Spoken::Message(text.to_owned()));
        } else {
            self.dropped.messages += 1;
            self.dropped.malformed += 1;
        }
    }

    /// When what was dropped is to be told.
    pub(super) fn due(&self) -> Option<Instant> {
        let dropped = &self.dropped;
        (dropped.messages > 0).then(|| dropped.told.map_or(self.allowance.since, |at| at + TELL))
    }

    /// What was dropped since that was last told.
    pub(super) fn tell(&mut self, now: Instant) -> Spoken {
        let Dropped { messages, longest, malformed, .. } = self.dropped;
        self.dropped =
            Dropped { told: Some(now), growing: self.dropped.growing, ..Dropped::default() };
        Spoken::Dropped { messages, longest, malformed }
    }
}

/// How much may be said still.
#[derive(Debug)]
struct Allowance {
    left: u32,
    since: Instant,
}

impl Allowance {
    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.since).as_millis();
        let earned = passed * u128::from(PER_SECOND) / 1000;
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(BURST);
            self.left = self.left.saturating_add(earned).min(BURST);
            self.since = now;
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_words_themselves_say_that_a_worker_is_ready() {
        for (said, expected) in [
            (&b"\"ready\"\n"[..], true),
            (b"\"online\"\n", true),
            (b" \"ready\" \r\n", true),
            (b"{\"type\":\"axm:monitor\"}\n\"ready\"\n\"x\"\n", true),
            (b"\"ready\"", false),
            (b"ready\n", false),
            (b"\"Ready\"\n", false),
            (b"{\"type\":\"process:msg\",\"data\":\"ready\"}\n", false),
            (b"[\"ready\"]\n", false),
            (b"\n\n\xff\n", false),
        ] {
            assert_eq!(heard(said).contains(&Spoken::Ready), expected, "{said:?}");
        }
    }

    #[test]
    fn messages_are_handed_on_and_what_is_between_nodes_is_not() {
        let said = b"{\"a\":1}\n{\"cmd\":\"NODE_CLUSTER\",\"act\":\"online\"}\n\"x\"\n{\"type\":\"axm:monitor\",\"data\":{}}\n7\n";
        let message = |text: &str| Spoken::Message(text.to_owned());
        assert_eq!(heard(said), [message("{\"a\":1}"), message("\"x\""), message("7")]);
    }

    #[test]
    fn a_handle_wants_an_answer() {
        let mut lines = Lines::new(Instant::now());
        let said = b"{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Server\",\"msg\":1}\n{\"cmd\":\"NODE_HANDLE_ACK\"}\n";
        assert_eq!(lines.take(said, Instant::now()).handles, 1);
    }

    #[test]
    fn what_makes_no_sense_or_is_too_long_is_counted_and_hides_nothing_after_it() {
        let now = Instant::now();
        let mut lines = Lines::new(now);
        for _ in 0..1000 {
            assert!(lines.take(&[b'x'; 5000], now).spoken.is_empty());
            assert!(lines.begun.len() <= LONGEST);
        }
        assert!(
            lines.take(b"\"ready\"\n{half\n", now).spoken.is_empty(),
            "the end of the long one"
        );
        assert_eq!(lines.take(b"\"ready\"\n", now).spoken, [Spoken::Ready]);
        assert!(lines.due().is_some_and(|due| due <= now));
        let dropped = lines.tell(now);
        assert_eq!(dropped, Spoken::Dropped { messages: 2, longest: 5_000_007, malformed: 1 });
        assert_eq!(lines.due(), None);
    }

    #[test]
    fn a_flood_is_cut_and_counted() {
        let now = Instant::now();
        let mut lines = Lines::new(now);
        let shown: usize = (0..1000).map(|_| lines.take(b"1\n2\n", now).spoken.len()).sum();
        assert_eq!(shown, BURST as usize);
        let dropped = lines.tell(now);
        assert_eq!(dropped, Spoken::Dropped { messages: 2000 - 100, longest: 0, malformed: 0 });
        let later = now + Duration::from_millis(100);
        assert_eq!(lines.take(b"1\n2\n3\n", later).spoken.len(), 2);
        assert_eq!(lines.due(), Some(now + TELL));
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(cuts in prop::collection::vec(1..9_usize, 0..20)) {
            let said = b"{\"a\":1}\n\"ready\"\n\"unready\"\n";
            let now = Instant::now();
            let (mut lines, mut at, mut spoken) = (Lines::new(now), 0, Vec::new());
            for cut in cuts.into_iter().chain([said.len()]) {
                let to = (at + cut).min(said.len());
                spoken.extend(lines.take(&said[at..to], now).spoken);
                at = to;
            }
            prop_assert_eq!(spoken, heard(said));
        }

        #[test]
        fn no_bytes_panic(said in prop::collection::vec(any::<u8>(), 0..300)) {
            drop(heard(&said));
        }
    }

    fn heard(said: &[u8]) -> Vec<Spoken> {
        Lines::new(Instant::now()).take(said, Instant::now()).spoken
    }
}
