//! The leases that this volunteer holds right now, and what can be done to each from outside.

use super::build_log::BuildLog;
use protocol::id::LeaseId;
use protocol::wire::{LogPart, LogState};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Every lease held, shared by claims, heartbeats and log readers. Never more than there are slots, plus reports under way.
#[derive(Clone, Debug, Default)]
pub struct Running(Arc<Mutex<BTreeMap<LeaseId, Held>>>);

#[derive(Clone, Debug)]
struct Held {
    stop: CancellationToken,
    log: BuildLog,
}

/// Forgets the lease when dropped.
#[derive(Debug)]
pub struct Hold {
    running: Running,
    lease: LeaseId,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.running.locked().remove(&self.lease);
    }
}

impl Running {
    /// Notes a lease for as long as the answer lives; `None` when it is held already.
    #[must_use]
    pub fn hold(&self, lease: LeaseId, stop: CancellationToken, log: BuildLog) -> Option<Hold> {
        let mut leases = self.locked();
        if leases.contains_key(&lease) {
            return None;
        }
        leases.insert(lease, Held { stop, log });
        Some(Hold { running: self.clone(), lease })
    }

    /// Every lease held.
    #[must_use]
    pub fn leases(&self) -> Vec<LeaseId> {
        self.locked().keys().copied().collect()
    }

    /// Stops the build of a lease, if it is held.
    pub fn stop(&self, lease: LeaseId) {
        if let Some(held) = self.locked().get(&lease) {
            held.stop.cancel();
        }
    }

    /// A stretch of the log of a lease; waits up to `wait` for something at `offset`. `None` when the lease is not held.
    pub async fn log(&self, lease: LeaseId, offset: u64, wait: Duration) -> Option<LogPart> {
        let log = self.locked().get(&lease)?.log.clone();
        // Running out of time is an answer too: nothing new.
        let _grown = tokio::time::timeout(wait, log.grown_past(offset)).await;
        let chunk = log.read(offset);
        let state = if chunk.finished { LogState::Complete } else { LogState::Growing };
        Some(LogPart { offset: chunk.offset, bytes: chunk.bytes, state })
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, BTreeMap<LeaseId, Held>> {
        // Insert and remove leave the map whole, so a poisoned lock still guards a true one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
