//! Who may fetch what: judged artifacts and archives from the public internet, anybody; everything else, only those whom the farm gave a part in it.
//!
//! Uploaded sources, custom recipes, logs and artifacts without a verdict go to coordinators, which keep and judge. A
//! volunteer gets the recipe and the source of the jobs it holds leases for, and of no other. Being in an open farm is no
//! reason to read somebody's source.

use super::need::Needed;
use super::store::Store;
use super::transfer::{Permission, Permit};
use futures::future::{BoxFuture, FutureExt as _};
use protocol::digest::Digest;
use protocol::id::{ManifestId, PeerKey};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Chunks of granted trees that are remembered, 32 bytes each; one tree is, however large it is.
const MAX_REMEMBERED: usize = 1 << 20;

/// What a peer may have beside what is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Whatever is here.
    Everything,
    /// These, and no more.
    Only(Needed),
}

/// Says of every blob of a store whether a peer may have it.
#[derive(Debug)]
pub struct Sharing<P> {
    store: Store,
    part: P,
    trees: Mutex<Trees>,
}

/// The chunks of trees that were granted lately, sorted, the latest last.
#[derive(Debug, Default)]
struct Trees {
    lately: VecDeque<(ManifestId, Arc<[Digest]>)>,
}

impl<P> Sharing<P> {
    /// Shares `store`, where `part` tells what a peer may have beside what is judged.
    #[must_use]
    pub fn new(store: Store, part: P) -> Self {
        Self { store, part, trees: Mutex::default() }
    }
}

impl<P: Fn(&PeerKey) -> Part + Send + Sync> Permit for Sharing<P> {
    fn permissions(&self, peer: PeerKey, digests: Vec<Digest>) -> BoxFuture<'_, Vec<Permission>> {
        async move {
            let judged = |digest: &Digest| self.store.published().includes(digest);
            if digests.iter().all(judged) {
                return vec![Permission::Granted; digests.len()];
            }
            let Needed { mut blobs, trees: granted, .. } = match (self.part)(&peer) {
                Part::Everything => return vec![Permission::Granted; digests.len()],
                Part::Only(needed) => needed,
            };
            let mut trees = Vec::new();
            for id in granted {
                blobs.insert(id.0);
                trees.push(self.chunks(id).await);
            }
            let may = |digest: &Digest| {
                judged(digest) || blobs.contains(digest) || trees.iter().any(|tree| tree.binary_search(digest).is_ok())
            };
            digests.iter().map(|digest| if may(digest) { Permission::Granted } else { Permission::Denied }).collect()
        }
        .boxed()
    }
}

impl<P> Sharing<P> {
    /// The chunks of a tree, sorted; none while the tree is not here.
    async fn chunks(&self, id: ManifestId) -> Arc<[Digest]> {
        if let Some(known) = self.remembered(id) {
            return known;
        }
        let manifest = match self.store.look_at_manifest(id).await {
            Ok(Some(manifest)) => manifest,
            Ok(None) => return Arc::default(),
            Err(error) => {
                tracing::warn!(manifest = %id, %error, "a granted tree cannot be read, and is not served");
                return Arc::default();
            }
        };
        let mut chunks: Vec<Digest> = manifest.files().flat_map(|(.., chunks)| chunks.iter().copied()).collect();
        chunks.sort_unstable();
        chunks.dedup();
        let chunks: Arc<[Digest]> = chunks.into();
        self.remember(id, chunks.clone());
        chunks
    }

    fn remembered(&self, id: ManifestId) -> Option<Arc<[Digest]>> {
        let mut trees = self.trees.lock().unwrap_or_else(PoisonError::into_inner);
        let at = trees.lately.iter().position(|(known, _)| *known == id)?;
        let found = trees.lately.remove(at)?;
        let chunks = found.1.clone();
        trees.lately.push_back(found);
        Some(chunks)
    }

    fn remember(&self, id: ManifestId, chunks: Arc<[Digest]>) {
        let mut trees = self.trees.lock().unwrap_or_else(PoisonError::into_inner);
        trees.lately.push_back((id, chunks));
        let size = |trees: &Trees| trees.lately.iter().map(|(_, chunks)| chunks.len()).sum::<usize>();
        while trees.lately.len() > 1 && size(&trees) > MAX_REMEMBERED {
            trees.lately.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use protocol::tree::{Entry, Manifest, Mode, Node, TreePath};

    async fn tree(store: &Store, content: &[u8]) -> (Manifest, Digest) {
        let chunk = store.put(vec![content.to_vec().into()]).await.unwrap()[0];
        let node = Node::File { mode: Mode::Plain, size: content.len() as u64, chunks: vec![chunk] };
        let manifest = Manifest::new(vec![Entry { path: TreePath::try_from("file").unwrap(), node }]).unwrap();
        store.add_artifact(&manifest).await.unwrap();
        (manifest, chunk)
    }

    #[tokio::test]
    async fn a_stranger_gets_judged_artifacts_and_a_volunteer_the_source_of_its_lease() {
        let store = Store::in_memory();
        let (artifact, lua) = tree(&store, b"lua").await;
        let (source, secret) = tree(&store, b"secret source").await;
        let (_, other_secret) = tree(&store, b"another's source").await;
        let recipe = store.put(vec![b"recipe".to_vec().into()]).await.unwrap()[0];
        let [stranger, volunteer, coordinator] = [1, 2, 3].map(|key| PeerKey::from_bytes([key; 32]));
        let lease = Needed { blobs: [recipe].into(), ..Needed::tree(source.id()) };
        let sharing = Sharing::new(store.clone(), move |peer: &PeerKey| match peer {
            peer if *peer == coordinator => Part::Everything,
            peer if *peer == volunteer => Part::Only(lease.clone()),
            _ => Part::Only(Needed::default()),
        });
        let all = [artifact.id().0, lua, source.id().0, secret, recipe, other_secret];
        let may = async |peer| -> Vec<bool> {
            let granted = sharing.permissions(peer, all.to_vec()).await;
            granted.iter().map(|permission| *permission == Permission::Granted).collect()
        };
        assert_eq!(may(stranger).await, [false; 6], "nothing is judged yet");
        store.publish(artifact.id()).await.unwrap();
        assert_eq!(may(stranger).await, [true, true, false, false, false, false]);
        assert_eq!(may(volunteer).await, [true, true, true, true, true, false]);
        assert_eq!(may(volunteer).await, [true, true, true, true, true, false], "from memory");
        assert_eq!(may(coordinator).await, [true; 6]);
    }

    #[tokio::test]
    async fn a_granted_tree_that_comes_later_is_served_then() {
        let store = Store::in_memory();
        let (source, secret) = tree(&Store::in_memory(), b"later").await;
        let volunteer = PeerKey::from_bytes([2; 32]);
        let id = source.id();
        let sharing = Sharing::new(store.clone(), move |_: &PeerKey| Part::Only(Needed::tree(id)));
        assert_eq!(sharing.permissions(volunteer, vec![secret]).await, [Permission::Denied]);
        tree(&store, b"later").await;
        assert_eq!(sharing.permissions(volunteer, vec![secret]).await, [Permission::Granted]);
    }

    #[test]
    fn what_is_remembered_of_trees_is_bounded() {
        let sharing = Sharing::new(Store::in_memory(), |_: &PeerKey| Part::Everything);
        let id = |nr: u8| ManifestId(Digest::of(&[nr]));
        let large: Arc<[Digest]> = vec![Digest::of(b"x"); MAX_REMEMBERED].into();
        sharing.remember(id(1), large.clone());
        assert!(sharing.remembered(id(1)).is_some());
        sharing.remember(id(2), large[..1].into());
        assert!(sharing.remembered(id(1)).is_none() && sharing.remembered(id(2)).is_some());
    }
}
