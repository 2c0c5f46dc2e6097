//! An answer as it comes in: whether it is whole, and what it says.

use crate::worker::{OVERRUN, WORKER};

/// A longer one is none that anybody asked for.
const LONGEST: usize = 64 * 1024 * 1024;

/// The bytes of an answer so far.
#[derive(Debug, Default)]
pub(super) struct Answer {
    bytes: Vec<u8>,
    head: Option<Head>,
}

#[derive(Clone, Debug)]
struct Head {
    length: usize,
    body: Body,
    worker: Option<String>,
    overrun: Option<u64>,
    is_last: bool,
    is_ok: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    Length(usize),
    Chunked,
    UntilEnd,
}

/// How far an answer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// There is more to come.
    Part,
    /// It is there.
    Whole {
        /// Who gave it, if it says so.
        worker: Option<String>,
        /// How many nanoseconds longer it took than it was to take, if it says so.
        overrun: Option<u64>,
        /// Whether the connection can be used once more.
        keep: bool,
        /// Whether it is a success.
        is_ok: bool,
    },
    /// It is none.
    Bad,
}

impl Answer {
    /// Whether nothing has come yet.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Makes room for the next one.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.head = None;
    }

    /// Takes what has come.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Progress {
        self.bytes.extend_from_slice(bytes);
        if self.head.is_none() {
            match head(&self.bytes) {
                Ok(head) => self.head = head,
                Err(Broken) => return Progress::Bad,
            }
        }
        let Some(head) = &self.head else { return self.part() };
        let body = &self.bytes[head.length..];
        let is_whole = match head.body {
            Body::Length(length) => body.len() >= length,
            Body::Chunked => match is_last_chunk_there(body) {
                Ok(is_there) => is_there,
                Err(Broken) => return Progress::Bad,
            },
            Body::UntilEnd => false,
        };
        if is_whole { head.whole() } else { self.part() }
    }

    /// The connection has ended.
    pub(super) fn end(&self) -> Progress {
        match &self.head {
            Some(head) if head.body == Body::UntilEnd => head.whole(),
            Some(_) | None => Progress::Bad,
        }
    }

    fn part(&self) -> Progress {
        if self.bytes.len() > LONGEST { Progress::Bad } else { Progress::Part }
    }
}

impl Head {
    fn whole(&self) -> Progress {
        let keep = !self.is_last && self.body != Body::UntilEnd;
        let (worker, overrun, is_ok) = (self.worker.clone(), self.overrun, self.is_ok);
        Progress::Whole { worker, overrun, keep, is_ok }
    }
}

/// It is no HTTP.
struct Broken;

fn head(bytes: &[u8]) -> Result<Option<Head>, Broken> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = response.parse(bytes).map_err(|_error| Broken)? else {
        return Ok(None);
    };
    let value = |name: &str| {
        let header = response.headers.iter().find(|it| it.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(header.value).ok().map(str::trim)
    };
    let code = response.code.unwrap_or_default();
    let body = if value("Transfer-Encoding").is_some_and(|it| it.eq_ignore_ascii_case("chunked")) {
        Body::Chunked
    } else if let Some(length) = value("Content-Length") {
        Body::Length(length.parse().map_err(|_error| Broken)?)
    } else if code == 204 || code == 304 {
        Body::Length(0)
    } else {
        Body::UntilEnd
    };
    Ok(Some(Head {
        length,
        body,
        worker: value(WORKER).map(str::to_owned),
        overrun: value(OVERRUN).and_then(|nanos| nanos.parse().ok()),
        is_last: value("Connection").is_some_and(|it| it.eq_ignore_ascii_case("close")),
        is_ok: (200..400).contains(&code),
    }))
}

fn is_last_chunk_there(mut body: &[u8]) -> Result<bool, Broken> {
    loop {
        let httparse::Status::Complete((at, size)) =
            httparse::parse_chunk_size(body).map_err(|_error| Broken)?
        else {
            return Ok(false);
        };
        let size = usize::try_from(size).map_err(|_error| Broken)?;
        // The data, and the end of its line; after the last chunk only that, if there are no trailers.
        let Some(rest) = body.get(at + size + 2..) else { return Ok(false) };
        if size == 0 {
            return Ok(true);
        }
        body = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_at_its_last_byte() {
        for (text, keep) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-Worker: 2\r\n\r\nok\n", true),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Worker: 2\r\n\r\n3\r\nok\n\r\n0\r\n\r\n",
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Worker: 2\r\nConnection: close\r\n\r\n",
                false,
            ),
        ] {
            let mut answer = Answer::default();
            let (last, first) = text.as_bytes().split_last().unwrap();
            for byte in first {
                assert_eq!(answer.take(&[*byte]), Progress::Part, "{text}");
            }
            let whole =
                Progress::Whole { worker: Some("2".to_owned()), overrun: None, keep, is_ok: true };
            assert_eq!(answer.take(&[*last]), whole, "{text}");
        }
    }

    #[test]
    fn without_a_length_it_ends_with_the_connection() {
        let mut answer = Answer::default();
        assert_eq!(answer.take(b"HTTP/1.0 500 No\r\n\r\nsorry"), Progress::Part);
        assert_eq!(
            answer.end(),
            Progress::Whole { worker: None, overrun: None, keep: false, is_ok: false }
        );
    }

    #[test]
    fn what_is_no_http_is_no_answer() {
        assert_eq!(Answer::default().take(b"SSH-2.0-OpenSSH\r\n"), Progress::Bad);
        let mut answer = Answer::default();
        assert_eq!(answer.take(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\no"), Progress::Part);
        assert_eq!(answer.end(), Progress::Bad);
    }
}
