//! The one task that owns the swarm.
//!
//! It waits for nothing but its `select!`, hashes no content and decodes nothing: calls are decoded in their connection's
//! own future, gossip is judged by the validator beside it. Local commands come before what peers want. Everything that
//! waits has a deadline, which [`Driver::sweep`] enforces several times a second.

use super::address;
use super::behaviour::{Behaviour, BehaviourEvent};
use super::book::AddressBook;
use super::calls::{Answered, Exchanges};
use super::config::{NetworkConfig, StartError, Transports};
use super::dht::Records;
use super::gossip::Unsaid;
use super::gossip::validator::{self, Judgement, Whisper};
use super::lanes::Lanes;
use super::peers::{Errand, MAX_ERRANDS, Peers, Standing, Want};
use super::redial::Redial;
use super::strangers::Strangers;
use super::unreached::Unreached;
use super::{CallError, Command, Inbox, IncomingBulk, Keep, Network, Outlet, PeerChange, identity, transport};
use futures::StreamExt as _;
use futures::future::FutureExt as _;
use libp2p::core::transport::ListenerId;
use libp2p::swarm::{self, Swarm, SwarmEvent};
use libp2p::{Multiaddr, PeerId};
use protocol::id::{FarmId, PeerKey};
use protocol::ticket::Contact;
use protocol::wire::{CONTROL_TIMEOUT, Hello, PARK_TIMEOUT, Refusal};
use std::collections::{BTreeSet, HashSet, VecDeque};
use std::num::NonZeroUsize;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Interval, MissedTickBehavior};

/// How often deadlines are looked at.
const SWEEP: Duration = Duration::from_millis(100);
/// How long connecting and greeting may take.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// An arm that takes longer holds up everybody: a matter for whoever works on it, or on a machine that does too much, for nobody.
const SLOW_ARM: Duration = Duration::from_millis(10);
/// An arm that takes longer is felt by people.
const STUCK_ARM: Duration = Duration::from_millis(500);
/// Commands carried out before the swarm gets its turn again.
const STREAK: u32 = 32;
/// Inbound streams that wait for their owner.
const MAX_STREAMS_WAITING: usize = 1_024;
/// How long an orderly end may take.
const FAREWELL: Duration = Duration::from_millis(500);

/// The driver.
pub(super) struct Driver {
    pub(super) local: PeerKey,
    pub(super) farm: FarmId,
    pub(super) swarm: Swarm<Behaviour>,
    pub(super) outlet: Outlet,
    pub(super) hello: Hello,
    pub(super) transports: Transports,
    pub(super) coordinators: watch::Receiver<BTreeSet<PeerKey>>,
    pub(super) changes: broadcast::Sender<PeerChange>,
    pub(super) peers: Peers,
    pub(super) book: AddressBook,
    pub(super) strangers: Strangers,
    pub(super) unreached: Unreached,
    pub(super) exchanges: Exchanges,
    pub(super) lanes: Lanes,
    pub(super) streams: VecDeque<IncomingBulk>,
    pub(super) records: Records,
    pub(super) unsaid: Unsaid,
    pub(super) whispers: mpsc::Sender<Whisper>,
    commands: mpsc::Receiver<Command>,
    judgements: mpsc::Receiver<Judgement>,
    pub(super) external: Vec<Multiaddr>,
    pub(super) unsettled: HashSet<ListenerId>,
    pub(super) address_askers: Vec<(Instant, oneshot::Sender<Vec<String>>)>,
}

/// What the driver turns to next.
enum Turn {
    /// Somebody here wants something; `None` when every handle is gone.
    Command(Option<Command>),
    /// A handler answered a call.
    Answered(Answered),
    /// A stream was handed to its owner.
    Delivered,
    /// The validator judged a whisper.
    Judgement(Judgement),
    /// It is time to look at deadlines.
    Sweep,
    /// Something happened in the swarm.
    Event(Box<SwarmEvent<BehaviourEvent>>),
}

impl Turn {
    const fn name(&self) -> &'static str {
        match self {
            Self::Command(_) => "command",
            Self::Answered(_) => "answer",
            Self::Delivered => "stream",
            Self::Judgement(_) => "judgement",
            Self::Sweep => "sweep",
            Self::Event(_) => "event",
        }
    }
}

/// Starts a network of its own channels.
///
/// # Errors
///
/// [`StartError`] when an address cannot be read or listened on.
///
/// # Panics
///
/// Outside a tokio runtime.
pub fn start(config: NetworkConfig) -> Result<(Network, Inbox), StartError> {
    let (network, commands, changes) = Network::channel(config.secret.public());
    let (outlet, inbox) = Inbox::channel();
    spawn(config, outlet, commands, changes)?;
    Ok((network, inbox))
}

/// Starts the network on the given channels. It ends when told to or when every handle is gone; the returned handle ends
/// with it.
///
/// # Errors
///
/// [`StartError`] when an address cannot be read or listened on.
///
/// # Panics
///
/// Outside a tokio runtime.
pub fn spawn(
    config: NetworkConfig,
    outlet: Outlet,
    commands: mpsc::Receiver<Command>,
    changes: broadcast::Sender<PeerChange>,
) -> Result<JoinHandle<()>, StartError> {
    Ok(tokio::spawn(Driver::new(config, outlet, commands, changes)?.run()))
}

impl Driver {
    fn new(
        config: NetworkConfig,
        outlet: Outlet,
        commands: mpsc::Receiver<Command>,
        changes: broadcast::Sender<PeerChange>,
    ) -> Result<Self, StartError> {
        let pair = identity::keypair(&config.secret);
        let transport = transport::build(&pair, config.transports)?;
        let behaviour = Behaviour::new(&config, &pair)?;
        let settings = swarm::Config::with_tokio_executor()
            .with_idle_connection_timeout(config.idle)
            .with_notify_handler_buffer_size(NonZeroUsize::new(32).unwrap_or(NonZeroUsize::MIN))
            .with_per_connection_event_buffer_size(64)
            .with_max_negotiating_inbound_streams(128)
            .with_smart_dial();
        let mut swarm = Swarm::new(transport, behaviour, pair.public().to_peer_id(), settings);
        let mut unsettled = HashSet::new();
        for text in &config.listen {
            let address = address::parse(text)?;
            let refused = |reason: String| StartError::Listen { address: text.clone(), reason };
            address::is_free(&address).map_err(|error| refused(error.to_string()))?;
            let listener = swarm.listen_on(address).map_err(|error| refused(reason(&error)))?;
            unsettled.insert(listener);
        }
        let external = config.external.iter().map(|text| address::parse(text)).collect::<Result<Vec<_>, _>>()?;
        for address in &external {
            swarm.add_external_address(address.clone());
        }
        let mut book = AddressBook::default();
        for contact in &config.address_book {
            book.learn_contact(contact);
        }
        let (whispers, to_judge) = mpsc::channel(validator::QUEUE);
        let (judged, judgements) = mpsc::channel(validator::QUEUE);
        tokio::spawn(validator::run(config.farm, to_judge, judged));
        Ok(Self {
            local: config.secret.public(),
            farm: config.farm,
            swarm,
            outlet,
            hello: config.hello,
            transports: config.transports,
            coordinators: config.coordinators,
            changes,
            peers: Peers::default(),
            book,
            strangers: Strangers::default(),
            unreached: Unreached::default(),
            exchanges: Exchanges::default(),
            lanes: Lanes::default(),
            streams: VecDeque::new(),
            records: Records::default(),
            unsaid: Unsaid::default(),
            whispers,
            commands,
            judgements,
            external,
            unsettled,
            address_askers: Vec::new(),
        })
    }

    async fn run(mut self) {
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut streak = 0;
        loop {
            let turn = self.next_turn(&mut sweep).await;
            let (began, name) = (Instant::now(), turn.name());
            streak = if matches!(turn, Turn::Command(_)) { streak + 1 } else { 0 };
            match turn {
                Turn::Command(Some(Command::Shutdown(done))) => return self.end(Some(done)).await,
                Turn::Command(None) => return self.end(None).await,
                Turn::Command(Some(command)) => self.on_command(command),
                Turn::Answered(answered) => self.on_answered(answered),
                Turn::Delivered => {}
                Turn::Judgement(judgement) => self.on_judgement(judgement),
                Turn::Sweep => self.sweep(began),
                Turn::Event(event) => self.on_event(*event),
            }
            if streak == STREAK {
                streak = 0;
                if let Some(event) = self.swarm.select_next_some().now_or_never() {
                    self.on_event(event);
                }
            }
            let took = began.elapsed();
            if took > STUCK_ARM {
                tracing::warn!(turn = name, ?took, "the network was held up");
            } else if took > SLOW_ARM {
                tracing::debug!(turn = name, ?took, "the network was held up");
            }
        }
    }

    /// Waits for whatever comes first; local work before that of peers.
    async fn next_turn(&mut self, sweep: &mut Interval) -> Turn {
        tokio::select! {
            biased;
            command = self.commands.recv() => Turn::Command(command),
            Some(answered) = self.exchanges.next_answered() => Turn::Answered(answered),
            Ok(place) = self.outlet.bulk.reserve(), if !self.streams.is_empty() => {
                if let Some(stream) = self.streams.pop_front() {
                    place.send(stream);
                }
                Turn::Delivered
            }
            Some(judgement) = self.judgements.recv() => Turn::Judgement(judgement),
            _ = sweep.tick() => Turn::Sweep,
            event = self.swarm.select_next_some() => Turn::Event(Box::new(event)),
        }
    }

    fn on_command(&mut self, command: Command) {
        let now = Instant::now();
        match command {
            Command::Call { peer, call, reply } => {
                self.want(peer, Errand { until: now + CONTROL_TIMEOUT, want: Want::Call(call, reply) });
            }
            Command::Park { peer, call, reply } => {
                self.want(peer, Errand { until: now + PARK_TIMEOUT, want: Want::Park(call, reply) });
            }
            Command::Raft { peer, bytes, reply } => {
                self.want(peer, Errand { until: now + CONTROL_TIMEOUT, want: Want::Raft(bytes, reply) });
            }
            Command::OpenBulk { peer, reply } => {
                self.want(peer, Errand { until: now + CONNECT_TIMEOUT, want: Want::Bulk(reply) });
            }
            Command::Connect { contact, keep, reply } => self.connect(&contact, keep, reply, now),
            Command::Provide(key) => self.records.provide(&mut self.swarm.behaviour_mut().kad, key, now),
            Command::Withdraw(key) => self.withdraw(key),
            Command::FindProviders { key, found } => {
                self.records.find(&mut self.swarm.behaviour_mut().kad, key, found, now);
            }
            Command::Whisper(word) => match self.swarm.behaviour_mut().gossip.as_mut() {
                Some(gossip) => self.unsaid.whisper(gossip, self.farm, &word, now),
                None => tracing::warn!("a whisper was not sent: gossip is off"),
            },
            Command::Greeting(hello) => self.greet_again(*hello),
            Command::Addresses(reply) => self.ask_addresses(reply, now),
            Command::Peers(reply) => {
                let contacts =
                    self.peers.greeted().map(|(key, hello)| Contact { key, addresses: hello.addresses.clone() });
                // Whoever dropped the receiver waits no more.
                drop(reply.send(contacts.collect()));
            }
            // Taken out by `run`.
            Command::Shutdown(done) => drop(done),
        }
    }

    /// Does what is wanted of a peer, now if it is greeted, otherwise as soon as it is.
    pub(super) fn want(&mut self, key: PeerKey, errand: Errand) {
        if key == self.local {
            return self.do_here(errand);
        }
        let peer = self.peers.entry(key);
        if peer.is_greeted() {
            return self.do_there(key, errand);
        }
        if matches!((&peer.standing, &errand.want), (Standing::Apart, Want::Bulk(_)))
            && let Some(reason) = self.unreached.reason(&key, Instant::now())
        {
            return errand.want.fail(CallError::Unreachable { peer: key, reason: reason.to_owned() });
        }
        if peer.errands.len() >= MAX_ERRANDS {
            return errand.want.fail(CallError::Refused { peer: key, refusal: Refusal::Busy });
        }
        peer.errands.push_back(errand);
        if matches!(peer.standing, Standing::Apart) {
            self.dial(key);
        }
    }

    /// Does what is wanted of a greeted peer.
    pub(super) fn do_there(&mut self, key: PeerKey, errand: Errand) {
        let peer = identity::peer_id(&key);
        let behaviour = self.swarm.behaviour_mut();
        match errand.want {
            Want::Call(call, reply) => {
                let id = behaviour.control.send_request(&peer, *call);
                self.exchanges.control.insert(id, key, errand.until, reply);
            }
            Want::Park(call, reply) => {
                let id = behaviour.park.send_request(&peer, *call);
                self.exchanges.park.insert(id, key, errand.until, reply);
            }
            Want::Raft(bytes, reply) => {
                let id = behaviour.raft.send_request(&peer, super::behaviour::RaftBytes(bytes));
                self.exchanges.raft.insert(id, key, errand.until, reply);
            }
            Want::Bulk(reply) => self.open_bulk(key, reply),
            // Whoever dropped the receiver waits no more.
            Want::Meet(reply) => drop(reply.send(Ok(()))),
        }
    }

    fn connect(&mut self, contact: &Contact, keep: Keep, reply: oneshot::Sender<Result<(), CallError>>, now: Instant) {
        self.book.learn_contact(contact);
        self.unreached.forget(&contact.key);
        if keep == Keep::Connected && contact.key != self.local {
            self.peers.entry(contact.key).redial.get_or_insert_with(Redial::default);
        }
        self.want(contact.key, Errand { until: now + CONNECT_TIMEOUT, want: Want::Meet(reply) });
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_connected(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, num_established, cause, .. } => {
                self.on_closed(peer_id, connection_id, num_established, cause.as_ref());
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                self.on_dial_failed(connection_id, peer_id, &error);
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                tracing::debug!(from = %send_back_addr, %error, "an inbound connection failed");
            }
            SwarmEvent::NewListenAddr { listener_id, address } => {
                tracing::info!(%address, "listening");
                self.unsettled.remove(&listener_id);
                self.announce_addresses();
            }
            SwarmEvent::ExpiredListenAddr { .. } => self.announce_addresses(),
            SwarmEvent::ListenerClosed { listener_id, reason, .. } => {
                tracing::warn!(?reason, "a listener closed");
                self.unsettled.remove(&listener_id);
                self.announce_addresses();
            }
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "a listener failed"),
            _ => {}
        }
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Control(event) => self.on_control(event),
            BehaviourEvent::Park(event) => self.on_park(event),
            BehaviourEvent::Raft(event) => self.on_raft(event),
            BehaviourEvent::Bulk(event) => self.on_bulk(event),
            BehaviourEvent::Gossip(event) => self.on_gossip(event),
            BehaviourEvent::Kad(event) => self.on_kad(event),
            BehaviourEvent::Identify(event) => self.on_identify(event),
            BehaviourEvent::Mdns(event) => self.on_mdns(event),
            BehaviourEvent::Ping(_) => {}
            BehaviourEvent::Blocked(never) => match never {},
            BehaviourEvent::Limits(never) => match never {},
            BehaviourEvent::MemoryLimit(never) => match never {},
        }
    }

    /// Ends what has waited too long, and does what is due.
    fn sweep(&mut self, now: Instant) {
        self.expire_errands(now);
        self.redial(now);
        self.exchanges.expire(now);
        self.expire_lanes(now);
        for peer in self.strangers.forgive(now) {
            self.swarm.behaviour_mut().blocked.unblock_peer(peer);
        }
        self.records.advance(&mut self.swarm.behaviour_mut().kad, now);
        self.tell_addresses(now);
        self.peers.forget_idle();
    }

    /// Hands a stream to its owner, who may be busy; then it waits.
    pub(super) fn deliver_stream(&mut self, stream: IncomingBulk) {
        if self.streams.len() < MAX_STREAMS_WAITING {
            self.streams.push_back(stream);
        } else {
            tracing::warn!(caller = ?stream.caller, MAX_STREAMS_WAITING, "a bulk stream was reset: nobody takes them");
        }
    }

    async fn end(mut self, done: Option<oneshot::Sender<()>>) {
        let connected: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in connected {
            // It may have closed by itself.
            let _closed = self.swarm.disconnect_peer_id(peer);
        }
        let farewell = async {
            while self.swarm.connected_peers().next().is_some() {
                self.swarm.select_next_some().await;
            }
        };
        if tokio::time::timeout(FAREWELL, farewell).await.is_err() {
            tracing::debug!("some connections did not close in time");
        }
        drop(self);
        if let Some(done) = done {
            // Whoever dropped the receiver waits no more.
            let _unheard = done.send(());
        }
    }
}

/// An error with its causes, in one line.
pub(super) fn reason(error: &dyn std::error::Error) -> String {
    let text = in_full(error);
    // The transport that looks names up lists its attempts below one another, after words of its own.
    match text.split_once("\n - ") {
        Some((_, attempts)) => attempts.split("\n - ").map(str::trim).collect::<Vec<_>>().join(", "),
        None => text,
    }
}

fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if text.is_empty() {
            text = next;
        } else if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
