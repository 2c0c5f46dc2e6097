//! From what was said about scheduling to what the daemon keeps.

use std::path::Path;

use super::{Policy, Scheduling, Shed};
use crate::config::{definition, refusal::Refusal};

/// How the connections of an app are spread over its workers.
///
/// # Errors
/// What contradicts itself or the number of workers, and a program that is not there.
pub(in crate::config) fn resolve(
    said: &definition::Scheduling,
    cwd: &Path,
    instances: u32,
) -> Result<Scheduling, Refusal> {
    let policy = said.policy.as_ref().map(|policy| policy.0.clone()).unwrap_or_default();
    let scheduling = Scheduling {
        policy: located(policy, cwd),
        weights: said.weights.clone(),
        guard: said.guard.map(|guard| guard.0).unwrap_or_default(),
        shed: said.shed.and_then(Shed::limit),
    };
    check(&scheduling, instances)?;
    Ok(scheduling)
}

/// The policy with a path that means the same everywhere.
pub fn located(policy: Policy, cwd: &Path) -> Policy {
    let Policy::Custom(path) = policy else { return policy };
    let path = cwd.join(path);
    Policy::Custom(std::path::absolute(&path).unwrap_or(path))
}

/// Checks it for an app of so many workers on this host.
///
/// # Errors
/// What contradicts itself or the number of workers, and a program that is not there.
pub fn check(scheduling: &Scheduling, instances: u32) -> Result<(), Refusal> {
    scheduling.check(instances).map_err(|why| {
        // It begins with what it is about.
        let about =
            ["policy", "weights", "guard", "shed"].into_iter().find(|key| why.starts_with(key));
        let refusal =
            Refusal::usage(why).hint("cluster policy --list shows policies and their keys");
        Refusal { about, ..refusal }
    })?;
    is_there(&scheduling.policy)
}

/// Checks that the program of a policy is there.
///
/// # Errors
/// When it is not.
pub fn is_there(policy: &Policy) -> Result<(), Refusal> {
    let Policy::Custom(path) = policy else { return Ok(()) };
    if path.is_file() {
        return Ok(());
    }
    Err(Refusal::new(format!("there is no compiled program `{}`", path.display()))
        .hint("compile it first; cargo xtask new-policy NAME begins one")
        .about("policy"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::definition::Definition;

    #[test]
    fn what_is_said_becomes_a_scheduling() {
        let resolved =
            said(json!({ "policy": "sticky prefix=24", "guard": "off", "shed": 200 }), 2).unwrap();
        assert_eq!(resolved.policy.to_string(), "sticky prefix=24");
        assert_eq!(
            (resolved.guard, resolved.shed),
            (crate::config::scheduling::Guard::OFF, Some(200))
        );
        assert_eq!(said(json!({ "weights": "3,1,1" }), 3).unwrap().weights, [3, 1, 1]);
        assert_eq!(said(json!({}), 3).unwrap(), Scheduling::default());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (keys, expected) in [
            (json!({ "weights": [3, 1] }), "weights has 2 numbers, and there are 3 workers"),
            (json!({ "weights": [1, 1, 1], "policy": "hash" }), "the policy is hash"),
            (json!({ "policy": "class *=3" }), "names worker 3"),
            (json!({ "policy": "none", "guard": "queue=3" }), "guard is queue=3"),
            (json!({ "policy": "./no-such.o" }), "no compiled program `/srv/no-such.o`"),
        ] {
            let refusal = said(keys.clone(), 3).unwrap_err();
            assert!(refusal.message.contains(expected), "{keys}: {}", refusal.message);
            assert!(refusal.hint.is_some());
            assert!(keys.get(refusal.about.unwrap()).is_some(), "{keys}: {:?}", refusal.about);
        }
    }

    fn said(keys: Value, instances: u32) -> Result<Scheduling, Refusal> {
        let definition = Definition::from_keys(keys.as_object().unwrap()).unwrap();
        resolve(&definition.scheduling, Path::new("/srv"), instances)
    }
}
