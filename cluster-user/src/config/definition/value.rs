//! Values as they are written: a text on the command line, and a text, a number or a switch in a file.

use std::{fmt, marker::PhantomData, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, SeqAccess, Visitor},
};

use crate::config::{duration, instances::Instances, signal::StopSignal, size, spec::ProbeTarget};

/// A length of time: `10s`, or a number of milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub Duration);

impl FromStr for Time {
    type Err = duration::DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        duration::parse(text).map(Self)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&duration::format(self.0))
    }
}

/// An amount of memory or of bytes on disk: `150M`, or a number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = size::SizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        size::parse(text).map(Self)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&size::format(self.0))
    }
}

/// Yes or no: `on`, `true`, `yes`, or `off`, `false`, `no`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch(pub bool);

impl FromStr for Switch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "on" | "true" | "yes" => Ok(Self(true)),
            "off" | "false" | "no" => Ok(Self(false)),
            _ => Err(format!(
                "`{}` is neither on nor off",
                text.escape_default().take(40).collect::<String>()
            )),
        }
    }
}

impl fmt::Display for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0 { "on" } else { "off" })
    }
}

/// Words of a command line: a text that is split as a shell would, or a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words(pub Vec<String>);

impl FromStr for Words {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        shell_words::split(text)
            .map(Self)
            .map_err(|_unclosed| "has a quote that is not closed".to_owned())
    }
}

impl Serialize for Words {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Words;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Words, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Words, A::Error> {
                let mut words = Vec::new();
                while let Some(Scalar(word)) = list.next_element()? {
                    words.push(word);
                }
                Ok(Words(words))
            }
        }
        from.deserialize_any(Either)
    }
}

impl JsonSchema for Words {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Words".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "oneOf": [
            { "type": "string" },
            { "type": "array", "items": { "type": ["string", "number"] } }
        ] })
    }
}

/// A text, or a number or a switch as a text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scalar(pub String);

impl Serialize for Scalar {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a number, true or false")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar(text.to_owned()))
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }
        }
        from.deserialize_any(Any)
    }
}

impl JsonSchema for Scalar {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Scalar".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "number", "boolean"] })
    }
}

/// Reads one of our own types from a text, a number or a switch.
///
/// # Errors
/// What the type says of what is not one of it.
pub fn scalar<'de, D: Deserializer<'de>, T: FromStr<Err: fmt::Display>>(
    from: D,
) -> Result<T, D::Error> {
    let Scalar(text) = Scalar::deserialize(from)?;
    text.parse().map_err(de::Error::custom)
}

/// Reads several from a list, from a text with commas, or from a single one.
///
/// # Errors
/// What the type says of what is not one of it.
pub fn several<'de, D: Deserializer<'de>, T: FromStr<Err: fmt::Display>>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    struct Any<T>(PhantomData<T>);
    impl<'de, T: FromStr<Err: fmt::Display>> Visitor<'de> for Any<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list, or a text with commas")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<T>, E> {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            parts.map(|part| part.parse().map_err(E::custom)).collect()
        }

        fn visit_i64<E: de::Error>(self, value: i64) -> Result<Vec<T>, E> {
            self.visit_str(&value.to_string())
        }

        fn visit_u64<E: de::Error>(self, value: u64) -> Result<Vec<T>, E> {
            self.visit_str(&value.to_string())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut values = Vec::new();
            while let Some(Scalar(text)) = list.next_element()? {
                values.push(text.parse().map_err(de::Error::custom)?);
            }
            Ok(values)
        }
    }
    from.deserialize_any(Any(PhantomData))
}

/// Reads a text that may be written as a number, such as a user id.
///
/// # Errors
/// When it is neither.
pub fn optional_text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<Scalar>::deserialize(from)?.map(|Scalar(text)| text))
}

/// Reads several from a list, or a single one, which may contain commas.
///
/// # Errors
/// What the type says of what is not one of it.
pub fn each<'de, D: Deserializer<'de>, T: FromStr<Err: fmt::Display>>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    struct Any<T>(PhantomData<T>);
    impl<'de, T: FromStr<Err: fmt::Display>> Visitor<'de> for Any<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text or a list of texts")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<T>, E> {
            Ok(vec![text.parse().map_err(E::custom)?])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut values = Vec::new();
            while let Some(Scalar(text)) = list.next_element()? {
                values.push(text.parse().map_err(de::Error::custom)?);
            }
            Ok(values)
        }
    }
    from.deserialize_any(Any(PhantomData))
}

/// Schema of what [`each`] reads.
pub fn each_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "oneOf": [
        { "type": "string" },
        { "type": "array", "items": { "type": "string" } }
    ] })
}

/// Schema of what [`several`] reads.
pub fn several_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "oneOf": [
        { "type": ["string", "number"] },
        { "type": "array", "items": { "type": ["string", "number"] } }
    ] })
}

/// A type that is written as one text, number or switch.
macro_rules! written {
    ($type:ty, $name:literal, $schema:tt) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                $crate::config::definition::value::scalar(from)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}
pub(super) use written;

written!(Time, "Time", { "type": ["string", "number"], "examples": ["500ms", "10s", "1m", 1600] });
written!(Size, "Size", { "type": ["string", "integer"], "examples": ["150M", "1G", "512K"] });
written!(Instances, "Instances", { "type": ["string", "integer"], "examples": [4, "max", -1] });
written!(StopSignal, "Signal", { "type": ["string", "integer"], "examples": ["SIGTERM", "SIGINT"] });

/// A switch is one in a file, too.
impl Serialize for Switch {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bool(self.0)
    }
}

impl<'de> Deserialize<'de> for Switch {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        scalar(from)
    }
}

impl JsonSchema for Switch {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Switch".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "boolean" })
    }
}

/// A probe as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question(pub ProbeTarget);

impl FromStr for Question {
    type Err = crate::config::probe::ProbeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        crate::config::probe::parse(text).map(Self)
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

written!(Question, "Probe", {
    "type": "string", "examples": ["http://:8080/health", "/health", "tcp", "./check.sh"]
});

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_number_and_a_text_mean_the_same() {
        let time = |value| serde_json::from_value::<Time>(value).unwrap().0.as_millis();
        assert_eq!([time(json!(1600)), time(json!("1600")), time(json!("1.6s"))], [1600; 3]);
        let error = serde_json::from_value::<Time>(json!([1])).unwrap_err().to_string();
        assert!(error.contains("expected a text, a number"), "{error}");
        let instances = |value| serde_json::from_value::<Instances>(value).unwrap();
        assert_eq!(instances(json!(-1)), Instances::PerCpuLess(1));
        assert_eq!(instances(json!("max")), Instances::PerCpu);
    }

    #[test]
    fn words_are_a_text_or_a_list() {
        let words = |value| serde_json::from_value::<Words>(value).unwrap().0;
        assert_eq!(words(json!("-p 80 'a b'")), ["-p", "80", "a b"]);
        assert_eq!(words(json!(["-p", 80, "a b"])), ["-p", "80", "a b"]);
        assert!(serde_json::from_value::<Words>(json!("'")).is_err());
    }

    #[test]
    fn several_are_a_list_a_text_with_commas_or_one() {
        let read = |value: serde_json::Value| several::<_, u16>(value);
        for value in [json!([80, "443"]), json!("80, 443"), json!("80,443,")] {
            assert_eq!(read(value).unwrap(), [80, 443]);
        }
        assert_eq!(read(json!(80)).unwrap(), [80]);
        assert!(read(json!({})).is_err());
    }

    #[test]
    fn a_switch_is_a_word_or_true_or_false() {
        for value in [json!(true), json!("on"), json!("yes"), json!("true")] {
            assert!(serde_json::from_value::<Switch>(value).unwrap().0);
        }
        assert!(serde_json::from_value::<Switch>(json!("maybe")).is_err());
    }
}
