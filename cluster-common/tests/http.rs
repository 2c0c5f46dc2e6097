//! Heads as they are and as they are not, read by the table and by a reader that is slow and obvious.

use cluster_common::http::{
    CLOSE, CODED, FINAL, INTERIM, Reading, SWITCH, TABLE, UNSIZED, UPGRADE,
};
use proptest::prelude::*;

const FINAL_HEADS: &[&str] = &[
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.0 200 OK\r\n",
    "HTTP/1.1 204 No Content\r\n",
    "HTTP/1.1 304 Not Modified\r\n",
    "HTTP/1.1 404 Not Found\r\n",
    "HTTP/1.1 599 \r\n",
    "HTTP/1.1 200 \r\n",
    "HTTP/1.1 200\r\n",
    "HTTP/1.1 200 R\u{e9}ussi\r\n",
];

#[test]
fn a_final_status_line_is_found_with_its_length() {
    for line in FINAL_HEADS {
        for rest in ["", "\r\n", "A: b\r\n\r\nbody", "Connection: keep-alive\r\n"] {
            let head = response(&format!("{line}{rest}"));
            assert_eq!(head.found, FINAL, "{line:?}");
            assert_eq!(head.opening as usize, line.len(), "{line:?}");
        }
    }
}

#[test]
fn what_is_not_quite_a_status_line_is_none() {
    for line in [
        "HTTP/1.1 200 OK\n",
        "HTTP/1.1 200 OK\r",
        "HTTP/1.1 200 OK",
        "HTTP/1.1 200 OK\r\r\n",
        "HTTP/1.1 200 O\0K\r\n",
        "HTTP/1.1  200 OK\r\n",
        "HTTP/1.1 20 OK\r\n",
        "HTTP/1.1 2000 OK\r\n",
        "HTTP/1.1 600 OK\r\n",
        "HTTP/1.1 2x0 OK\r\n",
        "HTTP/1.1 200OK\r\n",
        "HTTP/1.1\t200 OK\r\n",
        "HTTP/1.2 200 OK\r\n",
        "HTTP/2.0 200 OK\r\n",
        "HTTP/1 200 OK\r\n",
        "HTTP/1.11 200 OK\r\n",
        "http/1.1 200 OK\r\n",
        " HTTP/1.1 200 OK\r\n",
        "\r\nHTTP/1.1 200 OK\r\n",
        "HTTP/1.",
        "GET / HTTP/1.1\r\n",
        "",
    ] {
        let head = response(line);
        assert_eq!(head.found, 0, "{line:?}");
    }
}

#[test]
fn interim_statuses_are_told_apart() {
    assert_eq!(response("HTTP/1.1 100 Continue\r\n\r\n").found, INTERIM);
    assert!(response("HTTP/1.1 100 Continue\r\n\r\n").is_complete());
    assert_eq!(response("HTTP/1.1 100 Continue\r\n\r\n").length(), 25);
    assert_eq!(response("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n").found, INTERIM);
    assert_eq!(response("HTTP/1.1 101 Switching Protocols\r\n").found, SWITCH);
    assert_eq!(response("HTTP/1.1 111 Odd\r\n").found, INTERIM);
}

#[test]
fn fields_are_found_however_they_are_written() {
    for (field, found) in [
        ("Connection: close", CLOSE),
        ("connection:close", CLOSE),
        ("CONNECTION: \t Close, x", CLOSE),
        ("Connection: keep-alive", 0),
        ("Connection: clos", 0),
        ("X-Connection: close", 0),
        ("Connection : close", 0),
        ("Connections: close", 0),
        ("Upgrade: h2c", UPGRADE),
        ("Upgrades: h2c", 0),
        ("Transfer-Encoding: chunked", CODED),
        ("Content-Length: 0", 0),
        ("Content-Length: 999999999", 0),
        ("Content-Length: 1000000000", UNSIZED),
        ("Content-Length: ", UNSIZED),
        ("Content-Length: x", UNSIZED),
        ("Content-Length: 5, 5", UNSIZED),
        ("Content-Length: -5", UNSIZED),
        ("Content-Encoding: gzip", 0),
        ("X: Upgrade: h2c", 0),
    ] {
        let head = response(&format!("HTTP/1.1 200 OK\r\n{field}\r\n\r\n"));
        assert_eq!(head.found, FINAL | found, "{field:?}");
        let head = request(&format!("GET / HTTP/1.1\r\nA: b\r\n{field}\r\n\r\n"));
        assert_eq!(head.found, found, "{field:?}");
        assert!(head.is_complete(), "{field:?}");
    }
}

#[test]
fn a_request_is_measured() {
    let head = request("POST /a?b HTTP/1.1\r\nHost: x\r\nContent-Length: 0123\r\n\r\nbody");
    assert!(head.is_complete());
    assert_eq!((head.length(), head.content), (53, 123));
    let get = request("GET * HTTP/1.0\r\n\r\n");
    assert_eq!((get.length(), get.content, get.is_complete()), (18, 0, true));
}

#[test]
fn what_is_not_quite_a_request_is_none() {
    for text in [
        "CONNECT a:1 HTTP/1.1\r\n",
        "get / HTTP/1.1\r\n",
        "GET  / HTTP/1.1\r\n",
        "GET / HTTP/2.0\r\n",
        "GET /\r\n",
        "GET / HTTP/1.1\n",
        "GET /\tx HTTP/1.1\r\n",
        " GET / HTTP/1.1\r\n",
        "\r\nGET / HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\nA: b\n",
        "HTTP/1.1 200 OK\r\n",
        "\u{16}\u{3}\u{1}",
    ] {
        assert!(request(text).is_refused(), "{text:?}");
    }
    for text in ["CONNECTED / HTTP/1.1\r\n", "CONNEC / HTTP/1.1\r\n", "C / HTTP/1.1\r\n"] {
        assert!(!request(text).is_refused(), "{text:?}");
    }
}

#[test]
fn every_byte_matters_in_every_place_of_a_status_line() {
    let line = b"HTTP/1.1 200 OK\r\n";
    for place in 0..line.len() {
        for byte in 0..=255 {
            let mut changed = line.to_vec();
            changed[place] = byte;
            assert_eq!(
                read(Reading::RESPONSE, &changed).has(FINAL),
                is_final(&changed),
                "{:?}",
                String::from_utf8_lossy(&changed)
            );
        }
    }
}

proptest! {
    #[test]
    fn a_status_line_is_what_it_is_by_its_grammar(text in near_status_line()) {
        prop_assert_eq!(read(Reading::RESPONSE, &text).has(FINAL), is_final(&text));
    }

    #[test]
    fn a_head_is_as_long_as_it_is(
        fields in proptest::collection::vec(("[A-Za-z-]{1,20}", "[ -~]{0,40}"), 0..8),
        content in proptest::option::of(0..1_000_000_u32),
        body in "[ -~\r\n]{0,50}",
    ) {
        let mut head = String::from("POST /x HTTP/1.1\r\n");
        for (name, value) in &fields {
            prop_assume!(!name.eq_ignore_ascii_case("content-length"));
            head.push_str(&[name, ": ", value, "\r\n"].concat());
        }
        if let Some(content) = content {
            head.push_str(&["Content-Length: ", &content.to_string(), "\r\n"].concat());
        }
        head.push_str("\r\n");
        let read = request(&[head.as_str(), &body].concat());
        prop_assert!(read.is_complete());
        prop_assert_eq!(read.length() as usize, head.len());
        prop_assert_eq!(read.content, content.unwrap_or(0));
        prop_assert_eq!(
            read.has(CODED),
            fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("transfer-encoding"))
        );
    }

    #[test]
    fn any_bytes_are_read_without_harm(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        for start in [Reading::REQUEST, Reading::RESPONSE] {
            let head = read(start, &bytes);
            prop_assert!(head.opening as usize <= bytes.len());
            prop_assert!(!head.is_complete() || head.length() as usize <= bytes.len());
        }
    }
}

/// By RFC 9112, 4, but that the space before an empty reason may be missing.
fn is_final(text: &[u8]) -> bool {
    let Some(end) = text.windows(2).position(|pair| pair == b"\r\n") else { return false };
    let line = &text[..end];
    line.len() >= 12
        && (line.starts_with(b"HTTP/1.1 ") || line.starts_with(b"HTTP/1.0 "))
        && (b'2'..=b'5').contains(&line[9])
        && line[10..12].iter().all(u8::is_ascii_digit)
        && line.get(12).is_none_or(|byte| *byte == b' ')
        && line[12..].iter().all(|byte| matches!(byte, b'\t' | b' '..=126 | 128..))
}

/// Status lines with a byte changed, left out or put in here and there.
fn near_status_line() -> impl Strategy<Value = Vec<u8>> {
    let line = ("HTTP/1\\.[01] [0-9]{3}( [ -~]{0,20})?", Just("\r\n"))
        .prop_map(|(line, end)| [line.as_str(), end].concat().into_bytes());
    let changes = proptest::collection::vec((0..40_usize, any::<u8>(), 0..4_u8), 0..3);
    (line, changes, "[ -~\r\n]{0,30}").prop_map(|(mut line, changes, rest)| {
        for (place, byte, change) in changes {
            let place = place % line.len();
            match change {
                0 => line[place] = byte,
                1 => line.insert(place, byte),
                2 if line.len() > 1 => drop(line.remove(place)),
                _ => {}
            }
        }
        line.extend(rest.into_bytes());
        line
    })
}

fn request(text: &str) -> Reading {
    read(Reading::REQUEST, text.as_bytes())
}

fn response(text: &str) -> Reading {
    read(Reading::RESPONSE, text.as_bytes())
}

fn read(mut reading: Reading, bytes: &[u8]) -> Reading {
    for byte in bytes {
        reading.step(&TABLE, *byte);
    }
    reading
}
