//! A progress bar on standard error, drawn only where that is a terminal and only for what takes
//! its time.

use std::cell::Cell;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What is over sooner needs no bar, which would only flash up.
const DRAWN_AFTER: Duration = Duration::from_millis(500);

/// How far something that may take its time has come.
pub(crate) struct Progress {
    bar: ProgressBar,
    /// `None` once the bar is drawn, or if it never will be.
    undrawn_since: Cell<Option<Instant>>,
}

impl Progress {
    /// Counted in bytes. Without a total, what was done so far and the speed are shown.
    pub(crate) fn bytes(what: &'static str, total: Option<u64>) -> Self {
        let template = match total {
            Some(_) => {
                "{msg} [{bar:30}] {bytes} of {total_bytes}, {binary_bytes_per_sec}, {eta} left"
            }
            None => "{msg} {bytes}, {binary_bytes_per_sec}",
        };
        Self::new(what, total, template)
    }

    /// Counted in entries.
    pub(crate) fn entries(what: &'static str, total: Option<u64>) -> Self {
        let template = match total {
            Some(_) => "{msg} [{bar:30}] {human_pos} of {human_len}, {eta} left",
            None => "{msg} {human_pos}",
        };
        Self::new(what, total, template)
    }

    /// Where what is counted says nothing.
    pub(crate) fn thousandths(what: &'static str) -> Self {
        Self::new(what, Some(1000), "{msg} [{bar:30}] {eta} left")
    }

    fn new(what: &'static str, total: Option<u64>, template: &str) -> Self {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
        // The templates are above; one that did not parse would only look plainer.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("#> "));
        }
        Self { bar: bar.with_message(what), undrawn_since: Cell::new(Some(Instant::now())) }
    }

    /// For results that go to the same terminal: a bar would be drawn across them.
    pub(crate) fn hidden() -> Self {
        Self { bar: ProgressBar::hidden(), undrawn_since: Cell::new(None) }
    }

    pub(crate) fn set(&self, done: u64) {
        if self.undrawn_since.get().is_some_and(|since| since.elapsed() > DRAWN_AFTER) {
            self.undrawn_since.set(None);
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.set_position(done);
    }

    /// The same where the total is known only now, or changes.
    pub(crate) fn set_of(&self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.set(done);
    }
}

/// Takes the bar off the terminal, whichever way the work ended.
impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
