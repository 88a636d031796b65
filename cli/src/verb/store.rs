//! `node store`: what this machine keeps for the farm.

use crate::exit::{Exit, Failure};
use crate::output::{Output, Table};
use crate::sentences::Said;
use indicatif::HumanBytes;
use protocol::digest::Digest;
use protocol::id::ManifestId;
use serde::Serialize;

/// Whether an artifact may be removed to make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeping {
    /// Never.
    Pinned,
    /// When room is needed.
    Evictable,
}

/// An artifact in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Which.
    pub(crate) manifest: ManifestId,
    /// Bytes of its files.
    pub(crate) size_bytes: u64,
    /// Whether it stays.
    pub(crate) keeping: Keeping,
}

/// A row of `store list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct StoredShape {
    pub(crate) manifest: String,
    pub(crate) size: u64,
    pub(crate) pinned: bool,
}

/// `store`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct StoreShape {
    pub(crate) artifacts: Option<Vec<StoredShape>>,
    /// Digests of what was damaged and put aside.
    pub(crate) damaged: Option<Vec<String>>,
    /// Bytes that were read again, or freed, or pinned.
    pub(crate) bytes: Option<u64>,
    pub(crate) reason: Option<String>,
}

/// Shows what is stored.
pub(crate) fn list(output: &Output, stored: &[Stored]) -> Result<Exit, Failure> {
    let mut table = Table::new(&["MANIFEST", "SIZE", "KEEPING"]);
    for artifact in stored {
        let keeping = match artifact.keeping {
            Keeping::Pinned => "pinned",
            Keeping::Evictable => "evictable",
        };
        table.row([artifact.manifest.short(), HumanBytes(artifact.size_bytes).to_string(), keeping.to_owned()]);
    }
    if table.is_empty() {
        output.say("nothing is stored here yet");
    } else {
        output.answer(&table.text())?;
    }
    let shape = |artifact: &Stored| StoredShape {
        manifest: artifact.manifest.to_string(),
        size: artifact.size_bytes,
        pinned: artifact.keeping == Keeping::Pinned,
    };
    let artifacts = Some(stored.iter().map(shape).collect());
    let bytes = Some(stored.iter().map(|artifact| artifact.size_bytes).sum());
    output.object(&StoreShape { artifacts, bytes, ..StoreShape::default() })?;
    Ok(Exit::Done)
}

/// Shows what reading everything again found; damage ends the command with the code of an infrastructure failure.
pub(crate) fn verified(output: &Output, bytes: u64, damaged: &[Digest]) -> Result<Exit, Failure> {
    let read = HumanBytes(bytes);
    if damaged.is_empty() {
        output.tell(&Said::new(format!("{read} read, nothing is damaged")));
    } else {
        let what = format!("{read} read, {} pieces are damaged and were put aside", damaged.len());
        output.error(&Said::with_next(what, "they are fetched again when they are needed; look at the disk's health"));
    }
    let digests: Vec<String> = damaged.iter().map(Digest::to_string).collect();
    if !digests.is_empty() {
        output.answer(&digests.join("\n"))?;
    }
    output.object(&StoreShape { damaged: Some(digests), bytes: Some(bytes), ..StoreShape::default() })?;
    Ok(if damaged.is_empty() { Exit::Done } else { Exit::Infrastructure })
}

/// Shows how much was removed.
pub(crate) fn pruned(output: &Output, removed: u64, bytes: u64) -> Result<Exit, Failure> {
    output.tell(&Said::new(format!("{removed} artifacts removed, {} freed", HumanBytes(bytes))));
    output.object(&StoreShape { bytes: Some(bytes), ..StoreShape::default() })?;
    Ok(Exit::Done)
}

/// Shows that an artifact stays.
pub(crate) fn pinned(output: &Output, manifest: ManifestId) -> Result<Exit, Failure> {
    output.tell(&Said::new(format!("artifact {} stays until it is unpinned", manifest.short())));
    output.object(&StoreShape::default())?;
    Ok(Exit::Done)
}
