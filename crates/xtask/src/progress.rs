//! What a chore that takes a while is at, on a terminal; nothing elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// How often the line shows that it is alive.
const TICK: Duration = Duration::from_millis(100);

/// A line on standard error, if that is a terminal; dropping it takes it away.
#[derive(Debug)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// `steps` are as many as [`Self::step`] will be called.
    pub(crate) fn new(name: &'static str, steps: u64) -> Self {
        let bar = ProgressBar::new(steps);
        let template = "{spinner} {prefix} {pos}/{len} {msg} {elapsed}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(name);
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    /// Begins the next step.
    pub(crate) fn step(&self, what: &'static str) {
        self.0.inc(1);
        self.0.set_message(what);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
