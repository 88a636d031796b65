//! Single blobs: manifests, recipes, logs.

use super::frame::Ask;
use super::provider::{Answer, Due, Providers, Stream, broken, read_answer};
use super::{Fault, PATIENCE, TransferError};
use crate::network::Network;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use protocol::digest::{Digest, Hasher};
use protocol::id::{ManifestId, PeerKey};
use protocol::tree::{MAX_MANIFEST_BYTES, Manifest};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, sleep_until};
use tokio_util::bytes::Bytes;

/// How long one provider is given before a second is asked as well.
const HEAD_START: Duration = Duration::from_secs(1);
/// How often a provider that refuses a manifest is asked again.
const REFUSED_AGAIN: u32 = 4;
/// How long it is left alone the first time; twice as long each time after.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);
/// The most providers asked for one blob at the same time.
const MAX_ASKED: usize = 3;
/// Blobs up to this size are hashed and decoded in place; larger ones would hold up everybody else on this thread.
const IN_PLACE_BYTES: usize = 1 << 20;

/// Fetches a manifest. Afterwards `providers` offers everybody but liars again, the one who gave it first.
///
/// # Errors
///
/// [`TransferError`].
pub async fn fetch_manifest(
    network: &Network,
    id: ManifestId,
    providers: &mut Providers,
) -> Result<Manifest, TransferError> {
    let bytes = fetch(network, id.0, MAX_MANIFEST_BYTES, providers, Refusal::MayPass).await?;
    let decoded = if bytes.len() <= IN_PLACE_BYTES {
        Manifest::decode(&bytes)
    } else {
        pooled(move || Manifest::decode(&bytes)).await?
    };
    decoded.map_err(|error| TransferError::NotAManifest { id, error })
}

/// Fetches a blob of at most `max_bytes` (never more than a manifest may have) from the first provider that gives it. A
/// second is asked when the first takes longer than a second. Afterwards `providers` offers everybody but liars again, the
/// one who gave it first.
///
/// # Errors
///
/// [`TransferError::NoProvider`] or [`TransferError::Failed`].
pub async fn fetch_blob(
    network: &Network,
    digest: Digest,
    max_bytes: usize,
    providers: &mut Providers,
) -> Result<Bytes, TransferError> {
    fetch(network, digest, max_bytes, providers, Refusal::Final).await
}

/// What a refusal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// What it says.
    Final,
    /// The provider may not have heard of a verdict yet, and gives what belongs to it a moment later.
    MayPass,
}

async fn fetch(
    network: &Network,
    digest: Digest,
    max_bytes: usize,
    providers: &mut Providers,
    refusal: Refusal,
) -> Result<Bytes, TransferError> {
    let max_bytes = max_bytes.min(MAX_MANIFEST_BYTES) as u64;
    let mut faults: BTreeMap<PeerKey, Fault> = BTreeMap::new();
    let mut asked: FuturesUnordered<BoxFuture<'_, (PeerKey, Result<Bytes, Fault>)>> = FuturesUnordered::new();
    let mut next_at = Instant::now();
    let mut more = true;
    loop {
        let idle = asked.is_empty();
        if idle && !more {
            providers.rewind(None);
            return Err(failed(faults));
        }
        tokio::select! {
            biased;
            Some((peer, answer)) = asked.next(), if !idle => match answer {
                Ok(bytes) => {
                    providers.rewind(Some(peer));
                    return Ok(bytes);
                }
                Err(fault) => {
                    tracing::debug!(?peer, %fault, %digest, "a provider did not give a blob");
                    if fault.is_lie() {
                        providers.ban(peer);
                    }
                    faults.insert(peer, fault);
                    next_at = Instant::now();
                }
            },
            peer = next_provider(providers, next_at), if more && asked.len() < MAX_ASKED => match peer {
                Some(peer) => {
                    asked.push(Box::pin(async move { (peer, ask_one(network, peer, digest, max_bytes, refusal).await) }));
                    next_at = Instant::now() + HEAD_START;
                }
                None => more = false,
            },
            () = tokio::time::sleep(PATIENCE), if idle => more = false,
        }
    }
}

async fn next_provider(providers: &mut Providers, at: Instant) -> Option<PeerKey> {
    sleep_until(at).await;
    providers.next().await
}

async fn ask_one(
    network: &Network,
    peer: PeerKey,
    digest: Digest,
    max_bytes: u64,
    refusal: Refusal,
) -> Result<Bytes, Fault> {
    let may_refuse = if refusal == Refusal::MayPass { REFUSED_AGAIN } else { 0 };
    let (mut refused, mut busy) = (0, 0);
    loop {
        let answered = ask_once(network, peer, digest, max_bytes).await;
        let pause = match &answered {
            Err(Fault::Refused) if refused < may_refuse => {
                refused += 1;
                Some(REFUSED_PAUSE * 2_u32.pow(refused - 1))
            }
            Err(fault @ Fault::Busy) => {
                busy += 1;
                fault.retry_after(busy)
            }
            _ => None,
        };
        let Some(pause) = pause else { return answered };
        tokio::time::sleep(pause).await;
    }
}

async fn ask_once(network: &Network, peer: PeerKey, digest: Digest, max_bytes: u64) -> Result<Bytes, Fault> {
    let mut stream = Stream::open(network, peer).await?;
    stream.asks.write_all(&Ask::Blob(digest).encode()).await.map_err(broken)?;
    stream.asks.flush().await.map_err(broken)?;
    match read_answer(&mut stream.answers, 0, Due::AtMost(max_bytes)).await? {
        Answer::Bytes(bytes) if digest_of(&bytes).await == digest => Ok(bytes),
        Answer::Bytes(_) => Err(Fault::Lied(digest)),
        Answer::Absent => Err(Fault::Absent),
    }
}

/// The digest of a blob, computed a stretch at a time so that nobody else on this thread waits long.
async fn digest_of(bytes: &Bytes) -> Digest {
    let mut hasher = Hasher::new();
    for stretch in bytes.chunks(IN_PLACE_BYTES) {
        hasher.update(stretch);
        tokio::task::yield_now().await;
    }
    hasher.finish()
}

pub(super) fn failed(faults: BTreeMap<PeerKey, Fault>) -> TransferError {
    if faults.is_empty() { TransferError::NoProvider } else { TransferError::Failed(faults.into_iter().collect()) }
}

async fn pooled<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, TransferError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_cancelled) => Err(TransferError::Store(crate::artifact::StoreError::ShuttingDown)),
        },
    }
}
