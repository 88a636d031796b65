//! A network in memory: it receives the commands of every node's handle, and loses, delays, doubles and reorders what it
//! carries.
//!
//! It keeps the promises of the real one (a caller is who the connection says, calls end within their time, a busy peer is
//! told apart from a silent one) and none beyond them. A wall between two nodes swallows everything, and the connection
//! breaks some seconds later; a node that crashes is gone at once, and its peers learn it now or later.

use crate::flaw::Flaw;
use crate::log::Log;
use crate::names::Names;
use crate::{stream, tell};
use node::chance::Chance;
use node::clock::Clock;
use node::network::{
    BulkStream, CallError, Caller, Command, Inbox, Incoming, IncomingBulk, Keep, Network, News, Outlet, PeerChange,
};
use protocol::codec;
use protocol::digest::Digest;
use protocol::gossip::CLOCK_WINDOW;
use protocol::id::{BuildKey, PeerKey, RequestId};
use protocol::report::Report;
use protocol::request::Cancellation;
use protocol::signed::{Kind, Signed};
use protocol::ticket::Contact;
use protocol::time::Timestamp;
use protocol::wire::{Answer, CONTROL_TIMEOUT, Control, Hello, Offer, PARK_TIMEOUT, Park, Refusal};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

/// How long dialling somebody who does not answer takes.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection survives silence, at least and at most.
const SILENCE: (u64, u64) = (5_000, 20_000);

/// How bad it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// Messages lost, of a thousand.
    pub lost: u64,
    /// Calls that arrive twice, of a thousand.
    pub doubled: u64,
    /// Streams that stand still, of a thousand.
    pub stalled: u64,
    /// The longest usual delay; one message in twenty takes up to ten times as long.
    pub delay_ms: u64,
}

impl Weather {
    /// A good day.
    pub(crate) const CALM: Self = Self { lost: 0, doubled: 0, stalled: 0, delay_ms: 20 };

    /// A bad one.
    pub(crate) fn storm(chance: &Chance) -> Self {
        Self {
            lost: chance.below(60),
            doubled: chance.below(40),
            stalled: chance.below(60),
            delay_ms: [5, 50, 300, 1_000][chance.below(4) as usize],
        }
    }
}

/// Whether others can dial a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Everybody.
    Open,
    /// Nobody: it dials out, like a command or a node behind a home router.
    DialsOnly,
}

/// How a node serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// To the end.
    Steady,
    /// Half of its streams stand still somewhere.
    Stalls,
}

/// How a node disappears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The system closes its connections.
    Noticed,
    /// Its peers hear nothing any more.
    Silent,
}

/// A node as the network knows it.
#[derive(Clone, Debug)]
pub(crate) struct Plug {
    /// Its key.
    pub key: PeerKey,
    /// Whether it can be dialled.
    pub reach: Reach,
    /// Its clock.
    pub clock: Clock,
    /// Whether what it serves keeps coming.
    pub pace: Pace,
    /// What it says first.
    pub hello: Hello,
    /// Cancelled when it crashes.
    pub life: CancellationToken,
}

/// The network of one run. Clones are the same.
#[derive(Clone)]
pub(crate) struct Net {
    state: Arc<Mutex<State>>,
    chance: Chance,
    log: Log,
    flaw: Flaw,
}

struct State {
    weather: Weather,
    peers: BTreeMap<PeerKey, Peer>,
    /// The last offer, for a network that gives it twice.
    offer: Option<Offer>,
    links: BTreeMap<Pair, Link>,
    walls: BTreeSet<Pair>,
    provided: BTreeMap<BuildKey, BTreeSet<PeerKey>>,
    links_made: u64,
}

#[derive(Clone)]
struct Peer {
    plug: Plug,
    outlet: Outlet,
    changes: broadcast::Sender<PeerChange>,
}

/// A connection; `number` tells it from a later one between the same two.
#[derive(Clone)]
struct Link {
    number: u64,
    broken: CancellationToken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pair(PeerKey, PeerKey);

impl Pair {
    fn of(one: PeerKey, other: PeerKey) -> Self {
        if one <= other { Self(one, other) } else { Self(other, one) }
    }

    fn has(&self, peer: PeerKey) -> bool {
        self.0 == peer || self.1 == peer
    }
}

/// A call over one of the two protocols.
trait Call: Clone + Send + serde::Serialize + 'static {
    const WITHIN: Duration;

    fn name(&self) -> String;
    /// What it is about, in the names of a story.
    fn about(&self, names: &mut Names) -> String;
    /// Whether it may arrive twice: a second reader of a growing log would be woken in no fixed order.
    fn may_double(&self) -> bool;
    fn hand(self, caller: Caller, outlet: &Outlet) -> Option<oneshot::Receiver<Answer>>;
}

impl Call for Control {
    const WITHIN: Duration = CONTROL_TIMEOUT;

    fn name(&self) -> String {
        first_word(&format!("{self:?}"))
    }

    fn about(&self, names: &mut Names) -> String {
        match self {
            Self::Submit { request, .. } => names.request(RequestId(request.id())),
            Self::Find(key)
            | Self::Missing { build_key: key }
            | Self::Evicted { build_key: key }
            | Self::Holding { build_key: key, .. } => names.key(*key),
            Self::Refuse { lease, .. } | Self::HandBack { lease } => names.lease(*lease),
            Self::Heartbeat { pulses } => {
                tell::leases(names, &pulses.iter().map(|pulse| pulse.lease).collect::<Vec<_>>())
            }
            Self::Report(report) => {
                report.payload_unchecked::<Report>().map(|report| names.lease(report.lease)).unwrap_or_default()
            }
            Self::Cancel(cancellation) => cancellation
                .payload_unchecked::<Cancellation>()
                .map(|cancellation| names.request(cancellation.request))
                .unwrap_or_default(),
            _ => String::new(),
        }
    }

    fn may_double(&self) -> bool {
        true
    }

    fn hand(self, caller: Caller, outlet: &Outlet) -> Option<oneshot::Receiver<Answer>> {
        let (reply, answer) = oneshot::channel();
        outlet.control.try_send(Incoming { caller, call: self, reply }).ok().map(|()| answer)
    }
}

impl Call for Park {
    const WITHIN: Duration = PARK_TIMEOUT;

    fn name(&self) -> String {
        first_word(&format!("{self:?}"))
    }

    fn about(&self, names: &mut Names) -> String {
        match self {
            Self::Claim { leases, .. } if leases.is_empty() => "with nothing to do".to_owned(),
            Self::Claim { leases, .. } => format!("beside {}", tell::leases(names, leases)),
            Self::Watch { request, .. } | Self::FollowLog { request, .. } => names.request(*request),
            Self::FollowLease { lease, .. } => names.lease(*lease),
            Self::Owner(_) => String::new(),
        }
    }

    fn may_double(&self) -> bool {
        !matches!(self, Self::FollowLease { .. })
    }

    fn hand(self, caller: Caller, outlet: &Outlet) -> Option<oneshot::Receiver<Answer>> {
        let (reply, answer) = oneshot::channel();
        outlet.park.try_send(Incoming { caller, call: self, reply }).ok().map(|()| answer)
    }
}

fn first_word(text: &str) -> String {
    text.chars().take_while(char::is_ascii_alphanumeric).collect()
}

impl Net {
    /// No nodes, calm.
    pub(crate) fn new(chance: Chance, log: Log, flaw: Flaw) -> Self {
        let state = State {
            weather: Weather::CALM,
            peers: BTreeMap::new(),
            offer: None,
            links: BTreeMap::new(),
            walls: BTreeSet::new(),
            provided: BTreeMap::new(),
            links_made: 0,
        };
        Self { state: Arc::new(Mutex::new(state)), chance, log, flaw }
    }

    /// Changes the weather.
    pub(crate) fn set_weather(&self, weather: Weather) {
        self.log.weather(|_| format!("{weather:?}"));
        self.locked().weather = weather;
    }

    /// A node comes up.
    pub(crate) fn join(&self, plug: Plug) -> (Network, Inbox) {
        let (network, mut commands, changes) = Network::channel(plug.key);
        let (outlet, inbox) = Inbox::channel();
        let (key, life) = (plug.key, plug.life.clone());
        self.break_links(|pair| pair.has(key));
        {
            let mut state = self.locked();
            state.peers.insert(key, Peer { plug, outlet, changes });
        }
        let net = self.clone();
        tokio::spawn(async move {
            loop {
                let command = tokio::select! {
                    biased;
                    () = life.cancelled() => return,
                    command = commands.recv() => command,
                };
                let Some(command) = command else { return };
                net.carry_out(key, &life, command);
            }
        });
        (network, inbox)
    }

    /// A node is gone: nothing that it still does reaches anybody.
    pub(crate) fn leave(&self, key: PeerKey, exit: Exit) {
        if let Some(peer) = self.locked().peers.remove(&key) {
            peer.plug.life.cancel();
        }
        match exit {
            Exit::Noticed => self.break_links(|pair| pair.has(key)),
            Exit::Silent => self.break_in_silence(|pair| pair.has(key)),
        }
    }

    /// Nothing passes between two nodes any more.
    pub(crate) fn wall(&self, one: PeerKey, other: PeerKey) {
        let pair = Pair::of(one, other);
        self.log.weather(|say| format!("a wall between {} and {}", say.node(&one), say.node(&other)));
        self.locked().walls.insert(pair);
        self.break_in_silence(|other| *other == pair);
    }

    /// All walls come down.
    pub(crate) fn clear(&self) {
        self.log.weather(|_| "all walls come down".to_owned());
        self.locked().walls.clear();
    }

    fn carry_out(&self, from: PeerKey, life: &CancellationToken, command: Command) {
        let net = self.clone();
        match command {
            Command::Call { peer, call, reply } => {
                errand(life, reply, async move { net.call(from, peer, *call).await });
            }
            Command::Park { peer, call, reply } => {
                errand(life, reply, async move { net.call(from, peer, *call).await });
            }
            Command::Raft { peer, reply, .. } => {
                let nobody = CallError::Unreachable { peer, reason: "one coordinator".to_owned() };
                errand(life, reply, async move { Err(nobody) });
            }
            Command::OpenBulk { peer, reply } => {
                errand(life, reply, async move { net.open_bulk(from, peer).await });
            }
            Command::Connect { contact, keep, reply } => {
                let to = contact.key;
                if keep == Keep::Connected {
                    tokio::spawn(self.clone().keep_connected(from, to, life.clone()));
                }
                errand(life, reply, async move { net.link(from, to).await.map(|_| ()) });
            }
            Command::Provide(key) => {
                self.locked().provided.entry(key).or_default().insert(from);
            }
            Command::Withdraw(key) => {
                if let Some(providers) = self.locked().provided.get_mut(&key) {
                    providers.remove(&from);
                }
            }
            Command::FindProviders { key, found } => {
                tokio::spawn(self.clone().search(from, key, found));
            }
            Command::Whisper(word) => self.whisper(from, &word),
            Command::Greeting(hello) => {
                if let Some(peer) = self.locked().peers.get_mut(&from) {
                    peer.plug.hello = *hello;
                }
                for other in self.linked_to(from) {
                    self.greet(other, from);
                }
            }
            Command::Addresses(reply) => {
                // Whoever asked may have crashed.
                let _gone = reply.send(vec![self.name(from)]);
            }
            Command::Peers(reply) => {
                let contact = |key| Contact { key, addresses: vec![self.name(key)] };
                let _gone = reply.send(self.linked_to(from).into_iter().map(contact).collect());
            }
            Command::Shutdown(reply) => {
                self.break_links(|pair| pair.has(from));
                let _gone = reply.send(());
            }
        }
    }

    async fn call<C: Call>(&self, from: PeerKey, to: PeerKey, call: C) -> Result<Answer, CallError> {
        let until = Instant::now() + C::WITHIN;
        let what = Word::of(&call, &self.log);
        if from == to {
            let Some((answer, _)) = self.hand(from, to, call) else { return Ok(Answer::Refused(Refusal::Busy)) };
            return Ok(answer.await.unwrap_or(Answer::Refused(Refusal::Busy)));
        }
        let Ok(linked) = timeout_at(until, self.link(from, to)).await else { return Err(CallError::Timeout(to)) };
        let link = linked?;
        let carried = async {
            self.pass(from, to, &what).await;
            if call.may_double() && self.one_in_a_thousand(self.weather().doubled) {
                tokio::spawn(self.clone().deliver_again(from, to, call.clone(), what.clone()));
            }
            let Some((answer, life)) = self.hand(from, to, call) else { return Ok(Answer::Refused(Refusal::Busy)) };
            let answer = answer.await;
            if life.is_cancelled() {
                std::future::pending::<()>().await;
            }
            let answer = answer.unwrap_or(Answer::Refused(Refusal::Busy));
            let answer = self.flaw.distort(answer, &mut self.locked().offer);
            self.pass(to, from, &Word::of_answer(&what, &answer, &self.log)).await;
            Ok(answer)
        };
        tokio::select! {
            biased;
            () = link.broken.cancelled() => Err(CallError::Broken { peer: to, reason: "the connection closed".to_owned() }),
            done = timeout_at(until, carried) => done.unwrap_or(Err(CallError::Timeout(to))),
        }
    }

    async fn deliver_again<C: Call>(self, from: PeerKey, to: PeerKey, call: C, what: Word) {
        self.delay().await;
        if self.is_walled(from, to) {
            return;
        }
        self.tell(from, to, &what, "comes again");
        if let Some((answer, _)) = self.hand(from, to, call) {
            // Somebody waits for it, and hears nothing.
            let _unheard = answer.await;
        }
    }

    /// One way of a message: it arrives after a while, or never.
    async fn pass(&self, from: PeerKey, to: PeerKey, what: &Word) {
        if self.one_in_a_thousand(self.weather().lost) {
            self.tell(from, to, what, "is lost");
            std::future::pending::<()>().await;
        }
        self.delay().await;
        if self.is_walled(from, to) || !self.locked().peers.contains_key(&to) {
            self.tell(from, to, what, "comes to nobody");
            std::future::pending::<()>().await;
        }
        self.tell(from, to, what, "comes");
    }

    fn tell(&self, from: PeerKey, to: PeerKey, what: &Word, how: &str) {
        self.log.note("net", |say| format!("{} → {}: {} {how}", say.node(&from), say.node(&to), what.text));
        self.log.mark("net", || what.mark.clone());
    }

    fn hand<C: Call>(
        &self,
        from: PeerKey,
        to: PeerKey,
        call: C,
    ) -> Option<(oneshot::Receiver<Answer>, CancellationToken)> {
        let peer = self.locked().peers.get(&to).cloned()?;
        Some((call.hand(Caller { peer: from }, &peer.outlet)?, peer.plug.life))
    }

    async fn open_bulk(&self, from: PeerKey, to: PeerKey) -> Result<BulkStream, CallError> {
        let broken = |reason: &str| CallError::Broken { peer: to, reason: reason.to_owned() };
        let (near, ours) = tokio::io::duplex(64 << 10);
        if from == to {
            let peer = self.locked().peers.get(&to).cloned().ok_or(CallError::Closed)?;
            let incoming = IncomingBulk { caller: Caller { peer: from }, stream: Box::new(ours) };
            peer.outlet.bulk.try_send(incoming).map_err(|_| broken("too many streams"))?;
            return Ok(Box::new(near));
        }
        let link = self.link(from, to).await?;
        self.delay().await;
        let peer = self.locked().peers.get(&to).cloned().ok_or_else(|| broken("the connection closed"))?;
        let (far, theirs) = tokio::io::duplex(64 << 10);
        let incoming = IncomingBulk { caller: Caller { peer: from }, stream: Box::new(theirs) };
        peer.outlet.bulk.try_send(incoming).map_err(|_| broken("too many streams"))?;
        let tired = peer.plug.pace == Pace::Stalls && self.chance.below(2) == 0;
        let stalls = tired || self.one_in_a_thousand(self.weather().stalled);
        let stalls_after = stalls.then(|| self.chance.below(40_000));
        self.log.note("net", |say| {
            let end = stalls_after.map(|bytes| format!(" that will stand still after {bytes} bytes"));
            format!("{} opens a stream to {}{}", say.node(&from), say.node(&to), end.unwrap_or_default())
        });
        let net = self.clone();
        let hold = move || net.is_walled(from, to);
        tokio::spawn(stream::join(ours, far, link.broken, hold, self.chance.clone(), stalls_after));
        Ok(Box::new(near))
    }

    /// The connection between two nodes, dialled if there is none.
    async fn link(&self, from: PeerKey, to: PeerKey) -> Result<Link, CallError> {
        let unreachable = |reason: &str| Err(CallError::Unreachable { peer: to, reason: reason.to_owned() });
        if from == to {
            return Ok(Link { number: 0, broken: CancellationToken::new() });
        }
        if let Some(link) = self.locked().links.get(&Pair::of(from, to)) {
            return Ok(link.clone());
        }
        self.delay().await;
        match self.locked().peers.get(&to).map(|peer| peer.plug.reach) {
            Some(Reach::Open) => {}
            Some(Reach::DialsOnly) => return unreachable("no address"),
            None => return unreachable("connection refused"),
        }
        if self.is_walled(from, to) {
            sleep(DIAL_TIMEOUT).await;
            return unreachable("no answer");
        }
        let link = {
            let mut state = self.locked();
            // The other side may have dialled meanwhile.
            if let Some(link) = state.links.get(&Pair::of(from, to)) {
                return Ok(link.clone());
            }
            if !state.peers.contains_key(&from) {
                return Err(CallError::Closed);
            }
            state.links_made += 1;
            let link = Link { number: state.links_made, broken: CancellationToken::new() };
            state.links.insert(Pair::of(from, to), link.clone());
            link
        };
        self.log.note("net", |say| format!("{} is connected to {}", say.node(&from), say.node(&to)));
        self.greet(to, from);
        self.greet(from, to);
        Ok(link)
    }

    /// Says to `listener` what `speaker` says of itself.
    fn greet(&self, listener: PeerKey, speaker: PeerKey) {
        let state = self.locked();
        let (Some(listener), Some(speaker)) = (state.peers.get(&listener), state.peers.get(&speaker)) else { return };
        let hello = Box::new(Hello { clock: speaker.plug.clock.wall(), ..speaker.plug.hello.clone() });
        // Nobody may be listening.
        let _listeners = listener.changes.send(PeerChange::Greeted { peer: speaker.plug.key, hello });
    }

    async fn keep_connected(self, from: PeerKey, to: PeerKey, life: CancellationToken) {
        while !life.is_cancelled() {
            // It is tried again for as long as the node lives.
            let _linked = self.link(from, to).await;
            sleep(Duration::from_millis(1_000 + self.chance.below(4_000))).await;
        }
    }

    fn break_links(&self, which: impl Fn(&Pair) -> bool) {
        let pairs: Vec<_> = self.locked().links.keys().copied().filter(|pair| which(pair)).collect();
        for pair in pairs {
            self.break_link(pair);
        }
    }

    fn break_link(&self, pair: Pair) {
        let Some(link) = self.locked().links.remove(&pair) else { return };
        self.log.note("net", |say| format!("{} and {} are not connected", say.node(&pair.0), say.node(&pair.1)));
        link.broken.cancel();
        let state = self.locked();
        for (listener, gone) in [(pair.0, pair.1), (pair.1, pair.0)] {
            if let Some(peer) = state.peers.get(&listener) {
                let _listeners = peer.changes.send(PeerChange::Closed { peer: gone });
            }
        }
    }

    /// Breaks these connections after a while, unless they were made anew or what was between them has gone.
    fn break_in_silence(&self, which: impl Fn(&Pair) -> bool) {
        let links: Vec<_> = self
            .locked()
            .links
            .iter()
            .filter(|(pair, _)| which(pair))
            .map(|(pair, link)| (*pair, link.number))
            .collect();
        for (pair, number) in links {
            let (net, wait) = (self.clone(), SILENCE.0 + self.chance.below(SILENCE.1 - SILENCE.0));
            tokio::spawn(async move {
                sleep(Duration::from_millis(wait)).await;
                let same = net.locked().links.get(&pair).is_some_and(|link| link.number == number);
                let alive = net.locked().peers.contains_key(&pair.0) && net.locked().peers.contains_key(&pair.1);
                if same && (net.is_walled(pair.0, pair.1) || !alive) {
                    net.break_link(pair);
                }
            });
        }
    }

    fn whisper(&self, from: PeerKey, word: &Signed) {
        let Some(news) = news_of(word) else { return };
        let others: Vec<_> = self.locked().peers.keys().copied().filter(|key| *key != from).collect();
        for to in others {
            let (net, news) = (self.clone(), news.clone());
            tokio::spawn(async move {
                if net.one_in_a_thousand(net.weather().lost) {
                    return;
                }
                net.delay().await;
                let peer = net.locked().peers.get(&to).cloned();
                let peer = peer.filter(|_| !net.is_walled(from, to));
                if let Some(peer) = peer.filter(|peer| is_timely(&news, peer.plug.clock.wall())) {
                    // Gossip that comes too fast is dropped.
                    let _full = peer.outlet.news.try_send(news);
                }
            });
        }
    }

    async fn search(self, from: PeerKey, key: BuildKey, found: mpsc::Sender<PeerKey>) {
        self.delay().await;
        let providers = self.locked().provided.get(&key).cloned().unwrap_or_default();
        for provider in providers {
            let there = self.locked().peers.contains_key(&provider) && !self.is_walled(from, provider);
            if provider != from && there && found.send(provider).await.is_err() {
                return;
            }
        }
    }

    fn linked_to(&self, key: PeerKey) -> Vec<PeerKey> {
        let state = self.locked();
        let pairs = state.links.keys().filter(|pair| pair.has(key));
        pairs.map(|pair| if pair.0 == key { pair.1 } else { pair.0 }).collect()
    }

    async fn delay(&self) {
        let most = self.weather().delay_ms;
        let most = if self.chance.below(20) == 0 { most * 10 } else { most };
        sleep(Duration::from_millis(1 + self.chance.below(most))).await;
    }

    fn one_in_a_thousand(&self, often: u64) -> bool {
        self.chance.below(1_000) < often
    }

    fn is_walled(&self, one: PeerKey, other: PeerKey) -> bool {
        self.locked().walls.contains(&Pair::of(one, other))
    }

    fn weather(&self) -> Weather {
        self.locked().weather
    }

    fn name(&self, key: PeerKey) -> String {
        self.log.say(|say| say.node(&key))
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a command until it is done, its caller waits no more, or the node is gone.
fn errand<T: Send + 'static>(
    life: &CancellationToken,
    mut reply: oneshot::Sender<Result<T, CallError>>,
    work: impl Future<Output = Result<T, CallError>> + Send + 'static,
) {
    let life = life.clone();
    tokio::spawn(async move {
        let done = tokio::select! {
            biased;
            () = life.cancelled() => return,
            () = reply.closed() => return,
            done = work => done,
        };
        // The caller may have gone in this very moment.
        let _gone = reply.send(done);
    });
}

/// What the gossip of every node asks of a word's time before it goes on.
fn is_timely(news: &News, now: Timestamp) -> bool {
    let issued_at = match news {
        News::Capability { news, .. } => news.issued_at,
        News::Request { news, .. } => news.issued_at(),
    };
    now.since(issued_at) <= CLOCK_WINDOW.duration() && issued_at.since(now) <= CLOCK_WINDOW.duration()
}

/// A message as a line names it.
#[derive(Clone)]
struct Word {
    text: String,
    mark: String,
}

impl Word {
    fn of<C: Call>(call: &C, log: &Log) -> Self {
        if log.is_silent() {
            return Self { text: String::new(), mark: String::new() };
        }
        let about = log.say(|say| call.about(say));
        let text = format!("{} {about}", call.name()).trim_end().to_owned();
        Self { text, mark: Digest::of(&codec::encode(call)).short() }
    }

    fn of_answer(call: &Self, answer: &Answer, log: &Log) -> Self {
        if log.is_silent() {
            return call.clone();
        }
        let said = match answer {
            Answer::Offer(Some(offer)) => log.say(|say| format!("an offer of {}", say.lease(offer.lease))),
            Answer::Offer(None) => "no offer".to_owned(),
            Answer::Revoked(leases) if leases.is_empty() => "go on".to_owned(),
            Answer::Revoked(leases) => log.say(|say| format!("stop {}", tell::leases(say, leases))),
            Answer::Refused(refusal) => format!("refused, {refusal}"),
            Answer::Rejected(rejection) => format!("rejected, {rejection}"),
            other => first_word(&format!("{other:?}")),
        };
        let mark = format!("{} {}", call.mark, Digest::of(&codec::encode(answer)).short());
        Self { text: format!("the answer to {} ({said})", call.text), mark }
    }
}

fn news_of(word: &Signed) -> Option<News> {
    let author = word.key;
    match word.kind {
        Kind::CapabilityNews => Some(News::Capability { author, news: word.open(word.farm).ok()? }),
        Kind::RequestNews => Some(News::Request { author, news: word.open(word.farm).ok()? }),
        _ => None,
    }
}
