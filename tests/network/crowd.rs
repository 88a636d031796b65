//! Many nodes in one process, over pipes instead of sockets: does an announcement reach all of them, how soon, at what cost.
//!
//! Everybody joins as a ticket has it: it connects to the coordinator and to three others. Servers of the DHT would come to know
//! a hundred more; without them words have further to go, and a thousand nodes fit into one machine. The test has as many as a
//! busy machine can carry and only asks that everybody hears; the bench of the same name has a thousand and looks at the clock.

use futures::StreamExt as _;
use node::chance::Chance;
use node::network::config::{Dht, Limits, Mdns, NetworkConfig, Transports};
use node::network::memory::carried_bytes;
use node::network::{Inbox, Keep, Network, News, start};
use protocol::digest::Digest;
use protocol::gossip::RequestNews;
use protocol::id::{BuildKey, FarmId};
use protocol::signed::{SecretKey, Signed};
use protocol::ticket::Contact;
use protocol::time::Timestamp;
use protocol::wire::{Hello, PROTOCOL_VERSION};
use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

/// Peers that a ticket names beside the coordinator.
const NAMED: usize = 3;
/// Nodes that join at a time.
const AT_A_TIME: usize = 32;
/// How long one node may take to join.
const JOIN: Duration = Duration::from_secs(60);

/// Nodes of one farm.
pub(crate) struct Crowd {
    nodes: Vec<(SecretKey, Network)>,
    heard: mpsc::Receiver<(usize, BuildKey, Instant)>,
}

/// What became of an announcement.
#[derive(Debug)]
pub(crate) struct Spread {
    /// When 999 of 1,000 had heard it, if they did in time.
    pub(crate) reached: Option<Duration>,
    /// How many heard it in all.
    pub(crate) hearers: usize,
    /// Bytes that went through the pipes meanwhile.
    pub(crate) carried_bytes: u64,
}

fn farm() -> FarmId {
    FarmId(Digest::of(b"crowd"))
}

fn config(secret: SecretKey, limits: Limits) -> NetworkConfig {
    let hello = Hello {
        program: "crowd".to_owned(),
        protocol: PROTOCOL_VERSION,
        charter: None,
        clock: Timestamp::EPOCH,
        capability: None,
        addresses: vec![],
    };
    NetworkConfig {
        listen: Transports::Memory.listen_at("here"),
        mdns: Mdns::Off,
        transports: Transports::Memory,
        dht: Dht::Client,
        // The limit is that of a process, and this one holds all of them.
        limits: Limits { memory_bytes: usize::MAX, ..limits },
        ..NetworkConfig::daemon(secret, farm(), hello)
    }
}

impl Crowd {
    /// That many nodes, all of them connected to the first and to some of those before them.
    pub(crate) async fn gather(count: usize) -> Self {
        let (hear, heard) = mpsc::channel(1 << 16);
        let mut nodes: Vec<(SecretKey, Network)> = Vec::new();
        let mut contacts: Vec<Contact> = Vec::new();
        for nr in 0..count {
            let secret = SecretKey::from_seed(Digest::of(&nr.to_be_bytes()).as_bytes());
            let limits = if nr == 0 { Limits::COORDINATOR } else { Limits::VOLUNTEER };
            let (network, Inbox { mut news, .. }) = start(config(secret.clone(), limits)).unwrap();
            let hear = hear.clone();
            tokio::spawn(async move {
                while let Some(news) = news.recv().await {
                    if let News::Request { news: RequestNews::Decided { build_key, .. }, .. } = news {
                        hear.send((nr, build_key, Instant::now())).await.unwrap();
                    }
                }
            });
            contacts.push(Contact { key: network.local(), addresses: network.addresses().await.unwrap() });
            nodes.push((secret, network));
        }
        let chance = Chance::seeded(1);
        let (nodes, contacts) = (nodes, &contacts);
        let joining = nodes.iter().enumerate().skip(1).map(|(nr, (_, network))| {
            let mut named: BTreeSet<usize> = (0..NAMED).map(|_| chance.below(nr as u64) as usize).collect();
            named.insert(0);
            async move {
                for other in named {
                    network.connect(contacts[other].clone(), Keep::Connected, JOIN).await.unwrap();
                }
            }
        });
        futures::stream::iter(joining).buffer_unordered(AT_A_TIME).collect::<()>().await;
        Self { nodes, heard }
    }

    /// One node whispers a word that is new; waits until all the others heard it, at most `within`.
    pub(crate) async fn announce(&mut self, by: usize, within: Duration) -> Spread {
        let (secret, network) = &self.nodes[by];
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let word = BuildKey(Digest::of(&now.as_nanos().to_be_bytes()));
        let issued_at = Timestamp::from_millis(u64::try_from(now.as_millis()).unwrap());
        let news = RequestNews::Decided { build_key: word, issued_at };
        let before = carried_bytes();
        let began = Instant::now();
        network.whisper(Signed::new(&news, farm(), secret)).await.unwrap();
        let enough = (self.nodes.len() * 999).div_ceil(1_000) - 1;
        let mut hearers = BTreeSet::new();
        let mut reached = None;
        while hearers.len() + 1 < self.nodes.len() {
            let left = within.saturating_sub(began.elapsed());
            let Ok(Some((nr, key, at))) = tokio::time::timeout(left, self.heard.recv()).await else { break };
            if key == word {
                hearers.insert(nr);
            }
            if hearers.len() >= enough {
                reached.get_or_insert(at - began);
            }
        }
        Spread { reached, hearers: hearers.len(), carried_bytes: carried_bytes() - before }
    }

    /// How many peers each node is greeted with, least and most.
    #[allow(dead_code, reason = "the bench tells")]
    pub(crate) async fn acquaintances(&self) -> (usize, usize) {
        let mut counts = Vec::new();
        for (_, network) in &self.nodes {
            counts.push(network.peers().await.unwrap().len());
        }
        (counts.iter().copied().min().unwrap_or(0), counts.into_iter().max().unwrap_or(0))
    }
}

#[test]
fn an_announcement_reaches_a_crowd_of_100() {
    /// Enough for a machine that does three other things.
    const PATIENCE: Duration = Duration::from_secs(120);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut crowd = Crowd::gather(100).await;
        // The first may be said before everybody listens.
        for by in [0, 1, 57, 99] {
            let spread = crowd.announce(by, PATIENCE).await;
            let Spread { reached, hearers, carried_bytes } = spread;
            eprintln!("announced by {by}: 99.9 % after {reached:?}, {carried_bytes} bytes carried meanwhile");
            assert_eq!(hearers, 99);
        }
    });
}
