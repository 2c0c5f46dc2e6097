//! Schedule: which moves are made when; the same seed makes the same ones.

use std::{fmt, time::Duration};

use clap::ValueEnum;

/// Kinds of moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum What {
    /// New workers for old ones, in batches of each size
    Reload,
    /// A reload that stops at a share, then goes on or back
    Canary,
    /// A reload of an app that was broken; it has to come to nothing
    Deploy,
    /// More workers, or fewer
    Scale,
    /// Stop and start
    Restart,
    /// The daemon hands over to the next one
    Upgrade,
    /// SIGKILL for a worker
    Kill,
    /// SIGSTOP for a worker, and SIGCONT a little later
    Freeze,
    /// SIGKILL for the daemon
    Daemon,
}

/// How an app is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It ends at once.
    Crash,
    /// It runs and never listens.
    Silent,
    /// It serves, and ends after 100 ms.
    Leaves,
    /// It serves another port.
    OtherPort,
}

/// A move, and all that was drawn for it. Apps are numbers in the list of apps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Move {
    Reload {
        app: usize,
        options: Vec<&'static str>,
    },
    Canary {
        app: usize,
        share: &'static str,
        wait: Duration,
        promotes: bool,
    },
    Deploy {
        app: usize,
        fault: Fault,
    },
    Scale {
        app: usize,
        to: u32,
    },
    Restart {
        app: usize,
    },
    Upgrade,
    /// The worker is a number that is taken modulo how many there are then.
    Kill {
        app: usize,
        worker: usize,
    },
    Freeze {
        app: usize,
        worker: usize,
        time: Duration,
    },
    Daemon {
        pause: Duration,
    },
}

/// When a move is due, from the beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) due: Duration,
    pub(super) step: Move,
}

/// Moves that operators make and those that fate makes, each in turn but the two beside each other: most of
/// what goes wrong does so while something else is under way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Schedule {
    pub(super) operator: Vec<Planned>,
    pub(super) fate: Vec<Planned>,
}

const BATCHES: [&[&str]; 6] = [
    &[],
    &["--batch", "1"],
    &["--batch", "2"],
    &["--batch", "50%"],
    &["--batch", "100%"],
    &["--batch", "2", "--soak", "300ms"],
];
const SHARES: [&str; 3] = ["5%", "1/16", "50%"];
const FAULTS: [Fault; 4] = [Fault::Crash, Fault::Leaves, Fault::OtherPort, Fault::Silent];

/// How long after one move the next one is due, in milliseconds.
const GAP: std::ops::Range<u64> = 300..2_500;

impl Schedule {
    /// Moves of these kinds within this time, on these apps: the workers each of them starts with.
    pub(super) fn new(seed: u64, time: Duration, kinds: &[What], apps: &[u32]) -> Self {
        let lane = |salt: u64, is_ours: fn(What) -> bool| {
            let mut numbers = fastrand::Rng::with_seed(seed.wrapping_mul(2).wrapping_add(salt));
            let kinds: Vec<What> = kinds.iter().copied().filter(|what| is_ours(*what)).collect();
            lane(&mut numbers, time, &kinds, apps)
        };
        Self { operator: lane(0, |what| !what.is_fate()), fate: lane(1, What::is_fate) }
    }
}

fn lane(numbers: &mut fastrand::Rng, time: Duration, kinds: &[What], apps: &[u32]) -> Vec<Planned> {
    let (mut planned, mut due) = (Vec::new(), Duration::ZERO);
    // Dealt like cards: a short run has each kind before any kind comes again.
    let mut deck: Vec<What> = Vec::new();
    while !kinds.is_empty() {
        due += Duration::from_millis(numbers.u64(GAP));
        if due >= time {
            break;
        }
        if deck.is_empty() {
            deck = kinds.to_vec();
            numbers.shuffle(&mut deck);
        }
        let Some(what) = deck.pop() else { break };
        planned.push(Planned { due, step: draw(numbers, what, apps) });
    }
    planned
}

fn draw(numbers: &mut fastrand::Rng, what: What, apps: &[u32]) -> Move {
    let any = numbers.usize(0..apps.len());
    let several: Vec<usize> = (0..apps.len()).filter(|app| apps[*app] > 1).collect();
    let one_of_several =
        several.get(numbers.usize(0..several.len().max(1))).copied().unwrap_or(any);
    let milliseconds = |numbers: &mut fastrand::Rng, range: std::ops::Range<u64>| {
        Duration::from_millis(numbers.u64(range))
    };
    match what {
        What::Reload => {
            Move::Reload { app: any, options: BATCHES[numbers.usize(0..BATCHES.len())].to_vec() }
        }
        What::Canary => Move::Canary {
            app: one_of_several,
            share: SHARES[numbers.usize(0..SHARES.len())],
            wait: milliseconds(numbers, 200..1_500),
            promotes: numbers.bool(),
        },
        What::Deploy => Move::Deploy { app: any, fault: FAULTS[numbers.usize(0..FAULTS.len())] },
        What::Scale => Move::Scale { app: one_of_several, to: numbers.u32(2..=6) },
        What::Restart => Move::Restart { app: one_of_several },
        What::Upgrade => Move::Upgrade,
        What::Kill => Move::Kill { app: any, worker: numbers.usize(0..1_000) },
        What::Freeze => Move::Freeze {
            app: any,
            worker: numbers.usize(0..1_000),
            time: milliseconds(numbers, 50..1_500),
        },
        What::Daemon => Move::Daemon { pause: milliseconds(numbers, 0..1_000) },
    }
}

impl What {
    /// Whether it happens to operators instead of being done by them.
    fn is_fate(self) -> bool {
        match self {
            Self::Kill | Self::Freeze | Self::Daemon => true,
            Self::Reload
            | Self::Canary
            | Self::Deploy
            | Self::Scale
            | Self::Restart
            | Self::Upgrade => false,
        }
    }
}

impl Move {
    /// The app it is about, if it is about one.
    pub(super) fn app(&self) -> Option<usize> {
        match self {
            Self::Reload { app, .. }
            | Self::Canary { app, .. }
            | Self::Deploy { app, .. }
            | Self::Scale { app, .. }
            | Self::Restart { app }
            | Self::Kill { app, .. }
            | Self::Freeze { app, .. } => Some(*app),
            Self::Upgrade | Self::Daemon { .. } => None,
        }
    }
}

impl fmt::Display for Move {
    /// Without the name of the app.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reload { options, .. } if options.is_empty() => f.write_str("reload"),
            Self::Reload { options, .. } => write!(f, "reload {}", options.join(" ")),
            Self::Canary { share, wait, promotes, .. } => {
                let then = if *promotes { "promote" } else { "rollback" };
                write!(f, "reload --canary {share}, {then} after {} ms", wait.as_millis())
            }
            Self::Deploy { fault, .. } => write!(f, "deploy of a version that {fault}"),
            Self::Scale { to, .. } => write!(f, "scale to {to}"),
            Self::Restart { .. } => f.write_str("restart"),
            Self::Upgrade => f.write_str("upgrade of the daemon"),
            Self::Kill { .. } => f.write_str("kill -9 of a worker"),
            Self::Freeze { time, .. } => write!(f, "freeze a worker for {} ms", time.as_millis()),
            Self::Daemon { .. } => f.write_str("kill -9 of the daemon"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Crash => "crashes at boot",
            Self::Silent => "never listens",
            Self::Leaves => "ends after 100 ms",
            Self::OtherPort => "listens on another port",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const APPS: [u32; 4] = [4, 4, 4, 1];

    #[test]
    fn the_same_seed_makes_the_same_schedule() {
        assert_eq!(schedule(7, 60), schedule(7, 60));
        assert_ne!(schedule(7, 60), schedule(8, 60));
    }

    #[test]
    fn a_shorter_run_is_the_beginning_of_a_longer_one() {
        let (short, long) = (schedule(7, 20), schedule(7, 60));
        assert!(long.operator.starts_with(&short.operator));
        assert!(long.fate.starts_with(&short.fate));
    }

    #[test]
    fn every_kind_comes_before_any_comes_again() {
        let all = schedule(7, 60);
        let kinds = |lane: &[Planned]| {
            lane.iter().map(|planned| std::mem::discriminant(&planned.step)).collect::<Vec<_>>()
        };
        let (mut operator, mut fate) = (kinds(&all.operator), kinds(&all.fate));
        operator.truncate(6);
        fate.truncate(3);
        for (at, kind) in operator.iter().enumerate() {
            assert!(!operator[..at].contains(kind));
        }
        for (at, kind) in fate.iter().enumerate() {
            assert!(!fate[..at].contains(kind));
        }
    }

    #[test]
    fn an_app_with_one_worker_is_not_scaled_or_restarted() {
        let all = schedule(7, 600);
        let one = all.operator.iter().filter(|planned| planned.step.app() == Some(3));
        for planned in one {
            assert!(
                matches!(planned.step, Move::Reload { .. } | Move::Deploy { .. }),
                "{:?}",
                planned.step
            );
        }
    }

    #[test]
    fn what_is_left_out_does_not_come() {
        let schedule = Schedule::new(1, Duration::from_mins(1), &[What::Kill], &APPS);
        assert!(schedule.operator.is_empty());
        assert!(schedule.fate.iter().all(|planned| matches!(planned.step, Move::Kill { .. })));
        assert!(!schedule.fate.is_empty());
    }

    fn schedule(seed: u64, seconds: u64) -> Schedule {
        Schedule::new(seed, Duration::from_secs(seconds), What::value_variants(), &APPS)
    }
}
