//! Serving blobs to peers.
//!
//! A stream is served by a task of its own. Reads take turns: a queue that is first come, first served admits a few at a time,
//! each for a stretch of at most a chunk and a bit, so that a peer with four streams gets four times as many turns as a peer
//! with one and no more. The last half of the streams is kept for peers that have fewer than two.

use super::frame::{Ask, Head, Reply};
use crate::artifact::{Checking, ChunkSource, Reading};
use crate::network::{BulkStream, IncomingBulk};
use futures::future::{BoxFuture, FutureExt as _};
use protocol::digest::Digest;
use protocol::id::PeerKey;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt as _, BufWriter};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

/// Streams served at a time.
pub const MAX_STREAMS: usize = 32;
/// Streams of one peer served at a time.
pub const MAX_STREAMS_OF_PEER: usize = 4;
/// Reads going on at a time.
const MAX_READS: usize = 4;
/// Blobs of more than [`STRETCH_BYTES`] held in memory at a time, at most one of them for each peer.
const MAX_LARGE: usize = 4;
/// How long a request for a blob waits for its place among them.
const LARGE_WITHIN: Duration = Duration::from_secs(5);
/// A stretch of answers is read at once until it has this many bytes.
const STRETCH_BYTES: usize = 256 << 10;
/// The most answers in one stretch.
const STRETCH_DIGESTS: usize = 64;
/// How long a stream may lie idle between requests.
const IDLE: Duration = Duration::from_secs(120);
/// How long a peer may take nothing of what it asked for.
const UNREAD: Duration = Duration::from_secs(30);
/// The slowest a peer may take it, in bytes a second, once [`UNREAD`] has passed.
const MIN_RATE: u64 = 8 << 10;
/// Digests remembered as verified; 2 MiB of memory.
const MAX_VERIFIED: usize = 1 << 16;
/// Small answers are gathered into writes of this size.
const WRITE_BYTES: usize = 64 << 10;

/// Whether a peer may have a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// It may.
    Granted,
    /// It may not, and is not told whether the blob is here.
    Denied,
}

/// Who may have what; asked for every blob, before it is looked for.
pub trait Permit: Send + Sync {
    /// Whether `peer` may have these, one answer for each.
    fn permissions(&self, peer: PeerKey, digests: Vec<Digest>) -> BoxFuture<'_, Vec<Permission>>;
}

/// Where the peer and the digest alone decide.
impl<F: Fn(PeerKey, &Digest) -> Permission + Send + Sync> Permit for F {
    fn permissions(&self, peer: PeerKey, digests: Vec<Digest>) -> BoxFuture<'_, Vec<Permission>> {
        std::future::ready(digests.iter().map(|digest| self(peer, digest)).collect()).boxed()
    }
}

/// Serves every stream that peers open, until the channel closes; then all of them end.
pub async fn serve(mut bulk: mpsc::Receiver<IncomingBulk>, source: Arc<dyn ChunkSource>, permit: Arc<dyn Permit>) {
    let desk = Arc::new(Desk {
        source,
        permit,
        reads: Semaphore::new(MAX_READS),
        large: Semaphore::new(MAX_LARGE),
        verified: Verified::default(),
    });
    let mut streams: JoinSet<PeerKey> = JoinSet::new();
    let mut open: BTreeMap<PeerKey, Share> = BTreeMap::new();
    loop {
        tokio::select! {
            biased;
            Some(ended) = streams.join_next(), if !streams.is_empty() => match ended {
                Ok(peer) => {
                    if let Some(share) = open.get_mut(&peer) {
                        share.streams -= 1;
                    }
                    open.retain(|_, share| share.streams > 0);
                }
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_cancelled) => return,
                },
            },
            incoming = bulk.recv() => {
                let Some(IncomingBulk { caller, stream }) = incoming else { return };
                let peer = caller.peer;
                let share = open.entry(peer).or_default();
                let admitted = admits(share.streams, streams.len());
                // A refusal counts as a stream for as long as it takes, so that refusals are bounded as well.
                if !admitted && streams.len() >= 2 * MAX_STREAMS {
                    continue;
                }
                share.streams += 1;
                let (desk, large) = (desk.clone(), share.large.clone());
                streams.spawn(async move {
                    let ended = if admitted { desk.serve(peer, &large, stream).await } else { turn_away(stream).await };
                    if let Err(error) = ended {
                        tracing::debug!(?peer, %error, "a bulk stream ended");
                    }
                    peer
                });
            }
        }
    }
}

/// What one peer has of this desk.
#[derive(Debug)]
struct Share {
    streams: usize,
    /// Its one place among large blobs.
    large: Arc<Semaphore>,
}

impl Default for Share {
    fn default() -> Self {
        Self { streams: 0, large: Arc::new(Semaphore::new(1)) }
    }
}

/// Whether one more stream of a peer is served that has `of_peer` among `all`.
const fn admits(of_peer: usize, all: usize) -> bool {
    all < MAX_STREAMS && of_peer < if all < MAX_STREAMS / 2 { MAX_STREAMS_OF_PEER } else { 2 }
}

/// Answers with a word that says why no request will be.
async fn turn_away(mut stream: impl AsyncWrite + Unpin) -> io::Result<()> {
    let busy = Head { at: 0, reply: Reply::Busy }.encode();
    timeout(UNREAD, async {
        stream.write_all(&busy).await?;
        stream.shutdown().await
    })
    .await?
}

/// What every stream is served from.
struct Desk {
    source: Arc<dyn ChunkSource>,
    permit: Arc<dyn Permit>,
    reads: Semaphore,
    large: Semaphore,
    verified: Verified,
}

/// What was compared with its digest when it was first served. The receiver compares every time.
#[derive(Clone, Debug, Default)]
struct Verified(Arc<Mutex<BTreeSet<Digest>>>);

impl Verified {
    fn fits(&self, digest: &Digest, bytes: &[u8]) -> bool {
        if self.digests().contains(digest) {
            return true;
        }
        let fits = Digest::of(bytes) == *digest;
        if fits {
            let mut digests = self.digests();
            if digests.len() >= MAX_VERIFIED {
                digests.clear();
            }
            digests.insert(*digest);
        }
        fits
    }

    fn digests(&self) -> std::sync::MutexGuard<'_, BTreeSet<Digest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers read at once, and the place to hold them in memory if they are large.
struct Stretch<'a> {
    answers: Vec<Found>,
    _large: Option<LargePlace<'a>>,
}

/// The peer's own place among large blobs, and one of those that all peers share.
type LargePlace<'a> = (SemaphorePermit<'a>, SemaphorePermit<'a>);

/// What the source has under one digest.
#[derive(Debug)]
enum Found {
    Bytes(Vec<u8>),
    Absent,
    Refused,
    /// It may be there, and there is no place for it now.
    Busy,
}

impl Desk {
    async fn serve(&self, peer: PeerKey, large: &Semaphore, stream: BulkStream) -> io::Result<()> {
        let (mut asks, answers) = tokio::io::split(stream);
        let mut answers = BufWriter::with_capacity(WRITE_BYTES, answers);
        while let Some(ask) = timeout(IDLE, Ask::read(&mut asks)).await?? {
            let mut at = 0;
            let mut stretch = self.read(peer, large, &ask, at).await?;
            loop {
                let next = at + stretch.answers.len();
                if next >= ask.digests().len() {
                    write(&mut answers, at, &stretch).await?;
                    break;
                }
                // The next stretch is read while this one is written.
                let (written, read) =
                    tokio::join!(write(&mut answers, at, &stretch), self.read(peer, large, &ask, next));
                written?;
                stretch = read?;
                at = next;
            }
            timeout(UNREAD, answers.flush()).await??;
        }
        Ok(())
    }

    /// Reads the next stretch of answers to `ask` from position `from`: at least one.
    async fn read<'a>(
        &'a self,
        peer: PeerKey,
        large: &'a Semaphore,
        ask: &Ask,
        from: usize,
    ) -> io::Result<Stretch<'a>> {
        let large = match ask {
            Ask::Chunks(_) => None,
            Ask::Blob(_) => match timeout(LARGE_WITHIN, self.place(large)).await {
                Ok(place) => Some(place?),
                Err(_) => return Ok(Stretch { answers: vec![Found::Busy], _large: None }),
            },
        };
        let digests: Vec<Digest> = ask.digests()[from..].iter().take(STRETCH_DIGESTS).copied().collect();
        let permissions = self.permit.permissions(peer, digests.clone()).await;
        let wanted: Vec<(Digest, Permission)> = digests.into_iter().zip(permissions).collect();
        let max_bytes = ask.max_answer_bytes();
        let _turn = self.reads.acquire().await.map_err(io::Error::other)?;
        let answers = match self.source.reading() {
            Reading::Immediate => read_stretch(self.source.as_ref(), &self.verified, &wanted, max_bytes)?,
            Reading::Blocks => {
                let (source, verified) = (self.source.clone(), self.verified.clone());
                tokio::task::spawn_blocking(move || read_stretch(source.as_ref(), &verified, &wanted, max_bytes))
                    .await
                    .map_err(io::Error::other)??
            }
        };
        let bytes: usize = answers.iter().map(Found::len).sum();
        Ok(Stretch { answers, _large: large.filter(|_| bytes > STRETCH_BYTES) })
    }

    /// A place for a large blob, for a peer that has none.
    async fn place<'a>(&'a self, of_peer: &'a Semaphore) -> io::Result<LargePlace<'a>> {
        let own = of_peer.acquire().await.map_err(io::Error::other)?;
        Ok((own, self.large.acquire().await.map_err(io::Error::other)?))
    }
}

impl Found {
    fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Absent | Self::Refused | Self::Busy => 0,
        }
    }
}

fn read_stretch(
    source: &dyn ChunkSource,
    verified: &Verified,
    wanted: &[(Digest, Permission)],
    max_bytes: u64,
) -> io::Result<Vec<Found>> {
    let mut answers = Vec::new();
    let mut bytes = 0;
    for (digest, permission) in wanted {
        let found = match permission {
            Permission::Denied => Found::Refused,
            Permission::Granted => match source.read(digest)? {
                Some(blob) if blob.len() as u64 > max_bytes => Found::Absent,
                Some(blob) if source.checking() == Checking::LeftToReader && !verified.fits(digest, &blob) => {
                    tracing::warn!(%digest, "what lies under a digest does not fit it and is not served");
                    Found::Absent
                }
                Some(blob) => Found::Bytes(blob),
                None => Found::Absent,
            },
        };
        bytes += found.len();
        answers.push(found);
        if bytes >= STRETCH_BYTES {
            break;
        }
    }
    Ok(answers)
}

/// Writes a stretch whose first answer is number `at` of its request, to a peer that takes it fast enough.
async fn write(stream: &mut (impl AsyncWrite + Unpin), at: usize, stretch: &Stretch<'_>) -> io::Result<()> {
    let began = Instant::now();
    let mut taken = 0;
    for (nr, found) in stretch.answers.iter().enumerate() {
        let at = u16::try_from(at + nr).map_err(io::Error::other)?;
        let (reply, bytes) = match found {
            Found::Bytes(bytes) => {
                (Reply::Bytes(u32::try_from(bytes.len()).map_err(io::Error::other)?), bytes.as_slice())
            }
            Found::Absent => (Reply::Absent, &[][..]),
            Found::Refused => (Reply::Refused, &[][..]),
            Found::Busy => (Reply::Busy, &[][..]),
        };
        let head = Head { at, reply }.encode();
        for part in [head.as_slice()].into_iter().chain(bytes.chunks(WRITE_BYTES)) {
            // By what was taken, not by what is to be: a large answer is no leave to take none of it.
            let until = began + UNREAD + Duration::from_secs(taken / MIN_RATE);
            timeout_at(until, stream.write_all(part)).await??;
            taken += part.len() as u64;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::admits;

    #[test]
    fn the_last_half_of_the_streams_is_for_those_with_few() {
        assert!(admits(3, 15) && !admits(4, 15));
        assert!(admits(1, 16) && !admits(2, 16));
        assert!(admits(0, 31) && !admits(0, 32));
    }
}
