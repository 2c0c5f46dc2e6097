//! What a reload changes about an app: nothing but the code, most often.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::spec::AppSpec;

/// What a reload changes about an app.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The variables of the shell, instead of those inherited from the one before. What was said is said no more
    /// where the shell says otherwise.
    #[serde(default)]
    pub inherited: Option<BTreeMap<String, String>>,
    /// Variables to be set; the others stay as they are.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Arguments of the script instead of those it has.
    #[serde(default)]
    pub args: Option<Vec<String>>,
    /// A whole new definition; `env` and `args` are applied to it.
    #[serde(default)]
    pub spec: Option<Box<AppSpec>>,
}

impl Change {
    /// The app as it shall be. Its name, its namespace, its number of workers and how it is scheduled stay: these are
    /// changed without replacing a worker.
    #[must_use]
    pub fn apply(&self, old: &AppSpec) -> AppSpec {
        let mut new = self.spec.as_deref().unwrap_or(old).clone();
        new.name.clone_from(&old.name);
        new.namespace.clone_from(&old.namespace);
        new.instances = old.instances;
        new.scheduling.clone_from(&old.scheduling);
        if let Some(inherited) = &self.inherited {
            new.env.retain(|key, _| !inherited.contains_key(key));
            new.inherited.clone_from(inherited);
        }
        new.env.extend(self.env.clone());
        if let Some(args) = &self.args {
            new.args.truncate(new.leading_args);
            new.args.extend(args.iter().cloned());
        }
        new
    }
}
