//! The report as one page with plots, which needs no network and no script.

use crate::contender::Contender;
use crate::failure::Result;
use crate::markdown;
use crate::plot::{self, Labels, Line};
use crate::report::Setting;
use crate::results::{Results, Section};

const STYLE: &str = "body{font:15px/1.45 sans-serif;margin:2em auto;max-width:76em;color:#222}\
pre{font:13px/1.35 monospace;overflow-x:auto;background:#f6f6f6;padding:1em}\
svg{margin:4px;border:1px solid #ddd}";

/// Starts and memory, as bars: case, metric, what is on the axis.
const BARS: [(Section, &str, &str, &str); 9] = [
    (Section::Rows, "startup1", "ms", "ms"),
    (Section::Rows, "startup20", "ms", "ms"),
    (Section::More, "exit1", "ms", "ms"),
    (Section::More, "exit20", "ms", "ms"),
    (Section::Rows, "memory_rss", "kib", "KiB"),
    (Section::Rows, "memory_anon", "kib", "KiB"),
    (Section::More, "memory20_rss", "kib", "KiB"),
    (Section::Rows, "memory_per_id", "bytes", "bytes"),
    (Section::Rows, "gofers50_pss", "kib", "KiB"),
];

/// The whole page.
pub(crate) fn page(
    setting: &Setting,
    results: &Results,
    contenders: &[Contender],
    ours: &str,
) -> Result<String> {
    let mut body = String::from("<h1>gofer, beside the Go gofers</h1>\n");
    for (title, plots) in [
        ("Latency", latencies(results, contenders)?),
        ("Start, end and memory", bars(results, contenders)?),
        ("Containers", containers(results, contenders)?),
        ("Growth", curves(results, contenders)?),
    ] {
        if !plots.is_empty() {
            body += &format!("<h2>{title}</h2>\n{}\n", plots.join("\n"));
        }
    }
    let tables = markdown::tables(setting, results, contenders, ours);
    body += &format!("<h2>Figures</h2>\n<pre>{}</pre>\n", escaped(&tables));
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>gofer: benchmark\
         </title><style>{STYLE}</style></head>\n<body>\n{body}</body></html>\n"
    ))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

fn latencies(results: &Results, contenders: &[Contender]) -> Result<Vec<String>> {
    let plot = |(case, by_contender): (&String, &std::collections::BTreeMap<_, Vec<f64>>)| {
        let line = |contender: &Contender| {
            let mut times = by_contender.get(&contender.name)?.clone();
            times.sort_by(f64::total_cmp);
            let count = times.len() as f64;
            let share = |at: usize| (at as f64 + 1.0) / count;
            let points = times.iter().enumerate().map(|(at, us)| (*us, share(at)));
            Some((contender.name.clone(), points.collect()))
        };
        let lines: Vec<(String, Vec<_>)> = contenders.iter().filter_map(line).collect();
        let labels = Labels {
            title: case,
            x: "µs",
            y: "share of requests",
        };
        plot::distribution(&labels, &borrowed(&lines))
    };
    results.distributions.iter().map(plot).collect()
}

fn borrowed(lines: &[(String, Vec<(f64, f64)>)]) -> Vec<Line<'_>> {
    let lines = lines.iter();
    lines
        .map(|(name, points)| (name.as_str(), points.clone()))
        .collect()
}

fn bars(results: &Results, contenders: &[Contender]) -> Result<Vec<String>> {
    let figures = BARS.iter().filter_map(|(section, case, metric, unit)| {
        Some((case, results.figure(*section, case, metric)?, unit))
    });
    figures
        .map(|(case, figure, unit)| {
            let value = |who: &'_ Contender| figure.value(&who.name);
            let values: Vec<(&str, f64)> = contenders
                .iter()
                .filter_map(|who| Some((who.name.as_str(), value(who)?)))
                .collect();
            let labels = Labels {
                title: case,
                x: "",
                y: unit,
            };
            plot::bars(&labels, &values)
        })
        .collect()
}

fn containers(results: &Results, contenders: &[Contender]) -> Result<Vec<String>> {
    let figures = results.figures.iter();
    figures
        .filter(|figure| figure.section == Section::EndToEnd)
        .map(|figure| {
            let values: Vec<(&str, f64)> = contenders
                .iter()
                .filter_map(|who| Some((who.name.as_str(), figure.value(&who.name)?)))
                .collect();
            let labels = Labels {
                title: &figure.case,
                x: "",
                y: "ms",
            };
            plot::bars(&labels, &values)
        })
        .collect()
}

fn curves(results: &Results, contenders: &[Contender]) -> Result<Vec<String>> {
    let curves = results.curves.iter();
    curves
        .map(|curve| {
            let line = |who: &Contender| {
                let points = curve.points.get(&who.name)?;
                Some((who.name.clone(), points.clone()))
            };
            let lines: Vec<_> = contenders.iter().filter_map(line).collect();
            let labels = Labels {
                title: &curve.case,
                x: curve.x,
                y: curve.y,
            };
            plot::curve(&labels, &borrowed(&lines))
        })
        .collect()
}
