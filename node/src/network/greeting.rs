//! `Hello`, the first exchange with every peer.
//!
//! Whoever dialled says it first. Until it is exchanged our own calls to the peer wait and its calls are refused. A peer of
//! another protocol version is told so and disconnected; one of another farm is left alone for a while.

use super::address;
use super::driver::Driver;
use super::gossip::bucket::Bucket;
use super::peers::{Carries, Standing};
use super::{CallError, PeerChange, identity};
use libp2p::PeerId;
use libp2p::request_response::{OutboundRequestId, ResponseChannel};
use libp2p::swarm::ConnectionId;
use protocol::id::PeerKey;
use protocol::ticket::MAX_ADDRESSES;
use protocol::wire::{Answer, CONTROL_TIMEOUT, Control, Hello, Refusal};
use std::time::Duration;
use tokio::time::Instant;

/// The longest `Hello` that is remembered: it is kept for as long as the peer is connected.
const MAX_HELLO_BYTES: usize = 32 << 10;
/// The longest name of a program.
const MAX_PROGRAM_BYTES: usize = 64;
/// How long a refused peer may take to hear so and hang up; closing at once could overtake the answer.
const PARTING: Duration = Duration::from_secs(1);
/// How often a peer may say `Hello` again on one connection.
const HELLOS: u32 = 16;
const HELLO_EVERY: Duration = Duration::from_secs(1);

/// The share of greetings on a new connection.
pub(super) fn hellos(now: Instant) -> Bucket {
    Bucket::full(HELLOS, HELLO_EVERY, now)
}

impl Driver {
    /// Says `Hello` to a peer that we have just connected to.
    pub(super) fn ask_hello(&mut self, key: PeerKey) {
        let hello = self.say_hello();
        let asked = self.swarm.behaviour_mut().control.send_request(&identity::peer_id(&key), Control::Hello(hello));
        self.peers.entry(key).standing =
            Standing::Greeting { asked: Some(asked), until: Instant::now() + CONTROL_TIMEOUT };
    }

    /// Whether this call is the `Hello` with which the connection begins.
    pub(super) fn is_greeting(&self, key: &PeerKey, id: OutboundRequestId) -> bool {
        self.peers.get(key).is_some_and(|peer| match peer.standing {
            Standing::Greeting { asked, .. } => asked == Some(id),
            _ => peer.saying == Some(id),
        })
    }

    /// A peer says `Hello`.
    pub(super) fn on_hello(
        &mut self,
        key: PeerKey,
        connection: ConnectionId,
        hello: Hello,
        channel: ResponseChannel<Answer>,
    ) {
        let Some(link) = self.peers.get_mut(&key).and_then(|peer| peer.link_mut(connection)) else { return };
        if !link.hellos.take(Instant::now()) {
            return self.answer_control(channel, Answer::Refused(Refusal::Busy));
        }
        link.carries = Carries::Calls;
        match self.check(&hello) {
            Ok(()) => {
                let answer = Answer::Hello(self.say_hello());
                self.answer_control(channel, answer);
                self.greeted(key, hello);
            }
            Err(refusal) => {
                self.answer_control(channel, Answer::Refused(refusal.clone()));
                self.part(key, refusal);
            }
        }
    }

    /// A peer answers our `Hello`.
    pub(super) fn on_hello_answered(&mut self, key: PeerKey, connection: ConnectionId, answer: Answer) {
        if let Some(link) = self.peers.get_mut(&key).and_then(|peer| peer.link_mut(connection)) {
            link.carries = Carries::Calls;
        }
        match answer {
            Answer::Hello(hello) => match self.check(&hello) {
                Ok(()) => self.greeted(key, hello),
                Err(refusal) => self.on_hello_failed(key, CallError::Refused { peer: key, refusal }),
            },
            Answer::Refused(refusal) => self.on_hello_failed(key, CallError::Refused { peer: key, refusal }),
            _ => {
                let reason = "something else than Hello was answered".to_owned();
                self.on_hello_failed(key, CallError::Broken { peer: key, reason });
            }
        }
    }

    /// Our `Hello` came to nothing.
    pub(super) fn on_hello_failed(&mut self, key: PeerKey, error: CallError) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if peer.is_greeted() {
            peer.saying = None;
            tracing::debug!(peer = ?key, %error, "saying Hello again came to nothing");
            return;
        }
        tracing::debug!(peer = ?key, %error, "not greeted");
        peer.fail_errands(&error);
        let id = peer.id;
        if matches!(error, CallError::Refused { refusal: Refusal::OtherFarm, .. }) {
            self.avoid(id);
        }
        self.hang_up(id);
    }

    /// A connected peer is found to be of another farm.
    pub(super) fn on_stranger(&mut self, key: PeerKey, peer: PeerId) {
        self.avoid(peer);
        self.part(key, Refusal::OtherFarm);
    }

    fn avoid(&mut self, peer: PeerId) {
        if self.strangers.avoid(peer, Instant::now()) {
            tracing::info!(%peer, "a peer of another farm");
        }
    }

    /// Says `Hello` with new words to everybody.
    pub(super) fn greet_again(&mut self, hello: Hello) {
        self.hello = hello;
        let hello = self.say_hello();
        for (_, peer) in self.peers.iter_mut() {
            if peer.is_greeted() {
                let said = self.swarm.behaviour_mut().control.send_request(&peer.id, Control::Hello(hello.clone()));
                peer.saying = Some(said);
            }
        }
    }

    /// Closes all connections to a peer; one of another farm opens none for a while.
    pub(super) fn hang_up(&mut self, peer: PeerId) {
        self.block_stranger(peer);
        self.disconnect(peer);
    }

    /// Takes no connection of a peer of another farm until it is forgiven.
    pub(super) fn block_stranger(&mut self, peer: PeerId) {
        if self.strangers.is_avoided(&peer) {
            self.swarm.behaviour_mut().blocked.block_peer(peer);
        }
    }

    /// Closes all connections to a peer.
    pub(super) fn disconnect(&mut self, peer: PeerId) {
        // It may have closed by itself.
        let _closed = self.swarm.disconnect_peer_id(peer);
    }

    fn check(&self, hello: &Hello) -> Result<(), Refusal> {
        if hello.protocol != self.hello.protocol {
            return Err(Refusal::Version(self.hello.protocol));
        }
        let is_long = hello.addresses.len() > MAX_ADDRESSES
            || hello.program.len() > MAX_PROGRAM_BYTES
            || protocol::codec::encode(hello).len() > MAX_HELLO_BYTES;
        if is_long {
            return Err(Refusal::Invalid("Hello says too much".to_owned()));
        }
        Ok(())
    }

    fn part(&mut self, key: PeerKey, refusal: Refusal) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.fail_errands(&CallError::Refused { peer: key, refusal });
        if peer.is_greeted() {
            // Whoever listens was told that it is here.
            drop(self.changes.send(PeerChange::Closed { peer: key }));
        }
        // Whoever goes on talking has no longer for that.
        if !matches!(peer.standing, Standing::Leaving { .. }) {
            peer.standing = Standing::Leaving { until: Instant::now() + PARTING };
        }
    }

    /// `Hello` was exchanged, for the first time or again.
    fn greeted(&mut self, key: PeerKey, hello: Hello) {
        let said = hello.addresses.iter().filter_map(|text| address::parse(text).ok()).collect();
        let credible = self.credible(said);
        self.heard_from(key, credible);

        let Some(peer) = self.peers.get_mut(&key) else { return };
        let (since, news) = match &peer.standing {
            Standing::Greeted { hello: before, since } => (*since, !is_same(before, &hello)),
            Standing::Leaving { .. } => return,
            _ => (Instant::now(), true),
        };
        peer.saying = None;
        peer.standing = Standing::Greeted { hello: Box::new(hello.clone()), since };
        let held = std::mem::take(&mut peer.held);
        let errands = std::mem::take(&mut peer.errands);
        if news {
            // Nobody may be listening.
            drop(self.changes.send(PeerChange::Greeted { peer: key, hello: Box::new(hello) }));
        }
        for errand in errands {
            self.do_there(key, errand);
        }
        for arrival in held {
            self.take_in(key, arrival);
        }
    }
}

/// Whether both say the same but for the clock.
fn is_same(one: &Hello, other: &Hello) -> bool {
    one == &Hello { clock: one.clock, ..other.clone() }
}
