//! The files inside a recipe, as a tree of their own and laid over a source.

use super::{OverlayError, Recipe};
use crate::digest::Digest;
use crate::tree::{Entry, Manifest, ManifestError, Mode, Node, TreePath};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A file inside the recipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InlineFile {
    /// Whether it may be run.
    pub mode: Mode,
    /// Its content.
    pub text: String,
}

impl Recipe {
    /// The tree of the recipe's own files. Each is one chunk, found by [`Recipe::chunk`].
    #[must_use]
    pub fn tree(&self) -> Manifest {
        match Manifest::new(file_entries(&self.0.files).collect()) {
            Ok(tree) => tree,
            Err(error) => unreachable!("the files of a checked recipe are a tree: {error}"),
        }
    }

    /// The content of the recipe's own file with this digest.
    #[must_use]
    pub fn chunk(&self, digest: &Digest) -> Option<&[u8]> {
        self.0.files.values().map(|file| file.text.as_bytes()).find(|content| Digest::of(content) == *digest)
    }

    /// The tree that the steps start in: `source` with the recipe's own files laid over it. A file of the recipe takes the
    /// place of a file or link of the source at the same path.
    ///
    /// # Errors
    ///
    /// [`OverlayError`] when a file of the recipe would lie below a file or link of the source, or where it has a folder.
    pub fn over(&self, source: &Manifest) -> Result<Manifest, OverlayError> {
        let kept = source.entries().iter().filter(|entry| !self.0.files.contains_key(&entry.path)).cloned();
        Manifest::new(kept.chain(file_entries(&self.0.files)).collect()).map_err(|error| {
            let path = match &error {
                ManifestError::Order(path) | ManifestError::BelowFile(path) => Some(path.clone()),
                _ => None,
            };
            let first = self.0.files.keys().next().cloned();
            match path.or(first) {
                Some(path) => OverlayError { path, error },
                None => unreachable!("a tree without changes stays a tree: {error}"),
            }
        })
    }
}

pub(super) fn file_entries(files: &BTreeMap<TreePath, InlineFile>) -> impl Iterator<Item = Entry> {
    files.iter().map(|(path, file)| {
        let content = file.text.as_bytes();
        let chunks = if content.is_empty() { vec![] } else { vec![Digest::of(content)] };
        let node = Node::File { mode: file.mode, size: content.len() as u64, chunks };
        Entry { path: path.clone(), node }
    })
}
