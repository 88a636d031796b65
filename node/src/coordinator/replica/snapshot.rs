//! Snapshots of the state: how they look and where they lie.
//!
//! ```text
//! barnsnp1 | zstd( length u32 | header as CBOR | the law's own bytes ) | SHA-256 of all before
//! ```
//!
//! A snapshot is a file of its own, `0000000000001388-3f9a….snapshot` (last log index and digest), made
//! under a temporary name, synced, renamed, and the folder synced, before the log is purged. sled holds
//! only which file is current, with its digest and size: its values are best kept small, and its `flush`
//! does not promise to outlive a power cut. So the file is the truth, and sled's record is checked
//! against it: a file that the record names and that is gone or damaged, with none newer, is an error.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::coordinator::wal::Syncs;
use crate::database::Records;

use super::types::{CodecError, SnapshotImage, SnapshotMeta, decode, encode};

const MAGIC: [u8; 8] = *b"barnsnp1";
const DIGEST_BYTES: usize = 32;
const SUFFIX: &str = "snapshot";
const UNFINISHED_SUFFIX: &str = "new";
/// Key of the record in sled.
const CURRENT: &[u8] = b"current";

/// Largest state that is unpacked, in bytes; far above what a farm holds, it stops a hostile image.
const STATE_BYTES_MAX: u64 = 4 << 30;
/// Bytes of the state that are outside of it at a time, while it is packed or unpacked.
const PIECE_BYTES: usize = 64 << 10;
/// Fast rather than small: a snapshot is rewritten soon.
const COMPRESSION_LEVEL: i32 = 1;

/// Why a snapshot cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file system refused.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The bytes are not a whole snapshot.
    #[error("the snapshot is damaged: {0}")]
    Damaged(String),
    /// sled names a snapshot that is not there whole, and there is none newer.
    #[error("the snapshot {name} is missing or damaged")]
    Lost {
        /// Its file name.
        name: String,
    },
    /// The database failed.
    #[error("the snapshot's record cannot be kept: {0}")]
    Record(#[from] sled::Error),
    /// Our own words could not be encoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

impl SnapshotError {
    fn io(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, source }
    }
}

/// What a snapshot says besides the law's own bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) meta: SnapshotMeta,
    /// Commands applied since the farm began.
    pub(super) last_index: u64,
    /// Stamp of the last of them.
    pub(super) last_stamp: Timestamp,
}

/// Packs `header` and what `law` writes, a piece at a time.
pub(super) fn pack(
    header: &Header,
    law: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<SnapshotImage, SnapshotError> {
    let header = encode(header)?;
    let length = u32::try_from(header.len()).map_err(|_| SnapshotError::Damaged("long header".into()))?;
    let pack = || -> io::Result<Vec<u8>> {
        let mut packer = zstd::stream::Encoder::new(MAGIC.to_vec(), COMPRESSION_LEVEL)?;
        packer.write_all(&length.to_le_bytes())?;
        packer.write_all(&header)?;
        let mut pieces = BufWriter::with_capacity(PIECE_BYTES, packer);
        law(&mut pieces)?;
        pieces.into_inner().map_err(io::IntoInnerError::into_error)?.finish()
    };
    let mut image = pack().map_err(SnapshotError::io("pack a snapshot"))?;
    let digest = Sha256::digest(&image);
    image.extend_from_slice(&digest);
    Ok(SnapshotImage(image.into()))
}

/// The header, and the law's bytes to be read; what is packed was checked against its digest.
pub(super) fn unpack(image: &SnapshotImage) -> Result<(Header, impl BufRead), SnapshotError> {
    let damaged = |why: &str| SnapshotError::Damaged(why.into());
    let (body, digest) = image.0.split_last_chunk::<DIGEST_BYTES>().ok_or_else(|| damaged("it is cut short"))?;
    if Sha256::digest(body)[..] != digest[..] {
        return Err(damaged("its digest does not match"));
    }
    let packed = body.strip_prefix(&MAGIC).ok_or_else(|| damaged("it is of another format"))?;
    let read = || -> io::Result<_> {
        let unpacker = zstd::stream::Decoder::with_buffer(packed)?.take(STATE_BYTES_MAX);
        let mut pieces = BufReader::with_capacity(PIECE_BYTES, unpacker);
        let mut length = [0; 4];
        pieces.read_exact(&mut length)?;
        let mut header = Vec::new();
        let length = u32::from_le_bytes(length);
        pieces.by_ref().take(length.into()).read_to_end(&mut header)?;
        Ok((header, pieces))
    };
    let (header, law) = read().map_err(|error| damaged(&error.to_string()))?;
    Ok((decode(&header)?, law))
}

/// Which file is current, as sled remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    name: String,
    last_index: Option<u64>,
    digest: [u8; DIGEST_BYTES],
    bytes: u64,
}

impl Record {
    fn of(meta: &SnapshotMeta, image: &SnapshotImage) -> Self {
        Self {
            name: name(meta, image),
            last_index: meta.last_log_id.map(|log_id| log_id.index),
            digest: Sha256::digest(&image.0).into(),
            bytes: image.0.len() as u64,
        }
    }
}

/// The snapshots of one coordinator: one current file, and its record. Blocks on the disk.
#[derive(Clone, Debug)]
pub(super) struct SnapshotStore {
    folder: PathBuf,
    records: Records,
}

impl SnapshotStore {
    /// `folder` is made if it is not there.
    pub(super) fn open(folder: PathBuf, records: Records) -> Result<Self, SnapshotError> {
        Syncs::default().make_folder(&folder).map_err(SnapshotError::io("make the snapshots' folder"))?;
        Ok(Self { folder, records })
    }

    /// Keeps `image` and forgets older ones; it is on disk when this returns.
    pub(super) fn save(&self, meta: &SnapshotMeta, image: &SnapshotImage) -> Result<(), SnapshotError> {
        let record = Record::of(meta, image);
        let path = self.folder.join(&record.name);
        let unfinished = path.with_extension(UNFINISHED_SUFFIX);
        let write = || -> io::Result<()> {
            let mut file = File::create(&unfinished)?;
            file.write_all(&image.0)?;
            file.sync_all()?;
            fs::rename(&unfinished, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(SnapshotError::io("write a snapshot"))?;
        self.records.put(CURRENT, &encode(&record)?)?;
        self.records.flush()?;
        for (_, older) in self.list()? {
            if older != path {
                fs::remove_file(older).map_err(SnapshotError::io("delete an old snapshot"))?;
            }
        }
        Ok(())
    }

    /// The newest whole snapshot.
    pub(super) fn load(&self) -> Result<Option<(SnapshotMeta, SnapshotImage)>, SnapshotError> {
        let record: Option<Record> = self.records.get(CURRENT)?.map(|bytes| decode(&bytes)).transpose()?;
        let mut damage = None;
        for (name, path) in self.list()?.into_iter().rev() {
            let image = SnapshotImage(fs::read(&path).map_err(SnapshotError::io("read a snapshot"))?.into());
            match unpack(&image).map(|(header, _)| header) {
                Ok(header) => {
                    let found = header.meta.last_log_id.map(|log_id| log_id.index);
                    if let Some(record) = record.filter(|record| record.last_index > found) {
                        return Err(SnapshotError::Lost { name: record.name });
                    }
                    // The database may have been made anew: from now on this snapshot is missed again if it goes.
                    self.records.put(CURRENT, &encode(&Record::of(&header.meta, &image))?)?;
                    return Ok(Some((header.meta, image)));
                }
                Err(error) => {
                    tracing::warn!(%error, name, "a snapshot cannot be read");
                    damage.get_or_insert(error);
                }
            }
        }
        match (damage, record) {
            (Some(error), _) => Err(error),
            (None, Some(record)) => Err(SnapshotError::Lost { name: record.name }),
            (None, None) => Ok(None),
        }
    }

    /// Names and paths, oldest first. Deletes what was still being written when the process ended.
    fn list(&self) -> Result<Vec<(String, PathBuf)>, SnapshotError> {
        let listing = || SnapshotError::io("list the snapshots");
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(listing())? {
            let path = entry.map_err(listing())?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some(UNFINISHED_SUFFIX) => {
                    fs::remove_file(&path).map_err(SnapshotError::io("delete an unfinished snapshot"))?;
                }
                Some(SUFFIX) => found.push((file_name(&path), path)),
                _ => {}
            }
        }
        found.sort_unstable();
        Ok(found)
    }
}

/// Sorts by the last index contained; none sorts first.
fn name(meta: &SnapshotMeta, image: &SnapshotImage) -> String {
    let next = meta.last_log_id.map_or(0, |log_id| log_id.index + 1);
    let digest = Sha256::digest(&image.0);
    format!("{next:016x}-{:08x}.{SUFFIX}", digest[..].first_chunk().map_or(0, |d| u32::from_be_bytes(*d)))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
