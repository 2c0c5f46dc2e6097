//! Chunks: a body in chunks, decoded as it comes.

use crate::failure::Cause;

/// Where the decoder is.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    state: State,
    /// The line under way: a size, or what follows a chunk.
    line: Vec<u8>,
}

#[derive(Debug, Default)]
enum State {
    /// In the line that has the size of the next chunk.
    #[default]
    Size,
    /// In a chunk, with so many bytes to come.
    Data(usize),
    /// In the line end after a chunk.
    AfterData,
    /// In the line end after the last chunk.
    AfterLast,
    /// All has come.
    Done,
}

impl Chunks {
    /// Takes what has come, hands what belongs to the body to `body`, and returns how many bytes it took: all of
    /// them, unless the body has ended.
    pub(crate) fn take(
        &mut self,
        bytes: &[u8],
        mut body: impl FnMut(&[u8]) -> Result<(), Cause>,
    ) -> Result<usize, Cause> {
        let mut at = 0;
        while at < bytes.len() && !self.is_done() {
            if let State::Data(left) = &mut self.state {
                let size = (*left).min(bytes.len() - at);
                body(&bytes[at..at + size])?;
                *left -= size;
                at += size;
                if *left == 0 {
                    self.state = State::AfterData;
                }
            } else {
                self.line.push(bytes[at]);
                at += 1;
                if self.line.ends_with(b"\r\n") {
                    self.end_of_line()?;
                } else if self.line.len() > 20 {
                    return Err(self.broken());
                }
            }
        }
        Ok(at)
    }

    /// Whether all has come.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    fn end_of_line(&mut self) -> Result<(), Cause> {
        let line = &self.line[..self.line.len() - 2];
        self.state = match self.state {
            State::Size => {
                let size = std::str::from_utf8(line).ok();
                match size.and_then(|size| usize::from_str_radix(size, 16).ok()) {
                    Some(0) => State::AfterLast,
                    Some(size) => State::Data(size),
                    None => return Err(self.broken()),
                }
            }
            State::AfterData if line.is_empty() => State::Size,
            State::AfterLast if line.is_empty() => State::Done,
            State::AfterData | State::AfterLast | State::Data(_) | State::Done => {
                return Err(self.broken());
            }
        };
        self.line.clear();
        Ok(())
    }

    fn broken(&self) -> Cause {
        Cause::Wrong(format!("`{}` between chunks", self.line.escape_ascii()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &[u8] = b"3\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n";

    #[test]
    fn a_body_comes_together_however_it_is_cut() {
        for cut in 1..WHOLE.len() {
            let (mut chunks, mut body) = (Chunks::default(), Vec::new());
            for part in WHOLE.chunks(cut) {
                let mut take = |bytes: &[u8]| {
                    body.extend_from_slice(bytes);
                    Ok(())
                };
                assert_eq!(chunks.take(part, &mut take), Ok(part.len()));
            }
            assert!(chunks.is_done());
            assert_eq!(body, b"abc0123456789abcdef");
        }
    }

    #[test]
    fn what_follows_the_end_is_left() {
        let mut chunks = Chunks::default();
        assert_eq!(chunks.take(b"0\r\n\r\nHTTP/1.1", |_| Ok(())), Ok(5));
    }

    #[test]
    fn broken_chunks_are_wrong_answers() {
        for bad in [&b"x\r\n"[..], b"3\r\nabcd\r\n", b"0\r\nabc\r\n", b"123456789012345678901\r\n"]
        {
            let outcome = Chunks::default().take(bad, |_| Ok(()));
            assert!(matches!(outcome, Err(Cause::Wrong(_))), "{outcome:?}");
        }
    }
}
