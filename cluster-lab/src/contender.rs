//! Contenders: who is compared, which is a policy of `cluster` or one of the baselines beside it.

use std::{ffi::OsString, fmt, path::Path, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{nearest, refusal::Refusal};

/// Policies that `cluster start --policy` may know. Which of them it does is asked of itself.
pub const POLICIES: &[&str] = &[
    "default",
    "round-robin",
    "least-conn",
    "p2c",
    "queue",
    "hash",
    "sticky",
    "cpu-local",
    "random",
    "class",
];

/// Baselines that the laboratory runs without any help of `cluster`.
pub const BASELINES: &[&str] = &["none", "shared", "plain"];

/// A policy of `cluster` that is named like a baseline begins like this.
const BY_CLUSTER: &str = "cluster:";

/// Who is compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Contender {
    /// As it was written, and as reports name it.
    pub name: String,
    /// Who runs its workers.
    pub by: By,
}

/// Who runs the workers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum By {
    /// `cluster start`.
    Cluster {
        /// What is said of the policy, if anything.
        policy: Option<String>,
        /// Further options of `cluster start`.
        options: Vec<String>,
    },
    /// `cluster start` in plain mode, which adds nothing to what the kernel does.
    Plain,
    /// The laboratory: each worker has a socket of its own (`SO_REUSEPORT`), and the kernel hashes.
    Hash,
    /// The laboratory: all workers accept from one socket, which is the ideal queue.
    Shared,
}

/// What the app is called.
pub(crate) const NAME: &str = "lab";

impl Contender {
    /// What follows `cluster start` and the program; `None` for those that run without it.
    pub fn options(&self, workers: u32, pin_workers: bool) -> Option<Vec<OsString>> {
        let (policy, options) = match &self.by {
            By::Cluster { policy, options } => (policy.as_deref(), options.as_slice()),
            By::Plain => (None, &[][..]),
            By::Hash | By::Shared => return None,
        };
        let workers = workers.to_string();
        let mut line = vec!["--name", NAME, "--instances", &workers];
        line.extend(policy.into_iter().flat_map(|policy| ["--policy", policy]));
        if pin_workers {
            line.extend(["--cpus", "spread"]);
        }
        line.extend(options.iter().map(String::as_str));
        Some(line.into_iter().map(OsString::from).collect())
    }
}

impl FromStr for Contender {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let mut words = text.split_whitespace().peekable();
        let Some(name) = words.next() else {
            return Err(Refusal::usage("a policy has no name"));
        };
        let mut policy = name.strip_prefix(BY_CLUSTER).unwrap_or(name).to_owned();
        while let Some(word) = words.next_if(|word| !word.starts_with('-')) {
            policy.push(' ');
            policy.push_str(word);
        }
        let options: Vec<String> = words.map(str::to_owned).collect();
        let by = match name {
            "none" => By::Hash,
            "shared" => By::Shared,
            "plain" => By::Plain,
            "default" => By::Cluster { policy: None, options: options.clone() },
            _ => {
                let is_program =
                    name.contains('/') || Path::new(name).extension().is_some_and(|it| it == "o");
                let is_known = POLICIES.contains(&name) || name.starts_with(BY_CLUSTER);
                if !is_program && !is_known {
                    let known = [POLICIES, BASELINES].concat();
                    return Err(Refusal::usage(format!("`{name}` is no policy"))
                        .hint(nearest::hint(name, &known)));
                }
                By::Cluster { policy: Some(policy.clone()), options: options.clone() }
            }
        };
        let is_said = policy.contains(' ');
        let (may_say, may_option) = match &by {
            By::Cluster { policy, .. } => (policy.is_some(), true),
            By::Plain | By::Hash | By::Shared => (false, false),
        };
        if (is_said && !may_say) || (!options.is_empty() && !may_option) {
            return Err(Refusal::usage(format!("`{name}` takes no options: `{text}`")));
        }
        Ok(Self { name: text.split_whitespace().collect::<Vec<_>>().join(" "), by })
    }
}

impl TryFrom<String> for Contender {
    type Error = Refusal;

    fn try_from(text: String) -> Result<Self, Refusal> {
        text.parse()
    }
}

impl From<Contender> for String {
    fn from(contender: Contender) -> Self {
        contender.name
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn baselines_need_no_cluster() {
        assert_eq!(by("none"), By::Hash);
        assert_eq!(by("shared"), By::Shared);
    }

    #[test]
    fn what_follows_the_name_is_for_the_policy_and_options_are_for_the_start() {
        let (policy, options) = cluster("sticky v4=24 --guard off");
        assert_eq!(policy.as_deref(), Some("sticky v4=24"));
        assert_eq!(options, ["--guard", "off"]);
        assert_eq!(cluster("cluster:none").0.as_deref(), Some("none"));
        assert_eq!(cluster("./mine.bpf.o").0.as_deref(), Some("./mine.bpf.o"));
        assert_eq!(cluster("default").0, None);
        assert_eq!(cluster("default --shed 8").1, ["--shed", "8"]);
    }

    #[test]
    fn an_unknown_policy_is_refused_with_the_nearest() {
        let refused = "least-con".parse::<Contender>().unwrap_err();
        assert_eq!(refused.hint.as_deref(), Some("did you mean `least-conn`?"));
        assert!("shared --shed 1".parse::<Contender>().is_err());
        assert!("".parse::<Contender>().is_err());
    }

    fn by(text: &str) -> By {
        text.parse::<Contender>().unwrap().by
    }

    fn cluster(text: &str) -> (Option<String>, Vec<String>) {
        match by(text) {
            By::Cluster { policy, options } => (policy, options),
            By::Plain | By::Hash | By::Shared => panic!("{text} is none of cluster's"),
        }
    }
}
