//! What applying commands made happen, told to any number of readers through one bounded stream.
//!
//! The stream is never the only carrier of a duty: a reader that fell behind is told to start over and
//! finds what it must do in the state.

use tokio::sync::broadcast::{self, error::RecvError};

/// An event and its place in the farm's history; ordered by (`index`, `n`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happened<E> {
    /// Number of the command, counted since the farm began.
    pub index: u64,
    /// Number of the event among those of its command, from 0.
    pub n: u32,
    /// What happened.
    pub event: E,
}

/// What a reader is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told<E> {
    /// The next event.
    Event(Happened<E>),
    /// Events are missing here: look at the state, then read on.
    StartOver,
}

/// One reader's end of the stream.
#[derive(Debug)]
pub struct Events<E>(broadcast::Receiver<Told<E>>);

impl<E: Clone> Events<E> {
    pub(in crate::coordinator) fn new(receiver: broadcast::Receiver<Told<E>>) -> Self {
        Self(receiver)
    }

    /// The next thing to know; none when the replica has stopped. Nothing is lost if the future is
    /// dropped before it is ready.
    pub async fn next(&mut self) -> Option<Told<E>> {
        match self.0.recv().await {
            Ok(told) => Some(told),
            Err(RecvError::Lagged(_)) => Some(Told::StartOver),
            Err(RecvError::Closed) => None,
        }
    }
}
