//! Files whose change reloads the app.

use std::{fmt, str::FromStr};

use clap::Args;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, SeqAccess, Visitor},
};
use serde_with::skip_serializing_none;

use super::value::{Scalar, Time, each, each_schema};
use crate::config::pattern::Pattern;

/// Files whose change reloads the app.
#[skip_serializing_none]
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[command(next_help_heading = "Watching files")]
pub struct Watching {
    /// Reload when files change: those of the working folder, or of these files and folders [default: off]
    #[arg(long, value_name = "PATH,…", num_args = 0..=1, require_equals = true, default_missing_value = "on")]
    pub watch: Option<Watched>,

    /// Files and folders that do not count: names, globs or regular expressions; repeatable. What begins with a dot, `node_modules` and the app's own logs never count
    #[arg(long, value_name = "PATTERN", allow_hyphen_values = true)]
    #[serde(deserialize_with = "each", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "each_schema")]
    pub ignore_watch: Vec<Pattern>,

    /// How long nothing may change before the reload [default: 200ms]
    #[arg(long, value_name = "TIME")]
    pub watch_delay: Option<Time>,
}

/// What is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched {
    /// The working folder, or nothing.
    Folder(bool),
    /// These files and folders.
    Paths(Vec<String>),
}

impl FromStr for Watched {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "on" | "true" | "yes" => Ok(Self::Folder(true)),
            "off" | "false" | "no" => Ok(Self::Folder(false)),
            text => {
                let paths = text.split(',').map(str::trim).filter(|path| !path.is_empty());
                let paths: Vec<_> = paths.map(str::to_owned).collect();
                if paths.is_empty() {
                    Err("names no path".to_owned())
                } else {
                    Ok(Self::Paths(paths))
                }
            }
        }
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(on) => f.write_str(if *on { "on" } else { "off" }),
            Self::Paths(paths) => f.write_str(&paths.join(",")),
        }
    }
}

impl Serialize for Watched {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Folder(on) => to.serialize_bool(*on),
            Self::Paths(paths) => paths.serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for Watched {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Watched;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false, a path or a list of paths")
            }

            fn visit_bool<E: de::Error>(self, on: bool) -> Result<Watched, E> {
                Ok(Watched::Folder(on))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Watched, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Watched, A::Error> {
                let mut paths = Vec::new();
                while let Some(Scalar(path)) = list.next_element()? {
                    paths.push(path);
                }
                // An empty list, as it is left when everything was commented out, watches nothing.
                Ok(if paths.is_empty() { Watched::Folder(false) } else { Watched::Paths(paths) })
            }
        }
        from.deserialize_any(Either)
    }
}

impl JsonSchema for Watched {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Watched".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "oneOf": [
            { "type": "boolean" },
            { "type": "string" },
            { "type": "array", "items": { "type": "string" } }
        ] })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_watched_is_a_switch_or_paths() {
        let read = |value| serde_json::from_value::<Watched>(value).unwrap();
        let paths =
            |paths: &[&str]| Watched::Paths(paths.iter().map(|path| (*path).to_owned()).collect());
        assert_eq!(read(json!(true)), Watched::Folder(true));
        assert_eq!(read(json!("off")), Watched::Folder(false));
        assert_eq!(read(json!([])), Watched::Folder(false));
        assert_eq!(read(json!("src, lib")), paths(&["src", "lib"]));
        assert_eq!(read(json!(["a,b", "c"])), paths(&["a,b", "c"]));
        assert!(serde_json::from_value::<Watched>(json!(5)).is_err());
    }

    #[test]
    fn a_pattern_with_a_comma_is_one_pattern() {
        let read = |value| serde_json::from_value::<Watching>(json!({ "ignore_watch": value }));
        for value in [json!("*.{png,jpg}"), json!(["*.{png,jpg}"])] {
            assert_eq!(read(value).unwrap().ignore_watch, ["*.{png,jpg}".parse().unwrap()]);
        }
        assert!(read(json!(["("])).unwrap_err().to_string().contains("unclosed group"));
    }
}
