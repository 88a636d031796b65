//! What the network knows of each peer: its connections, whether it was greeted, and what waits for it.

use super::behaviour::RaftBytes;
use super::bulk::Substream;
use super::gossip::bucket::Bucket;
use super::redial::Redial;
use super::{BulkStream, CallError, identity};
use libp2p::request_response::{InboundRequestId, OutboundRequestId, ResponseChannel};
use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};
use protocol::id::PeerKey;
use protocol::wire::{Answer, Control, Hello, Park};
use std::collections::{HashMap, VecDeque};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Errands that may wait for one peer.
pub(super) const MAX_ERRANDS: usize = 256;
/// Arrivals that may wait until the greeting that is under way is over.
pub(super) const MAX_HELD: usize = 64;

/// Everything known of one peer.
#[derive(Debug)]
pub(super) struct Peer {
    /// libp2p's name for it.
    pub(super) id: PeerId,
    /// Open connections, oldest first.
    pub(super) links: Vec<Link>,
    /// How we stand with it.
    pub(super) standing: Standing,
    /// What is to be done once it is greeted, at most [`MAX_ERRANDS`].
    pub(super) errands: VecDeque<Errand>,
    /// What came from it while the greeting was under way, at most [`MAX_HELD`].
    pub(super) held: Vec<Arrival>,
    /// Its dedicated connection for bulk.
    pub(super) lane: Lane,
    /// The `Hello` that was said again and not yet answered.
    pub(super) saying: Option<OutboundRequestId>,
    /// Set while the peer is to be kept connected.
    pub(super) redial: Option<Redial>,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: ConnectionId,
    /// The other end.
    pub(super) address: Multiaddr,
    /// Who dialled.
    pub(super) opener: Opener,
    /// Whether `Hello` was exchanged on it.
    pub(super) carries: Carries,
    /// How often the peer may say `Hello` on it.
    pub(super) hellos: Bucket,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carries {
    /// `Hello` was exchanged on it: a process of the peer began with it.
    Calls,
    /// Not a word of greeting yet: a lane for bulk, or a process that is about to greet.
    Streams,
}

/// Who dialled a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opener {
    /// This node: the address leads to the peer again.
    Us,
    /// The peer: its address may lead nowhere.
    Them,
}

/// How we stand with a peer.
#[derive(Debug)]
pub(super) enum Standing {
    /// Not connected.
    Apart,
    /// A connection is being set up.
    Dialing {
        /// Our own attempt; `None` while the DHT or gossip tries by themselves.
        attempt: Option<ConnectionId>,
    },
    /// Connected; `Hello` is under way.
    Greeting {
        /// Our own `Hello`, if we said it first.
        asked: Option<OutboundRequestId>,
        /// When patience ends.
        until: Instant,
    },
    /// `Hello` was exchanged.
    Greeted {
        /// What it said last.
        hello: Box<Hello>,
        /// Since when.
        since: Instant,
    },
    /// It was refused; the connection closes when it has heard so, or at this time.
    Leaving {
        /// When patience ends.
        until: Instant,
    },
}

/// The dedicated connection for bulk.
#[derive(Debug, Default)]
pub(super) enum Lane {
    /// Never tried, or closed.
    #[default]
    None,
    /// Being dialled; these wait for it.
    Dialing {
        /// The attempt.
        connection: ConnectionId,
        /// Since when.
        since: Instant,
        /// Who waits.
        waiting: Vec<BulkReply>,
    },
    /// Open.
    Open(ConnectionId),
    /// The peer could not be dialled by TCP; not tried again before this time.
    Unreachable(Instant),
}

/// Somebody who wants something of a peer.
#[derive(Debug)]
pub(super) struct Errand {
    /// When nobody waits any more.
    pub(super) until: Instant,
    /// What is wanted.
    pub(super) want: Want,
}

/// Where the answer to a call goes.
pub(super) type AnswerReply = oneshot::Sender<Result<Answer, CallError>>;
/// Where a stream goes.
pub(super) type BulkReply = oneshot::Sender<Result<BulkStream, CallError>>;

/// What is wanted of a peer.
#[derive(Debug)]
pub(super) enum Want {
    Call(Box<Control>, AnswerReply),
    Park(Box<Park>, AnswerReply),
    Raft(Vec<u8>, oneshot::Sender<Result<Vec<u8>, CallError>>),
    Bulk(BulkReply),
    /// Only that it is connected and greeted.
    Meet(oneshot::Sender<Result<(), CallError>>),
}

/// What a peer wants of us.
#[derive(Debug)]
pub(super) enum Arrival {
    Control(InboundRequestId, Control, ResponseChannel<Answer>),
    Park(InboundRequestId, Park, ResponseChannel<Answer>),
    Raft(InboundRequestId, RaftBytes, ResponseChannel<RaftBytes>),
    Bulk(Substream),
}

impl Want {
    /// Tells whoever waits that it failed.
    pub(super) fn fail(self, error: CallError) {
        // Whoever dropped the receiver waits no more; that is no failure of ours.
        match self {
            Self::Call(_, reply) | Self::Park(_, reply) => drop(reply.send(Err(error))),
            Self::Raft(_, reply) => drop(reply.send(Err(error))),
            Self::Bulk(reply) => drop(reply.send(Err(error))),
            Self::Meet(reply) => drop(reply.send(Err(error))),
        }
    }
}

impl Peer {
    fn new(key: &PeerKey) -> Self {
        Self {
            id: identity::peer_id(key),
            links: Vec::new(),
            standing: Standing::Apart,
            errands: VecDeque::new(),
            held: Vec::new(),
            lane: Lane::None,
            saying: None,
            redial: None,
        }
    }

    /// Whether `Hello` was exchanged on a connection that is still open.
    pub(super) fn is_greeted(&self) -> bool {
        matches!(self.standing, Standing::Greeted { .. })
    }

    /// The connection of this name.
    pub(super) fn link_mut(&mut self, id: ConnectionId) -> Option<&mut Link> {
        self.links.iter_mut().find(|link| link.id == id)
    }

    /// Where the peer answered us on connections that are open.
    pub(super) fn dialled(&self) -> impl Iterator<Item = &Multiaddr> {
        self.links.iter().filter(|link| link.opener == Opener::Us).map(|link| &link.address)
    }

    /// Whether this connection is the lane that is being dialled.
    pub(super) fn is_dialling_lane(&self, id: ConnectionId) -> bool {
        matches!(self.lane, Lane::Dialing { connection, .. } if connection == id)
    }

    /// The connection with which the peer greeted last, and those opened since. Connections of an earlier process may still
    /// stand here (it was killed, and started again under its key): whoever is called back is the one that spoke last.
    pub(super) fn latest_process(&self) -> &[Link] {
        let begin = self.links.iter().rposition(|link| link.carries == Carries::Calls).unwrap_or_default();
        &self.links[begin..]
    }

    /// Tells everybody who waits for this peer that it failed.
    pub(super) fn fail_errands(&mut self, error: &CallError) {
        for errand in self.errands.drain(..) {
            errand.want.fail(error.clone());
        }
    }

    /// Whether there is nothing left to remember.
    fn is_idle(&self) -> bool {
        matches!(self.standing, Standing::Apart)
            && !matches!(self.lane, Lane::Dialing { .. })
            && self.links.is_empty()
            && self.errands.is_empty()
            && self.redial.is_none()
    }
}

/// All peers that are connected, wanted or to be kept. Connection limits and local callers bound their number.
#[derive(Debug, Default)]
pub(super) struct Peers(HashMap<PeerKey, Peer>);

impl Peers {
    /// The peer, made when it is not known yet.
    pub(super) fn entry(&mut self, key: PeerKey) -> &mut Peer {
        self.0.entry(key).or_insert_with(|| Peer::new(&key))
    }

    /// The peer, if known.
    pub(super) fn get(&self, key: &PeerKey) -> Option<&Peer> {
        self.0.get(key)
    }

    /// The peer, if known.
    pub(super) fn get_mut(&mut self, key: &PeerKey) -> Option<&mut Peer> {
        self.0.get_mut(key)
    }

    /// All of them.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&PeerKey, &mut Peer)> {
        self.0.iter_mut()
    }

    /// Those that were greeted.
    pub(super) fn greeted(&self) -> impl Iterator<Item = (PeerKey, &Hello)> {
        self.0.iter().filter_map(|(key, peer)| match &peer.standing {
            Standing::Greeted { hello, .. } => Some((*key, &**hello)),
            _ => None,
        })
    }

    /// Forgets peers of which nothing is left.
    pub(super) fn forget_idle(&mut self) {
        self.0.retain(|_, peer| !peer.is_idle());
    }
}
