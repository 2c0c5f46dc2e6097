//! How a worker is picked for each connection.

use std::fmt;

use clap::Args;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_with::skip_serializing_none;

use super::value::{Scalar, several, several_schema, written};
use crate::config::scheduling::{self, Policy, SchedulingError, Shed};

/// How a worker is picked for each connection.
#[skip_serializing_none]
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[command(next_help_heading = "Scheduling")]
pub struct Scheduling {
    /// By which rule a worker is picked, with its keys: cluster policy --list shows them; or the path of a compiled
    /// program (.o) [default: round-robin]
    #[arg(long, value_name = "POLICY")]
    pub policy: Option<Rule>,

    /// Shares of the workers by their numbers, such as 3,1,1; with round-robin
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    #[serde(deserialize_with = "several", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "several_schema")]
    pub weights: Vec<u32>,

    /// Keep connections away from workers that do not accept: off, or stalled=TIME (default 8ms), heartbeat=TIME since
    /// the last `WATCHDOG=1` (default: three quarters of --watchdog), queue=N, slow-start=TIME [default: on]
    #[arg(long, value_name = "on|off|KEY=VALUE,…")]
    pub guard: Option<Guard>,

    /// Refuse a connection at once when every worker has N or more [default: off]
    #[arg(long, value_name = "N|off")]
    pub shed: Option<Shed>,
}

written!(Shed, "Shed", { "type": ["string", "integer", "boolean"], "examples": [200, "off"] });

/// A policy as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule(pub Policy);

impl std::str::FromStr for Rule {
    type Err = SchedulingError;

    fn from_str(text: &str) -> Result<Self, SchedulingError> {
        text.parse().map(Self)
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Rule {
    /// A text, its words as a list, or a table `{ name = "sticky", prefix = 24 }`, for classes `{ name = "class", rules =
    /// ["10.0.0.0/8=0-1", "*=2"] }`.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Rule;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a policy, such as \"least-conn\" or { name = \"sticky\", prefix = 24 }",
                )
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Rule, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Rule, A::Error> {
                let mut words = Vec::new();
                while let Some(Scalar(word)) = list.next_element()? {
                    words.push(word);
                }
                self.visit_str(&words.join(" "))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Rule, A::Error> {
                let (mut name, mut words) = (None, Vec::new());
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "name" => name = Some(map.next_value::<Scalar>()?.0),
                        "rules" => words.extend(map.next_value::<Vec<String>>()?),
                        _ => words.push(format!("{key}={}", map.next_value::<Scalar>()?.0)),
                    }
                }
                let name = name.ok_or_else(|| de::Error::missing_field("name"))?;
                words.insert(0, name);
                self.visit_str(&words.join(" "))
            }
        }
        from.deserialize_any(Any)
    }
}

impl JsonSchema for Rule {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Policy".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<_> = scheduling::known::POLICIES.iter().map(|known| known.name).collect();
        json_schema!({ "oneOf": [
            { "type": "string", "examples": names },
            { "type": "array", "items": { "type": ["string", "number"] } },
            {
                "type": "object",
                "properties": {
                    "name": { "type": "string" },
                    "prefix": { "type": "integer" },
                    "prefix6": { "type": "integer" },
                    "quic": { "type": "integer" },
                    "rules": { "type": "array", "items": { "type": "string" } }
                },
                "required": ["name"],
                "additionalProperties": false
            }
        ] })
    }
}

/// A guard as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard(pub scheduling::Guard);

impl std::str::FromStr for Guard {
    type Err = SchedulingError;

    fn from_str(text: &str) -> Result<Self, SchedulingError> {
        text.parse().map(Self)
    }
}

impl Serialize for Guard {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Guard {
    /// A text, a switch, or a table `{ stalled = "8ms", queue = 100 }`.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Guard;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("on, off, or a table such as { queue = 100 }")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Guard, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_bool<E: de::Error>(self, on: bool) -> Result<Guard, E> {
                self.visit_str(if on { "on" } else { "off" })
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Guard, A::Error> {
                let mut words = Vec::new();
                while let Some((key, Scalar(value))) = map.next_entry::<String, Scalar>()? {
                    words.push(format!("{key}={value}"));
                }
                if words.is_empty() {
                    self.visit_str("on")
                } else {
                    self.visit_str(&words.join(","))
                }
            }
        }
        from.deserialize_any(Any)
    }
}

impl JsonSchema for Guard {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Guard".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let value = serde_json::json!({ "type": ["string", "integer"] });
        json_schema!({ "oneOf": [
            { "type": ["string", "boolean"], "examples": ["on", "off", "queue=100,slow-start=10s"] },
            {
                "type": "object",
                "properties": {
                    "stalled": value,
                    "heartbeat": value,
                    "queue": value,
                    "slow-start": value,
                    "slow_start": value
                },
                "additionalProperties": false
            }
        ] })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_policy_is_a_text_words_or_a_table() {
        for (value, shown) in [
            (json!("sticky,prefix=24"), "sticky prefix=24"),
            (json!(["sticky", "prefix=24"]), "sticky prefix=24"),
            (json!({ "name": "sticky", "prefix": 24 }), "sticky prefix=24"),
            (json!({ "prefix": 24, "name": "sticky" }), "sticky prefix=24"),
            (
                json!({ "name": "class", "rules": ["10.0.0.0/8=0-1", "*=2"] }),
                "class 10.0.0.0/8=0-1 *=2",
            ),
            (json!(["class", "10.0.0.0/8=0-1", "*=2"]), "class 10.0.0.0/8=0-1 *=2"),
        ] {
            let said = read(json!({ "policy": value })).unwrap();
            assert_eq!(said.policy.as_ref().unwrap().0.to_string(), shown);
            assert_eq!(serde_json::to_value(&said).unwrap(), json!({ "policy": shown }));
        }
        for (value, expected) in [
            (json!({ "prefix": 24 }), "missing field `name`"),
            (json!({ "name": "sticky", "prefx": 24 }), "is `prefix` meant?"),
            (json!("leastconn"), "is `least-conn` meant?"),
            (json!([]), "no policy is named"),
            (json!(3), "expected a policy"),
        ] {
            let error = read(json!({ "policy": value })).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_guard_is_a_text_a_switch_or_a_table_and_shedding_a_number() {
        for (value, shown) in [
            (json!(false), "off"),
            (json!("on"), "on"),
            (json!({}), "on"),
            (json!({ "queue": 100, "slow_start": "10s" }), "queue=100,slow-start=10s"),
            (json!("stalled=20ms"), "stalled=20ms"),
            (json!({ "heartbeat": "off" }), "heartbeat=off"),
        ] {
            assert_eq!(
                read(json!({ "guard": value })).unwrap().guard.unwrap().0.to_string(),
                shown
            );
        }
        for (value, shed) in
            [(json!(200), Shed::At(200)), (json!("off"), Shed::Off), (json!(false), Shed::Off)]
        {
            assert_eq!(read(json!({ "shed": value })).unwrap().shed, Some(shed));
        }
        assert!(read(json!({ "shed": 0 })).is_err());
    }

    fn read(keys: Value) -> serde_json::Result<Scheduling> {
        serde_json::from_value(keys)
    }
}
