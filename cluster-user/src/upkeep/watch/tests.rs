//! Real folders, and what is told of them.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
};

use tempfile::TempDir;
use tokio::{runtime::Runtime, time::timeout};

use super::*;
use crate::upkeep::Files;

const APP: AppId = AppId(7);
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_burst_of_changes_is_told_once_with_its_files() {
    let mut world = World::new(&["."], &[]);
    world.begin();
    for name in ["a.js", "lib/b.js", "lib/c.js"] {
        world.write(name);
    }
    assert_eq!(world.changed(), ["a.js", "lib/b.js", "lib/c.js"]);
    assert_eq!(world.quiet(), None);
}

#[test]
fn editors_that_save_by_renaming_and_links_that_are_replaced_are_seen() {
    let mut world = World::new(&["server.js", "current"], &[]);
    fs::create_dir(world.path("v1")).unwrap();
    symlink("v1", world.path("current")).unwrap();
    world.begin();
    world.write("server.js.new");
    assert_eq!(world.quiet(), None, "it is not watched");
    fs::rename(world.path("server.js.new"), world.path("server.js")).unwrap();
    assert_eq!(world.changed(), ["server.js"]);
    // And still after the file is another.
    world.write("server.js");
    assert_eq!(world.changed(), ["server.js"]);

    fs::create_dir(world.path("v2")).unwrap();
    symlink("v2", world.path("next")).unwrap();
    fs::rename(world.path("next"), world.path("current")).unwrap();
    assert_eq!(world.changed(), ["current"]);
    world.write("v2/a.js");
    assert_eq!(world.changed(), ["current/a.js"]);
}

#[test]
fn a_file_that_is_a_link_changes_with_what_it_leads_to() {
    let mut world = World::new(&["config.json"], &[]);
    fs::create_dir(world.path("shared")).unwrap();
    world.write("shared/config.json");
    symlink("shared/config.json", world.path("config.json")).unwrap();
    world.begin();
    world.write("shared/other.json");
    world.write("shared/config.json");
    assert_eq!(world.changed(), ["shared/config.json"]);
}

#[test]
fn folders_that_come_later_are_watched_with_what_is_in_them() {
    let mut world = World::new(&["."], &[]);
    world.begin();
    fs::create_dir_all(world.path("new/deep")).unwrap();
    world.write("new/deep/a.js");
    assert_eq!(world.changed(), ["new/deep/a.js"]);
    world.write("new/deep/b.js");
    assert_eq!(world.changed(), ["new/deep/b.js"]);
    fs::rename(world.path("new"), world.path("old")).unwrap();
    assert_eq!(world.changed(), ["new", "old", "old/deep/a.js", "old/deep/b.js"]);
    world.write("old/deep/a.js");
    assert_eq!(world.changed(), ["old/deep/a.js"], "under its new name");
}

#[test]
fn what_is_ignored_is_not_told_and_not_looked_into() {
    let mut world = World::new(&["."], &["tmp", "*.md", r"\.map$"]);
    for folder in ["node_modules/x", ".git", "tmp", "logs"] {
        fs::create_dir_all(world.path(folder)).unwrap();
    }
    world.ours = Ours::new(vec![world.path("logs")]);
    world.ours.add(AppId(APP.0 + 1), [world.path("out.log")]);
    world.begin();
    for name in [
        "node_modules/x/a.js",
        ".git/HEAD",
        ".env",
        "tmp/a.js",
        "README.md",
        "a.js.map",
        "logs/out.log",
        "out.log",
        "out.log.1",
    ] {
        world.write(name);
    }
    assert_eq!(world.quiet(), None);
    world.write("out.js");
    assert_eq!(world.changed(), ["out.js"]);
    // One that begins to log while it is watched.
    world.ours.add(APP, [world.path("late.log")]);
    world.write("late.log.1.gz");
    assert_eq!(world.quiet(), None);
    world.ours.retain(&[APP].into());
    world.write("out.log");
    assert_eq!(world.changed(), ["out.log"], "of an app that is gone");
}

#[test]
fn what_is_named_itself_is_watched_even_if_its_name_is_ignored() {
    let mut world = World::new(&[".env"], &[]);
    world.write(".env");
    world.begin();
    world.write(".env");
    assert_eq!(world.changed(), [".env"]);
}

#[test]
fn a_folder_that_vanishes_is_watched_again_when_it_is_back() {
    let mut world = World::new(&["src"], &[]);
    fs::create_dir(world.path("src")).unwrap();
    world.write("src/a.js");
    world.begin_with("src/a.js");
    fs::remove_dir_all(world.path("src")).unwrap();
    assert_eq!(world.blind(), Blind::Missing(vec![world.path("src")]));
    world.changed();
    // Its parent goes as well in the end.
    fs::create_dir(world.path("src")).unwrap();
    assert_eq!(world.changed(), ["src"]);
    world.write("src/b.js");
    assert_eq!(world.changed(), ["src/b.js"]);
}

#[test]
fn a_folder_that_is_not_there_yet_is_waited_for() {
    let mut world = World::new(&["a/b/c"], &[]);
    world.start();
    assert_eq!(world.blind(), Blind::Missing(vec![world.path("a/b/c")]));
    fs::create_dir_all(world.path("a/b/c")).unwrap();
    assert_eq!(world.changed(), ["a/b/c"]);
    world.write("a/b/c/x");
    assert_eq!(world.changed(), ["a/b/c/x"]);
}

#[test]
fn links_that_lead_in_circles_are_walked_once() {
    let mut world = World::new(&["."], &[]);
    fs::create_dir_all(world.path("a/b")).unwrap();
    symlink("../..", world.path("a/b/up")).unwrap();
    world.begin();
    world.write("a/b/x");
    assert_eq!(world.changed(), ["a/b/x"]);
}

#[test]
fn a_large_folder_keeps_nobody_waiting() {
    let mut world = World::new(&["."], &[]);
    fs::create_dir(world.path("large")).unwrap();
    for number in 0..100_000 {
        File::create(world.path(&format!("large/{number}"))).unwrap();
    }
    let began = Instant::now();
    world.start();
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
    world.until_it_sees("large/777");
    // All of them at once: one burst, a few names.
    for number in 0..100_000 {
        fs::remove_file(world.path(&format!("large/{number}"))).unwrap();
    }
    let files = world.files();
    assert_eq!(files.named.len(), Files::NAMED);
    assert!(files.more > 1000, "{}", files.more);
}

/// A folder that is watched.
struct World {
    runtime: Runtime,
    folder: TempDir,
    watch: Watch,
    ours: Ours,
    watching: Option<(Watcher, mpsc::Receiver<News>)>,
}

impl World {
    fn new(paths: &[&str], ignore: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        fs::create_dir(folder.path().join("lib")).unwrap();
        fs::write(folder.path().join("server.js"), "").unwrap();
        // `join` keeps the dot of `.`; who watches has it cleaned.
        let join = |path: &&str| match *path {
            "." => folder.path().to_owned(),
            path => folder.path().join(path),
        };
        let watch = Watch {
            paths: paths.iter().map(join).collect(),
            ignore: ignore.iter().map(|pattern| pattern.parse().unwrap()).collect(),
            delay: Duration::from_millis(100),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { runtime, folder, watch, ours: Ours::default(), watching: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str) {
        fs::write(self.path(name), "x").unwrap();
    }

    fn start(&mut self) {
        let (sender, news) = mpsc::channel(16);
        let (watch, cwd) = (self.watch.clone(), self.folder.path().to_owned());
        let view = View { watch, cwd, ours: self.ours.clone() };
        self.watching = Some((Watcher::start(APP, view, sender).unwrap(), news));
    }

    /// Starts, and waits until changes are seen.
    fn begin(&mut self) {
        self.begin_with("server.js");
    }

    fn begin_with(&mut self, name: &str) {
        let everything = self.watch.paths.clone();
        self.start();
        if everything.iter().any(|path| self.path(name).starts_with(path)) {
            self.until_it_sees(name);
        } else {
            // What is watched is a file that is there, or a link to one.
            let file = everything.into_iter().next().unwrap();
            self.until_it_sees(file.file_name().unwrap().to_str().unwrap());
        }
    }

    fn until_it_sees(&mut self, name: &str) {
        let began = Instant::now();
        loop {
            self.write(name);
            if self.next(Duration::from_millis(500)).is_some() {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{name} is not seen");
        }
    }

    fn next(&mut self, patience: Duration) -> Option<News> {
        let (_, news) = self.watching.as_mut().unwrap();
        self.runtime.block_on(async { timeout(patience, news.recv()).await }).ok().flatten()
    }

    /// The next news, in a while in which some would come.
    fn quiet(&mut self) -> Option<News> {
        self.next(Duration::from_millis(400))
    }

    fn files(&mut self) -> Files {
        match self.next(PATIENCE) {
            Some(News::Changed { app: APP, files }) => files,
            other => panic!("{other:?}"),
        }
    }

    fn changed(&mut self) -> Vec<String> {
        let files = self.files();
        assert_eq!(files.more, 0);
        let name =
            |path: &PathBuf| path.strip_prefix(self.folder.path()).unwrap().display().to_string();
        files.named.iter().map(name).collect()
    }

    fn blind(&mut self) -> Blind {
        match self.next(PATIENCE) {
            Some(News::Blind { app: APP, why }) => why,
            other => panic!("{other:?}"),
        }
    }
}
