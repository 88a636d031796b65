//! The farm's founding document.
//!
//! Signed by the farm key, whose digest is the farm id; it names the coordinators and the farm's policy. A new charter has
//! the next version and the digest of its predecessor, so that a farm has one line of charters.

use crate::digest::Digest;
use crate::id::{FarmId, PeerKey};
use crate::request::Name;
use crate::signed::{Kind, OpenError, Payload, Signed};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The most coordinators that a charter names.
pub const MAX_COORDINATORS: usize = 7;
/// The most members that a charter names.
pub const MAX_MEMBERS: usize = 64;

/// Daily caps and the like. Every number is per day of the farm's time, UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Mails to one address.
    pub mails_per_address: u32,
    /// Mails caused by one requester.
    pub mails_per_requester: u32,
    /// Requests of one requester that may wait at the same time.
    pub waiting_per_requester: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self { mails_per_address: 100, mails_per_requester: 500, waiting_per_requester: 100_000 }
    }
}

/// Who a farm is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charter {
    /// What people call it.
    pub name: Name,
    /// Counts from 1.
    pub version: u64,
    /// Digest of the predecessor's envelope payload; `None` for the first.
    pub predecessor: Option<Digest>,
    /// Who may judge, keep the queue and write mail.
    pub coordinators: BTreeSet<PeerKey>,
    /// Requesters who stand as members.
    pub members: BTreeSet<PeerKey>,
    /// Caps.
    pub policy: Policy,
}

impl Payload for Charter {
    const KIND: Kind = Kind::Charter;
    const MAX_BYTES: usize = 8 << 10;
}

/// Why a charter is not the farm's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CharterError {
    /// The envelope is not valid.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Signed by a key that is not the farm's.
    #[error("not signed by the farm key")]
    NotTheFarmKey,
    /// No coordinator, or too many names.
    #[error("a charter names 1 to {MAX_COORDINATORS} coordinators and at most {MAX_MEMBERS} members")]
    Names,
    /// Not the next version of the charter in force.
    #[error("version {found} where {expected} comes next")]
    Version {
        /// Version that would follow.
        expected: u64,
        /// Version found.
        found: u64,
    },
    /// Not made from the charter in force.
    #[error("made from another charter than the one in force")]
    Predecessor,
}

impl Charter {
    /// The charter in an envelope that the farm key signed.
    ///
    /// # Errors
    ///
    /// [`CharterError`] when the key is not the farm's, the signature is not valid or the names are out of bounds.
    pub fn open(signed: &Signed, farm: FarmId) -> Result<Self, CharterError> {
        if FarmId::of(&signed.key) != farm {
            return Err(CharterError::NotTheFarmKey);
        }
        let charter: Self = signed.open(farm)?;
        let coordinators = 1..=MAX_COORDINATORS;
        if coordinators.contains(&charter.coordinators.len()) && charter.members.len() <= MAX_MEMBERS {
            Ok(charter)
        } else {
            Err(CharterError::Names)
        }
    }

    /// Whether `next`, in its envelope, follows this charter, itself in the envelope `current`.
    ///
    /// # Errors
    ///
    /// [`CharterError::Version`] or [`CharterError::Predecessor`].
    pub fn is_followed_by(&self, current: &Signed, next: &Self) -> Result<(), CharterError> {
        if next.version != self.version + 1 {
            return Err(CharterError::Version { expected: self.version + 1, found: next.version });
        }
        if next.predecessor != Some(current.id()) {
            return Err(CharterError::Predecessor);
        }
        Ok(())
    }

    /// Whether `key` may judge.
    #[must_use]
    pub fn is_coordinator(&self, key: &PeerKey) -> bool {
        self.coordinators.contains(key)
    }

    /// The standing of a requester.
    #[must_use]
    pub fn standing(&self, requester: &PeerKey) -> crate::platform::Standing {
        if self.members.contains(requester) {
            crate::platform::Standing::Member
        } else {
            crate::platform::Standing::Guest
        }
    }
}
