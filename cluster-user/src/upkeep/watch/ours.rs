//! Files that running apps write: who watches a folder that they are in does not count them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use crate::id::AppId;

/// Files that this program writes while apps run: logs, with what they are rotated to, pid files, and folders of such.
///
/// Those of all apps, whoever watches: one app's logs are no change of another one either.
#[derive(Clone, Debug, Default)]
pub struct Ours {
    folders: Vec<PathBuf>,
    files: Arc<RwLock<BTreeMap<AppId, BTreeSet<PathBuf>>>>,
}

impl Ours {
    /// Nothing but what is in these folders.
    pub fn new(folders: Vec<PathBuf>) -> Self {
        Self { folders, files: Arc::default() }
    }

    /// Files of an app begin to be written.
    pub fn add(&self, app: AppId, files: impl IntoIterator<Item = PathBuf>) {
        // What a thread that panicked has left is whole: each change is one call.
        let mut all = self.files.write().unwrap_or_else(PoisonError::into_inner);
        all.entry(app).or_default().extend(files);
    }

    /// Forgets the files of all apps but these.
    pub fn retain(&self, apps: &BTreeSet<AppId>) {
        let mut all = self.files.write().unwrap_or_else(PoisonError::into_inner);
        all.retain(|app, _| apps.contains(app));
    }

    /// Whether a path is one of them, below one, or what one was rotated to.
    pub(super) fn has(&self, path: &Path) -> bool {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        self.folders.iter().any(|folder| path.starts_with(folder))
            || files.values().flatten().any(|file| is_of(path, file))
    }
}

fn is_of(path: &Path, known: &Path) -> bool {
    let rotated = || {
        let name = path.file_name()?.to_str()?.strip_prefix(known.file_name()?.to_str()?)?;
        Some(path.parent() == known.parent() && name.starts_with('.'))
    };
    path.starts_with(known) || rotated().unwrap_or(false)
}
