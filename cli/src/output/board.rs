//! How far several things are: on a terminal a line each that changes in place, otherwise a line for each change.

use super::escape;
use super::progress::{SPIN_EVERY, Style, print, style};
use indicatif::{MultiProgress, ProgressBar};
use std::cell::RefCell;

/// A line for each of several things; cleared when dropped.
#[derive(Debug)]
pub(crate) struct Board {
    names: Vec<String>,
    width: usize,
    shown: Shown,
}

#[derive(Debug)]
enum Shown {
    Bars(MultiProgress, Vec<ProgressBar>),
    /// What was printed last of each.
    Lines(RefCell<Vec<String>>),
}

impl Board {
    pub(super) fn new(how: Style, names: &[String]) -> Self {
        let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        let shown = match how {
            Style::Bars => {
                let bars = MultiProgress::new();
                let line = |_: &String| bars.add(ProgressBar::no_length().with_style(style("{spinner} {wide_msg}")));
                let lines = names.iter().map(line).collect();
                Shown::Bars(bars, lines)
            }
            Style::Lines => Shown::Lines(RefCell::new(vec![String::new(); names.len()])),
        };
        Self { names: names.to_vec(), width, shown }
    }

    /// Says how far the thing at this place in the list of names is.
    pub(crate) fn set(&self, at: usize, sentence: &str) {
        let Some(name) = self.names.get(at) else { return };
        let line = escape(&format!("{name:<width$}  {sentence}", width = self.width)).into_owned();
        match &self.shown {
            Shown::Bars(_, bars) => {
                if let Some(bar) = bars.get(at) {
                    bar.set_message(line);
                    bar.enable_steady_tick(SPIN_EVERY);
                }
            }
            Shown::Lines(last) => {
                if let Some(last) = last.borrow_mut().get_mut(at).filter(|last| **last != line) {
                    last.clone_from(&line);
                    print(Some(line));
                }
            }
        }
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        if let Shown::Bars(bars, _) = &self.shown {
            // A terminal that has gone away cannot be cleared.
            let _gone = bars.clear();
        }
    }
}
