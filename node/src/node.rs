//! A daemon put together: home, network, store and the roles it was given.
//!
//! ```text
//! lock home ─► farm ─► index, store ─► network ─► [ledger, coordinator, mailer] ─► charter ─► [sandbox, volunteer] ─► serve
//! ```
//!
//! [`Node::start`] returns when the node serves, or says why it cannot; [`Node::run`] serves until the token is cancelled and
//! then ends in order: the volunteer hands its leases back, the coordinator stops, the network says goodbye, the ledger closes.

use crate::artifact::Store;
use crate::artifact::store::StoreError;
use crate::artifact::transfer::{self, Permission};
use crate::artifact::upload::{Both, Uploads};
use crate::chance::Chance;
use crate::clock::Clock;
use crate::config::{NodeConfig, Reach};
use crate::coordinator::ledger::{EVENTS_KEPT, Ledger, LedgerError};
use crate::coordinator::mailer::{Mailer, MailerError};
use crate::coordinator::replica::{Beginning, CarryError, OpenError, Replica, ReplicaConfig, Seat};
use crate::coordinator::wal::WalConfig;
use crate::coordinator::{Coordinator, Ground, post};
use crate::coordinators::Coordinators;
use crate::founding::{Membership, MembershipError};
use crate::hearsay::Hearsay;
use crate::home::{Home, HomeError, HomeLock, KeyName, Serving};
use crate::network::config::{Dht, NetworkConfig, StartError as NetworkError};
use crate::network::{self, CallError, Keep, Network, PeerChange};
use crate::ports;
use crate::router::{Calls, Router};
use crate::volunteer::duty::Volunteer;
use crate::volunteer::staff::{self, StaffError};
use futures::FutureExt as _;
use protocol::charter::{Charter, CharterError};
use protocol::digest::Digest;
use protocol::farm::Farm;
use protocol::farm::command::Command;
use protocol::id::{FarmId, PeerKey};
use protocol::signed::{SecretKey, Signed};
use protocol::ticket::{Contact, MAX_PEERS, Ticket};
use protocol::time::Timestamp;
use protocol::wire::{Answer, Control, Hello, PROTOCOL_VERSION};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Memory for the index of a volunteer, and of a coordinator.
const VOLUNTEER_CACHE_BYTES: u64 = 4 << 20;
const COORDINATOR_CACHE_BYTES: u64 = 32 << 20;
/// How often the ticket is written anew from the peers that are here.
const TICKET_EVERY: Duration = Duration::from_secs(1);
/// How long an orderly end may take in all.
const END_WITHIN: Duration = Duration::from_secs(10);
/// News that a slow volunteer may fall behind.
const NEWS_KEPT: usize = 256;

/// Why a daemon does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The home cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The farm cannot be found, founded or joined.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// The index cannot be opened.
    #[error("the index in this home cannot be opened: {0}")]
    Index(#[from] sled::Error),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The network cannot be started.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The ledger cannot be opened.
    #[error("the farm's log cannot be opened: {0}")]
    Ledger(#[from] OpenError),
    /// The farm's first entry was not taken.
    #[error("the farm cannot be founded: {0}")]
    Founding(#[from] LedgerError),
    /// The charter names other coordinators.
    #[error("the charter does not name this node as a coordinator")]
    NotACoordinator,
    /// Mail cannot be sent as configured.
    #[error(transparent)]
    Mail(#[from] MailerError),
    /// The farm's charter is not known, and nobody who knows it answers.
    #[error("no peer that knows the farm's charter can be reached")]
    NoCharter,
    /// The charter is not the farm's.
    #[error(transparent)]
    Charter(#[from] CharterError),
    /// This machine cannot run builds.
    #[error(transparent)]
    Volunteer(#[from] StaffError),
}

/// A daemon that serves.
#[derive(Debug)]
pub struct Node {
    network: Network,
    farm: FarmId,
    home: Home,
    ticket: watch::Receiver<Ticket>,
    charter: watch::Receiver<Option<Signed>>,
    door: Option<crate::coordinator::door::Door>,
    coordinator: Option<Coordinator>,
    replica: Option<Replica<Farm>>,
    volunteer: Option<Volunteer>,
    uploads: Uploads,
    clock: Clock,
    tracker: TaskTracker,
    /// Cancelled to end the volunteer, then everything else.
    duty: CancellationToken,
    service: CancellationToken,
    _serving: Serving,
    _lock: HomeLock,
}

impl Node {
    /// Starts a daemon.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub async fn start(config: NodeConfig) -> Result<Self, StartError> {
        let NodeConfig { home, farm: choice, reach, coordinator: coordinating, volunteer: volunteering } = config;
        let lock = home.lock()?;
        let (clock, chance) = (Clock::system(), Chance::from_os());
        let secret = home.key(KeyName::Node)?;
        let membership = Membership::of(&home, &choice, secret.public())?;
        let cache = if coordinating.is_some() { COORDINATOR_CACHE_BYTES } else { VOLUNTEER_CACHE_BYTES };
        let index = open_index(&home, cache).await?;
        let store = Store::open(&home.folder("store")?, &index).await?;
        let (duty, service) = (CancellationToken::new(), CancellationToken::new());
        let tracker = TaskTracker::new();
        let (leaders, following) = watch::channel(membership.coordinators()?);
        let (network, inbox) = start_network(&home, &reach, &secret, &membership, following)?;
        let addresses = network.addresses().await.unwrap_or_default();
        home.remember_listened(&ports::own_of(&addresses, &reach.external))?;
        let hearsay = Hearsay::new(clock.clone());
        let (calls, bulk, raft) = Calls::of(inbox);

        let mut replica = None;
        let mut running = None;
        let mut mailing = None;
        if let Some(coordinating) = coordinating {
            let charter = membership.charter.clone().ok_or(StartError::NoCharter)?;
            if !Charter::open(&charter, membership.farm)?.is_coordinator(&secret.public()) {
                return Err(StartError::NotACoordinator);
            }
            let opened = open_replica(&home, &index, &network, &clock, &charter).await?;
            let ledger = Ledger::Replicated(opened.clone());
            if ledger.read(|farm| farm.charter().is_none()) {
                ledger.propose(Command::Found { charter }).await?;
            }
            tracker.spawn(answer_raft(raft, opened.clone(), service.clone()));
            mailing = coordinating.mail.map(Mailer::new).transpose()?.map(|mailer| (mailer, ledger.clone()));
            let ground = Ground {
                ledger,
                network: network.clone(),
                store: store.clone(),
                farm: membership.farm,
                secret: secret.clone(),
                clock: clock.clone(),
                chance: chance.clone(),
                hearsay: hearsay.clone(),
            };
            running = Some(Coordinator::start(ground, &service));
            replica = Some(opened);
        }

        for contact in membership.contacts.iter().filter(|contact| contact.key != secret.public()) {
            let (network, contact) = (network.clone(), contact.clone());
            tracker.spawn(async move {
                if let Err(error) = network.connect(contact, Keep::Connected, Duration::from_secs(30)).await {
                    tracing::info!(%error, "not connected yet; the network goes on trying");
                }
            });
        }
        let charter = match &membership.charter {
            Some(charter) => charter.clone(),
            None => learn_charter(&network, &membership).await?,
        };
        home.remember_charter(&charter)?;
        let opened = Charter::open(&charter, membership.farm)?;
        leaders.send_replace(opened.coordinators.clone());
        let coordinators = Coordinators::new(network.clone(), opened.coordinators);
        let (charter_teller, charter) = watch::channel(Some(charter));
        tracker.spawn(follow_charter(
            network.clone(),
            membership.farm,
            home.clone(),
            coordinators.clone(),
            (charter_teller, leaders),
            service.clone(),
        ));

        let (news, heard) = broadcast::channel(NEWS_KEPT);
        let mut volunteer = None;
        if let Some(volunteering) = volunteering {
            let staffed = staff::hire(
                &home,
                volunteering,
                staff::Ground {
                    network: network.clone(),
                    store: store.clone(),
                    coordinators: coordinators.clone(),
                    farm: membership.farm,
                    secret: secret.clone(),
                    clock: clock.clone(),
                    chance: chance.clone(),
                },
            )
            .await?;
            greet(&network, &clock, charter.borrow().as_ref(), Some(&staffed)).await;
            tracker.spawn(staff::announcer(&staffed).run(duty.clone()));
            tracker.spawn(staffed.clone().run(heard, duty.clone()));
            volunteer = Some(staffed);
        } else {
            greet(&network, &clock, charter.borrow().as_ref(), None).await;
        }

        let first_ticket = write_ticket(&network, membership.farm, &coordinators, &membership.contacts).await;
        let (ticket_teller, ticket) = watch::channel(first_ticket);
        tracker.spawn(keep_ticket(
            network.clone(),
            membership.clone(),
            coordinators.clone(),
            ticket_teller,
            service.clone(),
        ));
        if let Some((mailer, ledger)) = mailing {
            let (words, word) = watch::channel(ticket.borrow().to_string());
            let mut following = ticket.clone();
            tracker.spawn(post::run(mailer, ledger, clock.clone(), word, service.clone()));
            tracker.spawn(async move {
                while following.changed().await.is_ok() {
                    words.send_replace(following.borrow_and_update().to_string());
                }
            });
        }
        let door = running.as_ref().map(|running| running.door().clone());
        let router = Router {
            door: door.clone(),
            volunteer: volunteer.clone(),
            store: store.clone(),
            hearsay,
            charter: charter.clone(),
            ticket: ticket.clone(),
        };
        tracker.spawn(router.run(calls, news, service.clone()));
        let uploads = Uploads::default();
        let shelf = Arc::new(Both(store.clone(), uploads.clone()));
        let serving_bulk = transfer::serve(bulk, shelf, Arc::new(|_, _| Permission::Granted));
        let bulk_ends = service.clone();
        tracker.spawn(async move {
            tokio::select! {
                () = bulk_ends.cancelled() => {}
                () = serving_bulk => {}
            }
        });
        provide_all(&network, &store).await?;
        let contact = Contact { key: secret.public(), addresses: network.addresses().await.unwrap_or_default() };
        let serving = home.serve_at(membership.farm, contact)?;
        Ok(Self {
            network,
            farm: membership.farm,
            home,
            ticket,
            charter,
            door,
            coordinator: running,
            replica,
            volunteer,
            uploads,
            clock,
            tracker,
            duty,
            service,
            _serving: serving,
            _lock: lock,
        })
    }

    /// The farm's ticket as this node writes it now.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        self.ticket.borrow().clone()
    }

    /// This node's network.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Sources handed over from inside this process.
    #[must_use]
    pub fn uploads(&self) -> &Uploads {
        &self.uploads
    }

    /// The coordinator's door, if this node is one.
    #[must_use]
    pub fn door(&self) -> Option<&crate::coordinator::door::Door> {
        self.door.as_ref()
    }

    /// What the volunteer of this node can do, if it is one.
    #[must_use]
    pub fn capability(&self) -> Option<&protocol::platform::Capability> {
        self.volunteer.as_ref().map(|volunteer| &volunteer.capability)
    }

    /// A requester's session on this node's own network, signing as the person of this home.
    ///
    /// # Errors
    ///
    /// [`crate::client::session::JoinError`].
    pub fn session(&self) -> Result<crate::client::session::Session, crate::client::session::JoinError> {
        use crate::client::session::{JoinError, Session};
        let secret = self.home.key(KeyName::Requester)?;
        let charter = self.charter.borrow().clone().ok_or(JoinError::NoCharter)?;
        Session::with_charter(self.network.clone(), self.farm, charter, secret, self.clock.clone())
    }

    /// Serves until `stop` is cancelled, then ends in order.
    pub async fn run(self, stop: CancellationToken) {
        stop.cancelled().await;
        self.end().await;
    }

    /// Ends in order, within a bound.
    pub async fn end(self) {
        self.duty.cancel();
        let ending = async {
            // The volunteer hands its leases back while coordinator and network still serve.
            while self.volunteer.as_ref().is_some_and(|volunteer| !volunteer.running.leases().is_empty()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            self.service.cancel();
            if let Some(coordinator) = &self.coordinator {
                coordinator.ended().await;
            }
            self.tracker.close();
            self.tracker.wait().await;
            self.network.shut_down().await;
            if let Some(replica) = &self.replica
                && let Err(error) = replica.close().await
            {
                tracing::warn!(%error, "the farm's log was not closed in order");
            }
        };
        if tokio::time::timeout(END_WITHIN, ending).await.is_err() {
            tracing::warn!("not everything ended in time");
        }
    }
}

/// Opens the store of a home in which no daemon runs, for as long as the lock lives.
///
/// # Errors
///
/// [`StartError::Home`] when a daemon runs there, and whatever opening fails with.
pub async fn open_store(home: &Home) -> Result<(HomeLock, Store), StartError> {
    let lock = home.lock()?;
    let index = open_index(home, VOLUNTEER_CACHE_BYTES).await?;
    let store = Store::open(&home.folder("store")?, &index).await?;
    Ok((lock, store))
}

async fn open_index(home: &Home, cache_bytes: u64) -> Result<sled::Db, StartError> {
    let path = home.folder("index")?;
    let opening = tokio::task::spawn_blocking(move || {
        sled::Config::new()
            .path(path)
            .mode(sled::Mode::LowSpace)
            .cache_capacity(cache_bytes)
            .flush_every_ms(Some(500))
            .open()
    });
    match opening.await {
        Ok(opened) => Ok(opened?),
        Err(panicked) => Err(sled::Error::Unsupported(format!("sled gave up: {panicked}")).into()),
    }
}

fn start_network(
    home: &Home,
    reach: &Reach,
    secret: &SecretKey,
    membership: &Membership,
    coordinators: watch::Receiver<BTreeSet<PeerKey>>,
) -> Result<(Network, network::Inbox), StartError> {
    let base = NetworkConfig::daemon(secret.clone(), membership.farm, hello(None, None));
    let listen = if reach.listen.is_empty() {
        ports::taken_before(&home.listened()?, reach.transports.listen_at("0.0.0.0"))
    } else {
        reach.listen.clone()
    };
    let config = NetworkConfig {
        listen,
        external: reach.external.clone(),
        mdns: reach.mdns,
        transports: reach.transports,
        dht: Dht::Server,
        address_book: membership.contacts.clone(),
        coordinators,
        ..base
    };
    Ok(network::start(config)?)
}

async fn open_replica(
    home: &Home,
    index: &sled::Db,
    network: &Network,
    clock: &Clock,
    charter: &Signed,
) -> Result<Replica<Farm>, StartError> {
    let coordinators: Vec<PeerKey> = Charter::open(charter, charter.farm)?.coordinators.into_iter().collect();
    let local = network.local();
    let carrying = network.clone();
    let config = ReplicaConfig {
        folder: home.folder("raft")?,
        records: index.open_tree("raft")?,
        id: raft_id(&local),
        seat: Seat { peer_id: local.to_string() },
        beginning: if coordinators.first() == Some(&local) { Beginning::Alone } else { Beginning::Invited },
        clock: clock.clone(),
        carry: Arc::new(move |_, seat: Seat, bytes, within| {
            let network = carrying.clone();
            async move {
                let peer: Digest = seat.peer_id.parse().map_err(|_| CarryError::Unreachable(seat.peer_id.clone()))?;
                let peer = PeerKey::from_bytes(*peer.as_bytes());
                match tokio::time::timeout(within, network.raft(peer, bytes)).await {
                    Ok(Ok(answer)) => Ok(answer),
                    Ok(Err(CallError::Timeout(_))) | Err(_) => Err(CarryError::Timeout),
                    Ok(Err(error @ CallError::Unreachable { .. })) => Err(CarryError::Unreachable(error.to_string())),
                    Ok(Err(error)) => Err(CarryError::Broken(error.to_string())),
                }
            }
            .boxed()
        }),
        events_kept: EVENTS_KEPT,
        wal: WalConfig::default(),
    };
    Ok(Replica::open(config).await?)
}

/// A coordinator's number in its group: the first eight bytes of its key.
fn raft_id(key: &PeerKey) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&key.as_bytes()[..8]);
    u64::from_be_bytes(first)
}

async fn answer_raft(
    mut raft: tokio::sync::mpsc::Receiver<network::IncomingRaft>,
    replica: Replica<Farm>,
    stop: CancellationToken,
) {
    loop {
        let incoming = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            incoming = raft.recv() => incoming,
        };
        let Some(network::IncomingRaft { bytes, reply, .. }) = incoming else { return };
        let replica = replica.clone();
        tokio::spawn(async move {
            match replica.answer(&bytes).await {
                // The caller may have given up meanwhile.
                Ok(answer) => drop(reply.send(answer)),
                Err(error) => tracing::debug!(%error, "a call of another coordinator was not answered"),
            }
        });
    }
}

async fn learn_charter(network: &Network, membership: &Membership) -> Result<Signed, StartError> {
    let until = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        for contact in &membership.contacts {
            if let Ok(Answer::Charter(Some(signed))) = network.call(contact.key, Control::Charter).await {
                Charter::open(&signed, membership.farm)?;
                return Ok(signed);
            }
        }
        if tokio::time::Instant::now() >= until {
            return Err(StartError::NoCharter);
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// Follows the farm to a newer charter when a peer says that there is one.
async fn follow_charter(
    network: Network,
    farm: FarmId,
    home: Home,
    coordinators: Coordinators,
    (teller, leaders): (watch::Sender<Option<Signed>>, watch::Sender<BTreeSet<PeerKey>>),
    stop: CancellationToken,
) {
    let mut changes = network.changes();
    loop {
        let change = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            change = changes.recv() => change,
        };
        let (peer, version) = match change {
            Ok(PeerChange::Greeted { peer, hello }) => match hello.charter {
                Some((version, _)) => (peer, version),
                None => continue,
            },
            Ok(PeerChange::Closed { .. }) | Err(broadcast::error::RecvError::Lagged(_)) => continue,
            Err(broadcast::error::RecvError::Closed) => return,
        };
        let known =
            teller.borrow().as_ref().and_then(|signed| Charter::open(signed, farm).ok()).map_or(0, |c| c.version);
        if version <= known {
            continue;
        }
        let Ok(Answer::Charter(Some(signed))) = network.call(peer, Control::Charter).await else { continue };
        match Charter::open(&signed, farm) {
            Ok(charter) if charter.version > known => {
                if let Err(error) = home.remember_charter(&signed) {
                    tracing::warn!(%error, "a newer charter cannot be remembered");
                }
                coordinators.replace(charter.coordinators.clone());
                leaders.send_replace(charter.coordinators);
                teller.send_replace(Some(signed));
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(peer = %peer.short(), %error, "a charter that does not hold"),
        }
    }
}

fn hello(charter: Option<&Signed>, volunteer: Option<&Volunteer>) -> Hello {
    let version = charter.and_then(|signed| Some((signed.payload_unchecked::<Charter>().ok()?.version, signed.id())));
    Hello {
        program: format!("barnraise {}", env!("CARGO_PKG_VERSION")),
        protocol: PROTOCOL_VERSION,
        charter: version,
        // The network fills in clock and addresses each time it is said.
        clock: Timestamp::EPOCH,
        capability: volunteer.map(|volunteer| volunteer.capability.clone()),
        addresses: Vec::new(),
    }
}

async fn greet(network: &Network, clock: &Clock, charter: Option<&Signed>, volunteer: Option<&Volunteer>) {
    let hello = Hello { clock: clock.now(), ..hello(charter, volunteer) };
    // A closed network means that the node is ending.
    let _closed = network.greet_with(hello).await;
}

async fn write_ticket(network: &Network, farm: FarmId, coordinators: &Coordinators, known: &[Contact]) -> Ticket {
    let mut contacts = network.peers().await.unwrap_or_default();
    contacts.push(Contact { key: network.local(), addresses: network.addresses().await.unwrap_or_default() });
    for contact in known {
        if !contacts.iter().any(|here| here.key == contact.key) {
            contacts.push(contact.clone());
        }
    }
    contacts.retain(|contact| !contact.addresses.is_empty());
    contacts.sort_by_key(|contact| contact.key);
    for contact in &mut contacts {
        contact.addresses.truncate(protocol::ticket::MAX_ADDRESSES);
    }
    let (mut leading, mut others): (Vec<_>, Vec<_>) =
        contacts.into_iter().partition(|contact| coordinators.includes(&contact.key));
    leading.truncate(MAX_PEERS);
    others.truncate(MAX_PEERS);
    Ticket { farm, coordinators: leading, peers: others }
}

async fn keep_ticket(
    network: Network,
    membership: Membership,
    coordinators: Coordinators,
    teller: watch::Sender<Ticket>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(TICKET_EVERY) => {}
        }
        let ticket = write_ticket(&network, membership.farm, &coordinators, &membership.contacts).await;
        teller.send_if_modified(|known| {
            let changed = *known != ticket;
            if changed {
                *known = ticket;
            }
            changed
        });
    }
}

/// Says in the DHT what this node holds of judged builds.
async fn provide_all(network: &Network, store: &Store) -> Result<(), StartError> {
    use crate::artifact::index::Completeness;
    for build in store.builds().await? {
        if build.completeness == Completeness::Complete && network.provide(build.build_key).await.is_err() {
            break;
        }
    }
    Ok(())
}
