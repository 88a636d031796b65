//! A tree written out into a folder: how a build gets its source.
//!
//! Files are read from the store, verified, and created where nothing stood, never through a link; links are written as the
//! manifest gives them, which cannot point out of the tree. Modes are 0644 and 0755, every time stamp is the one the caller
//! names, so that two checkouts of one manifest are the same to a build that looks.

use super::folder::{self, Folder};
use super::{Checking, ChunkSource, Reading};
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
                    let chunk = source.read(digest).map_err(CheckoutError::Read)?;
                    let chunk =
                        chunk.filter(|chunk| source.checking() == Checking::Done || Digest::of(chunk) == *digest);
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
