//! Where the chunks of an imported source are, and reading them again.

use protocol::digest::Digest;
use protocol::tree::CHUNK_BYTES;
use rustix::fs::OFlags;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// The chunks of a source.
#[derive(Debug)]
pub(super) enum Chunks {
    /// In the files of a folder.
    Folder(FolderChunks),
    /// Unpacked from an archive.
    Spool(SpoolChunks),
    /// Of several sources, one after another.
    Several(Vec<Chunks>),
}

impl Chunks {
    pub(super) fn read(&self, digest: &Digest) -> io::Result<Option<Vec<u8>>> {
        match self {
            Self::Folder(chunks) => chunks.read(digest),
            Self::Spool(chunks) => chunks.read(digest),
            Self::Several(chunks) => chunks.iter().find_map(|chunks| chunks.read(digest).transpose()).transpose(),
        }
    }
}

/// Chunks in the files of a folder, each opened when it is read.
#[derive(Debug, Default)]
pub(super) struct FolderChunks {
    files: Vec<PathBuf>,
    /// File, start and length of each chunk.
    extents: HashMap<Digest, (usize, u64, usize)>,
}

impl FolderChunks {
    /// Takes in a file from its content. Returns its length and digests.
    pub(super) fn add(&mut self, path: PathBuf, content: impl Read) -> io::Result<(u64, Vec<Digest>)> {
        self.files.push(path);
        let file = self.files.len() - 1;
        let (mut content, mut size, mut digests) = (content, 0, Vec::new());
        while let Some(bytes) = next_chunk(&mut content)? {
            let digest = Digest::of(&bytes);
            self.extents.entry(digest).or_insert((file, size, bytes.len()));
            size += bytes.len() as u64;
            digests.push(digest);
        }
        Ok((size, digests))
    }

    fn read(&self, digest: &Digest) -> io::Result<Option<Vec<u8>>> {
        let Some(&(file, start, len)) = self.extents.get(digest) else { return Ok(None) };
        let path = &self.files[file];
        verified(&open(path)?, start, len, digest)?.map(Some).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{} was changed since it was imported", path.display()))
        })
    }
}

/// Chunks unpacked into one file, each once.
#[derive(Debug)]
pub(super) struct SpoolChunks {
    file: File,
    end: u64,
    /// Start and length of each chunk.
    extents: HashMap<Digest, (u64, usize)>,
}

/// What failed while an entry was unpacked.
pub(super) enum SpoolError {
    /// Reading the archive.
    Read(io::Error),
    /// Writing its chunks.
    Write(io::Error),
}

impl SpoolChunks {
    /// Chunks to be written to an empty file.
    pub(super) fn new(file: File) -> Self {
        Self { file, end: 0, extents: HashMap::new() }
    }

    /// Takes in an entry from its content. Returns its length and digests.
    pub(super) fn add(&mut self, mut content: impl Read) -> Result<(u64, Vec<Digest>), SpoolError> {
        let (mut size, mut digests) = (0, Vec::new());
        while let Some(bytes) = next_chunk(&mut content).map_err(SpoolError::Read)? {
            let digest = Digest::of(&bytes);
            if !self.extents.contains_key(&digest) {
                self.file.write_all(&bytes).map_err(SpoolError::Write)?;
                self.extents.insert(digest, (self.end, bytes.len()));
                self.end += bytes.len() as u64;
            }
            size += bytes.len() as u64;
            digests.push(digest);
        }
        Ok((size, digests))
    }

    fn read(&self, digest: &Digest) -> io::Result<Option<Vec<u8>>> {
        let Some(&(start, len)) = self.extents.get(digest) else { return Ok(None) };
        verified(&self.file, start, len, digest)?
            .map(Some)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the unpacked archive was damaged on disk"))
    }
}

/// The bytes, if they are there and are those of the digest.
fn verified(file: &File, start: u64, len: usize, digest: &Digest) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; len];
    match file.read_exact_at(&mut bytes, start) {
        Ok(()) => Ok((Digest::of(&bytes) == *digest).then_some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// As much of the content as one chunk holds; `None` at its end.
fn next_chunk(content: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    content.by_ref().take(CHUNK_BYTES).read_to_end(&mut bytes)?;
    Ok((!bytes.is_empty()).then_some(bytes))
}

/// Opens a file for reading, through no link, and without waiting for the other end of a pipe.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?.into())
}
