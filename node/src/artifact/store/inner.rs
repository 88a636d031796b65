//! What a store does, without `async`: every method may block.

use super::shelf::{ASIDE_FOR, Listed, Note, Presence, Shelf};
use super::{Added, Kept, KeptBuild, Pinned, Scrub, StoreError};
use crate::artifact::Reading;
use crate::artifact::index::{ArtifactRecord, Completeness, Index, JudgedRecord};
use protocol::codec;
use protocol::digest::Digest;
use protocol::id::{BuildKey, ManifestId};
use protocol::report::{MAX_REPORTS, Outcome, Report, Verdict};
use protocol::time::Timestamp;
use protocol::tree::Manifest;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio_util::bytes::Bytes;

/// How many digests are remembered as verified for serving; 2 MiB of memory.
const MAX_CHECKED: usize = 1 << 16;
/// The largest note: a charter, a verdict and [`MAX_REPORTS`] reports with room for their envelopes.
const MAX_NOTE_BYTES: usize = (MAX_REPORTS + 4) * (16 << 10);
/// How long a blob that fitted its digest is served without being compared again.
const CHECKED_FOR: Duration = Duration::from_secs(3_600);
/// How precisely the time of last use is kept.
const USE_PRECISION: Duration = Duration::from_secs(60);
/// How every entry of a manifest begins in CBOR: a map of two, whose first key is `path`.
const MANIFEST_START: &[u8] = b"\xa2\x64path";

/// A blob that fitted its digest.
#[derive(Clone, Copy, Debug)]
struct Checked {
    checked_at: Timestamp,
    served_at: Timestamp,
}

#[derive(Debug)]
pub(in crate::artifact) struct Inner {
    pub(super) shelf: Box<dyn Shelf>,
    pub(in crate::artifact) index: Index,
    pub(super) reading: Reading,
    /// Digests verified for serving.
    checked: Mutex<BTreeMap<Digest, Checked>>,
    /// Bytes put since the store was opened.
    pub(super) put_bytes: AtomicU64,
    /// Blobs found damaged since the store was opened.
    pub(super) damages: AtomicU64,
    /// Held while records of artifacts and builds change together.
    records: Mutex<()>,
}

impl Inner {
    pub(super) fn new(shelf: Box<dyn Shelf>, index: Index, reading: Reading) -> Self {
        Self {
            shelf,
            index,
            reading,
            checked: Mutex::default(),
            put_bytes: AtomicU64::new(0),
            damages: AtomicU64::new(0),
            records: Mutex::default(),
        }
    }

    pub(in crate::artifact) fn records(&self) -> MutexGuard<'_, ()> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn checked(&self) -> MutexGuard<'_, BTreeMap<Digest, Checked>> {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn missing(&self, mut digests: Vec<Digest>) -> Result<Vec<Digest>, StoreError> {
        let mut failed = None;
        digests.retain(|digest| match self.shelf.touch(digest) {
            Ok(presence) => presence == Presence::Absent,
            Err(error) => {
                failed = Some(error);
                false
            }
        });
        failed.map_or(Ok(digests), |error| Err(error.into()))
    }

    /// The blob, compared with its digest.
    pub(in crate::artifact) fn read(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        let Some(bytes) = self.shelf.read(digest)? else { return Ok(None) };
        if Digest::of(&bytes) == *digest {
            return Ok(Some(bytes));
        }
        tracing::warn!(%digest, "a blob of the store is damaged; it is in quarantine now");
        self.shelf.quarantine(digest)?;
        self.damages.fetch_add(1, Ordering::Relaxed);
        self.checked().remove(digest);
        self.mark_partial(digest)?;
        Ok(None)
    }

    /// The blob, compared with its digest the first time and every hour. The receiver compares every time.
    pub(super) fn read_to_serve(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        self.note_use(&ManifestId(*digest))?;
        let now = self.shelf.now();
        let is_checked = self.checked().get_mut(digest).is_some_and(|checked| {
            checked.served_at = now;
            now.since(checked.checked_at) < CHECKED_FOR
        });
        if is_checked {
            return Ok(self.shelf.read(digest)?);
        }
        let found = self.read(digest)?;
        if found.is_some() {
            let mut checked = self.checked();
            if checked.len() >= MAX_CHECKED {
                checked.clear();
            }
            checked.insert(*digest, Checked { checked_at: now, served_at: now });
        }
        Ok(found)
    }

    /// What was served to somebody since then.
    pub(in crate::artifact) fn served_since(&self, since: Timestamp) -> BTreeSet<Digest> {
        self.checked().iter().filter(|(_, checked)| checked.served_at >= since).map(|(digest, _)| *digest).collect()
    }

    fn note_use(&self, id: &ManifestId) -> Result<(), StoreError> {
        let now = self.shelf.now();
        let Some(record) = self.index.artifact(id)? else { return Ok(()) };
        if now.since(record.last_used) < USE_PRECISION {
            return Ok(());
        }
        let _records = self.records();
        if let Some(record) = self.index.artifact(id)? {
            self.index.put_artifact(id, &ArtifactRecord { last_used: now, ..record })?;
        }
        Ok(())
    }

    pub(in crate::artifact) fn manifest(&self, id: ManifestId) -> Result<Option<Manifest>, StoreError> {
        self.note_use(&id)?;
        self.look_at_manifest(id)
    }

    /// The manifest, for bookkeeping: that is no use, and spares nothing from eviction.
    pub(super) fn look_at_manifest(&self, id: ManifestId) -> Result<Option<Manifest>, StoreError> {
        let Some(bytes) = self.read(&id.0)? else { return Ok(None) };
        Manifest::decode(&bytes).map(Some).map_err(|error| StoreError::NotAManifest { id, error })
    }

    /// Which chunks of a manifest are not here, each once, in order.
    fn missing_chunks(&self, manifest: &Manifest) -> Result<Vec<Digest>, StoreError> {
        let mut seen = BTreeSet::new();
        let chunks = manifest.files().flat_map(|(_, _, _, chunks)| chunks).copied();
        self.missing(chunks.filter(|digest| seen.insert(*digest)).collect())
    }

    /// Writes the record of a manifest whose blob is here.
    pub(super) fn record_artifact(&self, id: ManifestId, manifest: &Manifest) -> Result<Added, StoreError> {
        let missing = self.missing_chunks(manifest)?;
        let completeness = if missing.is_empty() { Completeness::Complete } else { Completeness::Partial };
        let record = ArtifactRecord { completeness, size_bytes: manifest.total_bytes(), last_used: self.shelf.now() };
        let _records = self.records();
        self.index.put_artifact(&id, &record)?;
        Ok(if missing.is_empty() { Added::Complete(id) } else { Added::Partial(id, missing) })
    }

    pub(super) fn has_artifact(&self, id: ManifestId) -> Result<bool, StoreError> {
        let complete = self.index.artifact(&id)?.is_some_and(|record| record.completeness == Completeness::Complete);
        Ok(complete && self.shelf.touch(&id.0)? == Presence::Here)
    }

    /// The manifest, if it and every chunk of it are here and fit their digests this very time. What the index says is
    /// corrected.
    pub(super) fn whole(&self, id: ManifestId) -> Result<Option<Manifest>, StoreError> {
        let Some(manifest) = self.manifest(id)? else { return Ok(None) };
        for chunk in manifest.files().flat_map(|(_, _, _, chunks)| chunks) {
            self.read(chunk)?;
        }
        Ok(match self.record_artifact(id, &manifest)? {
            Added::Complete(_) => Some(manifest),
            Added::Partial(..) => None,
        })
    }

    pub(super) fn keep_judged(&self, key: BuildKey, kept: Kept) -> Result<(), StoreError> {
        let record = judged_record(&kept)?;
        let note = codec::encode(&kept);
        let _records = self.records();
        // A coordinator says all its verdicts again when it starts: reading is cheap, and waiting for the disk is not.
        if self.shelf.note(Note::Judged, key.0.as_bytes())?.as_deref() != Some(note.as_slice()) {
            self.shelf.put_note(Note::Judged, key.0.as_bytes(), &note)?;
        }
        if self.index.judged(&key)?.as_ref() != Some(&record) {
            self.index.put_judged(&key, &record)?;
        }
        Ok(())
    }

    pub(super) fn judged(&self, key: BuildKey) -> Result<Option<Kept>, StoreError> {
        let Some(bytes) = self.shelf.note(Note::Judged, key.0.as_bytes())? else { return Ok(None) };
        codec::decode(&bytes, MAX_NOTE_BYTES).map(Some).map_err(|error| StoreError::Kept { key, error })
    }

    pub(super) fn builds(&self) -> Result<Vec<KeptBuild>, StoreError> {
        let pins = self.pins()?;
        let mut builds = Vec::new();
        for (build_key, record) in self.index.builds()? {
            let artifact = self.index.artifact(&record.manifest)?;
            builds.push(KeptBuild {
                build_key,
                manifest: record.manifest,
                recipe: record.recipe,
                size_bytes: record.size_bytes,
                decided_at: record.decided_at,
                last_used: artifact.as_ref().map_or(record.decided_at, |artifact| artifact.last_used),
                completeness: artifact.map_or(Completeness::Partial, |artifact| artifact.completeness),
                pinned: if pins.contains(&record.manifest.0) { Pinned::Yes } else { Pinned::No },
            });
        }
        builds.sort_by_key(|build| (std::cmp::Reverse(build.decided_at), build.build_key));
        Ok(builds)
    }

    /// Forgets a judged build.
    pub(in crate::artifact) fn forget_judged(&self, key: &BuildKey) -> Result<(), StoreError> {
        self.shelf.remove_note(Note::Judged, key.0.as_bytes())?;
        Ok(self.index.remove_judged(key)?)
    }

    pub(super) fn pin(&self, digest: Digest) -> Result<(), StoreError> {
        Ok(self.shelf.put_note(Note::Pin, digest.as_bytes(), &[])?)
    }

    pub(super) fn unpin(&self, digest: Digest) -> Result<(), StoreError> {
        Ok(self.shelf.remove_note(Note::Pin, digest.as_bytes())?)
    }

    pub(in crate::artifact) fn pins(&self) -> Result<BTreeSet<Digest>, StoreError> {
        Ok(self.shelf.notes(Note::Pin)?.into_iter().map(Digest::from_bytes).collect())
    }

    pub(in crate::artifact) fn listed(&self) -> Result<Vec<Listed>, StoreError> {
        Ok(self.shelf.list()?)
    }

    pub(in crate::artifact) fn now(&self) -> Timestamp {
        self.shelf.now()
    }

    /// Deletes what batches left aside too long ago to be taken up again.
    pub(in crate::artifact) fn sweep_aside(&self) -> Result<(), StoreError> {
        Ok(self.shelf.sweep_aside(self.shelf.now() - ASIDE_FOR)?)
    }

    /// The chunks that a manifest names; none when it is not here.
    pub(in crate::artifact) fn chunks_of(&self, id: ManifestId) -> Result<Vec<Digest>, StoreError> {
        let Some(bytes) = self.read(&id.0)? else { return Ok(Vec::new()) };
        let manifest = Manifest::decode(&bytes).map_err(|error| StoreError::NotAManifest { id, error })?;
        Ok(manifest.files().flat_map(|(_, _, _, chunks)| chunks).copied().collect())
    }

    pub(super) fn digests(&self) -> Result<Vec<Digest>, StoreError> {
        Ok(self.shelf.list()?.into_iter().map(|blob| blob.digest).collect())
    }

    /// Deletes a blob and says how many bytes that freed.
    pub(in crate::artifact) fn remove_blob(&self, digest: &Digest) -> Result<u64, StoreError> {
        self.checked().remove(digest);
        Ok(self.shelf.remove(digest)?)
    }

    pub(super) fn scrub(&self, digests: &[Digest], mut scrub: Scrub) -> Result<Scrub, StoreError> {
        for digest in digests {
            let Some(bytes) = self.shelf.read(digest)? else { continue };
            scrub.blobs += 1;
            scrub.bytes += bytes.len() as u64;
            if Digest::of(&bytes) != *digest {
                drop(bytes);
                self.read(digest)?;
                scrub.damaged.push(*digest);
            }
        }
        Ok(scrub)
    }

    /// Finds out anew which artifacts are complete.
    pub(super) fn recount(&self, mut scrub: Scrub) -> Result<Scrub, StoreError> {
        for (id, record) in self.index.artifacts()? {
            let missing = match self.manifest(id) {
                Ok(Some(manifest)) => self.missing_chunks(&manifest)?,
                Ok(None) | Err(StoreError::NotAManifest { .. }) => vec![id.0],
                Err(error) => return Err(error),
            };
            let completeness = if missing.is_empty() { Completeness::Complete } else { Completeness::Partial };
            if completeness == Completeness::Partial {
                scrub.partial.push(id);
            }
            if completeness != record.completeness {
                let _records = self.records();
                self.index.put_artifact(&id, &ArtifactRecord { completeness, ..record })?;
            }
        }
        let builds = self.index.builds()?;
        scrub.lost =
            builds.into_iter().filter(|(_, build)| scrub.partial.contains(&build.manifest)).map(|row| row.0).collect();
        Ok(scrub)
    }

    /// Marks as partial every artifact that needs this blob.
    fn mark_partial(&self, damaged: &Digest) -> Result<(), StoreError> {
        for (id, record) in self.index.artifacts()? {
            if record.completeness == Completeness::Partial {
                continue;
            }
            // Read without verifying: a manifest damaged as well does not decode, or names itself when it is next read.
            let needs_it = id.0 == *damaged
                || self
                    .shelf
                    .read(&id.0)?
                    .and_then(|bytes| Manifest::decode(&bytes).ok())
                    .is_none_or(|manifest| manifest.files().any(|(_, _, _, chunks)| chunks.contains(damaged)));
            if needs_it {
                let _records = self.records();
                self.index.put_artifact(&id, &ArtifactRecord { completeness: Completeness::Partial, ..record })?;
            }
        }
        Ok(())
    }

    /// Fills the index from blobs and notes.
    pub(super) fn rebuild(&self) -> Result<(), StoreError> {
        self.index.clear()?;
        let blobs = self.shelf.list()?;
        if !blobs.is_empty() {
            tracing::warn!(blobs = blobs.len(), "the index was lost: it is made anew from the store");
        }
        for blob in blobs {
            let Some(bytes) = self.shelf.read(&blob.digest)? else { continue };
            if bytes.starts_with(MANIFEST_START)
                && Digest::of(&bytes) == blob.digest
                && let Ok(manifest) = Manifest::decode(&bytes)
            {
                self.record_artifact(ManifestId(blob.digest), &manifest)?;
            }
        }
        for key in self.shelf.notes(Note::Judged)? {
            self.take_in_judged(BuildKey(Digest::from_bytes(key)))?;
        }
        Ok(self.index.set_whole()?)
    }

    /// Brings the index, whose last words a crash may have cut off, in line with the notes about judged builds. Otherwise a
    /// holder that the farm counts on would not know that anybody may have what it holds.
    pub(super) fn catch_up(&self) -> Result<(), StoreError> {
        let mut indexed: BTreeSet<BuildKey> = self.index.builds()?.into_iter().map(|(key, _)| key).collect();
        for key in self.shelf.notes(Note::Judged)? {
            let key = BuildKey(Digest::from_bytes(key));
            if indexed.remove(&key) {
                continue;
            }
            if let Some(manifest) = self.take_in_judged(key)?
                && self.index.artifact(&manifest)?.is_none()
                && let Some(tree) = self.look_at_manifest(manifest)?
            {
                self.record_artifact(manifest, &tree)?;
            }
        }
        for forgotten in indexed {
            self.index.remove_judged(&forgotten)?;
        }
        Ok(())
    }

    /// Enters a judged build into the index, as its note says. A torn note is dropped.
    fn take_in_judged(&self, key: BuildKey) -> Result<Option<ManifestId>, StoreError> {
        match self.judged(key) {
            Ok(Some(kept)) => {
                let record = judged_record(&kept)?;
                self.index.put_judged(&key, &record)?;
                Ok(Some(record.manifest))
            }
            Ok(None) => Ok(None),
            Err(StoreError::Kept { error, .. }) => {
                tracing::warn!(?key, %error, "a torn note about a judged build is dropped; its holders still have it");
                self.shelf.remove_note(Note::Judged, key.0.as_bytes())?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// What the index says about a kept build. Signatures were checked by whoever kept it.
fn judged_record(kept: &Kept) -> Result<JudgedRecord, StoreError> {
    let verdict: Verdict = kept.judged.verdict.payload_unchecked()?;
    let mut size_bytes = 0;
    let mut logs = Vec::new();
    for signed in &kept.judged.reports {
        let report: Report = signed.payload_unchecked()?;
        if let Outcome::Built { manifest, size_bytes: bytes, .. } = report.outcome
            && manifest == verdict.manifest
        {
            size_bytes = bytes;
        }
        logs.extend(report.log);
    }
    Ok(JudgedRecord {
        manifest: verdict.manifest,
        recipe: kept.recipe.clone(),
        size_bytes,
        decided_at: verdict.decided_at,
        logs,
    })
}
