//! What is different about an app: between what runs and what a file says.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::super::{describe, human, policy};
use crate::{
    api::message::AppView,
    config::{scheduling::Scheduling, spec::AppSpec},
};

/// What is different about an app.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cli) struct Difference {
    /// Another number of workers, from and to; it needs no reload.
    pub(super) instances: Option<(u32, u32)>,
    /// How it is scheduled, by name of the setting, from and to; it needs no reload.
    scheduling: Vec<(&'static str, String, String)>,
    /// Settings by name, from and to.
    settings: Vec<(String, String, String)>,
    /// Variables that are new, that have another value, and that are gone.
    variables: [Vec<String>; 3],
    /// Whether it is reloaded all the same.
    reload: bool,
}

impl Difference {
    /// What is different from an app that is there. Of variables only the names are kept: values may be secret.
    pub(super) fn between(known: &AppView, new: &AppSpec) -> Self {
        let old = &known.spec;
        // What does not change what runs: where it is defined, and what it is called.
        let alike = |spec: &AppSpec| AppSpec {
            instances: 1,
            scheduling: Scheduling::default(),
            autostart: true,
            source: None,
            namespace: old.namespace.clone(),
            env: BTreeMap::new(),
            inherited: BTreeMap::new(),
            ..spec.clone()
        };
        let shown = describe::settings(&alike(new)).into_iter();
        let before: BTreeMap<_, _> = describe::settings(&alike(old)).into_iter().collect();
        let mut settings: Vec<_> = shown
            .filter_map(|(name, to)| {
                let from = before.get(name).cloned().unwrap_or_default();
                (from != to).then(|| (name.to_owned(), from, to))
            })
            .collect();
        if settings.is_empty() && alike(old) != alike(new) {
            settings.push((
                "other settings".to_owned(),
                "as before".to_owned(),
                "changed".to_owned(),
            ));
        }
        let scheduling = policy::settings(&old.scheduling).into_iter();
        let scheduling = scheduling
            .zip(policy::settings(&new.scheduling))
            .filter_map(|((name, from), (_, to))| (from != to).then_some((name, from, to)));
        let instances = (known.instances, new.instances);
        Self {
            instances: (instances.0 != instances.1).then_some(instances),
            scheduling: scheduling.collect(),
            settings,
            variables: variables(old, new),
            reload: false,
        }
    }

    /// The same, with a reload even if nothing is different.
    pub(super) fn reloading(self) -> Self {
        Self { reload: true, ..self }
    }

    /// Whether nothing is different.
    pub(in crate::cli) fn is_none(&self) -> bool {
        self.instances.is_none() && !self.reschedules() && !self.is_deep()
    }

    /// Whether workers have to be replaced.
    pub(in crate::cli) fn reloads(&self) -> bool {
        self.reload || self.is_deep()
    }

    /// Whether workers are to be picked by another rule.
    pub(in crate::cli) fn reschedules(&self) -> bool {
        !self.scheduling.is_empty()
    }

    fn is_deep(&self) -> bool {
        !self.settings.is_empty() || self.variables.iter().any(|names| !names.is_empty())
    }
}

/// Names of the variables that are new, that have another value, and that are gone.
fn variables(old: &AppSpec, new: &AppSpec) -> [Vec<String>; 3] {
    let (old, new) = (old.environment(), new.environment());
    let names: BTreeSet<&str> = old.keys().chain(new.keys()).copied().collect();
    let pick = |is: &dyn Fn(Option<&&str>, Option<&&str>) -> bool| {
        let picked = names.iter().filter(|name| is(old.get(*name), new.get(*name)));
        picked.map(|name| (*name).to_owned()).collect()
    };
    [
        pick(&|old, new| old.is_none() && new.is_some()),
        pick(&|old, new| old.is_some() && new.is_some() && old != new),
        pick(&|old, new| old.is_some() && new.is_none()),
    ]
}

/// A line for each, indented.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((from, to)) = self.instances {
            writeln!(f, "  instances: {from} -> {to}")?;
        }
        for (name, from, to) in &self.scheduling {
            writeln!(f, "  {name}: {} -> {}", human::plain(from), human::plain(to))?;
        }
        for (name, from, to) in &self.settings {
            writeln!(f, "  {name}: {} -> {}", human::plain(from), human::plain(to))?;
        }
        for (sign, names) in ["+", "~", "-"].iter().zip(&self.variables) {
            for name in names {
                writeln!(f, "  {sign} variable {}", human::plain(name))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::super::sample, *};

    #[test]
    fn every_difference_is_told_and_no_value_of_a_variable() {
        let app = sample::app();
        let mut new = app.spec.clone();
        assert!(Difference::between(&app, &new).is_none());
        new.source = Some("/srv/cluster.toml".into());
        assert!(Difference::between(&app, &new).is_none(), "where it is defined is no difference");
        new.instances = 4;
        new.args.push("-v".to_owned());
        new.env =
            [("TOKEN".to_owned(), "other".to_owned()), ("A".to_owned(), "1".to_owned())].into();
        new.inherited.clear();
        let shown = Difference::between(&app, &new).to_string();
        assert_eq!(
            shown,
            "  instances: 2 -> 4\n  arguments: /srv/server.js 'a b' -> /srv/server.js 'a b' -v\n  + variable A\n  ~ variable TOKEN\n"
        );
        new.env.clear();
        assert!(Difference::between(&app, &new).to_string().contains("- variable TOKEN"));
    }

    #[test]
    fn another_rule_is_a_difference_that_needs_no_reload() {
        let app = sample::app();
        let mut new = app.spec.clone();
        new.scheduling.policy = "sticky prefix=24".parse().unwrap();
        new.scheduling.shed = Some(200);
        let change = Difference::between(&app, &new);
        assert!(!change.is_none() && !change.reloads() && change.reschedules());
        assert_eq!(
            change.to_string(),
            "  policy: round-robin -> sticky prefix=24\n  shed: off -> 200\n"
        );
    }

    #[test]
    fn what_has_no_name_among_the_settings_is_a_difference_too() {
        let app = sample::app();
        let new = AppSpec { leading_args: 1, ..app.spec.clone() };
        assert!(Difference::between(&app, &new).to_string().contains("other settings"));
    }
}
