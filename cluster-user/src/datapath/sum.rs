//! Sums of what was counted, and what a histogram says.

use super::telemetry::{GroupTelemetry, Histogram, Telemetry};

/// Counters of a worker that only ever grow.
pub(super) const COUNTS: usize = 8;

impl Telemetry {
    /// Takes in what was counted for another one. Of what neither can count nothing is known.
    pub fn add(&mut self, other: &Self) {
        let Self {
            selected,
            accepted,
            live,
            queued,
            queued_peak,
            migrated_in,
            migrated_out,
            dropped,
            guarded,
            stalled,
            bytes_in,
            bytes_out,
            lifetime,
            wait,
            round_trip,
            missing,
        } = self;
        *selected = selected.saturating_add(other.selected);
        *migrated_in = migrated_in.saturating_add(other.migrated_in);
        for (sum, more) in [
            (accepted, other.accepted),
            (live, other.live),
            (queued, other.queued),
            (migrated_out, other.migrated_out),
            (dropped, other.dropped),
            (guarded, other.guarded),
            (bytes_in, other.bytes_in),
            (bytes_out, other.bytes_out),
        ] {
            *sum = both(*sum, more, u64::saturating_add);
        }
        // Not at the same time, so the largest is all that can be said.
        *queued_peak = both(*queued_peak, other.queued_peak, u64::max);
        if let Some(more) = other.stalled {
            *stalled = Some(more || stalled.unwrap_or_default());
        }
        for (sum, more) in
            [(lifetime, &other.lifetime), (wait, &other.wait), (round_trip, &other.round_trip)]
        {
            match (sum.as_mut(), more) {
                (Some(sum), Some(more)) => sum.add(more),
                (None, Some(more)) => *sum = Some(more.clone()),
                (Some(_) | None, None) => {}
            }
        }
        if missing.is_none() {
            missing.clone_from(&other.missing);
        }
    }

    /// Those counters that only ever grow, in an order that stays.
    pub fn counts(&self) -> [Option<u64>; COUNTS] {
        [
            Some(self.selected),
            self.accepted,
            Some(self.migrated_in),
            self.migrated_out,
            self.dropped,
            self.guarded,
            self.bytes_in,
            self.bytes_out,
        ]
    }

    /// Telemetry with those counters and nothing else.
    pub fn of_counts(counts: [Option<u64>; COUNTS]) -> Self {
        let [selected, accepted, migrated_in, migrated_out, dropped, guarded, bytes_in, bytes_out] =
            counts;
        Self {
            selected: selected.unwrap_or_default(),
            accepted,
            migrated_in: migrated_in.unwrap_or_default(),
            migrated_out,
            dropped,
            guarded,
            bytes_in,
            bytes_out,
            ..Self::default()
        }
    }
}

fn both(a: Option<u64>, b: Option<u64>, join: fn(u64, u64) -> u64) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(join(a, b)),
        (known, None) | (None, known) => known,
    }
}

impl GroupTelemetry {
    /// Takes in what was counted for another one.
    pub fn add(&mut self, other: &Self) {
        let Self { misses, waited, refused, shed, other: strays, hashed, unfollowed, runs } = self;
        for (sum, more) in [
            (misses, other.misses),
            (waited, other.waited),
            (refused, other.refused),
            (shed, other.shed),
            (strays, other.other),
            (hashed, other.hashed),
            (unfollowed, other.unfollowed),
        ] {
            *sum = sum.saturating_add(more);
        }
        *runs = match (*runs, other.runs) {
            (Some((runs, time)), Some((more, longer))) => {
                Some((runs.saturating_add(more), time.saturating_add(longer)))
            }
            (known, None) | (None, known) => known,
        };
    }
}

impl Histogram {
    /// Takes in the values of another one.
    pub fn add(&mut self, other: &Self) {
        if self.buckets.len() < other.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        for (sum, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *sum = sum.saturating_add(*more);
        }
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// How many values it has.
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// How many values are below 2^n, as far as the buckets tell them apart.
    pub fn below(&self, n: usize) -> u64 {
        // What is above all bounds is in the last bucket.
        let last = self.buckets.len().saturating_sub(1);
        let end = n.saturating_add(1).min(last);
        self.buckets[..end].iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The value that this share of the values, 0 to 1, does not exceed: spread evenly within a bucket, and the lower bound
    /// of the last one. `None` without values.
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = number(count) * share.clamp(0.0, 1.0);
        let mut before = 0.0;
        let last = self.buckets.len() - 1;
        for (n, bucket) in self.buckets.iter().enumerate() {
            let here = number(*bucket);
            if *bucket > 0 && before + here >= rank {
                let low = low(n);
                if n == 0 || n == last {
                    return Some(low);
                }
                return Some(low + part(low, (rank - before) / here));
            }
            before += here;
        }
        Some(low(last))
    }
}

/// The least value of a bucket.
fn low(n: usize) -> u64 {
    match u32::try_from(n) {
        Ok(0) | Err(_) => 0,
        Ok(n) => 1_u64.checked_shl(n - 1).unwrap_or(u64::MAX),
    }
}

#[expect(clippy::cast_precision_loss, clippy::as_conversions, reason = "it is an estimate")]
fn number(count: u64) -> f64 {
    count as f64
}

/// That share of a width.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::as_conversions,
    reason = "a share of a number is smaller than the number"
)]
fn part(width: u64, share: f64) -> u64 {
    (number(width) * share.clamp(0.0, 1.0)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_summed_and_what_is_not_stays_unknown() {
        let known = Telemetry {
            selected: 3,
            accepted: Some(2),
            queued_peak: Some(7),
            wait: Some(histogram(&[1, 2])),
            ..Telemetry::default()
        };
        let mut sum = Telemetry {
            selected: 1,
            queued_peak: Some(4),
            wait: Some(histogram(&[0, 1, 5])),
            ..Telemetry::default()
        };
        sum.add(&known);
        assert_eq!((sum.selected, sum.accepted, sum.dropped), (4, Some(2), None));
        assert_eq!(sum.queued_peak, Some(7), "they were not full at the same time");
        assert_eq!(sum.wait, Some(histogram(&[1, 3, 5])));
        assert_eq!(Telemetry::of_counts(sum.counts()).counts(), sum.counts());
    }

    #[test]
    fn groups_are_summed_too() {
        let one = GroupTelemetry { misses: 1, runs: Some((2, 30)), ..GroupTelemetry::default() };
        let mut sum = GroupTelemetry { waited: 5, runs: Some((1, 3)), ..GroupTelemetry::default() };
        sum.add(&one);
        let both = GroupTelemetry {
            misses: 1,
            waited: 5,
            runs: Some((3, 33)),
            ..GroupTelemetry::default()
        };
        assert_eq!(sum, both);
    }

    #[test]
    fn a_quantile_is_within_its_bucket() {
        assert_eq!(Histogram::default().quantile(0.5), None);
        let zeros = histogram(&[10, 0, 0]);
        assert_eq!(zeros.quantile(0.99), Some(0));
        // 90 values of 4 to 7, 10 of 64 to 127.
        let mixed = histogram(&[0, 0, 0, 90, 0, 0, 0, 10, 0]);
        assert_eq!(mixed.quantile(0.0), Some(4));
        assert!((4..8).contains(&mixed.quantile(0.5).unwrap()));
        assert!((64..128).contains(&mixed.quantile(0.95).unwrap()));
        let mut before = 0;
        for share in [0.0, 0.1, 0.5, 0.89, 0.9, 0.91, 0.99, 1.0] {
            let quantile = mixed.quantile(share).unwrap();
            assert!(quantile >= before, "{share}: {quantile}");
            before = quantile;
        }
        let beyond = histogram(&[0, 0, 5]);
        assert_eq!(beyond.quantile(0.5), Some(2), "nobody knows how far above");
    }

    #[test]
    fn what_is_below_a_bound_is_all_that_the_buckets_before_it_have() {
        let one = histogram(&[1, 2, 4, 8]);
        assert_eq!([0, 1, 2, 3, 9].map(|n| one.below(n)), [1, 3, 7, 7, 7]);
        assert_eq!(one.count(), 15);
        assert_eq!(Histogram::default().below(3), 0);
    }

    fn histogram(buckets: &[u64]) -> Histogram {
        Histogram { buckets: buckets.to_vec(), sum: 0 }
    }
}
