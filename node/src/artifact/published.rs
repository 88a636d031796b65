//! What of a store anybody may fetch: everything that judged artifacts are made of, and what the public internet gives away.
//!
//! A set of digests in memory, filled by whoever judges or fetches. It promises nothing about what is stored: a digest may be
//! here whose blob is not.

use protocol::digest::Digest;
use protocol::tree::Manifest;
use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

/// Digests of everything that anybody may fetch. Clones share them; only membership is ever asked.
#[derive(Clone, Debug, Default)]
pub struct Published(Arc<RwLock<HashSet<Digest>>>);

impl Published {
    /// Whether anybody may fetch this blob.
    #[must_use]
    pub fn includes(&self, digest: &Digest) -> bool {
        // Inserting leaves the set whole.
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(digest)
    }

    /// Takes in one blob.
    pub fn add(&self, digest: Digest) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(digest);
    }

    /// Forgets blobs that are here no more.
    pub(super) fn forget(&self, digests: &[Digest]) {
        let mut published = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for digest in digests {
            published.remove(digest);
        }
    }

    /// Takes in a tree and all that it is made of.
    pub(super) fn add_tree(&self, manifest: &Manifest) {
        let mut published = self.0.write().unwrap_or_else(PoisonError::into_inner);
        published.insert(manifest.id().0);
        published.extend(manifest.files().flat_map(|(.., chunks)| chunks.iter().copied()));
    }
}
