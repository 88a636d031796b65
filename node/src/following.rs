//! Following the farm's charter: learnt from whoever knows it, replaced by a newer one when a peer has it.

use crate::coordinators::Coordinators;
use crate::founding::Membership;
use crate::home::Home;
use crate::network::{CallError, Network, PeerChange};
use protocol::charter::{Charter, CharterError};
use protocol::id::{FarmId, PeerKey};
use protocol::signed::Signed;
use protocol::ticket::Contact;
use protocol::wire::{Answer, Control};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long a daemon that knows no charter looks for one before it gives up.
const LEARN_WITHIN: Duration = Duration::from_secs(30);

/// No charter was learnt.
#[derive(Debug, thiserror::Error)]
pub enum LearnError {
    /// Nobody who knows it answered.
    #[error("no peer that knows the farm's charter can be reached")]
    Nobody {
        /// Each that was asked and how it failed; who answered and knew none is not among them.
        tried: Vec<(Contact, CallError)>,
    },
    /// What a peer said is not the farm's charter.
    #[error(transparent)]
    Charter(#[from] CharterError),
}

/// The charter, from the first contact that knows it.
///
/// # Errors
///
/// [`LearnError`].
pub async fn learn(network: &Network, membership: &Membership) -> Result<Signed, LearnError> {
    let until = tokio::time::Instant::now() + LEARN_WITHIN;
    let mut wrong = None;
    loop {
        let mut tried = Vec::new();
        for contact in &membership.contacts {
            match network.call(contact.key, Control::Charter).await {
                Ok(Answer::Charter(Some(signed))) => match Charter::open(&signed, membership.farm) {
                    Ok(_) => return Ok(signed),
                    // Another contact may know the right one.
                    Err(error) => {
                        tracing::warn!(peer = %contact.key.short(), %error, "a charter that does not hold");
                        wrong = Some(error);
                    }
                },
                Ok(_) => {}
                Err(error) => tried.push((contact.clone(), error)),
            }
        }
        if tokio::time::Instant::now() >= until {
            return Err(wrong.map_or(LearnError::Nobody { tried }, LearnError::Charter));
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// Who is told of a newer charter.
#[derive(Debug)]
pub struct Told {
    /// Where it is remembered.
    pub home: Home,
    /// Who is asked as a leader.
    pub coordinators: Coordinators,
    /// What this node says when it is asked for it.
    pub charter: watch::Sender<Option<Signed>>,
    /// Who may use `raft/1`.
    pub leaders: watch::Sender<BTreeSet<PeerKey>>,
}

/// Follows the farm to a newer charter whenever a peer says in its greeting that there is one.
pub async fn follow(network: Network, farm: FarmId, told: Told, stop: CancellationToken) {
    let mut changes = network.changes();
    loop {
        let change = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            change = changes.recv() => change,
        };
        let (peer, version) = match change {
            Ok(PeerChange::Greeted { peer, hello }) => match hello.charter {
                Some((version, _)) => (peer, version),
                None => continue,
            },
            Ok(PeerChange::Closed { .. }) | Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        };
        if version > told.version(farm)
            && let Ok(Answer::Charter(Some(signed))) = network.call(peer, Control::Charter).await
        {
            told.of(farm, peer, signed);
        }
    }
}

impl Told {
    fn version(&self, farm: FarmId) -> u64 {
        let known = self.charter.borrow();
        known.as_ref().and_then(|signed| Charter::open(signed, farm).ok()).map_or(0, |charter| charter.version)
    }

    fn of(&self, farm: FarmId, peer: PeerKey, signed: Signed) {
        match Charter::open(&signed, farm) {
            Ok(charter) if charter.version > self.version(farm) => {
                if let Err(error) = self.home.remember_charter(&signed) {
                    tracing::warn!(%error, "a newer charter cannot be remembered");
                }
                self.coordinators.replace(charter.coordinators.clone());
                self.leaders.send_replace(charter.coordinators);
                self.charter.send_replace(Some(signed));
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(peer = %peer.short(), %error, "a charter that does not hold"),
        }
    }
}
