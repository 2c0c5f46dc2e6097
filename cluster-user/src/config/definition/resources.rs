//! What each worker may use of the host.

use std::{collections::BTreeMap, fmt, str::FromStr};

use clap::Args;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_with::skip_serializing_none;

use super::value::{Scalar, Size, written};
use crate::config::{
    cpus::Cpus,
    rlimit::{self, Limit, Rlimit, Rlimits},
};

/// What each worker may use of the host.
#[skip_serializing_none]
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[command(next_help_heading = "Limits of each worker")]
pub struct Resources {
    /// Memory; one of its processes is killed beyond (cgroup v2: memory.max)
    #[arg(long, value_name = "SIZE")]
    pub memory_max: Option<Size>,

    /// Memory; its processes are slowed down beyond (cgroup v2: memory.high)
    #[arg(long, value_name = "SIZE")]
    pub memory_high: Option<Size>,

    /// CPUs: 1.5 or 150% (cgroup v2: cpu.max)
    #[arg(long, value_name = "CPUS")]
    pub cpu_max: Option<CpuShare>,

    /// Share of the CPUs when they are scarce: 1 to 10000, usually 100 (cgroup v2: cpu.weight)
    #[arg(long, value_name = "N")]
    pub cpu_weight: Option<u16>,

    /// Processes and threads (cgroup v2: pids.max)
    #[arg(long, value_name = "N")]
    pub pids_max: Option<u32>,

    /// CPUs to run on, such as 0-3,6; `spread` for one each in turn
    #[arg(long, value_name = "LIST")]
    pub cpus: Option<Cpus>,

    /// Priority, -20 to 19; less is more
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub nice: Option<i8>,

    /// Limits of each process, such as nofile=65536 or core=unlimited; repeatable
    #[arg(long, visible_alias = "rlimit", value_name = "NAME=LIMIT", value_parser = rlimit::parse, action = clap::ArgAction::Append)]
    #[serde(
        deserialize_with = "rlimits",
        serialize_with = "table",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(schema_with = "rlimits_schema")]
    pub rlimits: Vec<(Rlimit, Limit)>,

    /// Permissions that new files do not get, in octal, such as 027
    #[arg(long, value_name = "OCTAL")]
    pub umask: Option<Umask>,

    /// How willingly the kernel kills it when memory runs out, -1000 to 1000
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub oom_score_adj: Option<i16>,
}

written!(Cpus, "Cpus", { "type": ["string", "integer"], "examples": ["0-3,6", "spread", 2] });

/// A number of CPUs, in thousandths: `1.5`, `150%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuShare(pub u32);

impl FromStr for CpuShare {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            let text = text.escape_default().take(40).collect::<String>();
            format!("`{text}` is no number of CPUs: expected one such as 1.5, or 150%")
        };
        let (number, scale) = text.strip_suffix('%').map_or((text, 1000), |number| (number, 10));
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || fraction.len() > 3 {
            return Err(bad());
        }
        let whole = whole.parse::<u32>().ok().and_then(|n| n.checked_mul(scale)).ok_or_else(bad)?;
        let fraction =
            format!("{fraction:0<3}").parse::<u32>().map_err(|_digits| bad())? * scale / 1000;
        // No kernel has more CPUs than 8192.
        whole.checked_add(fraction).filter(|share| *share <= 8_192_000).map(Self).ok_or_else(bad)
    }
}

impl fmt::Display for CpuShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 1000, self.0 % 1000);
        match format!("{rest:03}").trim_end_matches('0') {
            "" => write!(f, "{whole}"),
            rest => write!(f, "{whole}.{rest}"),
        }
    }
}

written!(CpuShare, "CpuShare", { "type": ["string", "number"], "examples": [1.5, "150%"] });

/// Permission bits in octal. A number in a file would be taken as decimal by some formats and as octal by others, so it is
/// written as a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Umask(pub u16);

impl FromStr for Umask {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix("0o").unwrap_or(text);
        let octal = !digits.is_empty() && digits.bytes().all(|b| (b'0'..=b'7').contains(&b));
        octal
            .then(|| u16::from_str_radix(digits, 8).ok())
            .flatten()
            .filter(|mask| *mask <= 0o777)
            .map(Self)
            .ok_or_else(|| {
                format!(
                    "`{}` is no umask: expected an octal text from 000 to 777, such as 027",
                    text.escape_default().take(40).collect::<String>()
                )
            })
    }
}

impl fmt::Display for Umask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03o}", self.0)
    }
}

impl Serialize for Umask {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Umask {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Umask {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Umask".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^(0o)?[0-7]{1,4}$", "examples": ["027"] })
    }
}

/// Writes them as a table.
fn table<S: Serializer>(limits: &[(Rlimit, Limit)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(limits.iter().map(|(name, limit)| (name.name(), limit)))
}

/// Reads a table `{ nofile = 65536 }`, a list `["nofile=65536"]`, or a text.
fn rlimits<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(Rlimit, Limit)>, D::Error> {
    struct Any;
    impl<'de> Visitor<'de> for Any {
        type Value = Vec<(Rlimit, Limit)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a table of limits, such as { nofile = 65536 }")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            let parts = text.split([',', ' ']).filter(|part| !part.is_empty());
            parts.map(|part| rlimit::parse(part).map_err(E::custom)).collect()
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut limits = Vec::new();
            while let Some(Scalar(text)) = list.next_element()? {
                limits.push(rlimit::parse(&text).map_err(de::Error::custom)?);
            }
            Ok(limits)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut limits = Vec::new();
            while let Some((name, Scalar(limit))) = map.next_entry::<String, Scalar>()? {
                let name = name.parse().map_err(de::Error::custom)?;
                limits.push((name, limit.parse().map_err(de::Error::custom)?));
            }
            Ok(limits)
        }
    }
    from.deserialize_any(Any)
}

fn rlimits_schema(_: &mut SchemaGenerator) -> Schema {
    let names = Rlimit::ALL.iter().map(|limit| limit.name());
    let limit = serde_json::json!({ "type": ["string", "integer"] });
    let properties: BTreeMap<_, _> = names.map(|name| (name, limit.clone())).collect();
    json_schema!({ "oneOf": [
        { "type": "object", "properties": properties, "additionalProperties": false },
        { "type": "array", "items": { "type": "string" } }
    ] })
}

impl Resources {
    /// Limits of each process; the last one of a name holds.
    pub fn limits(&self) -> Rlimits {
        self.rlimits.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cpus_are_a_number_or_per_cent() {
        for (text, thousandths, shown) in [
            ("1.5", 1500, "1.5"),
            ("150%", 1500, "1.5"),
            ("2", 2000, "2"),
            ("0.5%", 5, "0.005"),
            ("12.5%", 125, "0.125"),
        ] {
            let share: CpuShare = text.parse().unwrap();
            assert_eq!((share.0, share.to_string().as_str()), (thousandths, shown), "{text}");
        }
        for text in ["", "%", "-1", "1.2345", "x", "99999", "1 %", "1."] {
            assert!(text.parse::<CpuShare>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_umask_is_an_octal_text() {
        let read = |value| serde_json::from_value::<Umask>(value);
        assert_eq!(read(json!("0027")).unwrap().0, 0o27);
        assert_eq!(read(json!("0o22")).unwrap().to_string(), "022");
        for value in [json!(18), json!("999"), json!("1000"), json!("1777"), json!("")] {
            assert!(read(value.clone()).is_err(), "{value}");
        }
    }

    #[test]
    fn limits_are_a_table_or_a_list_and_the_nearest_name_is_told() {
        let read = |value| serde_json::from_value::<Resources>(json!({ "rlimits": value }));
        let expected = read(json!({ "nofile": 65536, "core": "unlimited" })).unwrap().limits();
        assert_eq!(read(json!(["core=unlimited", "nofile=64K"])).unwrap().limits(), expected);
        assert_eq!(read(json!("nofile=65536,core=unlimited")).unwrap().limits(), expected);
        let error = read(json!({ "nofiles": 1 })).unwrap_err().to_string();
        assert!(error.contains("is `nofile` meant?"), "{error}");
    }
}
