//! The one thread that writes the log: takes everything queued, writes it, syncs once, answers all.
//!
//! A full disk is waited for: the same bytes are written to the same place until they fit and are synced, and nobody is
//! answered before. After any other failed write or sync nothing is written any more and every caller is told: what a
//! disk holds after a failed sync cannot be known, so the log must be opened afresh.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc;

use super::index::Location;
use super::record::{Frontier, Place, Record};
use super::recover::{Recovery, Sealed};
use super::segment::{self, Segment};
use super::{Entry, Shared, vote};

/// Told when the operation is on disk, or why it is not.
pub(super) type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Operations that one sync may cover.
const BATCH_OPERATIONS_MAX: usize = 256;
/// Payload bytes after which a batch takes no further operation.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// A segment that holds this part of what it may is closed when the log is purged, so that the next purge can delete it.
const CLOSED_AT_PURGE_PART: u64 = 16;
/// How often a full disk is tried again.
const FULL_AGAIN: Duration = Duration::from_millis(250);
/// More than the bytes of a record around its payload.
const RECORD_OVERHEAD_BYTES: usize = 64;

/// One thing to write.
pub(super) enum Operation {
    Append { entries: Vec<Entry>, done: Done },
    Truncate { since: u64, done: Done },
    Purge { upto: u64, marker: Vec<u8>, done: Done },
    Vote { vote: Vec<u8>, done: Done },
}

pub(super) struct Writer {
    folder: PathBuf,
    segment_bytes: u64,
    shared: Arc<Shared>,
    operations: mpsc::Receiver<Operation>,
    segment: Segment,
    sealed: VecDeque<Sealed>,
    highest: Option<u64>,
    /// The log as far as it is written; what is queued is ahead of it.
    frontier: Frontier,
    batch: u64,
    failed: Option<(io::ErrorKind, String)>,
}

impl Writer {
    pub(super) fn new(
        folder: PathBuf,
        segment_bytes: u64,
        shared: Arc<Shared>,
        operations: mpsc::Receiver<Operation>,
        recovery: Recovery,
        frontier: Frontier,
    ) -> Self {
        Self {
            folder,
            segment_bytes,
            shared,
            operations,
            segment: recovery.segment,
            sealed: recovery.sealed,
            highest: recovery.highest,
            frontier,
            batch: recovery.batch,
            failed: None,
        }
    }

    /// Serves until every handle is gone; then notes how far the log is committed.
    pub(super) fn run(mut self) {
        while let Some(operation) = self.operations.blocking_recv() {
            let mut bytes = operation.bytes();
            let mut operations = vec![operation];
            while operations.len() < BATCH_OPERATIONS_MAX
                && bytes < BATCH_BYTES_MAX
                && let Ok(operation) = self.operations.try_recv()
            {
                bytes += operation.bytes();
                operations.push(operation);
            }
            self.serve(operations);
        }
        self.write(Vec::new());
    }

    /// Votes and log are written in the order in which they were asked for.
    fn serve(&mut self, operations: Vec<Operation>) {
        let mut log = Vec::with_capacity(operations.len());
        for operation in operations {
            match operation {
                Operation::Vote { vote, done } => {
                    self.write(std::mem::take(&mut log));
                    let result = self.healthy().and_then(|()| {
                        let written =
                            when_it_fits(&self.shared, || vote::write(&self.folder, &vote, &self.shared.syncs));
                        written.map_err(|error| self.fail(error))
                    });
                    done(result);
                }
                other => log.push(other),
            }
        }
        self.write(log);
    }

    /// Writes `operations` as one batch with one sync, then answers each of them.
    pub(super) fn write(&mut self, operations: Vec<Operation>) {
        let result = self.healthy().and_then(|()| self.write_batch(&operations).map_err(|error| self.fail(error)));
        for operation in operations {
            let (Operation::Append { done, .. }
            | Operation::Truncate { done, .. }
            | Operation::Purge { done, .. }
            | Operation::Vote { done, .. }) = operation;
            done(match (&result, &self.failed) {
                (Err(_), Some((kind, why))) => Err(io::Error::new(*kind, why.clone())),
                _ => Ok(()),
            });
        }
    }

    fn write_batch(&mut self, operations: &[Operation]) -> io::Result<()> {
        let committed = self.shared.index().frontier().committed.clone();
        let mut records = Vec::with_capacity(operations.len() + 1);
        if committed != self.frontier.committed
            && let Some(marker) = &committed
        {
            records.push(Record::Committed { marker });
        }
        for operation in operations {
            operation.records(&mut records);
        }
        let Some(last) = records.len().checked_sub(1) else { return Ok(()) };

        let payload: usize = operations.iter().map(Operation::bytes).sum();
        let estimate = payload + records.len() * RECORD_OVERHEAD_BYTES;
        if self.segment.length() + estimate as u64 > self.segment_bytes {
            self.roll()?;
        }
        self.batch += 1;
        let mut bytes = Vec::with_capacity(estimate);
        let mut spans = Vec::with_capacity(records.len());
        for (position, record) in records.iter().enumerate() {
            let place = if position == last { Place::End } else { Place::Within };
            let start = bytes.len();
            record.encode(self.segment.salt(), self.batch, place, &mut bytes);
            spans.push((self.segment.length() + start as u64, bytes.len() - start));
        }
        when_it_fits(&self.shared, || self.segment.append(&bytes, &self.shared.syncs))?;

        for record in &records {
            self.follow(record);
        }
        self.publish(operations, &records, &spans);
        let is_purge = |operation: &Operation| matches!(operation, Operation::Purge { .. });
        if operations.iter().any(is_purge) && self.segment.length() >= self.segment_bytes / CLOSED_AT_PURGE_PART {
            self.roll()?;
        }
        self.delete_purged()
    }

    /// Brings `frontier` and `highest` up to a record that was written.
    fn follow(&mut self, record: &Record<'_>) {
        match record {
            Record::Entry { index, .. } => {
                self.frontier.append(*index);
                self.highest = self.highest.max(Some(*index));
            }
            Record::Truncate { since } => self.frontier.truncate(*since),
            Record::Purge { upto, marker } => self.frontier.purge(*upto, marker),
            Record::Committed { marker } => self.frontier.committed = Some(marker.to_vec()),
            Record::Frontier(_) => {}
        }
    }

    /// Tells the index where the entries lie.
    fn publish(&self, operations: &[Operation], records: &[Record<'_>], spans: &[(u64, usize)]) {
        let mut locations = records.iter().zip(spans).filter_map(|(record, &(offset, length))| {
            matches!(record, Record::Entry { .. }).then_some(Location {
                segment: self.segment.sequence(),
                offset,
                length,
            })
        });
        let mut index = self.shared.index();
        for operation in operations {
            let Operation::Append { entries, .. } = operation else { continue };
            for ((at, payload), location) in entries.iter().zip(locations.by_ref()) {
                index.stored(*at, payload, location);
            }
        }
    }

    fn roll(&mut self) -> io::Result<()> {
        self.batch += 1;
        let sequence = self.segment.sequence() + 1;
        let next = when_it_fits(&self.shared, || {
            Segment::create(&self.folder, sequence, self.batch, self.frontier.clone(), &self.shared.syncs)
        })?;
        let sealed = std::mem::replace(&mut self.segment, next);
        self.sealed.push_back(Sealed { sequence: sealed.sequence(), highest: self.highest.take() });
        Ok(())
    }

    /// Deletes, oldest first, the segments of which every entry is purged.
    fn delete_purged(&mut self) -> io::Result<()> {
        let Some((upto, _)) = self.frontier.purged else { return Ok(()) };
        while let Some(oldest) = self.sealed.front()
            && oldest.highest.is_none_or(|highest| highest <= upto)
        {
            fs::remove_file(segment::path(&self.folder, oldest.sequence))?;
            self.sealed.pop_front();
        }
        Ok(())
    }

    fn healthy(&self) -> io::Result<()> {
        match &self.failed {
            Some((kind, why)) => Err(io::Error::new(*kind, why.clone())),
            None => Ok(()),
        }
    }

    fn fail(&mut self, error: io::Error) -> io::Error {
        tracing::error!(%error, "the log cannot be written any more");
        self.failed = Some((error.kind(), error.to_string()));
        error
    }
}

/// Writes and syncs, again and again while the disk is full and nobody closes the log. Each try writes all of it anew, so what
/// an earlier one left in a cache does not matter.
fn when_it_fits<T>(shared: &Shared, mut write: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut is_told = false;
    loop {
        match write() {
            Err(error) if is_full(&error) && !shared.is_closing() => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::error!(%error, "the log waits for space: nothing is acknowledged until there is some");
                }
                thread::sleep(FULL_AGAIN);
            }
            written => {
                if is_told && written.is_ok() {
                    tracing::info!("the log has space again");
                }
                return written;
            }
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl Operation {
    /// Bytes of payload, for bounding a batch.
    fn bytes(&self) -> usize {
        match self {
            Operation::Append { entries, .. } => entries.iter().map(|(_, payload)| payload.len()).sum(),
            Operation::Purge { marker, .. } => marker.len(),
            Operation::Truncate { .. } | Operation::Vote { .. } => 0,
        }
    }

    fn records<'a>(&'a self, out: &mut Vec<Record<'a>>) {
        match self {
            Operation::Append { entries, .. } => {
                out.extend(entries.iter().map(|(index, payload)| Record::Entry { index: *index, payload }));
            }
            Operation::Truncate { since, .. } => out.push(Record::Truncate { since: *since }),
            Operation::Purge { upto, marker, .. } => out.push(Record::Purge { upto: *upto, marker }),
            Operation::Vote { .. } => {}
        }
    }
}
