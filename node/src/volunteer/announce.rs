//! What a volunteer whispers of itself: when it starts, when its load changes, when the farm grows, every ten minutes, and a
//! farewell.

use super::running::Running;
use crate::catalogue;
use crate::chance::Chance;
use crate::clock::Clock;
use crate::network::{Network, PeerChange};
use protocol::gossip::{CapabilityNews, Leaving, MAX_GOSSIP_BYTES};
use protocol::id::{FarmId, PeerKey};
use protocol::platform::{Acceptance, Capability, Value};
use protocol::signed::{SecretKey, Signed};
use protocol::time::Span;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often it whispers when nothing changes.
const EVERY: Duration = Duration::from_secs(600);
/// How often it looks whether its load changed; also the least time between two whispers.
const LOOK: Duration = Duration::from_secs(5);
/// Up to this many peers each newcomer is told at once; later ones by tens, and wait for the next whisper at most.
const SMALL_FARM: usize = 20;
/// Newcomers that are told apart from peers met before.
const MAX_KNOWN: usize = 1_024;
/// How long others believe it: two whispers may be lost.
const TTL: Span = Span::from_secs(1_800);
/// Room for the envelope around the payload.
const ENVELOPE_BYTES: usize = 256;

/// Whispers for one volunteer.
#[derive(Debug)]
pub struct Announcer {
    /// The network.
    pub network: Network,
    /// The farm.
    pub farm: FarmId,
    /// Signs the news.
    pub secret: SecretKey,
    /// What the volunteer can do.
    pub capability: Capability,
    /// The leases it holds.
    pub running: Running,
    /// Time.
    pub clock: Clock,
    /// Jitter.
    pub chance: Chance,
}

impl Announcer {
    /// Whispers until `stop` is cancelled, then says farewell.
    pub async fn run(self, stop: CancellationToken) {
        let capability = whisperable(self.capability.clone());
        let mut changes = self.network.changes();
        let mut known = BTreeSet::new();
        let mut told: Option<usize> = None;
        let mut next = tokio::time::Instant::now();
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                change = changes.recv() => {
                    // Having lagged loses a newcomer until the next whisper; closed it cannot be while our handle lives.
                    if let Ok(change) = change && grew(&mut known, &change) {
                        // Heard at the next look: by then the newcomer listens.
                        next = tokio::time::Instant::now();
                    }
                    continue;
                }
                _ = look.tick() => {}
            }
            let busy = self.running.leases().len();
            if told != Some(busy) || tokio::time::Instant::now() >= next {
                self.whisper(&capability, busy, Leaving::No).await;
                told = Some(busy);
                next = tokio::time::Instant::now() + self.chance.around(EVERY);
            }
        }
        self.whisper(&capability, 0, Leaving::Yes).await;
    }

    async fn whisper(&self, capability: &Capability, busy: usize, leaving: Leaving) {
        let news = CapabilityNews {
            capability: capability.clone(),
            busy: u16::try_from(busy).unwrap_or(u16::MAX),
            issued_at: self.clock.now(),
            ttl: TTL,
            leaving,
        };
        // A closed network means that the node is ending.
        let _closed = self.network.whisper(Signed::new(&news, self.farm, &self.secret)).await;
    }
}

/// Whether a peer was met for the first time that should hear of this volunteer. Commands listen nowhere and hear no gossip.
fn grew(known: &mut BTreeSet<PeerKey>, change: &PeerChange) -> bool {
    let PeerChange::Greeted { peer, hello } = change else { return false };
    if hello.addresses.is_empty() || known.len() >= MAX_KNOWN || !known.insert(*peer) {
        return false;
    }
    known.len() <= SMALL_FARM || known.len().is_multiple_of(SMALL_FARM / 2)
}

/// The capability as it fits into a whisper: without the list of recipes, and with as many headers and tools as there is room
/// for. What no recipe of the catalogue asks for is left out first.
fn whisperable(mut capability: Capability) -> Capability {
    if !matches!(capability.accepts, Acceptance::Any) {
        capability.accepts = Acceptance::Catalogue(BTreeSet::new());
    }
    let room = MAX_GOSSIP_BYTES - ENVELOPE_BYTES - 64;
    let asked_for = catalogue::keys();
    let of_map = |map: &str| match capability.facts.get(map) {
        Some(Value::Map(names)) => names.keys().map(|name| (map.to_owned(), name.clone())).collect(),
        _ => Vec::new(),
    };
    let mut spare = [of_map("tool"), of_map("header")].concat();
    // The last is left out first.
    spare.sort_by_key(|(map, name)| !asked_for.contains(&format!("{map}.{name}")));
    while protocol::codec::encode(&capability).len() > room {
        let Some((map, name)) = spare.pop() else { break };
        if let Some(Value::Map(names)) = capability.facts.get_mut(&map) {
            names.remove(&name);
        }
        tracing::debug!(map, name, "no room for this in gossip");
    }
    capability
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::time::Timestamp;
    use protocol::wire::{Hello, PROTOCOL_VERSION};
    use std::collections::BTreeMap;

    #[test]
    fn a_capability_is_cut_to_fit_a_whisper() {
        let version = |n| Some((format!("tool-{n:03}"), Value::Version("12.2.0".parse().ok()?)));
        let asked_for = [("zstd-like".to_owned(), Value::Flag(true)), ("make".to_owned(), Value::Flag(true))];
        let tools = (0..100).filter_map(version).chain(asked_for).collect();
        let headers = [("zlib.h".to_owned(), Value::Flag(true))].into();
        let capability = Capability {
            facts: BTreeMap::from([
                ("os".to_owned(), Value::Text("linux".to_owned())),
                ("tool".to_owned(), Value::Map(tools)),
                ("header".to_owned(), Value::Map(headers)),
            ]),
            accepts: Acceptance::Catalogue(BTreeSet::new()),
            slots: 1,
        };
        let cut = whisperable(capability);
        for (key, is_kept) in [
            ("os", true),
            ("tool.tool-000", true),
            ("tool.tool-099", false),
            ("tool.make", true),
            ("tool.zstd-like", false),
        ] {
            assert_eq!(cut.fact(key).is_some(), is_kept, "{key}");
        }
        let news = CapabilityNews {
            capability: cut,
            busy: u16::MAX,
            issued_at: Timestamp::from_millis(u64::MAX),
            ttl: TTL,
            leaving: Leaving::Yes,
        };
        let secret = SecretKey::from_seed(&[1; 32]);
        let signed = Signed::new(&news, FarmId::of(&secret.public()), &secret);
        assert!(protocol::codec::encode(&signed).len() <= MAX_GOSSIP_BYTES);
    }
    #[test]
    fn each_newcomer_of_a_small_farm_is_told_once() {
        let greeted = |nr: u8, addresses: &[&str]| PeerChange::Greeted {
            peer: PeerKey::from_bytes([nr; 32]),
            hello: Box::new(Hello {
                program: "test".to_owned(),
                protocol: PROTOCOL_VERSION,
                charter: None,
                clock: Timestamp::EPOCH,
                capability: None,
                addresses: addresses.iter().map(ToString::to_string).collect(),
            }),
        };
        let daemon = |nr| greeted(nr, &["/ip4/10.0.0.7/tcp/1"]);
        let mut known = BTreeSet::new();
        assert!(!grew(&mut known, &greeted(1, &[])), "a command");
        assert!(grew(&mut known, &daemon(1)));
        assert!(!grew(&mut known, &daemon(1)), "it said Hello again");
        assert!(!grew(&mut known, &PeerChange::Closed { peer: PeerKey::from_bytes([1; 32]) }));
        assert!((2..=20).all(|nr| grew(&mut known, &daemon(nr))));
        assert_eq!((21..=60).filter(|nr| grew(&mut known, &daemon(*nr))).count(), 4, "by tens");
    }
}
