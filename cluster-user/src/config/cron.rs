//! Times of cron: `0 3 * * *`, `*/30 * * * * *`, `@daily`, `CRON_TZ=Europe/Berlin 0 3 * * 1-5`.

use std::{fmt, str::FromStr, time::SystemTime};

use croner::parser::{CronParser, Seconds, Year};
use jiff::{Timestamp, Zoned, tz::TimeZone};
use serde::{Deserialize, Serialize};

/// Longest line, in bytes.
const LONGEST: usize = 512;

/// Variables that name a line's time zone before its fields, as crontabs have them.
const ZONE_PREFIXES: [&str; 2] = ["CRON_TZ=", "TZ="];

/// Times of cron that come, and the time zone they are meant in.
///
/// What was written down is taken as it is: a time zone that has gone since must not keep a daemon from reading its
/// journal. [`Cron::schedule`] says so then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cron {
    fields: String,
    /// That of the daemon when absent.
    #[serde(default)]
    zone: Option<String>,
}

impl Cron {
    /// A line, with or without its zone in front, and the zone that was given beside it, for which a line with its own
    /// has no use. Whether it ever comes is tried.
    ///
    /// # Errors
    /// When it is not understood, the zone is not known here, or it never comes.
    pub fn new(line: &str, zone: Option<&str>) -> Result<Self, CronError> {
        let short = || line.escape_default().take(60).collect::<String>();
        if line.len() > LONGEST {
            return Err(CronError::Line { line: short(), why: "it is too long".to_owned() });
        }
        let mut fields = line.trim();
        let mut zone = zone.map(str::to_owned);
        for prefix in ZONE_PREFIXES {
            if let Some(rest) = fields.strip_prefix(prefix) {
                let (own, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
                (fields, zone) = (rest.trim_start(), Some(own.to_owned()));
                break;
            }
        }
        let cron = Self { fields: fields.to_owned(), zone };
        match cron.schedule()?.after(SystemTime::now()) {
            Ok(_) => Ok(cron),
            Err(why) => Err(CronError::Never { line: short(), why }),
        }
    }

    /// The times, to be asked for.
    ///
    /// # Errors
    /// As [`Cron::new`], on another host, say.
    pub fn schedule(&self) -> Result<Schedule, CronError> {
        // A seventh field, years, is more than crontabs and PM2 know.
        let parser =
            CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let times = parser.parse(&self.fields).map_err(|error| CronError::Line {
            line: self.fields.escape_default().take(60).collect(),
            why: error.to_string().trim_end_matches('.').to_lowercase(),
        })?;
        let zone = match &self.zone {
            None => TimeZone::system(),
            Some(name) => TimeZone::get(name)
                .map_err(|_unknown| CronError::Zone(name.escape_default().take(60).collect()))?,
        };
        Ok(Schedule { times, zone })
    }
}

/// As it is typed: a line.
impl FromStr for Cron {
    type Err = CronError;

    fn from_str(line: &str) -> Result<Self, CronError> {
        Self::new(line, None)
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(zone) = &self.zone {
            write!(f, "CRON_TZ={zone} ")?;
        }
        f.write_str(&self.fields)
    }
}

/// Times that can be asked for.
#[derive(Clone, Debug)]
pub struct Schedule {
    times: croner::Cron,
    zone: TimeZone,
}

impl Schedule {
    /// The first time after a moment of the wall clock. Times in the hour that a change of clocks leaves out come at its
    /// end; those in the hour that comes twice come once, unless they come every hour.
    ///
    /// # Errors
    /// When there is none; a fragment.
    pub fn after(&self, moment: SystemTime) -> Result<SystemTime, String> {
        let moment = Timestamp::try_from(moment).map_err(|error| error.to_string())?;
        let moment = Zoned::new(moment, self.zone.clone());
        let next = self.times.find_next_occurrence(&moment, false);
        next.map(|next| next.timestamp().into()).map_err(|error| error.to_string().to_lowercase())
    }
}

/// Why a line is none of cron.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CronError {
    /// It is not understood.
    Line {
        /// The line.
        line: String,
        /// A fragment.
        why: String,
    },
    /// There is no such time zone.
    Zone(String),
    /// It never comes.
    Never {
        /// The line.
        line: String,
        /// A fragment.
        why: String,
    },
}

impl CronError {
    /// The next step.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Line { .. } => {
                "write minute, hour, day of month, month and day of week, such as '0 3 * * *', with the second before them if need be"
            }
            Self::Zone(_) => {
                "name one of /usr/share/zoneinfo, such as Europe/Berlin, and see that tzdata is installed"
            }
            Self::Never { .. } => "see that the month has such a day",
        }
    }
}

impl fmt::Display for CronError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { line, why } => write!(f, "`{line}` is no line of cron: {why}"),
            Self::Zone(zone) => write!(f, "there is no time zone `{zone}` on this host"),
            Self::Never { line, why } => write!(f, "`{line}` never comes: {why}"),
        }
    }
}

impl std::error::Error for CronError {}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn five_and_six_fields_and_names_are_understood() {
        for (line, from, next) in [
            ("0 3 * * *", "2026-11-21T14:00:00Z", "2026-11-22T03:00:00Z"),
            ("*/10 * * * * *", "2026-11-21T14:00:01Z", "2026-11-21T14:00:10Z"),
            ("*/15 9-17 * JAN mon-fri", "2026-11-21T14:00:00Z", "2027-01-01T09:00:00Z"),
            ("@daily", "2026-11-21T14:00:00Z", "2026-11-22T00:00:00Z"),
            ("0 0 29 2 *", "2026-11-21T14:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 12 L * *", "2026-11-21T14:00:00Z", "2026-11-30T12:00:00Z"),
            ("0 12 * * 7", "2026-11-21T14:00:00Z", "2026-11-22T12:00:00Z"),
        ] {
            assert_eq!(next_of(line, Some("UTC"), from), next, "{line}");
        }
    }

    #[test]
    fn a_zone_stands_before_the_line_or_beside_it() {
        let from = "2026-11-21T14:00:00Z";
        assert_eq!(next_of("CRON_TZ=Europe/Berlin 0 3 * * *", None, from), "2026-11-22T02:00:00Z");
        assert_eq!(next_of("0 3 * * *", Some("America/New_York"), from), "2026-11-22T08:00:00Z");
        assert_eq!(next_of("TZ=Asia/Tokyo 0 3 * * *", Some("UTC"), from), "2026-11-21T18:00:00Z");
        let shown = Cron::new("TZ=Asia/Tokyo  0 3 * * *", None).unwrap().to_string();
        assert_eq!(shown, "CRON_TZ=Asia/Tokyo 0 3 * * *");
        assert_eq!(shown.parse::<Cron>().unwrap().to_string(), shown);
        let kept = serde_json::to_string(&shown.parse::<Cron>().unwrap()).unwrap();
        assert_eq!(serde_json::from_str::<Cron>(&kept).unwrap().to_string(), shown);
    }

    #[test]
    fn an_hour_that_is_left_out_or_comes_twice_is_one_time() {
        // In Berlin 02:00 to 03:00 is left out on 2026-03-29, and comes twice on 2026-10-25.
        let berlin = Some("Europe/Berlin");
        assert_eq!(next_of("30 2 * * *", berlin, "2026-03-28T12:00:00Z"), "2026-03-29T01:00:00Z");
        assert_eq!(next_of("30 2 * * *", berlin, "2026-03-29T01:00:00Z"), "2026-03-30T00:30:00Z");
        assert_eq!(next_of("30 2 * * *", berlin, "2026-10-24T12:00:00Z"), "2026-10-25T00:30:00Z");
        assert_eq!(next_of("30 2 * * *", berlin, "2026-10-25T00:30:00Z"), "2026-10-26T01:30:00Z");
    }

    #[test]
    fn a_line_that_never_comes_or_is_none_is_refused_with_a_reason() {
        let began = Instant::now();
        let never = Cron::new("0 0 30 2 *", None).unwrap_err();
        assert!(matches!(never, CronError::Never { .. }), "{never}");
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        for line in [
            "",
            "* * * *",
            "61 * * * *",
            "* * * * * * *",
            "x y z a b",
            "@never",
            "TZ=UTC",
            "CRON_TZ=",
        ] {
            let error = Cron::new(line, None).unwrap_err();
            assert!(matches!(error, CronError::Line { .. }), "{line}: {error}");
        }
        let error = Cron::new("* * * * *", Some("Europe/Atlantis")).unwrap_err();
        assert_eq!(error.to_string(), "there is no time zone `Europe/Atlantis` on this host");
        assert!(Cron::new(&"*".repeat(10_000), None).unwrap_err().to_string().len() < 200);
    }

    fn next_of(line: &str, zone: Option<&str>, from: &str) -> String {
        let from: Timestamp = from.parse().unwrap();
        let next = Cron::new(line, zone).unwrap().schedule().unwrap().after(from.into()).unwrap();
        Timestamp::try_from(next).unwrap().to_string()
    }
}
