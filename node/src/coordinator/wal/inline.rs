//! The log without its thread, for simulation: the same writer, segments and recovery, called where they are needed.
//!
//! Every call blocks on the disk, and nothing else happens meanwhile, so that a run repeats itself. Only one may be open on a
//! folder; nobody checks that.

use super::index::{Index, Location, Slot};
use super::segment::{self, SegmentReader, Syncs};
use super::writer::{Operation, Writer};
use super::{Entry, Recovered, Shared, WalConfig, WalError, recover};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// An open log that is written by whoever calls.
pub struct Inline {
    folder: PathBuf,
    shared: Arc<Shared>,
    writer: Writer,
}

/// Where a batch lies on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The segment; the batch is the last of it.
    pub file: PathBuf,
    /// The first of its bytes.
    pub from: u64,
    /// The byte behind its last.
    pub to: u64,
}

impl fmt::Debug for Inline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inline").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Inline {
    /// Opens the log in `folder`, made if it is not there.
    ///
    /// # Errors
    ///
    /// [`WalError`].
    pub fn open(folder: &Path, config: &WalConfig) -> Result<(Self, Recovered), WalError> {
        let syncs = Arc::new(Syncs::default());
        syncs.make_folder(folder).map_err(|error| WalError::io("make the log's folder", error))?;
        let mut recovery = recover::recover(folder, config, &syncs)?;
        let recovered = Recovered { entries: recovery.index.range(), vote: None, repair: recovery.repair.take() };
        let index: Index = std::mem::take(&mut recovery.index);
        let frontier = index.frontier().clone();
        let shared = Arc::new(Shared::new(index, syncs));
        // The writer is never run, so nobody needs its queue.
        let (_, queue) = mpsc::channel(1);
        let writer = Writer::new(folder.to_owned(), config.segment_bytes, shared.clone(), queue, recovery, frontier);
        Ok((Self { folder: folder.to_owned(), shared, writer }, recovered))
    }

    /// Appends `entries`, of which there are some and which continue the log without a gap, as one batch with one sync, and
    /// says where they lie.
    ///
    /// # Errors
    ///
    /// [`WalError`].
    pub fn append(&mut self, entries: Vec<Entry>) -> Result<Stretch, WalError> {
        let Some((first, _)) = entries.first().cloned() else { return Err(WalError::Closed) };
        for (at, payload) in &entries {
            self.shared.index().append(*at, Slot::Queued(payload.clone()))?;
        }
        let last = first + entries.len() as u64 - 1;
        let (tell, mut told) = oneshot::channel();
        let done = Box::new(move |result| {
            // It is waited for a few lines below.
            let _ = tell.send(result);
        });
        self.writer.write(vec![Operation::Append { entries, done }]);
        told.try_recv().map_err(|_| WalError::Closed)?.map_err(|error| WalError::io("append to the log", error))?;
        let index = self.shared.index();
        let (Some(begins), Some(ends)) = (index.slot(first).and_then(place), index.slot(last).and_then(place)) else {
            return Err(WalError::Closed);
        };
        let file = segment::path(&self.folder, begins.segment);
        Ok(Stretch { file, from: begins.offset, to: ends.offset + ends.length as u64 })
    }

    /// Every entry held, in order.
    ///
    /// # Errors
    ///
    /// [`WalError`].
    pub fn entries(&self) -> Result<Vec<Entry>, WalError> {
        let index = self.shared.index();
        let mut reader: Option<SegmentReader> = None;
        let mut entries = Vec::new();
        for at in index.range() {
            let payload: Arc<[u8]> = match index.slot(at) {
                Some(Slot::Queued(payload) | Slot::Cached(payload, _)) => payload.clone(),
                Some(Slot::Stored(location)) => {
                    let open = reader.take().filter(|open| open.sequence() == location.segment);
                    let read = open
                        .map_or_else(|| SegmentReader::open(&self.folder, location.segment), Ok)
                        .and_then(|open| reader.insert(open).entry(at, location.offset, location.length));
                    read.map_err(|error| WalError::io("read the log", error))?.into()
                }
                None => continue,
            };
            entries.push((at, payload));
        }
        Ok(entries)
    }
}

fn place(slot: &Slot) -> Option<Location> {
    match slot {
        Slot::Queued(_) => None,
        Slot::Cached(_, location) | Slot::Stored(location) => Some(*location),
    }
}
