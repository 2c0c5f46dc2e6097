//! What goes somewhere line by line: into files in another form, into several, or to a log service.
//!
//! A line stays in the worker's pipe until it is where it belongs. A daemon that is killed between the two leaves it in both, so
//! that a few lines can be there twice, and none is lost.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Kind,
    form::Form,
    pump::SharedFile,
    service::{Courier, Letterhead, Sent},
    stream::{Route, Stream, StreamId},
};
use crate::config::spec::logs::Service;

/// Lines are written into files in pieces of about this size.
const PIECE: usize = 128 * 1024;

/// How long room for the last words of a worker is waited for.
const PATIENCE: Duration = Duration::from_millis(50);

/// Where lines go.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) files: Vec<Arc<Path>>,
    pub(super) form: Form,
    pub(super) service: Option<(Service, Letterhead)>,
    /// Bytes that the service had no room for, and why, as long as it has not been told.
    lost: Option<(u64, String)>,
}

/// What is at the head of a pipe.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    /// As far as it was looked at.
    pub(super) bytes: &'a [u8],
    /// Whether that is all there will ever be.
    pub(super) last: bool,
    /// Whether the worker may soon have to wait.
    pub(super) crowded: bool,
    /// A longer beginning of a line is taken as it is.
    pub(super) patience: usize,
}

/// Where everything ends up.
#[derive(Debug)]
pub(super) struct Outlets {
    pub(super) files: BTreeMap<Arc<Path>, SharedFile>,
    journald: Courier,
    syslog: Courier,
    scratch: Vec<u8>,
}

impl Outlets {
    pub(super) fn new() -> Self {
        Self {
            files: BTreeMap::new(),
            journald: Courier::new(Service::Journald),
            syslog: Courier::new(Service::Syslog),
            scratch: Vec::new(),
        }
    }

    fn courier(&mut self, service: Service) -> &mut Courier {
        match service {
            Service::Journald => &mut self.journald,
            Service::Syslog => &mut self.syslog,
        }
    }
}

impl Lines {
    pub(super) fn new(
        files: Vec<Arc<Path>>,
        form: Form,
        service: Option<(Service, Letterhead)>,
    ) -> Self {
        Self { files, form, service, lost: None }
    }

    /// Sends to the service what it has room for: how many of these bytes are done with, and how many of them it did not get.
    fn send(&mut self, seen: &Seen<'_>, whole: &[u8], outlets: &mut Outlets) -> (usize, u64) {
        let Some((service, head)) = &self.service else { return (whole.len(), 0) };
        let courier = outlets.courier(*service);
        let until = seen.last.then(|| Instant::now() + PATIENCE);
        let mut done = 0;
        for line in whole.split_inclusive(|byte| *byte == b'\n') {
            if let Some((bytes, why)) = &self.lost {
                let notice = format!("[cluster] {bytes} bytes of output dropped: {why}");
                match courier.send(head, notice.as_bytes(), None) {
                    Sent::Done => self.lost = None,
                    Sent::NotNow(_) if !seen.crowded && !seen.last => return (done, 0),
                    Sent::NotNow(_) => {}
                }
            }
            let text = line.strip_suffix(b"\n").unwrap_or(line);
            let sent = courier.send(head, text, until);
            let Sent::NotNow(error) = sent else {
                done += line.len();
                continue;
            };
            if !seen.crowded && !seen.last {
                return (done, 0);
            }
            // The worker goes before its words.
            let lost = u64::try_from(whole.len() - done).unwrap_or(0);
            self.lose(lost, &error);
            return (whole.len(), lost);
        }
        (done, 0)
    }

    fn lose(&mut self, bytes: u64, error: &io::Error) {
        let why = if error.kind() == io::ErrorKind::WouldBlock {
            "the log service is too slow".to_owned()
        } else {
            format!("the log service is not there: {}", error.to_string().to_lowercase())
        };
        let (before, _) = self.lost.take().unwrap_or_default();
        if before == 0
            && let Some((service, _)) = &self.service
        {
            log::warn!("output for {} is dropped: {why}", super::service::place(*service));
        }
        self.lost = Some((before + bytes, why));
    }

    /// Writes lines into the files; how many of their bytes got into none of one of them.
    fn write(
        &self,
        id: StreamId,
        kind: Kind,
        lines: &[u8],
        outlets: &mut Outlets,
        now: Instant,
    ) -> u64 {
        if self.files.is_empty() {
            return 0;
        }
        let frame = self.form.frame(kind);
        let mut scratch = std::mem::take(&mut outlets.scratch);
        let (mut lost, mut raw) = (0, 0);
        let mut rest = lines.split_inclusive(|byte| *byte == b'\n').peekable();
        while let Some(line) = rest.next() {
            raw += line.len();
            match (&self.form, line.strip_suffix(b"\n")) {
                // A piece of a long line goes on.
                (Form::Raw, _) => scratch.extend_from_slice(line),
                (Form::Stamped(_) | Form::Json { .. }, text) => {
                    frame.put(text.unwrap_or(line), &mut scratch);
                }
            }
            if scratch.len() < PIECE && rest.peek().is_some() {
                continue;
            }
            let mut worst = 0;
            for path in &self.files {
                if let Some(shared) = outlets.files.get_mut(path) {
                    worst = worst.max(shared.file.append(id, &scratch, now));
                }
            }
            // Counted is what the worker wrote.
            let (part, whole) = (u128::from(worst) * raw as u128, scratch.len().max(1) as u128);
            lost += u64::try_from(part.div_ceil(whole)).unwrap_or(0);
            scratch.clear();
            raw = 0;
        }
        // One long line does not keep its room for good.
        scratch.shrink_to(2 * PIECE);
        outlets.scratch = scratch;
        lost
    }
}

impl Stream {
    /// Takes whole lines to where they belong, and says how many bytes that were; fewer than there are when the service has
    /// no room for more.
    pub(super) fn take_lines(
        &mut self,
        seen: &Seen<'_>,
        outlets: &mut Outlets,
        now: Instant,
    ) -> usize {
        let bytes = seen.bytes;
        let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let whole =
            if seen.last || end == 0 && bytes.len() >= seen.patience { bytes.len() } else { end };
        let whole = bytes.get(..whole).unwrap_or_default();
        if whole.is_empty() {
            return 0;
        }
        let (id, kind) = (self.id, self.kind);
        let Route::Lines(lines) = &mut self.route else { return 0 };
        let (done, unsent) = lines.send(seen, whole, outlets);
        let taken = whole.get(..done).unwrap_or_default();
        if taken.is_empty() {
            return 0;
        }
        let unwritten = lines.write(id, kind, taken, outlets, now);
        self.recent.add(taken);
        if let Some(pipe) = &self.pipe {
            pipe.skip(done);
        }
        self.count(unsent.max(unwritten));
        done
    }
}
