//! Raft between coordinators, over whatever carries bytes: calls out ([`Carry`]) and calls in
//! ([`answer`]).
//!
//! A call names the coordinator that it is meant for, and one that is not refuses it. Who is calling
//! is for the carrier to check: only coordinators may.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use openraft::error::{
    Fatal, NetworkError, RPCError, RaftError, RemoteError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{OptionalSend, RPCTypes, Vote};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use tokio::sync::Mutex;

use super::types::{CodecError, NodeId, Raft, Seat, Snapshot, SnapshotImage, SnapshotMeta, Types, decode, encode};

/// Largest call or answer, in bytes.
pub const CALL_BYTES_MAX: usize = 8 << 20;
/// Bytes of a snapshot sent at a time.
const PART_BYTES: usize = 1 << 20;
/// Largest packed snapshot that is accepted, in bytes.
const IMAGE_BYTES_MAX: u64 = 1 << 30;

/// Carries a call to the coordinator `NodeId` at `Seat` and its answer back, within the duration.
pub type Carry =
    Arc<dyn Fn(NodeId, Seat, Vec<u8>, Duration) -> BoxFuture<'static, Result<Vec<u8>, CarryError>> + Send + Sync>;

/// Why no answer came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CarryError {
    /// There is no connection: try again later.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The connection broke, or the other side answered nonsense: try again at once.
    #[error("the exchange failed: {0}")]
    Broken(String),
}

/// Why a call was not answered.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// The bytes are not a call.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The call is meant for another coordinator.
    #[error("the call is for coordinator {target}")]
    NotForUs {
        /// Whom it names.
        target: NodeId,
    },
    /// A part of a snapshot that does not follow the one before, or too large a snapshot.
    #[error("the snapshot's parts do not fit together")]
    Part,
    /// The replica has stopped.
    #[error(transparent)]
    Fatal(#[from] Fatal<NodeId>),
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    target: NodeId,
    call: Call,
}

#[derive(Serialize, Deserialize)]
enum Call {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<NodeId>),
    Snapshot(Part),
}

/// A piece of a snapshot; the first begins at 0, the last ends at `total`.
#[derive(Serialize, Deserialize)]
struct Part {
    vote: Vote<NodeId>,
    meta: SnapshotMeta,
    offset: u64,
    total: u64,
    bytes: ByteBuf,
}

#[derive(Serialize, Deserialize)]
enum Answer {
    Append(Result<AppendEntriesResponse<NodeId>, RaftError<NodeId>>),
    Vote(Result<VoteResponse<NodeId>, RaftError<NodeId>>),
    /// A part was taken, or the whole installed; the receiver's vote tells a leader that it is none.
    Snapshot(Vote<NodeId>),
}

/// The snapshot that is coming in, as far as it has come. One at a time: there is one leader.
#[derive(Debug, Default)]
pub(super) struct Incoming(Mutex<Option<Arriving>>);

#[derive(Debug)]
struct Arriving {
    meta: SnapshotMeta,
    total: u64,
    bytes: Vec<u8>,
}

/// Answers a call from another coordinator.
pub(super) async fn answer(raft: &Raft, own: NodeId, incoming: &Incoming, call: &[u8]) -> Result<Vec<u8>, AnswerError> {
    let Envelope { target, call } = decode(call)?;
    if target != own {
        return Err(AnswerError::NotForUs { target });
    }
    let answer = match call {
        Call::Append(request) => Answer::Append(raft.append_entries(request).await),
        Call::Vote(request) => Answer::Vote(raft.vote(request).await),
        Call::Snapshot(part) => Answer::Snapshot(incoming.take(raft, part).await?),
    };
    Ok(encode(&answer)?)
}

impl Incoming {
    async fn take(&self, raft: &Raft, part: Part) -> Result<Vote<NodeId>, AnswerError> {
        let own_vote = raft.with_raft_state(|state| *state.vote_ref()).await?;
        if part.vote < own_vote {
            return Ok(own_vote);
        }
        let mut arriving = self.0.lock().await;
        if part.offset == 0 {
            *arriving = Some(Arriving { meta: part.meta.clone(), total: part.total, bytes: Vec::new() });
        }
        let fits = |so_far: &&mut Arriving| {
            let end = part.offset.checked_add(part.bytes.len() as u64);
            so_far.meta == part.meta
                && so_far.total == part.total
                && part.total <= IMAGE_BYTES_MAX
                && so_far.bytes.len() as u64 == part.offset
                && end.is_some_and(|end| end <= part.total)
        };
        let so_far = arriving.as_mut().filter(fits).ok_or(AnswerError::Part)?;
        so_far.bytes.extend_from_slice(&part.bytes);
        if (so_far.bytes.len() as u64) < so_far.total {
            return Ok(own_vote);
        }
        let image = SnapshotImage(std::mem::take(&mut so_far.bytes).into());
        *arriving = None;
        let snapshot = Snapshot { meta: part.meta, snapshot: Box::new(image) };
        Ok(raft.install_full_snapshot(part.vote, snapshot).await?.vote)
    }
}

/// Makes the lines to other coordinators.
pub(super) struct Peers {
    pub(super) own: NodeId,
    pub(super) carry: Carry,
}

/// The line to one of them.
pub(super) struct Peer {
    own: NodeId,
    target: NodeId,
    seat: Seat,
    carry: Carry,
}

impl RaftNetworkFactory<Types> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: NodeId, seat: &Seat) -> Peer {
        Peer { own: self.own, target, seat: seat.clone(), carry: self.carry.clone() }
    }
}

impl Peer {
    async fn call(&self, call: Call, within: Duration) -> Result<Answer, CarryError> {
        let broken = |error: CodecError| CarryError::Broken(error.to_string());
        let bytes = encode(&Envelope { target: self.target, call }).map_err(broken)?;
        let answer = (self.carry)(self.target, self.seat.clone(), bytes, within).await?;
        decode(&answer).map_err(broken)
    }

    fn timeout(&self, action: RPCTypes, timeout: Duration) -> Timeout<NodeId> {
        Timeout { action, id: self.own, target: self.target, timeout }
    }

    fn rpc_error(
        &self,
        error: CarryError,
        action: RPCTypes,
        within: Duration,
    ) -> RPCError<NodeId, Seat, RaftError<NodeId>> {
        match error {
            CarryError::Unreachable(_) => RPCError::Unreachable(Unreachable::new(&error)),
            CarryError::Timeout => RPCError::Timeout(self.timeout(action, within)),
            CarryError::Broken(_) => RPCError::Network(NetworkError::new(&error)),
        }
    }

    fn remote(&self, error: RaftError<NodeId>) -> RPCError<NodeId, Seat, RaftError<NodeId>> {
        RPCError::RemoteError(RemoteError::new_with_node(self.target, self.seat.clone(), error))
    }
}

fn nonsense() -> CarryError {
    CarryError::Broken("the answer is to another kind of call".into())
}

impl RaftNetwork<Types> for Peer {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, RPCError<NodeId, Seat, RaftError<NodeId>>> {
        let within = option.hard_ttl();
        match self.call(Call::Append(request), within).await {
            Ok(Answer::Append(answer)) => answer.map_err(|error| self.remote(error)),
            Ok(_) => Err(self.rpc_error(nonsense(), RPCTypes::AppendEntries, within)),
            Err(error) => Err(self.rpc_error(error, RPCTypes::AppendEntries, within)),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<NodeId>,
        option: RPCOption,
    ) -> Result<VoteResponse<NodeId>, RPCError<NodeId, Seat, RaftError<NodeId>>> {
        let within = option.hard_ttl();
        match self.call(Call::Vote(request), within).await {
            Ok(Answer::Vote(answer)) => answer.map_err(|error| self.remote(error)),
            Ok(_) => Err(self.rpc_error(nonsense(), RPCTypes::Vote, within)),
            Err(error) => Err(self.rpc_error(error, RPCTypes::Vote, within)),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote<NodeId>,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<NodeId>, StreamingError<Types, Fatal<NodeId>>> {
        let mut cancel = std::pin::pin!(cancel);
        let within = option.hard_ttl();
        let image = snapshot.snapshot.0;
        let total = image.len() as u64;
        let mut offset = 0;
        loop {
            let end = image.len().min(offset + PART_BYTES);
            let part = Part {
                vote,
                meta: snapshot.meta.clone(),
                offset: offset as u64,
                total,
                bytes: ByteBuf::from(&image[offset..end]),
            };
            let answer = tokio::select! {
                closed = &mut cancel => return Err(closed.into()),
                answer = self.call(Call::Snapshot(part), within) => answer,
            };
            let theirs = match answer {
                Ok(Answer::Snapshot(theirs)) => theirs,
                Ok(_) => return Err(NetworkError::new(&nonsense()).into()),
                Err(CarryError::Timeout) => {
                    return Err(self.timeout(RPCTypes::InstallSnapshot, within).into());
                }
                Err(error @ CarryError::Unreachable(_)) => return Err(Unreachable::new(&error).into()),
                Err(error @ CarryError::Broken(_)) => return Err(NetworkError::new(&error).into()),
            };
            if theirs > vote || end == image.len() {
                return Ok(SnapshotResponse::new(theirs));
            }
            offset = end;
        }
    }
}

/// A call for the tests of [`answer`].
#[cfg(test)]
pub(super) fn vote_call(target: NodeId, request: VoteRequest<NodeId>) -> Vec<u8> {
    encode(&Envelope { target, call: Call::Vote(request) }).unwrap_or_default()
}
