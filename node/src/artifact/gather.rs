//! Whole things brought here in one call: a tree into the store, a small blob into memory.
//!
//! What [`super::transfer`] does piece by piece, for callers that only want the result.

use super::ChunkSource as _;
use super::import::Imported;
use super::store::{Store, StoreError};
use super::transfer::{Progress, Providers, Sink, TransferError, fetch_artifact, fetch_blob, fetch_manifest};
use crate::network::Network;
use protocol::digest::Digest;
use protocol::id::{ManifestId, PeerKey};
use protocol::tree::Manifest;
use std::collections::HashSet;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::bytes::Bytes;

/// The largest recipe, log or kept archive, with room to spare.
pub const SMALL_BLOB_BYTES: usize = 32 << 20;

/// Fetches a tree into the store, unless it is there already.
///
/// # Errors
///
/// [`TransferError`].
pub async fn tree_into_store(
    network: &Network,
    store: &Store,
    id: ManifestId,
    providers: Vec<PeerKey>,
) -> Result<Manifest, TransferError> {
    let (progress, _) = watch::channel(Progress::default());
    tree_into_store_telling(network, store, id, providers, progress).await
}

/// The same, and tells how far it is.
///
/// # Errors
///
/// [`TransferError`].
pub async fn tree_into_store_telling(
    network: &Network,
    store: &Store,
    id: ManifestId,
    providers: Vec<PeerKey>,
    progress: watch::Sender<Progress>,
) -> Result<Manifest, TransferError> {
    let mut providers = Providers::from(providers);
    let manifest = match store.manifest(id).await? {
        Some(manifest) if store.has_artifact(id).await? => return Ok(manifest),
        Some(manifest) => manifest,
        None => fetch_manifest(network, id, &mut providers).await?,
    };
    fetch_artifact(network, &manifest, providers, Sink::Store(store.clone()), progress).await?;
    Ok(manifest)
}

/// Fetches a recipe or a log.
///
/// # Errors
///
/// [`TransferError`].
pub async fn small_blob(network: &Network, digest: Digest, providers: Vec<PeerKey>) -> Result<Bytes, TransferError> {
    fetch_blob(network, digest, SMALL_BLOB_BYTES, &mut Providers::from(providers)).await
}

/// Chunks that are read before they are put: what a put may hold in memory.
const CHUNKS_AT_ONCE: usize = 16;

/// Puts an imported tree into the store; when it returns, all of it is durable.
///
/// # Errors
///
/// [`StoreError`]; [`StoreError::Disk`] also when a chunk of the import cannot be read.
pub async fn import_into_store(store: &Store, imported: Imported) -> Result<Manifest, StoreError> {
    let imported = Arc::new(imported);
    let mut seen = HashSet::new();
    let chunks = imported.manifest.files().flat_map(|(.., chunks)| chunks).copied();
    let chunks: Vec<Digest> = chunks.filter(|digest| seen.insert(*digest)).collect();
    let batch = store.batch();
    for some in store.missing(chunks).await?.chunks(CHUNKS_AT_ONCE) {
        let (some, from) = (some.to_vec(), imported.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let read = |digest: &Digest| from.read(digest)?.ok_or_else(|| std::io::ErrorKind::NotFound.into());
            some.iter().map(|digest| read(digest).map(Bytes::from)).collect::<std::io::Result<Vec<_>>>()
        });
        batch.blobs(reading.await.map_err(|_| StoreError::ShuttingDown)??).await?;
    }
    batch.commit_artifact(&imported.manifest).await?;
    Ok(imported.manifest.clone())
}
