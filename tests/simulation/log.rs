//! What happened in a run, line by line on the virtual clock: what `SEED=n` prints, what two runs of a seed are compared by, and
//! what is cut to a story when something broke.
//!
//! A run that nobody reads keeps nothing: a line is made only where everything is told.

use crate::names::{Names, mentioned};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;

/// Lines of a story before and after the gap that is made in a long one.
const BEGINNING: usize = 60;
const END: usize = 100;
/// Lines of a story behind the one at which something broke.
const AFTERWARDS: usize = 3;
/// Whose lines are the weather: they belong to every story.
const WEATHER: &str = "weather";
/// Whose line says that something does not hold.
const BROKEN: &str = "BROKEN";

/// Whether a run is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Telling {
    /// Nobody reads it.
    Nothing,
    /// All of it is kept.
    Everything,
}

/// The log of a run. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    started: Instant,
    telling: Telling,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<Line>,
    names: Names,
}

#[derive(Debug)]
struct Line {
    at_ms: u128,
    who: String,
    /// Empty when it is there to be compared only.
    what: String,
    mark: String,
}

impl Line {
    fn shown(&self) -> String {
        let sign = if self.who == BROKEN { ">>" } else { "  " };
        format!("{sign} {:>8}.{:03} s  {:<9} {}", self.at_ms / 1_000, self.at_ms % 1_000, self.who, self.what)
    }
}

impl Log {
    pub(crate) fn new(telling: Telling) -> Self {
        Self { started: Instant::now(), telling, state: Arc::default() }
    }

    /// `who` does `what`.
    pub(crate) fn note(&self, who: &str, what: impl FnOnce(&mut Names) -> String) {
        if self.telling == Telling::Everything {
            let mut state = self.locked();
            let what = what(&mut state.names);
            self.push(&mut state, who, what, String::new());
        }
    }

    /// Whether nothing is kept, so that nothing need be made to be told.
    pub(crate) fn is_silent(&self) -> bool {
        self.telling == Telling::Nothing
    }

    /// The weather changes.
    pub(crate) fn weather(&self, what: impl FnOnce(&mut Names) -> String) {
        self.note(WEATHER, what);
    }

    /// Something does not hold.
    pub(crate) fn broken(&self, what: &str) {
        self.note(BROKEN, |_| what.to_owned());
    }

    /// `who` does what only a comparison of two runs looks at.
    pub(crate) fn mark(&self, who: &str, mark: impl FnOnce() -> String) {
        if self.telling == Telling::Everything {
            let mark = mark();
            self.push(&mut self.locked(), who, String::new(), mark);
        }
    }

    /// Something said with the names of this log.
    pub(crate) fn say<T>(&self, what: impl FnOnce(&mut Names) -> T) -> T {
        what(&mut self.locked().names)
    }

    /// Every line, marks included.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.locked().lines.iter().map(|line| format!("{}{}", line.shown(), line.mark)).collect()
    }

    /// What a person wants to read when something broke: the weather, what concerns whatever broke, and the line at which it
    /// broke, marked.
    pub(crate) fn story(&self) -> Vec<String> {
        let state = self.locked();
        let broken = state.lines.iter().filter(|line| line.who == BROKEN);
        let subjects: BTreeSet<String> = broken.flat_map(|line| mentioned(&line.what)).map(ToOwned::to_owned).collect();
        let around = state.names.around(subjects);
        let concerns = |line: &&Line| {
            let told = !line.what.is_empty();
            told && (line.who == WEATHER
                || line.who == BROKEN
                || mentioned(&line.what).any(|name| around.contains(name)))
        };
        let told: Vec<&Line> = state.lines.iter().filter(concerns).collect();
        let last = told.iter().rposition(|line| line.who == BROKEN).map_or(told.len(), |at| at + 1 + AFTERWARDS);
        let told = &told[..last.min(told.len())];
        let mut story: Vec<String> = told.iter().map(|line| line.shown()).collect();
        if story.len() > BEGINNING + END {
            let gap = story.len() - BEGINNING - END;
            story.splice(BEGINNING..BEGINNING + gap, [format!("   … {gap} lines …")]);
        }
        story
    }

    fn push(&self, state: &mut State, who: &str, what: String, mark: String) {
        let at_ms = self.started.elapsed().as_millis();
        state.lines.push(Line { at_ms, who: who.to_owned(), what, mark });
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
