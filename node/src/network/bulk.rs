//! `bulk/1`: streams of bytes between peers, as a behaviour of our own.
//!
//! A stream is opened on the connection that the driver names; one that a peer opened is handed out as it comes. Nothing is
//! ever dropped in silence: what cannot be handed out at once waits in the connection, whose multiplexer then stops taking
//! more, and what exceeds a peer's share is reset, which its opener sees. The behaviour never reads or writes a byte.
//!
//! Caps: [`Behaviour::new`] says how many streams one peer may hold open here; 128 may be in negotiation on a connection and
//! 1,024 open on it in all.

mod handler;
mod substream;

use handler::{Done, Handler};
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, StreamProtocol};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};
pub(super) use substream::Substream;
use tokio::sync::Semaphore;

/// Names a stream that is being opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct OpenId(u64);

/// What became of streams.
#[derive(Debug)]
pub(super) enum Event {
    /// The peer agreed to a stream that we opened.
    Opened {
        /// Which.
        id: OpenId,
        /// The stream.
        stream: Substream,
    },
    /// A stream that we wanted is not to be had on this connection.
    Failed {
        /// Which.
        id: OpenId,
        /// Why.
        reason: String,
    },
    /// A peer opened one.
    Inbound {
        /// Who.
        peer: PeerId,
        /// On which connection.
        connection: ConnectionId,
        /// The stream.
        stream: Substream,
    },
}

/// The behaviour.
#[derive(Debug)]
pub(super) struct Behaviour {
    protocol: StreamProtocol,
    per_peer: usize,
    events: VecDeque<ToSwarm<Event, OpenId>>,
    opening: HashMap<ConnectionId, Vec<OpenId>>,
    shares: HashMap<PeerId, Arc<Semaphore>>,
    next: u64,
}

impl Behaviour {
    /// Streams of `protocol`; one peer may hold `per_peer` of them open here.
    pub(super) fn new(protocol: StreamProtocol, per_peer: usize) -> Self {
        Self { protocol, per_peer, events: VecDeque::new(), opening: HashMap::new(), shares: HashMap::new(), next: 0 }
    }

    /// Opens a stream on this connection; exactly one [`Event::Opened`] or [`Event::Failed`] with this id follows.
    pub(super) fn open(&mut self, peer: PeerId, connection: ConnectionId) -> OpenId {
        let id = OpenId(self.next);
        self.next += 1;
        match self.opening.get_mut(&connection) {
            Some(opening) => {
                opening.push(id);
                let handler = NotifyHandler::One(connection);
                self.events.push_back(ToSwarm::NotifyHandler { peer_id: peer, handler, event: id });
            }
            None => self.fail(id, "the connection has closed".to_owned()),
        }
        id
    }

    fn fail(&mut self, id: OpenId, reason: String) {
        self.events.push_back(ToSwarm::GenerateEvent(Event::Failed { id, reason }));
    }

    fn settle(&mut self, connection: ConnectionId, id: OpenId) {
        if let Some(opening) = self.opening.get_mut(&connection) {
            opening.retain(|other| *other != id);
        }
    }

    fn take_in(&mut self, peer: PeerId, connection: ConnectionId, stream: libp2p::Stream) {
        let per_peer = self.per_peer;
        let share = self.shares.entry(peer).or_insert_with(|| Arc::new(Semaphore::new(per_peer)));
        match share.clone().try_acquire_owned() {
            Ok(place) => {
                let stream = Substream::counted(stream, place);
                self.events.push_back(ToSwarm::GenerateEvent(Event::Inbound { peer, connection, stream }));
            }
            Err(_) => tracing::warn!(%peer, per_peer, "a bulk stream beyond the peer's share was reset"),
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.opening.insert(connection, Vec::new());
        Ok(Handler::new(self.protocol.clone()))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.opening.insert(connection, Vec::new());
        Ok(Handler::new(self.protocol.clone()))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, remaining_established, .. }) => {
                for id in self.opening.remove(&connection_id).unwrap_or_default() {
                    self.fail(id, "the connection closed".to_owned());
                }
                if remaining_established == 0 {
                    self.shares.remove(&peer_id);
                }
            }
            // Another behaviour denied a connection for which a handler was already made.
            FromSwarm::DialFailure(failure) => {
                self.opening.remove(&failure.connection_id);
            }
            FromSwarm::ListenFailure(failure) => {
                self.opening.remove(&failure.connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {
            Done::Opened(id, stream) => {
                self.settle(connection, id);
                let stream = Substream::uncounted(stream);
                self.events.push_back(ToSwarm::GenerateEvent(Event::Opened { id, stream }));
            }
            Done::Failed(id, reason) => {
                self.settle(connection, id);
                self.fail(id, reason);
            }
            Done::Inbound(stream) => self.take_in(peer, connection, stream),
        }
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        // The driver polls the swarm after every call of ours, so no waker is kept.
        self.events.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}
