//! Which connection a bulk stream takes.
//!
//! Streams do not run in parallel on one connection, connections do, and TCP carries about twice what QUIC does. So bulk
//! prefers a TCP connection beside the first, opened by whichever side can dial the other. Where there is none to be had
//! within a second, the best connection there is carries it. Calls use all connections of a peer in turn, for the library
//! chooses; gossip and the DHT stay on the first.

use super::config::Transports;
use super::driver::Driver;
use super::peers::{Arrival, BulkReply, Carries, Lane, MAX_ERRANDS, Opener, Peer};
use super::{BulkStream, CallError, address, bulk, identity};
use libp2p::Multiaddr;
use libp2p::swarm::ConnectionId;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use protocol::id::PeerKey;
use protocol::wire::Refusal;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// How long streams wait for a lane before they take what there is.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a peer that could not be dialled is not dialled for a lane again.
const AGAIN: Duration = Duration::from_secs(60);
/// How long a stream may take to be agreed on; the handler gives up after 10 s.
const OPEN_TIMEOUT: Duration = Duration::from_secs(12);

/// Streams being opened.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    opening: HashMap<bulk::OpenId, (PeerKey, Instant, BulkReply)>,
}

impl Lanes {
    /// Ends what has waited too long.
    fn expire(&mut self, now: Instant) {
        let late: Vec<_> = self.opening.iter().filter(|(_, (_, until, _))| *until <= now).map(|(id, _)| *id).collect();
        for id in late {
            if let Some((peer, _, reply)) = self.opening.remove(&id) {
                // Whoever dropped the receiver waits no more.
                drop(reply.send(Err(CallError::Timeout(peer))));
            }
        }
    }
}

impl Driver {
    /// Opens a stream to a greeted peer.
    pub(super) fn open_bulk(&mut self, key: PeerKey, reply: BulkReply) {
        let now = Instant::now();
        let Some(peer) = self.peers.get_mut(&key) else { return };
        match &mut peer.lane {
            Lane::Open(connection) => {
                let connection = *connection;
                self.open_on(key, connection, reply);
            }
            Lane::Dialing { since, waiting, .. } if now - *since < PATIENCE => {
                if waiting.len() < MAX_ERRANDS {
                    waiting.push(reply);
                } else {
                    // Whoever dropped the receiver waits no more.
                    drop(reply.send(Err(CallError::Refused { peer: key, refusal: Refusal::Busy })));
                }
            }
            _ => match self.dial_lane(key, now) {
                Some(lane) => {
                    let Some(peer) = self.peers.get_mut(&key) else { return };
                    peer.lane = Lane::Dialing { connection: lane, since: now, waiting: vec![reply] };
                }
                None => self.open_anywhere(key, reply),
            },
        }
    }

    /// Dials the peer by TCP for a lane, unless there is one already or it is of no use.
    fn dial_lane(&mut self, key: PeerKey, now: Instant) -> Option<ConnectionId> {
        let peer = self.peers.get(&key)?;
        let wanted = match peer.lane {
            Lane::None => dedicated(peer).is_none(),
            Lane::Unreachable(until) => until <= now && dedicated(peer).is_none(),
            Lane::Open(_) | Lane::Dialing { .. } => false,
        };
        let addresses = self.tcp_addresses(key, peer);
        if !wanted || matches!(self.transports, Transports::Quic | Transports::Memory) || addresses.is_empty() {
            return None;
        }
        let options = DialOpts::peer_id(peer.id)
            .condition(PeerCondition::Always)
            .addresses(addresses)
            // The port that is listened on is taken by the first connection to the same place.
            .allocate_new_port()
            .build();
        let connection = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => Some(connection),
            Err(error) => {
                tracing::debug!(peer = ?key, %error, "no lane for bulk");
                self.peers.get_mut(&key)?.lane = Lane::Unreachable(now + AGAIN);
                None
            }
        }
    }

    /// Where the peer can be dialled by TCP: where we reached it, then where it says it is.
    fn tcp_addresses(&self, key: PeerKey, peer: &Peer) -> Vec<Multiaddr> {
        let mut addresses: Vec<Multiaddr> = Vec::new();
        for address in peer.dialled().chain(self.book.of(&key)) {
            if address::is_tcp(address) && !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
        addresses
    }

    pub(super) fn on_lane_open(&mut self, key: PeerKey, connection: ConnectionId) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if let Lane::Dialing { waiting, .. } = std::mem::replace(&mut peer.lane, Lane::Open(connection)) {
            for reply in waiting {
                self.open_on(key, connection, reply);
            }
        }
    }

    pub(super) fn on_lane_failed(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let unreachable = Lane::Unreachable(Instant::now() + AGAIN);
        if let Lane::Dialing { waiting, .. } = std::mem::replace(&mut peer.lane, unreachable) {
            for reply in waiting {
                self.open_anywhere(key, reply);
            }
        }
    }

    /// Ends what has waited too long; streams whose lane takes its time go another way.
    pub(super) fn expire_lanes(&mut self, now: Instant) {
        self.lanes.expire(now);
        let mut impatient = Vec::new();
        for (key, peer) in self.peers.iter_mut() {
            if let Lane::Dialing { since, waiting, .. } = &mut peer.lane
                && now - *since >= PATIENCE
            {
                impatient.extend(waiting.drain(..).map(|reply| (*key, reply)));
            }
        }
        for (key, reply) in impatient {
            self.open_anywhere(key, reply);
        }
    }

    /// Opens a stream on the best connection there is.
    fn open_anywhere(&mut self, key: PeerKey, reply: BulkReply) {
        match self.peers.get(&key).and_then(best) {
            Some(connection) => self.open_on(key, connection, reply),
            None => {
                let reason = "the connection closed".to_owned();
                drop(reply.send(Err(CallError::Broken { peer: key, reason })));
            }
        }
    }

    fn open_on(&mut self, key: PeerKey, connection: ConnectionId, reply: BulkReply) {
        let id = self.swarm.behaviour_mut().bulk.open(identity::peer_id(&key), connection);
        self.lanes.opening.insert(id, (key, Instant::now() + OPEN_TIMEOUT, reply));
    }

    pub(super) fn on_bulk(&mut self, event: bulk::Event) {
        match event {
            bulk::Event::Opened { id, stream } => {
                if let Some((_, _, reply)) = self.lanes.opening.remove(&id) {
                    drop(reply.send(Ok(Box::new(stream) as BulkStream)));
                }
            }
            bulk::Event::Failed { id, reason } => {
                if let Some((peer, _, reply)) = self.lanes.opening.remove(&id) {
                    drop(reply.send(Err(CallError::Broken { peer, reason })));
                }
            }
            bulk::Event::Inbound { peer, connection, stream } => {
                let Some(key) = identity::peer_key(&peer) else { return };
                self.arrive(key, Arrival::Bulk(stream));
                self.offer_lane(key, connection);
            }
        }
    }

    /// A stream on a connection that we dialled and that is not a lane means that the peer cannot dial us: open a lane for
    /// the streams to come.
    fn offer_lane(&mut self, key: PeerKey, connection: ConnectionId) {
        let Some(peer) = self.peers.get(&key) else { return };
        let ours = peer.links.iter().any(|link| link.id == connection && link.opener == Opener::Us);
        if !ours || matches!(peer.lane, Lane::Open(_) | Lane::Dialing { .. }) {
            return;
        }
        let now = Instant::now();
        if let Some(lane) = self.dial_lane(key, now)
            && let Some(peer) = self.peers.get_mut(&key)
        {
            peer.lane = Lane::Dialing { connection: lane, since: now, waiting: Vec::new() };
        }
    }
}

/// A TCP connection beside the one that carries the calls.
fn dedicated(peer: &Peer) -> Option<ConnectionId> {
    let beside = peer.latest_process().iter().skip(1);
    beside
        .filter(|link| link.carries == Carries::Streams)
        .find(|link| address::is_tcp(&link.address))
        .map(|link| link.id)
}

/// The best connection that there is: a dedicated one, or that of the calls.
fn best(peer: &Peer) -> Option<ConnectionId> {
    dedicated(peer).or_else(|| peer.latest_process().first().map(|link| link.id))
}
