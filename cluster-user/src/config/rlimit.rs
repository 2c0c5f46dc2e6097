//! Limits of a process (`setrlimit(2)`): `nofile=65536`, `core=unlimited`, `stack=8M:64M`.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::size;

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rlimit {
    /// Address space, bytes.
    As,
    /// Size of core dumps, bytes.
    Core,
    /// CPU time, seconds.
    Cpu,
    /// Data segment, bytes.
    Data,
    /// Size of files, bytes.
    Fsize,
    /// Memory that is locked, bytes.
    Memlock,
    /// POSIX message queues, bytes.
    Msgqueue,
    /// Niceness that may be reached, as 20 less it.
    Nice,
    /// Open descriptors, and one more.
    Nofile,
    /// Processes of the user.
    Nproc,
    /// Realtime priority that may be reached.
    Rtprio,
    /// CPU time of realtime scheduling without a pause, microseconds.
    Rttime,
    /// Signals that are queued.
    Sigpending,
    /// Stack, bytes.
    Stack,
}

impl Rlimit {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::As,
        Self::Core,
        Self::Cpu,
        Self::Data,
        Self::Fsize,
        Self::Memlock,
        Self::Msgqueue,
        Self::Nice,
        Self::Nofile,
        Self::Nproc,
        Self::Rtprio,
        Self::Rttime,
        Self::Sigpending,
        Self::Stack,
    ];

    /// As it is written: the kernel's name in small letters.
    pub fn name(self) -> &'static str {
        match self {
            Self::As => "as",
            Self::Core => "core",
            Self::Cpu => "cpu",
            Self::Data => "data",
            Self::Fsize => "fsize",
            Self::Memlock => "memlock",
            Self::Msgqueue => "msgqueue",
            Self::Nice => "nice",
            Self::Nofile => "nofile",
            Self::Nproc => "nproc",
            Self::Rtprio => "rtprio",
            Self::Rttime => "rttime",
            Self::Sigpending => "sigpending",
            Self::Stack => "stack",
        }
    }
}

impl fmt::Display for Rlimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Rlimit {
    type Err = RlimitError;

    fn from_str(text: &str) -> Result<Self, RlimitError> {
        let lower = text.to_ascii_lowercase();
        // As systemd and the kernel's headers have it, too.
        let plain = lower.strip_prefix("rlimit_").or_else(|| lower.strip_prefix("limit"));
        let plain = plain.unwrap_or(&lower);
        Self::ALL.into_iter().find(|known| known.name() == plain).ok_or_else(|| {
            let distance = |known: &Self| strsim::damerau_levenshtein(known.name(), plain);
            let nearest =
                Self::ALL.into_iter().min_by_key(distance).filter(|near| distance(near) <= 2);
            let text = text.escape_default().take(40).collect();
            RlimitError::Unknown { text, nearest }
        })
    }
}

/// How much of it: the soft limit, and the hard one that it may be raised to. `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Limit {
    /// What holds.
    pub soft: Option<u64>,
    /// How far the process may raise that.
    pub hard: Option<u64>,
}

impl FromStr for Limit {
    type Err = RlimitError;

    fn from_str(text: &str) -> Result<Self, RlimitError> {
        let (soft, hard) = text.split_once(':').unwrap_or((text, text));
        let one = |part: &str| match part.trim() {
            "unlimited" | "infinity" | "-1" => Ok(None),
            part => size::parse(part)
                .map(Some)
                .map_err(|_no_size| RlimitError::Value(text.escape_default().take(40).collect())),
        };
        let (soft, hard) = (one(soft)?, one(hard)?);
        if soft.unwrap_or(u64::MAX) > hard.unwrap_or(u64::MAX) {
            return Err(RlimitError::Value(text.escape_default().take(40).collect()));
        }
        Ok(Self { soft, hard })
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one =
            |value: Option<u64>| value.map_or("unlimited".to_owned(), |value| value.to_string());
        f.write_str(&one(self.soft))?;
        if self.soft == self.hard { Ok(()) } else { write!(f, ":{}", one(self.hard)) }
    }
}

impl TryFrom<String> for Limit {
    type Error = RlimitError;

    fn try_from(text: String) -> Result<Self, RlimitError> {
        text.parse()
    }
}

impl From<Limit> for String {
    fn from(limit: Limit) -> Self {
        limit.to_string()
    }
}

/// Reads `nofile=65536`.
///
/// # Errors
/// When either side of the equals sign is not understood, or there is none.
pub fn parse(text: &str) -> Result<(Rlimit, Limit), RlimitError> {
    let (name, limit) = text
        .split_once('=')
        .ok_or_else(|| RlimitError::Form(text.escape_default().take(40).collect()))?;
    Ok((name.trim().parse()?, limit.parse()?))
}

/// Why something is no limit of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RlimitError {
    /// It has no equals sign.
    Form(String),
    /// There is no limit of that name.
    Unknown {
        /// What was written.
        text: String,
        /// What may have been meant.
        nearest: Option<Rlimit>,
    },
    /// It is no number.
    Value(String),
}

impl fmt::Display for RlimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form(text) => write!(f, "`{text}` is not of the form NAME=LIMIT"),
            Self::Unknown { text, nearest: Some(nearest) } => {
                write!(f, "there is no limit `{text}`; is `{nearest}` meant?")
            }
            Self::Unknown { text, nearest: None } => {
                let names: Vec<_> = Rlimit::ALL.iter().map(|limit| limit.name()).collect();
                write!(f, "there is no limit `{text}`, but {}", names.join(", "))
            }
            Self::Value(text) => write!(
                f,
                "`{text}` is no limit: expected a number, a size, `unlimited`, or SOFT:HARD with the soft one not above the hard one"
            ),
        }
    }
}

impl std::error::Error for RlimitError {}

/// Limits by their names.
pub type Rlimits = BTreeMap<Rlimit, Limit>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_has_a_name_and_one_or_two_numbers() {
        for (text, shown) in [
            ("nofile=65536", "nofile=65536"),
            ("core=unlimited", "core=unlimited"),
            ("STACK=8K:64K", "stack=8192:65536"),
            ("LimitNOFILE=10:unlimited", "nofile=10:unlimited"),
            ("RLIMIT_NPROC=infinity", "nproc=unlimited"),
        ] {
            let (name, limit) = parse(text).unwrap();
            assert_eq!(format!("{name}={limit}"), shown);
        }
    }

    #[test]
    fn what_is_no_limit_is_refused_with_the_nearest_name() {
        let error = parse("nofiles=1").unwrap_err().to_string();
        assert_eq!(error, "there is no limit `nofiles`; is `nofile` meant?");
        assert!(parse("bandwidth=1").unwrap_err().to_string().contains("as, core, cpu"));
        for text in
            ["nofile", "nofile=", "nofile=x", "nofile=10:5", "nofile=unlimited:5", "nofile=1:2:3"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
