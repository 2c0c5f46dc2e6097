//! A policy as a text, the same in options, in files, on the command line and in what is shown: its name, then its keys.
//!
//! `round-robin`, `sticky prefix=24`, `class 10.0.0.0/8=0-1 *=2`, or the path of a compiled program. Words are separated
//! by blanks; a comma does as well where it cannot mean anything else: `sticky,prefix=24` needs no quotes in a shell.

use std::{ffi::OsStr, fmt, path::Path, str::FromStr};

use super::{Guard, Inner, Policy, Scheduling, Sticky, known};
use crate::config::nearest::nearest;

/// Longest prefix of each family, and longest QUIC connection id (RFC 9000, 17.2).
pub(super) const LONGEST: [(&str, u8); 3] = [("prefix", 32), ("prefix6", 128), ("quic", 20)];

/// Settings beside the policy, which are not among its keys.
const BESIDE: [&str; 3] = ["weights", "guard", "shed"];

/// Why a text is no policy, no guard or no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchedulingError(pub(super) String);

impl fmt::Display for SchedulingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SchedulingError {}

pub(super) fn refused<T>(why: impl Into<String>) -> Result<T, SchedulingError> {
    Err(SchedulingError(why.into()))
}

/// As much of a text as fits into an error.
pub(super) fn short(text: &str) -> String {
    text.escape_default().take(40).collect()
}

impl FromStr for Policy {
    type Err = SchedulingError;

    fn from_str(text: &str) -> Result<Self, SchedulingError> {
        let text = text.trim();
        let is_between = |c: char| c == ',' || c.is_whitespace();
        let (name, keys) = text.split_once(is_between).unwrap_or((text, ""));
        let plain = |policy: Self| match keys.split(is_between).find(|word| !word.is_empty()) {
            Some(word) => Err(unknown_key(name, word, &[])),
            None => Ok(policy),
        };
        match name {
            "round-robin" => plain(Self::RoundRobin),
            "least-conn" => plain(Self::LeastConn),
            "p2c" => plain(Self::P2c),
            "queue" => plain(Self::Queue),
            "hash" => plain(Self::Hash),
            "cpu-local" => plain(Self::CpuLocal),
            "random" => plain(Self::Random),
            "none" => plain(Self::None),
            "sticky" => {
                let words = keys.split(is_between).filter(|word| !word.is_empty());
                sticky(words).map(Self::Sticky)
            }
            "class" => {
                let rules: Vec<_> =
                    keys.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
                if rules.is_empty() {
                    return refused("policy class has no rule, such as 10.0.0.0/8=0-1");
                }
                Ok(Self::Class(rules))
            }
            _ if Path::new(text).extension() == Some(OsStr::new("o")) => {
                Ok(Self::Custom(text.into()))
            }
            "custom" => refused(
                "a policy of your own is named by its compiled program, such as ./mine.bpf.o",
            ),
            "" => refused("no policy is named"),
            _ => Err(unknown(name)),
        }
    }
}

fn unknown(name: &str) -> SchedulingError {
    if name.contains('=') {
        let name = short(name);
        return SchedulingError(format!("`{name}` is a key, and no policy is named before it"));
    }
    let names = known::POLICIES.iter().map(|known| known.name).filter(|name| *name != "custom");
    let next = match nearest(name, names) {
        Some(near) => format!("is `{near}` meant?"),
        None => "cluster policy --list shows them".to_owned(),
    };
    SchedulingError(format!("there is no policy `{}`; {next}", short(name)))
}

fn unknown_key(policy: &str, word: &str, keys: &[&str]) -> SchedulingError {
    let key = word.split_once('=').map_or(word, |(key, _)| key);
    let shown = short(key);
    if BESIDE.contains(&key) {
        return SchedulingError(format!(
            "`{key}` is no key of a policy: it is an option of its own, --{key}"
        ));
    }
    let near = nearest(key, keys.iter().copied().chain(BESIDE));
    let next = match (near, keys) {
        (Some(near), _) => format!("is `{near}` meant?"),
        (None, []) => "it has none".to_owned(),
        (None, keys) => format!("it has {}", keys.join(", ")),
    };
    SchedulingError(format!("policy {policy} has no key `{shown}`; {next}"))
}

/// Notes that a setting was given; once is enough, and twice is a mistake of which nobody knows what was meant.
///
/// # Errors
/// Names the setting when it was given before.
pub(super) fn once<'a>(
    given: &mut Vec<&'a str>,
    of: &str,
    key: &'a str,
) -> Result<(), SchedulingError> {
    if given.contains(&key) {
        return refused(format!("{of}{key} is given twice: which one is meant?"));
    }
    given.push(key);
    Ok(())
}

fn sticky<'a>(words: impl Iterator<Item = &'a str>) -> Result<Sticky, SchedulingError> {
    let mut sticky = Sticky::default();
    let mut given = Vec::new();
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let Some((known, longest)) = LONGEST.iter().find(|(known, _)| *known == key) else {
            return Err(unknown_key("sticky", word, &LONGEST.map(|(key, _)| key)));
        };
        once(&mut given, "policy sticky: ", known)?;
        let Some(value) = value.parse::<u8>().ok().filter(|value| (1..=*longest).contains(value))
        else {
            return refused(format!(
                "policy sticky: {key} is `{}`, not 1 to {longest}",
                short(value)
            ));
        };
        match key {
            "prefix" => sticky.v4 = value,
            "prefix6" => sticky.v6 = value,
            _ => sticky.quic = Some(value),
        }
    }
    Ok(sticky)
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RoundRobin
            | Self::LeastConn
            | Self::P2c
            | Self::Queue
            | Self::Hash
            | Self::CpuLocal
            | Self::Random
            | Self::None => f.write_str(self.name()),
            Self::Sticky(sticky) => write!(f, "sticky{sticky}"),
            Self::Class(classes) => {
                f.write_str("class")?;
                classes.iter().try_for_each(|class| write!(f, " {class}"))
            }
            Self::Custom(path) => path.display().fmt(f),
        }
    }
}

/// As it is typed after `cluster policy`: what is as usual is left out, the policy apart.
impl fmt::Display for Scheduling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { policy, weights, guard, shed } = self;
        policy.fmt(f)?;
        if !weights.is_empty() {
            let weights: Vec<_> = weights.iter().map(u32::to_string).collect();
            write!(f, " weights={}", weights.join(","))?;
        }
        if *guard != Guard::default() {
            write!(f, " guard={guard}")?;
        }
        shed.map_or(Ok(()), |shed| write!(f, " shed={shed}"))
    }
}

/// Its keys, each with a blank before it, less those that are as usual.
impl fmt::Display for Sticky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usual = Self::default();
        if self.v4 != usual.v4 {
            write!(f, " prefix={}", self.v4)?;
        }
        if self.v6 != usual.v6 {
            write!(f, " prefix6={}", self.v6)?;
        }
        self.quic.map_or(Ok(()), |quic| write!(f, " quic={quic}"))
    }
}

impl Inner {
    const ALL: [Self; 4] = [Self::RoundRobin, Self::LeastConn, Self::Random, Self::Hash];

    /// The name by which users know it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
            Self::LeastConn => "least-conn",
            Self::Random => "random",
            Self::Hash => "hash",
        }
    }
}

impl FromStr for Inner {
    type Err = SchedulingError;

    fn from_str(text: &str) -> Result<Self, SchedulingError> {
        Self::ALL.into_iter().find(|inner| inner.name() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::name);
            let next = match nearest(text, names) {
                Some(near) => format!("is `{near}` meant?"),
                None => format!("there is {}", names.join(", ")),
            };
            SchedulingError(format!(
                "there is no policy `{}` inside of a class; {next}",
                short(text)
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::{Class, matching::tests::any_match},
        *,
    };

    #[test]
    fn a_policy_is_a_name_and_its_keys() {
        let sticky = |v4, v6, quic| Policy::Sticky(Sticky { v4, v6, quic });
        for (text, policy) in [
            ("round-robin", Policy::RoundRobin),
            (" least-conn ", Policy::LeastConn),
            ("sticky", sticky(32, 64, None)),
            ("sticky prefix=24", sticky(24, 64, None)),
            ("sticky,prefix=24,prefix6=48", sticky(24, 48, None)),
            ("sticky, quic=8", sticky(32, 64, Some(8))),
            ("./mine.bpf.o", Policy::Custom("./mine.bpf.o".into())),
            ("/srv/my policies/a.o", Policy::Custom("/srv/my policies/a.o".into())),
        ] {
            assert_eq!(text.parse::<Policy>().unwrap(), policy, "{text}");
        }
        assert_eq!(sticky(24, 64, Some(8)).to_string(), "sticky prefix=24 quic=8");
    }

    #[test]
    fn what_is_no_policy_is_refused_with_the_nearest_name() {
        for (text, expected) in [
            ("", "no policy is named"),
            ("least_conn", "there is no policy `least_conn`; is `least-conn` meant?"),
            ("leastconn", "is `least-conn` meant?"),
            ("roundrobin", "is `round-robin` meant?"),
            ("stiky prefix=24", "is `sticky` meant?"),
            ("ewma", "there is no policy `ewma`; cluster policy --list shows them"),
            ("custom", "./mine.bpf.o"),
            ("prefix=24", "`prefix=24` is a key, and no policy is named before it"),
            ("hash table=1", "policy hash has no key `table`; it has none"),
            ("hash gaurd=off", "policy hash has no key `gaurd`; is `guard` meant?"),
            ("hash guard=off", "an option of its own, --guard"),
            ("sticky prefx=24", "policy sticky has no key `prefx`; is `prefix` meant?"),
            ("sticky mask=24", "it has prefix, prefix6, quic"),
            ("sticky prefix=0", "policy sticky: prefix is `0`, not 1 to 32"),
            ("sticky prefix=33", "not 1 to 32"),
            ("sticky prefix6=129", "not 1 to 128"),
            ("sticky quic=21", "not 1 to 20"),
            ("sticky prefix", "prefix is ``, not 1 to 32"),
            ("sticky prefix=24 quic=8 prefix=25", "policy sticky: prefix is given twice"),
            ("class", "policy class has no rule"),
            ("class *=0:p2c", "there is no policy `p2c` inside of a class"),
        ] {
            let error = text.parse::<Policy>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(policy in any_policy()) {
            prop_assert_eq!(policy.to_string().parse::<Policy>().unwrap(), policy);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,60}") {
            if let Ok(policy) = text.parse::<Policy>() {
                prop_assert_eq!(policy.to_string().parse::<Policy>().unwrap(), policy);
            }
        }
    }

    fn any_policy() -> impl Strategy<Value = Policy> {
        let plain = [
            Policy::RoundRobin,
            Policy::LeastConn,
            Policy::P2c,
            Policy::Queue,
            Policy::Hash,
            Policy::CpuLocal,
            Policy::Random,
            Policy::None,
        ];
        let sticky = (1..=32u8, 1..=128u8, prop::option::of(1..=20u8))
            .prop_map(|(v4, v6, quic)| Policy::Sticky(Sticky { v4, v6, quic }));
        let class = prop::collection::vec(any_class(), 1..5).prop_map(Policy::Class);
        let custom = "/[a-z ./]{0,20}x\\.o".prop_map(|path| Policy::Custom(path.into()));
        prop_oneof![prop::sample::select(plain.to_vec()), sticky, class, custom]
    }

    fn any_class() -> impl Strategy<Value = Class> {
        let matches = prop::collection::vec(any_match(), 0..4);
        let workers = prop::collection::btree_set(0..1024u32, 1..8);
        (matches, workers, prop::sample::select(Inner::ALL.to_vec())).prop_map(
            |(matches, workers, policy)| {
                let matches = matches.iter().map(ToString::to_string).collect();
                Class { matches, workers: workers.into_iter().collect(), policy }
            },
        )
    }
}
