//! When a connection may be told to close: what is remembered of it, and the two functions that decide.
//!
//! **Invariant: no byte of a body ever changes.** A write that merely begins with `HTTP/1.` is no response head. One is
//! taken for a head only if all of this holds, by the sequence numbers of the connection (RFC 9293):
//!
//! - since the connection is watched, exactly one whole request has arrived that is not answered: it began a segment, when
//!   the client had acknowledged all that was sent to it, and nothing has arrived behind it;
//! - the worker has read it to its end, and has sent nothing since it began to arrive;
//! - what is sent now begins with a status line that parses to its end, of a final status.
//!
//! A response that is under way when watching begins is thus left alone, whatever its body looks like: it answers a
//! request that was not seen. On a connection that was not at rest by then, one exchange is only looked at, and the next
//! request must come when that response has been sent to its end, where its length is told. A client that sends more than
//! one request at a time, a request of which the end cannot be told, something that is no request behind one: once there
//! was one of those, the connection is left alone for good. Whatever is missed, a segment, a write, a lost packet, makes
//! numbers differ, and the response goes out as it is.
//!
//! What cannot be known is what a client had under way that was not seen, if it sends more than one request at a time. Such
//! a client has to ask again for what it gets no answer to, says RFC 9112, 9.3.2.

use crate::http::{CLOSE, CODED, FINAL, INTERIM, Reading, SWITCH, Table, UNSIZED, UPGRADE};

/// Bytes of a segment that are read at a time. The kernel's programs read 33 times at most: a head of which a single
/// segment has more than that is not read to its end.
pub const CHUNK: usize = 128;
/// The same number.
pub const CHUNK_BYTES: u32 = CHUNK as u32;

/// What a connection is told, and how long that is.
pub const NOTICE: [u8; 19] = *b"\r\nConnection: close";
/// Its length.
pub const NOTICE_BYTES: u32 = NOTICE.len() as u32;
/// That of an [`Exchange`].
pub const EXCHANGE_BYTES: u32 = size_of::<Exchange>() as u32;

/// What is remembered of a connection that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Exchange {
    /// The request to be answered: sequence numbers of what had been sent when it began to arrive, and of its end, in one
    /// word, for both sides work at the same time. 0: there is none. Arrivals write, and departures for interim responses.
    asked: u64,
    /// Why the connection is left alone for good, as one of the list below; 0: it is not. Arrivals write.
    left: u32,
    /// How far it is, one of [`AT_WORK`] and the others. Departures write.
    stage: u32,
    /// Sequence number of the end of the response that was looked at.
    due: u32,
    /// 1 while a request's head has arrived in part. Arrivals only, as what follows.
    unfinished: u32,
    /// Sequence number behind the segment that is, or was last, read.
    next: u32,
    /// Bytes of it that have not been read.
    rest: u32,
    /// Sequence number at which the head begins.
    begun: u32,
    /// Sequence number of what had been sent when that head began to arrive.
    sent: u32,
    /// Whether the client had not acknowledged all of it.
    early: u32,
    /// Where in its packet the next byte to be read is. The programs' own.
    pub place: u32,
    /// Whether a whole request has been seen ([`SEEN`]), and whether something strange came before ([`SHAKEN`]).
    history: u32,
    reading: Reading,
}

const _: () = assert!(size_of::<Exchange>() == 72);

/// [`Exchange::left`]: more than one request was under way, or one of which the end cannot be told.
const CROWDED: u32 = 1;
/// [`Exchange::left`]: something arrived that is no request, and belongs to none that was seen.
const STRANGE: u32 = 2;

/// [`Exchange::history`]: a request has been seen.
const SEEN: u32 = 1;
/// [`Exchange::history`]: before the first request something else came: the rest of one that had begun, perhaps.
const SHAKEN: u32 = 2;

/// [`Exchange::stage`]: it may be in the middle of something; one exchange is looked at first.
const AT_WORK: u32 = 0;
/// [`Exchange::stage`]: the next response tells it to close, unless [`SHAKEN`].
const AT_REST: u32 = 1;
/// [`Exchange::stage`]: one exchange was looked at, and the next response tells it to close.
const LOOKED_AT: u32 = 2;
/// [`Exchange::stage`]: so it does if its request comes when [`Exchange::due`] has been reached.
const DUE: u32 = 4;
/// [`Exchange::stage`]: nothing more is to be done, because it was told, or tells so itself, or speaks another protocol.
const TOLD: u32 = 3;

/// A segment that arrives, and where the connection is by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Sequence number of its first byte.
    pub sequence: u32,
    /// What it acknowledges.
    pub acknowledged: u32,
    /// Bytes of data in it.
    pub length: u32,
    /// Sequence number of the byte that is expected next (`rcv_nxt`).
    pub expected: u32,
    /// Sequence number behind all that was sent (`snd_nxt`).
    pub sent: u32,
}

/// Where a connection is when something is about to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Sequence number behind all that was given to the kernel to be sent (`write_seq`).
    pub written: u32,
    /// Sequence number behind all that has arrived (`rcv_nxt`).
    pub arrived: u32,
    /// Sequence number behind all that the worker has read (`copied_seq`).
    pub read: u32,
}

/// Where `struct tcp_sock` has its fields: bytes from its beginning, different from kernel to kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TcpSock {
    /// `rcv_nxt`
    pub rcv_nxt: u32,
    /// `snd_nxt`
    pub snd_nxt: u32,
    /// `copied_seq`
    pub copied_seq: u32,
    /// `write_seq`
    pub write_seq: u32,
}

/// What to do with a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Let it go as it is.
    Leave,
    /// Insert [`NOTICE`] at this offset, which is that of the CR LF behind the status line; then say so by
    /// [`Exchange::told`].
    Insert(u32),
}

impl Exchange {
    /// Of a connection that is watched from now on; `at_rest`: between two messages, as far as can be told.
    pub const fn new(at_rest: bool) -> Self {
        let stage = if at_rest { AT_REST } else { AT_WORK };
        let reading = Reading::REQUEST;
        Self {
            asked: 0,
            left: 0,
            stage,
            due: 0,
            unfinished: 0,
            next: 0,
            rest: 0,
            begun: 0,
            sent: 0,
            early: 0,
            place: 0,
            history: 0,
            reading,
        }
    }

    /// As it lies in the map.
    pub const fn as_bytes(&self) -> &[u8; size_of::<Self>()] {
        // SAFETY: plain integers without padding, as the assertion above proves.
        unsafe { &*(&raw const *self).cast() }
    }

    /// From the map.
    pub const fn from_words(words: [u64; size_of::<Self>() / 8]) -> Self {
        // SAFETY: of the same size, and every bit pattern is valid.
        unsafe { core::mem::transmute(words) }
    }

    /// Whether it is left alone for good.
    pub const fn is_left(&self) -> bool {
        self.left != 0
    }

    /// Whether something arrived that is no request: perhaps this is no HTTP/1.
    pub const fn is_strange(&self) -> bool {
        self.left == STRANGE
            || (self.history & SHAKEN != 0 && matches!(self.stage, AT_WORK | AT_REST))
    }

    /// Whether it has been told to close, or needs not be.
    pub const fn is_told(&self) -> bool {
        self.stage == TOLD
    }

    /// Takes note of a segment that arrives, and says whether its data is to be read by [`Self::read`].
    #[inline(always)]
    pub fn arrive(&mut self, segment: &Segment) -> bool {
        if segment.length == 0 || self.left != 0 || self.stage == TOLD {
            return false;
        }
        let end = segment.sequence.wrapping_add(segment.length);
        if self.unfinished != 0 {
            if segment.sequence == self.next {
                self.next = end;
                self.rest = segment.length;
                return true;
            }
            if !is_behind(end, self.next) {
                // Sent again.
                return false;
            }
            // There is a gap, and what was read is worth nothing.
            self.unfinished = 0;
        }
        let asked = self.asked;
        if asked != 0 {
            let (sent, asked_end) = unpack(asked);
            if !is_behind(end, asked_end) {
                // Of its body, or sent again.
                return false;
            }
            if is_behind(asked_end, segment.sequence) || sent == segment.sent {
                self.left = CROWDED;
                return false;
            }
            self.set_asked(0);
        }
        if segment.sequence != segment.expected {
            // Sent again, or there is a gap. What fills the gap is looked at, but what is beyond it is missing by then.
            return false;
        }
        self.sent = segment.sent;
        self.early = u32::from(segment.acknowledged != segment.sent);
        self.begun = segment.sequence;
        self.next = end;
        self.rest = segment.length;
        self.reading = Reading::REQUEST;
        true
    }

    /// Reads on in a request's head. `bytes` is [`CHUNK`] bytes of the segment, or as many as there are, from where the last
    /// call left off. Says whether there is more to be read.
    #[inline(always)]
    pub fn read(&mut self, table: &Table, bytes: &[u8; CHUNK]) -> bool {
        let mut reading = self.reading;
        let rest = self.rest;
        let mut place = 0;
        while place < CHUNK {
            if place >= rest as usize {
                break;
            }
            reading.step(table, bytes[place]);
            place += 1;
        }
        self.reading = reading;
        if reading.is_refused() {
            self.unfinished = 0;
            if self.history & SEEN == 0 {
                self.history = SHAKEN;
            } else {
                self.left = STRANGE;
            }
        } else if self.early != 0 {
            // It comes before the response to another one has been received: there are more of them under way.
            self.left = CROWDED;
        } else if reading.is_complete() {
            self.unfinished = 0;
            self.complete();
        } else if self.rest > CHUNK as u32 {
            self.rest -= CHUNK as u32;
            // Unless it is read to its end, what comes next is worth nothing.
            self.unfinished = 0;
            return true;
        } else {
            self.unfinished = 1;
        }
        false
    }

    /// A request's head has been read whole.
    #[inline(always)]
    fn complete(&mut self) {
        let reading = &self.reading;
        let end = self.begun.wrapping_add(reading.length()).wrapping_add(reading.content);
        if reading.has(CODED | UNSIZED) || is_behind(self.next, end) {
            self.left = CROWDED;
        } else {
            self.history |= SEEN;
            self.set_asked(pack(self.sent, end));
        }
    }

    /// Whether something that is about to be sent may be a response head, so that it is worth reading.
    #[inline(always)]
    pub fn may_answer(&self, moment: &Moment) -> bool {
        let asked = self.asked();
        let (sent, _) = unpack(asked);
        asked != 0
            && self.left == 0
            && self.stage != TOLD
            && moment.written == sent
            && moment.read == moment.arrived
    }

    /// Decides about a write of `size` bytes, of which `head` is what was read, given [`Self::may_answer`].
    #[inline(always)]
    pub fn depart(&mut self, moment: &Moment, head: &Reading, size: u32) -> Verdict {
        let asked = self.asked();
        let (sent, end) = unpack(asked);
        if head.has(SWITCH) {
            self.stage = TOLD;
        } else if head.has(INTERIM) {
            // The response is still to come, if this is the whole of it: a field may be anything, so none is allowed.
            if head.is_complete() && head.length() == size {
                self.set_asked(pack(sent.wrapping_add(size), end));
            }
        } else if head.has(FINAL) && !head.is_refused() && moment.arrived == end {
            if head.has(CLOSE) {
                self.stage = TOLD;
            } else if !self.is_settled(sent) {
                self.look(moment, head);
            } else if !head.has(UPGRADE) {
                return Verdict::Insert(head.opening - 2);
            }
        }
        Verdict::Leave
    }

    /// Takes note of a response that is left as it is, to know when it has been sent to its end.
    #[inline(always)]
    fn look(&mut self, moment: &Moment, head: &Reading) {
        if head.is_complete() && !head.has(CODED | UNSIZED) {
            self.due = moment.written.wrapping_add(head.length()).wrapping_add(head.content);
            self.stage = DUE;
        } else {
            self.stage = LOOKED_AT;
        }
    }

    /// Whether the request that came when so much had been sent is the next after a response that has ended.
    #[inline(always)]
    fn is_settled(&self, sent: u32) -> bool {
        match self.stage {
            AT_REST => self.history & SHAKEN == 0,
            DUE => sent == self.due,
            stage => stage == LOOKED_AT,
        }
    }

    /// The connection has been told to close.
    #[inline(always)]
    pub fn told(&mut self) {
        self.stage = TOLD;
    }

    #[inline(always)]
    fn asked(&self) -> u64 {
        // SAFETY: a word of this, which another CPU may be writing as a whole.
        unsafe { (&raw const self.asked).read_volatile() }
    }

    #[inline(always)]
    fn set_asked(&mut self, asked: u64) {
        // SAFETY: as above.
        unsafe { (&raw mut self.asked).write_volatile(asked) }
    }
}

/// Whether a sequence number is behind another: less than half a turn further.
#[inline(always)]
const fn is_behind(sequence: u32, other: u32) -> bool {
    sequence.wrapping_sub(other).cast_signed() > 0
}

#[inline(always)]
const fn pack(sent: u32, end: u32) -> u64 {
    (sent as u64) << 32 | end as u64
}

#[inline(always)]
const fn unpack(asked: u64) -> (u32, u32) {
    ((asked >> 32) as u32, asked as u32)
}

#[cfg(feature = "user")]
// SAFETY: plain integers without padding, as the assertion above proves.
unsafe impl aya::Pod for Exchange {}
