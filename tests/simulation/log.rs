//! What happened in a run, line by line: two runs of one seed give the same lines.

use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::time::Instant;

/// The story of one run. Clones write the same one.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    started: Instant,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Log {
    /// An empty story that begins now.
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), lines: Arc::default() }
    }

    /// Adds a line: when, who, what.
    pub(crate) fn note(&self, who: impl Display, what: impl Display) {
        let at = self.started.elapsed().as_millis();
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{at:>8} {who} {what}"));
    }

    /// Everything so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
