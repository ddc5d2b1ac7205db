//! What was measured, by section, case, metric and contender; medians over rounds.

use std::collections::BTreeMap;

use crate::sample::{Summary, median};

/// Where a figure belongs in the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    /// The cases every run has.
    Rows,
    /// The same requests, the client never sleeping.
    Spinning,
    /// Several channels at once.
    Load,
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

#[derive(Debug, Default)]
pub(crate) struct Results {
    /// In the order in which they were first seen.
    pub(crate) figures: Vec<Figure>,
    /// Operations timed, by case and contender.
    pub(crate) samples: BTreeMap<String, BTreeMap<String, usize>>,
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

    /// The lowest value of the others.
    pub(crate) fn best_peer(&self, ours: &str) -> Option<f64> {
        let peers = self.values.keys().filter(|name| *name != ours);
        peers.filter_map(|name| self.value(name)).reduce(f64::min)
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

    pub(crate) fn count(&mut self, case: &str, contender: &str, count: usize) {
        let by_contender = self.samples.entry(case.to_owned()).or_default();
        *by_contender.entry(contender.to_owned()).or_default() += count;
    }

    /// Remembers once that something could not be measured.
    pub(crate) fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            eprintln!("bench: not measured: {note}");
            self.notes.push(note);
        }
    }
}
