//! What a worker finds in its environment beyond what its app was given.

use std::collections::BTreeMap;

use crate::{
    config::{
        listen::Listen,
        spec::{
            AppSpec,
            identity::{INSTANCE_VAR, pm_id},
        },
    },
    id::{AppId, Instance},
};

/// Number of the worker within its app.
const INSTANCE: &str = "CLUSTER_INSTANCE";

/// Name of the app, for whoever finds the worker and has no journal.
pub(super) const APP: &str = "CLUSTER_APP";

/// Go 1.24 and later listen with multipath TCP, whose sockets no reuseport map takes (kernel:
/// `reuseport_array_update_check` accepts plain TCP and UDP only). This makes them listen with TCP.
const NO_MULTIPATH: (&str, &str) = ("GODEBUG", "multipathtcp=0");

/// The variables that one worker has and another of its app has not, that say whose it is, or that joining needs.
pub(super) fn particular(
    spec: &AppSpec,
    app: AppId,
    instance: Instance,
) -> BTreeMap<String, String> {
    let who = &spec.identity;
    let mut particular = BTreeMap::new();
    let mut set = |name: &str, value: String| particular.insert(name.to_owned(), value);
    // What PM2 tells, unless the app was given something else of that name.
    let port = who.port.map(|port| port.to_string());
    let told = [
        ("name", Some(spec.name.to_string())),
        ("pm_id", Some(pm_id(app, instance).to_string())),
        ("PORT", port.clone()),
    ];
    for (name, value) in told {
        if let Some(value) = value.filter(|_| !spec.env.contains_key(name)) {
            set(name, value);
        }
    }
    if let Some(name) = &who.increment_var {
        let said = spec.env.get(name);
        let first = said.or(port.as_ref().filter(|_| name == "PORT"));
        let first =
            first.or_else(|| spec.inherited.get(name)).and_then(|text| text.parse::<u32>().ok());
        // Whoever changes it to what is no number gets it as it is.
        if let Some(first) = first {
            set(name, (u64::from(first) + u64::from(instance.0)).to_string());
        }
    }
    set(who.instance_var.as_deref().unwrap_or(INSTANCE_VAR), instance.to_string());
    set(INSTANCE, instance.to_string());
    set(APP, spec.name.to_string());
    let (name, setting) = NO_MULTIPATH;
    let setting = match spec.variable(name) {
        None | Some("") => setting.to_owned(),
        Some(chosen) if chosen.contains("multipathtcp") => chosen.to_owned(),
        Some(chosen) => format!("{chosen},{setting}"),
    };
    set(name, setting);
    if !spec.listen.is_empty() {
        let name = |listen: &Listen| {
            listen.name.clone().unwrap_or_else(|| format!("{}.socket", spec.name))
        };
        let names: Vec<_> = spec.listen.iter().map(name).collect();
        set("LISTEN_FDS", spec.listen.len().to_string());
        set("LISTEN_FDNAMES", names.join(":"));
    }
    particular
}

/// Everything that a worker finds.
pub(super) fn whole(spec: &AppSpec, app: AppId, instance: Instance) -> Vec<(String, String)> {
    let particular = particular(spec, app, instance);
    let mut env = spec.environment();
    env.extend(particular.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    env.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_told_who_it_is_as_under_pm2() {
        let mut spec = AppSpec::usual("web".parse().unwrap());
        let env = |spec: &AppSpec| particular(spec, AppId(3), Instance(2));
        for (name, value) in [
            ("name", "web"),
            ("pm_id", "3074"),
            ("NODE_APP_INSTANCE", "2"),
            ("CLUSTER_INSTANCE", "2"),
            ("CLUSTER_APP", "web"),
        ] {
            assert_eq!(env(&spec)[name], value);
        }
        assert!(!env(&spec).contains_key("PORT"));
        spec.identity.instance_var = Some("NUMBER".to_owned());
        spec.identity.port = Some(80);
        assert_eq!((&*env(&spec)["NUMBER"], &*env(&spec)["PORT"]), ("2", "80"));
        assert!(!env(&spec).contains_key("NODE_APP_INSTANCE"));
        for name in ["name", "PORT", "pm_id"] {
            spec.env.insert(name.to_owned(), "mine".to_owned());
            assert!(!env(&spec).contains_key(name), "what was said goes first");
        }
    }

    #[test]
    fn every_worker_counts_from_what_the_first_has() {
        let mut spec = AppSpec::usual("web".parse().unwrap());
        spec.identity.increment_var = Some("PORT".to_owned());
        let port = |spec: &AppSpec, instance| {
            particular(spec, AppId(0), Instance(instance)).get("PORT").cloned()
        };
        assert_eq!(port(&spec, 0), None);
        spec.inherited.insert("PORT".to_owned(), "1000".to_owned());
        assert_eq!(port(&spec, 1).as_deref(), Some("1001"));
        spec.identity.port = Some(2000);
        assert_eq!(port(&spec, 1).as_deref(), Some("2001"));
        spec.env.insert("PORT".to_owned(), "3000".to_owned());
        assert_eq!(port(&spec, 0).as_deref(), Some("3000"));
        assert_eq!(port(&spec, 7).as_deref(), Some("3007"));
    }
}
