//! How many connections this node holds: being set up, opened by either side, with one peer and in all.
//!
//! The library's behaviour for this keeps an entry of every peer that was ever connected, and each command is a peer of its own.
//! Here nothing is kept of a peer once its last connection has closed. Memory has a limit of its own.

use super::config::Limits;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    ConnectionClosed, ConnectionDenied, ConnectionId, DialFailure, FromSwarm, ListenFailure, NetworkBehaviour,
    THandler, THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};
use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::task::{Context, Poll};

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum TooMany {
    /// Others have begun too many.
    #[error("others are setting up as many connections as may be")]
    PendingInbound,
    /// We have begun too many.
    #[error("as many connections as may be are being set up here")]
    PendingOutbound,
    /// Others have opened too many.
    #[error("others have opened as many connections as may be")]
    Inbound,
    /// We have opened too many.
    #[error("as many connections as may be were opened here")]
    Outbound,
    /// The peer has too many.
    #[error("this peer has as many connections as it may")]
    OfPeer,
    /// There are too many.
    #[error("there are as many connections as may be")]
    InAll,
}

/// The behaviour.
#[derive(Debug)]
pub(super) struct Behaviour {
    limits: Limits,
    pending_inbound: HashSet<ConnectionId>,
    pending_outbound: HashSet<ConnectionId>,
    inbound: u32,
    outbound: u32,
    /// Those who have any.
    of_peer: HashMap<PeerId, u32>,
}

impl Behaviour {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            pending_inbound: HashSet::new(),
            pending_outbound: HashSet::new(),
            inbound: 0,
            outbound: 0,
            of_peer: HashMap::new(),
        }
    }

    fn check(&self, peer: &PeerId, by: Endpoint) -> Result<(), TooMany> {
        match by {
            Endpoint::Listener if self.inbound >= self.limits.inbound => Err(TooMany::Inbound),
            Endpoint::Dialer if self.outbound >= self.limits.outbound => Err(TooMany::Outbound),
            _ if self.of_peer.get(peer).is_some_and(|count| *count >= self.limits.connections_per_peer) => {
                Err(TooMany::OfPeer)
            }
            _ if self.inbound + self.outbound >= self.limits.connections => Err(TooMany::InAll),
            _ => Ok(()),
        }
    }

    fn opened(&mut self, peer: PeerId, by: Endpoint) {
        *self.count(by) += 1;
        *self.of_peer.entry(peer).or_default() += 1;
    }

    fn closed(&mut self, peer: PeerId, by: Endpoint) {
        *self.count(by) -= 1;
        if let Some(count) = self.of_peer.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                self.of_peer.remove(&peer);
            }
        }
    }

    fn count(&mut self, by: Endpoint) -> &mut u32 {
        match by {
            Endpoint::Listener => &mut self.inbound,
            Endpoint::Dialer => &mut self.outbound,
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        if self.pending_inbound.len() >= self.limits.pending_inbound as usize {
            return Err(ConnectionDenied::new(TooMany::PendingInbound));
        }
        self.pending_inbound.insert(id);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.pending_inbound.remove(&id);
        self.check(&peer, Endpoint::Listener).map_err(ConnectionDenied::new)?;
        Ok(dummy::ConnectionHandler)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        _: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        if self.pending_outbound.len() >= self.limits.pending_outbound as usize {
            return Err(ConnectionDenied::new(TooMany::PendingOutbound));
        }
        self.pending_outbound.insert(id);
        Ok(Vec::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.pending_outbound.remove(&id);
        self.check(&peer, Endpoint::Dialer).map_err(ConnectionDenied::new)?;
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(new) => self.opened(new.peer_id, new.endpoint.to_endpoint()),
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, endpoint, .. }) => {
                self.closed(peer_id, endpoint.to_endpoint());
            }
            FromSwarm::DialFailure(DialFailure { connection_id, .. }) => {
                self.pending_outbound.remove(&connection_id);
            }
            FromSwarm::ListenFailure(ListenFailure { connection_id, .. }) => {
                self.pending_inbound.remove(&connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        pending_inbound: 1,
        pending_outbound: 2,
        inbound: 3,
        outbound: 2,
        connections: 4,
        connections_per_peer: 2,
        ..Limits::VOLUNTEER
    };

    #[test]
    fn each_limit_is_kept_and_freed() {
        let mut limits = Behaviour::new(LIMITS);
        let [one, two, three] = [(); 3].map(|()| PeerId::random());
        limits.opened(one, Endpoint::Listener);
        limits.opened(one, Endpoint::Dialer);
        assert_eq!(limits.check(&one, Endpoint::Listener), Err(TooMany::OfPeer));
        assert_eq!(limits.check(&two, Endpoint::Listener), Ok(()));
        limits.opened(two, Endpoint::Dialer);
        assert_eq!(limits.check(&three, Endpoint::Dialer), Err(TooMany::Outbound));
        limits.opened(two, Endpoint::Listener);
        assert_eq!(limits.check(&three, Endpoint::Listener), Err(TooMany::InAll));
        limits.closed(one, Endpoint::Dialer);
        limits.opened(three, Endpoint::Listener);
        assert_eq!(limits.check(&one, Endpoint::Listener), Err(TooMany::Inbound));
        limits.closed(one, Endpoint::Listener);
        assert_eq!(limits.check(&one, Endpoint::Listener), Ok(()));
    }

    #[test]
    fn nothing_is_kept_of_a_peer_without_connections() {
        let mut limits = Behaviour::new(LIMITS);
        for _ in 0..1_000 {
            let peer = PeerId::random();
            limits.opened(peer, Endpoint::Listener);
            limits.opened(peer, Endpoint::Dialer);
            limits.closed(peer, Endpoint::Listener);
            assert_eq!(limits.of_peer.len(), 1);
            limits.closed(peer, Endpoint::Dialer);
        }
        assert_eq!((limits.of_peer.len(), limits.inbound, limits.outbound), (0, 0, 0));
    }

    #[test]
    fn what_is_being_set_up_counts_until_it_stands_or_fails() {
        let mut limits = Behaviour::new(LIMITS);
        let [first, second] = [1, 2].map(ConnectionId::new_unchecked);
        let (peer, here) = (PeerId::random(), Multiaddr::empty());
        assert!(limits.handle_pending_inbound_connection(first, &here, &here).is_ok());
        let refused = limits.handle_pending_inbound_connection(second, &here, &here);
        assert_eq!(refused.map_err(|denied| denied.downcast().ok()), Err(Some(TooMany::PendingInbound)));
        assert!(limits.handle_established_inbound_connection(first, peer, &here, &here).is_ok());
        assert!(limits.handle_pending_inbound_connection(second, &here, &here).is_ok());

        for id in [first, second] {
            assert!(limits.handle_pending_outbound_connection(id, None, &[], Endpoint::Dialer).is_ok());
        }
        let third = ConnectionId::new_unchecked(3);
        let refused = limits.handle_pending_outbound_connection(third, None, &[], Endpoint::Dialer);
        assert_eq!(refused.map_err(|denied| denied.downcast().ok()), Err(Some(TooMany::PendingOutbound)));
        let error = libp2p::swarm::DialError::Aborted;
        limits.on_swarm_event(FromSwarm::DialFailure(DialFailure {
            peer_id: None,
            error: &error,
            connection_id: first,
        }));
        assert!(limits.handle_pending_outbound_connection(third, None, &[], Endpoint::Dialer).is_ok());
    }
}
