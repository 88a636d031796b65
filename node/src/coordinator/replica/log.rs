//! openraft's log and vote, kept in a [`Wal`].

use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader, Vote};

use super::types::{LogId, NodeId, RaftEntry, StorageError, StorageIoError, Types, decode, encode};
use crate::coordinator::wal::Wal;

/// Payload bytes sent to a follower at a time, one entry more at most.
const REPLICATION_BYTES_MAX: usize = 1 << 20;

/// The log of one coordinator. Clones read the same log.
#[derive(Clone, Debug)]
pub(super) struct LogStore {
    wal: Wal,
    vote: Option<Vec<u8>>,
}

impl LogStore {
    /// `vote` is the one that opening the log found.
    pub(super) fn new(wal: Wal, vote: Option<Vec<u8>>) -> Self {
        Self { wal, vote }
    }

    #[expect(clippy::result_large_err, reason = "the error is openraft's")]
    async fn read(&self, range: std::ops::Range<u64>, bytes_max: usize) -> Result<Vec<RaftEntry>, StorageError> {
        let payloads = match self.wal.read_in_memory(range.clone(), bytes_max) {
            Some(payloads) => payloads,
            None => {
                let wal = self.wal.clone();
                let reading = tokio::task::spawn_blocking(move || wal.read(range, bytes_max));
                reading
                    .await
                    .map_err(|error| StorageIoError::read_logs(&error))?
                    .map_err(|error| StorageIoError::read_logs(&error))?
            }
        };
        payloads
            .iter()
            .map(|(index, payload)| {
                decode(payload).map_err(|error| StorageIoError::read_log_at_index(*index, &error).into())
            })
            .collect()
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<RaftEntry>, StorageError> {
        let start = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(index) => index.saturating_add(1),
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        self.read(start..end, usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<RaftEntry>, StorageError> {
        self.read(start..end, REPLICATION_BYTES_MAX).await
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let last_purged_log_id: Option<LogId> = match self.wal.purged() {
            Some((_, marker)) => Some(decode(&marker).map_err(|error| StorageIoError::read_logs(&error))?),
            None => None,
        };
        let end = self.wal.entries().end;
        let last = self.read(end.saturating_sub(1)..end, 0).await?;
        let last_log_id = last.last().map(|entry| entry.log_id).or(last_purged_log_id);
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<NodeId>) -> Result<(), StorageError> {
        let bytes = encode(vote).map_err(|error| StorageIoError::write_vote(&error))?;
        self.wal.save_vote(bytes.clone()).await.map_err(|error| StorageIoError::write_vote(&error))?;
        self.vote = Some(bytes);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<NodeId>>, StorageError> {
        let vote = self.vote.as_deref().map(decode).transpose();
        Ok(vote.map_err(|error| StorageIoError::read_vote(&error))?)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        let bytes = encode(&committed).map_err(|error| StorageIoError::write_logs(&error))?;
        self.wal.note_committed(&bytes);
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        let Some(bytes) = self.wal.committed() else { return Ok(None) };
        Ok(decode(&bytes).map_err(|error| StorageIoError::read_logs(&error))?)
    }

    async fn append<I>(&mut self, entries: I, flushed: LogFlushed<Types>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        // What a snapshot has replaced needs no place in the log again.
        let purged = self.wal.purged().map(|(upto, _)| upto);
        let mut payloads: Vec<(u64, Arc<[u8]>)> = Vec::new();
        for entry in entries {
            if Some(entry.log_id.index) <= purged {
                continue;
            }
            let bytes = encode(&entry).map_err(|error| StorageIoError::write_log_entry(entry.log_id, &error))?;
            payloads.push((entry.log_id.index, bytes.into()));
        }
        let done = move |result| flushed.log_io_completed(result);
        Ok(self.wal.append(payloads, done).await.map_err(|error| StorageIoError::write_logs(&error))?)
    }

    async fn truncate(&mut self, since: LogId) -> Result<(), StorageError> {
        let cut = self.wal.truncate(since.index).await;
        Ok(cut.map_err(|error| StorageIoError::write_logs(&error))?)
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), StorageError> {
        let marker = encode(&upto).map_err(|error| StorageIoError::write_logs(&error))?;
        let purged = self.wal.purge(upto.index, marker).await;
        Ok(purged.map_err(|error| StorageIoError::write_logs(&error))?)
    }
}
