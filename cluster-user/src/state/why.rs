//! Why a worker ends other than by being asked to, and in which words a user hears of it.

use std::{fmt, net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};

use super::event::Exit;
use crate::config::spec::millis;

/// Why a worker ended, or is being ended. Shown, it is a fragment that completes "worker 0 …".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// It could not be spawned.
    NotSpawned(String),
    /// It listened nowhere in time.
    NotListening {
        /// From spawn.
        #[serde(with = "millis")]
        within: Duration,
    },
    /// It gave no sign in time that it is ready.
    NotReady {
        /// Which sign, as in "did not …".
        sign: String,
        /// From spawn.
        #[serde(with = "millis")]
        within: Duration,
    },
    /// Its readiness probe did not succeed in time.
    ProbeFailed {
        /// What the last attempt said.
        last: String,
        /// From spawn.
        #[serde(with = "millis")]
        within: Duration,
    },
    /// A new version does not listen where the one before it does.
    Elsewhere {
        /// What the one before it serves.
        missing: SocketAddr,
        /// Where it listens instead.
        instead: Vec<SocketAddr>,
    },
    /// Its socket cannot be served.
    CannotServe {
        /// Where it listens.
        address: SocketAddr,
        /// Why not.
        cause: String,
    },
    /// It listens with a socket that no group can take.
    Unusable(String),
    /// Its liveness probe failed.
    Unhealthy {
        /// How often in a row.
        times: u32,
        /// What the last attempt said.
        last: String,
    },
    /// It did not say `WATCHDOG=1` in time.
    Silent {
        /// How long it may be silent.
        #[serde(with = "millis")]
        watchdog: Duration,
    },
    /// Its main process ended.
    Exited {
        /// How.
        exit: Exit,
        /// From spawn.
        #[serde(with = "millis")]
        after: Duration,
    },
    /// Connections wait for new workers while the old ones keep up.
    Congested {
        /// Connections that wait for each new worker.
        new: u32,
        /// And for each old one.
        old: u32,
    },
}

impl Why {
    /// What a shell would say that it exited with, if it did so by itself.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Exited { exit: Exit::Code(code), .. } => Some(*code),
            Self::Exited { exit: Exit::Signal(signal), .. } => Some(128 + signal),
            Self::Exited { exit: Exit::Unknown, .. }
            | Self::NotSpawned(_)
            | Self::NotListening { .. }
            | Self::NotReady { .. }
            | Self::ProbeFailed { .. }
            | Self::Elsewhere { .. }
            | Self::CannotServe { .. }
            | Self::Unusable(_)
            | Self::Unhealthy { .. }
            | Self::Silent { .. }
            | Self::Congested { .. } => None,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSpawned(reason) | Self::Unusable(reason) => f.write_str(reason),
            Self::NotListening { within } => {
                write!(f, "did not listen within {}", Words(*within))
            }
            Self::NotReady { sign, within } => {
                write!(f, "did not {sign} within {}", Words(*within))
            }
            Self::ProbeFailed { last, within } => {
                write!(f, "did not pass its probe within {}: {last}", Words(*within))
            }
            Self::Elsewhere { missing, instead } => {
                write!(f, "does not listen on {missing}, which is being served")?;
                let mut before = ", but on ";
                for address in instead {
                    write!(f, "{before}{address}")?;
                    before = " and ";
                }
                Ok(())
            }
            Self::CannotServe { address, cause } => write!(f, "cannot serve {address}: {cause}"),
            Self::Unhealthy { times, last } => {
                write!(f, "failed its liveness probe {times} times: {last}")
            }
            Self::Silent { watchdog } => {
                write!(f, "did not say WATCHDOG=1 for {}", Words(*watchdog))
            }
            Self::Exited { exit: Exit::Code(code), after } => {
                write!(f, "exited with code {code} after {}", Words(*after))
            }
            Self::Exited { exit: Exit::Signal(signal), after } => {
                write!(f, "killed by {} after {}", signal_name(*signal), Words(*after))
            }
            Self::Exited { exit: Exit::Unknown, after } => {
                write!(f, "ended after {} while no daemon was there to see how", Words(*after))
            }
            Self::Congested { new, old } => write!(
                f,
                "lets connections wait: {new} of them, where {old} wait for a worker of the old generation"
            ),
        }
    }
}

/// A duration in words.
struct Words(Duration);

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_millis() {
            millis @ 0..1000 => write!(f, "{millis} ms"),
            _ => write!(f, "{:.1} s", self.0.as_secs_f64()),
        }
    }
}

fn signal_name(number: i32) -> String {
    nix::sys::signal::Signal::try_from(number)
        .map_or_else(|_| format!("signal {number}"), |signal| signal.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_completes_a_sentence() {
        let after = Duration::from_millis(1500);
        for (why, words) in [
            (Why::Exited { exit: Exit::Code(3), after }, "exited with code 3 after 1.5 s"),
            (Why::Exited { exit: Exit::Signal(9), after }, "killed by SIGKILL after 1.5 s"),
            (
                Why::Elsewhere {
                    missing: "0.0.0.0:80".parse().unwrap(),
                    instead: vec!["0.0.0.0:81".parse().unwrap(), "[::]:82".parse().unwrap()],
                },
                "does not listen on 0.0.0.0:80, which is being served, but on 0.0.0.0:81 and [::]:82",
            ),
            (
                Why::NotListening { within: Duration::from_millis(20) },
                "did not listen within 20 ms",
            ),
        ] {
            assert_eq!(why.to_string(), words);
        }
    }
}
