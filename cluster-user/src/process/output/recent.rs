//! The end of what a stream carried, kept in memory for error messages.

use std::mem;

/// Bytes kept per stream. They are there when the disk is full and when another worker writes to the same
/// file, and 500 workers' fit beside everything else.
pub(super) const KEPT: usize = 4096;

/// The last lines of a worker, oldest first. What was cut off at the beginning of a long one is not marked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// Of standard output.
    pub out: Vec<String>,
    /// Of standard error.
    pub error: Vec<String>,
}

/// The last bytes of a stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Recent {
    bytes: Vec<u8>,
    /// Whether the oldest line is cut off at its beginning.
    cut: bool,
}

impl Recent {
    pub(super) fn add(&mut self, new: &[u8]) {
        let excess = (self.bytes.len() + new.len()).saturating_sub(KEPT);
        if excess == 0 {
            self.bytes.extend_from_slice(new);
            return;
        }
        // The byte before the first one kept says whether a line begins there.
        let (old, first) = match excess.checked_sub(self.bytes.len()) {
            None => (excess, 0),
            Some(first) => (self.bytes.len(), first),
        };
        let before = if first > 0 { new.get(first - 1) } else { self.bytes.get(old - 1) };
        self.cut = before != Some(&b'\n');
        self.bytes.drain(..old);
        self.bytes.extend_from_slice(new.get(first..).unwrap_or_default());
    }

    /// The last lines, oldest first; one that is cut off counts only when there is no other.
    pub(super) fn lines(&self, count: usize) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.bytes);
        let mut lines: Vec<&str> = text.lines().collect();
        if self.cut && lines.len() > 1 {
            lines.remove(0);
        }
        let first = lines.len().saturating_sub(count);
        mem::take(&mut lines).into_iter().skip(first).map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_lines_come_oldest_first() {
        let mut recent = Recent::default();
        recent.add(b"one\ntwo\nth");
        recent.add(b"ree\n");
        assert_eq!(recent.lines(2), ["two", "three"]);
        assert_eq!(recent.lines(9), ["one", "two", "three"]);
        assert!(recent.lines(0).is_empty());
    }

    #[test]
    fn a_line_without_an_end_is_shown() {
        let mut recent = Recent::default();
        recent.add(b"started\npanic: no");
        assert_eq!(recent.lines(1), ["panic: no"]);
    }

    proptest! {
        #[test]
        fn only_whole_lines_are_shown_however_they_arrive(
            lines in prop::collection::vec("[a-z]{0,300}", 0..60),
            size in 1_usize..9000,
        ) {
            let all: Vec<u8> = lines.iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect();
            let mut recent = Recent::default();
            all.chunks(size).for_each(|chunk| recent.add(chunk));
            let shown = recent.lines(usize::MAX);
            prop_assert!(recent.bytes.len() <= KEPT);
            prop_assert_eq!(&shown[..], &lines[lines.len() - shown.len()..]);
            prop_assert!(shown.len() == lines.len() || shown.len() > 10);
        }
    }
}
