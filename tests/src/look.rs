//! Looking: what a host's `cluster` says about its apps, and waiting until it says something else.

use std::{collections::BTreeSet, net::SocketAddr};

use cluster_user::{
    api::message::{AppView, Happening, Pong, Status, What},
    datapath::Mode,
};

use crate::{host::Host, http, wait};

impl Host {
    /// All apps, as `list --json` shows them.
    #[track_caller]
    pub fn apps(&self) -> Vec<AppView> {
        let shown = self.cluster(&["list", "--json"]).ok();
        serde_json::from_value(shown.json())
            .unwrap_or_else(|error| panic!("{error}: {}", shown.stdout))
    }

    /// The app of that name.
    #[track_caller]
    pub fn app(&self, name: &str) -> AppView {
        let mut apps = self.apps();
        let at = apps.iter().position(|app| app.name == name);
        apps.swap_remove(at.unwrap_or_else(|| panic!("no app `{name}`: {apps:#?}")))
    }

    /// Waits until the app looks as described.
    #[track_caller]
    pub fn until(&self, name: &str, what: &str, mut is: impl FnMut(&AppView) -> bool) -> AppView {
        let mut last = None;
        let found = wait::within(wait::PATIENCE, || {
            let app = self.app(name);
            if is(&app) {
                return Some(app);
            }
            last = Some(app);
            None
        });
        found.unwrap_or_else(|| panic!("waited in vain: `{name}` {what}; it is {last:#?}"))
    }

    /// Waits until that many workers are online, and no others are about.
    #[track_caller]
    pub fn until_online(&self, name: &str, workers: u32) -> AppView {
        self.until(name, &format!("has {workers} workers, all online"), |app| {
            app.online == workers
                && app.workers.len() == workers as usize
                && app.workers.iter().all(|worker| worker.status == Status::Online)
        })
    }

    /// Process ids of the app's workers, by instance.
    #[track_caller]
    pub fn pids(&self, name: &str) -> Vec<u32> {
        let shown = self.cluster(&["pid", name, "--json"]).ok();
        serde_json::from_value(shown.json())
            .unwrap_or_else(|error| panic!("{error}: {}", shown.stdout))
    }

    /// Checks that connections to a port reach that many workers: exactly evenly in kernel mode; in plain
    /// mode, where the kernel's hash decides, all of them.
    #[track_caller]
    pub fn assert_balanced(&self, to: SocketAddr, workers: u32) {
        match self.mode() {
            Mode::Kernel => http::assert_exact(to, 10 * workers + 3, workers),
            Mode::Plain => {
                let mut seen = BTreeSet::new();
                wait::until_true("every worker answers", || {
                    seen.insert(http::get(to));
                    seen.len() == workers as usize
                });
                assert_eq!(
                    seen.len(),
                    workers as usize,
                    "only the app's workers answer: {seen:#?}"
                );
            }
        }
    }

    /// Everything that has happened to what a target means and is remembered, the latest last.
    #[track_caller]
    pub fn events(&self, target: &str) -> Vec<Happening> {
        let shown = self.cluster(&["events", target, "--no-follow", "-n", "1000", "--json"]).ok();
        let lines = shown.lines().into_iter().map(|line| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
        });
        lines.collect()
    }

    /// Waits until something of this kind has happened, and gives the last of them.
    #[track_caller]
    pub fn until_happened(&self, target: &str, what: What) -> Happening {
        let mut found = None;
        wait::until_true(&format!("{what} has happened to {target}"), || {
            found = self.events(target).into_iter().rfind(|happening| happening.what == what);
            found.is_some()
        });
        found.expect("it was waited for")
    }

    /// The daemon about itself.
    #[track_caller]
    pub fn ping(&self) -> Pong {
        let shown = self.cluster(&["ping", "--json"]).ok();
        serde_json::from_value(shown.json())
            .unwrap_or_else(|error| panic!("{error}: {}", shown.stdout))
    }
}
