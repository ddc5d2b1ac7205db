//! Numbers and what is said about them.

use std::time::Duration;

/// Times of a round that are kept for its distribution.
const QUANTILES: usize = 400;

/// The times of one case, one contender, one round.
#[derive(Debug, Default, Clone)]
pub(crate) struct Times {
    ns: Vec<u64>,
}

/// What one round says about one case, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) p99: f64,
    pub(crate) mean: f64,
    /// The server's time on a CPU per operation, if it was looked at.
    pub(crate) cpu: Option<f64>,
    pub(crate) count: usize,
}

impl Times {
    pub(crate) fn push(&mut self, time: Duration) {
        self.ns
            .push(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(crate) fn count(&self) -> usize {
        self.ns.len()
    }

    pub(crate) fn append(&mut self, other: &mut Self) {
        self.ns.append(&mut other.ns);
    }

    /// The longest, in microseconds.
    pub(crate) fn longest(&self) -> Option<f64> {
        self.ns.iter().max().map(|ns| *ns as f64 / 1000.0)
    }

    /// Evenly many of them in order, in microseconds.
    pub(crate) fn quantiles(&self) -> Vec<f64> {
        let mut sorted = self.ns.clone();
        sorted.sort_unstable();
        let kept = sorted.len().min(QUANTILES);
        (0..kept)
            .map(|at| sorted[at * sorted.len() / kept] as f64 / 1000.0)
            .collect()
    }

    /// None without a single time.
    pub(crate) fn summary(&self, cpu: Option<Duration>) -> Option<Summary> {
        let mut sorted = self.ns.clone();
        sorted.sort_unstable();
        let count = sorted.len();
        let sum: u64 = sorted.iter().sum();
        let us = |ns: u64| ns as f64 / 1000.0;
        let cpu = cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / count as f64);
        Some(Summary {
            median: us(*sorted.get(count / 2)?),
            p99: us(*sorted.get(count * 99 / 100)?),
            mean: us(sum) / count as f64,
            cpu,
            count,
        })
    }
}

/// The middle of some numbers; the mean of the middle two.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let high = *sorted.get(sorted.len() / 2)?;
    let low = *sorted.get(sorted.len().saturating_sub(1) / 2)?;
    Some(f64::midpoint(low, high))
}

/// A straight line through points: its slope, and the slope's standard error. None for fewer than
/// three points, or if all lie above each other.
pub(crate) fn slope(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x_mean, y_mean) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|(x, _)| (x - x_mean).powi(2)).sum();
    let common: f64 = points
        .iter()
        .map(|(x, y)| (x - x_mean) * (y - y_mean))
        .sum();
    if points.len() < 3 || spread == 0.0 {
        return None;
    }
    let slope = common / spread;
    let off = |(x, y): &(f64, f64)| (y - y_mean - slope * (x - x_mean)).powi(2);
    let left: f64 = points.iter().map(off).sum();
    Some((slope, (left / (count - 2.0) / spread).sqrt()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_count_lies_between_the_middle_two() {
        assert_eq!(median([4.0, 1.0, 2.0, 8.0]), Some(3.0));
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([]), None);
    }

    #[test]
    fn a_slope_is_exact_on_a_line_and_uncertain_beside_it() {
        let line: Vec<_> = (0..5)
            .map(|x| (f64::from(x), 3.0 + 2.0 * f64::from(x)))
            .collect();
        assert_eq!(slope(&line), Some((2.0, 0.0)));
        let (slope_, error) = slope(&[(0.0, 0.0), (1.0, 3.0), (2.0, 0.0)]).expect("three points");
        assert!(slope_.abs() < 1e-9 && error > 1.0, "{slope_} ± {error}");
        assert_eq!(slope(&line[..2]), None);
    }

    #[test]
    fn the_99th_percentile_of_a_hundred_times_is_the_slowest() {
        let mut times = Times::default();
        for ms in 1..=100 {
            times.push(Duration::from_millis(ms));
        }
        let summary = times.summary(Some(Duration::from_millis(1)));
        let expected = Summary {
            median: 51_000.0,
            p99: 100_000.0,
            mean: 50_500.0,
            cpu: Some(10.0),
            count: 100,
        };
        assert_eq!(summary, Some(expected));
        assert_eq!(Times::default().summary(None), None);
        assert_eq!(times.longest(), Some(100_000.0));
        assert_eq!(Times::default().longest(), None);
    }
}
