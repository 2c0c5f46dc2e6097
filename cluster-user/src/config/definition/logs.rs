//! What becomes of output.

use std::{fmt, str::FromStr, time::Duration};

use clap::Args;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_with::skip_serializing_none;

use super::value::{Switch, written};
use crate::config::{
    date_format::DateFormat,
    duration, size,
    spec::logs::{Service, Shape},
};

/// What becomes of output.
#[skip_serializing_none]
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[command(next_help_heading = "Logs")]
#[expect(clippy::struct_field_names, reason = "the names are those that PM2 has")]
pub struct Logs {
    /// File for standard output, or NULL [default: NAME-out-N.log in the daemon's folder]
    #[arg(short = 'o', long, value_name = "FILE", visible_alias = "output")]
    pub out_file: Option<String>,

    /// File for standard error, or NULL [default: NAME-error-N.log in the daemon's folder]
    #[arg(short = 'e', long, value_name = "FILE", visible_alias = "error")]
    pub error_file: Option<String>,

    /// File that gets both besides
    #[arg(short = 'l', long, value_name = "FILE", visible_alias = "log")]
    pub log_file: Option<String>,

    /// All workers write to the same files, instead of each to its own
    #[arg(
        long,
        value_name = "on|off",
        visible_alias = "combine-logs",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "on"
    )]
    pub merge_logs: Option<Switch>,

    /// Time before each line, such as `YYYY-MM-DD HH:mm:ss.SSS Z`
    #[arg(long, value_name = "FORMAT")]
    pub log_date_format: Option<DateFormat>,

    /// The same as --log-date-format YYYY-MM-DDTHH:mm:ss
    #[arg(long, value_name = "on|off", num_args = 0..=1, require_equals = true, default_missing_value = "on")]
    pub time: Option<Switch>,

    /// Lines as they are, or as JSON: {message, timestamp, type, `process_id`, `app_name`} [default: raw]
    #[arg(long, value_name = "raw|json")]
    pub log_type: Option<Shape>,

    /// Keep no output
    #[arg(long, value_name = "on|off", num_args = 0..=1, require_equals = true, default_missing_value = "on")]
    pub disable_logs: Option<Switch>,

    /// Where output goes: file, journald, syslog, or file and one of them [default: file]
    #[arg(long, value_name = "WHERE")]
    pub log_to: Option<LogTo>,

    /// A file of this size is rotated; off for never [default: 10M]
    #[arg(long, value_name = "SIZE")]
    pub log_max_size: Option<MaxSize>,

    /// A file that was begun this long ago is rotated; off for never [default: 7d]
    #[arg(long, value_name = "TIME")]
    pub log_max_age: Option<MaxAge>,

    /// How many rotated files are kept of each [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=MOST_KEPT))]
    pub log_keep: Option<u32>,

    /// Whether rotated files are compressed, soon after [default: on]
    #[arg(long, value_name = "on|off")]
    pub log_compress: Option<Switch>,
}

/// More rotated files than this would take long to be renamed.
pub const MOST_KEPT: i64 = 1000;
/// A file that is smaller is rotated all the time.
const LEAST_SIZE: u64 = 1024;
/// A file that is younger is not rotated: it is looked at each second.
const LEAST_AGE: Duration = Duration::from_secs(1);

/// A size at which files are rotated, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxSize(pub Option<u64>);

/// An age at which files are rotated, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxAge(pub Option<Duration>);

/// Where output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogTo {
    /// To files.
    pub file: bool,
    /// To a log service.
    pub service: Option<Service>,
}

fn is_off(text: &str) -> bool {
    matches!(text, "off" | "0" | "false" | "no")
}

impl FromStr for MaxSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if is_off(text) {
            return Ok(Self(None));
        }
        let bytes = size::parse(text).map_err(|error| error.to_string())?;
        if bytes < LEAST_SIZE {
            return Err(format!("{bytes} bytes are too few for a file: at least 1K, or off"));
        }
        Ok(Self(Some(bytes)))
    }
}

impl fmt::Display for MaxSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.map_or_else(|| "off".to_owned(), size::format))
    }
}

impl FromStr for MaxAge {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if is_off(text) {
            return Ok(Self(None));
        }
        let age = duration::parse(text).map_err(|error| error.to_string())?;
        if age < LEAST_AGE {
            return Err(format!(
                "{} is too short for a file: at least 1s, or off",
                duration::format(age)
            ));
        }
        Ok(Self(Some(age)))
    }
}

impl fmt::Display for MaxAge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.map_or_else(|| "off".to_owned(), duration::format))
    }
}

impl FromStr for LogTo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut to = Self { file: false, service: None };
        for word in text.split(',').map(str::trim) {
            let service = match word {
                "file" => {
                    to.file = true;
                    continue;
                }
                "journald" | "journal" => Service::Journald,
                "syslog" => Service::Syslog,
                _ => {
                    let word: String = word.escape_default().take(40).collect();
                    return Err(format!("`{word}` is no place for logs: file, journald or syslog"));
                }
            };
            if to.service.is_some_and(|other| other != service) {
                return Err("journald and syslog are one too many: journald can pass on what it gets to syslog".to_owned());
            }
            to.service = Some(service);
        }
        Ok(to)
    }
}

impl fmt::Display for LogTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let service = self.service.map(|service| match service {
            Service::Journald => "journald",
            Service::Syslog => "syslog",
        });
        let words: Vec<_> = self.file.then_some("file").into_iter().chain(service).collect();
        f.write_str(&words.join(","))
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "raw" => Ok(Self::Raw),
            "json" => Ok(Self::Json),
            _ => {
                let text: String = text.escape_default().take(40).collect();
                Err(format!("`{text}` is neither raw nor json"))
            }
        }
    }
}

written!(MaxSize, "LogSize", { "type": ["string", "integer", "boolean"], "examples": ["10M", "1G", "off"] });
written!(MaxAge, "LogAge", { "type": ["string", "integer", "boolean"], "examples": ["1d", "12h", "off"] });
written!(LogTo, "LogTo", { "type": "string", "examples": ["file", "journald", "syslog", "file,journald"] });

impl JsonSchema for Shape {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "LogType".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "enum": ["raw", "json"] })
    }
}

impl JsonSchema for DateFormat {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "DateFormat".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "examples": ["YYYY-MM-DD HH:mm:ss.SSS Z"] })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_off_is_no_limit() {
        let logs = json!({ "log_max_size": false, "log_max_age": "off", "log_to": "file, syslog" });
        let logs: Logs = serde_json::from_value(logs).unwrap();
        assert_eq!(logs.log_max_size, Some(MaxSize(None)));
        assert_eq!(logs.log_max_age, Some(MaxAge(None)));
        assert_eq!(logs.log_to, Some(LogTo { file: true, service: Some(Service::Syslog) }));
        assert_eq!(logs.log_to.unwrap().to_string(), "file,syslog");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!("12".parse::<MaxSize>().unwrap_err().contains("too few"));
        assert!("10ms".parse::<MaxAge>().unwrap_err().contains("too short"));
        assert!("journald,syslog".parse::<LogTo>().unwrap_err().contains("one too many"));
        assert!("kafka".parse::<LogTo>().unwrap_err().contains("`kafka` is no place"));
        assert!("xml".parse::<Shape>().unwrap_err().contains("neither"));
    }
}
