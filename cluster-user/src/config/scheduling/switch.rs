//! A switch: what is to be different about how an app is scheduled.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{
    Guard, Policy, Scheduling,
    text::{SchedulingError, once, refused, short},
};

/// What is to be different; the rest stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Switch {
    /// The rule. Weights go with `round-robin` alone: another rule ends them.
    pub policy: Option<Policy>,
    /// Weights of the workers by their numbers; none for equal ones.
    pub weights: Option<Vec<u32>>,
    /// The guard, as a whole.
    pub guard: Option<Guard>,
    /// Whether and when connections are refused.
    pub shed: Option<Shed>,
}

/// Whether and when connections are refused.
///
/// It is written as one text or number; its definition makes it so (`definition/scheduling.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shed {
    /// Never.
    Off,
    /// When every worker has this many; at least 1.
    At(u32),
}

impl Shed {
    /// As a scheduling has it.
    pub fn limit(self) -> Option<u32> {
        match self {
            Self::Off => None,
            Self::At(limit) => Some(limit),
        }
    }

    /// From what a scheduling has.
    pub fn of(limit: Option<u32>) -> Self {
        limit.map_or(Self::Off, Self::At)
    }
}

impl FromStr for Shed {
    type Err = SchedulingError;

    fn from_str(text: &str) -> Result<Self, SchedulingError> {
        match text.trim() {
            "off" | "false" | "no" => Ok(Self::Off),
            text => match text.parse() {
                Ok(limit @ 1..) => Ok(Self::At(limit)),
                Ok(0) => refused(
                    "shed is 0, which would refuse every connection: expected 1 or more, or off",
                ),
                Err(_no_number) => refused(format!(
                    "`{}` is no number of connections: expected 1 or more, or off",
                    short(text)
                )),
            },
        }
    }
}

impl fmt::Display for Shed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::At(limit) => limit.fmt(f),
        }
    }
}

impl Switch {
    /// To what a scheduling is, whatever there was.
    pub fn to(scheduling: &Scheduling) -> Self {
        Self {
            policy: Some(scheduling.policy.clone()),
            weights: Some(scheduling.weights.clone()),
            guard: Some(scheduling.guard),
            shed: Some(Shed::of(scheduling.shed)),
        }
    }

    /// What it makes of a scheduling.
    #[must_use]
    pub fn apply(&self, before: &Scheduling) -> Scheduling {
        let policy = self.policy.clone().unwrap_or_else(|| before.policy.clone());
        let weights = match &self.weights {
            Some(weights) => weights.clone(),
            None if policy == Policy::RoundRobin => before.weights.clone(),
            None => Vec::new(),
        };
        Scheduling {
            policy,
            weights,
            guard: self.guard.unwrap_or(before.guard),
            shed: self.shed.map_or(before.shed, Shed::limit),
        }
    }

    /// Reads the words of a command line: a policy with its keys, and `weights=`, `guard=` and `shed=` anywhere.
    ///
    /// # Errors
    /// What is wrong with one of them, or that one is given twice.
    pub fn of_words(words: &[String]) -> Result<Self, SchedulingError> {
        let mut switch = Self::default();
        let (mut policy, mut given) = (Vec::new(), Vec::new());
        for word in words {
            let setting = word.split_once('=');
            if let Some((key @ ("weights" | "guard" | "shed"), _)) = setting {
                once(&mut given, "", key)?;
            }
            match setting {
                Some(("weights", list)) => switch.weights = Some(weights(list)?),
                Some(("guard", guard)) => switch.guard = Some(guard.parse()?),
                Some(("shed", shed)) => switch.shed = Some(shed.parse()?),
                Some(_) | None => policy.push(word.as_str()),
            }
        }
        if !policy.is_empty() {
            switch.policy = Some(policy.join(" ").parse()?);
        }
        Ok(switch)
    }
}

fn weights(list: &str) -> Result<Vec<u32>, SchedulingError> {
    if list == "off" {
        return Ok(Vec::new());
    }
    let one = |text: &str| match text.trim().parse() {
        Ok(weight) => Ok(weight),
        Err(_no_number) => refused(format!("weights: `{}` is no number, as in 3,1,1", short(text))),
    };
    list.split(',').map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_a_policy_and_settings_in_any_order() {
        let read =
            |line: &str| Switch::of_words(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        let switch = read("shed=200 sticky guard=off prefix=24").unwrap();
        assert_eq!(switch.policy.unwrap().to_string(), "sticky prefix=24");
        assert_eq!(
            (switch.guard, switch.shed, switch.weights),
            (Some(Guard::OFF), Some(Shed::At(200)), None)
        );
        let switch = read("weights=3,1,1").unwrap();
        assert_eq!((switch.policy, switch.weights), (None, Some(vec![3, 1, 1])));
        assert_eq!(read("class 10.0.0.0/8=0 *=1 shed=off").unwrap().shed, Some(Shed::Off));
        for bad in
            ["lest-conn", "least-conn gaurd=off", "shed=0", "weights=3,x", "weights=", "guard=x"]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
        for (twice, key) in [
            ("shed=5 hash shed=9", "shed"),
            ("guard=on guard=off", "guard"),
            ("weights=1,2 weights=2,1", "weights"),
        ] {
            let error = read(twice).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{key} is given twice")), "{error}");
        }
    }

    #[test]
    fn what_is_shown_is_read_back() {
        let line = "class 10.0.0.0/8=0 *=1 guard=queue=5 shed=200";
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        let scheduling = Switch::of_words(&words).unwrap().apply(&Scheduling::default());
        assert_eq!(scheduling.to_string(), line);
        let weighted = Scheduling { weights: vec![3, 1], ..Scheduling::default() };
        assert_eq!(weighted.to_string(), "round-robin weights=3,1");
    }

    #[test]
    fn what_is_not_said_stays_and_weights_go_with_their_policy() {
        let before = Scheduling { weights: vec![3, 1], shed: Some(7), ..Scheduling::default() };
        let guarded = Switch { guard: Some(Guard::OFF), ..Switch::default() }.apply(&before);
        assert_eq!(guarded, Scheduling { guard: Guard::OFF, ..before.clone() });
        let other = Switch { policy: Some(Policy::LeastConn), ..Switch::default() }.apply(&before);
        assert_eq!((other.weights.len(), other.shed), (0, Some(7)));
        assert_eq!(Switch::to(&before).apply(&other), before);
    }
}
