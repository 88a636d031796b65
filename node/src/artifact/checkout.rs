//! A tree written out into a folder: how a build gets its source.
//!
//! Files are read from the store, verified, and created where nothing stood, never through a link; links are written as the
//! manifest gives them, which cannot point out of the tree. Modes are 0644 and 0755, every time stamp is the one the caller
//! names, so that two checkouts of one manifest are the same to a build that looks.

use super::folder::{self, Folder};
use super::{ChunkSource, Reading};
use protocol::digest::Digest;
use protocol::time::Timestamp;
use protocol::tree::{Manifest, Node, TreePath};
use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A tree cannot be written out.
#[derive(Debug, thiserror::Error)]
pub enum CheckoutError {
    /// A chunk cannot be read.
    #[error("the source cannot be read: {0}")]
    Read(io::Error),
    /// The program is ending.
    #[error("the node is ending")]
    ShuttingDown,
    /// A chunk is not here, or was found damaged.
    #[error("`{path}` needs the chunk {digest}, which is not here")]
    Missing {
        /// The file.
        path: TreePath,
        /// The chunk.
        digest: Digest,
    },
    /// The folder cannot be written to.
    #[error("`{path}` cannot be written: {error}")]
    Write {
        /// Where; empty for the folder itself.
        path: String,
        /// How it failed.
        error: io::Error,
    },
}

/// Writes the tree of `manifest` into the existing folder `dir`, where none of its paths may exist, with every time stamp at
/// `modified`.
///
/// # Errors
///
/// [`CheckoutError`]; what was written so far stays.
pub async fn checkout(
    source: Arc<dyn ChunkSource>,
    manifest: &Manifest,
    dir: &Path,
    modified: Timestamp,
) -> Result<(), CheckoutError> {
    let (manifest, dir) = (manifest.clone(), dir.to_owned());
    let modified = Duration::from_millis(modified.as_millis());
    match source.reading() {
        Reading::Immediate => write(&*source, &manifest, &dir, modified),
        Reading::Blocks => tokio::task::spawn_blocking(move || write(&*source, &manifest, &dir, modified))
            .await
            .map_err(|_| CheckoutError::ShuttingDown)?,
    }
}

fn write(source: &dyn ChunkSource, manifest: &Manifest, dir: &Path, modified: Duration) -> Result<(), CheckoutError> {
    let mut folder = Folder::open(dir).map_err(failed(""))?;
    let mut folders = BTreeSet::new();
    for entry in manifest.entries() {
        let path = &entry.path;
        match &entry.node {
            Node::File { mode, chunks, .. } => {
                let mut file = folder.create_file(path).map_err(failed(path.as_str()))?;
                for digest in chunks {
                    let chunk = source.read_verified(digest).map_err(CheckoutError::Read)?;
                    let chunk = chunk.ok_or_else(|| CheckoutError::Missing { path: path.clone(), digest: *digest })?;
                    file.write_all(&chunk).map_err(failed(path.as_str()))?;
                }
                folder::set_mode(&file, *mode).map_err(failed(path.as_str()))?;
                folder::set_file_time(&file, modified).map_err(failed(path.as_str()))?;
            }
            Node::Link { target } => {
                folder.create_link(path, target).map_err(failed(path.as_str()))?;
                folder.set_time(path, modified).map_err(failed(path.as_str()))?;
            }
            Node::Folder => {
                folder.create_folder(path).map_err(failed(path.as_str()))?;
                folders.insert(path.as_str());
            }
        }
        let mut parent = path.parent();
        while let Some(above) = parent.filter(|above| folders.insert(above)) {
            parent = above.rsplit_once('/').map(|(above, _)| above);
        }
    }
    // Last, because every creation touches the folder it happens in.
    folders.insert("");
    folders.into_iter().try_for_each(|path| folder.set_folder_time(path, modified).map_err(failed(path)))
}

fn failed(path: &str) -> impl FnOnce(io::Error) -> CheckoutError {
    let path = path.to_owned();
    move |error| CheckoutError::Write { path, error }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::artifact::Store;
    use protocol::tree::{Entry, LinkTarget, Mode};
    use std::io::Cursor;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    const MODIFIED: Timestamp = Timestamp::from_millis(1_000_000_000_500);

    fn path(text: &str) -> TreePath {
        TreePath::try_from(text).unwrap()
    }

    async fn tree(store: &Store) -> Manifest {
        let batch = store.batch();
        let big: Vec<u8> = (0..2_500_000u32).map(|at| at as u8).collect();
        let mut entries = Vec::new();
        for (name, mode, content) in [
            ("configure", Mode::Executable, b"#!/bin/sh".to_vec()),
            ("empty", Mode::Plain, Vec::new()),
            ("src/deep/big.c", Mode::Plain, big),
        ] {
            let file = batch.file(Cursor::new(content)).await.unwrap();
            entries.push(Entry { path: path(name), node: Node::File { mode, size: file.size, chunks: file.chunks } });
        }
        let target = LinkTarget::new(&path("src/link"), "../configure").unwrap();
        entries.push(Entry { path: path("src/link"), node: Node::Link { target } });
        entries.push(Entry { path: path("tests"), node: Node::Folder });
        let manifest = Manifest::new(entries).unwrap();
        batch.commit_artifact(&manifest).await.unwrap();
        manifest
    }

    #[tokio::test]
    async fn a_tree_is_written_as_its_manifest_says() {
        let store = Store::in_memory();
        let manifest = tree(&store).await;
        let dir = tempfile::tempdir().unwrap();
        checkout(Arc::new(store.clone()), &manifest, dir.path(), MODIFIED).await.unwrap();

        assert_eq!(std::fs::read(dir.path().join("configure")).unwrap(), b"#!/bin/sh");
        assert_eq!(std::fs::read(dir.path().join("src/deep/big.c")).unwrap().len(), 2_500_000);
        assert_eq!(std::fs::read_link(dir.path().join("src/link")).unwrap(), Path::new("../configure"));
        for (name, mode) in
            [("configure", 0o755), ("empty", 0o644), ("src/deep/big.c", 0o644), ("src/deep", 0o755), ("tests", 0o755)]
        {
            let metadata = std::fs::symlink_metadata(dir.path().join(name)).unwrap();
            assert_eq!(metadata.permissions().mode() & 0o7777, mode, "{name}");
        }
        for name in ["", "configure", "empty", "src", "src/deep", "src/deep/big.c", "src/link", "tests"] {
            let metadata = std::fs::symlink_metadata(dir.path().join(name)).unwrap();
            assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (1_000_000_000, 500_000_000), "{name}");
        }
    }

    #[tokio::test]
    async fn nothing_in_the_way_is_followed_or_overwritten() {
        let store = Store::in_memory();
        let manifest = tree(&store).await;
        let outside = tempfile::tempdir().unwrap();
        let precious = outside.path().join("precious");
        std::fs::write(&precious, b"untouched").unwrap();
        for (name, target) in [("src", outside.path()), ("configure", precious.as_path())] {
            let dir = tempfile::tempdir().unwrap();
            std::os::unix::fs::symlink(target, dir.path().join(name)).unwrap();
            let refused = checkout(Arc::new(store.clone()), &manifest, dir.path(), MODIFIED).await;
            assert!(matches!(refused, Err(CheckoutError::Write { .. })), "{refused:?}");
        }
        assert_eq!(std::fs::read(&precious).unwrap(), b"untouched");
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_missing_chunk_is_named() {
        let manifest = tree(&Store::in_memory()).await;
        let dir = tempfile::tempdir().unwrap();
        let missing = checkout(Arc::new(Store::in_memory()), &manifest, dir.path(), MODIFIED).await;
        assert!(
            matches!(&missing, Err(CheckoutError::Missing { path, .. }) if path.as_str() == "configure"),
            "{missing:?}"
        );
    }
}
