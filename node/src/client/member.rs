//! A command as a peer of its farm: its own short-lived network, and its source served while the farm takes it over.
//!
//! A command connects under a key of its own, drawn anew each time, and signs what it asks for as the person of its home.
//! Several commands of one person would otherwise be one peer to everybody: a source would be asked of the wrong one, and the
//! seventh would find the peer's share of connections used up.

use super::session::{JoinError, Session, Start};
use crate::artifact::transfer::{self, Permission};
use crate::artifact::upload::Uploads;
use crate::clock::Clock;
use crate::home::Home;
use crate::network::config::{NetworkConfig, Transports};
use crate::network::{self, Inbox, Network};
use protocol::signed::SecretKey;
use protocol::ticket::Ticket;
use protocol::time::Timestamp;
use protocol::wire::{Hello, PROTOCOL_VERSION};
use rand::Rng as _;
use std::sync::Arc;

/// A command that has joined its farm.
#[derive(Debug)]
pub struct Member {
    /// The connection to the farm.
    pub session: Session,
    /// What is being handed over; coordinators may fetch it.
    pub uploads: Uploads,
}

impl Member {
    /// Joins the farm of `ticket`, or the one known in `home`.
    ///
    /// # Errors
    ///
    /// [`JoinError`].
    pub async fn join(home: &Home, ticket: Option<&Ticket>, transports: Transports) -> Result<Self, JoinError> {
        let start = Start::find(home, ticket)?;
        let config = NetworkConfig {
            transports,
            address_book: start.contacts.clone(),
            ..NetworkConfig::command(passing_key(), start.farm, hello())
        };
        let (network, inbox) = network::start(config).map_err(|error| JoinError::Network(error.to_string()))?;
        let Inbox { control, park, bulk, raft, news } = inbox;
        // A command answers no calls: whoever calls it is told so by the closed channels.
        drop((control, park, raft, news));
        let session = Session::join(network, start, home, Clock::system()).await?;
        let uploads = Uploads::default();
        let coordinators = session.coordinators.clone();
        let permission = move |peer, _: &_| {
            if coordinators.includes(&peer) { Permission::Granted } else { Permission::Denied }
        };
        tokio::spawn(transfer::serve(bulk, Arc::new(uploads.clone()), Arc::new(permission)));
        Ok(Self { session, uploads })
    }

    /// The network of this command.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.session.network
    }

    /// Says goodbye.
    pub async fn leave(self) {
        self.session.network.shut_down().await;
    }
}

/// A key for one command's connections, gone when it ends.
pub(super) fn passing_key() -> SecretKey {
    let mut seed = [0; 32];
    rand::rng().fill_bytes(&mut seed);
    SecretKey::from_seed(&seed)
}

/// What a command says of itself.
pub(super) fn hello() -> Hello {
    Hello {
        program: format!("barnraise {}", env!("CARGO_PKG_VERSION")),
        protocol: PROTOCOL_VERSION,
        charter: None,
        // The network fills in clock and addresses each time it is said.
        clock: Timestamp::EPOCH,
        capability: None,
        addresses: Vec::new(),
    }
}
