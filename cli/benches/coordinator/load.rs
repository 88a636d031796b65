//! Many clients of one coordinator: each a peer with a connection of its own, signing every request that it submits.

use node::config::{CoordinatorConfig, FarmChoice, NodeConfig, Reach, StoreLimit, WallClock};
use node::home::Home;
use node::network::config::{Mdns, NetworkConfig, Transports};
use node::network::{self, Keep, Network};
use node::node::Node;
use protocol::farm::command::{JobState, Submitted};
use protocol::id::{FarmId, PeerKey, RequestId};
use protocol::request::{BuildSpec, DEFAULT_TTL, Demand, OptionValue, Priority, Request, Subscription};
use protocol::signed::{SecretKey, Signed};
use protocol::ticket::{Contact, Ticket};
use protocol::time::Timestamp;
use protocol::wire::{Answer, Control, Hello, PROTOCOL_VERSION};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const SOON: Duration = Duration::from_secs(10);

/// A new farm's coordinator in this process, so that its waits for the disk can be counted. No limit is lifted.
pub(crate) async fn coordinator(home: &Path) -> Node {
    let config = NodeConfig {
        home: Home::open(home).unwrap(),
        farm: FarmChoice::Found("bench".parse().unwrap()),
        reach: Reach {
            listen: Transports::Both.listen_at("127.0.0.1"),
            external: Vec::new(),
            mdns: Mdns::Off,
            transports: Transports::Both,
        },
        store: StoreLimit::OfDisk,
        coordinator: Some(CoordinatorConfig { mail: None, wall_clock: WallClock::Checked }),
        volunteer: None,
    };
    Node::start(config).await.unwrap()
}

/// Makes requests for builds that nobody has asked for yet.
#[derive(Clone, Debug)]
pub(crate) struct Requests {
    farm: FarmId,
    issued_at: Timestamp,
    template: BuildSpec,
}

impl Requests {
    /// All of them issued at the same time, so that the same number and requester are the same request again.
    pub(crate) fn new(farm: FarmId, issued_at: Timestamp) -> Self {
        let recipe = node::catalogue::by_name("hello").unwrap();
        let require = ["os=linux", "arch=x86_64"].map(|word| word.parse().unwrap());
        let template = recipe.spec(recipe.resolve(&[]).unwrap().options, None, &require).unwrap();
        Self { farm, issued_at, template }
    }

    /// What the build `nr` is, the signed request for it, and whom to tell: every second requester leaves an address.
    pub(crate) fn sign(&self, nr: u64, requester: &SecretKey) -> (BuildSpec, Signed, Subscription) {
        let mut spec = self.template.clone();
        spec.options.insert("greeting".parse().unwrap(), OptionValue::Text(format!("bench-{nr}")));
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&nr.to_be_bytes());
        let request = Request {
            recipe: "hello".parse().unwrap(),
            spec: spec.clone(),
            effort: BTreeMap::new(),
            priority: Priority::Normal,
            nonce,
            issued_at: self.issued_at,
            ttl: DEFAULT_TTL,
        };
        let signed = Signed::new(&request, self.farm, requester);
        let address = nr.is_multiple_of(2).then(|| format!("person{nr}@example.org").parse().unwrap());
        let subscription = Subscription { request: RequestId(signed.id()), address, demand: Demand::default() };
        (spec, signed, subscription)
    }
}

pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap())
}

/// One client, connected.
#[derive(Debug)]
pub(crate) struct Client {
    network: Network,
    coordinator: PeerKey,
    requester: SecretKey,
    requests: Requests,
}

/// What one client saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// How long each submission took until it was acknowledged.
    pub(crate) latencies: Vec<Duration>,
    /// Submissions during which no wait for the disk ended.
    pub(crate) unsynced: u64,
}

impl Client {
    /// Connects as the program does, with limits and transports of a command.
    pub(crate) async fn connect(ticket: &Ticket, nr: u8) -> Self {
        let hello = Hello {
            program: "bench".to_owned(),
            protocol: PROTOCOL_VERSION,
            charter: None,
            clock: now(),
            capability: None,
            addresses: Vec::new(),
        };
        let config = NetworkConfig::command(SecretKey::from_seed(&[nr; 32]), ticket.farm, hello);
        let (network, _no_calls) = network::start(config).unwrap();
        let contact: Contact = ticket.coordinators[0].clone();
        let coordinator = contact.key;
        network.connect(contact, Keep::Connected, SOON).await.unwrap();
        let requester = SecretKey::from_seed(&[nr | 0x80; 32]);
        Self { network, coordinator, requester, requests: Requests::new(ticket.farm, now()) }
    }

    /// So many, all at the same time.
    pub(crate) async fn connect_all(ticket: &Ticket, count: u8) -> Vec<Self> {
        futures::future::join_all((0..count).map(|nr| Self::connect(ticket, nr))).await
    }

    /// Submits these requests one after the other. `syncs` tells how often the coordinator has waited for its disk.
    async fn submit(&self, numbers: impl Iterator<Item = u64>, syncs: impl Fn() -> u64) -> Seen {
        let mut seen = Seen::default();
        for nr in numbers {
            let (begun, before) = (Instant::now(), syncs());
            let (_, request, subscription) = self.requests.sign(nr, &self.requester);
            let subscriptions = vec![Signed::new(&subscription, request.farm, &self.requester)];
            let answer = self.network.call(self.coordinator, Control::Submit { request, subscriptions }).await.unwrap();
            seen.unsynced += u64::from(syncs() == before);
            seen.latencies.push(begun.elapsed());
            let queued = matches!(
                &answer,
                Answer::Submitted { submitted: Submitted::Attached { state: JobState::Queued, .. }, .. }
            );
            assert!(queued, "{answer:?}");
        }
        seen
    }

    /// How many jobs the coordinator says are queued.
    pub(crate) async fn queued(&self) -> u64 {
        match self.network.call(self.coordinator, Control::Farm).await.unwrap() {
            Answer::Farm(view) => view.queued,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn leave(&self) {
        self.network.shut_down().await;
    }
}

/// A load that ran to its end.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) submissions: u64,
    pub(crate) took: Duration,
    pub(crate) unsynced: u64,
    /// Ascending.
    latencies: Vec<Duration>,
}

impl Load {
    /// All clients at once, each with one submission on its way at a time, until `numbers` are submitted.
    pub(crate) async fn run(
        clients: Vec<Client>,
        numbers: std::ops::Range<u64>,
        syncs: impl Fn() -> u64 + Clone + Send + 'static,
    ) -> (Vec<Client>, Self) {
        let step = clients.len();
        let begun = Instant::now();
        let submitting: Vec<_> = clients
            .into_iter()
            .zip(numbers.start..)
            .map(|(client, first)| {
                let (numbers, syncs) = ((first..numbers.end).step_by(step), syncs.clone());
                tokio::spawn(async move {
                    let seen = client.submit(numbers, syncs).await;
                    (client, seen)
                })
            })
            .collect();
        let mut clients = Vec::with_capacity(step);
        let mut load =
            Self { submissions: numbers.end - numbers.start, took: Duration::ZERO, unsynced: 0, latencies: Vec::new() };
        for submitted in submitting {
            let (client, seen) = submitted.await.unwrap();
            clients.push(client);
            load.unsynced += seen.unsynced;
            load.latencies.extend(seen.latencies);
        }
        load.took = begun.elapsed();
        load.latencies.sort_unstable();
        (clients, load)
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.submissions as f64 / self.took.as_secs_f64()
    }

    /// The latency that so many in a hundred stay under.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        self.latencies[(self.latencies.len() - 1) * percent / 100]
    }
}
