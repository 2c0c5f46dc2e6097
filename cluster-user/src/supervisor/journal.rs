//! The journal: what the next supervisor needs to go on, written before anything is done.
//!
//! One file, replaced as a whole. It is not synced to the disk: what it tells of is gone after a power failure.

use std::{
    collections::BTreeMap,
    fs,
    hash::{DefaultHasher, Hasher as _},
    io,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::LazyLock,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::{ledger::Ledger, succession};
use crate::{
    config::home::Home,
    datapath::record::GroupRecord,
    id::{GroupId, WorkerId},
    state::State,
};

/// Version of the file; one that is newer cannot be read, older ones can.
pub const FORMAT: u32 = 1;

/// What is written down.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Entry<S> {
    /// [`FORMAT`] of whoever wrote it.
    format: u32,
    /// Release of the program that wrote it.
    release: String,
    /// The host's boot in which it was written.
    boot: String,
    /// The program that wrote it.
    program: PathBuf,
    /// How connections were carried.
    pub(super) mode: crate::datapath::Mode,
    /// What was known and decided.
    pub(super) state: S,
    /// What is needed to find groups again.
    pub(super) groups: BTreeMap<GroupId, GroupRecord>,
    /// What is needed to find processes and their output again.
    pub(super) trees: BTreeMap<WorkerId, TreeRecord>,
    /// What was counted for those that have gone.
    #[serde(default)]
    pub(super) ledger: Ledger,
}

/// What is needed to find a worker's processes and their output again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TreeRecord {
    /// Its main process.
    pub(super) pid: u32,
    /// When that started, in clock ticks since boot.
    pub(super) started: u64,
    /// Inode numbers of the pipes of its output.
    pub(super) pipes: [u64; 2],
    /// Cookie of the daemon's end of its channel, if it has one.
    #[serde(default)]
    pub(super) channel: Option<u64>,
}

/// What a supervisor finds where its predecessor's journal should be.
#[derive(Debug)]
pub(super) enum Found {
    /// None: the predecessor ended in an orderly way, or there never was one.
    Nothing,
    /// What the predecessor knew.
    Entry(Box<Entry<State>>),
    /// One of an earlier boot: everything it tells of is gone.
    EarlierBoot,
    /// One that cannot be read, and why.
    Broken(String),
}

/// Whether a daemon of this home was killed and may have left workers: there is a journal of this boot, or one that does
/// not tell when it was written.
///
/// A daemon that ends as it was told to removes its journal before it lets go of the home's lock.
pub fn is_left(home: &Home) -> bool {
    fs::read(home.journal()).is_ok_and(|bytes| may_be_of(&bytes, &boot_id()))
}

fn may_be_of(bytes: &[u8], boot: &str) -> bool {
    serde_json::from_slice::<Header>(bytes).map_or(true, |header| header.boot == boot)
}

/// The file.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    /// Hash of what was written last: itself, it is half a megabyte with hundreds of workers.
    written: Option<u64>,
}

impl Journal {
    /// That of a home; nothing is read or written.
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path, written: None }
    }

    /// Reads what the predecessor wrote.
    ///
    /// # Errors
    /// When the file cannot be read at all.
    pub(super) fn read(&self) -> io::Result<Found> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(error),
        };
        Ok(decode(&bytes, &boot_id()))
    }

    /// Moves the file out of the way, and says where to.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub(super) fn set_aside(&self) -> io::Result<PathBuf> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let aside = self.path.with_extension(format!("broken-{}", now.as_secs()));
        fs::rename(&self.path, &aside)?;
        Ok(aside)
    }

    /// Writes everything down, unless it is what was written last.
    ///
    /// # Errors
    /// When the file cannot be replaced; the one before it stays then.
    pub(super) fn write(&mut self, entry: &Entry<&State>) -> io::Result<()> {
        let bytes = serde_json::to_vec(entry)?;
        let mut hash = DefaultHasher::new();
        hash.write(&bytes);
        let hash = Some(hash.finish());
        if hash == self.written {
            return Ok(());
        }
        let new = self.path.with_extension("new");
        // Environments are in it, and with them secrets.
        let mut options = fs::OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        options.open(&new)?.write_all(&bytes)?;
        fs::rename(&new, &self.path)?;
        self.written = hash;
        Ok(())
    }

    /// Removes the file: nothing is left that a successor could take over.
    ///
    /// # Errors
    /// When it is there and cannot be removed.
    pub(super) fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl<'a> Entry<&'a State> {
    pub(super) fn new(
        mode: crate::datapath::Mode,
        state: &'a State,
        groups: BTreeMap<GroupId, GroupRecord>,
        trees: BTreeMap<WorkerId, TreeRecord>,
        ledger: Ledger,
    ) -> Self {
        let release = env!("CARGO_PKG_VERSION").to_owned();
        let program = succession::own_program();
        let boot = boot_id();
        Self { format: FORMAT, release, boot, program, mode, state, groups, trees, ledger }
    }
}

/// What every version of the file has.
#[derive(Deserialize)]
struct Header {
    format: u32,
    release: String,
    boot: String,
}

/// The program that wrote a journal of this boot; `None` when that cannot be told.
pub(super) fn program_of(path: &Path) -> Option<PathBuf> {
    #[derive(Deserialize)]
    struct Written {
        boot: String,
        program: PathBuf,
    }
    let written: Written = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (written.boot == boot_id()).then_some(written.program)
}

fn decode(bytes: &[u8], boot: &str) -> Found {
    let header: Header = match serde_json::from_slice(bytes) {
        Ok(header) => header,
        Err(error) => return Found::Broken(format!("is no journal: {error}")),
    };
    if header.format > FORMAT {
        return Found::Broken(format!(
            "has format {}, of release {}, and this release {} reads up to {FORMAT}",
            header.format,
            header.release,
            env!("CARGO_PKG_VERSION")
        ));
    }
    if header.boot != boot {
        return Found::EarlierBoot;
    }
    let entry: Entry<State> = match serde_json::from_slice(bytes) {
        Ok(entry) => entry,
        Err(error) => return Found::Broken(format!("makes no sense: {error}")),
    };
    let mut entry = Box::new(entry);
    match entry.state.complete() {
        Ok(()) => Found::Entry(entry),
        Err(error) => Found::Broken(format!("contradicts itself: {error}")),
    }
}

/// The kernel's name for the time since it was booted (`random(4)`); empty where it has none.
fn boot_id() -> String {
    // It stays as it is, and every entry has it.
    static BOOT: LazyLock<String> = LazyLock::new(|| {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        id.trim().to_owned()
    });
    BOOT.clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::Mode;

    #[test]
    fn what_was_written_is_read_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::at(folder.path().join("journal.json"));
        assert!(matches!(journal.read().unwrap(), Found::Nothing));
        let state = State::default();
        journal.write(&entry(&state)).unwrap();
        assert!(matches!(journal.read().unwrap(), Found::Entry(_)));
        journal.remove().unwrap();
        assert!(matches!(journal.read().unwrap(), Found::Nothing));
    }

    #[test]
    fn what_is_cut_off_garbage_or_from_the_future_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::at(folder.path().join("journal.json"));
        let state = State::default();
        journal.write(&entry(&state)).unwrap();
        let whole = fs::read_to_string(journal.path()).unwrap();
        let future = whole.replacen("\"format\":1", "\"format\":99", 1);
        for text in [&whole[..whole.len() / 2], "garbage", "", "{}", &future] {
            fs::write(journal.path(), text).unwrap();
            assert!(matches!(journal.read().unwrap(), Found::Broken(_)), "{text}");
        }
        let aside = journal.set_aside().unwrap();
        assert_eq!(fs::read_to_string(aside).unwrap(), future);
        assert!(matches!(journal.read().unwrap(), Found::Nothing));
    }

    #[test]
    fn an_earlier_boot_left_nothing() {
        let state = State::default();
        let bytes = serde_json::to_vec(&entry(&state)).unwrap();
        assert!(matches!(decode(&bytes, "another boot"), Found::EarlierBoot));
        assert!(!may_be_of(&bytes, "another boot"));
        assert!(may_be_of(&bytes, &boot_id()));
        assert!(may_be_of(&bytes[1..], "another boot"), "who knows");
    }

    fn entry(state: &State) -> Entry<&State> {
        Entry::new(Mode::Plain, state, BTreeMap::new(), BTreeMap::new(), Ledger::default())
    }
}
