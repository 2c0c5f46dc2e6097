//! What the types of a scheduling leave open.

use std::{ffi::OsStr, path::Path};

use super::{Class, Guard, Match, Policy, Scheduling, Sticky, text::LONGEST};
use crate::config::duration;

/// Largest weight: the route of an app has a few thousand turns in all.
pub const MAX_WEIGHT: u32 = 1000;

impl Scheduling {
    /// Checks it for an app of so many workers.
    ///
    /// # Errors
    /// A lowercase fragment that names the two things that disagree.
    pub fn check(&self, instances: u32) -> Result<(), String> {
        self.policy.check(instances)?;
        self.check_vain()?;
        self.check_weights(instances)?;
        self.guard.check()?;
        if self.shed == Some(0) {
            return Err("shed is 0, which would refuse every connection".to_owned());
        }
        Ok(())
    }

    /// Refuses all that is asked for in vain at once.
    fn check_vain(&self) -> Result<(), String> {
        let vain = self.vain();
        if vain.is_empty() {
            return Ok(());
        }
        let all = |of: fn(&(&str, String)) -> String, between: &str| {
            vain.iter().map(of).collect::<Vec<_>>().join(between)
        };
        Err(format!(
            "{}, and the policy is none: the kernel's hash knows no {}; {} {}",
            all(|(_, said)| said.clone(), " and "),
            all(|(name, _)| (*name).to_owned(), ", no "),
            all(|(name, _)| format!("{name}=off"), " "),
            if vain.len() == 1 { "ends it" } else { "ends that" },
        ))
    }

    /// Takes out of what an earlier release accepted what [`check`](Self::check) refuses, and says what that was: as it is
    /// refused.
    pub fn mend(&mut self, instances: u32) -> Vec<String> {
        let mut refused = Vec::new();
        if let Err(why) = self.policy.check(instances) {
            refused.push(why);
            self.policy = Policy::default();
        }
        if let Err(why) = self.check_weights(instances) {
            refused.push(why);
            self.weights.clear();
        }
        if let Err(why) = self.guard.check() {
            refused.push(why);
            self.guard = Guard::default();
        }
        if self.shed == Some(0) {
            refused.push("shed is 0, which would refuse every connection".to_owned());
            self.shed = None;
        }
        let vain = self.vain();
        if !vain.is_empty() {
            let why = |(name, said)| {
                format!("{said}, and the policy is none: the kernel's hash knows no {name}")
            };
            refused.extend(vain.into_iter().map(why));
            (self.guard, self.shed) = (Guard::default(), None);
        }
        refused
    }

    /// What is asked for in vain, by its name and with its value; the usual guard is there without being asked for.
    fn vain(&self) -> Vec<(&'static str, String)> {
        if self.policy != Policy::None {
            return Vec::new();
        }
        let Self { policy: _, weights, guard, shed } = self;
        let weights = (!weights.is_empty()).then(|| {
            let weights: Vec<_> = weights.iter().map(u32::to_string).collect();
            ("weights", format!("weights are {}", weights.join(",")))
        });
        let guard = (*guard != Guard::default() && *guard != Guard::OFF)
            .then(|| ("guard", format!("guard is {guard}")));
        let shed = shed.map(|shed| ("shed", format!("shed is {shed}")));
        weights.into_iter().chain(guard).chain(shed).collect()
    }

    fn check_weights(&self, instances: u32) -> Result<(), String> {
        if self.weights.is_empty() {
            return Ok(());
        }
        if self.policy != Policy::RoundRobin {
            return Err(format!(
                "weights go with policy round-robin, and the policy is {}",
                self.policy.name()
            ));
        }
        if let Some(weight) = self.weights.iter().find(|weight| !(1..=MAX_WEIGHT).contains(*weight))
        {
            return Err(format!("weights has {weight}, not 1 to {MAX_WEIGHT}"));
        }
        let count = self.weights.len();
        if usize::try_from(instances).ok() == Some(count) {
            return Ok(());
        }
        let weights = if count == 1 { "1 number" } else { &format!("{count} numbers") };
        let workers =
            if instances == 1 { "is 1 worker" } else { &format!("are {instances} workers") };
        Err(format!("weights has {weights}, and there {workers}: each has one"))
    }

    /// The weight of a worker; 1 where none is said.
    pub fn weight(&self, instance: u32) -> u32 {
        let nth = usize::try_from(instance).unwrap_or(usize::MAX);
        self.weights.get(nth).copied().unwrap_or(1).max(1)
    }

    /// Fits it to another number of workers: new ones have weight 1.
    ///
    /// # Errors
    /// When a class would have no worker left.
    pub fn resize(&mut self, instances: u32) -> Result<(), String> {
        if let Policy::Class(classes) = &self.policy {
            let left = |class: &&Class| !class.workers.iter().any(|worker| *worker < instances);
            if let Some(class) = classes.iter().find(left) {
                return Err(format!("class {class} would have no worker left of {instances}"));
            }
        }
        if !self.weights.is_empty() {
            self.weights.resize(usize::try_from(instances).unwrap_or(usize::MAX), 1);
        }
        Ok(())
    }
}

impl Policy {
    fn check(&self, instances: u32) -> Result<(), String> {
        match self {
            Self::RoundRobin
            | Self::LeastConn
            | Self::P2c
            | Self::Queue
            | Self::Hash
            | Self::CpuLocal
            | Self::Random
            | Self::None => Ok(()),
            Self::Sticky(sticky) => sticky.check(),
            Self::Class(classes) => check_classes(classes, instances),
            Self::Custom(path) => check_program(path),
        }
    }
}

impl Guard {
    fn check(self) -> Result<(), String> {
        let Self { stalled, heartbeat, queue, slow_start } = self;
        if stalled.max(heartbeat.unwrap_or_default()).max(slow_start) > duration::MAX {
            return Err("guard has a time that is longer than a year".to_owned());
        }
        if queue == Some(0) {
            return Err(
                "guard: queue is 0, which would keep every worker from connections".to_owned()
            );
        }
        Ok(())
    }
}

impl Sticky {
    fn check(self) -> Result<(), String> {
        let values = [Some(self.v4), Some(self.v6), self.quic];
        for ((key, longest), value) in LONGEST.iter().zip(values) {
            if let Some(value) = value.filter(|value| !(1..=*longest).contains(value)) {
                return Err(format!("policy sticky: {key} is {value}, not 1 to {longest}"));
            }
        }
        Ok(())
    }
}

fn check_classes(classes: &[Class], instances: u32) -> Result<(), String> {
    let Some((_, first)) = classes.split_last() else {
        return Err("policy class has no rule".to_owned());
    };
    Class::fit(classes)?;
    if first.iter().any(|class| class.matches.is_empty()) {
        return Err("policy class: * fits everybody, and rules follow it: it comes last".to_owned());
    }
    for class in classes {
        for text in &class.matches {
            text.parse::<Match>().map_err(|error| error.to_string())?;
        }
        let whom = class.whom();
        if class.workers.is_empty() {
            return Err(format!("policy class: {whom} has no workers"));
        }
        if !class.workers.is_sorted_by(|one, next| one < next) {
            return Err(format!(
                "policy class: the workers of {whom} are not in order, or named twice"
            ));
        }
        if let Some(worker) = class.workers.iter().find(|worker| **worker >= instances) {
            let last = instances.saturating_sub(1);
            return Err(format!(
                "policy class: {whom} names worker {worker}, and the last one is {last}"
            ));
        }
    }
    Ok(())
}

fn check_program(path: &Path) -> Result<(), String> {
    let shown = path.display();
    if !path.is_absolute() {
        return Err(format!("policy {shown} is not an absolute path"));
    }
    if path.extension() != Some(OsStr::new("o")) {
        return Err(format!("policy {shown} is no compiled program: its name ends with .o"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_contradicts_itself_is_refused() {
        for (policy, weights, shed, instances, expected) in [
            ("round-robin", &[3, 1][..], None, 3, "weights has 2 numbers, and there are 3 workers"),
            ("round-robin", &[3], None, 2, "weights has 1 number, and there are 2 workers"),
            ("round-robin", &[3, 1], None, 1, "weights has 2 numbers, and there is 1 worker"),
            ("round-robin", &[0, 1], None, 2, "weights has 0, not 1 to 1000"),
            ("round-robin", &[1001], None, 1, "weights has 1001"),
            ("least-conn", &[1, 1], None, 2, "and the policy is least-conn"),
            ("hash", &[], Some(0), 1, "shed is 0"),
            (
                "class 10.0.0.0/8=0,5",
                &[],
                None,
                3,
                "10.0.0.0/8 names worker 5, and the last one is 2",
            ),
            ("class *=0 dscp:1=1", &[], None, 3, "it comes last"),
            (
                &format!("class {}", "10.0.0.0/8=0 ".repeat(32)),
                &[],
                None,
                3,
                "policy class has 32 rules, and 31 are possible",
            ),
            ("mine.o", &[], None, 1, "policy mine.o is not an absolute path"),
        ] {
            let policy = policy.parse().unwrap();
            let scheduling =
                Scheduling { policy, weights: weights.to_vec(), shed, ..Scheduling::default() };
            let error = scheduling.check(instances).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn what_has_no_effect_without_a_policy_is_refused() {
        let check = |guard: &str, shed| {
            let (policy, guard) = (Policy::None, guard.parse().unwrap());
            Scheduling { policy, guard, shed, ..Scheduling::default() }.check(2)
        };
        assert_eq!(check("on", None), Ok(()), "nobody asked for the usual guard");
        assert_eq!(check("off", None), Ok(()));
        for (guard, shed, expected) in [
            ("on", Some(5), "shed is 5, and the policy is none"),
            ("queue=100", None, "guard is queue=100, and the policy is none"),
            ("stalled=off", None, "guard is stalled=off, and the policy is none"),
        ] {
            let error = check(guard, shed).unwrap_err();
            assert!(error.contains(expected), "{error}");
            assert!(error.ends_with("=off ends it"), "{error}");
        }
    }

    #[test]
    fn what_an_earlier_release_accepted_is_mended_by_taking_out_what_is_refused() {
        for (policy, weights, guard, shed, taken) in [
            ("none", &[][..], "queue=100", Some(5), &["guard is queue=100", "shed is 5"][..]),
            ("none", &[], "on", Some(5), &["shed is 5"]),
            ("least-conn", &[3, 1], "queue=7", None, &["weights go with policy round-robin"]),
            ("round-robin", &[3, 1, 1], "on", Some(0), &["weights has 3 numbers", "shed is 0"]),
            ("class *=7", &[], "queue=7", Some(9), &["policy class: * names worker 7"]),
        ] {
            let (policy, guard) = (policy.parse().unwrap(), guard.parse().unwrap());
            let mut saved = Scheduling { policy, weights: weights.to_vec(), guard, shed };
            let before = saved.clone();

            let said = saved.mend(2);

            assert_eq!(saved.check(2), Ok(()));
            assert_eq!(said.len(), taken.len(), "{said:?}");
            for (said, taken) in said.iter().zip(taken) {
                assert!(said.starts_with(taken), "{said}");
                assert!(!said.contains("ends it"), "it has been ended: {said}");
            }
            assert_eq!(saved.mend(2), Vec::<String>::new());
            let kept = |name: &str| !taken.iter().any(|taken| taken.starts_with(name));
            assert_eq!(saved.guard == before.guard, kept("guard"), "the rest stays");
            assert_eq!(saved.shed == before.shed, kept("shed"), "the rest stays");
        }
    }

    #[test]
    fn all_that_has_no_effect_without_a_policy_is_refused_at_once() {
        let (policy, guard) = (Policy::None, "queue=3".parse().unwrap());
        let all = Scheduling { policy, weights: vec![3, 1], guard, shed: Some(5) };
        assert_eq!(
            all.check(2).unwrap_err(),
            "weights are 3,1 and guard is queue=3 and shed is 5, and the policy is none: the kernel's hash knows no \
             weights, no guard, no shed; weights=off guard=off shed=off ends that"
        );
    }

    #[test]
    fn what_does_not_come_from_a_text_is_checked_too() {
        let class = |matches: &[&str], workers: &[u32]| {
            let matches = matches.iter().map(|text| (*text).to_owned()).collect();
            Policy::Class(vec![Class {
                matches,
                workers: workers.to_vec(),
                policy: super::super::Inner::Hash,
            }])
        };
        for policy in [
            Policy::Class(Vec::new()),
            class(&["nonsense"], &[0]),
            class(&[], &[]),
            class(&[], &[1, 0]),
            class(&[], &[1, 1]),
            Policy::Sticky(Sticky { v4: 0, ..Sticky::default() }),
            Policy::Sticky(Sticky { quic: Some(21), ..Sticky::default() }),
            Policy::Custom("/bin/true".into()),
        ] {
            assert!(policy.check(4).is_err(), "{policy:?}");
        }
        assert_eq!(class(&["10.0.0.0/8"], &[0, 3]).check(4), Ok(()));
    }

    #[test]
    fn another_number_of_workers_keeps_the_weights_of_those_that_stay() {
        let mut scheduling = Scheduling { weights: vec![3, 1], ..Scheduling::default() };
        scheduling.resize(4).unwrap();
        assert_eq!(scheduling.weights, [3, 1, 1, 1]);
        assert_eq!([scheduling.weight(0), scheduling.weight(9)], [3, 1]);
        scheduling.resize(1).unwrap();
        assert_eq!(scheduling.weights, [3]);
        let mut classes =
            Scheduling { policy: "class *=1-2".parse().unwrap(), ..Scheduling::default() };
        assert_eq!(classes.resize(2), Ok(()));
        let error = classes.resize(1).unwrap_err();
        assert_eq!(error, "class *=1-2 would have no worker left of 1");
    }
}
