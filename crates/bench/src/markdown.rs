//! The tables for `docs/performance.md`: between two markers, so that what people write stays.

use std::fmt::Write as _;

use crate::aims::{self, Verdict};
use crate::contender::Contender;
use crate::failure::Result;
use crate::report::{SECTIONS, Setting, shown};
use crate::results::{Figure, Results};

const BEGIN: &str = "<!-- bench: begin -->";
const END: &str = "<!-- bench: end -->";

/// The page with what lies between its markers replaced.
pub(crate) fn replaced(page: &str, tables: &str) -> Result<String> {
    let form = || format!("the page has no line {BEGIN} with a line {END} after it");
    let (before, rest) = page.split_once(BEGIN).ok_or_else(form)?;
    let (_, after) = rest.split_once(END).ok_or_else(form)?;
    Ok(format!("{before}{BEGIN}\n{tables}\n{END}{after}"))
}

/// Everything that was measured.
pub(crate) fn tables(
    setting: &Setting,
    results: &Results,
    contenders: &[Contender],
    ours: &str,
) -> String {
    let mut text = String::new();
    let write = &mut text;
    settings(write, setting, results, contenders);
    verdicts(write, &aims::verdicts(results, ours));
    if !results.notes.is_empty() {
        line(write, "\n### Not measured\n");
        for note in &results.notes {
            line(write, &format!("- {note}"));
        }
    }
    for (section, _, title) in SECTIONS {
        let in_section = |figure: &&Figure| figure.section == section;
        let figures: Vec<&Figure> = results.figures.iter().filter(in_section).collect();
        if !figures.is_empty() {
            line(write, &format!("\n### {title}\n"));
            table(write, &figures, contenders, ours);
        }
    }
    curves(write, results, contenders);
    samples(write, results);
    text.trim().to_owned()
}

fn line(text: &mut String, line: &str) {
    // A string takes all that is written to it.
    _ = writeln!(text, "{line}");
}

fn settings(text: &mut String, setting: &Setting, results: &Results, contenders: &[Contender]) {
    let peers: Vec<&str> = contenders[1..]
        .iter()
        .map(|peer| peer.name.as_str())
        .collect();
    let mut rows = vec![
        ("Machine", setting.machine.clone()),
        ("Kernel", setting.kernel.clone()),
        ("Commit", format!("`{}`", setting.commit)),
        ("Date", setting.date.clone()),
        ("Served tree", setting.tree.clone()),
        ("Peers", peers.join(", ")),
        ("Load average", setting.load.clone()),
    ];
    rows.extend(results.settings.iter().map(|more| ("Also", more.clone())));
    line(text, "| | |\n|---|---|");
    for (name, value) in rows {
        line(text, &format!("| {name} | {value} |"));
    }
}

fn verdicts(text: &mut String, verdicts: &[Verdict]) {
    if verdicts.is_empty() {
        return;
    }
    line(text, "\n### Aims\n");
    line(
        text,
        "Ratios against the best Go gofer of the run; above 1 is better than it.\n",
    );
    line(
        text,
        "| case | metric | wanted | measured | |\n|---|---|---|---|---|",
    );
    for verdict in verdicts {
        let Verdict {
            case,
            metric,
            bound,
            wanted,
            measured,
            ..
        } = verdict;
        let outcome = verdict.outcome();
        line(
            text,
            &format!("| {case} | {metric} | {bound} {wanted} | {measured:.2} | {outcome} |"),
        );
    }
}

fn table(text: &mut String, figures: &[&Figure], contenders: &[Contender], ours: &str) {
    let names: Vec<&str> = contenders.iter().map(|who| who.name.as_str()).collect();
    line(
        text,
        &format!(
            "| case | metric | unit | {} | ratio | limit |",
            names.join(" | ")
        ),
    );
    line(
        text,
        &format!("|---|---|---|{}---|---|", "---|".repeat(names.len())),
    );
    for figure in figures {
        let values: Vec<String> = names.iter().map(|name| shown(figure.value(name))).collect();
        line(
            text,
            &format!(
                "| {} | {} | {} | {} | {} | {} |",
                figure.case,
                figure.metric,
                figure.unit,
                values.join(" | "),
                shown(figure.ratio(ours)),
                shown(figure.limit()),
            ),
        );
    }
}

fn curves(text: &mut String, results: &Results, contenders: &[Contender]) {
    for curve in &results.curves {
        line(
            text,
            &format!("\n### {}: {} by {}\n", curve.case, curve.y, curve.x),
        );
        let sizes = curve.points.values().max_by_key(|points| points.len());
        let sizes: Vec<f64> = sizes.into_iter().flatten().map(|(x, _)| *x).collect();
        let head: Vec<String> = sizes.iter().map(ToString::to_string).collect();
        line(text, &format!("| {} | {} |", curve.x, head.join(" | ")));
        line(text, &format!("|---|{}", "---|".repeat(sizes.len())));
        for who in contenders {
            let points = curve.points.get(&who.name);
            let at = |size: &f64| points?.iter().find(|(x, _)| x == size).map(|(_, y)| *y);
            let values: Vec<String> = sizes.iter().map(|size| shown(at(size))).collect();
            line(text, &format!("| {} | {} |", who.name, values.join(" | ")));
        }
    }
}

fn samples(text: &mut String, results: &Results) {
    line(text, "\n### Samples\n");
    line(text, "Operations timed, all rounds together.\n");
    line(text, "| case | samples |\n|---|---|");
    for (case, by_contender) in &results.samples {
        let counts = by_contender
            .iter()
            .map(|(who, count)| format!("{who} {count}"));
        let counts: Vec<String> = counts.collect();
        line(text, &format!("| {case} | {} |", counts.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_outside_the_markers_stays() {
        let page = format!("# Title\n{BEGIN}\nold\n{END}\n## Mounts\ntext\n");
        let new = replaced(&page, "new").expect("a page with markers");
        assert_eq!(
            new,
            format!("# Title\n{BEGIN}\nnew\n{END}\n## Mounts\ntext\n")
        );
        assert!(replaced("# Title\n", "new").is_err());
    }
}
