//! The wall: `state` decides and imports nothing that does; what does knows nothing of the rest.

use super::{Source, imports};

const CRATES: &[&str] = &["crate", "cluster_common", "cluster_user"];
const MODULES: &str = "cluster-user/src/";

/// What one folder of `cluster-user` may import from its own workspace: these paths and all below them.
struct Side {
    folder: &'static str,
    may: &'static [&'static str],
}

/// Words of the data path that mean nothing but themselves.
const WALL: &[Side] = &[
    Side {
        folder: "state",
        may: &[
            "crate::state",
            "crate::id",
            "crate::config",
            "crate::moment",
            "crate::datapath::Mode",
            "crate::datapath::Protocol",
            "crate::datapath::GroupKey",
            "crate::datapath::GroupOptions",
            "crate::datapath::OnMiss",
            "crate::datapath::Traffic",
            "cluster_common::slot",
            "cluster_common::route::ROUTE_ENTRIES",
        ],
    },
    Side {
        folder: "process",
        may: &["crate::process", "crate::id", "crate::config", "crate::environ"],
    },
    Side { folder: "upkeep", may: &["crate::upkeep", "crate::id", "crate::config"] },
    Side { folder: "health", may: &["crate::health", "crate::id", "crate::config"] },
    Side { folder: "site", may: &["crate::site"] },
    Side {
        folder: "datapath",
        may: &["crate::datapath", "crate::id", "crate::config", "cluster_common"],
    },
    Side {
        folder: "api",
        may: &[
            "crate::api",
            "crate::id",
            "crate::config",
            "crate::datapath::Mode",
            "crate::datapath::Protocol",
            "crate::datapath::telemetry",
        ],
    },
];

/// A module behind the wall imports only its own words and those all share.
pub(super) fn imports_what_it_may(source: &Source<'_>) -> Vec<String> {
    let Some(side) = side_of(source.path) else { return Vec::new() };
    imports::paths(source.text, CRATES)
        .into_iter()
        .filter(|path| !side.may.iter().any(|allowed| is_below(path, allowed)))
        .map(|path| format!("{}: `{}` may not import `{path}`", source.path, side.folder))
        .collect()
}

fn side_of(path: &str) -> Option<&'static Side> {
    let inside = path.strip_prefix(MODULES)?;
    // Tests of one side may use the other as the outside world: a data path is tried on real workers.
    if inside.ends_with("/tests.rs") || inside.contains("/tests/") {
        return None;
    }
    WALL.iter().find(|side| inside.split_once('/').is_some_and(|(folder, _)| folder == side.folder))
}

fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_is_kept_from_the_others() {
        for (folder, import) in [
            ("state", "crate::process::spawn"),
            ("state", "crate::datapath::DataPath"),
            ("state", "crate::api::message::AppView"),
            ("process", "crate::state"),
            ("process", "crate::supervisor::Run"),
            ("datapath", "crate::process::spawn::spawn"),
            ("health", "crate::process::spawn::spawn"),
            ("health", "crate::state::worker::Phase"),
            ("process", "crate::health::News"),
            ("upkeep", "crate::process::tree::Tree"),
            ("api", "crate::datapath::kernel::load"),
            ("api", "crate::state::worker::Phase"),
        ] {
            assert_eq!(problems(folder, import).len(), 1, "{folder} imports {import}");
        }
    }

    #[test]
    fn shared_words_pass() {
        for (folder, import) in [
            ("state", "crate::state::worker::Phase"),
            ("state", "cluster_common::slot::Slot"),
            ("state", "crate::datapath::Protocol"),
            ("api", "crate::datapath::Mode"),
            ("datapath", "cluster_common::route::Route"),
            ("supervisor", "crate::state::App"),
        ] {
            assert!(problems(folder, import).is_empty(), "{folder} imports {import}");
        }
    }

    fn problems(folder: &str, import: &str) -> Vec<String> {
        let path = format!("{MODULES}{folder}/a.rs");
        imports_what_it_may(&Source { path: &path, text: &format!("use {import};\n") })
    }
}
