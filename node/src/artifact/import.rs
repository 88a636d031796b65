//! A source becomes a tree: a folder as it lies there, or an archive as it would unpack.
//!
//! Nothing is written but the chunks of an archive, into one unnamed file. Whatever cannot be part of a tree is refused by
//! name, never skipped or mended: absolute paths, `..`, links out of the tree, hard links, devices, doubled entries,
//! headers that disagree. So a folder and its archive give the same manifest, and no two readers see two trees in one
//! archive.
//!
//! Everything is read as a stream, but for the directory of a zip. Memory stays below the decoder's window (xz 96 MiB, zstd 128 MiB, and only for an
//! archive that asks for it) and a few hundred bytes an entry; an archive may grow to 512 MiB or twenty times its own size,
//! whichever is more.

mod archive;
mod chunks;
mod compression;
mod directory;
mod header;
mod intake;
#[cfg(test)]
mod tests;
mod together;
mod zip;

pub use intake::Intake;
pub use together::together;

use super::{Checking, ChunkSource};
use chunks::Chunks;
use protocol::digest::Digest;
use protocol::tree::{Entry, LinkTarget, MAX_MANIFEST_BYTES, Manifest, ManifestError, Mode, Node, PathError, TreePath};
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

/// The most entries of a source.
pub const MAX_ENTRIES: usize = 400_000;
/// The most bytes of a folder that is given as source: 16 GiB.
pub const MAX_FOLDER_BYTES: u64 = 16 << 30;
/// What every archive may grow to: 512 MiB.
pub const MIN_GROWN_BYTES: u64 = 512 << 20;
/// What a large archive may grow to, as a multiple of its own size.
pub const MAX_GROWTH: u64 = 20;
/// Folders of version control, left out of a folder that is given as source.
pub const LEFT_OUT: [&str; 5] = [".bzr", ".git", ".hg", ".jj", ".svn"];

/// A source as a tree, and its chunks for as long as this lives.
#[derive(Debug)]
pub struct Imported {
    /// The tree.
    pub manifest: Manifest,
    /// Entries of a folder that are no part of it: folders of version control, and what `.gitignore` files name. What lies in a
    /// folder that was left out is not counted.
    pub left_out: usize,
    chunks: Chunks,
}

impl ChunkSource for Imported {
    /// The chunk with this digest, compared with it.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidData`] when a file of the folder was changed since it was imported; whatever reading failed
    /// with otherwise.
    fn read(&self, digest: &Digest) -> io::Result<Option<Vec<u8>>> {
        self.chunks.read(digest)
    }

    fn checking(&self) -> Checking {
        Checking::Done
    }
}

/// Why a source does not become a tree.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The machine could not read the source, or not keep its chunks.
    #[error("cannot read or write {}: {error}", .path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// Neither folder nor archive.
    #[error("{} is {found}: give a folder, a zip archive, or a tar archive, plain or compressed by gzip, bzip2, xz or zstd", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What it looks like.
        found: &'static str,
    },
    /// The archive ends too early, fails its own check, or wants too much memory.
    #[error("the archive is damaged: {0}")]
    Damaged(String),
    /// It grows beyond its limit.
    #[error("the source holds more than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// More entries than a source may have, or names too long together.
    #[error("the source has too many entries: at most {MAX_ENTRIES}, and a manifest of {MAX_MANIFEST_BYTES} bytes")]
    TooMany,
    /// There is nothing in it.
    #[error("the source is empty")]
    Empty,
    /// An entry that cannot be part of a tree.
    #[error("`{}` cannot be part of a source: {why}", .name.escape_debug())]
    Refused {
        /// The entry as it calls itself.
        name: String,
        /// What is wrong with it.
        why: Refusal,
    },
    /// The entries together are no tree.
    #[error("the source is no tree: {0}")]
    Tree(#[from] ManifestError),
}

/// What is wrong with an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Absolute.
    #[error("its path is absolute")]
    Absolute,
    /// Not a path inside a tree.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Names are UTF-8.
    #[error("its name is not UTF-8")]
    NotUtf8,
    /// A link that is absolute or leads out.
    #[error("it is a link to `{}`: {error}", .target.escape_debug())]
    Link {
        /// Where it points.
        target: String,
        /// What is wrong with that.
        error: PathError,
    },
    /// Neither file, folder nor symbolic link.
    #[error("it is a {0}")]
    Special(&'static str),
    /// It stands there twice.
    #[error("it stands there twice")]
    Twice,
    /// Two headers of one entry say different things.
    #[error("its headers disagree about its {0}")]
    Disagreement(&'static str),
    /// A header that cannot be read.
    #[error("its header is damaged: {0}")]
    Header(&'static str),
    /// Content that nobody here can read.
    #[error("it is encrypted")]
    Encrypted,
    /// Packed in a way that is not read.
    #[error("it is packed by method {0}: stored and deflated entries are read")]
    Method(u16),
    /// It shares bytes with another entry.
    #[error("it lies over another entry or the directory")]
    Overlap,
    /// A folder or link with content.
    #[error("it is no file and has content")]
    Content,
}

/// What stands at a path, before the tree as a whole is known.
#[derive(Clone, Debug)]
enum Found {
    File { mode: Mode, size: u64, chunks: Vec<Digest> },
    Link { target: String },
    Folder,
}

/// The entries found so far, within bounds.
#[derive(Debug, Default)]
struct Findings {
    entries: Vec<(TreePath, Found)>,
    manifest_bytes: usize,
}

impl Findings {
    fn add(&mut self, path: TreePath, found: Found) -> Result<(), ImportError> {
        // Keys, lengths and mode of an entry take less than 64 bytes of a manifest, a digest 34.
        self.manifest_bytes += 64
            + path.as_str().len()
            + match &found {
                Found::File { chunks, .. } => chunks.len() * 34,
                Found::Link { target } => target.len(),
                Found::Folder => 0,
            };
        if self.entries.len() == MAX_ENTRIES || self.manifest_bytes > MAX_MANIFEST_BYTES {
            return Err(ImportError::TooMany);
        }
        self.entries.push((path, found));
        Ok(())
    }

    /// Whether everything lies in one folder.
    fn top_folder(&self) -> Option<String> {
        let (first, found) = self.entries.first()?;
        let top = first.names().next()?;
        let alone = self.entries.len() == 1 && !matches!(found, Found::Folder);
        let below = |(path, found): &(TreePath, Found)| match path.as_str().strip_prefix(top) {
            Some("") => matches!(found, Found::Folder),
            Some(rest) => rest.starts_with('/'),
            None => false,
        };
        let holds = self.entries.iter().all(below);
        (holds && !(alone && first.parent().is_none())).then(|| top.to_owned())
    }

    /// The same entries without the folder that holds them all.
    fn without_top(self) -> Result<Self, ImportError> {
        let Some(top) = self.top_folder() else { return Ok(self) };
        let mut inside = Self::default();
        for (path, found) in self.entries {
            if let Some(rest) = path.as_str().get(top.len() + 1..) {
                let path = TreePath::try_from(rest).map_err(|error| refused(path.as_str(), Refusal::Path(error)))?;
                inside.add(path, found)?;
            }
        }
        Ok(inside)
    }

    /// The tree. Folders that hold something need no entry of their own, so they have none.
    fn manifest(self) -> Result<Manifest, ImportError> {
        if self.entries.is_empty() {
            return Err(ImportError::Empty);
        }
        let parents: HashSet<String> =
            self.entries.iter().filter_map(|(path, _)| path.parent()).map(str::to_owned).collect();
        let mut seen: HashSet<TreePath> = HashSet::new();
        let mut entries = Vec::with_capacity(self.entries.len());
        for (path, found) in self.entries {
            let is_folder = matches!(found, Found::Folder);
            if is_folder && parents.contains(path.as_str()) {
                continue;
            }
            if !seen.insert(path.clone()) {
                if is_folder {
                    continue;
                }
                return Err(refused(path.as_str(), Refusal::Twice));
            }
            let node = match found {
                Found::File { mode, size, chunks } => Node::File { mode, size, chunks },
                Found::Link { target } => Node::Link {
                    target: LinkTarget::new(&path, &target)
                        .map_err(|error| refused(path.as_str(), Refusal::Link { target, error }))?,
                },
                Found::Folder => Node::Folder,
            };
            entries.push(Entry { path, node });
        }
        Ok(Manifest::new(entries)?)
    }
}

fn refused(name: &str, why: Refusal) -> ImportError {
    ImportError::Refused { name: name.to_owned(), why }
}

fn unreadable(path: &Path) -> impl Fn(io::Error) -> ImportError + '_ {
    |error| ImportError::Io { path: path.to_owned(), error }
}

/// Imports a folder, or an archive if `path` is a file. See [`import_directory`] and [`import_archive`].
///
/// # Errors
///
/// [`ImportError`].
pub async fn import(path: &Path) -> Result<Imported, ImportError> {
    let kind = tokio::fs::metadata(path).await.map_err(unreadable(path))?;
    if kind.is_dir() { import_directory(path).await } else { import_archive(path).await }
}

/// Imports a folder, leaving out [`LEFT_OUT`] and what its `.gitignore` files name. Chunks are read again from its files, so they must not change meanwhile.
///
/// # Errors
///
/// [`ImportError`] names what cannot be part of a source.
pub async fn import_directory(path: &Path) -> Result<Imported, ImportError> {
    let path = path.to_owned();
    blocking(move || directory::import(&path)).await
}

/// Imports an archive, whose kind is told by its first bytes. A single top folder is dropped. Chunks go into an unnamed
/// file in the system's folder for temporary files.
///
/// # Errors
///
/// [`ImportError`] names what cannot be part of a source.
pub async fn import_archive(path: &Path) -> Result<Imported, ImportError> {
    import_archive_with(path, &std::env::temp_dir()).await
}

/// As [`import_archive`], with the chunks in an unnamed file in the folder `spool`.
///
/// # Errors
///
/// [`ImportError`] names what cannot be part of a source.
pub async fn import_archive_with(path: &Path, spool: &Path) -> Result<Imported, ImportError> {
    let (path, spool) = (path.to_owned(), spool.to_owned());
    blocking(move || archive::import(&path, &spool, MIN_GROWN_BYTES)).await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
