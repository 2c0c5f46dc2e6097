//! Compresses rotated files, one at a time, in a thread that is there only while there is something to compress.
//!
//! Only the pump's thread renames and removes files. The compressor writes beside them and says when it is done; the pump then
//! looks which number the file has by now.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, BufReader, BufWriter, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use flate2::{Compression, write::GzEncoder};
use rustix::process::setpriority_process;

use super::{
    Requests,
    pump::Command,
    rotate::{absent_is_fine, compressed, numbered},
};
use crate::config::spec::logs::{KEEP, Rotation};

/// A rotated file is compressed when it has not been written for this long: readers that follow have got over it, and what a
/// flood rotates out of existence before is not worth the time.
pub(super) const SETTLED: Duration = Duration::from_secs(10);

/// Half as small costs three times the time.
const LEVEL: u32 = 4;

/// Compression waits for everything else that wants the processor.
const NICE: i32 = 19;

/// The compressor is made on the stack before it moves to the heap.
const STACK: usize = 2 * 1024 * 1024;

/// Which log files may have rotated ones to compress.
#[derive(Debug)]
pub(super) struct Keeper {
    settled: Duration,
    due: BTreeMap<Arc<Path>, (Instant, Rotation)>,
    /// The log file whose rotated one is being compressed.
    busy: Option<Arc<Path>>,
    done: Requests,
}

/// A rotated file that has been compressed.
#[derive(Debug)]
pub(super) struct Compressed {
    log: Arc<Path>,
    inode: u64,
    written: io::Result<()>,
}

impl Keeper {
    pub(super) fn new(settled: Duration, done: Requests) -> Self {
        Self { settled, due: BTreeMap::new(), busy: None, done }
    }

    /// Looks after the rotated files of `log` when they have settled.
    pub(super) fn expect(&mut self, log: &Arc<Path>, rotation: Rotation, now: Instant) {
        if rotation.compress && rotation.keep > 0 {
            let due = now + self.settled;
            self.due.entry(Arc::clone(log)).or_insert((due, rotation)).1 = rotation;
        }
    }

    /// When there may be something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        // While one is being compressed its end is waited for.
        self.due.values().map(|(due, _)| *due).min().filter(|_| self.busy.is_none())
    }

    /// Begins to compress what has settled.
    pub(super) fn look(&mut self, now: Instant) {
        while self.deadline().is_some_and(|due| due <= now) {
            let first = self.due.iter().min_by_key(|(_, (due, _))| *due);
            let Some((log, &(_, rotation))) = first else { return };
            let log = Arc::clone(log);
            self.due.remove(&log);
            if let Some(due) = self.begin(&log, rotation) {
                self.due.insert(log, (now + due, rotation));
            }
        }
    }

    /// Begins to compress the oldest of a log file's rotated ones that is not; or says when to look again.
    fn begin(&mut self, log: &Arc<Path>, rotation: Rotation) -> Option<Duration> {
        let mut again: Option<Duration> = None;
        for number in (1..=rotation.keep).rev() {
            let path = numbered(log, number);
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            if !metadata.is_file() {
                continue;
            }
            let age =
                metadata.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
            let left = self.settled.saturating_sub(age.unwrap_or_default());
            if !left.is_zero() {
                again = Some(again.map_or(left, |other| other.min(left)));
                continue;
            }
            if self.busy.is_some() {
                return Some(Duration::ZERO);
            }
            let (of, done) = (Arc::clone(log), self.done.clone());
            let begun = thread::Builder::new().name("compress".to_owned()).stack_size(STACK).spawn(
                move || {
                    let inode = metadata.ino();
                    let written = compress(&path, inode, &part(&of));
                    done.send(Command::Compressed(Compressed { log: of, inode, written }));
                },
            );
            if begun.is_ok() {
                self.busy = Some(Arc::clone(log));
            }
            // There may be others.
            return Some(if begun.is_ok() { Duration::ZERO } else { self.settled });
        }
        again
    }

    /// Puts a compressed file in the place of the one that it was made of.
    pub(super) fn finish(&mut self, compressed: Compressed) {
        self.busy = None;
        let Compressed { log, inode, written } = compressed;
        let keep = self.due.get(&log).map_or(KEEP, |(_, rotation)| rotation.keep);
        let part = part(&log);
        let placed = written.and_then(|()| {
            let numbers = (1..=keep).find(|number| {
                fs::symlink_metadata(numbered(&log, *number)).is_ok_and(|it| it.ino() == inode)
            });
            // Without one it was removed in the meantime.
            let Some(number) = numbers else { return fs::remove_file(&part) };
            fs::rename(&part, self::compressed(&log, number))?;
            fs::remove_file(numbered(&log, number))
        });
        if let Err(error) = placed {
            log::warn!("failed to compress a rotated file of {}: {error}", log.display());
            absent_is_fine(fs::remove_file(&part)).unwrap_or_default();
            // Not tried again until the next rotation: the disk is full, say.
            self.due.remove(&log);
        }
    }

    /// Leaves nothing half done behind.
    pub(super) fn stop(&mut self) {
        if let Some(log) = self.busy.take() {
            absent_is_fine(fs::remove_file(part(&log))).unwrap_or_default();
        }
    }
}

/// Where a compressed file is until it is whole. A daemon that is killed leaves it, and the next one writes over it.
fn part(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".gz-part");
    name.into()
}

fn compress(from: &Path, inode: u64, to: &Path) -> io::Result<()> {
    // Of this thread alone: 0 is whoever asks (`setpriority(2)`, Linux).
    setpriority_process(None, NICE).unwrap_or_default();
    let source = File::open(from)?;
    let metadata = source.metadata()?;
    if metadata.ino() != inode {
        return Err(io::ErrorKind::NotFound.into());
    }
    let target = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(metadata.mode() & 0o777)
        .custom_flags(libc::O_NOFOLLOW)
        .open(to)?;
    let mut gzip = GzEncoder::new(BufWriter::new(target), Compression::new(LEVEL));
    io::copy(&mut BufReader::with_capacity(64 * 1024, source), &mut gzip)?;
    let mut target = gzip.finish()?;
    target.flush()?;
    // Until when it was written is all that its time says.
    if let Ok(modified) = metadata.modified() {
        target.get_ref().set_modified(modified)?;
    }
    Ok(())
}
