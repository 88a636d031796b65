//! `bulk/1`: how blobs travel, and how many providers give one artifact together.
//!
//! # The protocol
//!
//! Whoever wants blobs opens a stream and keeps it. On it travel requests ([`frame::Ask`]: four bytes of length, then
//! canonical CBOR), each for up to 256 chunks or for one larger blob, several outstanding at a time. The provider answers
//! in the order of the requests and of the digests in each: a head of eight bytes ([`frame::Head`]: which digest, and how many
//! bytes follow or why none do), then the bytes. There is no goodbye; either side closes the stream.
//!
//! # The fetching side
//!
//! [`fetch_artifact`] cuts what is missing into pieces, and up to eight providers take pieces from one queue ([`plan`]), so
//! that each serves as much as it can. More providers may arrive while it runs. An idle provider doubles the oldest piece that
//! another still owes. Every chunk is compared with its digest before it counts. Whoever sends wrong bytes or broken frames is
//! banned for this artifact and named in [`Sources`]; whoever makes no progress for ten seconds, or is sixteen times slower
//! than the best, is left. What is already in the [`Sink`] is verified and not fetched again. Memory is bounded by sixteen
//! pieces of at most 4 MiB for a fetch.
//!
//! # The serving side
//!
//! [`serve`] answers from any [`super::ChunkSource`], within limits for each peer and in all, and asks for a [`Permission`]
//! before it looks. It never says whether it has what it may not give.

pub mod frame;
pub mod plan;

mod blob;
mod fetch;
mod output;
mod provider;
mod serve;
mod sink;
#[cfg(test)]
mod tests;

pub use blob::{fetch_blob, fetch_manifest};
pub use fetch::fetch_artifact;
pub use provider::Providers;
pub use serve::{MAX_STREAMS, MAX_STREAMS_OF_PEER, Permission, Permit, serve};
pub use sink::{Sink, SinkError};

use super::store::StoreError;
use crate::network::CallError;
use frame::FrameError;
use protocol::digest::Digest;
use protocol::id::{ManifestId, PeerKey};
use protocol::tree::ManifestError;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a provider may make no progress.
pub const STALL: Duration = Duration::from_secs(10);
/// How many providers serve one artifact at a time.
pub const MAX_ACTIVE: usize = 8;
/// How long a fetch waits for another provider to turn up when it has none.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The first wait before a provider that failed is tried again; each further one is twice as long.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// How far a fetch has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of all different chunks of the artifact.
    pub total_bytes: u64,
    /// Bytes verified and written so far, [`Progress::reused_bytes`] included.
    pub done_bytes: u64,
    /// Bytes that were here already.
    pub reused_bytes: u64,
    /// Providers at work.
    pub providers: usize,
}

/// Who gave what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// Verified bytes that counted, by provider.
    pub served: BTreeMap<PeerKey, u64>,
    /// Bytes that were here already.
    pub reused_bytes: u64,
    /// Providers whose bytes did not fit their digest, or whose frames were broken.
    pub liars: Vec<PeerKey>,
}

/// What a provider did wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It was not reached.
    #[error("{0}")]
    Unreachable(CallError),
    /// The stream ended or failed.
    #[error("broke off: {0}")]
    Broken(String),
    /// Nothing came for [`STALL`].
    #[error("made no progress for {} s", STALL.as_secs())]
    Stalled,
    /// Far slower than others.
    #[error("far slower than others")]
    Slow,
    /// It serves too many already.
    #[error("busy")]
    Busy,
    /// It may not give this to us.
    #[error("refused")]
    Refused,
    /// It does not have what is still missing.
    #[error("does not have it")]
    Absent,
    /// Bytes that do not fit the digest they came under.
    #[error("lied about {0}")]
    Lied(Digest),
    /// Frames that are none.
    #[error("{0}")]
    Malformed(#[from] FrameError),
}

impl Fault {
    /// Whether the provider is banned for this artifact: it did what no honest one does.
    #[must_use]
    pub const fn is_lie(&self) -> bool {
        matches!(self, Self::Lied(_) | Self::Malformed(_))
    }

    /// How long such a provider is left alone before it is tried again, when it has failed so often; `None` to give it up.
    fn retry_after(&self, failures: u32) -> Option<Duration> {
        (failures <= self.retries()).then(|| RETRY_AFTER * 2_u32.saturating_pow(failures.saturating_sub(1)))
    }

    /// How often such a provider is tried again before it is given up.
    const fn retries(&self) -> u32 {
        match self {
            Self::Busy => 5,
            Self::Broken(_) => 2,
            Self::Unreachable(_) | Self::Stalled => 1,
            Self::Slow | Self::Refused | Self::Absent | Self::Lied(_) | Self::Malformed(_) => 0,
        }
    }
}

/// A fetch cannot be completed.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// Nobody was named who could have it.
    #[error("no provider is known")]
    NoProvider,
    /// Everybody who was named failed; the last fault of each.
    #[error("no provider could give it: {}", list(.0))]
    Failed(Vec<(PeerKey, Fault)>),
    /// The blob fetched is not a manifest, or contradicts itself.
    #[error("{id:?} names no manifest: {error}")]
    NotAManifest {
        /// What was fetched.
        id: ManifestId,
        /// What is wrong with it.
        error: ManifestError,
    },
    /// The manifest gives one chunk two lengths.
    #[error("the manifest contradicts itself about the chunk {0}")]
    Contradiction(Digest),
    /// Chunks that were here when the fetch began were evicted while it ran, again and again.
    #[error("chunks that were here keep being evicted: the store is too small for this artifact")]
    Evicted,
    /// What came cannot be written.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl TransferError {
    /// Whether it failed because nobody who was asked gave it.
    #[must_use]
    pub const fn is_loss(&self) -> bool {
        matches!(self, Self::NoProvider | Self::Failed(_))
    }

    /// Whether somebody may have it who was too busy to give it.
    #[must_use]
    pub fn is_for_now(&self) -> bool {
        matches!(self, Self::Failed(faults) if faults.iter().any(|(_, fault)| *fault == Fault::Busy))
    }
}

fn list(faults: &[(PeerKey, Fault)]) -> String {
    let words: Vec<_> = faults.iter().map(|(peer, fault)| format!("{} {fault}", peer.short())).collect();
    words.join("; ")
}
