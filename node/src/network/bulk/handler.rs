//! One connection's part of `bulk/1`: negotiates streams and reports each of them once.

use super::OpenId;
use libp2p::core::upgrade::ReadyUpgrade;
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound, StreamUpgradeError,
};
use libp2p::swarm::{ConnectionHandler, ConnectionHandlerEvent, SubstreamProtocol};
use libp2p::{Stream, StreamProtocol};
use std::collections::VecDeque;
use std::task::{Context, Poll};

/// What the connection reports.
#[derive(Debug)]
pub(in crate::network) enum Done {
    /// A stream of ours is agreed on.
    Opened(OpenId, Stream),
    /// A stream of ours failed, and why.
    Failed(OpenId, String),
    /// The peer opened one.
    Inbound(Stream),
}

/// The handler. Both queues are emptied before the connection takes another stream in, and the multiplexer bounds how many
/// there are.
#[derive(Debug)]
pub(in crate::network) struct Handler {
    protocol: StreamProtocol,
    wanted: VecDeque<OpenId>,
    done: VecDeque<Done>,
}

impl Handler {
    pub(super) fn new(protocol: StreamProtocol) -> Self {
        Self { protocol, wanted: VecDeque::new(), done: VecDeque::new() }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = OpenId;
    type ToBehaviour = Done;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = OpenId;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(self.protocol.clone()), ())
    }

    fn on_behaviour_event(&mut self, id: OpenId) {
        self.wanted.push_back(id);
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, OpenId, Self::ToBehaviour>> {
        if let Some(done) = self.done.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(done));
        }
        if let Some(id) = self.wanted.pop_front() {
            let protocol = SubstreamProtocol::new(ReadyUpgrade::new(self.protocol.clone()), id);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), OpenId>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: stream, .. }) => {
                self.done.push_back(Done::Inbound(stream));
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: stream, info: id }) => {
                self.done.push_back(Done::Opened(id, stream));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info: id, error }) => {
                let reason = match error {
                    StreamUpgradeError::Timeout => "the stream was not agreed on in time".to_owned(),
                    StreamUpgradeError::NegotiationFailed => "the peer does not speak bulk/1 of this farm".to_owned(),
                    StreamUpgradeError::Io(error) => error.to_string(),
                    StreamUpgradeError::Apply(never) => match never {},
                };
                self.done.push_back(Done::Failed(id, reason));
            }
            _ => {}
        }
    }
}
