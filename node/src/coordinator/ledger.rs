//! The one door to the law: propose a command, get the farm's answer once it is durable.
//!
//! In the program the ledger is the Raft replica over its write-ahead log. In simulation it is a list of entries in memory
//! that takes a moment to become durable and loses, in a crash, what had not. Both apply the same [`Farm`] and tell the same
//! events.

use super::replica::{Events, Happened, ProposeError, Replica, Told};
use crate::clock::Clock;
use protocol::farm::Farm;
use protocol::farm::command::{Applied, Command, Entry, Event, Rejection, Reply};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{broadcast, oneshot};

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
            Self::InMemory(memory) => memory.propose(command).await,
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

/// A ledger in memory that can lose its power. What was answered survives [`InMemory::crash`]; of what was written and not yet
/// answered, as much survives as the crash is told: a log may be torn anywhere behind its last sync.
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
    /// Durable and applied.
    entries: Vec<Entry>,
    /// Written, and not synced yet.
    tail: VecDeque<Written>,
    power: Power,
}

#[derive(Debug)]
struct Written {
    entry: Entry,
    answer: oneshot::Sender<Result<Reply, Rejection>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Power {
    #[default]
    On,
    Off,
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
        let state = State { farm, entries, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)), events, clock, sync }
    }

    /// Everything that is durable from the entry at `from` on, counted from zero.
    #[must_use]
    pub fn entries(&self, from: usize) -> Vec<Entry> {
        self.locked().entries.get(from..).unwrap_or_default().to_vec()
    }

    /// Entries that are written and not durable yet.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        self.locked().tail.len()
    }

    /// The power goes: answers with what the next start finds, which is everything durable and the first `kept` entries of the
    /// rest. From now on every command is refused.
    #[must_use]
    pub fn crash(&self, kept: usize) -> Vec<Entry> {
        let mut state = self.locked();
        state.power = Power::Off;
        let torn = std::mem::take(&mut state.tail).into_iter().take(kept).map(|written| written.entry);
        state.entries.iter().cloned().chain(torn).collect()
    }

    async fn propose(&self, command: Command) -> Result<Reply, LedgerError> {
        let (answer, answered) = oneshot::channel();
        let index = self.write(command, answer)?;
        let ledger = self.clone();
        // What is written goes on to be durable even when its proposer waits no more.
        tokio::spawn(async move {
            tokio::time::sleep(ledger.sync).await;
            ledger.synced(index);
        });
        Ok(answered.await.map_err(|_| ProposeError::Stopped)??)
    }

    fn write(&self, command: Command, answer: oneshot::Sender<Result<Reply, Rejection>>) -> Result<u64, ProposeError> {
        let mut state = self.locked();
        if state.power == Power::Off {
            return Err(ProposeError::Stopped);
        }
        let index = (state.entries.len() + state.tail.len()) as u64 + 1;
        let last = state.tail.back().map_or(state.farm.last_stamp(), |written| written.entry.now);
        let entry = Entry { index, now: self.clock.now().max(last), command };
        state.tail.push_back(Written { entry, answer });
        Ok(index)
    }

    /// Applies everything up to `index`: one sync covers all that was written before it.
    fn synced(&self, index: u64) {
        let mut state = self.locked();
        while let Some(written) = state.tail.pop_front_if(|written| written.entry.index <= index) {
            let Written { entry, answer } = written;
            state.entries.push(entry.clone());
            let applied = state.farm.apply(entry.clone());
            for (n, event) in (0..).zip(applied.events) {
                // Nobody may be listening; the state says it all the same.
                let _listeners = self.events.send(Told::Event(Happened { index: entry.index, n, event }));
            }
            // The proposer may wait no more.
            let _gone = answer.send(applied.reply);
        }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, State> {
        // The law leaves a whole farm behind or panics; a farm that panicked must not be trusted.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
