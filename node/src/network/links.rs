//! Connections as they come and go: dialling, redialling, closing, and peers that were discovered.

use super::address::Reach;
use super::driver::{Driver, reason};
use super::peers::{Carries, Lane, Link, Opener, Standing};
use super::{CallError, PeerChange, address, behaviour, dht, gossip, greeting, identity};
use libp2p::core::ConnectedPoint;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionError, ConnectionId, DialError};
use libp2p::{Multiaddr, PeerId, identify, mdns};
use protocol::id::PeerKey;
use protocol::ticket::MAX_ADDRESSES;
use protocol::wire::CONTROL_TIMEOUT;
use std::time::Duration;
use tokio::time::Instant;

/// Addresses of one message that are looked at.
const MAX_HEARD: usize = 64;

impl Driver {
    /// Dials a peer at every address known for it, here or to the DHT.
    pub(super) fn dial(&mut self, key: PeerKey) {
        let id = identity::peer_id(&key);
        let known = self.book.of(&key).to_vec();
        let options = DialOpts::peer_id(id)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .addresses(known)
            .extend_addresses_through_behaviour()
            .build();
        let connection = options.connection_id();
        let attempt = match self.swarm.dial(options) {
            Ok(()) => Some(connection),
            // Somebody else in this node is at it already.
            Err(DialError::DialPeerConditionFalse(_)) => None,
            Err(error) => return self.not_reached(key, &error),
        };
        self.peers.entry(key).standing = Standing::Dialing { attempt };
    }

    pub(super) fn on_connected(&mut self, id: PeerId, connection: ConnectionId, endpoint: &ConnectedPoint) {
        let Some(key) = identity::peer_key(&id) else { return self.disconnect(id) };
        let opener = if endpoint.is_dialer() { Opener::Us } else { Opener::Them };
        let address = address::without_peer(endpoint.get_remote_address().clone());
        tracing::debug!(peer = ?key, %address, ?opener, "connected");
        self.unreached.forget(&key);
        let peer = self.peers.entry(key);
        let hellos = greeting::hellos(Instant::now());
        peer.links.push(Link { id: connection, address, opener, carries: Carries::Streams, hellos });
        let is_lane = peer.is_dialling_lane(connection);
        if let Some(gossip) = self.swarm.behaviour_mut().gossip.as_mut() {
            gossip::welcome(gossip, &id);
        }
        self.records.on_reached(&id);
        match (&peer.standing, opener) {
            (Standing::Apart | Standing::Dialing { .. } | Standing::Greeting { asked: None, .. }, Opener::Us) => {
                self.ask_hello(key);
            }
            (Standing::Apart | Standing::Dialing { .. }, Opener::Them) => {
                peer.standing = Standing::Greeting { asked: None, until: Instant::now() + CONTROL_TIMEOUT };
            }
            _ => {}
        }
        if is_lane {
            self.on_lane_open(key, connection);
        }
    }

    pub(super) fn on_closed(
        &mut self,
        id: PeerId,
        connection: ConnectionId,
        remaining: u32,
        cause: Option<&ConnectionError>,
    ) {
        let Some(key) = identity::peer_key(&id) else { return };
        if remaining == 0 {
            self.block_stranger(id);
        }
        let Some(peer) = self.peers.get_mut(&key) else { return };
        tracing::debug!(peer = ?key, remaining, ?cause, "a connection closed");
        peer.links.retain(|link| link.id != connection);
        if matches!(peer.lane, Lane::Open(lane) if lane == connection) {
            peer.lane = Lane::None;
        }
        if remaining > 0 {
            return;
        }
        let now = Instant::now();
        let before = std::mem::replace(&mut peer.standing, Standing::Apart);
        peer.held.clear();
        peer.saying = None;
        let reason = cause.map_or_else(|| "the connection was closed".to_owned(), |cause| reason(cause));
        peer.fail_errands(&CallError::Broken { peer: key, reason });
        let mut lasted = Duration::ZERO;
        if let Standing::Greeted { since, .. } = before {
            lasted = now - since;
            // Nobody may be listening.
            drop(self.changes.send(PeerChange::Closed { peer: key }));
        }
        if let Some(redial) = &mut peer.redial {
            redial.lost(now, lasted);
        }
    }

    pub(super) fn on_dial_failed(&mut self, connection: ConnectionId, id: Option<PeerId>, error: &DialError) {
        if matches!(error, DialError::DialPeerConditionFalse(_)) {
            return;
        }
        let Some(id) = id else { return };
        let Some(key) = identity::peer_key(&id) else { return };
        if self.peers.get(&key).is_some_and(|peer| peer.is_dialling_lane(connection)) {
            tracing::debug!(peer = ?key, %error, "no lane");
            self.on_lane_failed(key);
            return;
        }
        self.on_vain_dial(&id, error);
        let Some(peer) = self.peers.get(&key) else { return };
        tracing::debug!(peer = ?key, %error, "a dial failed");
        match peer.standing {
            Standing::Dialing { attempt: Some(ours) } if ours == connection => self.not_reached(key, error),
            // Another's attempt failed at the addresses it knew; the book may know better ones.
            Standing::Dialing { attempt: None } => self.dial(key),
            _ => {}
        }
    }

    /// Tells the DHT of a dial that failed. Nobody answering tells something of the peer only while others are reached; somebody
    /// else who answers ended the dial before the peer's other places were tried.
    fn on_vain_dial(&mut self, id: &PeerId, error: &DialError) {
        let is_anybody_here = self.swarm.connected_peers().next().is_some();
        let is_here = self.swarm.is_connected(id);
        let kad = &mut self.swarm.behaviour_mut().kad;
        match error {
            DialError::WrongPeerId { address, .. } => self.records.on_elsewhere(kad, id, address),
            DialError::Transport(_) if is_anybody_here && !is_here => {
                self.records.on_vain_dial(kad, id, Instant::now())
            }
            _ => {}
        }
    }

    fn not_reached(&mut self, key: PeerKey, error: &DialError) {
        let reason = match error {
            DialError::NoAddresses => "no address of it is known".to_owned(),
            DialError::WrongPeerId { address, .. } => format!("somebody else listens at {address}"),
            DialError::Transport(tried) => {
                let tried: Vec<_> = tried
                    .iter()
                    .map(|(address, error)| format!("{}: {}", address::without_peer(address.clone()), reason(error)))
                    .collect();
                tried.join("; ")
            }
            other => reason(other),
        };
        if matches!(error, DialError::Transport(_) | DialError::WrongPeerId { .. }) {
            self.unreached.remember(key, reason.clone(), Instant::now());
        }
        let peer = self.peers.entry(key);
        peer.standing = Standing::Apart;
        peer.fail_errands(&CallError::Unreachable { peer: key, reason });
        if let Some(redial) = &mut peer.redial {
            redial.lost(Instant::now(), Duration::ZERO);
        }
    }

    /// Ends errands and greetings whose time is over.
    pub(super) fn expire_errands(&mut self, now: Instant) {
        let mut late = Vec::new();
        for (key, peer) in self.peers.iter_mut() {
            let waiting = std::mem::take(&mut peer.errands);
            for errand in waiting {
                if errand.until <= now {
                    errand.want.fail(CallError::Timeout(*key));
                } else {
                    peer.errands.push_back(errand);
                }
            }
            match peer.standing {
                Standing::Greeting { until, .. } | Standing::Leaving { until } if until <= now => late.push(peer.id),
                // The transport's own deadline is shorter: a dial without errands that is still reported as under way
                // was somebody else's and is over.
                Standing::Dialing { .. } if peer.errands.is_empty() && !self.swarm.is_connected(&peer.id) => {
                    if let Some(redial) = &mut peer.redial {
                        redial.look_again(now);
                    }
                }
                _ => {}
            }
        }
        for id in late {
            tracing::debug!(peer = %id, "disconnected: it did not say Hello in time, or was refused");
            self.hang_up(id);
        }
    }

    /// Dials those that are to be kept connected, when it is time.
    pub(super) fn redial(&mut self, now: Instant) {
        let due: Vec<PeerKey> = self
            .peers
            .iter_mut()
            .filter(|(_, peer)| peer.links.is_empty())
            .filter_map(|(key, peer)| peer.redial.as_mut().is_some_and(|redial| redial.is_due(now)).then_some(*key))
            .collect();
        due.into_iter().for_each(|key| self.dial(key));
    }

    pub(super) fn on_identify(&mut self, event: identify::Event) {
        let identify::Event::Received { peer_id, info, .. } = event else { return };
        if info.protocol_version == behaviour::SCOUT {
            // It only reads whose we are, and leaves.
            return;
        }
        let Some(key) = identity::peer_key(&peer_id) else { return };
        if info.protocol_version != behaviour::family(self.farm) {
            return self.on_stranger(key, peer_id);
        }
        let mut credible = self.all_credible(info.listen_addrs);
        let dialled = self.dialled(&key);
        let kad = &mut self.swarm.behaviour_mut().kad;
        if info.protocols.iter().any(|protocol| kad.protocol_names().contains(protocol)) {
            dht::place(kad, &peer_id, &credible, &dialled);
        }
        credible.truncate(MAX_ADDRESSES);
        self.heard_from(key, credible);
    }

    /// Where a peer answered us on connections that are open.
    fn dialled(&self, key: &PeerKey) -> Vec<Multiaddr> {
        self.peers.get(key).map(|peer| peer.dialled().cloned().collect()).unwrap_or_default()
    }

    /// Remembers where others said that a peer is.
    pub(super) fn learn(&mut self, key: PeerKey, addresses: Vec<Multiaddr>) {
        self.hope(key, &addresses);
        self.book.learn(key, addresses);
    }

    /// Remembers where a peer says that it is.
    pub(super) fn heard_from(&mut self, key: PeerKey, addresses: Vec<Multiaddr>) {
        self.hope(key, &addresses);
        let dialled = self.dialled(&key);
        self.book.heard_from(key, addresses, &dialled);
    }

    /// A place that was not known is a reason to dial a peer again.
    fn hope(&mut self, key: PeerKey, addresses: &[Multiaddr]) {
        let known = self.book.of(&key);
        if addresses.iter().any(|address| !known.contains(address)) {
            self.unreached.forget(&key);
        }
    }

    pub(super) fn on_mdns(&mut self, event: mdns::Event) {
        let mdns::Event::Discovered(found) = event else { return };
        for (id, address) in found.into_iter().take(MAX_HEARD) {
            let Some(key) = identity::peer_key(&id) else { continue };
            let credible = self.credible(vec![address]);
            if credible.is_empty() || key == self.local || self.strangers.is_avoided(&id) {
                continue;
            }
            self.learn(key, credible);
            if matches!(self.peers.entry(key).standing, Standing::Apart) {
                self.dial(key);
            }
        }
    }

    /// What of the addresses that a peer told us is worth remembering.
    pub(super) fn credible(&self, addresses: Vec<Multiaddr>) -> Vec<Multiaddr> {
        let mut credible = self.all_credible(addresses);
        credible.truncate(MAX_ADDRESSES);
        credible
    }

    /// The same, and no fewer than it told.
    fn all_credible(&self, addresses: Vec<Multiaddr>) -> Vec<Multiaddr> {
        let heard: Vec<_> = addresses.into_iter().take(MAX_HEARD).map(address::without_peer).collect();
        let within = |reach| {
            heard.iter().filter(move |address| address::is_credible(address, reach)).cloned().collect::<Vec<_>>()
        };
        let wide = within(Reach::Wide);
        // Whoever is to be found elsewhere is not looked for on this machine.
        if wide.is_empty() { within(self.reach()) } else { wide }
    }
}
