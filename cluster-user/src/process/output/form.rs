//! What a line looks like in a file: as it was written, with a time before it, or as JSON.

use jiff::{Timestamp, Zoned, tz::TimeZone};
use serde::Serialize;

use super::Kind;
use crate::{
    config::{
        date_format::DateFormat,
        spec::logs::{Logs, Shape},
    },
    id::Instance,
};

/// What is made of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Nothing.
    Raw,
    /// The time and `: ` go before it.
    Stamped(DateFormat),
    /// It becomes a JSON object.
    Json { app: String, instance: Instance, stamp: Option<DateFormat> },
}

/// What is written before and after each line that arrived at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Frame {
    before: Vec<u8>,
    after: Vec<u8>,
    quoted: bool,
}

#[derive(Serialize)]
struct Rest<'a> {
    timestamp: String,
    r#type: &'a str,
    process_id: Instance,
    app_name: &'a str,
}

impl Form {
    /// As the definition of an app says.
    pub(super) fn of(logs: &Logs, app: &str, instance: Instance) -> Self {
        match (logs.shape, &logs.date_format) {
            (Shape::Raw, None) => Self::Raw,
            (Shape::Raw, Some(format)) => Self::Stamped(format.clone()),
            (Shape::Json, stamp) => {
                Self::Json { app: app.to_owned(), instance, stamp: stamp.clone() }
            }
        }
    }

    /// What goes around lines that arrive now.
    pub(super) fn frame(&self, kind: Kind) -> Frame {
        match self {
            Self::Raw => Frame { before: Vec::new(), after: b"\n".to_vec(), quoted: false },
            Self::Stamped(format) => Frame {
                before: format!("{}: ", format.write(&now())).into_bytes(),
                after: b"\n".to_vec(),
                quoted: false,
            },
            Self::Json { .. } => {
                let word = match kind {
                    Kind::Out => "out",
                    Kind::Error => "err",
                };
                self.json(word)
            }
        }
    }

    /// What the capture itself has to say, in this form.
    pub(super) fn notice(&self, text: &str) -> Vec<u8> {
        let mut line = Vec::new();
        let frame = match self {
            Self::Raw | Self::Stamped(_) => self.frame(Kind::Error),
            Self::Json { .. } => self.json("cluster"),
        };
        frame.put(text.as_bytes(), &mut line);
        line
    }

    fn json(&self, word: &str) -> Frame {
        let Self::Json { app, instance, stamp } = self else { return Frame::default() };
        let timestamp = match stamp {
            Some(format) => format.write(&now()),
            None => Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
        };
        let rest = Rest { timestamp, r#type: word, process_id: *instance, app_name: app };
        let mut after = b",".to_vec();
        let text = serde_json::to_vec(&rest).unwrap_or_default();
        after.extend_from_slice(text.strip_prefix(b"{").unwrap_or_default());
        after.push(b'\n');
        Frame { before: br#"{"message":"#.to_vec(), after, quoted: true }
    }
}

impl Frame {
    /// Adds a line, given without its end.
    pub(super) fn put(&self, line: &[u8], to: &mut Vec<u8>) {
        to.extend_from_slice(&self.before);
        if self.quoted {
            // Writing to memory does not fail.
            serde_json::to_writer(&mut *to, &*String::from_utf8_lossy(line)).unwrap_or_default();
        } else {
            to.extend_from_slice(line);
        }
        to.extend_from_slice(&self.after);
    }
}

/// In the host's time zone; in UTC where that is unknown.
fn now() -> Zoned {
    Timestamp::now().to_zoned(TimeZone::try_system().unwrap_or(TimeZone::UTC))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn put(form: &Form, line: &[u8]) -> String {
        let mut to = Vec::new();
        form.frame(Kind::Error).put(line, &mut to);
        String::from_utf8(to).unwrap()
    }

    #[test]
    fn a_line_gets_the_time_before_it() {
        let form = Form::Stamped("[at] YYYY".parse().unwrap());
        let line = put(&form, b"hello");
        assert!(line.starts_with("at 2") && line.ends_with(": hello\n"), "{line}");
        assert_eq!(put(&Form::Raw, b"hello"), "hello\n");
    }

    #[test]
    fn a_line_becomes_an_object_with_the_keys_of_pm2() {
        let stamp = None;
        let form = Form::Json { app: "my \"app\"".to_owned(), instance: Instance(3), stamp };
        let line = put(&form, b"say \"hi\" \x01\xff\r");
        assert_eq!(line.matches('\n').count(), 1);
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["message"], "say \"hi\" \u{1}\u{fffd}\r");
        assert_eq!(value["type"], "err");
        assert_eq!(value["process_id"], 3);
        assert_eq!(value["app_name"], "my \"app\"");
        let timestamp = value["timestamp"].as_str().unwrap();
        assert!(timestamp.parse::<Timestamp>().is_ok(), "{timestamp}");
        let notice: Value = serde_json::from_slice(&form.notice("[cluster] lost")).unwrap();
        assert_eq!(
            (&notice["type"], &notice["message"]),
            (&"cluster".into(), &"[cluster] lost".into())
        );
    }
}
