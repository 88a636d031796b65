//! The network room: one task owns the swarm, everybody else holds a [`Network`] handle.
//!
//! A handle sends [`Command`]s over a bounded channel; whoever receives them is the network. In the program that is the
//! libp2p driver ([`start`]); in simulation it is an in-memory one, so the rooms above never know the difference. What comes in from
//! peers arrives in an [`Inbox`] of bounded channels; when one is full the driver refuses on its owner's behalf rather than
//! wait.
//!
//! Map: [`config`] and `driver` begin; `transport`, `tls`, `behaviour` and `frames` set libp2p up. The driver's parts, one noun each:
//! `links` (connections), `greeting` (Hello), `calls` and `ourselves`, `lanes` and `bulk` (streams), `gossip`, `dht` and
//! `whispers` between them, `whereabouts` (own addresses); for tests `memory`. What it remembers: `peers`, `book`, `redial`, `strangers`,
//! `unreached`.
//!
//! The network promises that a [`Caller`] is the peer at the other end of an authenticated connection that has exchanged
//! `Hello`, and that nothing larger than the limits of [`protocol::wire`] and [`protocol::gossip`] comes through. It never
//! interprets a call, never touches an artifact's bytes and never decides who may do what.

mod address;
mod behaviour;
mod book;
mod bulk;
mod calls;
pub mod config;
mod dht;
mod driver;
mod frames;
mod gossip;
mod greeting;
pub mod identity;
mod lanes;
mod limits;
mod links;
pub mod memory;
mod ourselves;
mod peers;
mod redial;
pub mod scout;
mod strangers;
#[cfg(test)]
mod tests;
mod tls;
mod transport;
mod unreached;
mod whereabouts;
mod whispers;

pub use address::{AddressError, check as check_address};
pub use config::{NetworkConfig, StartError};
pub use driver::{spawn, start};

use protocol::id::{BuildKey, PeerKey};
use protocol::ticket::Contact;
use protocol::wire::{Answer, Control, Hello, Park, Refusal};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{broadcast, mpsc, oneshot};

/// Commands that may wait for the network.
const COMMANDS: usize = 256;
/// Changes that a slow reader of [`Network::changes`] may fall behind.
pub const CHANGES: usize = 256;

/// A cloneable handle on the network.
#[derive(Clone, Debug)]
pub struct Network {
    local: PeerKey,
    commands: mpsc::Sender<Command>,
    changes: broadcast::Sender<PeerChange>,
}

/// What the network is asked to do. Every command that is answered carries the channel for its answer; a dropped channel
/// means that nobody waits any more.
#[derive(Debug)]
pub enum Command {
    /// Call a peer over `control/1`.
    Call {
        /// Whom; our own key is answered in process.
        peer: PeerKey,
        /// What.
        call: Box<Control>,
        /// For the answer.
        reply: oneshot::Sender<Result<Answer, CallError>>,
    },
    /// Call a peer over `park/1`.
    Park {
        /// Whom.
        peer: PeerKey,
        /// What.
        call: Box<Park>,
        /// For the answer.
        reply: oneshot::Sender<Result<Answer, CallError>>,
    },
    /// Send opaque bytes over `raft/1` to another coordinator.
    Raft {
        /// Whom.
        peer: PeerKey,
        /// Canonical bytes.
        bytes: Vec<u8>,
        /// For the answer.
        reply: oneshot::Sender<Result<Vec<u8>, CallError>>,
    },
    /// Open a stream of `bulk/1`.
    OpenBulk {
        /// To whom; our own key gets one end of a pipe.
        peer: PeerKey,
        /// For the stream.
        reply: oneshot::Sender<Result<BulkStream, CallError>>,
    },
    /// Connect, remember the addresses, and keep trying when `keep` says so.
    Connect {
        /// Whom and where.
        contact: Contact,
        /// Whether to redial whenever the connection is lost.
        keep: Keep,
        /// Answered once, when connected and greeted or when every address failed.
        reply: oneshot::Sender<Result<(), CallError>>,
    },
    /// Say in the DHT that this peer holds the artifact of a judged build, now and until withdrawn.
    Provide(BuildKey),
    /// Stop saying so.
    Withdraw(BuildKey),
    /// Look for providers in the DHT; the channel closes when the search is over.
    FindProviders {
        /// Of what.
        key: BuildKey,
        /// Each provider once.
        found: mpsc::Sender<PeerKey>,
    },
    /// Whisper on a gossip topic: a signed [`protocol::gossip`] word in its envelope.
    Whisper(Box<protocol::signed::Signed>),
    /// Change what `Hello` says from now on (a capability changed, a charter was amended).
    Greeting(Box<Hello>),
    /// Where this peer can be reached, best first.
    Addresses(oneshot::Sender<Vec<String>>),
    /// Who is connected and greeted, and where they listen.
    Peers(oneshot::Sender<Vec<Contact>>),
    /// Close everything and end.
    Shutdown(oneshot::Sender<()>),
}

/// Whether to redial when a connection is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// With back-off and jitter, for as long as the network runs.
    Connected,
    /// Once is enough.
    Once,
}

/// A stream of bytes to or from a peer.
pub type BulkStream = Box<dyn Duplex>;

/// Both directions of a stream.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin + std::fmt::Debug {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + std::fmt::Debug> Duplex for T {}

/// Why a peer was not reached or did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No address of the peer is known, or none answered.
    #[error("{peer:?} cannot be reached: {reason}")]
    Unreachable {
        /// Whom.
        peer: PeerKey,
        /// What was tried and how it failed.
        reason: String,
    },
    /// It did not answer in time.
    #[error("{0:?} did not answer in time")]
    Timeout(PeerKey),
    /// The connection closed, or bytes came that are no answer.
    #[error("{peer:?} broke off: {reason}")]
    Broken {
        /// Whom.
        peer: PeerKey,
        /// How.
        reason: String,
    },
    /// It answered that it will not.
    #[error("{peer:?} refused: {refusal}")]
    Refused {
        /// Whom.
        peer: PeerKey,
        /// Why.
        refusal: Refusal,
    },
    /// The network of this node has ended.
    #[error("the network is shutting down")]
    Closed,
}

/// Who is connected changed.
#[derive(Clone, Debug)]
pub enum PeerChange {
    /// `Hello` was exchanged on the first connection to this peer, or said again.
    Greeted {
        /// The peer.
        peer: PeerKey,
        /// What it said.
        hello: Box<Hello>,
    },
    /// The last connection to this peer closed.
    Closed {
        /// The peer.
        peer: PeerKey,
    },
}

/// The peer at the other end of an authenticated, greeted connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its key.
    pub peer: PeerKey,
}

/// A call from a peer, to be answered once.
#[derive(Debug)]
pub struct Incoming<C> {
    /// Who calls.
    pub caller: Caller,
    /// What.
    pub call: C,
    /// For the answer; dropping it tells the caller that this peer is busy.
    pub reply: oneshot::Sender<Answer>,
}

/// A stream of `bulk/1` that a peer opened.
#[derive(Debug)]
pub struct IncomingBulk {
    /// Who.
    pub caller: Caller,
    /// The stream.
    pub stream: BulkStream,
}

/// Bytes of `raft/1` from another coordinator.
#[derive(Debug)]
pub struct IncomingRaft {
    /// Who.
    pub caller: Caller,
    /// Canonical bytes.
    pub bytes: Vec<u8>,
    /// For the answer.
    pub reply: oneshot::Sender<Vec<u8>>,
}

/// A whispered word that was well-formed, signed by its author, fresh and not heard before.
#[derive(Debug, Clone)]
pub enum News {
    /// What a volunteer can do.
    Capability {
        /// The volunteer.
        author: PeerKey,
        /// Its news.
        news: protocol::gossip::CapabilityNews,
    },
    /// There is work or a verdict.
    Request {
        /// Who says so.
        author: PeerKey,
        /// Its news.
        news: protocol::gossip::RequestNews,
    },
}

/// What comes in from peers.
#[derive(Debug)]
pub struct Inbox {
    /// Calls over `control/1`, `Hello` excepted.
    pub control: mpsc::Receiver<Incoming<Control>>,
    /// Calls over `park/1`.
    pub park: mpsc::Receiver<Incoming<Park>>,
    /// Streams of `bulk/1`.
    pub bulk: mpsc::Receiver<IncomingBulk>,
    /// Bytes of `raft/1`.
    pub raft: mpsc::Receiver<IncomingRaft>,
    /// Gossip.
    pub news: mpsc::Receiver<News>,
}

/// The sending ends of an [`Inbox`], for whoever is the network.
#[derive(Debug, Clone)]
pub struct Outlet {
    /// Calls over `control/1`.
    pub control: mpsc::Sender<Incoming<Control>>,
    /// Calls over `park/1`.
    pub park: mpsc::Sender<Incoming<Park>>,
    /// Streams of `bulk/1`.
    pub bulk: mpsc::Sender<IncomingBulk>,
    /// Bytes of `raft/1`.
    pub raft: mpsc::Sender<IncomingRaft>,
    /// Gossip.
    pub news: mpsc::Sender<News>,
}

impl Inbox {
    /// Both ends. Bounds: 256 control calls, 1,024 parked calls, 64 streams, 64 Raft messages, 256 news.
    #[must_use]
    pub fn channel() -> (Outlet, Self) {
        let (control, control_in) = mpsc::channel(256);
        let (park, park_in) = mpsc::channel(1_024);
        let (bulk, bulk_in) = mpsc::channel(64);
        let (raft, raft_in) = mpsc::channel(64);
        let (news, news_in) = mpsc::channel(256);
        (
            Outlet { control, park, bulk, raft, news },
            Self { control: control_in, park: park_in, bulk: bulk_in, raft: raft_in, news: news_in },
        )
    }
}

impl Network {
    /// A handle for the peer `local`, with the ends that whoever is the network needs: commands to carry out, and the
    /// channel on which to publish who is connected.
    #[must_use]
    pub fn channel(local: PeerKey) -> (Self, mpsc::Receiver<Command>, broadcast::Sender<PeerChange>) {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let (changes, _) = broadcast::channel(CHANGES);
        (Self { local, commands, changes: changes.clone() }, receiver, changes)
    }

    /// This peer's own key.
    #[must_use]
    pub fn local(&self) -> PeerKey {
        self.local
    }

    /// Who connects and who leaves, from now on. A reader that lags asks [`Network::peers`] again.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<PeerChange> {
        self.changes.subscribe()
    }

    /// Calls a peer and waits for its answer, at most [`protocol::wire::CONTROL_TIMEOUT`].
    ///
    /// # Errors
    ///
    /// [`CallError`]; an answer of [`Answer::Refused`] becomes [`CallError::Refused`].
    pub async fn call(&self, peer: PeerKey, call: Control) -> Result<Answer, CallError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Call { peer, call: Box::new(call), reply }).await?;
        unrefused(peer, receive(answer).await?)
    }

    /// Calls a peer that may park the call, at most [`protocol::wire::PARK_TIMEOUT`].
    ///
    /// # Errors
    ///
    /// As [`Network::call`].
    pub async fn park(&self, peer: PeerKey, call: Park) -> Result<Answer, CallError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Park { peer, call: Box::new(call), reply }).await?;
        unrefused(peer, receive(answer).await?)
    }

    /// Sends bytes of Raft to another coordinator.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn raft(&self, peer: PeerKey, bytes: Vec<u8>) -> Result<Vec<u8>, CallError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Raft { peer, bytes, reply }).await?;
        receive(answer).await
    }

    /// Opens a stream of `bulk/1` to a peer.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn open_bulk(&self, peer: PeerKey) -> Result<BulkStream, CallError> {
        let (reply, stream) = oneshot::channel();
        self.send(Command::OpenBulk { peer, reply }).await?;
        receive(stream).await
    }

    /// Connects to a peer and exchanges `Hello`, waiting at most `within`.
    ///
    /// # Errors
    ///
    /// [`CallError`] when every address failed or the time was up; with [`Keep::Connected`] the network goes on trying.
    pub async fn connect(&self, contact: Contact, keep: Keep, within: Duration) -> Result<(), CallError> {
        let (reply, answer) = oneshot::channel();
        let peer = contact.key;
        self.send(Command::Connect { contact, keep, reply }).await?;
        tokio::time::timeout(within, receive(answer)).await.unwrap_or(Err(CallError::Timeout(peer)))
    }

    /// Says in the DHT that this peer holds the artifact of a judged build.
    ///
    /// # Errors
    ///
    /// [`CallError::Closed`].
    pub async fn provide(&self, key: BuildKey) -> Result<(), CallError> {
        self.send(Command::Provide(key)).await
    }

    /// Stops saying so.
    ///
    /// # Errors
    ///
    /// [`CallError::Closed`].
    pub async fn withdraw(&self, key: BuildKey) -> Result<(), CallError> {
        self.send(Command::Withdraw(key)).await
    }

    /// Providers of a build's artifact as the DHT names them: hints, not truths. The channel closes when the search ends.
    ///
    /// # Errors
    ///
    /// [`CallError::Closed`].
    pub async fn find_providers(&self, key: BuildKey) -> Result<mpsc::Receiver<PeerKey>, CallError> {
        let (found, receiver) = mpsc::channel(64);
        self.send(Command::FindProviders { key, found }).await?;
        Ok(receiver)
    }

    /// Whispers a signed gossip word.
    ///
    /// # Errors
    ///
    /// [`CallError::Closed`].
    pub async fn whisper(&self, word: protocol::signed::Signed) -> Result<(), CallError> {
        self.send(Command::Whisper(Box::new(word))).await
    }

    /// Changes what `Hello` says from now on, and says it again to every connected peer.
    ///
    /// # Errors
    ///
    /// [`CallError::Closed`].
    pub async fn greet_with(&self, hello: Hello) -> Result<(), CallError> {
        self.send(Command::Greeting(Box::new(hello))).await
    }

    /// Where this peer can be reached, best first.
    ///
    /// # Errors
    ///
    /// [`CallError::Closed`].
    pub async fn addresses(&self) -> Result<Vec<String>, CallError> {
        let (reply, addresses) = oneshot::channel();
        self.send(Command::Addresses(reply)).await?;
        addresses.await.map_err(|_| CallError::Closed)
    }

    /// Who is connected and greeted.
    ///
    /// # Errors
    ///
    /// [`CallError::Closed`].
    pub async fn peers(&self) -> Result<Vec<Contact>, CallError> {
        let (reply, peers) = oneshot::channel();
        self.send(Command::Peers(reply)).await?;
        peers.await.map_err(|_| CallError::Closed)
    }

    /// Closes every connection and ends the network; returns when it has ended.
    pub async fn shut_down(&self) {
        let (reply, done) = oneshot::channel();
        if self.send(Command::Shutdown(reply)).await.is_ok() {
            // A dropped channel means the same as an answer: the network has ended.
            let _ended = done.await;
        }
    }

    async fn send(&self, command: Command) -> Result<(), CallError> {
        self.commands.send(command).await.map_err(|_| CallError::Closed)
    }
}

async fn receive<T>(answer: oneshot::Receiver<Result<T, CallError>>) -> Result<T, CallError> {
    answer.await.unwrap_or(Err(CallError::Closed))
}

fn unrefused(peer: PeerKey, answer: Answer) -> Result<Answer, CallError> {
    match answer {
        Answer::Refused(refusal) => Err(CallError::Refused { peer, refusal }),
        answer => Ok(answer),
    }
}
