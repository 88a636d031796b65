//! Real drivers on loopback. Every wait has a deadline; none is a sleep.
#![allow(clippy::unwrap_used)]

mod bulk;
mod calls;
mod connections;
mod dht;
mod discovery;
mod gossip;

use super::config::{Mdns, NetworkConfig, Transports};
use super::{Inbox, Keep, Network, PeerChange, start};
use protocol::digest::Digest;
use protocol::id::{FarmId, PeerKey};
use protocol::signed::SecretKey;
use protocol::ticket::Contact;
use protocol::time::Timestamp;
use protocol::wire::{Hello, PROTOCOL_VERSION};
use std::time::Duration;
use tokio::sync::broadcast;

/// Enough for anything that works on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// One node under test.
struct Node {
    network: Network,
    inbox: Inbox,
}

fn farm() -> FarmId {
    FarmId(Digest::of(b"farm"))
}

fn secret(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn hello() -> Hello {
    Hello {
        program: "test".to_owned(),
        protocol: PROTOCOL_VERSION,
        charter: None,
        clock: Timestamp::EPOCH,
        capability: None,
        addresses: vec![],
    }
}

/// A daemon on loopback, on ports of the system's choice.
fn config(seed: u8, transports: Transports) -> NetworkConfig {
    let listen: &[&str] = match transports {
        Transports::Both => &["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"],
        Transports::Tcp => &["/ip4/127.0.0.1/tcp/0"],
        Transports::Quic => &["/ip4/127.0.0.1/udp/0/quic-v1"],
        Transports::Memory => &["/memory/0"],
    };
    NetworkConfig {
        listen: listen.iter().map(ToString::to_string).collect(),
        mdns: Mdns::Off,
        transports,
        ..NetworkConfig::daemon(secret(seed), farm(), hello())
    }
}

/// A command: it dials and is not dialled.
fn command(seed: u8) -> NetworkConfig {
    NetworkConfig::command(secret(seed), farm(), hello())
}

impl Node {
    fn start(config: NetworkConfig) -> Self {
        let (network, inbox) = start(config).unwrap();
        Self { network, inbox }
    }

    fn daemon(seed: u8) -> Self {
        Self::start(config(seed, Transports::Tcp))
    }

    fn key(&self) -> PeerKey {
        self.network.local()
    }

    async fn contact(&self) -> Contact {
        let addresses = soon(self.network.addresses()).await.unwrap();
        Contact { key: self.key(), addresses }
    }

    async fn meet(&self, other: &Node) {
        self.network.connect(other.contact().await, Keep::Once, PATIENCE).await.unwrap();
    }
}

/// What comes within [`PATIENCE`].
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it should have come long ago")
}

/// The next change that `wanted` accepts.
async fn change(changes: &mut broadcast::Receiver<PeerChange>, wanted: impl Fn(&PeerChange) -> bool) -> PeerChange {
    soon(async {
        loop {
            let change = changes.recv().await.unwrap();
            if wanted(&change) {
                return change;
            }
        }
    })
    .await
}
