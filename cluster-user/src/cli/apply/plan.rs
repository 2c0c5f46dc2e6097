//! What follows for one app of a file.

use super::change::Difference;
use crate::{
    api::message::{AppView, Status},
    config::spec::AppSpec,
};

/// What is wanted of apps that run already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Wish {
    /// Those that are defined otherwise are reloaded; the others are left alone.
    Start,
    /// All of them are reloaded.
    Reload,
    /// Those that are defined otherwise are reloaded; the others are restarted.
    Restart,
}

/// What follows for one app.
#[derive(Clone, Debug)]
pub(in crate::cli) enum Plan {
    /// It is new.
    Start { spec: Box<AppSpec> },
    /// It is stopped, and starts as it is defined now.
    Define { spec: Box<AppSpec>, change: Difference },
    /// It runs, and something about it changes; or it is reloaded all the same.
    Change { spec: Box<AppSpec>, change: Difference },
    /// It is started again as it is.
    Restart { name: String },
    /// It is left alone.
    Keep { name: String, why: &'static str },
}

impl Plan {
    /// What follows for an app, of which `known` may be there already.
    pub(super) fn new(spec: AppSpec, known: Option<&AppView>, wish: Wish) -> Self {
        let Some(known) = known else { return Self::Start { spec: Box::new(spec) } };
        let change = Difference::between(known, &spec);
        let (spec, name) = (Box::new(spec), known.name.clone());
        match known.status {
            Status::Stopped if !spec.autostart => {
                Self::Keep { name, why: "is to be started by name" }
            }
            Status::Stopped | Status::Errored if change.is_none() => Self::Restart { name },
            Status::Stopped | Status::Errored => Self::Define { spec, change },
            Status::Starting
            | Status::Ready
            | Status::Online
            | Status::Draining
            | Status::Stopping
            | Status::Backoff => match wish {
                Wish::Reload => Self::Change { spec, change: change.reloading() },
                Wish::Start | Wish::Restart if !change.is_none() => Self::Change { spec, change },
                Wish::Start => Self::Keep { name, why: "runs as it is defined" },
                Wish::Restart => Self::Restart { name },
            },
        }
    }

    /// Name of the app.
    pub(in crate::cli) fn name(&self) -> &str {
        match self {
            Self::Start { spec } | Self::Define { spec, .. } | Self::Change { spec, .. } => {
                spec.name.as_str()
            }
            Self::Restart { name } | Self::Keep { name, .. } => name,
        }
    }

    /// What would be done, in a few lines.
    pub(in crate::cli) fn shown(&self) -> String {
        let name = super::human::plain(self.name());
        match self {
            Self::Start { spec } => {
                let script = super::human::plain(&spec.script);
                let count = spec.instances;
                let workers = if count == 1 { "worker" } else { "workers" };
                format!("{name}: is new: {script}, {count} {workers}\n")
            }
            Self::Define { change, .. } => format!("{name}: is stopped and changes\n{change}"),
            Self::Change { change, .. } if change.is_none() => format!("{name}: is reloaded\n"),
            Self::Change { change, .. } if change.reloads() => {
                format!("{name}: changes, by a reload\n{change}")
            }
            Self::Change { change, .. } if change.reschedules() => {
                format!("{name}: changes at once, no worker is replaced\n{change}")
            }
            Self::Change { change, .. } => format!("{name}: is scaled\n{change}"),
            Self::Restart { .. } => format!("{name}: is started again as it is\n"),
            Self::Keep { why, .. } => format!("{name}: {why}\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::super::sample, *};

    #[test]
    fn what_is_changed_is_reloaded_and_what_is_not_is_left_alone() {
        let mut app = sample::app();
        let same = app.spec.clone();
        let plan = |app: &AppView, spec: &AppSpec, wish| Plan::new(spec.clone(), Some(app), wish);
        assert!(matches!(plan(&app, &same, Wish::Start), Plan::Keep { .. }));
        assert!(matches!(plan(&app, &same, Wish::Restart), Plan::Restart { .. }));
        let Plan::Change { change, .. } = plan(&app, &same, Wish::Reload) else { panic!() };
        assert!(change.is_none() && change.reloads());

        let mut other = same.clone();
        other.env.clear();
        for wish in [Wish::Start, Wish::Restart, Wish::Reload] {
            let Plan::Change { change, .. } = plan(&app, &other, wish) else { panic!() };
            assert!(change.reloads() && change.instances.is_none());
        }
        let more = AppSpec { instances: 5, ..same.clone() };
        let Plan::Change { change, .. } = plan(&app, &more, Wish::Start) else { panic!() };
        assert!(!change.reloads());
        assert_eq!(change.instances, Some((2, 5)));

        app.status = Status::Stopped;
        assert!(matches!(plan(&app, &same, Wish::Reload), Plan::Restart { .. }));
        assert!(matches!(plan(&app, &other, Wish::Reload), Plan::Define { .. }));
        let idle = AppSpec { autostart: false, ..same.clone() };
        assert!(matches!(plan(&app, &idle, Wish::Start), Plan::Keep { .. }));
        assert!(matches!(Plan::new(same, None, Wish::Start), Plan::Start { .. }));
    }

    #[test]
    fn one_worker_is_not_many() {
        let spec = |instances| AppSpec { instances, ..sample::app().spec };
        let shown = |count| Plan::new(spec(count), None, Wish::Start).shown();
        assert!(shown(1).ends_with("1 worker\n") && shown(2).ends_with("2 workers\n"));
    }
}
