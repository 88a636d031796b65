//! The owner of a home speaks to the daemon that runs in it.
//!
//! Only the daemon's own peer is connected to, and it is told only what concerns its home; the farm is not joined.

use super::member::{hello, passing_key};
use super::session::JOIN_WITHIN;
use crate::home::{Home, HomeError, KeyName};
use crate::network::config::{NetworkConfig, Transports};
use crate::network::{self, CallError, Keep, Network};
use protocol::id::FarmId;
use protocol::owner::{OwnersWord, StoreAnswer, StoreWish};
use protocol::signed::{SecretKey, Signed};
use protocol::ticket::Contact;
use protocol::wire::{Answer, Park, Refusal};
use std::time::Duration;
use tokio::time::Instant;

/// How long a daemon may take from its lock to its address, or the other way round.
const SERVES_WITHIN: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A connection to the daemon of one's own home.
#[derive(Debug)]
pub struct Owner {
    network: Network,
    farm: FarmId,
    daemon: Contact,
    secret: SecretKey,
}

/// Why the daemon of this home did not do what its owner wished.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// The home cannot be read.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// A daemon holds this home and does not serve: it is starting, or ending.
    #[error("the daemon of this home does not serve")]
    NotServing,
    /// The network cannot be started.
    #[error("the network cannot be started: {0}")]
    Network(String),
    /// The daemon cannot be reached.
    #[error("the daemon of this home cannot be reached: {0}")]
    Unreachable(#[from] CallError),
    /// The daemon says no.
    #[error("the daemon of this home refuses: {0}")]
    Refused(Refusal),
    /// The daemon gave an answer to something else: it is of another version.
    #[error("the daemon of this home gave an answer that this program does not understand")]
    Unexpected,
}

impl Owner {
    /// Connects to the daemon of `home`, which somebody holds.
    ///
    /// # Errors
    ///
    /// [`OwnerError`].
    pub async fn of(home: &Home, transports: Transports) -> Result<Self, OwnerError> {
        let until = Instant::now() + SERVES_WITHIN;
        let (farm, daemon) = loop {
            match home.daemon()? {
                Some(found) => break found,
                None if Instant::now() >= until => return Err(OwnerError::NotServing),
                None => tokio::time::sleep(LOOK_AGAIN).await,
            }
        };
        let secret = home.key(KeyName::Node)?;
        let config = NetworkConfig {
            transports,
            address_book: vec![daemon.clone()],
            ..NetworkConfig::command(passing_key(), farm, hello())
        };
        let (network, inbox) = network::start(config).map_err(|error| OwnerError::Network(error.to_string()))?;
        // Nobody has to call a command of the owner.
        drop(inbox);
        network.connect(daemon.clone(), Keep::Connected, JOIN_WITHIN).await?;
        Ok(Self { network, farm, daemon, secret })
    }

    /// Has a wish fulfilled, or a piece of it.
    ///
    /// # Errors
    ///
    /// [`OwnerError`].
    pub async fn wishes(&self, wish: StoreWish) -> Result<StoreAnswer, OwnerError> {
        let word = OwnersWord { caller: self.network.local(), wish };
        let signed = Signed::new(&word, self.farm, &self.secret);
        match self.network.park(self.daemon.key, Park::Owner(signed)).await {
            Ok(Answer::Store(answer)) => Ok(*answer),
            Ok(_) => Err(OwnerError::Unexpected),
            Err(CallError::Refused { refusal, .. }) => Err(OwnerError::Refused(refusal)),
            Err(error) => Err(OwnerError::Unreachable(error)),
        }
    }

    /// Says goodbye.
    pub async fn leave(self) {
        self.network.shut_down().await;
    }
}
