//! The DHT: who holds the artifact of a judged build.
//!
//! Kademlia under the farm's own name. A record is a hint and expires after three hours; a provider says it again on first
//! contact with the network, when the network grows, and each hour with jitter, for the library's first repetition comes
//! twelve hours late and what is said in isolation reaches nobody. No peer acknowledges a record, and one is lost with the
//! connection it is on, so whatever is said anew is said a second time soon after. Values are never stored, and no quorum is ever waited
//! for: in a farm of fewer than twenty servers it cannot be had.

pub(super) mod store;

use super::config::Dht;
use super::gossip::bucket::Bucket;
use super::redial::spread;
use super::{address, identity};
use libp2p::kad::{self, GetProvidersOk, ProgressStep, QueryId, QueryResult, RecordKey};
use libp2p::{Multiaddr, PeerId, StreamProtocol};
use protocol::id::{BuildKey, PeerKey};
use protocol::ticket::MAX_ADDRESSES;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;
use store::{ProviderStore, StoreLimits};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How long others believe that we provide.
const RECORD_TTL: Duration = Duration::from_secs(3 * 3_600);
/// How soon whatever is said anew is said a second time.
const SECOND: Duration = Duration::from_secs(5);
/// How often it is said again.
const REPEAT: Duration = Duration::from_secs(3_600);
/// How long to wait for more newcomers before everything is said again.
const SETTLE: Duration = Duration::from_millis(200);
/// How often everything is said again at once, and how often after that: peers may come and go all the time.
const ROUNDS: u32 = 32;
const ROUND_EVERY: Duration = Duration::from_secs(600);
/// How long a server may be silent to one dial after another before it counts as gone.
const SILENCE: Duration = Duration::from_secs(20);
/// Announcements under way at a time.
const MAX_PUBLISHING: usize = 8;
/// Searches under way at a time.
const MAX_SEARCHES: usize = 64;
/// Builds that this node announces at most; an hourly round of them costs about 15 calls a second.
const MAX_PROVIDED: usize = 2_000;
/// Below this many servers every newcomer becomes one of the closest to every key.
const SMALL_FARM: usize = 20;
/// How long a search waits for the first server: what a peer serves is known a moment after it was greeted.
const FIRST_SERVER: Duration = Duration::from_secs(1);
/// How long a search may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) type Behaviour = kad::Behaviour<ProviderStore>;

/// Kademlia as this farm uses it.
pub(super) fn behaviour(name: StreamProtocol, local: PeerId, part: Dht) -> Behaviour {
    let mut config = kad::Config::new(name);
    config
        .set_query_timeout(QUERY_TIMEOUT)
        .set_provider_record_ttl(Some(RECORD_TTL))
        .set_provider_publication_interval(None)
        .set_publication_interval(None)
        .set_replication_interval(None)
        .set_max_packet_size(128 << 10);
    let mut kad = kad::Behaviour::with_config(local, ProviderStore::new(local, StoreLimits::default()), config);
    kad.set_mode(Some(match part {
        Dht::Server => kad::Mode::Server,
        Dht::Client => kad::Mode::Client,
    }));
    kad
}

/// Takes a peer that serves the DHT into the routing table, at the places where it says it is now or where it is connected. The
/// library keeps every place that a peer ever told, and each would be dialled in vain when the peer has gone: one that starts
/// at another port each time leaves more of them each time.
pub(super) fn place(kad: &mut Behaviour, peer: &PeerId, said: &[Multiaddr], connected: &[Multiaddr]) {
    for address in said.iter().take(MAX_ADDRESSES) {
        kad.add_address(peer, address.clone());
    }
    if said.is_empty() {
        return;
    }
    for address in placed(kad, peer) {
        let place = address::without_peer(address.clone());
        if !said.contains(&place) && !connected.contains(&place) {
            // Not the last of them: those said are there.
            kad.remove_address(peer, &address);
        }
    }
}

/// Where the routing table has a peer.
fn placed(kad: &mut Behaviour, peer: &PeerId) -> Vec<Multiaddr> {
    let Some(bucket) = kad.kbucket(*peer) else { return Vec::new() };
    let entry = bucket.iter().find(|entry| entry.node.key.preimage() == peer);
    entry.map_or_else(Vec::new, |entry| entry.node.value.iter().cloned().collect())
}

/// What this node provides and searches.
#[derive(Debug, Default)]
pub(super) struct Records {
    provided: BTreeMap<BuildKey, Saying>,
    /// Whether it was said that there is no more room in `provided`.
    is_full_told: bool,
    due: BTreeSet<(Instant, BuildKey)>,
    publishing: HashSet<QueryId>,
    searches: HashMap<QueryId, Search>,
    /// Searches that wait for the first server, until this time at most.
    early: Vec<(Instant, BuildKey, mpsc::Sender<PeerKey>)>,
    servers: HashSet<PeerId>,
    /// Servers that did not answer, and since when.
    silent: HashMap<PeerId, Instant>,
    /// How often everything may be said again.
    rounds: Option<Bucket>,
    /// When everything is to be said again, because the network grew.
    all_again: Option<Instant>,
}

/// When a build is to be said, and whether that is for the first time since it, or the network, was new.
#[derive(Clone, Copy, Debug)]
struct Saying {
    due: Instant,
    turn: Turn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    First,
    Later,
}

#[derive(Debug)]
struct Search {
    found: mpsc::Sender<PeerKey>,
    seen: HashSet<PeerId>,
}

impl Records {
    /// Says that this node holds the build's artifact, now and until withdrawn.
    pub(super) fn provide(&mut self, kad: &mut Behaviour, key: BuildKey, now: Instant) {
        if self.provided.len() >= MAX_PROVIDED && !self.provided.contains_key(&key) {
            // Once: a node with many builds would say so of each, at every start.
            if !std::mem::replace(&mut self.is_full_told, true) {
                tracing::warn!(
                    MAX_PROVIDED,
                    "too many builds to announce; the others are found through coordinators only"
                );
            }
            return;
        }
        self.schedule(key, Saying { due: now, turn: Turn::First });
        self.advance(kad, now);
    }

    /// Stops saying so.
    pub(super) fn withdraw(&mut self, kad: &mut Behaviour, key: BuildKey) {
        if let Some(saying) = self.provided.remove(&key) {
            self.due.remove(&(saying.due, key));
        }
        kad.stop_providing(&record_key(key));
    }

    /// Looks for providers; each is sent once, as soon as it is heard of, and the channel closes when the search ends.
    pub(super) fn find(&mut self, kad: &mut Behaviour, key: BuildKey, found: mpsc::Sender<PeerKey>, now: Instant) {
        if self.searches.len() + self.early.len() >= MAX_SEARCHES {
            tracing::warn!(%key, MAX_SEARCHES, "too many searches at a time; this one finds nothing");
        } else if self.servers.is_empty() {
            self.early.push((now + FIRST_SERVER, key, found));
        } else {
            self.search(kad, key, found);
        }
    }

    fn search(&mut self, kad: &mut Behaviour, key: BuildKey, found: mpsc::Sender<PeerKey>) {
        let query = kad.get_providers(record_key(key));
        self.searches.insert(query, Search { found, seen: HashSet::new() });
    }

    /// Says what is due, a bounded number at a time, and ends searches that nobody waits for.
    pub(super) fn advance(&mut self, kad: &mut Behaviour, now: Instant) {
        let rounds = self.rounds.get_or_insert_with(|| Bucket::full(ROUNDS, ROUND_EVERY, now));
        if self.all_again.is_some_and(|at| at <= now) && rounds.take(now) {
            self.all_again = None;
            // What is due already keeps its place: a round does not begin again before its end.
            let dues: Vec<_> = self.provided.iter().map(|(key, saying)| (*key, saying.due.min(now))).collect();
            dues.into_iter().for_each(|(key, due)| self.schedule(key, Saying { due, turn: Turn::First }));
        }
        while self.publishing.len() < MAX_PUBLISHING {
            let Some((due, key)) = self.due.first().copied() else { break };
            if due > now {
                break;
            }
            let pause = match self.provided.get(&key).map(|saying| saying.turn) {
                Some(Turn::First) => SECOND,
                Some(Turn::Later) | None => REPEAT,
            };
            self.schedule(key, Saying { due: now + spread(pause), turn: Turn::Later });
            match kad.start_providing(record_key(key)) {
                Ok(query) => drop(self.publishing.insert(query)),
                Err(error) => tracing::warn!(%key, %error, "a build cannot be announced"),
            }
        }
        let has_server = !self.servers.is_empty();
        for (_, key, found) in self.early.extract_if(.., |(until, ..)| has_server || *until <= now).collect::<Vec<_>>()
        {
            self.search(kad, key, found);
        }
        self.searches.retain(|query, search| {
            let wanted = !search.found.is_closed();
            if !wanted && let Some(mut query) = kad.query_mut(query) {
                query.finish();
            }
            wanted
        });
    }

    /// Takes in what Kademlia reports; returns providers that were not heard of before.
    pub(super) fn on_event(&mut self, kad: &mut Behaviour, event: kad::Event, now: Instant) -> Vec<PeerId> {
        let mut news = Vec::new();
        match event {
            kad::Event::OutboundQueryProgressed { id, result, step, .. } => news = self.on_progress(id, result, &step),
            kad::Event::RoutingUpdated { peer, is_new_peer: true, old_peer, .. } => {
                if let Some(old) = old_peer {
                    self.left(&old);
                }
                self.on_server(peer, now);
            }
            _ => {}
        }
        self.advance(kad, now);
        news
    }

    /// A peer did not answer where the routing table has it. One that does so again some time later leaves the table: there it
    /// would be dialled by every search, and named to everybody who asks, for as long as the farm lives. It is taken in again as
    /// soon as it connects, as a newcomer, for it may have lost what it held of the DHT.
    pub(super) fn on_vain_dial(&mut self, kad: &mut Behaviour, peer: &PeerId, now: Instant) {
        if !self.servers.contains(peer) {
            return;
        }
        let since = *self.silent.entry(*peer).or_insert(now);
        if now - since >= SILENCE {
            kad.remove_peer(peer);
            self.left(peer);
        }
    }

    /// Somebody else answered at this place.
    pub(super) fn on_elsewhere(&mut self, kad: &mut Behaviour, peer: &PeerId, place: &Multiaddr) {
        if kad.remove_address(peer, &address::without_peer(place.clone())).is_some() {
            self.left(peer);
        }
    }

    /// A peer is connected.
    pub(super) fn on_reached(&mut self, peer: &PeerId) {
        self.silent.remove(peer);
    }

    fn left(&mut self, peer: &PeerId) {
        self.servers.remove(peer);
        self.silent.remove(peer);
    }

    fn on_server(&mut self, peer: PeerId, now: Instant) {
        if !self.servers.insert(peer) {
            return;
        }
        let count = self.servers.len();
        if count <= SMALL_FARM || count.is_multiple_of(SMALL_FARM / 2) {
            self.all_again.get_or_insert(now + SETTLE);
        }
    }

    fn on_progress(&mut self, id: QueryId, result: QueryResult, step: &ProgressStep) -> Vec<PeerId> {
        let mut news = Vec::new();
        if let QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { providers, .. })) = result
            && let Some(search) = self.searches.get_mut(&id)
        {
            for peer in providers {
                let Some(key) = identity::peer_key(&peer) else { continue };
                if search.seen.insert(peer) {
                    news.push(peer);
                    if search.found.try_send(key).is_err() {
                        tracing::debug!(%peer, "a provider was found that nobody waits for");
                    }
                }
            }
        }
        if step.last {
            self.publishing.remove(&id);
            self.searches.remove(&id);
        }
        news
    }

    fn schedule(&mut self, key: BuildKey, saying: Saying) {
        if let Some(before) = self.provided.insert(key, saying) {
            self.due.remove(&(before.due, key));
        }
        self.due.insert((saying.due, key));
    }
}

/// The key under which a build's providers are found.
pub(super) fn record_key(key: BuildKey) -> RecordKey {
    RecordKey::new(key.0.as_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use protocol::digest::Digest;

    #[test]
    fn a_peer_that_moves_leaves_no_old_places_behind() {
        let mut kad = behaviour(StreamProtocol::new("/test/kad/1"), PeerId::random(), Dht::Server);
        let (peer, other) = (PeerId::random(), PeerId::random());
        let ports = |kad: &mut Behaviour, peer| -> Vec<Multiaddr> {
            placed(kad, &peer).into_iter().map(address::without_peer).collect()
        };
        place(&mut kad, &other, &[at(1)], &[]);
        for port in 10..50 {
            place(&mut kad, &peer, &[at(port), at(port + 100)], &[at(10)]);
        }
        assert_eq!(ports(&mut kad, peer), [at(10), at(49), at(149)], "where it is connected, and where it says it is");
        place(&mut kad, &peer, &[], &[]);
        assert_eq!(ports(&mut kad, peer).len(), 3, "whoever says nothing has not moved");
        place(&mut kad, &peer, &[at(7)], &[]);
        assert_eq!((ports(&mut kad, peer), ports(&mut kad, other)), (vec![at(7)], vec![at(1)]));
    }

    fn at(port: u16) -> Multiaddr {
        format!("/ip4/192.0.2.7/tcp/{port}").parse().unwrap()
    }

    /// A table with a server at each of these places.
    fn table<const N: usize>(places: &[Multiaddr], now: Instant) -> (Behaviour, Records, [PeerId; N]) {
        let mut kad = behaviour(StreamProtocol::new("/test/kad/1"), PeerId::random(), Dht::Server);
        let (mut records, servers) = (Records::default(), [(); N].map(|()| PeerId::random()));
        for server in &servers {
            place(&mut kad, server, places, &[]);
            records.on_server(*server, now);
        }
        records.advance(&mut kad, now + SETTLE);
        (kad, records, servers)
    }

    #[test]
    fn who_stays_silent_leaves_the_routing_table_and_comes_back_as_a_newcomer() {
        let now = Instant::now();
        let (mut kad, mut records, [gone, late, stays]) = table(&[at(1)], now);
        for (peer, silence) in [(gone, SILENCE), (late, SILENCE / 2)] {
            records.on_vain_dial(&mut kad, &peer, now);
            records.on_vain_dial(&mut kad, &peer, now + silence);
        }
        records.on_reached(&late);
        records.on_vain_dial(&mut kad, &late, now + 2 * SILENCE);
        assert_eq!([gone, late, stays].map(|peer| placed(&mut kad, &peer).len()), [0, 1, 1]);
        records.on_server(late, now);
        assert_eq!(records.all_again, None);
        records.on_server(gone, now);
        assert_eq!(records.all_again, Some(now + SETTLE));
        records.on_vain_dial(&mut kad, &PeerId::random(), now);
        assert_eq!(records.silent.len(), 1, "only servers are looked after");
    }

    #[test]
    fn where_somebody_else_answers_a_server_is_looked_for_no_more() {
        let (mut kad, mut records, [server]) = table(&[at(1), at(2)], Instant::now());
        records.on_elsewhere(&mut kad, &server, &at(1).with_p2p(server).unwrap());
        records.on_elsewhere(&mut kad, &server, &at(7));
        assert_eq!(placed(&mut kad, &server).len(), 1);
        assert!(records.servers.contains(&server));
        records.on_elsewhere(&mut kad, &server, &at(2));
        assert!(placed(&mut kad, &server).is_empty() && records.servers.is_empty());
    }

    #[test]
    fn servers_that_come_and_go_do_not_make_everything_be_said_all_the_time() {
        let (mut kad, mut records, [server]) = table(&[at(1)], Instant::now());
        let (start, keys) = (Instant::now(), [b"lua", b"zst"].map(|name| BuildKey(Digest::of(name))));
        keys.iter().for_each(|key| records.provide(&mut kad, *key, start));
        let mut rounds = 0;
        for nr in 0..500 {
            let now = start + SETTLE * 2 * nr;
            records.left(&server);
            records.on_server(server, now);
            records.advance(&mut kad, now + SETTLE);
            rounds += u32::from(records.all_again.is_none());
        }
        assert_eq!(rounds, ROUNDS - 1, "one was when the table began");
        records.advance(&mut kad, start + ROUND_EVERY + SETTLE);
        assert_eq!(records.all_again, None, "the newcomer is told as soon as it may be");
    }

    #[test]
    fn what_is_said_anew_is_said_twice_then_each_hour() {
        let mut kad = behaviour(StreamProtocol::new("/test/kad/1"), PeerId::random(), Dht::Server);
        let (mut records, key, start) = (Records::default(), BuildKey(Digest::of(b"lua")), Instant::now());
        let next = |records: &Records| records.due.first().map_or(Duration::ZERO, |(due, _)| *due - start);
        records.provide(&mut kad, key, start);
        let second = next(&records);
        assert!(second > Duration::ZERO && second <= SECOND * 2, "{second:?}");
        records.advance(&mut kad, start + second);
        let third = next(&records);
        assert!(third >= second + REPEAT / 2, "{third:?}");
        // The network grows: the same once more.
        records.on_server(PeerId::random(), start + third);
        records.advance(&mut kad, start + third + SETTLE);
        assert!(next(&records) <= third + SETTLE + SECOND * 2, "{:?}", next(&records));
        records.withdraw(&mut kad, key);
        assert_eq!(records.due.len(), 0);
    }
}
