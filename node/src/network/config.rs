//! What the network is told once, when it starts.

use super::address::AddressError;
use protocol::id::{FarmId, PeerKey};
use protocol::signed::SecretKey;
use protocol::ticket::Contact;
use protocol::wire::Hello;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::watch;

/// Everything the network needs to know.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// Who this peer is.
    pub secret: SecretKey,
    /// The farm it belongs to; peers of other farms are strangers.
    pub farm: FarmId,
    /// Multiaddrs to listen on; port 0 lets the system choose. Empty for a command.
    pub listen: Vec<String>,
    /// Public multiaddrs under which it is known to be reachable.
    pub external: Vec<String>,
    /// Whether to look for the farm on the local network. Never done when every address listened on is loopback.
    pub mdns: Mdns,
    /// Whether it holds records of the DHT. Below 20 servers every dialable node is one.
    pub dht: Dht,
    /// Whether it takes part in gossip.
    pub gossip: Gossip,
    /// Which transports it uses.
    pub transports: Transports,
    /// What it says of itself. The network fills in clock and addresses each time it is said.
    pub hello: Hello,
    /// How much it lets others ask of it.
    pub limits: Limits,
    /// How long a connection without streams is kept.
    pub idle: Duration,
    /// Peers known before.
    pub address_book: Vec<Contact>,
    /// Who may use `raft/1`; may change while the network runs.
    pub coordinators: watch::Receiver<BTreeSet<PeerKey>>,
}

impl NetworkConfig {
    /// A daemon: listens on every interface, serves the DHT, gossips, keeps idle connections for ten minutes.
    #[must_use]
    pub fn daemon(secret: SecretKey, farm: FarmId, hello: Hello) -> Self {
        Self {
            listen: Transports::Both.listen_at("0.0.0.0"),
            mdns: Mdns::On,
            dht: Dht::Server,
            gossip: Gossip::On,
            idle: Duration::from_secs(600),
            ..Self::command(secret, farm, hello)
        }
    }

    /// A command: listens on nothing, asks, and leaves.
    #[must_use]
    pub fn command(secret: SecretKey, farm: FarmId, hello: Hello) -> Self {
        Self {
            secret,
            farm,
            listen: Vec::new(),
            external: Vec::new(),
            mdns: Mdns::Off,
            dht: Dht::Client,
            gossip: Gossip::Off,
            transports: Transports::Both,
            hello,
            limits: Limits::VOLUNTEER,
            idle: Duration::from_secs(120),
            address_book: Vec::new(),
            coordinators: watch::channel(BTreeSet::new()).1,
        }
    }
}

/// Whether to look for the farm on the local network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mdns {
    /// Announce and listen.
    On,
    /// Neither.
    Off,
}

/// The part a peer plays in the DHT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dht {
    /// Holds records and answers.
    Server,
    /// Only asks.
    Client,
}

/// Whether to take part in gossip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gossip {
    /// Listen, forward and whisper.
    On,
    /// None of it.
    Off,
}

/// Which transports to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transports {
    /// TCP and QUIC.
    Both,
    /// TCP alone.
    Tcp,
    /// QUIC alone.
    Quic,
    /// Pipes within this process, secured as TCP is: many nodes in one test. No flag chooses it.
    Memory,
}

impl Transports {
    /// Multiaddrs of all these transports at an IPv4 address, on ports that the system chooses; within this process there are
    /// no addresses but ports.
    #[must_use]
    pub fn listen_at(self, ip: &str) -> Vec<String> {
        let (tcp, quic) = (format!("/ip4/{ip}/tcp/0"), format!("/ip4/{ip}/udp/0/quic-v1"));
        match self {
            Self::Both => vec![tcp, quic],
            Self::Tcp => vec![tcp],
            Self::Quic => vec![quic],
            Self::Memory => vec!["/memory/0".to_owned()],
        }
    }
}

/// How much others may ask of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections being set up by others.
    pub pending_inbound: u32,
    /// Connections being set up by us.
    pub pending_outbound: u32,
    /// Connections opened by others.
    pub inbound: u32,
    /// Connections opened by us.
    pub outbound: u32,
    /// Connections in all.
    pub connections: u32,
    /// Connections with one peer.
    pub connections_per_peer: u32,
    /// Memory of this process above which no new connection is taken.
    pub memory_bytes: usize,
    /// Calls of one protocol in flight on one connection, both directions together.
    pub calls_per_connection: usize,
    /// Streams of `bulk/1` that one peer may hold open here.
    pub bulk_per_peer: usize,
}

impl Limits {
    /// For volunteers and commands.
    pub const VOLUNTEER: Self = Self {
        pending_inbound: 16,
        pending_outbound: 32,
        inbound: 128,
        outbound: 64,
        connections: 192,
        connections_per_peer: 6,
        memory_bytes: 2 << 30,
        calls_per_connection: 64,
        bulk_per_peer: 256,
    };

    /// For coordinators.
    pub const COORDINATOR: Self = Self {
        pending_inbound: 128,
        pending_outbound: 256,
        inbound: 10_000,
        outbound: 256,
        connections: 12_000,
        ..Self::VOLUNTEER
    };
}

/// Why the network does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A configured address cannot be read.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// Where.
        address: String,
        /// Why not.
        reason: String,
    },
    /// A transport or behaviour refuses its settings.
    #[error("the network cannot be set up: {0}")]
    Setup(String),
}
