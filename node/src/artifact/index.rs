//! The index of a store: which manifests are complete artifacts, and which of them answer a build key.
//!
//! It holds small records only, on sled or in memory, and nothing that the blobs and notes of the store could not give back,
//! or a second look at where a source is published: a lost or damaged index is rebuilt by a scan. For that reason nobody waits for sled to flush.

use crate::database::{Database, Records};
use protocol::codec::{self, CodecError};
use protocol::digest::Digest;
use protocol::id::{BuildKey, ManifestId};
use protocol::time::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

/// The version byte before every record.
const VERSION: u8 = 1;
/// The largest record; records are far smaller.
const MAX_RECORD_BYTES: usize = 16 << 10;

/// The index cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// sled failed.
    #[error("the index database failed: {0}")]
    Database(#[from] sled::Error),
    /// A record is not what this program writes.
    #[error("a record of the index is damaged: {0}")]
    Record(#[from] CodecError),
    /// A record was written by a newer program.
    #[error("a record of the index has version {0:?}, which this program does not know")]
    Version(Option<u8>),
}

/// Whether every chunk of an artifact is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Completeness {
    /// All of them.
    Complete,
    /// The manifest is, some chunks are not.
    Partial,
}

/// What the index knows about a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactRecord {
    /// Whether every chunk is here.
    pub completeness: Completeness,
    /// Bytes of its files.
    pub size_bytes: u64,
    /// When it was last added, read or served.
    pub last_used: Timestamp,
}

/// What the index knows about a judged build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgedRecord {
    /// The artifact.
    pub manifest: ManifestId,
    /// Name of the recipe, for people.
    pub recipe: String,
    /// Bytes of its files.
    pub size_bytes: u64,
    /// When the farm decided.
    pub decided_at: Timestamp,
    /// Logs of the attempts behind the verdict; kept as long as it is.
    pub logs: Vec<Digest>,
}

/// Records by key.
#[derive(Debug)]
pub struct Index {
    artifacts: Table,
    judged: Table,
    sources: Table,
    marks: Table,
}

/// One kind of record, in the order of its 32-byte keys.
#[derive(Debug)]
enum Table {
    Kept(Records),
    Memory(Mutex<BTreeMap<[u8; 32], Vec<u8>>>),
}

/// A key and its encoded record.
type Row = ([u8; 32], Vec<u8>);

/// Set once a rebuild has run to its end.
const WHOLE: [u8; 32] = [0; 32];

impl Index {
    /// The index in the records `artifact.*` of a database.
    #[must_use]
    pub fn open(database: &Database) -> Self {
        let table = |kind| Table::Kept(database.records(kind));
        Self {
            artifacts: table("artifact.manifests"),
            judged: table("artifact.judged"),
            sources: table("artifact.sources"),
            marks: table("artifact.marks"),
        }
    }

    /// An index that ends with the process, and iterates in the same order as the other.
    #[must_use]
    pub fn in_memory() -> Self {
        let table = || Table::Memory(Mutex::default());
        Self { artifacts: table(), judged: table(), sources: table(), marks: table() }
    }

    /// Whether the index was once filled; `false` when it is new or was lost.
    ///
    /// # Errors
    ///
    /// [`IndexError::Database`].
    pub fn is_whole(&self) -> Result<bool, IndexError> {
        Ok(self.marks.get(&WHOLE)?.is_some())
    }

    /// Says that the index is filled.
    ///
    /// # Errors
    ///
    /// [`IndexError::Database`].
    pub fn set_whole(&self) -> Result<(), IndexError> {
        self.marks.put(&WHOLE, Vec::new())
    }

    /// Forgets everything, before a rebuild.
    ///
    /// # Errors
    ///
    /// [`IndexError::Database`].
    pub fn clear(&self) -> Result<(), IndexError> {
        for table in [&self.marks, &self.artifacts, &self.judged, &self.sources] {
            table.clear()?;
        }
        Ok(())
    }

    /// What is known about a manifest.
    ///
    /// # Errors
    ///
    /// [`IndexError`].
    pub fn artifact(&self, id: &ManifestId) -> Result<Option<ArtifactRecord>, IndexError> {
        self.artifacts.get(id.0.as_bytes())?.map(|bytes| decode(&bytes)).transpose()
    }

    /// Writes what is known about a manifest.
    ///
    /// # Errors
    ///
    /// [`IndexError`].
    pub fn put_artifact(&self, id: &ManifestId, record: &ArtifactRecord) -> Result<(), IndexError> {
        self.artifacts.put(id.0.as_bytes(), encode(record))
    }

    /// Forgets a manifest.
    ///
    /// # Errors
    ///
    /// [`IndexError`].
    pub fn remove_artifact(&self, id: &ManifestId) -> Result<(), IndexError> {
        self.artifacts.remove(id.0.as_bytes())
    }

    /// Every manifest, in order of id.
    ///
    /// # Errors
    ///
    /// [`IndexError`].
    pub fn artifacts(&self) -> Result<Vec<(ManifestId, ArtifactRecord)>, IndexError> {
        let rows = self.artifacts.rows()?;
        rows.into_iter().map(|(key, bytes)| Ok((ManifestId(digest(key)), decode(&bytes)?))).collect()
    }

    /// What is known about a judged build.
    ///
    /// # Errors
    ///
    /// [`IndexError`].
    pub fn judged(&self, key: &BuildKey) -> Result<Option<JudgedRecord>, IndexError> {
        self.judged.get(key.0.as_bytes())?.map(|bytes| decode(&bytes)).transpose()
    }

    /// Writes what is known about a judged build.
    ///
    /// # Errors
    ///
    /// [`IndexError`].
    pub fn put_judged(&self, key: &BuildKey, record: &JudgedRecord) -> Result<(), IndexError> {
        self.judged.put(key.0.as_bytes(), encode(record))
    }

    /// Forgets a judged build.
    ///
    /// # Errors
    ///
    /// [`IndexError`].
    pub fn remove_judged(&self, key: &BuildKey) -> Result<(), IndexError> {
        self.judged.remove(key.0.as_bytes())
    }

    /// The tree that a source of this digest was, when it was last fetched.
    ///
    /// # Errors
    ///
    /// [`IndexError`].
    pub fn source(&self, source: &Digest) -> Result<Option<ManifestId>, IndexError> {
        self.sources.get(source.as_bytes())?.map(|bytes| decode(&bytes)).transpose()
    }

    /// Remembers which tree a source of this digest is.
    ///
    /// # Errors
    ///
    /// [`IndexError`].
    pub fn put_source(&self, source: &Digest, tree: &ManifestId) -> Result<(), IndexError> {
        self.sources.put(source.as_bytes(), encode(tree))
    }

    /// Forgets every source that was one of these trees.
    ///
    /// # Errors
    ///
    /// [`IndexError`].
    pub fn forget_sources(&self, trees: &BTreeSet<ManifestId>) -> Result<(), IndexError> {
        for (source, bytes) in self.sources.rows()? {
            if trees.contains(&decode(&bytes)?) {
                self.sources.remove(&source)?;
            }
        }
        Ok(())
    }

    /// Reads every record.
    ///
    /// # Errors
    ///
    /// [`IndexError`]; then the index is to be filled anew.
    pub fn check(&self) -> Result<(), IndexError> {
        self.artifacts()?;
        self.builds()?;
        self.sources.rows()?.iter().try_for_each(|(_, bytes)| decode::<ManifestId>(bytes).map(drop))
    }

    /// Every judged build, in order of key.
    ///
    /// # Errors
    ///
    /// [`IndexError`].
    pub fn builds(&self) -> Result<Vec<(BuildKey, JudgedRecord)>, IndexError> {
        let rows = self.judged.rows()?;
        rows.into_iter().map(|(key, bytes)| Ok((BuildKey(digest(key)), decode(&bytes)?))).collect()
    }
}

impl Table {
    fn get(&self, key: &[u8; 32]) -> Result<Option<Vec<u8>>, IndexError> {
        match self {
            Self::Kept(records) => Ok(records.get(key)?.map(|bytes| bytes.to_vec())),
            Self::Memory(map) => Ok(lock(map).get(key).cloned()),
        }
    }

    fn put(&self, key: &[u8; 32], bytes: Vec<u8>) -> Result<(), IndexError> {
        match self {
            Self::Kept(records) => records.put(key, &bytes)?,
            Self::Memory(map) => {
                lock(map).insert(*key, bytes);
            }
        }
        Ok(())
    }

    fn remove(&self, key: &[u8; 32]) -> Result<(), IndexError> {
        match self {
            Self::Kept(records) => records.remove(key)?,
            Self::Memory(map) => {
                lock(map).remove(key);
            }
        }
        Ok(())
    }

    fn clear(&self) -> Result<(), IndexError> {
        match self {
            Self::Kept(records) => records.clear()?,
            Self::Memory(map) => lock(map).clear(),
        }
        Ok(())
    }

    /// Rows whose key is not 32 bytes long were never written by this program and are passed over.
    fn rows(&self) -> Result<Vec<Row>, IndexError> {
        match self {
            Self::Kept(records) => {
                let rows = records.rows()?.into_iter();
                Ok(rows.filter_map(|(key, bytes)| Some((key.as_ref().try_into().ok()?, bytes.to_vec()))).collect())
            }
            Self::Memory(map) => Ok(lock(map).iter().map(|(key, bytes)| (*key, bytes.clone())).collect()),
        }
    }
}

/// A map that a panicking thread left behind is still a map: every write to it is one insertion or removal.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn digest(key: [u8; 32]) -> Digest {
    Digest::from_bytes(key)
}

fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&codec::encode(record));
    bytes
}

fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T, IndexError> {
    match bytes.split_first() {
        Some((&VERSION, record)) => Ok(codec::decode(record, MAX_RECORD_BYTES)?),
        other => Err(IndexError::Version(other.map(|(version, _)| *version))),
    }
}
