//! The store: blobs under their SHA-256 digest, and the artifacts and judged builds they form.
//!
//! Chunks (at most 1 MiB), manifests (at most 64 MiB), recipes and logs are all blobs. The store promises three things.
//! What [`Store::put`] or [`Batch::commit`] acknowledged survives a power cut, at the price of two waits for the disk however
//! many blobs there are. What is read is what was put: every read is compared with its digest, and a blob that no longer fits
//! is moved to `quarantine/` and reported as missing, so that it is fetched again. And whoever evicts hears first what the
//! farm will lose ([`super::eviction`]).
//!
//! [`Store::open`] keeps blobs in a folder and its index in sled; every operation runs on the blocking pool.
//! [`Store::in_memory`] behaves the same, on the calling thread and in a fixed order, for simulation.

mod batch;
mod disk;
mod inner;
mod memory;
mod places;
mod shelf;
#[cfg(test)]
pub(in crate::artifact) mod tests;

pub use batch::{Batch, FileChunks};
pub use memory::Memory;

use super::index::{Completeness, Index, IndexError};
use super::need::{Need, Needed, Needs, source_digest};
use super::published::Published;
use super::{Checking, ChunkSource, Reading};
use crate::database::Database;
pub(in crate::artifact) use inner::Inner;
use protocol::codec::CodecError;
use protocol::digest::Digest;
use protocol::id::{BuildKey, ManifestId};
use protocol::owner::Damage;
use protocol::report::{Judged, Verdict};
use protocol::request::Source;
use protocol::signed::OpenError;
use protocol::time::Timestamp;
use protocol::tree::{Manifest, ManifestError};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio_util::bytes::Bytes;

/// The largest blob, in bytes: that of the largest manifest.
pub const MAX_BLOB_BYTES: usize = protocol::tree::MAX_MANIFEST_BYTES;

/// Blobs read again between two chances to stop.
const STRETCH: usize = 64;

/// A store cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk failed, or is full.
    #[error("the store cannot be read or written: {0}")]
    Disk(#[from] io::Error),
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A blob of more than [`MAX_BLOB_BYTES`].
    #[error("{0} bytes are too many for one blob")]
    TooLarge(usize),
    /// The blob with this digest is not a manifest.
    #[error("{id:?} names no manifest: {error}")]
    NotAManifest {
        /// What was asked for.
        id: ManifestId,
        /// What is wrong with it.
        error: ManifestError,
    },
    /// A verdict that cannot be read was to be kept.
    #[error("the verdict cannot be read: {0}")]
    Verdict(#[from] OpenError),
    /// What was kept of a judged build cannot be read.
    #[error("what was kept of build {key:?} is damaged: {error}")]
    Kept {
        /// The build.
        key: BuildKey,
        /// What is wrong with it.
        error: CodecError,
    },
    /// The program is ending and its blocking threads are gone.
    #[error("the store is shutting down")]
    ShuttingDown,
}

/// A cloneable handle on the store.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
    published: Published,
    needs: Needs,
}

/// What [`Store::add_artifact`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Added {
    /// Every chunk is here.
    Complete(ManifestId),
    /// The manifest is kept; these chunks are not here yet.
    Partial(ManifestId, Vec<Digest>),
}

/// A judged build as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The verdict with its chain.
    pub judged: Judged,
    /// Name of the recipe, for people.
    pub recipe: String,
}

/// A judged build at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptBuild {
    /// The build.
    pub build_key: BuildKey,
    /// The artifact.
    pub manifest: ManifestId,
    /// Name of the recipe, for people.
    pub recipe: String,
    /// Bytes of its files.
    pub size_bytes: u64,
    /// When the farm decided.
    pub decided_at: Timestamp,
    /// When the artifact was last added, read or served; the verdict's time if it never was here.
    pub last_used: Timestamp,
    /// Whether every chunk is here; only then may this peer say that it provides the build.
    pub completeness: Completeness,
    /// Whether it is kept whatever the store's size.
    pub pinned: Pinned,
}

/// Whether something is kept whatever the store's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pinned {
    /// It is.
    Yes,
    /// It may be evicted.
    No,
}

/// What a scrub of the whole store found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scrub {
    /// Blobs read.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that were damaged and are in quarantine now.
    pub damaged: Vec<Digest>,
    /// Artifacts of which something is missing.
    pub partial: Vec<ManifestId>,
    /// Judged builds among them: withdraw them and say that they are lost, or fetch them again.
    pub lost: Vec<BuildKey>,
}

impl Store {
    /// Opens the store in the folder `dir`, with its index in `db`. Missing folders are made; an index that is new or was lost
    /// is rebuilt from what lies in the folder.
    ///
    /// # Errors
    ///
    /// [`StoreError::Disk`] or [`StoreError::Index`].
    pub async fn open(dir: &Path, db: &Database) -> Result<Self, StoreError> {
        let (dir, db) = (dir.to_owned(), db.clone());
        pooled(move || {
            let index = Index::open(&db);
            let inner = Inner::new(Box::new(disk::Disk::open(&dir)?), index, Reading::Blocks);
            let damage = inner.index.check().err();
            if let Some(error) = &damage {
                tracing::warn!(%error, "the index of the store is damaged; it is filled anew from what the store holds");
            }
            if damage.is_some() || !inner.index.is_whole()? {
                inner.rebuild()?;
            } else {
                inner.catch_up()?;
            }
            Ok(Self { inner: Arc::new(inner), published: Published::default(), needs: Needs::default() })
        })
        .await
    }

    /// A store that lives as long as its handles: same behaviour, no disk, no threads, no clock but tokio's.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::over(Memory::default())
    }

    /// The same over a place that an earlier one has left. Its index is made anew from what lies there.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when what lies there cannot be read.
    pub fn reopen_in_memory(place: Memory) -> Result<Self, StoreError> {
        let store = Self::over(place);
        store.inner.rebuild()?;
        Ok(store)
    }

    fn over(place: Memory) -> Self {
        let inner = Inner::new(Box::new(place), Index::in_memory(), Reading::Immediate);
        Self { inner: Arc::new(inner), published: Published::default(), needs: Needs::default() }
    }

    /// Those of `digests` that are not here, in the same order. The others count as wanted: a sweep of loose blobs spares them
    /// for a while.
    ///
    /// # Errors
    ///
    /// [`StoreError::Disk`].
    pub async fn missing(&self, digests: Vec<Digest>) -> Result<Vec<Digest>, StoreError> {
        self.run(move |inner| inner.missing(digests)).await
    }

    /// The blob with this digest, verified; `None` when it is not here or was found damaged.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn get(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        let digest = *digest;
        self.run(move |inner| inner.read(&digest)).await
    }

    /// Puts blobs; when it returns they are durable.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; then none of them is acknowledged, though some may be here.
    pub async fn put(&self, blobs: Vec<Bytes>) -> Result<Vec<Digest>, StoreError> {
        let batch = self.batch();
        let digests = batch.blobs(blobs).await?;
        batch.commit().await?;
        Ok(digests)
    }

    /// A batch of blobs that become durable together: two waits for the disk at its commit, none before.
    #[must_use]
    pub fn batch(&self) -> Batch {
        Batch::new(self.clone())
    }

    /// Keeps the manifest and says which of its chunks are not here; with none missing the artifact is complete.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn add_artifact(&self, manifest: &Manifest) -> Result<Added, StoreError> {
        self.batch().commit_artifact(manifest).await
    }

    /// Whether the artifact is complete here.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn has_artifact(&self, id: ManifestId) -> Result<bool, StoreError> {
        self.run(move |inner| inner.has_artifact(id)).await
    }

    /// The tree that `source` is, if it was fetched before and is still complete here.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn source(&self, source: &Source) -> Result<Option<Manifest>, StoreError> {
        let digest = source_digest(source);
        self.run(move |inner| match inner.index.source(&digest)? {
            Some(tree) if inner.has_artifact(tree)? => inner.manifest(tree),
            _ => Ok(None),
        })
        .await
    }

    /// Remembers that `source` is this tree, as whoever fetched and verified it says.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn remember_source(&self, source: &Source, tree: ManifestId) -> Result<(), StoreError> {
        let digest = source_digest(source);
        self.run(move |inner| Ok(inner.index.put_source(&digest, &tree)?)).await
    }

    /// The manifest of an artifact whose every byte is here and fits its digest; reads all of it. What is damaged goes into
    /// quarantine, and an artifact that is not whole counts as partial from now on.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn whole(&self, id: ManifestId) -> Result<Option<Manifest>, StoreError> {
        self.run(move |inner| inner.whole(id)).await
    }

    /// The manifest with this id, for bookkeeping: not counted as a use of the artifact.
    pub(super) async fn look_at_manifest(&self, id: ManifestId) -> Result<Option<Manifest>, StoreError> {
        self.run(move |inner| inner.look_at_manifest(id)).await
    }

    /// The manifest with this id, if it is here.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn manifest(&self, id: ManifestId) -> Result<Option<Manifest>, StoreError> {
        self.run(move |inner| inner.manifest(id)).await
    }

    /// Keeps a judged build, whose chain the caller has verified. Whether the artifact is here is a matter of its own.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn keep_judged(&self, key: BuildKey, judged: Judged, recipe: String) -> Result<(), StoreError> {
        let manifest = judged.verdict.payload_unchecked::<Verdict>()?.manifest;
        self.run(move |inner| inner.keep_judged(key, Kept { judged, recipe })).await?;
        self.publish(manifest).await
    }

    /// What anybody may fetch from here: everything of judged artifacts, once [`Store::publish_judged`] was called or they were
    /// kept in this run.
    #[must_use]
    pub fn published(&self) -> &Published {
        &self.published
    }

    /// Lets anybody fetch what was judged in earlier runs.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn publish_judged(&self) -> Result<(), StoreError> {
        let published = self.published.clone();
        self.run(move |inner| {
            for build in inner.builds()? {
                if let Some(manifest) = inner.look_at_manifest(build.manifest)? {
                    published.add_tree(&manifest);
                }
            }
            Ok(())
        })
        .await
    }

    /// Lets anybody fetch a tree, if it is here.
    pub(super) async fn publish(&self, id: ManifestId) -> Result<(), StoreError> {
        if let Some(manifest) = self.look_at_manifest(id).await? {
            self.published.add_tree(&manifest);
        }
        Ok(())
    }

    /// The judged build with this key, if it is kept here.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn judged(&self, key: BuildKey) -> Result<Option<Kept>, StoreError> {
        self.run(move |inner| inner.judged(key)).await
    }

    /// Every judged build kept here, newest verdict first.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn builds(&self) -> Result<Vec<KeptBuild>, StoreError> {
        self.run(Inner::builds).await
    }

    /// Keeps an artifact (by the digest of its manifest) or a single blob whatever the store's size.
    ///
    /// # Errors
    ///
    /// [`StoreError::Disk`].
    pub async fn pin(&self, digest: Digest) -> Result<(), StoreError> {
        self.run(move |inner| inner.pin(digest)).await
    }

    /// Takes a pin back.
    ///
    /// # Errors
    ///
    /// [`StoreError::Disk`].
    pub async fn unpin(&self, digest: Digest) -> Result<(), StoreError> {
        self.run(move |inner| inner.unpin(digest)).await
    }

    /// Keeps what is needed from being evicted as long as the answer lives.
    pub fn need(&self, needed: Needed) -> Need {
        self.needs.state(needed)
    }

    pub(super) fn needs(&self) -> &Needs {
        &self.needs
    }

    /// What is needed here, and `more`.
    #[must_use]
    pub fn needed_with(&self, more: Needed) -> Needed {
        self.needs.with(more)
    }

    /// Bytes put here since the store was opened, so that whoever watches its size need not count blobs.
    #[must_use]
    pub fn put_bytes(&self) -> u64 {
        self.inner.put_bytes.load(Ordering::Relaxed)
    }

    /// Blobs found damaged since the store was opened.
    #[must_use]
    pub fn damages(&self) -> u64 {
        self.inner.damages.load(Ordering::Relaxed)
    }

    /// Bytes of all blobs.
    ///
    /// # Errors
    ///
    /// [`StoreError::Disk`].
    pub async fn stored_bytes(&self) -> Result<u64, StoreError> {
        self.run(|inner| Ok(inner.listed()?.iter().map(|blob| blob.len).sum())).await
    }

    /// Forgets a judged build whose artifact cannot be had any more; what is left of it goes by age.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn forget_judged(&self, key: BuildKey) -> Result<(), StoreError> {
        self.run(move |inner| inner.forget_judged(&key)).await
    }

    /// Reads every blob, puts the damaged ones in quarantine, and finds out anew which artifacts are complete.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn verify(&self) -> Result<Scrub, StoreError> {
        self.verify_slowly(Duration::ZERO).await
    }

    /// The same, with a pause after every few blobs, so that whoever builds or fetches does not notice.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn verify_slowly(&self, pause: Duration) -> Result<Scrub, StoreError> {
        let mut scrub = Scrub::default();
        let digests = self.run(Inner::digests).await?;
        for stretch in digests.chunks(STRETCH) {
            let stretch = stretch.to_vec();
            scrub = self.run(move |inner| inner.scrub(&stretch, scrub)).await?;
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
        }
        self.run(move |inner| inner.recount(scrub)).await
    }

    /// Reads blobs again from the one behind `after`, for about as long as `within`: what was found, and the last one read;
    /// `None` when none is left. With the last ones it is found out anew which artifacts are complete.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn verify_some(
        &self,
        after: Option<Digest>,
        within: Duration,
    ) -> Result<(Scrub, Option<Digest>), StoreError> {
        let until = tokio::time::Instant::now() + within;
        let mut scrub = Scrub::default();
        let mut digests = self.run(Inner::digests).await?;
        digests.retain(|digest| after.is_none_or(|after| *digest > after));
        let mut stretches = digests.chunks(STRETCH).peekable();
        while let Some(stretch) = stretches.next() {
            let read = stretch.to_vec();
            scrub = self.run(move |inner| inner.scrub(&read, scrub)).await?;
            if stretches.peek().is_some() && tokio::time::Instant::now() >= until {
                return Ok((scrub, stretch.last().copied()));
            }
        }
        Ok((self.run(move |inner| inner.recount(scrub)).await?, None))
    }

    /// What these blobs are pieces of.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn places(&self, blobs: Vec<Digest>) -> Result<Vec<Damage>, StoreError> {
        self.run(move |inner| inner.places(&blobs)).await
    }

    /// How many times the disk had to be waited for since the store was opened, counting what is synced side by side once.
    #[must_use]
    pub fn sync_rounds(&self) -> u64 {
        self.inner.shelf.sync_rounds()
    }

    /// Runs `work` where this store's work belongs.
    pub(in crate::artifact) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        match self.inner.reading {
            Reading::Immediate => work(&self.inner),
            Reading::Blocks => {
                let inner = self.inner.clone();
                pooled(move || work(&inner)).await
            }
        }
    }
}

impl ChunkSource for Store {
    fn read(&self, digest: &Digest) -> io::Result<Option<Vec<u8>>> {
        self.inner.read_to_serve(digest).map(|found| found.map(Vec::from)).map_err(as_io)
    }

    fn read_verified(&self, digest: &Digest) -> io::Result<Option<Vec<u8>>> {
        self.inner.read(digest).map(|found| found.map(Vec::from)).map_err(as_io)
    }

    fn reading(&self) -> Reading {
        self.inner.reading
    }

    fn checking(&self) -> Checking {
        Checking::Done
    }
}

fn as_io(error: StoreError) -> io::Error {
    match error {
        StoreError::Disk(error) => error,
        other => io::Error::other(other),
    }
}

/// Runs `work` on the blocking pool; a panic there goes on here.
async fn pooled<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_cancelled) => Err(StoreError::ShuttingDown),
        },
    }
}
