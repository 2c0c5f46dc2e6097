//! Signals as typed: `TERM`, `SIGTERM`, `15`.

use std::{fmt, str::FromStr};

use nix::sys::signal::Signal;

/// Highest number of a signal: real-time signals end there (kernel: `_NSIG`).
pub const MAX: i32 = 64;

/// A signal that asks a worker to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopSignal(pub i32);

impl StopSignal {
    /// The default. PM2 sends SIGINT; everything else on Linux (systemd, Docker, Kubernetes) sends this.
    pub const TERM: Self = Self(15);
}

impl FromStr for StopSignal {
    type Err = SignalError;

    fn from_str(text: &str) -> Result<Self, SignalError> {
        if let Ok(number) = text.parse::<i32>() {
            return Some(Self(number))
                .filter(|signal| (1..=MAX).contains(&signal.0))
                .ok_or_else(|| SignalError::new(text));
        }
        let upper = text.to_ascii_uppercase();
        let full = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
        Signal::from_str(&full)
            .map(|signal| Self(signal as i32))
            .map_err(|_unknown| SignalError::new(text))
    }
}

impl fmt::Display for StopSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Signal::try_from(self.0) {
            Ok(signal) => f.write_str(signal.as_str()),
            Err(_real_time) => write!(f, "signal {}", self.0),
        }
    }
}

/// Not a signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignalError(String);

impl SignalError {
    fn new(text: &str) -> Self {
        Self(text.escape_default().take(40).collect())
    }
}

impl fmt::Display for SignalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is no signal: expected a name such as TERM or SIGINT, or a number up to {MAX}",
            self.0
        )
    }
}

impl std::error::Error for SignalError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_has_a_short_name_a_long_name_and_a_number() {
        for text in ["TERM", "SIGTERM", "term", "sigterm", "15"] {
            assert_eq!(text.parse::<StopSignal>().unwrap(), StopSignal::TERM, "{text}");
        }
        assert_eq!("34".parse::<StopSignal>().unwrap().to_string(), "signal 34");
        assert_eq!("USR2".parse::<StopSignal>().unwrap().to_string(), "SIGUSR2");
    }

    #[test]
    fn what_is_no_signal_is_refused() {
        for text in ["", "0", "65", "-9", "SIGNOPE", "SIG", "TERM ", "1.5"] {
            assert!(text.parse::<StopSignal>().is_err(), "{text}");
        }
    }
}
