//! What keeps apps up over time: cron, files that change, and the look at what workers use.
//!
//! Each source brings its [`News`] and knows nothing of the rest; what follows from them is decided elsewhere. Without an
//! app that asks for it none of them runs.

pub mod clock;
pub mod watch;

use std::path::PathBuf;

use crate::id::{AppId, WorkerId};

/// What a source has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A time of an app's cron line has come.
    Due {
        /// Which app.
        app: AppId,
    },
    /// Files of an app have changed, and no more do.
    Changed {
        /// Which app.
        app: AppId,
        /// Which files.
        files: Files,
    },
    /// Not all that an app wants to be watched is.
    Blind {
        /// Which app.
        app: AppId,
        /// Why.
        why: watch::Blind,
    },
    /// It is time to look at what workers use, and at what waits.
    Look,
    /// What a worker uses, looked at closely.
    Weighed {
        /// Which worker.
        worker: WorkerId,
        /// Bytes of memory.
        used: u64,
    },
}

/// Files that have changed: a few of them by name, and how many there are beside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// At most [`Files::NAMED`], sorted.
    pub named: Vec<PathBuf>,
    /// Others, of which it is not known how many are the same.
    pub more: usize,
}

impl Files {
    /// How many are kept by name.
    pub const NAMED: usize = 20;

    /// Adds one that is not there yet.
    pub fn add(&mut self, file: PathBuf) {
        match self.named.binary_search(&file) {
            Ok(_) => {}
            Err(at) if self.named.len() < Self::NAMED => self.named.insert(at, file),
            Err(_) => self.more += 1,
        }
    }

    /// Adds all of others.
    pub fn extend(&mut self, others: Self) {
        others.named.into_iter().for_each(|file| self.add(file));
        self.more += others.more;
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty() && self.more == 0
    }

    /// A few of them in words, relative to a folder where they are below it.
    pub fn show(&self, folder: &std::path::Path) -> String {
        const SHOWN: usize = 3;
        let name = |file: &PathBuf| {
            let name = file.strip_prefix(folder).unwrap_or(file).display().to_string();
            // A name may contain anything; this goes into logs and onto terminals.
            name.escape_debug().take(80).collect::<String>()
        };
        let shown = self.named.iter().take(SHOWN).map(name).collect::<Vec<_>>().join(", ");
        match self.named.len().saturating_sub(SHOWN) + self.more {
            0 => shown,
            rest if shown.is_empty() => format!("{rest} files"),
            rest => format!("{shown} and {rest} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_files_are_named_and_the_rest_counted() {
        let mut files = Files::default();
        files.add("/work/b.js".into());
        files.add("/work/a\n.js".into());
        files.add("/work/b.js".into());
        assert_eq!(files.show("/work".as_ref()), r"a\n.js, b.js");
        for number in 0..1000 {
            files.add(format!("/etc/{number}").into());
        }
        assert_eq!(files.named.len(), Files::NAMED);
        assert_eq!(files.show("/work".as_ref()), "/etc/0, /etc/1, /etc/10 and 999 more");
        let mut all = Files { named: Vec::new(), more: 2 };
        assert_eq!(all.show("/".as_ref()), "2 files");
        all.extend(files);
        assert_eq!((all.named.len(), all.more), (Files::NAMED, 984));
    }
}
