//! The apps and workers that targets mean, picked from what the daemon answered.

use super::{error::Error, human};
use crate::{
    api::message::{AppView, WorkerView},
    config::target::{Scope, Target},
};

/// Targets as typed, read.
#[derive(Clone, Debug)]
pub(super) struct Selection(Vec<Target>);

impl Selection {
    /// Reads targets; none means everything.
    ///
    /// # Errors
    /// When one is malformed.
    pub(super) fn parse(texts: &[String]) -> Result<Self, Error> {
        if let Some(file) = texts.iter().find(|text| is_ecosystem(text)) {
            let file = human::plain(file);
            return Err(Error::usage(format!(
                "`{file}` looks like a file of apps, and is not there"
            ))
            .hint("name the apps: cluster list shows them"));
        }
        let read = texts.iter().map(|text| Target::parse(text));
        let targets = read.collect::<Result<_, _>>();
        targets.map(Self).map_err(|error| Error::usage(error.to_string()))
    }

    /// The same, for a command that is about whole apps.
    ///
    /// # Errors
    /// When one means a worker.
    pub(super) fn whole(self) -> Result<Self, Error> {
        match self.0.iter().find_map(|target| Some((target, target.app_of_worker()?))) {
            None => Ok(self),
            Some((target, app)) => {
                let (target, app) = (human::plain(target.as_str()), human::plain(app));
                Err(Error::usage(format!("`{target}` is one worker, and this is about whole apps"))
                    .hint(format!(
                        "leave the number out: {app}; cluster restart {target} renews one worker"
                    )))
            }
        }
    }

    /// Whether a worker is meant.
    pub(super) fn means(&self, app: &AppView, worker: &WorkerView) -> bool {
        self.0.is_empty()
            || self.0.iter().any(|target| match target.matches(app.id, &app.name, &app.namespace) {
                Some(Scope::App) => true,
                Some(Scope::Worker(instance)) => instance == worker.instance,
                None => false,
            })
    }

    /// The workers that are meant, by app and instance.
    pub(super) fn workers<'a>(
        &'a self,
        apps: &'a [AppView],
    ) -> impl Iterator<Item = (&'a AppView, &'a WorkerView)> {
        let all = apps.iter().flat_map(|app| app.workers.iter().map(move |worker| (app, worker)));
        all.filter(|(app, worker)| self.means(app, worker))
    }
}

/// Whether a target is no name but the usual one of a file that PM2 reads apps from.
fn is_ecosystem(text: &str) -> bool {
    [".config.js", ".config.cjs", ".config.mjs"].iter().any(|ending| text.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_whole_app_is_answered_with_what_to_type() {
        let whole = |text: &str| Selection::parse(&[text.to_owned()]).and_then(Selection::whole);
        assert!(whole("web").is_ok() && whole("all").is_ok() && whole("/^w/").is_ok());
        let error = whole("web:1").unwrap_err();
        assert!(error.message.contains("one worker"), "{}", error.message);
        assert!(error.hint.unwrap().contains("cluster restart web:1"));
        assert!(whole("ecosystem.config.js").unwrap_err().message.contains("is not there"));
    }
}
