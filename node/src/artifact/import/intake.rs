//! A tree taken in entry by entry, for whoever reads a format of its own.

use super::chunks::{Chunks, SpoolChunks, SpoolError};
use super::{Findings, Found, ImportError, Imported, Refusal, refused, unreadable};
use protocol::tree::{Mode, TreePath};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Entries on their way to becoming a tree, by the rules of every source: paths inside the tree, links inside the tree, each
/// name once, bounded in number and bytes. Chunks go into an unnamed file.
#[derive(Debug)]
pub struct Intake {
    spool: PathBuf,
    chunks: SpoolChunks,
    findings: Findings,
    left_bytes: u64,
    max_bytes: u64,
}

impl Intake {
    /// Takes in at most `max_bytes` of content, kept in an unnamed file in the folder `spool`.
    ///
    /// # Errors
    ///
    /// [`ImportError::Io`] when there can be no such file.
    pub fn new(spool: &Path, max_bytes: u64) -> Result<Self, ImportError> {
        let file = tempfile::tempfile_in(spool).map_err(unreadable(spool))?;
        let chunks = SpoolChunks::new(file);
        Ok(Self { spool: spool.to_owned(), chunks, findings: Findings::default(), left_bytes: max_bytes, max_bytes })
    }

    /// Takes in a file.
    ///
    /// # Errors
    ///
    /// [`ImportError`]; a failure of `content` is [`ImportError::Damaged`].
    pub fn file(&mut self, name: &str, mode: Mode, content: impl Read) -> Result<(), ImportError> {
        let path = path(name)?;
        let limited = content.take(self.left_bytes.saturating_add(1));
        let (size, chunks) = self.chunks.add(limited).map_err(|error| match error {
            SpoolError::Read(error) => ImportError::Damaged(error.to_string()),
            SpoolError::Write(error) => ImportError::Io { path: self.spool.clone(), error },
        })?;
        self.left_bytes = self.left_bytes.checked_sub(size).ok_or(ImportError::TooLarge { limit: self.max_bytes })?;
        self.findings.add(path, Found::File { mode, size, chunks })
    }

    /// Takes in a link; where it leads is judged at the end.
    ///
    /// # Errors
    ///
    /// [`ImportError`].
    pub fn link(&mut self, name: &str, target: Vec<u8>) -> Result<(), ImportError> {
        let target = String::from_utf8(target).map_err(|_| refused(name, Refusal::NotUtf8))?;
        self.findings.add(path(name)?, Found::Link { target })
    }

    /// Takes in a folder. One that holds something needs no entry of its own.
    ///
    /// # Errors
    ///
    /// [`ImportError`].
    pub fn folder(&mut self, name: &str) -> Result<(), ImportError> {
        self.findings.add(path(name)?, Found::Folder)
    }

    /// The refusal of an entry whose name is not UTF-8.
    #[must_use]
    pub fn not_utf8(name: &[u8]) -> ImportError {
        refused(&String::from_utf8_lossy(name), Refusal::NotUtf8)
    }

    /// The tree, without the folder that holds everything, if one does.
    pub(super) fn finish_inside(self) -> Result<Imported, ImportError> {
        Ok(Imported {
            manifest: self.findings.without_top()?.manifest()?,
            chunks: Chunks::Spool(self.chunks),
            left_out: 0,
        })
    }

    /// The tree.
    ///
    /// # Errors
    ///
    /// [`ImportError`] when the entries together are none.
    pub fn finish(self) -> Result<Imported, ImportError> {
        Ok(Imported { manifest: self.findings.manifest()?, chunks: Chunks::Spool(self.chunks), left_out: 0 })
    }
}

fn path(name: &str) -> Result<TreePath, ImportError> {
    TreePath::try_from(name).map_err(|error| refused(name, Refusal::Path(error)))
}
