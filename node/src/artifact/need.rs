//! What must stay here for now, because somebody works with it.
//!
//! A [`Need`] is a pin that lasts as long as the value lives: an attempt needs its recipe and its source, whoever reported a
//! build needs the artifact until the farm has judged it. Eviction spares what is needed, whatever the store's size. Nothing
//! of this is written down: after a restart everything counts as just as old as it is, and needs are stated anew.

use protocol::codec;
use protocol::digest::Digest;
use protocol::id::ManifestId;
use protocol::request::{BuildSpec, Source};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Things of a store that somebody works with: they stay while he does, and he may have them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needed {
    /// Single blobs: recipes, archives.
    pub(super) blobs: BTreeSet<Digest>,
    /// Trees with everything in them.
    pub(super) trees: BTreeSet<ManifestId>,
    /// Digests of published sources, whose trees the index knows.
    pub(super) sources: BTreeSet<Digest>,
}

impl Needed {
    /// What an attempt at `spec` works with.
    #[must_use]
    pub fn by(spec: &BuildSpec) -> Self {
        let mut needed = Self { blobs: [spec.recipe.0].into(), ..Self::default() };
        match &spec.source {
            Source::Inline => {}
            Source::Tree(id) => {
                needed.trees.insert(*id);
            }
            Source::Archive { digest, .. } => {
                needed.blobs.insert(*digest);
                needed.sources.insert(source_digest(&spec.source));
            }
            Source::Git { .. } => {
                needed.sources.insert(source_digest(&spec.source));
            }
        }
        needed
    }

    /// Whether this tree is among it.
    #[must_use]
    pub fn has_tree(&self, id: &ManifestId) -> bool {
        self.trees.contains(id)
    }

    /// An artifact or a source.
    #[must_use]
    pub fn tree(id: ManifestId) -> Self {
        Self { trees: [id].into(), ..Self::default() }
    }
}

impl Extend<Self> for Needed {
    fn extend<I: IntoIterator<Item = Self>>(&mut self, more: I) {
        for needed in more {
            self.blobs.extend(needed.blobs);
            self.trees.extend(needed.trees);
            self.sources.extend(needed.sources);
        }
    }
}

/// What the index files a published source under.
pub(super) fn source_digest(source: &Source) -> Digest {
    Digest::of(&codec::encode(source))
}

/// Every need stated at the moment. Clones share them; there are no more than attempts and transfers under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Needs(Arc<Mutex<Stated>>);

#[derive(Debug, Default)]
struct Stated {
    next: u64,
    needs: BTreeMap<u64, Needed>,
}

/// Keeps what it names in the store until it is dropped.
#[derive(Debug)]
#[must_use = "what is needed stays only as long as this lives"]
pub struct Need {
    needs: Needs,
    nr: u64,
}

impl Needs {
    pub(super) fn state(&self, needed: Needed) -> Need {
        let mut stated = self.locked();
        let nr = stated.next;
        stated.next += 1;
        stated.needs.insert(nr, needed);
        Need { needs: self.clone(), nr }
    }

    /// All of them together with `more`.
    pub(super) fn with(&self, mut more: Needed) -> Needed {
        more.extend(self.locked().needs.values().cloned());
        more
    }

    fn locked(&self) -> MutexGuard<'_, Stated> {
        // Insert and remove leave the map whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Need {
    fn drop(&mut self) {
        self.needs.locked().needs.remove(&self.nr);
    }
}
