//! A batch: blobs that become durable together.

use super::shelf::{Place, Presence, Staged};
use super::{Added, Inner, MAX_BLOB_BYTES, Store, StoreError};
use protocol::digest::Digest;
use protocol::id::ManifestId;
use protocol::tree::{CHUNK_BYTES, Manifest};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::bytes::Bytes;

/// Blobs written aside. Nothing of them is in the store until [`Batch::commit`] or [`Batch::commit_artifact`]; a batch that is
/// dropped leaves them aside, and a later batch that wants them may take them up.
#[derive(Debug)]
pub struct Batch {
    store: Store,
    aside: Arc<Aside>,
}

/// Shared with work on the blocking pool, which goes on when its caller does not wait any more.
#[derive(Debug)]
struct Aside {
    inner: Arc<Inner>,
    staged: Mutex<BTreeMap<Digest, Staged>>,
}

/// A file as an entry of a tree names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileChunks {
    /// Its length in bytes.
    pub size: u64,
    /// Digests of its chunks in order.
    pub chunks: Vec<Digest>,
}

impl Batch {
    pub(super) fn new(store: Store) -> Self {
        let aside = Aside { inner: store.inner.clone(), staged: Mutex::default() };
        Self { store, aside: Arc::new(aside) }
    }

    /// Adds blobs and says their digests.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn blobs(&self, blobs: Vec<Bytes>) -> Result<Vec<Digest>, StoreError> {
        self.run(move |aside| blobs.into_iter().map(|bytes| aside.stage(bytes)).collect()).await
    }

    /// Adds the chunks of a file, read to its end one chunk at a time.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; a failure of the reader is [`StoreError::Disk`].
    pub async fn file(&self, mut reader: impl Read + Send + 'static) -> Result<FileChunks, StoreError> {
        self.run(move |aside| {
            let mut file = FileChunks { size: 0, chunks: Vec::new() };
            loop {
                let chunk = read_chunk(&mut reader)?;
                if chunk.is_empty() {
                    return Ok(file);
                }
                file.size += chunk.len() as u64;
                file.chunks.push(aside.stage(chunk)?);
            }
        })
        .await
    }

    /// Adds what came from a peer, as far as it fits the digest it came under; says which did.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub(in crate::artifact) async fn verified(&self, blobs: Vec<(Digest, Bytes)>) -> Result<Vec<Digest>, StoreError> {
        self.run(move |aside| {
            let mut fitting = Vec::with_capacity(blobs.len());
            for (digest, bytes) in blobs {
                if Digest::of(&bytes) == digest {
                    aside.stage_as(digest, bytes)?;
                    fitting.push(digest);
                }
            }
            Ok(fitting)
        })
        .await
    }

    /// Takes up, of `digests`, what an earlier batch left aside whole; says which.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub(in crate::artifact) async fn take_up(&self, digests: Vec<Digest>) -> Result<Vec<Digest>, StoreError> {
        self.run(move |aside| {
            let mut taken = Vec::new();
            for digest in digests {
                let Some((staged, bytes)) = aside.inner.shelf.left_over(&digest)? else { continue };
                if Digest::of(&bytes) == digest {
                    aside.staged().insert(digest, staged);
                    taken.push(digest);
                } else {
                    aside.inner.shelf.discard(&staged)?;
                }
            }
            Ok(taken)
        })
        .await
    }

    /// Makes every blob of the batch part of the store; when it returns they are durable.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn commit(self) -> Result<(), StoreError> {
        self.run(|aside| aside.settle()).await
    }

    /// The same together with the manifest, and marks the artifact complete when every chunk is here.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn commit_artifact(self, manifest: &Manifest) -> Result<Added, StoreError> {
        let manifest = manifest.clone();
        self.run(move |aside| {
            let id = ManifestId(aside.stage(manifest.encode().into())?);
            aside.settle()?;
            aside.inner.record_artifact(id, &manifest)
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Aside) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let aside = self.aside.clone();
        self.store.run(move |_| work(&aside)).await
    }
}

impl Aside {
    fn staged(&self) -> MutexGuard<'_, BTreeMap<Digest, Staged>> {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stage(&self, bytes: Bytes) -> Result<Digest, StoreError> {
        if bytes.len() > MAX_BLOB_BYTES {
            return Err(StoreError::TooLarge(bytes.len()));
        }
        let digest = Digest::of(&bytes);
        self.stage_as(digest, bytes)?;
        Ok(digest)
    }

    fn stage_as(&self, digest: Digest, bytes: Bytes) -> Result<(), StoreError> {
        if self.staged().contains_key(&digest) {
            return Ok(());
        }
        let staged = match self.inner.shelf.touch(&digest)? {
            Presence::Here => Staged { digest, place: Place::Shelf },
            Presence::Absent => {
                self.inner.put_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                self.inner.shelf.stage(&digest, bytes)?
            }
        };
        self.staged().insert(digest, staged);
        Ok(())
    }

    fn settle(&self) -> Result<(), StoreError> {
        let staged: Vec<_> = std::mem::take(&mut *self.staged()).into_values().collect();
        let settled = self.inner.shelf.settle(&staged);
        if settled.is_err() {
            self.inner.shelf.leave(staged);
        }
        Ok(settled?)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        let staged = std::mem::take(self.staged.get_mut().unwrap_or_else(PoisonError::into_inner));
        self.inner.shelf.leave(staged.into_values().collect());
    }
}

/// The next chunk; empty at the end.
fn read_chunk(reader: &mut impl Read) -> io::Result<Bytes> {
    let mut chunk = Vec::new();
    reader.take(CHUNK_BYTES).read_to_end(&mut chunk)?;
    Ok(chunk.into())
}
