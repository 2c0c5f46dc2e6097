//! Head of an answer: what a client has to know of it, read strictly.

use crate::failure::Cause;

/// Longest head; the apps' are a tenth of that.
pub(crate) const LIMIT: usize = 8 << 10;

/// The head of an answer with status 200.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// How the end of the body is found.
    pub(crate) framing: Framing,
    /// Whether the connection may be used again.
    pub(crate) keeps: bool,
    /// The request it answers.
    pub(crate) id: Option<u64>,
    /// The process that answers.
    pub(crate) pid: Option<u32>,
    /// Seconds after which the server closes a connection that nobody uses.
    pub(crate) idle_limit: Option<u64>,
}

/// How the end of a body is found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// By its length.
    Length(usize),
    /// In chunks.
    Chunked,
    /// When the connection is closed.
    UntilClosed,
}

/// Where the head ends in what has come so far; the body begins there.
pub(crate) fn end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

impl Head {
    /// Reads a complete head.
    ///
    /// # Errors
    /// Another status, or anything that is not as it should be.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Cause> {
        let wrong = |what: &str| Cause::Wrong(what.to_owned());
        let text = std::str::from_utf8(bytes).map_err(|_invalid| wrong("the head is no text"))?;
        let mut lines = text.trim_end_matches("\r\n").split("\r\n");
        let first = lines.next().unwrap_or_default();
        let status = ["HTTP/1.1 ", "HTTP/1.0 "].iter().find_map(|version| {
            first.strip_prefix(version).and_then(|rest| rest.get(..3)?.parse::<u16>().ok())
        });
        match status {
            Some(200) => {}
            Some(other) => return Err(Cause::Status(other)),
            None => return Err(Cause::Wrong(format!("it begins with `{}`", first.escape_debug()))),
        }
        let mut head = Self {
            framing: Framing::UntilClosed,
            keeps: first.starts_with("HTTP/1.1"),
            id: None,
            pid: None,
            idle_limit: None,
        };
        let mut has_framing = false;
        for line in lines {
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| Cause::Wrong(format!("`{}` is no header", line.escape_debug())))?;
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => {
                    let length =
                        value.parse().map_err(|_invalid| wrong("its length is no number"))?;
                    head.framing = Framing::Length(length);
                    if std::mem::replace(&mut has_framing, true) {
                        return Err(wrong("it has two lengths"));
                    }
                }
                "transfer-encoding" if value.eq_ignore_ascii_case("chunked") => {
                    head.framing = Framing::Chunked;
                    if std::mem::replace(&mut has_framing, true) {
                        return Err(wrong("it has two lengths"));
                    }
                }
                "connection" if value.eq_ignore_ascii_case("close") => head.keeps = false,
                "keep-alive" => {
                    let limit =
                        value.split(',').find_map(|part| part.trim().strip_prefix("timeout="));
                    head.idle_limit = limit.and_then(|seconds| seconds.parse().ok());
                }
                "x-id" => head.id = value.parse().ok(),
                "x-pid" => head.pid = value.parse().ok(),
                _ => {}
            }
        }
        Ok(Self { keeps: head.keeps && head.framing != Framing::UntilClosed, ..head })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_says_where_its_body_ends_and_whether_the_connection_stays() {
        let head =
            parse("HTTP/1.1 200 OK\r\nX-Id: 7\r\nX-Pid: 12\r\nContent-Length: 5\r\n\r\n").unwrap();
        assert_eq!((head.framing, head.keeps), (Framing::Length(5), true));
        assert_eq!((head.id, head.pid), (Some(7), Some(12)));
        let head =
            parse("HTTP/1.1 200 OK\r\nconnection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
                .unwrap();
        assert_eq!((head.framing, head.keeps), (Framing::Chunked, false));
        let head = parse("HTTP/1.0 200 OK\r\n\r\n").unwrap();
        assert_eq!((head.framing, head.keeps), (Framing::UntilClosed, false));
        let head =
            parse("HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5, max=9\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(head.unwrap().idle_limit, Some(5));
    }

    #[test]
    fn what_is_wrong_is_told() {
        assert_eq!(parse("HTTP/1.1 503 Busy\r\n\r\n"), Err(Cause::Status(503)));
        for bad in [
            "HTTP/2 200\r\n\r\n",
            "200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno header\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert!(matches!(parse(bad), Err(Cause::Wrong(_))), "{bad}");
        }
    }

    #[test]
    fn a_head_ends_with_an_empty_line() {
        assert_eq!(end(b"HTTP/1.1 200 OK\r\n\r"), None);
        assert_eq!(end(b"HTTP/1.1 200 OK\r\n\r\nbody"), Some(19));
    }

    fn parse(text: &str) -> Result<Head, Cause> {
        Head::parse(text.as_bytes())
    }
}
