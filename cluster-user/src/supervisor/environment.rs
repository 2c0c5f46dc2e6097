//! What a worker finds in its environment beyond what its app was given.

use std::collections::BTreeMap;

use crate::{config::spec::AppSpec, id::Instance};

/// Number of the worker within its app, under PM2's name and ours.
const INSTANCE: [&str; 2] = ["NODE_APP_INSTANCE", "CLUSTER_INSTANCE"];

/// Name of the app, for whoever finds the worker and has no journal.
pub(super) const APP: &str = "CLUSTER_APP";

/// Go 1.24 and later listen with multipath TCP, whose sockets no reuseport map takes (kernel:
/// `reuseport_array_update_check` accepts plain TCP and UDP only). This makes them listen with TCP.
const NO_MULTIPATH: (&str, &str) = ("GODEBUG", "multipathtcp=0");

/// The variables that one worker has and another of its app has not, that say whose it is, or that joining needs.
pub(super) fn particular(spec: &AppSpec, instance: Instance) -> BTreeMap<String, String> {
    let mut particular: BTreeMap<_, _> =
        INSTANCE.iter().map(|name| ((*name).to_owned(), instance.to_string())).collect();
    particular.insert(APP.to_owned(), spec.name.to_string());
    let (name, setting) = NO_MULTIPATH;
    let setting = match spec.variable(name) {
        None | Some("") => setting.to_owned(),
        Some(chosen) if chosen.contains("multipathtcp") => chosen.to_owned(),
        Some(chosen) => format!("{chosen},{setting}"),
    };
    particular.insert(name.to_owned(), setting);
    particular
}

/// Everything that a worker finds.
pub(super) fn whole(spec: &AppSpec, instance: Instance) -> Vec<(String, String)> {
    let particular = particular(spec, instance);
    let mut env = spec.environment();
    env.extend(particular.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    env.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}
