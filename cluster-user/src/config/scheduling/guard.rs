//! A guard as a text: `on`, `off`, or what is different from the usual one: `stalled=20ms,heartbeat=1s`.

use std::{fmt, str::FromStr, time::Duration};

use super::{
    Guard,
    text::{SchedulingError, once, refused, short},
};
use crate::config::{duration, nearest::nearest};

const KEYS: [&str; 4] = ["stalled", "heartbeat", "queue", "slow-start"];

impl FromStr for Guard {
    type Err = SchedulingError;

    fn from_str(text: &str) -> Result<Self, SchedulingError> {
        let mut guard = match text.trim() {
            "on" | "true" | "yes" => return Ok(Self::default()),
            "off" | "false" | "no" => return Ok(Self::OFF),
            "" => return refused("guard is empty: expected on, off, or keys such as queue=100"),
            _ => Self::default(),
        };
        let words = text.split([',', ' ']).filter(|word| !word.is_empty());
        let mut given = Vec::new();
        for word in words {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            let key = key.replace('_', "-");
            if let Some(known) = KEYS.iter().find(|known| **known == key) {
                once(&mut given, "guard: ", known)?;
            }
            match key.as_str() {
                "stalled" => guard.stalled = time(&key, value)?,
                "heartbeat" => guard.heartbeat = Some(time(&key, value)?),
                "slow-start" => guard.slow_start = time(&key, value)?,
                "queue" => guard.queue = length(value)?,
                _ => {
                    let near = nearest(&key, KEYS);
                    let next = near.map_or_else(
                        || format!("it has {}", KEYS.join(", ")),
                        |near| format!("is `{near}` meant?"),
                    );
                    return refused(format!("guard has no key `{}`; {next}", short(&key)));
                }
            }
        }
        Ok(guard)
    }
}

fn time(key: &str, value: &str) -> Result<Duration, SchedulingError> {
    if value == "off" {
        return Ok(Duration::ZERO);
    }
    duration::parse(value).map_err(|error| SchedulingError(format!("guard: {key}: {error}")))
}

fn length(value: &str) -> Result<Option<u32>, SchedulingError> {
    match value.parse() {
        Ok(length @ 1..) => Ok(Some(length)),
        Err(_) if value == "off" => Ok(None),
        Ok(0) | Err(_) => refused(format!(
            "guard: queue is `{}`: expected a number of connections, 1 or more, or off",
            short(value)
        )),
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usual = Self::default();
        if *self == usual {
            return f.write_str("on");
        }
        if *self == Self::OFF {
            return f.write_str("off");
        }
        let time =
            |time: Duration| if time.is_zero() { "off".to_owned() } else { duration::format(time) };
        let mut keys = Vec::new();
        if self.stalled != usual.stalled {
            keys.push(format!("stalled={}", time(self.stalled)));
        }
        if let Some(heartbeat) = self.heartbeat {
            keys.push(format!("heartbeat={}", time(heartbeat)));
        }
        if let Some(queue) = self.queue {
            keys.push(format!("queue={queue}"));
        }
        if self.slow_start != usual.slow_start {
            keys.push(format!("slow-start={}", time(self.slow_start)));
        }
        f.write_str(&keys.join(","))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_guard_is_on_off_or_what_is_different() {
        let guard = |text: &str| text.parse::<Guard>().unwrap();
        assert_eq!(guard("on"), Guard::default());
        assert_eq!(guard("off"), Guard::OFF);
        let all = guard("stalled=20ms,heartbeat=1s,queue=100, slow_start=10s");
        assert_eq!(
            (all.stalled.as_millis(), all.queue, all.slow_start.as_secs()),
            (20, Some(100), 10)
        );
        assert_eq!(all.heartbeat, Some(Duration::from_secs(1)));
        assert_eq!(all.to_string(), "stalled=20ms,heartbeat=1s,queue=100,slow-start=10s");
        assert_eq!(guard("stalled=off heartbeat=off"), Guard::OFF);
        assert_eq!(guard("stalled=off").to_string(), "stalled=off");
        assert_eq!(guard("queue=5").stalled, Guard::default().stalled);
    }

    #[test]
    fn silence_is_borne_as_long_as_is_said_or_as_the_watchdog_allows() {
        let silence = |text: &str, watchdog: Option<u64>| {
            let silence = text.parse::<Guard>().unwrap().silence(watchdog.map(Duration::from_secs));
            silence.map(|silence| silence.as_millis())
        };
        assert_eq!(silence("on", Some(2)), Some(1500));
        assert_eq!(silence("on", None), None, "nobody is expected to speak");
        assert_eq!(silence("heartbeat=1s", None), Some(1000));
        assert_eq!(silence("heartbeat=1s", Some(20)), Some(1000));
        assert_eq!(silence("heartbeat=off", Some(2)), None);
        assert_eq!(silence("off", Some(2)), None);
    }

    #[test]
    fn what_is_no_guard_is_refused() {
        for (text, expected) in [
            ("", "guard is empty"),
            ("maybe", "guard has no key `maybe`; it has stalled, heartbeat, queue, slow-start"),
            ("queu=1", "is `queue` meant?"),
            ("queue=0", "queue is `0`: expected a number of connections, 1 or more"),
            ("queue", "queue is ``"),
            ("queue=1,stalled=9ms,queue=2", "guard: queue is given twice"),
            ("slow-start=1s slow_start=2s", "guard: slow-start is given twice"),
            ("hartbeat=1s", "is `heartbeat` meant?"),
            ("heartbeat", "guard: heartbeat: `` is no duration"),
            ("stalled=soon", "guard: stalled: `soon` is no duration"),
            ("slow-start=400d", "up to a year"),
        ] {
            let error = text.parse::<Guard>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            stalled in 0..100_000u64,
            heartbeat in prop::option::of(0..100_000u64),
            queue in prop::option::of(1..u32::MAX),
            slow in 0..100_000u64,
        ) {
            let (stalled, slow_start) = (Duration::from_millis(stalled), Duration::from_millis(slow));
            let heartbeat = heartbeat.map(Duration::from_millis);
            let guard = Guard { stalled, heartbeat, queue, slow_start };
            prop_assert_eq!(guard.to_string().parse::<Guard>().unwrap(), guard);
        }
    }
}
