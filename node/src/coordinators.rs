//! How everybody else reaches the coordinator that leads.
//!
//! The charter names the coordinators; one of them leads. Whoever answered last is asked first, the others follow in the
//! order of their keys. Any coordinator that answers "not the leader" or not at all is passed over; nothing is asked twice
//! in one round. Waiting and trying again is the caller's part, because only the caller knows how long it can wait.

use crate::network::{CallError, Network};
use protocol::id::PeerKey;
use protocol::wire::{Answer, Control, Park, Refusal};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The coordinators of the farm, as seen from this node.
#[derive(Clone, Debug)]
pub struct Coordinators {
    network: Network,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    keys: BTreeSet<PeerKey>,
    answered_last: Option<PeerKey>,
}

/// Why no coordinator answered: what each of them said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no coordinator can be reached")]
pub struct NoCoordinator {
    /// Each that was tried and how it failed.
    pub tried: Vec<(PeerKey, CallError)>,
}

impl NoCoordinator {
    /// Whether a coordinator did answer, and the same call would be answered the same again.
    #[must_use]
    pub fn is_a_no(&self) -> bool {
        let no = |error: &CallError| {
            matches!(error, CallError::Refused { refusal: Refusal::Invalid(_) | Refusal::NotAllowed, .. })
        };
        self.tried.iter().any(|(_, error)| no(error))
    }
}

impl Coordinators {
    /// The coordinators that a charter names.
    #[must_use]
    pub fn new(network: Network, keys: BTreeSet<PeerKey>) -> Self {
        Self { network, state: Arc::new(Mutex::new(State { keys, answered_last: None })) }
    }

    /// Follows a new charter.
    pub fn replace(&self, keys: BTreeSet<PeerKey>) {
        self.locked().keys = keys;
    }

    /// Whether the charter names `peer`.
    #[must_use]
    pub fn includes(&self, peer: &PeerKey) -> bool {
        self.locked().keys.contains(peer)
    }

    /// All of them, the one to ask first in front.
    #[must_use]
    pub fn in_order(&self) -> Vec<PeerKey> {
        let state = self.locked();
        let first = state.answered_last.filter(|key| state.keys.contains(key));
        first.into_iter().chain(state.keys.iter().copied().filter(|key| Some(*key) != first)).collect()
    }

    /// Asks the leader over `control/1`.
    ///
    /// # Errors
    ///
    /// [`NoCoordinator`] when none answered.
    pub async fn call(&self, call: Control) -> Result<(PeerKey, Answer), NoCoordinator> {
        let mut tried = Vec::new();
        for peer in self.in_order() {
            match self.network.call(peer, call.clone()).await {
                Ok(answer) => return Ok(self.note(peer, answer)),
                Err(error) if is_final(&error) => return Err(NoCoordinator { tried: vec![(peer, error)] }),
                Err(error) => tried.push((peer, error)),
            }
        }
        Err(NoCoordinator { tried })
    }

    /// Asks the leader over `park/1`.
    ///
    /// # Errors
    ///
    /// [`NoCoordinator`] when none answered.
    pub async fn park(&self, call: Park) -> Result<(PeerKey, Answer), NoCoordinator> {
        let mut tried = Vec::new();
        for peer in self.in_order() {
            match self.network.park(peer, call.clone()).await {
                Ok(answer) => return Ok(self.note(peer, answer)),
                Err(error) if is_final(&error) => return Err(NoCoordinator { tried: vec![(peer, error)] }),
                Err(error) => tried.push((peer, error)),
            }
        }
        Err(NoCoordinator { tried })
    }

    fn note(&self, peer: PeerKey, answer: Answer) -> (PeerKey, Answer) {
        self.locked().answered_last = Some(peer);
        (peer, answer)
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, State> {
        // No step leaves the set half changed, so a poisoned lock still guards a true one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether asking another coordinator cannot help.
fn is_final(error: &CallError) -> bool {
    match error {
        CallError::Closed => true,
        CallError::Refused { refusal, .. } => {
            !matches!(refusal, Refusal::NotTheLeader | Refusal::NotACoordinator | Refusal::ShuttingDown | Refusal::Busy)
        }
        CallError::Unreachable { .. } | CallError::Timeout(_) | CallError::Broken { .. } => false,
    }
}
