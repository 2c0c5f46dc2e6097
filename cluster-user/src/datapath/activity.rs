//! When a connection was last used, and in which direction: `tcp_info`.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

// Where `struct tcp_info` has `tcpi_last_data_sent`, `tcpi_last_data_recv` (milliseconds ago), `tcpi_bytes_received` and
// `tcpi_data_segs_out` (since Linux 4.6).
const LAST_SENT: usize = 44;
const LAST_RECEIVED: usize = 52;
const BYTES_RECEIVED: usize = 128;
const SEGMENTS_SENT: usize = 156;
/// A request that came within the same tick of the kernel's clock as the answer before it looks like no
/// request: for this long, in milliseconds, it may be one.
const DOUBT: u32 = 3000;

/// When a connection was last used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity {
    /// Whether the last data went in and not out.
    pub awaits_answer: bool,
    /// For how long nothing has been sent or received, in milliseconds.
    pub silent: u32,
    /// Whether it has carried data at all.
    pub used: bool,
}

impl Activity {
    /// By a `struct tcp_info`, of which an old kernel fills only the beginning.
    pub fn of(info: &[u8]) -> Self {
        let (Some(sent), Some(received)) = (u32_at(info, LAST_SENT), u32_at(info, LAST_RECEIVED))
        else {
            // It is not told: to be on the safe side, yes.
            return Self { awaits_answer: true, silent: 0, used: true };
        };
        let nothing_came = [0; 8];
        let fresh =
            info.get(BYTES_RECEIVED..BYTES_RECEIVED + 8).is_some_and(|bytes| bytes == nothing_came);
        // Until something is sent, the kernel tells when the connection was made (`tcp_create_openreq_child`), and a
        // first request may come in the same tick: where nothing was ever sent, nothing has been answered.
        let unanswered = u32_at(info, SEGMENTS_SENT) == Some(0);
        let in_doubt = received == sent && (unanswered || received < DOUBT);
        let awaits_answer = received < sent || (!fresh && in_doubt);
        Self { awaits_answer, silent: sent.min(received), used: !fresh }
    }

    /// That of a socket.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn of_socket(socket: BorrowedFd<'_>) -> io::Result<Self> {
        // More than any kernel tells so far.
        const LENGTH: usize = 512;
        let mut info = [0_u8; LENGTH];
        let mut length: libc::socklen_t = 512;
        // SAFETY: `info` is valid for writes of `length` bytes, and both outlive the call.
        let status = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if status != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self::of(info.get(..length as usize).unwrap_or_default()))
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_request_awaits_its_answer_however_soon_it_came() {
        let since_long = 20_000;
        let of = |received, segments| Activity::of(&info(since_long, received, segments));
        assert!(of(111, 0).awaits_answer, "it came in the tick in which the connection was made");
        assert!(!of(0, 0).awaits_answer, "nothing was asked");
        assert!(!of(111, 1).awaits_answer, "it was answered in the same tick");
        // A kernel that does not tell what was sent.
        assert!(!Activity::of(&info(since_long, 111, 0)[..SEGMENTS_SENT]).awaits_answer);
    }

    #[test]
    fn for_a_while_a_request_may_have_come_with_the_answer_before_it() {
        assert!(Activity::of(&info(DOUBT - 1, 111, 1)).awaits_answer);
        assert!(!Activity::of(&info(DOUBT, 111, 1)).awaits_answer);
    }

    /// Of a connection over which data went both ways so many milliseconds ago, as far as the kernel's clock tells.
    fn info(ago: u32, received: u64, segments: u32) -> [u8; 192] {
        let mut info = [0; 192];
        for place in [LAST_SENT, LAST_RECEIVED] {
            info[place..place + 4].copy_from_slice(&ago.to_ne_bytes());
        }
        info[BYTES_RECEIVED..BYTES_RECEIVED + 8].copy_from_slice(&received.to_ne_bytes());
        info[SEGMENTS_SENT..SEGMENTS_SENT + 4].copy_from_slice(&segments.to_ne_bytes());
        info
    }
}
