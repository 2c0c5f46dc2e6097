//! A class as a text: whom it is for, its workers, and its rule: `10.0.0.0/8,dscp:46=0-1:least-conn`, `*=2` for the rest.

use std::{fmt, str::FromStr};

use cluster_common::class::{MOST, SIGNS};

use super::{
    Class, Inner, Match,
    text::{SchedulingError, refused, short},
};
use crate::config::cpus;

impl FromStr for Class {
    type Err = SchedulingError;

    fn from_str(text: &str) -> Result<Self, SchedulingError> {
        let Some((whom, how)) = text.split_once('=') else {
            return refused(format!(
                "policy class: `{}` has no workers: expected a rule such as 10.0.0.0/8=0-1",
                short(text)
            ));
        };
        let matches = match whom {
            "*" => Vec::new(),
            whom => whom
                .split(',')
                .map(|one| one.parse::<Match>().map(|one| one.to_string()))
                .collect::<Result<_, _>>()?,
        };
        let (numbers, policy) =
            how.split_once(':').map_or((how, None), |(at, inner)| (at, Some(inner)));
        // Numbers of workers are written as those of CPUs are.
        let Some(workers) = cpus::list(numbers).filter(|workers| !workers.is_empty()) else {
            return refused(format!(
                "policy class: `{}` has no workers: expected their numbers after =, such as 0-1,3",
                short(text)
            ));
        };
        let policy = policy.map_or(Ok(Inner::default()), str::parse)?;
        Ok(Self { matches, workers: workers.into_iter().collect(), policy })
    }
}

/// Workers that all rules together can name: each may have some sockets in the route, and there is room for those.
const MOST_NAMED: usize = 2048;

impl Class {
    /// Checks that there is room for all of them.
    ///
    /// # Errors
    /// What there is too much of.
    pub fn fit(classes: &[Self]) -> Result<(), String> {
        let told = classes.iter().map(|class| class.matches.len()).sum();
        let named = classes.iter().map(|class| class.workers.len()).sum();
        for (count, what, most) in [
            (classes.len(), "rules", MOST),
            (told, "networks, marks and bytes", SIGNS as usize - 1),
            (named, "workers in its rules", MOST_NAMED),
        ] {
            if count > most {
                return Err(format!("policy class has {count} {what}, and {most} are possible"));
            }
        }
        Ok(())
    }

    /// Whom it is for.
    pub(super) fn whom(&self) -> String {
        if self.matches.is_empty() { "*".to_owned() } else { self.matches.join(",") }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let workers = self.workers.iter().copied().collect();
        write!(f, "{}={}", self.whom(), cpus::show(&workers))?;
        if self.policy == Inner::default() {
            return Ok(());
        }
        write!(f, ":{}", self.policy.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_has_clients_workers_and_a_rule() {
        let class: Class = "10.1.0.0/8,dscp:46=3,0-1:least-conn".parse().unwrap();
        assert_eq!(class.matches, ["10.0.0.0/8", "dscp:46"]);
        assert_eq!((class.workers.as_slice(), class.policy), (&[0, 1, 3][..], Inner::LeastConn));
        assert_eq!(class.to_string(), "10.0.0.0/8,dscp:46=0-1,3:least-conn");
        let v6: Class = "2001:db8::/32=0".parse().unwrap();
        assert_eq!(v6.to_string(), "2001:db8::/32=0");
        assert_eq!("*=2".parse::<Class>().unwrap().whom(), "*");
    }

    #[test]
    fn a_class_without_workers_is_refused() {
        for text in ["10.0.0.0/8", "10.0.0.0/8=", "*=", "*=:hash", "*=x", "*=2-1", "*=0-99999"] {
            let error = text.parse::<Class>().unwrap_err().to_string();
            assert!(error.contains("has no workers"), "{text}: {error}");
        }
    }
}
