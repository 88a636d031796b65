//! Where an artifact goes: into the store, or straight into a folder.
//!
//! Both promise the same: what is there already is verified and reused, nothing that does not fit its digest is kept, and
//! nothing appears before all of it is there. In the store the whole appears at once; in a folder that exists already, file by
//! file.

use super::TransferError;
use super::output::{Output, OutputError};
use super::plan::Want;
use crate::artifact::store::{Added, Batch, Store, StoreError};
use protocol::digest::Digest;
use protocol::tree::{Manifest, chunk_len};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::bytes::Bytes;

/// Where an artifact goes.
#[derive(Clone, Debug)]
pub enum Sink {
    /// Into the store, durable and marked complete at the end: daemons.
    Store(Store),
    /// Into this folder, as files with their modes: commands, which open no store. Files are gathered in a hidden folder beside
    /// it and moved at the end; a fetch that broke off finds them there again. Not synced, as `cp` does not.
    Folder(PathBuf),
}

/// What came cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The folder cannot be written to.
    #[error(transparent)]
    Output(#[from] OutputError),
}

/// A sink at work.
#[derive(Debug)]
pub(super) enum Opened {
    Store(Batch),
    Folder(Arc<Output>),
}

/// Whether a fetch is over.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finish {
    Complete,
    /// Something that was here has gone meanwhile.
    Again,
}

/// Every chunk of a manifest once, in order of first use.
///
/// # Errors
///
/// [`TransferError::Contradiction`] when one digest has two lengths, which no bytes could satisfy.
pub(super) fn wants(manifest: &Manifest) -> Result<Vec<Want>, TransferError> {
    let mut lens: BTreeMap<Digest, u32> = BTreeMap::new();
    let mut wants = Vec::new();
    for (_, _, size, chunks) in manifest.files() {
        for (at, digest) in chunks.iter().enumerate() {
            let len = u32::try_from(chunk_len(size, at as u64)).unwrap_or(u32::MAX);
            match lens.insert(*digest, len) {
                None => wants.push(Want { digest: *digest, len }),
                Some(other) if other != len => return Err(TransferError::Contradiction(*digest)),
                Some(_) => {}
            }
        }
    }
    Ok(wants)
}

impl Opened {
    /// Opens a sink and says which of `wants` are missing in it.
    pub(super) async fn open(
        sink: &Sink,
        manifest: &Manifest,
        wants: Vec<Want>,
    ) -> Result<(Self, Vec<Want>), SinkError> {
        match sink {
            Sink::Store(store) => {
                let batch = store.batch();
                let missing = store.missing(wants.iter().map(|want| want.digest).collect()).await?;
                let taken = batch.take_up(missing.clone()).await?;
                let wants = keep(wants, missing, taken);
                Ok((Self::Store(batch), wants))
            }
            Sink::Folder(path) => {
                let (output, present) = Output::open(path.clone(), manifest.clone()).await?;
                let all = wants.iter().map(|want| want.digest).collect();
                Ok((Self::Folder(Arc::new(output)), keep(wants, all, present)))
            }
        }
    }

    /// Keeps those chunks that fit their digest; says which did.
    pub(super) async fn accept(&self, chunks: Vec<(Digest, Bytes)>) -> Result<Vec<Digest>, SinkError> {
        match self {
            Self::Store(batch) => Ok(batch.verified(chunks).await?),
            Self::Folder(output) => Ok(output.clone().accept(chunks).await?),
        }
    }

    /// Makes the whole appear.
    pub(super) async fn finish(self, manifest: &Manifest) -> Result<Finish, SinkError> {
        match self {
            Self::Store(batch) => Ok(match batch.commit_artifact(manifest).await? {
                Added::Complete(_) => Finish::Complete,
                Added::Partial(..) => Finish::Again,
            }),
            Self::Folder(output) => output.finish().await.map(|()| Finish::Complete).map_err(SinkError::from),
        }
    }
}

/// Those of `wants` that are in `missing` and not in `present`.
fn keep(mut wants: Vec<Want>, missing: Vec<Digest>, present: Vec<Digest>) -> Vec<Want> {
    let mut missing: std::collections::BTreeSet<_> = missing.into_iter().collect();
    present.iter().for_each(|digest| {
        missing.remove(digest);
    });
    wants.retain(|want| missing.contains(&want.digest));
    wants
}
