//! What a blob is a piece of: for whoever is told that it was damaged.

use super::{Inner, StoreError};
use protocol::digest::Digest;
use protocol::id::{BuildKey, ManifestId};
use protocol::owner::{Damage, MAX_PLACES, Part, Place};
use std::collections::BTreeMap;

impl Inner {
    /// Where each of these blobs belongs, in the order of the artifacts. A manifest that is gone itself names no files.
    pub(super) fn places(&self, blobs: &[Digest]) -> Result<Vec<Damage>, StoreError> {
        if blobs.is_empty() {
            return Ok(Vec::new());
        }
        let mut places: BTreeMap<Digest, Vec<Place>> = blobs.iter().map(|digest| (*digest, Vec::new())).collect();
        let mut judged: BTreeMap<ManifestId, Vec<(BuildKey, String)>> = BTreeMap::new();
        let builds = self.index.builds()?;
        for (key, build) in &builds {
            judged.entry(build.manifest).or_default().push((*key, build.recipe.clone()));
        }
        for (manifest, _) in self.index.artifacts()? {
            let listed = self.look_at_manifest(manifest)?;
            let files = listed.iter().flat_map(|listed| listed.files());
            let pieces = files.flat_map(|(path, _, _, chunks)| {
                chunks.iter().map(move |chunk| (*chunk, Part::File(path.as_str().to_owned())))
            });
            for (digest, part) in std::iter::once((manifest.0, Part::Manifest)).chain(pieces) {
                let Some(found) = places.get_mut(&digest) else { continue };
                let place = |build_key, recipe| Place { manifest, build_key, recipe, part: part.clone() };
                match judged.get(&manifest) {
                    Some(builds) => {
                        found.extend(builds.iter().map(|(key, name)| place(Some(*key), Some(name.clone()))))
                    }
                    None => found.push(place(None, None)),
                }
            }
        }
        for (key, build) in &builds {
            for log in &build.logs {
                let Some(found) = places.get_mut(log) else { continue };
                let (build_key, recipe) = (Some(*key), Some(build.recipe.clone()));
                found.push(Place { manifest: build.manifest, build_key, recipe, part: Part::Log });
            }
        }
        Ok(places
            .into_iter()
            .map(|(digest, mut places)| {
                places.dedup();
                places.truncate(MAX_PLACES);
                Damage { digest, places }
            })
            .collect())
    }
}
