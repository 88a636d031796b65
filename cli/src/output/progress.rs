//! How far something is: a moving line on a terminal, otherwise few plain lines.

use super::escape;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use std::cell::RefCell;
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// How often a plain line about the same transfer is printed at most.
const LINE_EVERY: Duration = Duration::from_secs(10);
pub(super) const SPIN_EVERY: Duration = Duration::from_millis(120);

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// A moving line.
    Bars,
    /// A line when something new happens.
    Lines,
}

/// Shows how far something is; cleared when dropped.
#[derive(Debug)]
pub(crate) struct Progress {
    shown: Shown,
}

#[derive(Debug)]
enum Shown {
    Bar(ProgressBar),
    Lines(RefCell<Lines>),
}

/// What was printed last, and when.
#[derive(Debug, Default)]
struct Lines {
    last: String,
    transfer_at: Option<Instant>,
}

impl Lines {
    /// The line to print for a sentence, unless it is the one printed last.
    fn sentence(&mut self, sentence: &str) -> Option<String> {
        if self.last == sentence {
            return None;
        }
        sentence.clone_into(&mut self.last);
        self.transfer_at = None;
        Some(escape(sentence).into_owned())
    }

    /// The line to print for a transfer, unless one was printed a short while ago.
    fn transfer(&mut self, what: &str, done: u64, total: u64, now: Instant) -> Option<String> {
        let is_due = self.transfer_at.is_none_or(|at| now.duration_since(at) >= LINE_EVERY);
        if self.last == what && !is_due {
            return None;
        }
        let is_new = self.last != what;
        what.clone_into(&mut self.last);
        // A transfer is only spoken of when it takes a while.
        self.transfer_at = Some(now);
        (!is_new).then(|| format!("{}: {} of {}", escape(what), HumanBytes(done), HumanBytes(total)))
    }
}

impl Progress {
    pub(super) fn new(style: Style) -> Self {
        let shown = match style {
            Style::Bars => Shown::Bar(ProgressBar::no_length()),
            Style::Lines => Shown::Lines(RefCell::default()),
        };
        Self { shown }
    }

    /// Says what is being waited for.
    pub(crate) fn waiting(&self, sentence: &str) {
        match &self.shown {
            Shown::Bar(bar) => {
                bar.set_style(style("{spinner} {wide_msg} {elapsed}"));
                bar.set_message(escape(sentence).into_owned());
                bar.enable_steady_tick(SPIN_EVERY);
            }
            Shown::Lines(lines) => print(lines.borrow_mut().sentence(sentence)),
        }
    }

    /// Says how many bytes of a transfer are done.
    pub(crate) fn transfer(&self, what: &str, done: u64, total: u64) {
        match &self.shown {
            Shown::Bar(bar) => {
                bar.set_style(style("{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}"));
                bar.set_message(escape(what).into_owned());
                bar.set_length(total);
                bar.set_position(done);
            }
            Shown::Lines(lines) => print(lines.borrow_mut().transfer(what, done, total, Instant::now())),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

pub(super) fn style(template: &str) -> ProgressStyle {
    // The templates above are constant and tested; a bar without one is still a bar.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

pub(super) fn print(line: Option<String>) {
    if let Some(line) = line {
        // Where stderr is closed there is nobody left to tell.
        let _ = writeln!(io::stderr().lock(), "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_templates() {
        for template in ["{spinner} {wide_msg} {elapsed}", "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}"] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn plain_lines_are_rare() {
        let mut lines = Lines::default();
        let start = Instant::now();
        let later = |secs| start + Duration::from_secs(secs);
        assert_eq!(lines.sentence("queued"), Some("queued".to_owned()));
        assert_eq!(lines.sentence("queued"), None);
        assert_eq!(lines.transfer("fetching", 1, 2048, start), None, "a short transfer is not spoken of");
        assert_eq!(lines.transfer("fetching", 2, 2048, later(9)), None);
        assert_eq!(
            lines.transfer("fetching", 1024, 2048, later(10)),
            Some("fetching: 1.00 KiB of 2.00 KiB".to_owned())
        );
        assert_eq!(lines.transfer("fetching", 1025, 2048, later(11)), None);
        assert_eq!(lines.sentence("queued"), Some("queued".to_owned()), "said again after something else");
        assert_eq!(lines.sentence("\x1b[2Jx"), Some("\\x1b[2Jx".to_owned()));
    }
}
