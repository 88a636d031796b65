//! Which farms are on the local network, for somebody who belongs to none of them yet.
//!
//! mDNS names peers and where they listen, and never says whose they are; what they say over identify does. A scout has a
//! key of its own for the occasion, listens on nothing, asks nothing else and is taken for no member of any farm. What it
//! brings back is what peers claim: only the farm's charter proves it.

use super::config::{StartError, Transports};
use super::{address, behaviour, identity, transport};
use futures::StreamExt as _;
use libp2p::identity::Keypair;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{self, NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{Multiaddr, PeerId, identify, mdns};
use protocol::id::FarmId;
use protocol::ticket::{Contact, MAX_ADDRESSES, MAX_PEERS};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;
use tokio::time::Instant;

/// How long to wait for the first peer.
const FIRST_WITHIN: Duration = Duration::from_secs(5);
/// How long to wait for another one after the last that said something new.
const SETTLE: Duration = Duration::from_millis(1_500);
/// How long it may take in all, however many there are.
const WITHIN: Duration = Duration::from_secs(10);
/// Peers that are asked, and addresses of each.
const MAX_ASKED: usize = 64;
/// Farms that are told of.
const MAX_FARMS: usize = 16;

#[derive(NetworkBehaviour)]
struct Behaviour {
    mdns: mdns::tokio::Behaviour,
    identify: identify::Behaviour,
}

/// The farms that peers on the local network say they belong to, and up to three of these peers each.
///
/// # Errors
///
/// [`StartError`] when this machine has no multicast or no sockets.
pub async fn look_around(transports: Transports) -> Result<BTreeMap<FarmId, Vec<Contact>>, StartError> {
    let mut scout = Scout::new(transports)?;
    let latest = Instant::now() + WITHIN;
    let mut until = Instant::now() + FIRST_WITHIN;
    while let Ok(event) = tokio::time::timeout_at(until, scout.swarm.select_next_some()).await {
        if scout.take_in(event) == Heard::News {
            until = latest.min(Instant::now() + SETTLE);
        }
    }
    Ok(scout.farms)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    News,
    Nothing,
}

/// A peer that was heard.
#[derive(Debug, Default)]
struct Met {
    /// Where it was heard, and so can be dialled from here.
    addresses: Vec<Multiaddr>,
    /// How many of these were dialled already.
    dialled: usize,
}

struct Scout {
    swarm: Swarm<Behaviour>,
    met: HashMap<PeerId, Met>,
    farms: BTreeMap<FarmId, Vec<Contact>>,
}

impl Scout {
    fn new(transports: Transports) -> Result<Self, StartError> {
        let pair = Keypair::generate_ed25519();
        let local = pair.public().to_peer_id();
        let behaviour = Behaviour {
            mdns: mdns::tokio::Behaviour::new(mdns::Config::default(), local)
                .map_err(|error| StartError::Setup(format!("mDNS does not work here: {error}")))?,
            identify: identify::Behaviour::new(identify::Config::new(behaviour::SCOUT.to_owned(), pair.public())),
        };
        let settings = swarm::Config::with_tokio_executor().with_idle_connection_timeout(SETTLE);
        let swarm = Swarm::new(transport::build(&pair, transports)?, behaviour, local, settings);
        Ok(Self { swarm, met: HashMap::new(), farms: BTreeMap::new() })
    }

    fn take_in(&mut self, event: SwarmEvent<BehaviourEvent>) -> Heard {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Mdns(mdns::Event::Discovered(found))) => {
                let new: HashSet<PeerId> =
                    found.into_iter().filter_map(|(peer, address)| self.meet(peer, address)).collect();
                new.iter().for_each(|peer| self.dial(*peer));
                if new.is_empty() { Heard::Nothing } else { Heard::News }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. })) => {
                self.note(peer_id, &info)
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, .. } => {
                tracing::debug!(%peer, %error, "a peer that was heard cannot be reached");
                self.dial(peer);
                Heard::Nothing
            }
            _ => Heard::Nothing,
        }
    }

    /// A peer was heard; answers with its name when it was not known to be at this address.
    fn meet(&mut self, peer: PeerId, address: Multiaddr) -> Option<PeerId> {
        let address = address::without_peer(address);
        let has_room = self.met.len() < MAX_ASKED || self.met.contains_key(&peer);
        if !address::is_credible(&address, address::Reach::Wide) || !has_room {
            return None;
        }
        let known = &mut self.met.entry(peer).or_default().addresses;
        if known.len() >= MAX_ADDRESSES || known.contains(&address) {
            return None;
        }
        known.push(address);
        Some(peer)
    }

    /// Dials a peer where it was not dialled yet, unless that is under way or done.
    fn dial(&mut self, peer: PeerId) {
        let Some(met) = self.met.get_mut(&peer) else { return };
        let new = met.addresses[met.dialled..].to_vec();
        if new.is_empty() {
            return;
        }
        match self.swarm.dial(DialOpts::peer_id(peer).addresses(new).build()) {
            Ok(()) => met.dialled = met.addresses.len(),
            // Tried again if what is under way fails.
            Err(error) => tracing::debug!(%peer, %error, "not dialled"),
        }
    }

    /// A peer said whose it is.
    fn note(&mut self, peer: PeerId, info: &identify::Info) -> Heard {
        let (Some(key), Some(farm)) = (identity::peer_key(&peer), behaviour::farm_of(&info.protocol_version)) else {
            return Heard::Nothing;
        };
        if !self.farms.contains_key(&farm) && self.farms.len() >= MAX_FARMS {
            return Heard::Nothing;
        }
        let contacts = self.farms.entry(farm).or_default();
        if contacts.len() >= MAX_PEERS || contacts.iter().any(|contact| contact.key == key) {
            return Heard::Nothing;
        }
        let addresses =
            self.met.get(&peer).into_iter().flat_map(|met| &met.addresses).map(Multiaddr::to_string).collect();
        contacts.push(Contact { key, addresses });
        Heard::News
    }
}
