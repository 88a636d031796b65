//! Who may fetch what: judged artifacts, anybody; everything else, only those whom the farm gave a part in it.
//!
//! Uploaded sources, custom recipes, logs and artifacts without a verdict go to coordinators, which keep and judge, and to
//! whoever holds a lease at the moment. Being in an open farm is no reason to read somebody's source.

use super::store::{Store, StoreError};
use super::transfer::Permission;
use protocol::digest::Digest;
use protocol::id::{ManifestId, PeerKey};
use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

/// Digests of everything that anybody may fetch. Clones share them; only membership is ever asked.
#[derive(Clone, Debug, Default)]
pub struct Judged(Arc<RwLock<HashSet<Digest>>>);

impl Judged {
    /// Whether this blob belongs to a judged artifact.
    #[must_use]
    pub fn includes(&self, digest: &Digest) -> bool {
        // Inserting leaves the set whole.
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(digest)
    }

    /// Takes in an artifact with a verdict, if it is here.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn add(&self, store: &Store, id: ManifestId) -> Result<(), StoreError> {
        let Some(manifest) = store.look_at_manifest(id).await? else { return Ok(()) };
        let mut judged = self.0.write().unwrap_or_else(PoisonError::into_inner);
        judged.insert(id.0);
        judged.extend(manifest.files().flat_map(|(.., chunks)| chunks.iter().copied()));
        Ok(())
    }
}

/// Whether `peer` may have a blob: it is judged, or `trusted` says that the peer has a part in unjudged things.
#[must_use]
pub fn permission(judged: &Judged, digest: &Digest, peer: &PeerKey, trusted: impl Fn(&PeerKey) -> bool) -> Permission {
    if judged.includes(digest) || trusted(peer) { Permission::Granted } else { Permission::Denied }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use protocol::tree::{Entry, Manifest, Mode, Node, TreePath};

    #[tokio::test]
    async fn a_stranger_gets_judged_artifacts_and_nothing_else() {
        let store = Store::in_memory();
        let chunks = store.put(vec![b"lua".to_vec().into(), b"secret source".to_vec().into()]).await.unwrap();
        let node = Node::File { mode: Mode::Plain, size: 3, chunks: vec![chunks[0]] };
        let manifest = Manifest::new(vec![Entry { path: TreePath::try_from("lua").unwrap(), node }]).unwrap();
        store.add_artifact(&manifest).await.unwrap();
        let judged = Judged::default();
        let (stranger, coordinator) = (PeerKey::from_bytes([1; 32]), PeerKey::from_bytes([2; 32]));
        let may = |digest: &Digest, peer| permission(&judged, digest, peer, |peer| *peer == coordinator);
        assert_eq!(may(&chunks[0], &stranger), Permission::Denied, "not judged yet");
        judged.add(&store, manifest.id()).await.unwrap();
        assert_eq!(may(&chunks[0], &stranger), Permission::Granted);
        assert_eq!(may(&manifest.id().0, &stranger), Permission::Granted);
        assert_eq!(may(&chunks[1], &stranger), Permission::Denied);
        assert_eq!(may(&chunks[1], &coordinator), Permission::Granted);
    }
}
