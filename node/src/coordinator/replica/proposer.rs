//! One task that turns proposals into log entries: what waits together becomes one entry, so one sync.
//!
//! openraft 0.9 writes and syncs each entry before it looks at the next, so the grouping must happen
//! before it. While one entry is on its way the next proposals gather. Where the disk is faster than that,
//! whatever else can run on this machine runs first, as long as it brings more proposals: on a busy machine
//! a sync serves many, and nothing ever waits for a clock. An idle replica adds no delay.

use std::sync::Arc;

use openraft::error::{ClientWriteError, RaftError};
use protocol::farm::command::{LawVersion, MAX_COMMAND_BYTES};
use protocol::time::Timestamp;
use serde_bytes::ByteBuf;
use tokio::sync::{mpsc, oneshot};

use crate::clock::Clock;

use super::law::Law;
use super::machine::Shared;
use super::types::{Batch, CodecError, NodeId, Raft, Seat, Stamped};

/// Commands that one entry takes.
const BATCH_COMMANDS_MAX: usize = 256;
/// Bytes after which an entry takes no further command.
const BATCH_BYTES_MAX: usize = 256 << 10;
/// Turns in a row, given to everything else that can run, without a further proposal: nobody is about to
/// bring one.
const FRUITLESS_TURNS_MAX: usize = 3;
/// Proposals that may wait before proposers wait for room.
pub(super) const WAITING_MAX: usize = 1024;

/// Why a command was not answered. The law's own refusals are replies, not errors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// The command is larger than [`MAX_COMMAND_BYTES`]. It was not proposed.
    #[error("a command of {bytes} bytes is larger than {MAX_COMMAND_BYTES}")]
    TooLarge {
        /// Size of its encoding.
        bytes: usize,
    },
    /// Command or reply do not encode or decode.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Another coordinator leads, or none does at the moment. If this one led until now, its successor
    /// may still commit the command: propose it again there, commands bear repetition.
    #[error("this coordinator does not lead{}", leader.as_ref().map(|(id, _)| format!("; {id} does")).unwrap_or_default())]
    NotLeader {
        /// Who leads, if it is known.
        leader: Option<(NodeId, Seat)>,
    },
    /// The replica stopped, by request or because its disk failed. Whether the command is in the log
    /// shows when it is opened again.
    #[error("the replica has stopped")]
    Stopped,
}

/// A command that waits for its entry.
#[derive(Debug)]
pub(super) struct Proposal {
    pub(super) command: ByteBuf,
    pub(super) answer: oneshot::Sender<Result<ByteBuf, ProposeError>>,
}

/// Proposes until every sender is gone.
pub(super) async fn run<L: Law>(
    raft: Raft,
    shared: Arc<Shared<L>>,
    clock: Clock,
    mut proposals: mpsc::Receiver<Proposal>,
) {
    // The last stamp given. The state's may be behind it while an entry is on its way.
    let mut stamp = Timestamp::EPOCH;
    while let Some(first) = proposals.recv().await {
        let waiting = gather(first, &mut proposals).await;
        stamp = clock.now().max(stamp).max(shared.read().last_stamp);
        propose(&raft, stamp, L::NEWEST, waiting).await;
    }
}

/// What waits beside `first`, and what those who can run already bring.
async fn gather(first: Proposal, proposals: &mut mpsc::Receiver<Proposal>) -> Vec<Proposal> {
    let mut bytes = first.command.len();
    let mut waiting = vec![first];
    let mut fruitless = 0;
    loop {
        let before = waiting.len();
        while let Ok(next) = proposals.try_recv() {
            bytes += next.command.len();
            waiting.push(next);
            if waiting.len() == BATCH_COMMANDS_MAX || bytes >= BATCH_BYTES_MAX {
                return waiting;
            }
        }
        fruitless = if waiting.len() > before { 0 } else { fruitless + 1 };
        if fruitless > FRUITLESS_TURNS_MAX {
            return waiting;
        }
        tokio::task::yield_now().await;
    }
}

/// Proposes one entry and answers everybody in it.
async fn propose(raft: &Raft, now: Timestamp, law_version: LawVersion, waiting: Vec<Proposal>) {
    let (commands, answers): (Vec<_>, Vec<_>) =
        waiting.into_iter().map(|Proposal { command, answer }| (Stamped { now, law_version, command }, answer)).unzip();
    let result = match raft.client_write(Batch { commands }).await {
        Ok(written) => Ok(written.data.0),
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => {
            Err(ProposeError::NotLeader { leader: to.leader_id.zip(to.leader_node) })
        }
        // Membership errors answer membership changes only; a fatal error means that it has stopped.
        Err(error) => {
            tracing::error!(%error, "the replica has stopped");
            Err(ProposeError::Stopped)
        }
    };
    match result {
        Ok(replies) => {
            for (answer, reply) in answers.into_iter().zip(replies) {
                // Whoever asked may have stopped waiting; the command was applied all the same.
                let _ = answer.send(Ok(reply));
            }
        }
        Err(error) => {
            for answer in answers {
                let _ = answer.send(Err(error.clone()));
            }
        }
    }
}
