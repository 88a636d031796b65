//! The words between us and openraft: what an entry carries, what applying it answers, who sits where.
//!
//! Raft sees commands and replies as bytes: the proposer encodes a command once and those bytes are
//! logged, sent and decoded once per replica.

use std::fmt;

use protocol::farm::command::LawVersion;
use protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use tokio_util::bytes::Bytes;

/// A coordinator's number within Raft, given once and never reused.
pub type NodeId = u64;

openraft::declare_raft_types!(
    /// How openraft is used here.
    pub Types:
        D = Batch,
        R = Replies,
        NodeId = NodeId,
        Node = Seat,
        SnapshotData = SnapshotImage,
);

pub(super) type LogId = openraft::LogId<NodeId>;
pub(super) type RaftEntry = openraft::Entry<Types>;
pub(super) type StorageError = openraft::StorageError<NodeId>;
pub(super) type StorageIoError = openraft::StorageIOError<NodeId>;
pub(super) type Snapshot = openraft::Snapshot<Types>;
pub(super) type SnapshotMeta = openraft::SnapshotMeta<NodeId, Seat>;
pub(super) type Membership = openraft::StoredMembership<NodeId, Seat>;
pub(super) type Raft = openraft::Raft<Types>;

/// A place among the coordinators, and the peer that holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// The coordinator's libp2p peer id, as text.
    pub peer_id: String,
}

/// Commands that were proposed at about the same time and share one log entry, so one sync.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// In the order in which they are applied; never empty.
    pub commands: Vec<Stamped>,
}

/// A command with what its proposer added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamped {
    /// The proposer's clock; never less than in an earlier command.
    pub now: Timestamp,
    /// The newest version of the law that the proposer knows.
    pub law_version: LawVersion,
    /// The command's canonical encoding.
    pub command: ByteBuf,
}

/// The encoded replies to a [`Batch`], one for each command; empty for Raft's own entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replies(pub Vec<ByteBuf>);

/// A snapshot as it lies on disk and travels: packed, with a digest at its end.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SnapshotImage(pub Bytes);

impl fmt::Debug for SnapshotImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SnapshotImage({} bytes)", self.0.len())
    }
}

/// CBOR of plain data of ours or of openraft.
pub(super) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    cbor4ii::serde::to_vec(Vec::new(), value).map_err(|error| CodecError(error.to_string()))
}

/// Reads what [`encode`] wrote.
pub(super) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, CodecError> {
    cbor4ii::serde::from_slice(bytes).map_err(|error| CodecError(error.to_string()))
}

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the expected CBOR: {0}")]
pub struct CodecError(pub String);
