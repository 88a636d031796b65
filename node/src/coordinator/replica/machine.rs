//! openraft's state machine: applies what is committed to the law, tells the events, makes snapshots.
//!
//! The state lives in memory. It is rebuilt at start from the newest snapshot and the log behind it.

use std::any::Any;
use std::io::BufRead;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use openraft::storage::RaftStateMachine;
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use protocol::farm::command::LawVersion;
use protocol::time::Timestamp;
use serde_bytes::ByteBuf;
use tokio::sync::{Notify, broadcast};
use tokio::task::spawn_blocking;

use super::events::{Happened, Told};
use super::law::Law;
use super::snapshot::{self, Header, SnapshotError, SnapshotStore};
use super::types::{
    Batch, CodecError, LogId, Membership, NodeId, RaftEntry, Replies, Seat, Snapshot, SnapshotImage, SnapshotMeta,
    StorageError, StorageIoError, Types, decode, encode,
};

/// Bytes of commands after which a snapshot is made even if the state is smaller.
const SNAPSHOT_AFTER_BYTES_MIN: u64 = 1 << 20;

/// Why a committed entry cannot be applied. The replica stops: going on without it would part this
/// coordinator from the others.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The entry was made by a newer program.
    #[error("the entry needs version {} of the law; this program knows {}", needed.0, known.0)]
    LawTooNew {
        /// Version that the entry carries.
        needed: LawVersion,
        /// Newest version known here.
        known: LawVersion,
    },
    /// The law panicked: a fault of this program. The state may hold a part of the entry; opened again,
    /// the replica starts from what is on disk.
    #[error("the law panicked: {0}")]
    Panicked(String),
    /// The entry is not what was proposed, or not what this program understands.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// The state of the farm on this coordinator.
#[derive(Debug)]
pub(super) struct State<L> {
    pub(super) law: L,
    /// Commands applied since the farm began. Not Raft's index: that counts batches, and entries of
    /// Raft's own.
    pub(super) last_index: u64,
    /// Stamp of the last command.
    pub(super) last_stamp: Timestamp,
    pub(super) applied: Option<LogId>,
    pub(super) membership: Membership,
    /// Bytes of commands applied since a snapshot was last due.
    bytes_since_snapshot: u64,
    /// Size of the last snapshot, packed.
    snapshot_bytes: u64,
}

impl<L: Law> State<L> {
    fn empty() -> Self {
        Self {
            law: L::default(),
            last_index: 0,
            last_stamp: Timestamp::EPOCH,
            applied: None,
            membership: Membership::default(),
            bytes_since_snapshot: 0,
            snapshot_bytes: 0,
        }
    }

    fn restore(image: &SnapshotImage) -> Result<Self, SnapshotError> {
        let (header, mut bytes) = snapshot::unpack(image)?;
        let law = L::restore(&mut bytes).map_err(SnapshotError::Damaged)?;
        if bytes.fill_buf().is_ok_and(|rest| !rest.is_empty()) {
            return Err(SnapshotError::Damaged("there are bytes behind its end".into()));
        }
        Ok(Self {
            law,
            last_index: header.last_index,
            last_stamp: header.last_stamp,
            applied: header.meta.last_log_id,
            membership: header.meta.last_membership,
            bytes_since_snapshot: 0,
            snapshot_bytes: image.0.len() as u64,
        })
    }

    fn apply(&mut self, batch: Vec<(Timestamp, L::Command)>, happened: &mut Vec<Happened<L::Event>>) -> Vec<L::Reply> {
        let mut replies = Vec::with_capacity(batch.len());
        for (now, command) in batch {
            self.last_index += 1;
            self.last_stamp = self.last_stamp.max(now);
            let index = self.last_index;
            let (reply, events) = self.law.apply(index, self.last_stamp, command);
            happened.extend((0..).zip(events).map(|(n, event)| Happened { index, n, event }));
            replies.push(reply);
        }
        replies
    }

    /// Counts `bytes` of commands; true once they outweigh the last snapshot as it lies on disk. So writing
    /// snapshots costs no more than writing the log, and what a restart must apply again stays smaller than
    /// the state.
    fn snapshot_pays(&mut self, bytes: u64) -> bool {
        self.bytes_since_snapshot += bytes;
        let pays = self.bytes_since_snapshot >= self.snapshot_bytes.max(SNAPSHOT_AFTER_BYTES_MIN);
        if pays {
            self.bytes_since_snapshot = 0;
        }
        pays
    }
}

/// State and event stream, shared by the state machine and the replica's readers.
#[derive(Debug)]
pub(super) struct Shared<L: Law> {
    state: RwLock<State<L>>,
    pub(super) events: broadcast::Sender<Told<L::Event>>,
    /// Told when a snapshot is worth its cost.
    pub(super) snapshot_due: Notify,
}

impl<L: Law> Shared<L> {
    /// Held for memory operations only.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, State<L>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State<L>> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state machine as openraft drives it.
#[derive(Debug)]
pub(super) struct Machine<L: Law> {
    shared: Arc<Shared<L>>,
    snapshots: SnapshotStore,
}

impl<L: Law> Machine<L> {
    /// The state of the newest snapshot, or an empty one. Blocks on the disk.
    pub(super) fn open(snapshots: SnapshotStore, events_kept: usize) -> Result<Self, SnapshotError> {
        let state = match snapshots.load()? {
            Some((_, image)) => State::restore(&image)?,
            None => State::empty(),
        };
        let (events, _) = broadcast::channel(events_kept);
        let shared = Shared { state: RwLock::new(state), events, snapshot_due: Notify::new() };
        Ok(Self { shared: Arc::new(shared), snapshots })
    }

    pub(super) fn shared(&self) -> Arc<Shared<L>> {
        self.shared.clone()
    }

    fn apply_batch(&self, log_id: LogId, batch: Batch) -> Result<Replies, ApplyError> {
        let mut bytes = 0;
        let mut commands = Vec::with_capacity(batch.commands.len());
        for stamped in &batch.commands {
            if stamped.law_version > L::NEWEST {
                return Err(ApplyError::LawTooNew { needed: stamped.law_version, known: L::NEWEST });
            }
            bytes += stamped.command.len() as u64;
            commands.push((stamped.now, decode(&stamped.command)?));
        }
        let mut happened = Vec::new();
        // A panic that ended only openraft's own thread of work would leave proposers waiting for ever.
        let applied = catch_unwind(AssertUnwindSafe(|| {
            let mut state = self.shared.write();
            let replies = state.apply(commands, &mut happened);
            state.applied = Some(log_id);
            (replies, state.snapshot_pays(bytes))
        }));
        let (replies, due) = applied.map_err(|panic| ApplyError::Panicked(words(panic.as_ref())))?;
        for event in happened {
            // Without readers there is nobody to tell.
            let _ = self.shared.events.send(Told::Event(event));
        }
        if due {
            self.shared.snapshot_due.notify_one();
        }
        let replies = replies.iter().map(|reply| encode(reply).map(ByteBuf::from));
        Ok(Replies(replies.collect::<Result<_, _>>()?))
    }
}

impl<L: Law> RaftStateMachine<Types> for Machine<L> {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), StorageError> {
        let state = self.shared.read();
        Ok((state.applied, state.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Replies>, StorageError>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut replies = Vec::new();
        for entry in entries {
            let log_id = entry.log_id;
            replies.push(match entry.payload {
                EntryPayload::Normal(batch) => {
                    self.apply_batch(log_id, batch).map_err(|error| StorageIoError::apply(log_id, &error))?
                }
                EntryPayload::Blank => {
                    self.shared.write().applied = Some(log_id);
                    Replies::default()
                }
                EntryPayload::Membership(membership) => {
                    let mut state = self.shared.write();
                    state.applied = Some(log_id);
                    state.membership = Membership::new(Some(log_id), membership);
                    Replies::default()
                }
            });
        }
        Ok(replies)
    }

    /// Packs the state while nothing is applied (openraft waits for this); readers go on. Nothing else of its size is held in
    /// memory.
    async fn get_snapshot_builder(&mut self) -> Builder {
        let shared = self.shared.clone();
        let taking = spawn_blocking(move || -> Result<Snapshot, SnapshotError> {
            let (meta, image) = {
                let state = shared.read();
                let last_log_id = state.applied;
                let meta = SnapshotMeta {
                    last_log_id,
                    last_membership: state.membership.clone(),
                    snapshot_id: last_log_id.map_or_else(|| "0".into(), |log_id| log_id.to_string()),
                };
                let header = Header { meta: meta.clone(), last_index: state.last_index, last_stamp: state.last_stamp };
                let image = snapshot::pack(&header, |out| state.law.snapshot(out))?;
                (meta, image)
            };
            shared.write().snapshot_bytes = image.0.len() as u64;
            Ok(Snapshot { meta, snapshot: Box::new(image) })
        });
        let taken = match taking.await {
            Ok(taken) => taken.map_err(|error| StorageIoError::read_state_machine(&error).into()),
            Err(error) => Err(StorageIoError::read_state_machine(&error).into()),
        };
        Builder { taken: Some(taken), snapshots: self.snapshots.clone() }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotImage>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &openraft::SnapshotMeta<NodeId, Seat>,
        image: Box<SnapshotImage>,
    ) -> Result<(), StorageError> {
        let (snapshots, shared, meta) = (self.snapshots.clone(), self.shared.clone(), meta.clone());
        let signature = meta.signature();
        let installing = spawn_blocking(move || {
            let state = State::<L>::restore(&image)?;
            if state.applied != meta.last_log_id {
                return Err(SnapshotError::Damaged("it is not the one that was announced".into()));
            }
            snapshots.save(&meta, &image)?;
            *shared.write() = state;
            // Events in between are not known here: readers start over from the state.
            let _ = shared.events.send(Told::StartOver);
            Ok(())
        });
        let installed = installing.await.map_err(|error| StorageIoError::write_state_machine(&error))?;
        Ok(installed.map_err(|error| StorageIoError::write_snapshot(Some(signature), &error))?)
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, StorageError> {
        let snapshots = self.snapshots.clone();
        let loaded = spawn_blocking(move || snapshots.load())
            .await
            .map_err(|error| StorageIoError::read_snapshot(None, &error))?
            .map_err(|error| StorageIoError::read_snapshot(None, &error))?;
        Ok(loaded.map(|(meta, image)| Snapshot { meta, snapshot: Box::new(image) }))
    }
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// Saves a snapshot that was packed already, while commands are applied again.
#[derive(Debug)]
pub(super) struct Builder {
    taken: Option<Result<Snapshot, StorageError>>,
    snapshots: SnapshotStore,
}

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot, StorageError> {
        let Some(taken) = self.taken.take() else {
            let again = SnapshotError::Damaged("a builder builds one snapshot".into());
            return Err(StorageIoError::write_snapshot(None, &again).into());
        };
        let taken = taken?;
        let snapshots = self.snapshots.clone();
        let saving = spawn_blocking(move || -> Result<Snapshot, SnapshotError> {
            snapshots.save(&taken.meta, &taken.snapshot)?;
            Ok(taken)
        });
        Ok(saving
            .await
            .map_err(|error| StorageIoError::write_snapshot(None, &error))?
            .map_err(|error| StorageIoError::write_snapshot(None, &error))?)
    }
}
