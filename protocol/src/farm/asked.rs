//! A request as the farm remembers it: what was signed, who is to be told, and what became of it.

use crate::farm::command::Rejection;
use crate::farm::explain::Ended;
use crate::farm::job::Trail;
use crate::farm::quorum::Standard;
use crate::id::{BuildKey, FarmId, JobId, LeaseId, PeerKey, RequestId};
use crate::request::{Address, Demand, Freshness, MAX_ADDRESSES, MAX_AGREE, Priority, Request, Subscription};
use crate::signed::{Kind, OpenError, Signature, Signed};
use crate::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::num::NonZeroU8;

/// How long a request is remembered after it could have waited, so that a replay is not taken for a new wish.
pub const REMEMBERED_AFTER_EXPIRY: Span = Span::from_secs(3_600);

/// How a request ended, with what is shown of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct End {
    pub(super) ended: Ended,
    pub(super) at: Timestamp,
    pub(super) build_key: BuildKey,
    pub(super) trail: Trail,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Fate {
    Waiting(JobId),
    Ended(Box<End>),
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Asked {
    #[serde(with = "serde_bytes")]
    payload: Box<[u8]>,
    pub(super) requester: PeerKey,
    signature: Signature,
    pub(super) addresses: Box<[Address]>,
    pub(super) submitted_at: Timestamp,
    pub(super) expires_at: Timestamp,
    pub(super) priority: Priority,
    pub(super) standard: Standard,
    pub(super) fate: Fate,
}

impl Asked {
    pub(super) fn new(signed: Signed, request: &Request, wish: Wish, now: Timestamp, fate: Fate) -> Self {
        Self {
            payload: signed.payload,
            requester: signed.key,
            signature: signed.signature,
            addresses: wish.addresses.into(),
            submitted_at: now,
            expires_at: request.expires_at(),
            priority: request.priority,
            standard: wish.standard,
            fate,
        }
    }

    /// The envelope it came in.
    pub(super) fn signed(&self, farm: FarmId) -> Signed {
        Signed {
            kind: Kind::Request,
            farm,
            payload: self.payload.clone(),
            key: self.requester,
            signature: self.signature,
        }
    }

    /// What was signed.
    pub(super) fn request(&self, farm: FarmId) -> Result<Request, OpenError> {
        self.signed(farm).payload_unchecked()
    }

    pub(super) fn add_addresses(&mut self, new: &[Address]) {
        if !new.is_empty() {
            self.addresses = self.addresses.iter().chain(new).cloned().collect();
        }
    }

    pub(super) fn forgotten_at(&self) -> Timestamp {
        self.expires_at + REMEMBERED_AFTER_EXPIRY.duration()
    }
}

/// What the subscriptions of one submission say together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) addresses: Vec<Address>,
    pub(super) standard: Standard,
}

impl Wish {
    /// The union of addresses and the strongest demand. A fresh wish counts attempts granted after entry `index`.
    pub(super) fn of(id: RequestId, subscriptions: &[Subscription], index: u64) -> Result<Self, Rejection> {
        let mut wish = Self { addresses: Vec::new(), standard: Standard::default() };
        for Subscription { request, address, demand } in subscriptions {
            if *request != id || demand.agree.get() > MAX_AGREE {
                return Err(Rejection::OutOfBounds);
            }
            wish.standard = wish.standard.strengthened(Standard::of(*demand, index));
            match address {
                Some(address) if !wish.addresses.contains(address) => wish.addresses.push(address.clone()),
                _ => {}
            }
            if wish.addresses.len() > MAX_ADDRESSES {
                return Err(Rejection::OutOfBounds);
            }
        }
        Ok(wish)
    }

    /// The addresses of this wish that `known` does not have, if all of them together are not too many.
    pub(super) fn new_addresses(&self, known: &[Address]) -> Result<Vec<Address>, Rejection> {
        let new: BTreeSet<_> = self.addresses.iter().filter(|address| !known.contains(address)).collect();
        if known.len() + new.len() > MAX_ADDRESSES {
            return Err(Rejection::OutOfBounds);
        }
        Ok(self.addresses.iter().filter(|address| new.contains(address)).cloned().collect())
    }
}

impl Standard {
    pub(super) fn of(demand: Demand, index: u64) -> Self {
        let after = match demand.freshness {
            Freshness::Any => None,
            Freshness::Fresh => Some(LeaseId(index)),
        };
        Self { agree: demand.agree, after }
    }

    /// Both at once. Who already waits for a fresh attempt is not set back by saying so again.
    pub(super) fn strengthened(self, other: Self) -> Self {
        Self { agree: self.agree.max(other.agree), after: self.after.or(other.after) }
    }
}

impl Default for Standard {
    fn default() -> Self {
        Self { agree: NonZeroU8::MIN, after: None }
    }
}
