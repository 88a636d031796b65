//! A write-ahead log for Raft: votes and log entries that survive `kill -9` and power loss.
//!
//! ```text
//! callers ─► bounded queue ─► one writer thread: takes all that waits, writes, syncs once, answers all
//!    └─ read ◄─ index: newest payloads in memory, where the others lie on disk
//! ```
//!
//! - An append is acknowledged (`done` is called) after `fdatasync`, and can be read from the moment
//!   [`Wal::append`] returns.
//! - The log is append-only: cutting its end off and purging its beginning are records too, so there is
//!   no half-done state. Segments of which all is purged are deleted afterwards.
//! - At open a torn last write is cut off ([`Recovered::repair`]); any other damage is
//!   [`WalError::Corrupt`]. A log is never silently shorter than what was acknowledged.
//! - Payloads and markers are opaque bytes: nothing here knows Raft.
//!
//! `record` is the bytes, `segment` the files, `index` the table of contents, `recover` the opening,
//! `writer` the thread, `vote` the vote's file; `inline` is the log without the thread, for simulation.

mod index;
mod inline;
mod record;
mod recover;
mod segment;
mod vote;
mod writer;

#[cfg(test)]
mod tests;

use std::fs::{File, TryLockError};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

pub use index::Gap;
use index::{Index, Slot};
pub use inline::{Inline, Stretch};
use segment::SegmentReader;
pub use segment::Syncs;
use writer::{Operation, Writer};

/// Largest payload of one entry, in bytes.
pub const ENTRY_BYTES_MAX: usize = record::PAYLOAD_BYTES_MAX - 8;

/// Operations that may wait for the writer before callers wait for room.
const QUEUE_OPERATIONS_MAX: usize = 256;
/// How long, and how often, a lock that somebody holds is tried.
const LOCK_WITHIN: Duration = Duration::from_millis(500);
const LOCK_AGAIN: Duration = Duration::from_millis(5);

/// An entry: its index and its payload.
pub type Entry = (u64, Arc<[u8]>);

/// How a log is kept.
#[derive(Clone, Debug)]
pub struct WalConfig {
    /// Bytes after which a new segment is begun.
    pub segment_bytes: u64,
    /// Payload bytes kept in memory besides what waits to be written.
    pub cache_bytes: usize,
}

impl Default for WalConfig {
    fn default() -> Self {
        Self { segment_bytes: 8 << 20, cache_bytes: 1 << 20 }
    }
}

/// Why the log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The file system refused.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Bytes that had been synced are not what they were.
    #[error("the log is damaged in {} at byte {offset}: {why}", file.display())]
    Corrupt {
        /// The damaged file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        why: String,
    },
    /// Another process has this log open.
    #[error("the log in {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// The entry does not follow the last one.
    #[error(transparent)]
    Gap(#[from] Gap),
    /// The entry is larger than [`ENTRY_BYTES_MAX`].
    #[error("an entry of {bytes} bytes is larger than {ENTRY_BYTES_MAX}")]
    TooLarge {
        /// Size of the entry.
        bytes: usize,
    },
    /// The writer is gone.
    #[error("the log is closed")]
    Closed,
}

impl WalError {
    fn io(action: &'static str, source: io::Error) -> Self {
        Self::Io { action, source }
    }
}

/// What was found when the log was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Indices of the entries held.
    pub entries: Range<u64>,
    /// The vote last saved.
    pub vote: Option<Vec<u8>>,
    /// What was cut off the end.
    pub repair: Option<Repair>,
}

/// The end of a write that a crash had torn, and that was cut off at open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// The segment that was mended.
    pub file: PathBuf,
    /// Its length since.
    pub offset: u64,
    /// Bytes cut off.
    pub bytes_cut: u64,
}

/// A handle to an open log; clones share it. The log closes, waiting for what is queued, when the last
/// handle is dropped.
#[derive(Clone, Debug)]
pub struct Wal {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    shared: Arc<Shared>,
    operations: Option<mpsc::Sender<Operation>>,
    writer: Option<JoinHandle<()>>,
    /// Held locked for as long as the log is open.
    _lock: File,
}

/// What handles and writer share.
#[derive(Debug)]
struct Shared {
    index: Mutex<Index>,
    syncs: Arc<Syncs>,
    /// Set when the last handle goes: a writer that waits for space gives up.
    closing: AtomicBool,
}

impl Shared {
    fn new(index: Index, syncs: Arc<Syncs>) -> Self {
        Self { index: Mutex::new(index), syncs, closing: AtomicBool::new(false) }
    }

    /// Held for memory operations only, never while waiting for a disk.
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }
}

impl Wal {
    /// Opens the log in `folder`, made if it is not there, and starts its writer. Blocks on the disk.
    pub fn open(folder: &Path, config: &WalConfig) -> Result<(Self, Recovered), WalError> {
        let syncs = Arc::new(Syncs::default());
        syncs.make_folder(folder).map_err(|error| WalError::io("make the log's folder", error))?;
        let lock = lock(folder)?;
        let vote = vote::read(folder)?;
        let mut recovery = recover::recover(folder, config, &syncs)?;
        let recovered = Recovered { entries: recovery.index.range(), vote, repair: recovery.repair.take() };

        let index = std::mem::take(&mut recovery.index);
        let frontier = index.frontier().clone();
        let shared = Arc::new(Shared::new(index, syncs));
        let (operations, queue) = mpsc::channel(QUEUE_OPERATIONS_MAX);
        let writer = Writer::new(folder.to_owned(), config.segment_bytes, shared.clone(), queue, recovery, frontier);
        let writer = thread::Builder::new()
            .name("wal".into())
            .spawn(move || writer.run())
            .map_err(|error| WalError::io("start the log's writer", error))?;
        let inner = Inner {
            folder: folder.to_owned(),
            shared,
            operations: Some(operations),
            writer: Some(writer),
            _lock: lock,
        };
        Ok((Self { inner: Arc::new(inner) }, recovered))
    }

    /// Appends `entries`, which continue the log without a gap. They can be read when this returns, and
    /// are on disk when `done` is called, from the writer's thread. Waits while the queue is full. On an
    /// error nothing is appended and `done` is dropped.
    pub async fn append(
        &self,
        entries: Vec<Entry>,
        done: impl FnOnce(io::Result<()>) + Send + 'static,
    ) -> Result<(), WalError> {
        if let Some((_, payload)) = entries.iter().find(|(_, payload)| payload.len() > ENTRY_BYTES_MAX) {
            return Err(WalError::TooLarge { bytes: payload.len() });
        }
        let room = self.room().await?;
        // Under one lock, so that index and queue agree on the order.
        let mut index = self.inner.shared.index();
        if let Some((first, _)) = entries.first() {
            index.continues_with(*first)?;
            for (position, (found, _)) in entries.iter().enumerate() {
                let expected = first + position as u64;
                if *found != expected {
                    return Err(Gap { expected, found: *found }.into());
                }
            }
        }
        for (at, payload) in &entries {
            index.append(*at, Slot::Queued(payload.clone()))?;
        }
        room.send(Operation::Append { entries, done: Box::new(done) });
        Ok(())
    }

    /// Cuts off the entries from `since` on; durable when it returns.
    pub async fn truncate(&self, since: u64) -> Result<(), WalError> {
        let (done, answer) = answer();
        let room = self.room().await?;
        {
            let mut index = self.inner.shared.index();
            index.truncate(since);
            room.send(Operation::Truncate { since, done });
        }
        heard("cut off the end of the log", answer).await
    }

    /// Forgets the entries up to and with `upto`; `marker` is kept to name the last of them. Durable
    /// when it returns. A lower `upto` than before changes nothing.
    pub async fn purge(&self, upto: u64, marker: Vec<u8>) -> Result<(), WalError> {
        let (done, answer) = answer();
        let room = self.room().await?;
        {
            let mut index = self.inner.shared.index();
            index.purge(upto, &marker);
            room.send(Operation::Purge { upto, marker, done });
        }
        heard("purge the log", answer).await
    }

    /// Replaces the vote; durable when it returns, and not before everything asked for earlier.
    pub async fn save_vote(&self, vote: Vec<u8>) -> Result<(), WalError> {
        let (done, answer) = answer();
        self.room().await?.send(Operation::Vote { vote, done });
        heard("save the vote", answer).await
    }

    /// Notes how far the log is committed. It is written along with what comes next, not synced for its
    /// own sake: after a crash an earlier note may be found.
    pub fn note_committed(&self, marker: &[u8]) {
        self.inner.shared.index().commit(marker);
    }

    /// The last note of [`Wal::note_committed`].
    pub fn committed(&self) -> Option<Vec<u8>> {
        self.inner.shared.index().frontier().committed.clone()
    }

    /// The last purged index and its marker.
    pub fn purged(&self) -> Option<(u64, Vec<u8>)> {
        self.inner.shared.index().frontier().purged.clone()
    }

    /// Indices of the entries held.
    pub fn entries(&self) -> Range<u64> {
        self.inner.shared.index().range()
    }

    /// The entries held within `range`, in order, but none after the first that takes the sum of their
    /// sizes beyond `bytes_max`. Reads from disk what is no longer in memory, so it may block.
    pub fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<Entry>, WalError> {
        let slots: Vec<(u64, Slot)> = {
            let index = self.inner.shared.index();
            let held = index.range();
            (range.start.max(held.start)..range.end.min(held.end))
                .filter_map(|at| index.slot(at).map(|slot| (at, slot.clone())))
                .collect()
        };
        let mut bytes = 0;
        let mut reader = None;
        let mut entries = Vec::with_capacity(slots.len());
        for (at, slot) in slots {
            if bytes > bytes_max {
                break;
            }
            let payload = match slot {
                Slot::Queued(payload) | Slot::Cached(payload, _) => payload,
                Slot::Stored(location) => match self.read_stored(at, location, &mut reader) {
                    Ok(payload) => payload.into(),
                    // Purged since the index was looked at.
                    Err(_) if self.entries().start > at => continue,
                    Err(error) => return Err(WalError::io("read the log", error)),
                },
            };
            bytes += payload.len();
            entries.push((at, payload));
        }
        Ok(entries)
    }

    /// As [`Wal::read`], without a disk; none if an entry asked for is no longer in memory.
    pub fn read_in_memory(&self, range: Range<u64>, bytes_max: usize) -> Option<Vec<Entry>> {
        let index = self.inner.shared.index();
        let held = index.range();
        let mut bytes = 0;
        let mut entries = Vec::new();
        for at in range.start.max(held.start)..range.end.min(held.end) {
            if bytes > bytes_max {
                break;
            }
            match index.slot(at)? {
                Slot::Queued(payload) | Slot::Cached(payload, _) => {
                    bytes += payload.len();
                    entries.push((at, payload.clone()));
                }
                Slot::Stored(_) => return None,
            }
        }
        Some(entries)
    }

    /// How often the log has waited for the disk since it was opened: the opening itself, one for each
    /// batch, two for each vote and each new segment. Outlives the log.
    pub fn syncs(&self) -> Arc<Syncs> {
        self.inner.shared.syncs.clone()
    }

    fn read_stored(
        &self,
        at: u64,
        location: index::Location,
        reader: &mut Option<SegmentReader>,
    ) -> io::Result<Vec<u8>> {
        let open = match reader.take() {
            Some(open) if open.sequence() == location.segment => open,
            _ => SegmentReader::open(&self.inner.folder, location.segment)?,
        };
        reader.insert(open).entry(at, location.offset, location.length)
    }

    async fn room(&self) -> Result<mpsc::Permit<'_, Operation>, WalError> {
        let operations = self.inner.operations.as_ref().ok_or(WalError::Closed)?;
        operations.reserve().await.map_err(|_| WalError::Closed)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        self.operations = None;
        if let Some(writer) = self.writer.take()
            && writer.thread().id() != thread::current().id()
            && writer.join().is_err()
        {
            tracing::error!("the log's writer panicked");
        }
    }
}

/// Takes the log for this process. A program that is just being started by whoever had it last holds a copy of the lock until
/// its exec, so a lock that is taken is tried again for a moment.
fn lock(folder: &Path) -> Result<File, WalError> {
    let file = File::create(folder.join("lock")).map_err(|error| WalError::io("lock the log", error))?;
    let until = Instant::now() + LOCK_WITHIN;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < until => thread::sleep(LOCK_AGAIN),
            Err(TryLockError::WouldBlock) => return Err(WalError::InUse(folder.to_owned())),
            Err(TryLockError::Error(error)) => return Err(WalError::io("lock the log", error)),
        }
    }
}

fn answer() -> (writer::Done, oneshot::Receiver<io::Result<()>>) {
    let (tell, answer) = oneshot::channel();
    let done = move |result| {
        // Whoever asked may have stopped waiting; the write stands all the same.
        let _ = tell.send(result);
    };
    (Box::new(done), answer)
}

async fn heard(action: &'static str, answer: oneshot::Receiver<io::Result<()>>) -> Result<(), WalError> {
    match answer.await {
        Ok(result) => result.map_err(|error| WalError::io(action, error)),
        Err(_) => Err(WalError::Closed),
    }
}
