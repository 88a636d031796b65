//! Logs for those who follow a build: pulled from the volunteer while it runs, read from the store afterwards.
//!
//! However many follow a lease, its log is pulled from the volunteer once: the first follower at an offset pulls, the others
//! wait for what it gets, and whoever does not wait is told what is remembered. What was pulled is remembered within bounds.

use crate::artifact::Store;
use crate::artifact::gather;
use crate::network::Network;
use protocol::digest::Digest;
use protocol::farm::Farm;
use protocol::id::{LeaseId, PeerKey, RequestId};
use protocol::time::Span;
use protocol::wire::{Answer, LogPart, LogState, MAX_LOG_BYTES, Park};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Bytes of one log that are remembered while it grows.
const REMEMBERED_BYTES: usize = 1 << 20;
/// Leases whose logs are remembered.
const REMEMBERED_LEASES: usize = 64;

/// Where the log of a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogPlace {
    /// No attempt has started.
    Nowhere,
    /// A volunteer writes it.
    Growing {
        /// Under which lease.
        lease: LeaseId,
        /// Who.
        volunteer: PeerKey,
    },
    /// It is complete.
    Complete {
        /// The blob.
        log: Digest,
        /// Who wrote it.
        volunteer: PeerKey,
    },
}

/// What the farm knows of the log of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Where the log of the latest attempt is.
    pub place: LogPlace,
    /// Which attempt that is; 0 before the first.
    pub attempt: u32,
    /// Whether another attempt may follow.
    pub outlook: Outlook,
}

/// Whether a request may be attempted once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// It may.
    Open,
    /// It has ended.
    Ended,
}

impl Standing {
    /// What the farm knows of the log of a request; `None` for a request that it does not know.
    #[must_use]
    pub fn of(farm: &Farm, request: RequestId) -> Option<Self> {
        let view = farm.view(request, &[])?;
        let lease = view.job.and_then(|job| farm.job(job)?.lease);
        let place = match (lease, view.log, view.volunteer) {
            (Some(lease), ..) => LogPlace::Growing { lease: lease.id, volunteer: lease.volunteer },
            (None, Some(log), Some(volunteer)) => LogPlace::Complete { log, volunteer },
            (None, ..) => LogPlace::Nowhere,
        };
        let outlook = if view.ended_at.is_some() { Outlook::Ended } else { Outlook::Open };
        Some(Self { place, attempt: view.attempts, outlook })
    }
}

/// Reads logs. Clones share what is remembered.
#[derive(Clone, Debug)]
pub struct Logs {
    network: Network,
    store: Store,
    growing: Arc<Mutex<BTreeMap<LeaseId, Arc<Followed>>>>,
}

/// A log that grows, and who pulls more of it.
#[derive(Debug, Default)]
struct Followed {
    /// Held by the one who waits for the volunteer.
    pulling: tokio::sync::Mutex<()>,
    remembered: Mutex<Growing>,
}

/// The remembered end of a growing log.
#[derive(Debug, Default)]
struct Growing {
    offset: u64,
    bytes: Vec<u8>,
    complete: bool,
}

impl Logs {
    /// Nothing remembered yet.
    #[must_use]
    pub fn new(network: Network, store: Store) -> Self {
        Self { network, store, growing: Arc::default() }
    }

    /// What is at `offset`, waiting up to `wait` for something to come; `None` when nothing is there and nothing can be
    /// waited for here.
    pub async fn read(&self, place: LogPlace, offset: u64, wait: Duration) -> Option<LogPart> {
        match place {
            LogPlace::Nowhere => None,
            LogPlace::Growing { lease, volunteer } => self.read_growing(lease, volunteer, offset, wait).await,
            LogPlace::Complete { log, volunteer } => self.read_complete(log, volunteer, offset).await,
        }
    }

    async fn read_complete(&self, log: Digest, volunteer: PeerKey, offset: u64) -> Option<LogPart> {
        let bytes = match self.store.get(&log).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) | Err(_) => gather::small_blob(&self.network, log, vec![volunteer]).await.ok()?,
        };
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let end = (start + MAX_LOG_BYTES).min(bytes.len());
        let state = if end == bytes.len() { LogState::Complete } else { LogState::Growing };
        Some(LogPart { offset: start as u64, bytes: bytes[start..end].to_vec(), state })
    }

    async fn read_growing(&self, lease: LeaseId, volunteer: PeerKey, offset: u64, wait: Duration) -> Option<LogPart> {
        let followed = self.growing(lease);
        let until = Instant::now() + wait;
        if offset < followed.remembered().offset {
            // Forgotten here, and so long ago that the volunteer need not wait for it.
            return self.pull(lease, volunteer, offset, Duration::ZERO).await;
        }
        if let Some(part) = followed.remembered().at(offset) {
            return Some(part);
        }
        let Ok(_turn) = timeout_at(until, followed.pulling.lock()).await else {
            // Somebody else waits for more, and it has not come.
            return Some(LogPart { offset, bytes: Vec::new(), state: LogState::Growing });
        };
        if let Some(part) = followed.remembered().at(offset) {
            return Some(part);
        }
        let from = followed.remembered().end().max(offset);
        let part = self.pull(lease, volunteer, from, until.saturating_duration_since(Instant::now())).await?;
        followed.remembered().take_in(&part);
        Some(part)
    }

    async fn pull(&self, lease: LeaseId, volunteer: PeerKey, offset: u64, wait: Duration) -> Option<LogPart> {
        match self.network.park(volunteer, Park::FollowLease { lease, offset, wait: Span::from(wait) }).await {
            Ok(Answer::Log(part)) => part,
            // The volunteer does not hold the lease any more: the report is on its way.
            Ok(_) | Err(_) => None,
        }
    }

    fn growing(&self, lease: LeaseId) -> Arc<Followed> {
        // Inserting and removing leave the map whole.
        let mut leases = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        if leases.len() >= REMEMBERED_LEASES && !leases.contains_key(&lease) {
            leases.pop_first();
        }
        leases.entry(lease).or_default().clone()
    }
}

impl Followed {
    fn remembered(&self) -> MutexGuard<'_, Growing> {
        // Taking in a stretch leaves what is remembered whole.
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Growing {
    /// Where what is remembered ends.
    fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }

    /// What is remembered at `offset`, if anything is.
    fn at(&self, offset: u64) -> Option<LogPart> {
        let start = usize::try_from(offset.checked_sub(self.offset)?).ok()?;
        if start >= self.bytes.len() {
            return None;
        }
        let end = (start + MAX_LOG_BYTES).min(self.bytes.len());
        let state = if self.complete && end == self.bytes.len() { LogState::Complete } else { LogState::Growing };
        Some(LogPart { offset, bytes: self.bytes[start..end].to_vec(), state })
    }

    fn take_in(&mut self, part: &LogPart) {
        if part.offset != self.end() {
            self.offset = part.offset;
            self.bytes.clear();
        }
        self.bytes.extend_from_slice(&part.bytes);
        self.complete = part.state == LogState::Complete;
        let excess = self.bytes.len().saturating_sub(REMEMBERED_BYTES);
        self.bytes.drain(..excess);
        self.offset += excess as u64;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn part(offset: u64, bytes: &[u8], state: LogState) -> LogPart {
        LogPart { offset, bytes: bytes.to_vec(), state }
    }

    #[test]
    fn what_was_pulled_is_found_again_within_the_bound() {
        let mut growing = Growing::default();
        growing.take_in(&part(0, b"hello ", LogState::Growing));
        growing.take_in(&part(6, b"world", LogState::Complete));
        assert_eq!(growing.at(2), Some(part(2, b"llo world", LogState::Complete)));
        assert_eq!(growing.at(11), None);
        growing.take_in(&part(100, &vec![7; REMEMBERED_BYTES + 3], LogState::Growing));
        assert_eq!(growing.at(50), None, "before the gap nothing is remembered");
        assert_eq!(growing.at(100), None, "cut at the front");
        assert_eq!(growing.at(103).unwrap().bytes.len(), MAX_LOG_BYTES);
    }
}
