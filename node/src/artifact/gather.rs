//! Whole things fetched in one call: a tree into the store, a small blob into memory.
//!
//! What [`super::transfer`] does piece by piece, for callers that only want the result.

use super::store::Store;
use super::transfer::{Progress, Providers, Sink, TransferError, fetch_artifact, fetch_blob, fetch_manifest};
use crate::network::Network;
use protocol::digest::Digest;
use protocol::id::{ManifestId, PeerKey};
use protocol::tree::Manifest;
use tokio::sync::watch;
use tokio_util::bytes::Bytes;

/// The largest recipe or log, with room to spare.
const SMALL_BLOB_BYTES: usize = 32 << 20;

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
    let mut providers = Providers::from(providers);
    let manifest = match store.manifest(id).await? {
        Some(manifest) if store.has_artifact(id).await? => return Ok(manifest),
        Some(manifest) => manifest,
        None => fetch_manifest(network, id, &mut providers).await?,
    };
    let (progress, _) = watch::channel(Progress::default());
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
