//! The tree of behaviours, deniers first.
//!
//! A connection that one behaviour denies after another has made its handler loses state, so what may deny stands at the
//! top: block list, connection limits, memory limit.

use super::config::{Gossip, Mdns, NetworkConfig, StartError};
use super::frames::Frames;
use super::{address, bulk, dht, gossip, limits};
use libp2p::allow_block_list::{self, BlockedPeers};
use libp2p::identity::Keypair;
use libp2p::request_response::{self, ProtocolSupport};
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{StreamProtocol, identify, mdns, memory_connection_limits, ping};
use protocol::id::FarmId;
use protocol::wire::{Answer, CONTROL_TIMEOUT, Control, PARK_TIMEOUT, Park};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long an exchange of Raft may take; whoever sent it has given up long before.
const RAFT_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a connection on which nothing is said is tried. QUIC looks after itself, and TCP keeps its way through a router open
/// for minutes; more often would be most of what an idle node sends.
const PING_EVERY: Duration = Duration::from_secs(60);

/// How often a peer says what it is when nothing has changed; news is pushed at once.
const IDENTIFY_EVERY: Duration = Duration::from_secs(3_600);

/// Opaque bytes of `raft/1`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct RaftBytes(#[serde(with = "serde_bytes")] pub(super) Vec<u8>);

/// Calls of one protocol.
pub(super) type Calls<Q, A> = request_response::Behaviour<Frames<Q, A>>;

/// Everything this node does on a connection.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) blocked: allow_block_list::Behaviour<BlockedPeers>,
    pub(super) limits: limits::Behaviour,
    pub(super) memory_limit: memory_connection_limits::Behaviour,
    pub(super) identify: identify::Behaviour,
    pub(super) ping: ping::Behaviour,
    pub(super) kad: dht::Behaviour,
    pub(super) mdns: Toggle<mdns::tokio::Behaviour>,
    pub(super) gossip: Toggle<gossip::Behaviour>,
    pub(super) control: Calls<Control, Answer>,
    pub(super) park: Calls<Park, Answer>,
    pub(super) raft: Calls<RaftBytes, RaftBytes>,
    pub(super) bulk: bulk::Behaviour,
}

/// The name of one of the farm's protocols, like `/barnraise/<farm>/control/1`.
pub(super) fn protocol_name(farm: FarmId, name: &str) -> Result<StreamProtocol, StartError> {
    StreamProtocol::try_from_owned(format!("/barnraise/{farm}/{name}"))
        .map_err(|error| StartError::Setup(error.to_string()))
}

/// What identify says of the farm, so that strangers part before they begin.
pub(super) fn family(farm: FarmId) -> String {
    format!("/barnraise/{farm}/1")
}

/// What identify says of a peer that looks for farms and belongs to none.
pub(super) const SCOUT: &str = "/barnraise/scout/1";

/// The farm that [`family`] was written for.
pub(super) fn farm_of(family: &str) -> Option<FarmId> {
    family.strip_prefix("/barnraise/")?.strip_suffix("/1")?.parse().ok()
}

impl Behaviour {
    pub(super) fn new(config: &NetworkConfig, pair: &Keypair) -> Result<Self, StartError> {
        let limits = &config.limits;
        let calls = |name, timeout| -> Result<_, StartError> {
            let settings = request_response::Config::default()
                .with_request_timeout(timeout)
                .with_max_concurrent_streams(limits.calls_per_connection);
            Ok((protocol_name(config.farm, name)?, settings))
        };
        let (control, control_settings) = calls("control/1", CONTROL_TIMEOUT)?;
        let (park, park_settings) = calls("park/1", PARK_TIMEOUT)?;
        let (raft, raft_settings) = calls("raft/1", RAFT_TIMEOUT)?;
        Ok(Self {
            blocked: allow_block_list::Behaviour::default(),
            limits: limits::Behaviour::new(*limits),
            memory_limit: memory_connection_limits::Behaviour::with_max_bytes(limits.memory_bytes),
            identify: identify::Behaviour::new(
                identify::Config::new(family(config.farm), pair.public())
                    .with_agent_version(format!("barnraise/{}", config.hello.program))
                    .with_push_listen_addr_updates(true)
                    .with_interval(IDENTIFY_EVERY)
                    // Addresses are remembered by the address book and the DHT, filtered.
                    .with_cache_size(0),
            ),
            ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_EVERY)),
            kad: dht::behaviour(protocol_name(config.farm, "kad/1")?, pair.public().to_peer_id(), config.dht),
            mdns: discovery(config, pair).into(),
            gossip: match config.gossip {
                Gossip::On => Some(gossip::behaviour(config.farm)?),
                Gossip::Off => None,
            }
            .into(),
            control: Calls::with_codec(Frames::default(), [(control, ProtocolSupport::Full)], control_settings),
            park: Calls::with_codec(Frames::default(), [(park, ProtocolSupport::Full)], park_settings),
            raft: Calls::with_codec(Frames::default(), [(raft, ProtocolSupport::Full)], raft_settings),
            bulk: bulk::Behaviour::new(protocol_name(config.farm, "bulk/1")?, limits.bulk_per_peer),
        })
    }
}

/// mDNS, where it is wanted and anybody could hear it. A machine without multicast works without.
fn discovery(config: &NetworkConfig, pair: &Keypair) -> Option<mdns::tokio::Behaviour> {
    let heard = config.listen.iter().any(|text| address::parse(text).is_ok_and(|a| !address::is_loopback(&a)));
    if config.mdns == Mdns::Off || !heard {
        return None;
    }
    mdns::tokio::Behaviour::new(mdns::Config::default(), pair.public().to_peer_id())
        .inspect_err(|error| tracing::warn!(%error, "mDNS does not work here; the farm is found by ticket only"))
        .ok()
}
