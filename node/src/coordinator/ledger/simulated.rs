//! A ledger for simulation: one coordinator, on its write-ahead log, without Raft and without threads.
//!
//! Commands that wait together are written as one batch, as the program's proposer does. The sync of a batch takes a while of
//! simulated time; what it covers is applied and answered when it is over, never before. [`Simulated::crash`] takes the power
//! away and says which bytes no sync had covered: whatever becomes of those on the disk, the next [`Simulated::open`] goes
//! through the log's own recovery.

use super::{EVENTS_KEPT, LedgerError};
use crate::clock::Clock;
use crate::coordinator::replica::{Events, Happened, ProposeError, Told};
use crate::coordinator::wal::{Inline, Stretch, WalConfig, WalError};
use protocol::codec::{self, CodecError};
use protocol::farm::command::{Applied, Command, Entry, Event, Rejection, Reply};
use protocol::farm::{Farm, SnapshotError};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{broadcast, oneshot};

/// Segments are small, so that a run begins several.
const LOG: WalConfig = WalConfig { segment_bytes: 64 << 10, cache_bytes: 16 << 10 };

/// What becomes of a command on its way into the log, for planting faults: the first that comes of it is the one answered, and
/// where nothing does, it is answered as if it had been done. A farm that works changes nothing.
pub type Bend = fn(&Farm, Command) -> Vec<Command>;

/// How a simulated ledger is kept.
#[derive(Clone, Debug)]
pub struct Keeping {
    /// Stamps commands.
    pub clock: Clock,
    /// How long a sync takes.
    pub sync: Duration,
    /// The entry up to which a snapshot stands for the log: when that is read again, the farm which the entries up to this one
    /// make is written as a snapshot and read back before the rest is applied. None is at zero.
    pub snapshot_at: u64,
    /// What is wrong with it.
    pub bend: Option<Bend>,
}

/// A ledger that can lose its power. Clones are the same.
#[derive(Clone, Debug)]
pub struct Simulated {
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<Told<Event>>,
    keeping: Keeping,
}

#[derive(Debug)]
struct State {
    farm: Farm,
    log: Inline,
    /// Durable and applied.
    entries: Vec<Entry>,
    /// Proposed, and not written yet.
    waiting: VecDeque<Waiting>,
    /// Written, and not synced yet.
    batch: Option<Batch>,
    power: Power,
}

/// Where an answer goes, if anybody waits for it.
type Asking = Option<oneshot::Sender<Result<Reply, Rejection>>>;

#[derive(Debug)]
struct Waiting {
    command: Command,
    answer: Asking,
}

#[derive(Debug)]
struct Batch {
    written: Vec<(Entry, Asking)>,
    stretch: Stretch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    On,
    Off,
}

/// Why a simulated ledger does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The log.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// An entry of the log is none.
    #[error("entry {0} of the log cannot be read: {1}")]
    Entry(u64, CodecError),
    /// The farm's own snapshot is not read back.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

impl Simulated {
    /// The ledger whose log lies in `folder`.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn open(folder: &Path, keeping: Keeping) -> Result<Self, OpenError> {
        let (log, _) = Inline::open(folder, &LOG)?;
        let mut farm = Farm::default();
        let mut entries = Vec::new();
        for (index, bytes) in log.entries()? {
            let entry: Entry =
                codec::decode_accepted(&bytes, usize::MAX).map_err(|error| OpenError::Entry(index, error))?;
            // What happened then was told then; only the state is wanted now.
            let _told_before: Applied = farm.apply(entry.clone());
            entries.push(entry);
            if index == keeping.snapshot_at {
                farm = Farm::restore(farm.snapshot().as_slice())?;
            }
        }
        let (events, _) = broadcast::channel(EVENTS_KEPT);
        let state = State { farm, log, entries, waiting: VecDeque::new(), batch: None, power: Power::On };
        Ok(Self { state: Arc::new(Mutex::new(state)), events, keeping })
    }

    /// Everything that is durable and applied, from the entry at `from` on, counted from zero.
    #[must_use]
    pub fn entries(&self, from: usize) -> Vec<Entry> {
        self.locked().entries.get(from..).unwrap_or_default().to_vec()
    }

    /// The power goes: says where on the disk a batch lies that was written and not synced. From now on every command is
    /// refused.
    #[must_use]
    pub fn crash(&self) -> Option<Stretch> {
        let mut state = self.locked();
        state.power = Power::Off;
        state.waiting.clear();
        state.batch.take().map(|batch| batch.stretch)
    }

    /// Whether a batch is written and not synced at this moment.
    #[must_use]
    pub fn is_writing(&self) -> bool {
        self.locked().batch.is_some()
    }

    /// Looks at the state.
    pub(super) fn read<T>(&self, look: impl FnOnce(&Farm) -> T) -> T {
        look(&self.locked().farm)
    }

    /// The events from now on.
    pub(super) fn events(&self) -> Events<Event> {
        Events::new(self.events.subscribe())
    }

    pub(super) async fn propose(&self, command: Command) -> Result<Reply, LedgerError> {
        let (answer, answered) = oneshot::channel();
        if self.enqueue(command, answer)? == Line::Empty {
            // What is written goes on to be durable even when its proposer waits no more.
            tokio::spawn(self.clone().write());
        }
        Ok(answered.await.map_err(|_| ProposeError::Stopped)??)
    }

    fn enqueue(
        &self,
        command: Command,
        answer: oneshot::Sender<Result<Reply, Rejection>>,
    ) -> Result<Line, ProposeError> {
        let mut state = self.locked();
        if state.power == Power::Off {
            return Err(ProposeError::Stopped);
        }
        let line = if state.waiting.is_empty() && state.batch.is_none() { Line::Empty } else { Line::Busy };
        let commands = match self.keeping.bend {
            None => vec![command],
            Some(bend) => bend(&state.farm, command),
        };
        if commands.is_empty() {
            // Whoever proposed it may wait no more.
            let _gone = answer.send(Ok(Reply::Done));
            return Ok(Line::Busy);
        }
        let mut answer = Some(answer);
        state.waiting.extend(commands.into_iter().map(|command| Waiting { command, answer: answer.take() }));
        Ok(line)
    }

    /// Writes batch after batch until nobody waits.
    async fn write(self) {
        while self.begin_batch() {
            tokio::time::sleep(self.keeping.sync).await;
            self.end_batch();
        }
    }

    fn begin_batch(&self) -> bool {
        let mut state = self.locked();
        if state.waiting.is_empty() || state.power == Power::Off {
            return false;
        }
        let now = self.keeping.clock.now().max(state.farm.last_stamp());
        let first = state.entries.len() as u64 + 1;
        let waiting = std::mem::take(&mut state.waiting);
        let entry = |(index, Waiting { command, answer })| (Entry { index, now, command }, answer);
        let written: Vec<_> = (first..).zip(waiting).map(entry).collect();
        let bytes = written.iter().map(|(entry, _)| (entry.index, codec::encode(entry).into())).collect();
        match state.log.append(bytes) {
            Ok(stretch) => {
                state.batch = Some(Batch { written, stretch });
                true
            }
            Err(error) => {
                tracing::error!(%error, "the log cannot be written");
                state.power = Power::Off;
                false
            }
        }
    }

    /// Applies what the sync has covered, and answers.
    fn end_batch(&self) {
        let mut state = self.locked();
        let Some(Batch { written, .. }) = state.batch.take() else { return };
        for (entry, answer) in written {
            state.entries.push(entry.clone());
            let index = entry.index;
            let applied = state.farm.apply(entry);
            for (n, event) in (0..).zip(applied.events) {
                // Nobody may be listening; the state says it all the same.
                let _listeners = self.events.send(Told::Event(Happened { index, n, event }));
            }
            // The proposer may wait no more.
            let _gone = answer.map(|answer| answer.send(applied.reply));
        }
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        // The law leaves a whole farm behind or panics; a farm that panicked must not be trusted.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether somebody writes the log already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Empty,
    Busy,
}
