//! An artifact written straight into a folder, for commands, which open no store.
//!
//! Files are gathered in a private folder beside the output (`.NAME.DIGITS.partial`). When all are whole it is renamed into
//! place; if the output folder exists already, each file is renamed into it, in place of an older one. Whatever lies in either
//! folder from an earlier fetch is verified chunk by chunk and used again.

use crate::artifact::folder::{self, Folder, stands_at};
use protocol::digest::Digest;
use protocol::tree::{CHUNK_BYTES, Manifest, Node, chunk_len};
use rustix::fs::{FileType, StatFs};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::bytes::Bytes;

/// Bytes of what `stat` counts as a block, whatever the disk's blocks are (`stat(2)`, `st_blocks`).
const BLOCK_BYTES: u64 = 512;

/// Filesystems on which files may take less than they are long, as `statfs(2)` names them: bcachefs, btrfs and ZFS.
const COMPRESSING: [u64; 3] = [0xca45_1a4e, 0x9123_683e, 0x2fc1_2fc1];

/// An output folder cannot be written to.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The path has no last name, or its parent does not exist.
    #[error("`{}` cannot be an output folder: {error}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Writing failed.
    #[error("`{}` cannot be written: {error}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// How it failed.
        error: io::Error,
    },
    /// The disk has no room for the files.
    #[error("they take {} MiB more, and the disk of `{}` has {} MiB free", needed_bytes.div_ceil(1 << 20), path.display(), free_bytes >> 20)]
    NoRoom {
        /// Where they are to be.
        path: PathBuf,
        /// What is not there yet of all files, in bytes.
        needed_bytes: u64,
        /// What is free, in bytes.
        free_bytes: u64,
    },
    /// The program is ending and its blocking threads are gone.
    #[error("shutting down")]
    ShuttingDown,
}

/// An output folder in the making.
#[derive(Debug)]
pub(super) struct Output {
    to: PathBuf,
    partial: PathBuf,
    folder: Mutex<Folder>,
    manifest: Manifest,
    /// Where each chunk goes: entry of the manifest, and position in the file.
    places: BTreeMap<Digest, Vec<(usize, u64)>>,
}

impl Output {
    /// Prepares the folder and says which chunks are there already.
    pub(super) async fn open(to: PathBuf, manifest: Manifest) -> Result<(Self, Vec<Digest>), OutputError> {
        pooled(move || Self::prepare(&to, manifest)).await
    }

    /// Writes those chunks that fit their digest; says which did.
    pub(super) async fn accept(self: Arc<Self>, chunks: Vec<(Digest, Bytes)>) -> Result<Vec<Digest>, OutputError> {
        pooled(move || {
            let mut fitting = Vec::with_capacity(chunks.len());
            for (digest, bytes) in chunks {
                if Digest::of(&bytes) == digest {
                    self.write(&digest, &bytes)?;
                    fitting.push(digest);
                }
            }
            Ok(fitting)
        })
        .await
    }

    /// Sets the modes and moves everything into place.
    pub(super) async fn finish(self: Arc<Self>) -> Result<(), OutputError> {
        pooled(move || self.publish()).await
    }

    fn prepare(to: &Path, manifest: Manifest) -> Result<(Self, Vec<Digest>), OutputError> {
        let to = resolve(to)?;
        let name = to.file_name().unwrap_or_default().to_string_lossy();
        let partial = to.with_file_name(format!(".{name}.{}.partial", manifest.id().short()));
        let folder =
            Folder::open_private(&partial).map_err(|error| OutputError::Write { path: partial.clone(), error })?;
        let mut places: BTreeMap<Digest, Vec<(usize, u64)>> = BTreeMap::new();
        for (at, entry) in manifest.entries().iter().enumerate() {
            let Node::File { chunks, .. } = &entry.node else { continue };
            for (nr, digest) in chunks.iter().enumerate() {
                places.entry(*digest).or_default().push((at, nr as u64));
            }
        }
        let output = Self { to, partial, folder: Mutex::new(folder), manifest, places };
        output.find_room()?;
        let present = output.reuse()?;
        Ok((output, present))
    }

    /// Compares what the files will take with what is free: a manifest may be larger than the disk, by mistake or by a lie, for
    /// it may name one chunk a million times, and that is better known before the first byte is asked for.
    fn find_room(&self) -> Result<(), OutputError> {
        let mut needed_bytes = 0u64;
        for (path, _, size, _) in self.manifest.files() {
            let failed = |error| OutputError::Write { path: self.to.join(path.as_str()), error };
            let begun = self.folder().read_file(path).map_err(failed)?;
            let taken = begun.map(|file| file.metadata()).transpose().map_err(failed)?.map(|begun| begun.blocks());
            needed_bytes = needed_bytes.saturating_add(size.saturating_sub(taken.unwrap_or_default() * BLOCK_BYTES));
        }
        let free_bytes = rustix::fs::statfs(&self.partial).map_or(u64::MAX, |disk| free_bytes(&disk));
        if needed_bytes <= free_bytes {
            return Ok(());
        }
        // Left over from an earlier fetch it may hold something, and then it stays.
        let _held = std::fs::remove_dir(&self.partial);
        Err(OutputError::NoRoom { path: self.to.clone(), needed_bytes, free_bytes })
    }

    /// Makes every file at its full length and finds the chunks that are there already.
    fn reuse(&self) -> Result<Vec<Digest>, OutputError> {
        let mut older = match stands_at(&self.to).map_err(self.failed_to())? {
            Some(FileType::Directory) => Some(Folder::open(&self.to).map_err(self.failed_to())?),
            Some(_) => {
                let error = io::Error::new(io::ErrorKind::NotADirectory, "something that is no folder stands there");
                return Err(OutputError::Write { path: self.to.clone(), error });
            }
            None => None,
        };
        let mut present = BTreeSet::new();
        for (path, _, size, chunks) in self.manifest.files() {
            let failed = |error| OutputError::Write { path: self.to.join(path.as_str()), error };
            let begun = self.folder().read_file(path).map_err(failed)?;
            let file = self.folder().open_or_create_file(path).map_err(failed)?;
            file.set_len(size).map_err(failed)?;
            let from_older = match older.as_mut() {
                Some(older) => older.read_file(path).map_err(failed)?,
                None => None,
            };
            for (nr, digest) in chunks.iter().enumerate() {
                let (nr, fits) = (nr as u64, |from: &Option<File>| match from {
                    Some(file) => {
                        read_chunk(file, size, nr as u64).map(|bytes| bytes.filter(|b| Digest::of(b) == *digest))
                    }
                    None => Ok(None),
                });
                if fits(&begun).map_err(failed)?.is_some() {
                    present.insert(*digest);
                } else if let Some(bytes) = fits(&from_older).map_err(failed)? {
                    self.write(digest, &bytes)?;
                    present.insert(*digest);
                    tracing::trace!(%path, nr, "reused from the output folder");
                }
            }
        }
        self.spread(present)
    }

    /// A chunk found in one file may be needed in others: copies it there.
    fn spread(&self, present: BTreeSet<Digest>) -> Result<Vec<Digest>, OutputError> {
        for digest in &present {
            let places = &self.places[digest];
            if places.len() < 2 {
                continue;
            }
            let mut found = None;
            for (at, nr) in places {
                let entry = &self.manifest.entries()[*at];
                let Node::File { size, .. } = &entry.node else { continue };
                let failed = |error| OutputError::Write { path: self.to.join(entry.path.as_str()), error };
                let file = self.folder().read_file(&entry.path).map_err(failed)?;
                let Some(file) = file else { continue };
                found = read_chunk(&file, *size, *nr).map_err(failed)?.filter(|bytes| Digest::of(bytes) == *digest);
                if found.is_some() {
                    break;
                }
            }
            if let Some(bytes) = found {
                self.write(digest, &bytes)?;
            }
        }
        Ok(present.into_iter().collect())
    }

    /// Writes a verified chunk wherever it belongs.
    fn write(&self, digest: &Digest, bytes: &[u8]) -> Result<(), OutputError> {
        for (at, nr) in self.places.get(digest).into_iter().flatten() {
            let path = &self.manifest.entries()[*at].path;
            let failed = |error| OutputError::Write { path: self.to.join(path.as_str()), error };
            let file = self.folder().open_or_create_file(path).map_err(failed)?;
            file.write_all_at(bytes, nr * CHUNK_BYTES).map_err(failed)?;
        }
        Ok(())
    }

    fn publish(&self) -> Result<(), OutputError> {
        for entry in self.manifest.entries() {
            let path = &entry.path;
            let made = match &entry.node {
                Node::File { mode, .. } => {
                    let file = self.folder().open_or_create_file(path);
                    file.and_then(|file| folder::set_mode(&file, *mode))
                }
                Node::Link { target } => match self.folder().create_link(path, target) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                    made => made,
                },
                Node::Folder => self.folder().create_folder(path),
            };
            made.map_err(|error| OutputError::Write { path: self.to.join(path.as_str()), error })?;
        }
        if stands_at(&self.to).map_err(self.failed_to())?.is_none() {
            self.folder().publish().map_err(self.failed_to())?;
            return std::fs::rename(&self.partial, &self.to).map_err(self.failed_to());
        }
        let mut to = Folder::open(&self.to).map_err(self.failed_to())?;
        for entry in self.manifest.entries() {
            let moved = match &entry.node {
                Node::File { .. } | Node::Link { .. } => self.folder().move_into(&entry.path, &mut to),
                Node::Folder => to.create_folder(&entry.path),
            };
            moved.map_err(|error| OutputError::Write { path: self.to.join(entry.path.as_str()), error })?;
        }
        if let Err(error) = std::fs::remove_dir_all(&self.partial) {
            // Every file is where it belongs; only what they were gathered in stays.
            tracing::warn!(folder = %self.partial.display(), %error, "a folder is left over");
        }
        Ok(())
    }

    fn folder(&self) -> MutexGuard<'_, Folder> {
        self.folder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed_to(&self) -> impl Fn(io::Error) -> OutputError + use<'_> {
        |error| OutputError::Write { path: self.to.clone(), error }
    }
}

/// The output folder with every link on the way to it followed once: links that the user placed are the user's business.
fn resolve(to: &Path) -> Result<PathBuf, OutputError> {
    let failed = |error| OutputError::Path { path: to.to_owned(), error };
    if let Ok(there) = to.canonicalize() {
        return Ok(there);
    }
    let no_name = || failed(io::Error::new(io::ErrorKind::InvalidInput, "it has no name"));
    let name = to.file_name().ok_or_else(no_name)?;
    let parent = match to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(parent).map_err(failed)?;
    Ok(parent.canonicalize().map_err(failed)?.join(name))
}

/// What is free of a disk for this process, in bytes; no bound where that cannot be told.
fn free_bytes(disk: &StatFs) -> u64 {
    // A disk without blocks does not tell its size.
    if disk.f_blocks == 0 || COMPRESSING.contains(&u64::try_from(disk.f_type).unwrap_or_default()) {
        return u64::MAX;
    }
    let blocks = if rustix::process::geteuid().is_root() { disk.f_bfree } else { disk.f_bavail };
    blocks.saturating_mul(u64::try_from(disk.f_bsize).unwrap_or(1))
}

/// Chunk `nr` of a file that should have `size` bytes; `None` when the file is shorter.
fn read_chunk(file: &File, size: u64, nr: u64) -> io::Result<Option<Vec<u8>>> {
    let len = usize::try_from(chunk_len(size, nr)).map_err(io::Error::other)?;
    let mut bytes = vec![0; len];
    match file.read_exact_at(&mut bytes, nr * CHUNK_BYTES) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// Runs `work` on the blocking pool; a panic there goes on here.
async fn pooled<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, OutputError> + Send + 'static,
) -> Result<T, OutputError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_cancelled) => Err(OutputError::ShuttingDown),
        },
    }
}
