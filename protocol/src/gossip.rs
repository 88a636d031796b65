//! What is whispered to everybody: capabilities and the fact that there is work.
//!
//! Gossip creates no state and carries no address, name or path. Every message is a signed envelope of at most
//! [`MAX_GOSSIP_BYTES`], stamped and expiring; a receiver forwards only what is well-formed, signed by its author, fresh and
//! not seen before.

use crate::id::{BuildKey, PeerKey, RequestId, RequirementId};
use crate::platform::Capability;
use crate::signed::{Kind, Payload};
use crate::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};

/// The largest gossip message, envelope included.
pub const MAX_GOSSIP_BYTES: usize = 1_024;
/// How far an author's clock may be off before its news is not forwarded.
pub const CLOCK_WINDOW: Span = Span::from_secs(300);

/// A volunteer says what it can do. Its `accepts` is never listed recipe by recipe here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilityNews {
    /// What it is and has; the catalogue of accepted recipes is left empty.
    pub capability: Capability,
    /// Slots in use.
    pub busy: u16,
    /// The author's clock.
    pub issued_at: Timestamp,
    /// How long to believe it.
    pub ttl: Span,
    /// Set when the volunteer leaves.
    pub leaving: Leaving,
}

/// Whether the news is a farewell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Leaving {
    /// It stays.
    No,
    /// It is shutting down.
    Yes,
}

impl Payload for CapabilityNews {
    const KIND: Kind = Kind::CapabilityNews;
    const MAX_BYTES: usize = MAX_GOSSIP_BYTES;
}

/// There is work, or there is a verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RequestNews {
    /// A request waits.
    Waiting {
        /// The request.
        request: RequestId,
        /// What it asks for.
        build_key: BuildKey,
        /// What it needs.
        requirement: RequirementId,
        /// Who holds the full request.
        origin: PeerKey,
        /// The author's clock.
        issued_at: Timestamp,
        /// How long it waits.
        ttl: Span,
    },
    /// A build was judged.
    Decided {
        /// The build.
        build_key: BuildKey,
        /// The author's clock.
        issued_at: Timestamp,
    },
}

impl RequestNews {
    /// The author's clock.
    #[must_use]
    pub fn issued_at(&self) -> Timestamp {
        match self {
            Self::Waiting { issued_at, .. } | Self::Decided { issued_at, .. } => *issued_at,
        }
    }
}

impl Payload for RequestNews {
    const KIND: Kind = Kind::RequestNews;
    const MAX_BYTES: usize = MAX_GOSSIP_BYTES;
}
