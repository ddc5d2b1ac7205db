//! What was found, as people read it.

use std::fmt;

use super::{Checked, Protection};

/// Width of a name, in columns of text.
const NAME: usize = 36;
/// Width of one start's column.
const CELL: usize = 11;

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "The kernel lets this user:")?;
        for (feature, outcome) in &self.features {
            entry(f, feature.name, outcome, feature.without)?;
        }
        entry(
            f,
            "ptrace",
            &self.tracing,
            "no `gofer runsc`, no `gofer do`",
        )?;
        self.starts(f)?;
        match self.is_complete() {
            true => writeln!(f, "\nAll that docs/jail.md promises is active."),
            false => writeln!(f, "\nSomething that docs/jail.md promises is MISSING."),
        }
    }
}

fn entry(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    outcome: &Result<String, String>,
    without: &str,
) -> fmt::Result {
    match outcome {
        Ok(detail) if detail.is_empty() => writeln!(f, "  {name:<NAME$}yes"),
        Ok(detail) => writeln!(f, "  {name:<NAME$}yes: {detail}"),
        Err(why) => writeln!(f, "  {name:<NAME$}no: {why}\n    without it: {without}"),
    }
}

impl Checked {
    fn starts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\n{:<width$}",
            "A gofer has, for runsc of",
            width = NAME + 2
        )?;
        for (start, _) in &self.starts {
            write!(f, "{:<CELL$}", start.release())?;
        }
        write!(f, "\n{:<width$}", "", width = NAME + 2)?;
        for (start, _) in &self.starts {
            let mode = if start.directfs { "directfs" } else { "" };
            write!(f, "{mode:<CELL$}")?;
        }
        writeln!(f)?;
        let working = self
            .starts
            .iter()
            .find_map(|(_, outcome)| outcome.as_ref().ok());
        for (row, one) in working.into_iter().flatten().enumerate() {
            write!(f, "  {:<NAME$}", one.name)?;
            for (_, outcome) in &self.starts {
                let all = outcome.as_ref().ok();
                write!(f, "{:<CELL$}", word(all.and_then(|all| all.get(row))))?;
            }
            writeln!(f, "{}", one.detail)?;
        }
        for (start, outcome) in &self.starts {
            if let Err(why) = outcome {
                writeln!(f, "  {} does not start: {why}", start.word())?;
            }
        }
        Ok(())
    }
}

fn word(protection: Option<&Protection>) -> &'static str {
    match protection {
        None => "-",
        Some(one) if one.active => "yes",
        Some(one) if one.promised => "MISSING",
        Some(_) => "falls back",
    }
}
