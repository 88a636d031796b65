//! Calls in both directions: what we asked and what we were asked.
//!
//! An answer that is awaited ends by arriving, by failing or by its deadline, whichever comes first. A call that a peer
//! waits for no more (its connection closed, its time is over) is taken from its handler: the reply's receiver is dropped.

use super::behaviour::RaftBytes;
use super::driver::Driver;
use super::peers::{Arrival, Standing};
use super::{CallError, Caller, Incoming, IncomingBulk, IncomingRaft, identity};
use futures::StreamExt as _;
use futures::future::{AbortHandle, Abortable, BoxFuture, FutureExt as _};
use futures::stream::FuturesUnordered;
use libp2p::PeerId;
use libp2p::request_response::{self, InboundRequestId, Message, OutboundFailure, OutboundRequestId, ResponseChannel};
use protocol::id::PeerKey;
use protocol::wire::{Answer, Control, Park, Refusal};
use std::collections::HashMap;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Calls of one peer that may be in the hands of our rooms; more are refused, so that one peer cannot fill an inbox.
const MAX_ANSWERING_PER_PEER: usize = 128;
/// Calls of ours that wait for an answer.
#[derive(Debug)]
pub(super) struct Asked<T>(HashMap<OutboundRequestId, Awaited<T>>);

#[derive(Debug)]
struct Awaited<T> {
    peer: PeerKey,
    until: Instant,
    reply: oneshot::Sender<Result<T, CallError>>,
}

impl<T> Default for Asked<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> Asked<T> {
    pub(super) fn insert(
        &mut self,
        id: OutboundRequestId,
        peer: PeerKey,
        until: Instant,
        reply: oneshot::Sender<Result<T, CallError>>,
    ) {
        self.0.insert(id, Awaited { peer, until, reply });
    }

    fn settle(&mut self, id: OutboundRequestId, result: Result<T, CallError>) {
        if let Some(awaited) = self.0.remove(&id) {
            // Whoever dropped the receiver waits no more.
            drop(awaited.reply.send(result));
        }
    }

    fn fail(&mut self, id: OutboundRequestId, peer: &PeerId, error: OutboundFailure) {
        if let Some(key) = identity::peer_key(peer) {
            self.settle(id, Err(call_error(key, error)));
        }
    }

    fn expire(&mut self, now: Instant) {
        let late: Vec<_> = self.0.iter().filter(|(_, awaited)| awaited.until <= now).map(|(id, _)| *id).collect();
        for id in late {
            if let Some(awaited) = self.0.remove(&id) {
                drop(awaited.reply.send(Err(CallError::Timeout(awaited.peer))));
            }
        }
    }
}

/// Why a call over libp2p failed, in our words.
pub(super) fn call_error(peer: PeerKey, error: OutboundFailure) -> CallError {
    match error {
        OutboundFailure::Timeout => CallError::Timeout(peer),
        OutboundFailure::DialFailure => CallError::Unreachable { peer, reason: "the connection was lost".to_owned() },
        OutboundFailure::UnsupportedProtocols => CallError::Refused { peer, refusal: Refusal::OtherFarm },
        OutboundFailure::ConnectionClosed => CallError::Broken { peer, reason: "the connection closed".to_owned() },
        OutboundFailure::Io(error) => CallError::Broken { peer, reason: error.to_string() },
    }
}

/// A call that was answered here.
#[derive(Debug)]
pub(super) enum Answered {
    Control(ResponseChannel<Answer>, Answer),
    Park(ResponseChannel<Answer>, Answer),
    Raft(ResponseChannel<RaftBytes>, Option<Vec<u8>>),
    /// A call of our own to ourselves; whoever waited was told.
    Own,
}

/// The protocol of a call from a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Line {
    Control,
    Park,
    Raft,
}

/// All calls in flight.
#[derive(Debug, Default)]
pub(super) struct Exchanges {
    pub(super) control: Asked<Answer>,
    pub(super) park: Asked<Answer>,
    pub(super) raft: Asked<Vec<u8>>,
    answering: FuturesUnordered<Abortable<BoxFuture<'static, Answered>>>,
    underway: HashMap<(Line, InboundRequestId), Underway>,
    per_peer: HashMap<PeerKey, usize>,
}

/// A call of a peer that a room has in its hands.
#[derive(Debug)]
struct Underway {
    caller: PeerKey,
    abort: AbortHandle,
}

impl Exchanges {
    /// The next answer of a handler; `None` while nobody is being answered.
    pub(super) async fn next_answered(&mut self) -> Option<Answered> {
        loop {
            if let Ok(answered) = self.answering.next().await? {
                return Some(answered);
            }
        }
    }

    /// Ends what has waited too long.
    pub(super) fn expire(&mut self, now: Instant) {
        self.control.expire(now);
        self.park.expire(now);
        self.raft.expire(now);
    }

    /// Whether this peer may have another call in our hands.
    fn has_room(&self, caller: &PeerKey) -> bool {
        self.per_peer.get(caller).is_none_or(|count| *count < MAX_ANSWERING_PER_PEER)
    }

    fn answer_later(
        &mut self,
        caller: PeerKey,
        line: Line,
        id: InboundRequestId,
        answer: impl Future<Output = Answered> + Send + 'static,
    ) {
        let (abort, registration) = AbortHandle::new_pair();
        self.underway.insert((line, id), Underway { caller, abort });
        *self.per_peer.entry(caller).or_default() += 1;
        self.answering.push(Abortable::new(answer.boxed(), registration));
    }

    /// Answers a call of our own.
    pub(super) fn answer_ourselves(&mut self, answer: BoxFuture<'static, Answered>) {
        let (_, registration) = AbortHandle::new_pair();
        self.answering.push(Abortable::new(answer, registration));
    }

    /// The call is over: it was answered, or nobody waits for the answer any more.
    fn conclude(&mut self, line: Line, id: InboundRequestId) {
        let Some(Underway { caller, abort }) = self.underway.remove(&(line, id)) else { return };
        abort.abort();
        if let Some(count) = self.per_peer.get_mut(&caller) {
            *count -= 1;
            if *count == 0 {
                self.per_peer.remove(&caller);
            }
        }
    }
}

impl Driver {
    pub(super) fn on_control(&mut self, event: request_response::Event<Control, Answer>) {
        use request_response::Event;
        match event {
            Event::Message { peer, connection_id, message: Message::Request { request_id, request, channel } } => {
                let Some(key) = identity::peer_key(&peer) else { return };
                match request {
                    Control::Hello(hello) => self.on_hello(key, connection_id, hello, channel),
                    request => {
                        if let Control::Evicted { build_key } = &request {
                            self.strike_provider(*build_key, &peer);
                        }
                        self.arrive(key, Arrival::Control(request_id, request, channel));
                    }
                }
            }
            Event::Message { peer, connection_id, message: Message::Response { request_id, response } } => {
                let Some(key) = identity::peer_key(&peer) else { return };
                if self.is_greeting(&key, request_id) {
                    self.on_hello_answered(key, connection_id, response);
                } else {
                    self.exchanges.control.settle(request_id, Ok(response));
                }
            }
            Event::OutboundFailure { peer, request_id, error, .. } => {
                let Some(key) = identity::peer_key(&peer) else { return };
                if self.is_greeting(&key, request_id) {
                    self.on_hello_failed(key, call_error(key, error));
                } else {
                    self.exchanges.control.fail(request_id, &peer, error);
                }
            }
            Event::InboundFailure { request_id, .. } | Event::ResponseSent { request_id, .. } => {
                self.exchanges.conclude(Line::Control, request_id);
            }
        }
    }

    pub(super) fn on_park(&mut self, event: request_response::Event<Park, Answer>) {
        use request_response::Event;
        match event {
            Event::Message { peer, message: Message::Request { request_id, request, channel }, .. } => {
                let Some(key) = identity::peer_key(&peer) else { return };
                self.arrive(key, Arrival::Park(request_id, request, channel));
            }
            Event::Message { message: Message::Response { request_id, response }, .. } => {
                self.exchanges.park.settle(request_id, Ok(response));
            }
            Event::OutboundFailure { peer, request_id, error, .. } => {
                self.exchanges.park.fail(request_id, &peer, error);
            }
            Event::InboundFailure { request_id, .. } | Event::ResponseSent { request_id, .. } => {
                self.exchanges.conclude(Line::Park, request_id);
            }
        }
    }

    pub(super) fn on_raft(&mut self, event: request_response::Event<RaftBytes, RaftBytes>) {
        use request_response::Event;
        match event {
            Event::Message { peer, message: Message::Request { request_id, request, channel }, .. } => {
                let Some(key) = identity::peer_key(&peer) else { return };
                self.arrive(key, Arrival::Raft(request_id, request, channel));
            }
            Event::Message { message: Message::Response { request_id, response }, .. } => {
                self.exchanges.raft.settle(request_id, Ok(response.0));
            }
            Event::OutboundFailure { peer, request_id, error, .. } => {
                self.exchanges.raft.fail(request_id, &peer, error);
            }
            Event::InboundFailure { request_id, .. } | Event::ResponseSent { request_id, .. } => {
                self.exchanges.conclude(Line::Raft, request_id);
            }
        }
    }

    /// Something came from a peer: taken in if it was greeted, kept while our own greeting is under way, else refused.
    pub(super) fn arrive(&mut self, key: PeerKey, arrival: Arrival) {
        let Some(peer) = self.peers.get_mut(&key) else { return self.refuse(arrival, Refusal::NotAllowed) };
        match &peer.standing {
            Standing::Greeted { .. } => self.take_in(key, arrival),
            // It answered our Hello and went on; that answer may come a moment later than this.
            Standing::Greeting { asked: Some(_), .. } if peer.held.len() < super::peers::MAX_HELD => {
                peer.held.push(arrival);
            }
            _ => self.refuse(arrival, Refusal::NotAllowed),
        }
    }

    /// Hands what came from a greeted peer to its owner.
    pub(super) fn take_in(&mut self, key: PeerKey, arrival: Arrival) {
        let caller = Caller { peer: key };
        if !matches!(arrival, Arrival::Bulk(_)) && !self.exchanges.has_room(&key) {
            return self.refuse(arrival, Refusal::Busy);
        }
        match arrival {
            Arrival::Control(id, call, channel) => {
                let (reply, answer) = oneshot::channel();
                match offer(&self.outlet.control, Incoming { caller, call, reply }) {
                    Ok(()) => {
                        let answered = answer.map(move |answer| Answered::Control(channel, or_busy(answer)));
                        self.exchanges.answer_later(key, Line::Control, id, answered);
                    }
                    Err(refusal) => self.answer_control(channel, Answer::Refused(refusal)),
                }
            }
            Arrival::Park(id, call, channel) => {
                let (reply, answer) = oneshot::channel();
                match offer(&self.outlet.park, Incoming { caller, call, reply }) {
                    Ok(()) => {
                        let answered = answer.map(move |answer| Answered::Park(channel, or_busy(answer)));
                        self.exchanges.answer_later(key, Line::Park, id, answered);
                    }
                    Err(refusal) => self.answer_park(channel, Answer::Refused(refusal)),
                }
            }
            Arrival::Raft(id, RaftBytes(bytes), channel) => {
                if !self.coordinators.borrow().contains(&key) {
                    tracing::debug!(?key, "raft/1 is for coordinators");
                    return;
                }
                let (reply, answer) = oneshot::channel();
                if offer(&self.outlet.raft, IncomingRaft { caller, bytes, reply }).is_ok() {
                    let answered = answer.map(move |answer| Answered::Raft(channel, answer.ok()));
                    self.exchanges.answer_later(key, Line::Raft, id, answered);
                }
            }
            Arrival::Bulk(stream) => self.deliver_stream(IncomingBulk { caller, stream: Box::new(stream) }),
        }
    }

    /// Says no. Raft and bulk have no word for it: their stream is reset, which the peer sees.
    fn refuse(&mut self, arrival: Arrival, refusal: Refusal) {
        match arrival {
            Arrival::Control(_, _, channel) => self.answer_control(channel, Answer::Refused(refusal)),
            Arrival::Park(_, _, channel) => self.answer_park(channel, Answer::Refused(refusal)),
            Arrival::Raft(_, _, channel) => drop(channel),
            Arrival::Bulk(stream) => drop(stream),
        }
    }

    /// Sends what a handler answered.
    pub(super) fn on_answered(&mut self, answered: Answered) {
        match answered {
            Answered::Control(channel, answer) => self.answer_control(channel, answer),
            Answered::Park(channel, answer) => self.answer_park(channel, answer),
            Answered::Raft(channel, Some(bytes)) => {
                // It fails only when the peer has gone.
                drop(self.swarm.behaviour_mut().raft.send_response(channel, RaftBytes(bytes)));
            }
            Answered::Raft(channel, None) => drop(channel),
            Answered::Own => {}
        }
    }

    pub(super) fn answer_control(&mut self, channel: ResponseChannel<Answer>, answer: Answer) {
        // It fails only when the peer has gone.
        drop(self.swarm.behaviour_mut().control.send_response(channel, answer));
    }

    fn answer_park(&mut self, channel: ResponseChannel<Answer>, answer: Answer) {
        // It fails only when the peer has gone.
        drop(self.swarm.behaviour_mut().park.send_response(channel, answer));
    }
}

/// Puts something into a room's inbox, if there is place.
pub(super) fn offer<T>(outlet: &mpsc::Sender<T>, arrival: T) -> Result<(), Refusal> {
    outlet.try_send(arrival).map_err(|error| match error {
        TrySendError::Full(_) => Refusal::Busy,
        TrySendError::Closed(_) => Refusal::ShuttingDown,
    })
}

fn or_busy(answer: Result<Answer, oneshot::error::RecvError>) -> Answer {
    answer.unwrap_or(Answer::Refused(Refusal::Busy))
}
