//! One file of the log: `0000000000000007.wal`, a header and then records.
//!
//! A segment appears under its name only when header and first record are on disk (temporary name,
//! sync, rename, sync of the folder). So a named segment without a whole header is damage, never the
//! trace of a crash.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::record::{self, Frontier, Place, Record};

const MAGIC: [u8; 8] = *b"barnwal1";
/// magic 8, sequence 8, salt 4, checksum of these 4
pub(super) const HEADER_BYTES: usize = 24;
const SUFFIX: &str = ".wal";
/// Suffix of files that are being made; what carries it after a crash is thrown away.
pub(super) const UNFINISHED_SUFFIX: &str = ".new";

/// Counts the waits for the disk that have ended, one for each `fsync` or `fdatasync`.
#[derive(Debug, Default)]
pub struct Syncs(AtomicU64);

impl Syncs {
    /// Waits so far.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    pub(super) fn contents(&self, file: &File) -> io::Result<()> {
        let synced = file.sync_data();
        self.0.fetch_add(1, Ordering::Release);
        synced
    }

    pub(super) fn folder(&self, folder: &Path) -> io::Result<()> {
        let synced = File::open(folder)?.sync_all();
        self.0.fetch_add(1, Ordering::Release);
        synced
    }

    /// Makes `folder` and what is missing above it; durable when it returns.
    pub(in crate::coordinator) fn make_folder(&self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        self.make_folder(parent)?;
        fs::create_dir(folder)?;
        self.folder(parent)
    }

    /// Puts `bytes` under `path` so that after a crash the file is either the old one or the new one.
    pub(super) fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<File> {
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(UNFINISHED_SUFFIX);
        let mut file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&unfinished)?;
        file.write_all(bytes)?;
        self.contents(&file)?;
        fs::rename(&unfinished, path)?;
        let folder = path.parent().ok_or_else(|| io::Error::other("a file of the log has a folder"))?;
        self.folder(folder)?;
        Ok(file)
    }
}

/// The segment that is being written.
#[derive(Debug)]
pub(super) struct Segment {
    file: File,
    sequence: u64,
    salt: u32,
    length: u64,
}

/// What the header of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) sequence: u64,
    pub(super) salt: u32,
}

impl Segment {
    /// Makes the segment `sequence` with `frontier` as its first record; durable when it returns.
    pub(super) fn create(
        folder: &Path,
        sequence: u64,
        batch: u64,
        frontier: Frontier,
        syncs: &Syncs,
    ) -> io::Result<Self> {
        let salt = rand::random();
        let mut bytes = Header { sequence, salt }.encode();
        Record::Frontier(frontier).encode(salt, batch, Place::End, &mut bytes);
        let file = syncs.replace(&path(folder, sequence), &bytes)?;
        Ok(Self { file, sequence, salt, length: bytes.len() as u64 })
    }

    /// Opens a segment that recovery read to its end, `length`, to write on.
    pub(super) fn resume(folder: &Path, header: Header, length: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path(folder, header.sequence))?;
        Ok(Self { file, sequence: header.sequence, salt: header.salt, length })
    }

    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(super) fn salt(&self) -> u32 {
        self.salt
    }

    /// Bytes written so far.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Writes `bytes` at the end and waits until they are on disk.
    pub(super) fn append(&mut self, bytes: &[u8], syncs: &Syncs) -> io::Result<()> {
        self.file.write_all_at(bytes, self.length)?;
        syncs.contents(&self.file)?;
        self.length += bytes.len() as u64;
        Ok(())
    }
}

impl Header {
    fn encode(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.sequence.to_le_bytes());
        bytes.extend_from_slice(&self.salt.to_le_bytes());
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// None if `bytes` do not begin with a whole header.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let header = bytes.first_chunk::<HEADER_BYTES>()?;
        let sequence = u64::from_le_bytes(*header[8..].first_chunk()?);
        let salt = u32::from_le_bytes(*header[16..].first_chunk()?);
        let found = Self { sequence, salt };
        (found.encode() == header).then_some(found)
    }
}

/// Reads entries back from one segment; checks each of them again.
#[derive(Debug)]
pub(super) struct SegmentReader {
    file: File,
    sequence: u64,
    salt: u32,
}

impl SegmentReader {
    pub(super) fn open(folder: &Path, sequence: u64) -> io::Result<Self> {
        let file = File::open(path(folder, sequence))?;
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(&mut header, 0)?;
        let header = Header::decode(&header)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "damaged segment header"))?;
        Ok(Self { file, sequence, salt: header.salt })
    }

    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The payload of entry `index`, whose record is `length` bytes at `offset`.
    pub(super) fn entry(&self, index: u64, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, offset)?;
        let found =
            record::decode(&bytes, 0, self.salt).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        match found.record {
            Record::Entry { index: at, payload } if at == index => Ok(payload.to_vec()),
            other => {
                Err(io::Error::new(io::ErrorKind::InvalidData, format!("expected entry {index}, found {other:?}")))
            }
        }
    }
}

pub(super) fn path(folder: &Path, sequence: u64) -> PathBuf {
    folder.join(format!("{sequence:016x}{SUFFIX}"))
}

/// The sequence number in a segment's file name; none for any other name.
pub(super) fn sequence_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    let canonical = digits.len() == 16 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    canonical.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}
