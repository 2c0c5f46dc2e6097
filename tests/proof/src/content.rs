//! What the apps answer: a text in which each byte tells its place, and which looks like heads of answers.
//!
//! Whoever alters what passes by and takes the beginning of a piece of a body for the beginning of an answer
//! is caught: every 32 bytes one begins.

use std::sync::OnceLock;

/// The text repeats after so many bytes; the longest body.
pub const PERIOD: usize = 1 << 20;
/// One head in the text.
pub const LINE: usize = 32;

/// That many bytes of the text from there on.
///
/// # Panics
/// When either is more than [`PERIOD`].
pub fn piece(from: usize, size: usize) -> &'static [u8] {
    static TEXT: OnceLock<Vec<u8>> = OnceLock::new();
    let text = TEXT.get_or_init(|| {
        let lines = (0..PERIOD / LINE).map(|n| format!("HTTP/1.1 200 OK\r\nX: {n:08x}\r\n\r\n"));
        lines.collect::<String>().repeat(2).into_bytes()
    });
    assert!(from <= PERIOD && size <= PERIOD, "no {size} bytes from {from} on");
    &text[from..from + size]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_repeats_after_its_period_and_not_before() {
        assert_eq!(piece(PERIOD, 100), piece(0, 100));
        assert_eq!(piece(0, 40), b"HTTP/1.1 200 OK\r\nX: 00000000\r\n\r\nHTTP/1.1");
        assert_eq!(&piece(PERIOD - LINE, LINE)[20..28], b"00007fff");
    }
}
