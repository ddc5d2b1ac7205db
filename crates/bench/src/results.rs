//! What was measured, by section, case, metric and contender; medians over rounds.

use std::collections::BTreeMap;

use crate::sample::{Summary, Times, median};

/// The one metric of which more is better: operations per second.
pub(crate) const RATE: &str = "rate";

/// Where a figure belongs in the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    /// The cases every run has.
    Rows,
    /// The same requests, the client never sleeping.
    Spinning,
    /// Several channels at once.
    Load,
    /// Containers, started by `runsc`.
    EndToEnd,
    /// What grows, and how fast.
    Growth,
    /// The cases again, on a disk's file system.
    Ext4,
    /// Everything else.
    More,
}

/// One figure of all contenders.
#[derive(Debug)]
pub(crate) struct Figure {
    pub(crate) section: Section,
    pub(crate) case: String,
    pub(crate) metric: &'static str,
    pub(crate) unit: &'static str,
    /// By contender: a value for each round.
    values: BTreeMap<String, Vec<f64>>,
    limit: Vec<f64>,
}

/// Which figure is meant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key<'k> {
    pub(crate) section: Section,
    pub(crate) case: &'k str,
    pub(crate) metric: &'static str,
    pub(crate) unit: &'static str,
}

/// One thing that is measured at several sizes of another.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Curve {
    pub(crate) case: String,
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
    /// By contender: size and what was measured there, all rounds taken together.
    pub(crate) points: BTreeMap<String, Vec<(f64, f64)>>,
}

#[derive(Debug, Default)]
pub(crate) struct Results {
    /// In the order in which they were first seen.
    pub(crate) figures: Vec<Figure>,
    /// Operations timed, by case and contender.
    pub(crate) samples: BTreeMap<String, BTreeMap<String, usize>>,
    /// Times of operations by case and contender, in microseconds: some quantiles of each round.
    pub(crate) distributions: BTreeMap<String, BTreeMap<String, Vec<f64>>>,
    /// What grows with what.
    pub(crate) curves: Vec<Curve>,
    /// What the figures were made with, beyond what the report always says.
    pub(crate) settings: Vec<String>,
    /// What could not be measured, and why.
    pub(crate) notes: Vec<String>,
}

impl Figure {
    /// The median over rounds.
    pub(crate) fn value(&self, contender: &str) -> Option<f64> {
        median(self.values.get(contender)?.iter().copied())
    }

    pub(crate) fn limit(&self) -> Option<f64> {
        median(self.limit.iter().copied())
    }

    /// Is more better? Of everything else, less is.
    fn more_is_better(&self) -> bool {
        self.metric == RATE
    }

    /// The best value of the others.
    pub(crate) fn best_peer(&self, ours: &str) -> Option<f64> {
        let peers = self.values.keys().filter(|name| *name != ours);
        let better = if self.more_is_better() {
            f64::max
        } else {
            f64::min
        };
        peers.filter_map(|name| self.value(name)).reduce(better)
    }

    fn ratio_of(&self, ours: f64, peer: f64) -> f64 {
        if self.more_is_better() {
            ours / peer
        } else {
            peer / ours
        }
    }

    /// How many times better we are than the best peer; below 1, worse. None where nothing was
    /// used by anybody, and of slopes, which may be next to nothing.
    pub(crate) fn ratio(&self, ours: &str) -> Option<f64> {
        if self.section == Section::Growth {
            return None;
        }
        let ratio = self.ratio_of(self.value(ours)?, self.best_peer(ours)?);
        ratio.is_finite().then_some(ratio)
    }

    /// How far the ratios of single rounds lie from their median, in the median: what a ratio is
    /// uncertain by.
    pub(crate) fn noise(&self, ours: &str) -> Option<f64> {
        let own = self.values.get(ours)?;
        let (_, theirs) = self.values.iter().find(|(name, _)| *name != ours)?;
        let rounds = own.iter().zip(theirs);
        let ratios: Vec<f64> = rounds
            .map(|(own, theirs)| self.ratio_of(*own, *theirs))
            .collect();
        let middle = median(ratios.iter().copied())?;
        median(ratios.iter().map(|ratio| (ratio - middle).abs()))
    }

    /// The lowest such ratio of any round, against whoever was best in it.
    pub(crate) fn worst_round(&self, ours: &str) -> Option<f64> {
        let own = self.values.get(ours)?;
        let peers = self.values.iter().filter(|(name, _)| *name != ours);
        let ratios = peers.flat_map(|(_, theirs)| {
            let rounds = own.iter().zip(theirs);
            rounds.map(|(own, theirs)| self.ratio_of(*own, *theirs))
        });
        ratios.reduce(f64::min)
    }
}

impl Results {
    pub(crate) fn figure(&self, section: Section, case: &str, metric: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| {
            (figure.section, figure.case.as_str(), figure.metric) == (section, case, metric)
        })
    }

    fn entry(&mut self, key: Key<'_>) -> &mut Figure {
        let Key {
            section,
            case,
            metric,
            unit,
        } = key;
        let same = |figure: &Figure| {
            (figure.section, figure.case.as_str(), figure.metric) == (section, case, metric)
        };
        let at = self.figures.iter().position(same).unwrap_or_else(|| {
            self.figures.push(Figure {
                section,
                case: case.to_owned(),
                metric,
                unit,
                values: BTreeMap::new(),
                limit: Vec::new(),
            });
            self.figures.len() - 1
        });
        &mut self.figures[at]
    }

    pub(crate) fn add(&mut self, key: Key<'_>, contender: &str, value: f64) {
        let values = &mut self.entry(key).values;
        values.entry(contender.to_owned()).or_default().push(value);
    }

    pub(crate) fn add_limit(&mut self, key: Key<'_>, value: f64) {
        self.entry(key).limit.push(value);
    }

    pub(crate) fn add_summary(
        &mut self,
        section: Section,
        case: &str,
        contender: &str,
        summary: &Summary,
    ) {
        let figures = [
            ("median", Some(summary.median)),
            ("p99", Some(summary.p99)),
            ("mean", Some(summary.mean)),
            ("cpu", summary.cpu),
        ];
        for (metric, value) in figures {
            if let Some(value) = value {
                let key = Key {
                    section,
                    case,
                    metric,
                    unit: "µs",
                };
                self.add(key, contender, value);
            }
        }
        self.count(case, contender, summary.count);
    }

    /// What the limit's process took for a case.
    pub(crate) fn add_limits(&mut self, section: Section, case: &str, summary: &Summary) {
        for (metric, value) in [
            ("median", summary.median),
            ("p99", summary.p99),
            ("mean", summary.mean),
        ] {
            let key = Key {
                section,
                case,
                metric,
                unit: "µs",
            };
            self.add_limit(key, value);
        }
        self.count(case, "limit", summary.count);
    }

    pub(crate) fn count(&mut self, case: &str, contender: &str, count: usize) {
        let by_contender = self.samples.entry(case.to_owned()).or_default();
        *by_contender.entry(contender.to_owned()).or_default() += count;
    }

    /// Keeps how the times of one round were spread.
    pub(crate) fn spread(&mut self, case: &str, contender: &str, times: &Times) {
        let by_contender = self.distributions.entry(case.to_owned()).or_default();
        let kept = by_contender.entry(contender.to_owned()).or_default();
        kept.extend(times.quantiles());
    }

    /// Remembers once that something could not be measured.
    pub(crate) fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            eprintln!("bench: not measured: {note}");
            self.notes.push(note);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(metric: &'static str, ours: &[f64], peers: [&[f64]; 2]) -> Results {
        let mut results = Results::default();
        let key = Key {
            section: Section::Rows,
            case: "case",
            metric,
            unit: "",
        };
        for (name, values) in [("ours", ours), ("old", peers[0]), ("new", peers[1])] {
            for value in values {
                results.add(key, name, *value);
            }
        }
        results
    }

    #[test]
    fn a_ratio_above_one_is_better_whether_less_or_more_is_wanted() {
        let times = figure("median", &[2.0, 2.0], [&[8.0, 6.0], &[4.0, 4.0]]);
        assert_eq!(times.figures[0].ratio("ours"), Some(2.0));
        let rates = figure(RATE, &[8.0], [&[2.0], &[4.0]]);
        assert_eq!(rates.figures[0].ratio("ours"), Some(2.0));
    }

    #[test]
    fn the_worst_round_is_found_whoever_was_best_in_it() {
        let times = figure("median", &[2.0, 4.0], [&[8.0, 3.0], &[4.0, 8.0]]);
        assert_eq!(times.figures[0].worst_round("ours"), Some(0.75));
    }
}
