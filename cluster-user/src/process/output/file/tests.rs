//! Log files on real file systems, a full one included.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use proptest::prelude::*;

use super::*;
use crate::process::output::rotate::numbered;

const ME: StreamId = StreamId(1);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn rotated_files_hold_everything_in_whole_lines(
        lines in prop::collection::vec("[a-z]{0,30}", 1..200),
        sizes in prop::collection::vec(1_usize..200, 1..20),
        max_size in 31_u64..300,
    ) {
        let folder = Folder::new();
        let input: Vec<u8> = lines.iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect();
        let now = Instant::now();
        let mut file = folder.file(rotation(max_size, 1000));
        let mut rest = &input[..];
        for size in sizes.iter().cycle() {
            let (chunk, later) = rest.split_at(rest.len().min(*size));
            prop_assert_eq!(file.append(ME, chunk, now), 0);
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        let files = folder.files();
        for content in &files {
            prop_assert!(content.ends_with(b"\n"), "{:?}", String::from_utf8_lossy(content));
            // A line that began in a file may end in it.
            prop_assert!(content.len() as u64 <= max_size + 30);
        }
        prop_assert_eq!(files.concat(), input);
    }

    #[test]
    fn lines_longer_than_a_file_are_kept_in_pieces(
        length in 1_usize..5000,
        size in 1_usize..500,
    ) {
        let folder = Folder::new();
        let input = vec![b'x'; length];
        let now = Instant::now();
        let mut file = folder.file(rotation(100, 1000));
        input.chunks(size).for_each(|chunk| assert_eq!(file.append(ME, chunk, now), 0));
        prop_assert!(folder.files().iter().all(|content| content.len() <= 200));
        prop_assert_eq!(folder.files().concat(), input);
    }
}

#[test]
fn no_more_files_are_kept_than_asked_for() {
    let folder = Folder::new();
    let mut file = folder.file(rotation(6, 2));
    let now = Instant::now();
    for line in ["one\n", "two\n", "three\n", "four\n"] {
        assert_eq!(file.append(ME, line.as_bytes(), now), 0);
    }
    assert_eq!(folder.files().concat(), b"two\nthree\nfour\n");
    assert!(!numbered(&folder.log(), 3).exists());
}

#[test]
fn a_file_that_was_removed_or_renamed_is_made_anew() {
    let folder = Folder::new();
    let mut file = folder.file(Rotation::default());
    let now = Instant::now();
    file.append(ME, b"one\n", now);
    fs::remove_file(folder.log()).unwrap();
    file.append(ME, b"lost\n", now);
    file.append(ME, b"two\n", now + LOOK);
    assert_eq!(folder.read(), "two\n");
    fs::rename(folder.log(), folder.path.join("old")).unwrap();
    file.append(ME, b"three\n", now + LOOK * 2);
    assert_eq!(folder.read(), "three\n");
}

#[test]
fn a_file_that_was_emptied_is_not_filled_with_zeros() {
    let folder = Folder::new();
    let mut file = folder.file(Rotation::default());
    let now = Instant::now();
    file.append(ME, b"one\n", now);
    empty(&folder.log()).unwrap();
    file.append(ME, b"two\n", now);
    assert_eq!(folder.read(), "two\n");
}

#[test]
fn a_line_that_somebody_left_open_is_closed() {
    let folder = Folder::new();
    let mut file = folder.file(Rotation::default());
    let now = Instant::now();
    file.append(ME, b"half a l", now);
    file.append(StreamId(2), b"another\n", now);
    assert_eq!(folder.read(), "half a l\nanother\n");
}

#[test]
fn a_full_disk_drops_counts_and_says_so() {
    let folder = Folder::new();
    let none = None::<&str>;
    let size = Some("size=64k");
    if mount(none, &folder.path, Some("tmpfs"), MsFlags::empty(), size).is_err() {
        eprintln!("skipped: only root can mount a small file system to fill");
        return;
    }
    let ballast = folder.path.join("ballast");
    fs::write(&ballast, vec![0; 40 * 1024]).unwrap();
    let mut file = folder.file(Rotation::default());
    let now = Instant::now();

    let lines = b"a line of sixteen\n".repeat(4000);
    let mut dropped = 0;
    for chunk in lines.chunks(1000) {
        dropped += file.append(ME, chunk, now);
    }
    let kept = lines.len() as u64 - dropped;
    assert!(dropped > 0 && kept > 0);
    assert_eq!(fs::metadata(folder.log()).unwrap().len(), kept);

    fs::remove_file(&ballast).unwrap();
    assert_eq!(file.append(ME, b"too early\n", now), 10);
    assert_eq!(file.append(ME, b"back\n", now + RETRY), 0);
    let text = folder.read();
    let total = dropped + 10;
    let end = format!("[cluster] {total} bytes of output dropped: no space left on device\nback\n");
    assert!(text.ends_with(&end), "{}", &text[text.len() - 200..]);
    // The line that was cut by the full disk ends before the notice.
    assert!(text.lines().all(|line| "a line of sixteen".starts_with(line)
        || line.starts_with("[cluster]")
        || line == "back"));
    drop(file);
    umount2(&folder.path, MntFlags::MNT_DETACH).unwrap();
}

#[test]
fn the_rest_of_a_line_whose_beginning_was_dropped_is_dropped_too() {
    let folder = Folder::new();
    let now = Instant::now();
    // A folder in place of the file cannot be opened.
    fs::create_dir(folder.log()).unwrap();
    let mut file = folder.file(Rotation::default());
    assert_eq!(file.append(ME, b"begin", now), 5);
    fs::remove_dir(folder.log()).unwrap();
    assert_eq!(file.append(ME, b"ning\nnext\n", now + RETRY), 5);
    assert_eq!(folder.read(), "[cluster] 10 bytes of output dropped: is a directory\nnext\n");
}

/// A folder of this test's own, removed at its end.
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("cluster-log-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self { path }
    }

    fn log(&self) -> PathBuf {
        self.path.join("app-out-0.log")
    }

    fn file(&self, rotation: Rotation) -> LogFile {
        let times = Times::new(&self.path, &self.log());
        LogFile::new(self.log().into(), rotation, Form::Raw, times, Instant::now())
    }

    fn read(&self) -> String {
        fs::read_to_string(self.log()).unwrap()
    }

    /// Contents of all files, oldest first.
    fn files(&self) -> Vec<Vec<u8>> {
        let rotated = (1..).map(|number| fs::read(numbered(&self.log(), number)));
        let mut files: Vec<_> = rotated.map_while(Result::ok).collect();
        files.reverse();
        files.extend(fs::read(self.log()));
        files
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.path).unwrap();
    }
}

/// By size only.
fn rotation(max_size: u64, keep: u32) -> Rotation {
    Rotation { max_size: Some(max_size), max_age: None, keep, compress: false }
}
