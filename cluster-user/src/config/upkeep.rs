//! What keeps an app up over time, and what it may use: from what was said to the specification.

use std::path::{Path, PathBuf};

use super::{
    cpus,
    cron::Cron,
    definition::{
        Hooks, Recycling, Resources, Watching,
        value::{Size, Time},
    },
    readiness,
    refusal::Refusal,
    script::Lookup,
    spec::{
        hooks::{self, Hook},
        recycle::Recycle,
        resources,
        watch::{WATCH_DELAY, Watch},
    },
};

/// Files whose change reloads the app.
///
/// # Errors
/// When a path is no UTF-8 text.
pub(super) fn watch(said: &Watching, cwd: &Path) -> Result<Option<Watch>, Refusal> {
    use super::definition::Watched;
    let paths = match &said.watch {
        None | Some(Watched::Folder(false)) => return Ok(None),
        Some(Watched::Folder(true)) => vec![cwd.to_owned()],
        Some(Watched::Paths(paths)) => {
            let mut paths: Vec<_> = paths.iter().map(|path| clean(&cwd.join(path))).collect();
            paths.sort();
            paths.dedup();
            paths
        }
    };
    let delay = said.watch_delay.map_or(WATCH_DELAY, |Time(delay)| delay);
    let watch = Watch { paths, ignore: said.ignore_watch.clone(), delay };
    watch.check().map_err(Refusal::new)?;
    Ok(Some(watch))
}

/// Without `.` and `..`, which the kernel's news of files do not have.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(clean.pop()),
            std::path::Component::CurDir => {}
            part @ (std::path::Component::RootDir
            | std::path::Component::Prefix(_)
            | std::path::Component::Normal(_)) => clean.push(part),
        }
    }
    clean
}

/// When a worker that is well is replaced all the same.
///
/// # Errors
/// When a cron line is none, or never comes.
pub(super) fn recycle(said: &Recycling) -> Result<Recycle, Refusal> {
    let zone = said.cron_tz.as_deref();
    let cron =
        match said.cron_restart.as_deref().map(str::trim) {
            // As PM2 has it.
            None | Some("0" | "" | "false") => None,
            Some(line) => Some(Cron::new(line, zone).map_err(|error| {
                Refusal::new(format!("cron_restart: {error}")).hint(error.hint())
            })?),
        };
    let recycle = Recycle {
        max_memory: said.max_memory_restart.map(|Size(bytes)| bytes),
        max_lifetime: said.max_lifetime.map(|Time(life)| life),
        cron,
    };
    recycle.check().map_err(Refusal::new)?;
    Ok(recycle)
}

/// Commands that are run at turns of a worker's life.
///
/// # Errors
/// When one cannot be run.
pub(super) fn hooks(said: &Hooks, lookup: &Lookup) -> Result<hooks::Hooks, Refusal> {
    let hooks = hooks::Hooks {
        pre_start: said.pre_start.clone(),
        post_ready: said.post_ready.clone(),
        pre_stop: said.pre_stop.clone(),
        post_stop: said.post_stop.clone(),
        on_failure: said.on_failure.clone(),
        timeout: said.hook_timeout.map_or(hooks::HOOK_TIMEOUT, |Time(timeout)| timeout),
    };
    hooks.check().map_err(Refusal::new)?;
    for hook in Hook::ALL {
        if let Some(line) = hooks.line(hook) {
            readiness::command(line, lookup).map_err(|refusal| Refusal {
                message: format!("{hook}: {}", refusal.message),
                ..refusal
            })?;
        }
    }
    Ok(hooks)
}

/// What each worker may use.
///
/// # Errors
/// When it is nonsense, or names CPUs that are not there.
pub(super) fn resources(said: &Resources) -> Result<resources::Resources, Refusal> {
    let bytes = |size: Option<Size>| size.map(|Size(bytes)| bytes);
    let resources = resources::Resources {
        memory_max: bytes(said.memory_max),
        memory_high: bytes(said.memory_high),
        cpu_max: said.cpu_max.map(|share| share.0),
        cpu_weight: said.cpu_weight,
        pids_max: said.pids_max,
        cpus: said.cpus.clone(),
        nice: said.nice,
        rlimits: said.limits(),
        umask: said.umask.map(|umask| umask.0),
        oom_score_adj: said.oom_score_adj,
    };
    resources.check().map_err(Refusal::new)?;
    if let (Some(cpus::Cpus::List(wanted)), Some(online)) = (&resources.cpus, cpus::online()) {
        let absent = wanted.difference(&online).copied().collect();
        if !std::collections::BTreeSet::is_empty(&absent) {
            let (absent, online) = (cpus::show(&absent), cpus::show(&online));
            return Err(Refusal::new(format!("cpus: this host has no CPU {absent}, but {online}"))
                .hint("name CPUs that are there, or `spread`"));
        }
    }
    Ok(resources)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::definition::Definition;

    #[test]
    fn watched_paths_are_absolute_and_clean() {
        let said = said(json!({ "watch": ["src", "./lib/../conf", "/etc/hosts", "src/"] }));
        let watch = watch(&said.watching, Path::new("/work")).unwrap().unwrap();
        let expected = ["/etc/hosts", "/work/conf", "/work/src"];
        assert_eq!(watch.paths, expected.map(PathBuf::from));
        assert_eq!(watch.delay, WATCH_DELAY);
    }

    #[test]
    fn cron_is_off_with_a_zero_and_refused_when_it_never_comes() {
        for off in [json!(0), json!("0"), json!(false), json!("")] {
            let said = said(json!({ "cron_restart": off }));
            assert_eq!(recycle(&said.recycling).unwrap(), Recycle::default());
        }
        let said = said(json!({ "cron_restart": "0 0 30 2 *" }));
        let refusal = recycle(&said.recycling).unwrap_err();
        assert!(refusal.message.contains("never comes"), "{}", refusal.message);
        assert!(refusal.hint.is_some());
    }

    #[test]
    fn what_cannot_be_is_refused_by_its_name() {
        for (keys, expected) in [
            (json!({ "max_memory_restart": 0 }), "max_memory_restart is below 1M"),
            (json!({ "max_lifetime": 10 }), "max_lifetime is below 1s"),
            (json!({ "hook_timeout": 0 }), "hook_timeout is 0"),
            (json!({ "pre_start": " " }), "pre_start is empty"),
            (json!({ "on_failure": "no-such-program-here x" }), "on_failure: "),
            (json!({ "memory_max": "1K" }), "memory_max is below 64K"),
            (json!({ "memory_max": "1G", "memory_high": "2G" }), "memory_high is 2G, more than"),
            (json!({ "cpu_max": "0.5%" }), "cpu_max is below 1%"),
            (json!({ "cpu_weight": 0 }), "cpu_weight is 0, not 1 to 10000"),
            (json!({ "pids_max": 0 }), "pids_max is 0"),
            (json!({ "nice": 20 }), "nice is 20, not -20 to 19"),
            (json!({ "oom_score_adj": -1001 }), "oom_score_adj is -1001"),
            (json!({ "cpus": "8000" }), "this host has no CPU 8000"),
        ] {
            let said = said(keys.clone());
            let lookup = Lookup { folders: vec!["/".into()], path: Some("/bin:/usr/bin".into()) };
            let refused = recycle(&said.recycling).err();
            let refused = refused.or_else(|| hooks(&said.hooks, &lookup).err());
            let refused = refused.or_else(|| resources(&said.resources).err());
            let refused = refused.unwrap_or_else(|| panic!("{keys} is taken"));
            assert!(refused.message.contains(expected), "{keys}: {}", refused.message);
        }
    }

    fn said(keys: Value) -> Definition {
        Definition::from_keys(keys.as_object().unwrap()).unwrap()
    }
}
