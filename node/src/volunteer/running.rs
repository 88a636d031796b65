//! The leases that this volunteer holds right now, and what can be done to each from outside.

use super::build_log::BuildLog;
use super::vitals::Vitals;
use super::workshop::Order;
use protocol::id::{BuildKey, LeaseId, RequestId};
use protocol::progress::Pulse;
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
    request: RequestId,
    build_key: BuildKey,
    stop: CancellationToken,
    log: BuildLog,
    vitals: Vitals,
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
    pub fn hold(&self, order: &Order) -> Option<Hold> {
        let lease = order.lease;
        let mut leases = self.locked();
        if leases.contains_key(&lease) {
            return None;
        }
        let held = Held {
            request: order.request.id,
            build_key: order.request.build_key,
            stop: order.stop.clone(),
            log: order.log.clone(),
            vitals: order.vitals.clone(),
        };
        leases.insert(lease, held);
        Some(Hold { running: self.clone(), lease })
    }

    /// Every lease held.
    #[must_use]
    pub fn leases(&self) -> Vec<LeaseId> {
        self.locked().keys().copied().collect()
    }

    /// Every lease held, and how its attempt goes.
    #[must_use]
    pub fn pulses(&self) -> Vec<Pulse> {
        let pulse =
            |(lease, held): (&LeaseId, &Held)| Pulse { lease: *lease, progress: held.vitals.progress(&held.log) };
        self.locked().iter().map(pulse).collect()
    }

    /// What is attempted here: requests and what they ask for.
    #[must_use]
    pub fn requests(&self) -> Vec<(RequestId, BuildKey)> {
        self.locked().values().map(|held| (held.request, held.build_key)).collect()
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
