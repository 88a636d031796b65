//! The replicated farm: `propose` a command, and when it answers the command is committed, applied and
//! durable.
//!
//! ```text
//! propose ─► proposer: stamps, groups ─► openraft ─► log store ─► wal (one sync)
//!                                           └─► machine: Law::apply ─► reply, events ─► readers
//! ```
//!
//! - One coordinator is a group of one, on the same path as three.
//! - What was answered survives `kill -9` and power loss.
//! - State is read under a short lock ([`Replica::read`]), events from one bounded stream
//!   ([`Replica::events`]).
//! - Nothing here knows the network: calls to other coordinators go through a [`Carry`], theirs come in
//!   by [`Replica::answer`].

mod events;
mod law;
mod log;
mod machine;
mod peers;
mod proposer;
mod snapshot;
mod types;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::error::{Fatal, InitializeError, RaftError};
use openraft::{Config, ServerState, SnapshotPolicy};
use protocol::farm::command::MAX_COMMAND_BYTES;
use protocol::time::Timestamp;
use serde_bytes::ByteBuf;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, spawn_blocking};

pub use events::{Events, Happened, Told};
pub use law::Law;
pub use machine::ApplyError;
pub use peers::{AnswerError, CALL_BYTES_MAX, Carry, CarryError};
pub use proposer::ProposeError;
pub use snapshot::SnapshotError;
pub use types::{Batch, CodecError, NodeId, Replies, Seat, SnapshotImage, Stamped, Types};

use crate::clock::Clock;
use crate::database::Records;

use super::wal::{Repair, Syncs, Wal, WalConfig, WalError};
use log::LogStore;
use machine::{Machine, Shared};
use peers::{Incoming, Peers};
use proposer::Proposal;
use snapshot::SnapshotStore;
use types::{Raft, encode};

const HEARTBEAT_MS: u64 = 250;
const ELECTION_MS_MIN: u64 = 1_000;
const ELECTION_MS_MAX: u64 = 2_000;
/// For sending one part of a snapshot and, after the last, for installing it.
const SNAPSHOT_MS_MAX: u64 = 30_000;
/// Entries sent to another coordinator at a time.
const REPLICATED_ENTRIES_MAX: u64 = 64;
/// Entries kept in the log behind a snapshot, for coordinators that were away shortly.
const ENTRIES_KEPT: u64 = 1_000;
/// Entries that one may lack before it is sent a snapshot instead.
const LAG_ENTRIES_MAX: u64 = 5_000;
/// A group of one must lead within this time, or opening it fails.
const LEAD_ALONE_WITHIN: Duration = Duration::from_secs(30);

/// How a coordinator's replica is opened.
#[derive(Clone)]
pub struct ReplicaConfig {
    /// Folder of log and snapshots; made if it is not there.
    pub folder: PathBuf,
    /// Where the current snapshot is recorded.
    pub records: Records,
    /// This coordinator's number.
    pub id: NodeId,
    /// This coordinator's place.
    pub seat: Seat,
    /// What to do when the folder holds no group yet.
    pub beginning: Beginning,
    /// Stamps proposals.
    pub clock: Clock,
    /// Calls other coordinators.
    pub carry: Carry,
    /// Events that a slow reader may be behind before it must start over.
    pub events_kept: usize,
    /// How the log is kept.
    pub wal: WalConfig,
}

impl fmt::Debug for ReplicaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicaConfig")
            .field("folder", &self.folder)
            .field("id", &self.id)
            .field("seat", &self.seat)
            .field("beginning", &self.beginning)
            .finish_non_exhaustive()
    }
}

/// What an empty replica does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// Forms a group of one: the farm's first coordinator.
    Alone,
    /// Waits until the group that there is takes it in.
    Invited,
}

/// Why a replica cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The log.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// The snapshot.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The log begins behind the end of the snapshot: what lies between is lost.
    #[error("the log begins after entry {purged}, the snapshot ends with {snapshot:?}")]
    Gap {
        /// Last entry that the log gave up.
        purged: u64,
        /// Last entry in the snapshot.
        snapshot: Option<u64>,
    },
    /// Raft stopped while it was started.
    #[error(transparent)]
    Fatal(#[from] Box<Fatal<NodeId>>),
    /// The group could not be formed.
    #[error(transparent)]
    Initialize(#[from] Box<RaftError<NodeId, InitializeError<NodeId, Seat>>>),
    /// Raft refuses our settings.
    #[error(transparent)]
    Config(#[from] Box<openraft::ConfigError>),
    /// A group of one did not come to lead.
    #[error("this coordinator, alone in its group, did not come to lead: {0}")]
    NotLeading(String),
    /// The runtime is shutting down.
    #[error("the runtime is shutting down")]
    Runtime,
}

/// A coordinator's copy of the farm. Clones share it.
pub struct Replica<L: Law> {
    inner: Arc<Inner<L>>,
}

struct Inner<L: Law> {
    id: NodeId,
    raft: Raft,
    shared: Arc<Shared<L>>,
    /// None once closed.
    proposals: Mutex<Option<mpsc::Sender<Proposal>>>,
    incoming: Incoming,
    syncs: Arc<Syncs>,
    repair: Option<Repair>,
    snapshots: AbortHandle,
}

impl<L: Law> Clone for Replica<L> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<L: Law> fmt::Debug for Replica<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica").field("id", &self.inner.id).finish_non_exhaustive()
    }
}

impl<L: Law> Replica<L> {
    /// Opens the replica, restoring what it knew. One that is alone in its group leads, and has applied
    /// all of its log, when this returns.
    pub async fn open(config: ReplicaConfig) -> Result<Self, OpenError> {
        let raft_config = raft_config()?;
        let (folder, records) = (config.folder.clone(), config.records.clone());
        let (wal_config, events_kept) = (config.wal.clone(), config.events_kept);
        let opening = spawn_blocking(move || -> Result<_, OpenError> {
            // First the log: it is locked against a second process.
            let (wal, recovered) = Wal::open(&folder.join("log"), &wal_config)?;
            let snapshots = SnapshotStore::open(folder.join("snapshots"), records)?;
            let machine = Machine::<L>::open(snapshots, events_kept)?;
            let snapshot = machine.shared().read().applied.map(|log_id| log_id.index);
            if let Some((purged, _)) = wal.purged().filter(|(purged, _)| Some(*purged) > snapshot) {
                return Err(OpenError::Gap { purged, snapshot });
            }
            Ok((machine, wal, recovered))
        });
        let (machine, wal, recovered) = opening.await.map_err(|_| OpenError::Runtime)??;

        let shared = machine.shared();
        let syncs = wal.syncs();
        let log = LogStore::new(wal, recovered.vote);
        let peers = Peers { own: config.id, carry: config.carry };
        let raft = Raft::new(config.id, raft_config, peers, log, machine).await.map_err(Box::new)?;
        if config.beginning == Beginning::Alone && !raft.is_initialized().await.map_err(Box::new)? {
            raft.initialize(BTreeMap::from([(config.id, config.seat)])).await.map_err(Box::new)?;
        }
        lead_if_alone(&raft, config.id).await?;

        let (proposals, waiting) = mpsc::channel(proposer::WAITING_MAX);
        tokio::spawn(proposer::run(raft.clone(), shared.clone(), config.clock, waiting));
        let snapshots = tokio::spawn(make_snapshots(raft.clone(), shared.clone())).abort_handle();
        let inner = Inner {
            id: config.id,
            raft,
            shared,
            proposals: Mutex::new(Some(proposals)),
            incoming: Incoming::default(),
            syncs,
            repair: recovered.repair,
            snapshots,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Proposes a command. When this returns a reply the command is committed, applied and durable.
    /// Proposals made at the same time share a log entry. Dropping the future does not take the command
    /// back.
    pub async fn propose(&self, command: &L::Command) -> Result<L::Reply, ProposeError> {
        let bytes = encode(command)?;
        if bytes.len() > MAX_COMMAND_BYTES {
            return Err(ProposeError::TooLarge { bytes: bytes.len() });
        }
        let proposals = self.proposals().clone().ok_or(ProposeError::Stopped)?;
        let (answer, answered) = oneshot::channel();
        let proposal = Proposal { command: ByteBuf::from(bytes), answer };
        proposals.send(proposal).await.map_err(|_| ProposeError::Stopped)?;
        drop(proposals);
        let reply = answered.await.map_err(|_| ProposeError::Stopped)??;
        Ok(types::decode(&reply)?)
    }

    /// Looks at the state. Everything answered by [`Replica::propose`] here is in it. Keep it short:
    /// nothing is applied meanwhile.
    pub fn read<T>(&self, look: impl FnOnce(&L) -> T) -> T {
        look(&self.inner.shared.read().law)
    }

    /// Commands applied since the farm began: the index of the last one.
    pub fn last_index(&self) -> u64 {
        self.inner.shared.read().last_index
    }

    /// The stamp of the last command applied; the beginning of 1970 if there was none.
    pub fn last_stamp(&self) -> Timestamp {
        self.inner.shared.read().last_stamp
    }

    /// The events from now on. Subscribe first, then look at the state, and nothing is missed.
    pub fn events(&self) -> Events<L::Event> {
        Events::new(self.inner.shared.events.subscribe())
    }

    /// The coordinator that leads, as far as this one knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.inner.raft.metrics().borrow().current_leader
    }

    /// Whether this coordinator leads, as far as it knows.
    pub fn leads(&self) -> bool {
        self.leader() == Some(self.inner.id)
    }

    /// Answers a call that another coordinator made through its [`Carry`]. The caller checks that it
    /// comes from a coordinator, and that it is no larger than [`CALL_BYTES_MAX`].
    pub async fn answer(&self, call: &[u8]) -> Result<Vec<u8>, AnswerError> {
        peers::answer(&self.inner.raft, self.inner.id, &self.inner.incoming, call).await
    }

    /// Counts how often the log waits for the disk.
    pub fn syncs(&self) -> Arc<Syncs> {
        self.inner.syncs.clone()
    }

    /// What was cut off the end of the log when it was opened.
    pub fn repair(&self) -> Option<&Repair> {
        self.inner.repair.as_ref()
    }

    /// Waits until the replica has stopped by itself, and says why: its disk failed, and only opening it afresh tells what is
    /// on it. Never returns for one that is closed.
    pub async fn failure(&self) -> String {
        let mut metrics = self.inner.raft.metrics();
        loop {
            match &metrics.borrow_and_update().running_state {
                Ok(()) | Err(Fatal::Stopped) => {}
                Err(error) => return error.to_string(),
            }
            if metrics.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Stops. Proposals that were not answered yet end with [`ProposeError::Stopped`]. The folder is free
    /// when this returns; in a larger group, as soon as calls to other coordinators have ended too.
    pub async fn close(&self) -> Result<(), OpenError> {
        self.proposals().take();
        self.inner.snapshots.abort();
        self.inner.raft.shutdown().await.map_err(|_| OpenError::Runtime)
    }

    fn proposals(&self) -> std::sync::MutexGuard<'_, Option<mpsc::Sender<Proposal>>> {
        self.inner.proposals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<L: Law> Drop for Inner<L> {
    fn drop(&mut self) {
        self.snapshots.abort();
    }
}

fn raft_config() -> Result<Arc<Config>, Box<openraft::ConfigError>> {
    let config = Config {
        cluster_name: "barnraise".into(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MS_MIN,
        election_timeout_max: ELECTION_MS_MAX,
        install_snapshot_timeout: SNAPSHOT_MS_MAX,
        max_payload_entries: REPLICATED_ENTRIES_MAX,
        replication_lag_threshold: LAG_ENTRIES_MAX,
        // Snapshots are due by bytes, see `machine`.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: ENTRIES_KEPT,
        ..Config::default()
    };
    Ok(Arc::new(config.validate()?))
}

/// A group of one need not wait for an election timeout: it elects itself and applies its log.
async fn lead_if_alone(raft: &Raft, id: NodeId) -> Result<(), OpenError> {
    let (alone, leads) = raft
        .with_raft_state(move |state| {
            let voters = state.membership_state.effective().voter_ids();
            (voters.eq([id]), state.server_state == ServerState::Leader)
        })
        .await
        .map_err(Box::new)?;
    if !alone {
        return Ok(());
    }
    if !leads {
        raft.trigger().elect().await.map_err(Box::new)?;
    }
    let wait = raft.wait(Some(LEAD_ALONE_WITHIN));
    let ready = wait.metrics(
        |metrics| {
            metrics.state == ServerState::Leader
                && metrics.last_applied.map(|log_id| log_id.index) == metrics.last_log_index
        },
        "alone in its group",
    );
    ready.await.map(drop).map_err(|error| OpenError::NotLeading(error.to_string()))
}

/// Asks for a snapshot whenever one is due.
async fn make_snapshots<L: Law>(raft: Raft, shared: Arc<Shared<L>>) {
    loop {
        shared.snapshot_due.notified().await;
        if let Err(error) = raft.trigger().snapshot().await {
            tracing::info!(%error, "no snapshot is made: the replica has stopped");
            return;
        }
    }
}
