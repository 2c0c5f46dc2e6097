//! Folders that the kernel watches for us, and what it says of them.

use std::{
    collections::{BTreeSet, HashMap},
    ffi::OsString,
    fs,
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor},
};

use super::{Blind, Scene};

/// Folders that one app may have watched: each costs the kernel about a kilobyte, and us less.
const MOST: usize = 20_000;

/// Files end to be written, come, go, and folders with them.
const WATCHED: AddWatchFlags = AddWatchFlags::IN_CLOSE_WRITE
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_MOVE)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_ONLYDIR);

/// Folders that are watched.
#[derive(Debug)]
pub(super) struct Eyes {
    inotify: Option<Inotify>,
    folders: HashMap<WatchDescriptor, Folder>,
    /// What is to be watched and is not there.
    pub(super) missing: Vec<PathBuf>,
    /// Whether nothing was left out for want of watches.
    pub(super) see_all: bool,
}

/// A folder that is watched.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    sees: Sees,
}

/// What counts in a folder.
#[derive(Debug)]
enum Sees {
    /// All that is not ignored.
    All,
    /// These: files that are watched by name, and the names of what is, or what leads to it, should that come or go.
    Names(BTreeSet<OsString>),
}

impl Eyes {
    /// None at all.
    pub(super) fn closed() -> Self {
        Self { inotify: None, folders: HashMap::new(), missing: Vec::new(), see_all: false }
    }

    /// Watches all that a scene has, as it is now; and says what could not be.
    pub(super) fn open(scene: &Scene) -> Result<(Self, Option<Blind>), Errno> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let mut eyes = Self { inotify: Some(inotify), see_all: true, ..Self::closed() };
        let mut blind = None;
        for root in &scene.view.watch.paths {
            // First where it would come back to: what happens meanwhile is then seen twice rather than not at all.
            eyes.look_out_for(root);
            let result = match fs::metadata(root) {
                Ok(found) if found.is_dir() => eyes.walk(root.clone(), scene, &mut |_| {}),
                Ok(_) => eyes.look_at_target(root),
                Err(_) => {
                    eyes.missing.push(root.clone());
                    Ok(())
                }
            };
            if let Err(why) = result {
                eyes.see_all = false;
                blind = Some(why);
            }
        }
        if blind.is_none() && !eyes.missing.is_empty() {
            blind = Some(Blind::Missing(eyes.missing.clone()));
        }
        Ok((eyes, blind))
    }

    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(Inotify::as_fd)
    }

    /// Watches for the name of a path in the folder it is in, or the nearest one above that is there.
    fn look_out_for(&mut self, path: &Path) {
        let mut below = path;
        while let (Some(above), Some(name)) = (below.parent(), below.file_name()) {
            if above.is_dir() {
                // Without a watch there it is not noticed when it comes back; what is there is watched all the same.
                drop(self.add(above, Some(name.to_owned())));
                return;
            }
            below = above;
        }
    }

    /// A file that is a symbolic link changes when what it leads to does.
    fn look_at_target(&mut self, file: &Path) -> Result<(), Blind> {
        if let Ok(target) = fs::canonicalize(file)
            && target != file
            && let (Some(above), Some(name)) = (target.parent(), target.file_name())
        {
            self.add(above, Some(name.to_owned()))?;
        }
        Ok(())
    }

    /// Watches a folder and all below it that count; tells of the files in it.
    fn walk(
        &mut self,
        root: PathBuf,
        scene: &Scene,
        tell: &mut impl FnMut(PathBuf),
    ) -> Result<(), Blind> {
        let mut folders = vec![root];
        while let Some(path) = folders.pop() {
            if scene.is_stopped() {
                return Ok(());
            }
            // One that is known already is there twice, by a symbolic link, perhaps one that leads back.
            if !self.add(&path, None)? {
                continue;
            }
            // It may be gone by now, or may not be read; then nothing in it is watched.
            let entries = fs::read_dir(&path).into_iter().flatten().flatten();
            for entry in entries {
                let below = entry.path();
                let Ok(kind) = entry.file_type() else { continue };
                if scene.ignores(&below) {
                    continue;
                }
                let is_folder = kind.is_dir() || (kind.is_symlink() && below.is_dir());
                if is_folder {
                    folders.push(below);
                } else if kind.is_file() || kind.is_symlink() {
                    tell(below);
                }
            }
        }
        Ok(())
    }

    /// Watches one folder, all of it or a name in it; whether that is new.
    fn add(&mut self, path: &Path, name: Option<OsString>) -> Result<bool, Blind> {
        let Some(inotify) = &self.inotify else { return Ok(false) };
        if self.folders.len() >= MOST {
            return Err(Blind::Folders { folders: self.folders.len() });
        }
        let descriptor = match inotify.add_watch(path, WATCHED) {
            Ok(descriptor) => descriptor,
            Err(Errno::ENOSPC) => return Err(Blind::Watches { folders: self.folders.len() }),
            // Gone, or not to be entered by this user: no reason to leave out the rest.
            Err(_) => return Ok(false),
        };
        let folder = self.folders.entry(descriptor);
        let mut is_new = false;
        let folder = folder.or_insert_with(|| {
            is_new = true;
            Folder { path: path.to_owned(), sees: Sees::Names(BTreeSet::new()) }
        });
        match (&mut folder.sees, name) {
            (Sees::All, _) => {}
            (Sees::Names(names), Some(name)) => is_new |= names.insert(name),
            (Sees::Names(_), None) => {
                folder.sees = Sees::All;
                path.clone_into(&mut folder.path);
                is_new = true;
            }
        }
        Ok(is_new)
    }

    /// Tells of all that has changed; true when everything has to be looked at anew.
    pub(super) fn look(&mut self, scene: &Scene, mut tell: impl FnMut(PathBuf)) -> bool {
        let mut again = false;
        while let Some(Ok(events)) = self.inotify.as_ref().map(Inotify::read_events) {
            for event in events {
                again |= self.see(scene, event, &mut tell);
            }
        }
        again
    }

    fn see(&mut self, scene: &Scene, event: InotifyEvent, tell: &mut impl FnMut(PathBuf)) -> bool {
        let is = |flag| event.mask.intersects(flag);
        if is(AddWatchFlags::IN_Q_OVERFLOW) {
            // Changes have come faster than they were read: which ones is not known.
            scene.view.watch.paths.iter().cloned().for_each(tell);
            return true;
        }
        let Some(folder) = self.folders.get(&event.wd) else { return false };
        if is(AddWatchFlags::IN_IGNORED) {
            self.folders.remove(&event.wd);
            return false;
        }
        if is(AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF) {
            // Of folders below another that is watched that one tells.
            return scene.view.watch.paths.iter().any(|root| root.starts_with(&folder.path));
        }
        let Some(name) = event.name else { return false };
        let path = folder.path.join(&name);
        let comes_or_goes =
            is(AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVE | AddWatchFlags::IN_DELETE);
        match &folder.sees {
            Sees::Names(names) if !names.contains(&name) => return false,
            Sees::Names(_) => {
                // What leads to a watched path is none itself.
                let is_watched = scene.view.watch.paths.contains(&path)
                    || !scene.view.watch.paths.iter().any(|root| root.starts_with(&path));
                if is_watched && counts(&path, event.mask) {
                    tell(path);
                }
                return comes_or_goes;
            }
            Sees::All => {}
        }
        if scene.ignores(&path) {
            return false;
        }
        if !is(AddWatchFlags::IN_ISDIR) {
            if counts(&path, event.mask) {
                tell(path);
            }
            return false;
        }
        if is(AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO) {
            if is(AddWatchFlags::IN_MOVED_TO) {
                tell(path.clone());
            }
            // Files that were made before it was watched have come with it. When there are no more watches, looking at
            // everything anew says so, once.
            return self.walk(path, scene, tell).is_err() && self.see_all;
        }
        if is(AddWatchFlags::IN_MOVED_FROM) {
            self.forget_below(&path);
            tell(path);
        }
        false
    }

    /// A folder that was moved to elsewhere is still watched by the kernel.
    fn forget_below(&mut self, path: &Path) {
        let gone: Vec<_> = self
            .folders
            .iter()
            .filter(|(_, folder)| folder.path.starts_with(path))
            .map(|(descriptor, _)| *descriptor)
            .collect();
        for descriptor in gone {
            self.folders.remove(&descriptor);
            if let Some(inotify) = &self.inotify {
                // It may have gone by itself.
                inotify.rm_watch(descriptor).unwrap_or_default();
            }
        }
    }
}

/// Whether what happened to a file is a change of it. One that is new is being written, and counts when that ends; a link
/// is never written.
fn counts(path: &Path, happened: AddWatchFlags) -> bool {
    if !happened.contains(AddWatchFlags::IN_CREATE) {
        return true;
    }
    fs::symlink_metadata(path).is_ok_and(|found| {
        found.file_type().is_symlink() || (found.file_type().is_file() && found.nlink() > 1)
    })
}
