//! An archive as it would unpack, without unpacking it anywhere.

use super::chunks::{Chunks, SpoolChunks, SpoolError};
use super::compression::{Content, Seen};
use super::header::{Ahead, Problem, path_inside};
use super::{Findings, Found, ImportError, Imported, Refusal, refused, unreadable, zip};
use protocol::tree::Mode;
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use tar::EntryType;

/// How much of the file is read at a time.
const BUFFER_BYTES: usize = 128 << 10;

/// Reads the archive; it may grow to `grown_bytes` whatever its size.
pub(super) fn import(path: &Path, spool: &Path, grown_bytes: u64) -> Result<Imported, ImportError> {
    let file = File::open(path).map_err(unreadable(path))?;
    let status = file.metadata().map_err(unreadable(path))?;
    if !status.is_file() {
        return Err(ImportError::Format { path: path.to_owned(), found: "not a plain file" });
    }
    let mut start = [0; 4];
    let read = file.read_at(&mut start, 0).map_err(unreadable(path))?;
    // The directory of a zip is at its end; an empty one has nothing else.
    if matches!(&start[..read], [b'P', b'K', 3, 4] | [b'P', b'K', 5, 6]) {
        return zip::import(path, &file, status.len(), spool, grown_bytes);
    }
    let (content, seen) = Content::new(path, status.len(), grown_bytes, BufReader::with_capacity(BUFFER_BYTES, file))?;
    let mut archive = tar::Archive::new(content);
    let chunks = SpoolChunks::new(tempfile::tempfile_in(spool).map_err(unreadable(spool))?);
    let mut unpacking = Unpacking { path, spool, seen, chunks, findings: Findings::default() };
    unpacking.entries(&mut archive)?;
    unpacking.rest(archive.into_inner())?;
    let manifest = unpacking.findings.without_top()?.manifest()?;
    Ok(Imported { manifest, chunks: Chunks::Spool(unpacking.chunks), left_out: 0 })
}

struct Unpacking<'a> {
    path: &'a Path,
    spool: &'a Path,
    seen: Seen,
    chunks: SpoolChunks,
    findings: Findings,
}

impl Unpacking<'_> {
    fn damaged(&self, error: std::io::Error) -> ImportError {
        self.seen.cause(self.path, error)
    }

    fn entries(&mut self, archive: &mut tar::Archive<Content<'_>>) -> Result<(), ImportError> {
        let mut ahead = Ahead::default();
        // Raw: extension headers come as entries of their own, and are read by our rules.
        let entries = archive.entries().map_err(|error| self.seen.cause(self.path, error))?.raw(true);
        for entry in entries {
            let mut entry = entry.map_err(|error| self.damaged(error))?;
            let header = entry.header().clone();
            let kind = header.entry_type();
            let name = String::from_utf8_lossy(&header.path_bytes()).into_owned();
            match ahead.takes(kind, &name, &mut entry) {
                Ok(true) => continue,
                Ok(false) => {}
                Err(Problem::Import(error)) => return Err(error),
                Err(Problem::Read(error)) => return Err(self.damaged(error)),
            }
            let (name, target) = std::mem::take(&mut ahead).apply(&header)?;
            let Some(tree_path) = path_inside(&name, kind)? else { continue };
            let found = match kind {
                EntryType::Regular | EntryType::Continuous => {
                    let mode = header.mode().map_err(|_| refused(&name, Refusal::Header("its mode is no number")))?;
                    self.file(Mode::of_bits(mode), entry.size(), entry)?
                }
                EntryType::Directory | EntryType::Symlink if entry.size() > 0 => {
                    return Err(refused(&name, Refusal::Content));
                }
                EntryType::Directory => Found::Folder,
                EntryType::Symlink => {
                    let target = String::from_utf8(target.unwrap_or_default());
                    Found::Link { target: target.map_err(|_| refused(&name, Refusal::NotUtf8))? }
                }
                kind => return Err(refused(&name, Refusal::Special(special(kind)))),
            };
            self.findings.add(tree_path, found)?;
        }
        if ahead.is_empty() { Ok(()) } else { Err(ImportError::Damaged("it ends before an entry it announces".into())) }
    }

    fn file(&mut self, mode: Mode, announced: u64, content: impl Read) -> Result<Found, ImportError> {
        match self.chunks.add(content) {
            Ok((size, chunks)) if size == announced => Ok(Found::File { mode, size, chunks }),
            Ok(_) => Err(ImportError::Damaged("it ends within a file".to_owned())),
            Err(SpoolError::Read(error)) => Err(self.damaged(error)),
            Err(SpoolError::Write(error)) => Err(ImportError::Io { path: self.spool.to_owned(), error }),
        }
    }

    /// Reads what follows the block of zeros at the end: more zeros, and the decoder's own checks.
    fn rest(&self, mut content: Content<'_>) -> Result<(), ImportError> {
        if self.seen.ended() {
            return Err(ImportError::Damaged("it ends before its end is marked".to_owned()));
        }
        let mut buffer = [0; 8 << 10];
        loop {
            match content.read(&mut buffer).map_err(|error| self.damaged(error))? {
                0 => return Ok(()),
                len if buffer[..len].iter().all(|byte| *byte == 0) => {}
                _ => return Err(ImportError::Damaged("something follows its end".to_owned())),
            }
        }
    }
}

fn special(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Link => "hard link",
        EntryType::Char | EntryType::Block => "device",
        EntryType::Fifo => "pipe",
        EntryType::GNUSparse => "sparse file",
        _ => "special entry",
    }
}
