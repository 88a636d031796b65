//! A requester's connection to its farm: peers that answer, coordinators that lead, and the key that signs.
//!
//! A session of a command starts from the daemon of its home, if one serves, and from the ticket; it opens no database and
//! locks nothing, so any number may run at once. A session inside a daemon stands on the daemon's network. Either way it
//! believes a peer only as far as the farm's key vouches.

use crate::clock::Clock;
use crate::clocks::Skew;
use crate::coordinators::Coordinators;
use crate::home::{Home, HomeError, KeyName};
use crate::network::{CallError, Keep, Network, PeerChange};
use protocol::charter::{Charter, CharterError};
use protocol::id::{FarmId, PeerKey};
use protocol::signed::{SecretKey, Signed};
use protocol::ticket::{Contact, Ticket};
use protocol::wire::{Answer, CONTROL_TIMEOUT, Control};
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::task::JoinSet;

/// How long connecting to the farm may take. Whoever was reached then has [`CONTROL_TIMEOUT`] for its answer.
pub const JOIN_WITHIN: Duration = Duration::from_secs(10);
/// How long to wait for a coordinator once some peer has answered and the charter is known: one that takes longer is asked
/// when it is there.
const COORDINATOR_GRACE: Duration = Duration::from_millis(300);

/// Connected to a farm.
#[derive(Clone, Debug)]
pub struct Session {
    /// The network.
    pub network: Network,
    /// The farm.
    pub farm: FarmId,
    /// Its charter, in its envelope.
    pub charter: Signed,
    /// Who leads.
    pub coordinators: Coordinators,
    /// Signs requests.
    pub secret: SecretKey,
    /// Time, as its coordinator has it where that was heard.
    pub clock: Clock,
    /// How this machine's own clock differs from the coordinator's, where it does.
    pub skew: Option<Skew>,
}

/// Why the farm was not joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// No ticket was given, none is remembered and no daemon serves here.
    #[error("no farm is known here")]
    NoFarm,
    /// Nobody that the ticket names answered.
    #[error("no peer of the farm can be reached")]
    Unreachable {
        /// Each that was tried and how it failed.
        tried: Vec<(Contact, CallError)>,
    },
    /// Peers answered, but none knows the farm's charter.
    #[error("no peer knows the charter of the farm")]
    NoCharter,
    /// A peer's charter is not the farm's.
    #[error(transparent)]
    Charter(#[from] CharterError),
    /// The home cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The network cannot be started.
    #[error("the network cannot be started: {0}")]
    Network(String),
}

/// Where a session starts from.
#[derive(Clone, Debug)]
pub struct Start {
    /// The farm.
    pub farm: FarmId,
    /// The daemon of the home, then coordinators, then stable peers.
    pub contacts: Vec<Contact>,
}

impl Start {
    /// What is known of a farm in `home`, with `ticket` if one was given. A ticket that was given is remembered.
    ///
    /// # Errors
    ///
    /// [`JoinError::NoFarm`] or [`JoinError::Home`].
    pub fn find(home: &Home, ticket: Option<&Ticket>) -> Result<Self, JoinError> {
        let daemon = home.daemon()?;
        let remembered = match ticket {
            Some(ticket) => {
                home.remember_ticket(ticket)?;
                Some(ticket.clone())
            }
            None => home.ticket()?,
        };
        let farm = match (&remembered, &daemon) {
            (Some(ticket), _) => ticket.farm,
            (None, Some((farm, _))) => *farm,
            (None, None) => return Err(JoinError::NoFarm),
        };
        let mut contacts: Vec<Contact> = Vec::new();
        let own_daemon = daemon.filter(|(of, _)| *of == farm).map(|(_, contact)| contact);
        let listed = remembered.into_iter().flat_map(|ticket| ticket.coordinators.into_iter().chain(ticket.peers));
        for contact in own_daemon.into_iter().chain(listed) {
            match contacts.iter_mut().find(|known| known.key == contact.key) {
                Some(known) => known.addresses.extend(contact.addresses),
                None => contacts.push(contact),
            }
        }
        Ok(Self { farm, contacts })
    }
}

impl Session {
    /// Joins the farm over a network that was just started.
    ///
    /// # Errors
    ///
    /// [`JoinError`].
    pub async fn join(network: Network, start: Start, home: &Home, clock: Clock) -> Result<Self, JoinError> {
        let secret = home.key(KeyName::Requester)?;
        let remembered = home.charter(start.farm)?;
        let mut changes = network.changes();
        let charter = connect(&network, &start, remembered.as_ref()).await?;
        if remembered.as_ref() != Some(&charter) {
            home.remember_charter(&charter)?;
        }
        let mut session = Self::with_charter(network, start.farm, charter, secret, clock)?;
        session.take_time_from(&mut changes);
        Ok(session)
    }

    /// Dates requests by the clock of a coordinator that has greeted, where this machine's differs: it is the coordinator that
    /// judges dates, and a wrong clock here need not keep anybody from asking.
    fn take_time_from(&mut self, changes: &mut broadcast::Receiver<PeerChange>) {
        while let Ok(change) = changes.try_recv() {
            let PeerChange::Greeted { peer, hello } = change else { continue };
            let ours = self.clock.now();
            if self.coordinators.includes(&peer)
                && let Some(skew) = Skew::between(ours, hello.clock)
            {
                self.skew = Some(skew);
                self.clock.correct(hello.clock - self.clock.elapsed());
                return;
            }
        }
    }

    /// A session on a network that is connected already.
    ///
    /// # Errors
    ///
    /// [`JoinError::Charter`] when the charter is not the farm's.
    pub fn with_charter(
        network: Network,
        farm: FarmId,
        charter: Signed,
        secret: SecretKey,
        clock: Clock,
    ) -> Result<Self, JoinError> {
        let coordinators = Charter::open(&charter, farm)?.coordinators;
        let coordinators = Coordinators::new(network.clone(), coordinators);
        Ok(Self { network, farm, charter, coordinators, secret, clock, skew: None })
    }
}

/// Connects to the contacts until a coordinator is reached, or all are tried; answers with the newest charter seen.
async fn connect(network: &Network, start: &Start, remembered: Option<&Signed>) -> Result<Signed, JoinError> {
    let mut dialling = JoinSet::new();
    for contact in &start.contacts {
        let (network, contact, farm) = (network.clone(), contact.clone(), start.farm);
        dialling.spawn(async move {
            match network.connect(contact.clone(), Keep::Connected, JOIN_WITHIN).await {
                Ok(_) => Ok((contact.key, charter_of(&network, contact.key, farm).await)),
                Err(error) => Err((contact, error)),
            }
        });
    }
    let mut best: Option<(u64, Signed)> = match remembered {
        Some(signed) => Charter::open(signed, start.farm).ok().map(|charter| (charter.version, signed.clone())),
        None => None,
    };
    let mut reached = 0usize;
    let mut tried = Vec::new();
    let mut until = tokio::time::Instant::now() + JOIN_WITHIN + CONTROL_TIMEOUT;
    let mut wrong = None;
    while let Ok(Some(dialled)) = tokio::time::timeout_at(until, dialling.join_next()).await {
        let (peer, told) = match dialled {
            Ok(Ok(reached)) => reached,
            Ok(Err(failed)) => {
                tried.push(failed);
                continue;
            }
            Err(_panicked) => continue,
        };
        reached += 1;
        match told {
            Ok(Some((version, signed))) if best.as_ref().is_none_or(|(known, _)| version > *known) => {
                best = Some((version, signed));
            }
            Ok(_) => {}
            Err(error) => wrong = Some(error),
        }
        if let Some((_, signed)) = &best {
            if Charter::open(signed, start.farm)?.is_coordinator(&peer) {
                break;
            }
            until = until.min(tokio::time::Instant::now() + COORDINATOR_GRACE);
        }
    }
    if reached == 0 {
        return Err(JoinError::Unreachable { tried });
    }
    // Dialling goes on in the network; only nobody here waits for it any more.
    dialling.detach_all();
    match (best, wrong) {
        (Some((_, signed)), _) => Ok(signed),
        (None, Some(error)) => Err(error.into()),
        (None, None) => Err(JoinError::NoCharter),
    }
}

async fn charter_of(network: &Network, peer: PeerKey, farm: FarmId) -> Result<Option<(u64, Signed)>, CharterError> {
    match network.call(peer, Control::Charter).await {
        Ok(Answer::Charter(Some(signed))) => {
            Charter::open(&signed, farm).map(|charter| Some((charter.version, signed)))
        }
        Ok(_) => Ok(None),
        Err(error) => {
            tracing::debug!(peer = %peer.short(), %error, "no charter from this peer");
            Ok(None)
        }
    }
}
