//! The one door to the law: propose a command, get the farm's answer once it is durable.
//!
//! In the program the ledger is the Raft replica over its write-ahead log. In simulation it is a list of entries in memory
//! that takes a moment to become durable and loses, in a crash, what had not. Both apply the same [`Farm`] and tell the same
//! events.

use super::replica::{Events, Happened, ProposeError, Replica, Told};
use crate::clock::Clock;
use protocol::farm::Farm;
use protocol::farm::command::{Applied, Command, Entry, Event, Rejection, Reply};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast;

/// Events that a reader may fall behind before it is told to start over.
pub const EVENTS_KEPT: usize = 4_096;

/// A handle on the farm's log and state. Clones share it.
#[derive(Clone, Debug)]
pub enum Ledger {
    /// Committed by the group of coordinators, durable on disk.
    Replicated(Replica<Farm>),
    /// For simulation.
    InMemory(InMemory),
}

/// Why a command changed nothing, or may not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// The law says no.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// It could not be made durable here.
    #[error(transparent)]
    NotCommitted(#[from] ProposeError),
}

impl Ledger {
    /// Proposes a command; when this answers with a reply, the command is committed, applied and durable.
    ///
    /// # Errors
    ///
    /// [`LedgerError`].
    pub async fn propose(&self, command: Command) -> Result<Reply, LedgerError> {
        match self {
            Self::Replicated(replica) => Ok(replica.propose(&command).await??),
            Self::InMemory(memory) => Ok(memory.propose(command).await?),
        }
    }

    /// Looks at the state. Keep it short: nothing is applied meanwhile.
    pub fn read<T>(&self, look: impl FnOnce(&Farm) -> T) -> T {
        match self {
            Self::Replicated(replica) => replica.read(look),
            Self::InMemory(memory) => look(&memory.locked().farm),
        }
    }

    /// The events from now on. Subscribe first, then look at the state, and nothing is missed.
    #[must_use]
    pub fn events(&self) -> Events<Event> {
        match self {
            Self::Replicated(replica) => replica.events(),
            Self::InMemory(memory) => Events::new(memory.events.subscribe()),
        }
    }

    /// Whether this coordinator leads, so that grants, deadlines and mail are its part.
    #[must_use]
    pub fn leads(&self) -> bool {
        match self {
            Self::Replicated(replica) => replica.leads(),
            Self::InMemory(_) => true,
        }
    }
}

/// A ledger in memory. What was answered is kept by [`InMemory::entries`], as a disk would keep it.
#[derive(Clone, Debug)]
pub struct InMemory {
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<Told<Event>>,
    clock: Clock,
    sync: Duration,
}

#[derive(Debug, Default)]
struct State {
    farm: Farm,
    entries: Vec<Entry>,
}

impl InMemory {
    /// A ledger that holds `entries` already and takes `sync` to make a command durable.
    #[must_use]
    pub fn reopen(entries: Vec<Entry>, clock: Clock, sync: Duration) -> Self {
        let mut farm = Farm::default();
        for entry in &entries {
            // What happened then was told then; only the state is wanted now.
            let _told_before: Applied = farm.apply(entry.clone());
        }
        let (events, _) = broadcast::channel(EVENTS_KEPT);
        Self { state: Arc::new(Mutex::new(State { farm, entries })), events, clock, sync }
    }

    /// Everything that is durable.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.locked().entries.clone()
    }

    async fn propose(&self, command: Command) -> Result<Reply, Rejection> {
        tokio::time::sleep(self.sync).await;
        let mut state = self.locked();
        let index = state.entries.len() as u64 + 1;
        let entry = Entry { index, now: self.clock.now(), command };
        state.entries.push(entry.clone());
        let applied = state.farm.apply(entry);
        for (n, event) in (0..).zip(applied.events) {
            // Nobody may be listening; the state says it all the same.
            let _listeners = self.events.send(Told::Event(Happened { index, n, event }));
        }
        applied.reply
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, State> {
        // The law leaves a whole farm behind or panics; a farm that panicked must not be trusted.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
