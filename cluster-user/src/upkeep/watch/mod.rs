//! Watching files: one thread for each app that asks for it, so that a large folder keeps nobody else waiting.
//!
//! The kernel tells of changes in folders (`inotify(7)`), so it takes one watch per folder and none per file. Folders that
//! do not count are not even looked into, which no library for this can be told: `node_modules` alone would take
//! thousands of watches.

mod burst;
mod eyes;
mod ours;

use std::{
    fmt, io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::{EfdFlags, EventFd},
};
use tokio::sync::mpsc;

pub use self::ours::Ours;
use self::{burst::Burst, eyes::Eyes};
use super::News;
use crate::{
    config::{pattern::Patterns, spec::watch::Watch},
    id::AppId,
};

/// Walking needs little stack: what is still to be visited is on the heap.
const STACK: usize = 128 * 1024;

/// How long to wait before what could not be watched is tried again: a walk through thousands of folders.
const RETRY: Duration = Duration::from_mins(5);

/// Why not all is watched. Displays as a fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blind {
    /// The kernel gives this user no more watches; `folders` have one.
    Watches {
        /// How many have one.
        folders: usize,
    },
    /// The kernel gives this user no more instances of inotify.
    Instances,
    /// There are more folders than one app may have watched.
    Folders {
        /// How many are watched.
        folders: usize,
    },
    /// Paths that are not there; they are waited for.
    Missing(Vec<PathBuf>),
    /// The kernel refuses.
    Failed(String),
}

impl Blind {
    /// The next step.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Watches { .. } => Some(
                "name folders that need not be watched in ignore_watch, or raise the limit: sysctl fs.inotify.max_user_watches=524288",
            ),
            Self::Instances => Some("raise the limit: sysctl fs.inotify.max_user_instances=1024"),
            Self::Folders { .. } => Some(
                "name folders that need not be watched in ignore_watch, or those that do in watch",
            ),
            Self::Missing(_) | Self::Failed(_) => None,
        }
    }
}

impl fmt::Display for Blind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Watches { folders } => write!(
                f,
                "only {folders} folders are watched: the kernel's limit of watches for this user is reached"
            ),
            Self::Instances => f.write_str(
                "nothing is watched: the kernel's limit of inotify instances for this user is reached",
            ),
            Self::Folders { folders } => {
                write!(f, "only {folders} folders are watched, and there are more")
            }
            Self::Missing(paths) => {
                let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
                write!(f, "{} is not there, and is waited for", paths.join(", "))
            }
            Self::Failed(why) => write!(f, "nothing is watched: {why}"),
        }
    }
}

/// What is watched for an app, and what of it does not count.
#[derive(Debug)]
pub struct View {
    /// As the app wants it.
    pub watch: Watch,
    /// Where written patterns begin.
    pub cwd: PathBuf,
    /// What this program writes itself.
    pub ours: Ours,
}

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    stop: Arc<EventFd>,
}

impl Watcher {
    /// Starts watching, in a thread of its own; [`News::Changed`] and [`News::Blind`] follow.
    ///
    /// # Errors
    /// When threads or descriptors run out.
    pub fn start(app: AppId, view: View, news: mpsc::Sender<News>) -> io::Result<Self> {
        let stop = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let patterns = Patterns::new(&view.watch.ignore);
        let scene = Scene { view, patterns, stop: Arc::clone(&stop) };
        let thread = thread::Builder::new().name(format!("watch-{app}")).stack_size(STACK);
        // It is not waited for: it may be inside a large folder, and ends at the next one.
        drop(thread.spawn(move || watch(app, &scene, &news))?);
        Ok(Self { stop })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // Only a count at its maximum refuses, and then it is set as well.
        self.stop.write(1).unwrap_or_default();
    }
}

/// What the thread knows.
#[derive(Debug)]
struct Scene {
    view: View,
    patterns: Patterns,
    stop: Arc<EventFd>,
}

impl Scene {
    /// Whether a file or folder below a watched one does not count.
    fn ignores(&self, path: &Path) -> bool {
        self.patterns.ignore(path, &self.view.cwd) || self.view.ours.has(path)
    }

    fn is_stopped(&self) -> bool {
        let mut ready = [PollFd::new(self.stop.as_fd(), PollFlags::POLLIN)];
        !matches!(poll(&mut ready, PollTimeout::ZERO), Ok(0) | Err(_))
    }
}

/// Works until it is told to stop, or nobody hears it.
fn watch(app: AppId, scene: &Scene, news: &mpsc::Sender<News>) {
    let mut burst = Burst::new(scene.view.watch.delay);
    let mut told = None;
    let mut missing: Vec<PathBuf> = Vec::new();
    loop {
        let (mut eyes, blind) = match Eyes::open(scene) {
            Ok(opened) => opened,
            Err(Errno::EMFILE) => (Eyes::closed(), Some(Blind::Instances)),
            Err(errno) => (Eyes::closed(), Some(Blind::Failed(errno.desc().to_lowercase()))),
        };
        // What has come back has changed.
        let there = |path: &PathBuf| !eyes.missing.contains(path);
        missing.drain(..).filter(there).for_each(|path| burst.add(path, Instant::now()));
        missing.clone_from(&eyes.missing);
        if let Some(why) = &blind
            && blind != told
            && news.blocking_send(News::Blind { app, why: why.clone() }).is_err()
        {
            return;
        }
        let retry = (!eyes.see_all).then(|| Instant::now() + RETRY);
        told = blind;
        loop {
            if !wait(scene, &eyes, [burst.deadline(), retry].into_iter().flatten().min()) {
                return;
            }
            let again = eyes.look(scene, |path| burst.add(path, Instant::now()));
            let now = Instant::now();
            if let Some(files) = burst.over(now)
                && news.blocking_send(News::Changed { app, files }).is_err()
            {
                return;
            }
            if again || retry.is_some_and(|retry| retry <= now) {
                break;
            }
        }
    }
}

/// Waits for something to happen or a moment to come; false when it is time to stop.
fn wait(scene: &Scene, eyes: &Eyes, until: Option<Instant>) -> bool {
    let left = until.map(|until| until.saturating_duration_since(Instant::now()));
    // A millisecond more: to wake too early would mean to spin.
    let left = left.map_or(PollTimeout::NONE, |left| {
        PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
    });
    let mut ready = vec![PollFd::new(scene.stop.as_fd(), PollFlags::POLLIN)];
    ready.extend(eyes.fd().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
    // What is told by an error is found out by looking.
    poll(&mut ready, left).unwrap_or_default();
    !scene.is_stopped()
}

#[cfg(test)]
mod tests;
