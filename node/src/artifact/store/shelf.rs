//! What a store needs of the place its blobs lie in. There are two: [`super::disk`] and [`super::memory`].
//!
//! A shelf keeps bytes under a digest and never looks at them; verifying is the part of [`super::Store`].

use protocol::digest::Digest;
use protocol::time::Timestamp;
use std::fmt::Debug;
use std::io;
use std::time::Duration;
use tokio_util::bytes::Bytes;

/// How long what was left aside may wait to be taken up.
pub(super) const ASIDE_FOR: Duration = Duration::from_secs(24 * 3_600);

/// A blob that was written but is not part of the store until it is settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Staged {
    pub(super) digest: Digest,
    pub(super) place: Place,
}

/// Where a staged blob is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The store had it already; settling makes sure that it is durable too.
    Shelf,
    /// Aside, under this number.
    Aside(u64),
}

/// Whether a blob is on the shelf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    Here,
    Absent,
}

/// A blob on the shelf, as its metadata describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::artifact) struct Listed {
    pub(in crate::artifact) digest: Digest,
    pub(in crate::artifact) len: u64,
    /// When it was put, or last asked about.
    pub(in crate::artifact) touched: Timestamp,
}

/// Small words kept beside the blobs, from which a lost index is rebuilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Note {
    /// A judged build, by build key.
    Judged,
    /// A pin, by manifest; empty.
    Pin,
}

/// Whom a note is about: the bytes of a build key or manifest id.
pub(super) type NoteKey = [u8; 32];

/// A place for blobs. Every method may block.
pub(super) trait Shelf: Debug + Send + Sync {
    /// Whether the blob is here; if so, it counts as asked about now.
    fn touch(&self, digest: &Digest) -> io::Result<Presence>;
    /// The blob's bytes as they are.
    fn read(&self, digest: &Digest) -> io::Result<Option<Bytes>>;
    /// Moves a damaged blob out of reach.
    fn quarantine(&self, digest: &Digest) -> io::Result<()>;
    /// Writes a blob aside.
    fn stage(&self, digest: &Digest, bytes: Bytes) -> io::Result<Staged>;
    /// A blob that an earlier batch left aside without settling it; its bytes may be torn.
    fn left_over(&self, digest: &Digest) -> io::Result<Option<(Staged, Bytes)>>;
    /// Makes staged blobs part of the store; when this returns, they survive a power cut.
    fn settle(&self, staged: &[Staged]) -> io::Result<()>;
    /// Leaves staged blobs aside for a later batch.
    fn leave(&self, staged: Vec<Staged>);
    /// Deletes a staged blob.
    fn discard(&self, staged: &Staged) -> io::Result<()>;
    /// Deletes what was left aside before `before`.
    fn sweep_aside(&self, before: Timestamp) -> io::Result<()>;
    /// Deletes a blob and says how many bytes that freed.
    fn remove(&self, digest: &Digest) -> io::Result<u64>;
    /// Every blob, in order of digest.
    fn list(&self) -> io::Result<Vec<Listed>>;
    /// Writes a note.
    fn put_note(&self, note: Note, key: &NoteKey, bytes: &[u8]) -> io::Result<()>;
    /// Reads a note.
    fn note(&self, note: Note, key: &NoteKey) -> io::Result<Option<Vec<u8>>>;
    /// Deletes a note.
    fn remove_note(&self, note: Note, key: &NoteKey) -> io::Result<()>;
    /// The keys of every note of a kind, in order.
    fn notes(&self, note: Note) -> io::Result<Vec<NoteKey>>;
    /// The shelf's clock.
    fn now(&self) -> Timestamp;
    /// How many times somebody had to wait for the disk to sync, one after the other.
    fn sync_rounds(&self) -> u64;
    /// Flips one bit of a blob.
    #[cfg(test)]
    fn damage(&self, digest: &Digest);
}
