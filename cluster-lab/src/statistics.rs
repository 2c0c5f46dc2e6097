//! What can be said of a few runs: means, and how sure they are.

/// Two-sided 95 % quantiles of Student's distribution by degrees of freedom, from 1 on.
const STUDENT: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
];
/// The same for any more of them.
const NORMAL: f64 = 1.960;

/// A value, and where it lies with 95 % confidence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The estimate.
    pub value: f64,
    /// The least it may be.
    pub low: f64,
    /// The most it may be.
    pub high: f64,
}

impl Interval {
    /// Whether a value is outside.
    pub fn excludes(&self, value: f64) -> bool {
        value < self.low || value > self.high
    }
}

/// The mean of some values; `None` for none. Of a single one nothing is known: its interval is everything.
pub fn mean(values: &[f64]) -> Option<Interval> {
    let (value, variance) = moments(values)?;
    let count = values.len() as f64;
    let half = match variance {
        Some(variance) => student(count - 1.0) * (variance / count).sqrt(),
        None => f64::INFINITY,
    };
    Some(Interval { value, low: value - half, high: value + half })
}

/// How many times larger the second of each pair is, as a geometric mean: what belongs to a seed cancels out.
pub fn paired_ratio(pairs: &[(f64, f64)]) -> Option<Interval> {
    let logs: Vec<f64> =
        pairs.iter().filter(|(a, b)| *a > 0.0 && *b > 0.0).map(|(a, b)| (b / a).ln()).collect();
    mean(&logs).map(exp)
}

/// The same of values that have no partners, by Welch's approximation.
pub fn ratio(a: &[f64], b: &[f64]) -> Option<Interval> {
    let logs = |values: &[f64]| -> Vec<f64> {
        values.iter().filter(|value| **value > 0.0).map(|value| value.ln()).collect()
    };
    difference(&logs(a), &logs(b)).map(exp)
}

/// How much larger the second of each pair is.
pub fn paired_difference(pairs: &[(f64, f64)]) -> Option<Interval> {
    let differences: Vec<f64> = pairs.iter().map(|(a, b)| b - a).collect();
    mean(&differences)
}

/// The same of values that have no partners, by Welch's approximation.
pub fn difference(a: &[f64], b: &[f64]) -> Option<Interval> {
    let ((mean_a, variance_a), (mean_b, variance_b)) = (moments(a)?, moments(b)?);
    let value = mean_b - mean_a;
    let half = match (variance_a, variance_b) {
        (Some(variance_a), Some(variance_b)) => {
            let (count_a, count_b) = (a.len() as f64, b.len() as f64);
            let (part_a, part_b) = (variance_a / count_a, variance_b / count_b);
            let both = part_a + part_b;
            let below = part_a.powi(2) / (count_a - 1.0) + part_b.powi(2) / (count_b - 1.0);
            if below > 0.0 { student(both.powi(2) / below) * both.sqrt() } else { 0.0 }
        }
        (None, _) | (_, None) => f64::INFINITY,
    };
    Some(Interval { value, low: value - half, high: value + half })
}

/// The mean, and the variance if there are two values.
fn moments(values: &[f64]) -> Option<(f64, Option<f64>)> {
    let count = values.len() as f64;
    if values.is_empty() {
        return None;
    }
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((mean, (values.len() > 1).then(|| squares / (count - 1.0))))
}

fn student(freedom: f64) -> f64 {
    // Fewer degrees of freedom than there are are the careful side.
    let at = freedom.floor().max(1.0) as usize - 1;
    STUDENT.get(at).copied().unwrap_or(NORMAL)
}

fn exp(it: Interval) -> Interval {
    Interval { value: it.value.exp(), low: it.low.exp(), high: it.high.exp() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_a_mean_is_that_of_the_textbook() {
        let interval = mean(&[4.0, 5.0, 6.0]).unwrap();
        // 4.303 * 1 / sqrt(3)
        assert!((interval.high - 7.484).abs() < 1e-3, "{interval:?}");
        assert!(!interval.excludes(5.0) && interval.excludes(8.0));
    }

    #[test]
    fn one_value_proves_nothing() {
        assert!(!mean(&[4.0]).unwrap().excludes(1e9));
        assert!(!ratio(&[1.0], &[100.0]).unwrap().excludes(1.0));
        assert!(mean(&[]).is_none());
    }

    #[test]
    fn pairs_show_what_seeds_hide() {
        let (a, b) = ([10.0, 20.0, 40.0], [9.0, 18.2, 35.8]);
        let pairs: Vec<(f64, f64)> = a.into_iter().zip(b).collect();
        assert!(paired_ratio(&pairs).unwrap().excludes(1.0));
        assert!(!ratio(&a, &b).unwrap().excludes(1.0));
    }
}
