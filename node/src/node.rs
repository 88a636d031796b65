//! A daemon put together: home, network, store and the roles it was given.
//!
//! ```text
//! lock home ─► farm ─► index, store ─► network ─► [ledger, coordinator, mailer] ─► charter ─► [sandbox, volunteer] ─► serve
//! ```
//!
//! [`Node::start`] returns when the node serves, or says why it cannot; [`Node::run`] serves until the token is cancelled and
//! then ends in order: the volunteer hands its leases back, the coordinator stops, the network says goodbye, the ledger closes.

use crate::acquaintances::{self, VISITED};
use crate::artifact::Store;
use crate::artifact::index::Completeness;
use crate::artifact::need::Needed;
use crate::artifact::sharing::{Part, Sharing};
use crate::artifact::steward::{Owned, Steward};
use crate::artifact::store::StoreError;
use crate::artifact::transfer;
use crate::artifact::upkeep::Upkeep;
use crate::artifact::upload::{Both, Uploads};
use crate::chance::Chance;
use crate::client::session::{JoinError, Session};
use crate::clock::Clock;
use crate::clocks;
use crate::config::{CoordinatorConfig, NodeConfig, Reach, StoreLimit, VolunteerConfig};
use crate::coordinator::door::Door;
use crate::coordinator::ledger::Ledger;
use crate::coordinator::mailer::{Mailer, MailerError};
use crate::coordinator::open::OpenLedgerError;
use crate::coordinator::replica::Replica;
use crate::coordinator::{Coordinator, Ground, open, post};
use crate::coordinators::Coordinators;
use crate::database::Database;
use crate::following::{self, LearnError, Told};
use crate::founding::{Membership, MembershipError};
use crate::hearsay::Hearsay;
use crate::home::{Home, HomeError, HomeLock, KeyName, Serving};
use crate::network::config::{Dht, Limits, NetworkConfig, StartError as NetworkError};
use crate::network::{self, IncomingBulk, IncomingRaft, Keep, Network, News};
use crate::opening::{self, OpenError};
use crate::ports;
use crate::router::{Calls, Router};
use crate::signpost;
use crate::ties::FarmTies;
use crate::volunteer::duty::Volunteer;
use crate::volunteer::staff::{self, StaffError};
use protocol::charter::{Charter, CharterError};
use protocol::farm::Farm;
use protocol::id::PeerKey;
use protocol::platform::Capability;
use protocol::signed::{SecretKey, Signed};
use protocol::ticket::{Contact, Ticket};
use protocol::time::Timestamp;
use protocol::wire::{Hello, PROTOCOL_VERSION};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Memory for the index of a volunteer, and of a coordinator.
const VOLUNTEER_CACHE_BYTES: u64 = 4 << 20;
const COORDINATOR_CACHE_BYTES: u64 = 32 << 20;
/// Unless its owner says otherwise, a store may have this part of the disk space that it has or could have.
const SHARE_OF_DISK: u64 = 4;
/// How long the first connection to a peer of the ticket is waited for before that is worth a word.
const FIRST_CONNECT: Duration = Duration::from_secs(30);
/// How often the end of the last lease is looked for when shutting down.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long the volunteer may take to hand its leases back; the rest of the end needs its share of the time too.
const HAND_BACK_WITHIN: Duration = Duration::from_secs(6);
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
    /// Store and index cannot be opened.
    #[error(transparent)]
    Opening(#[from] OpenError),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The network cannot be started.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The ledger cannot be opened.
    #[error(transparent)]
    Ledger(#[from] OpenLedgerError),
    /// A coordinator without a charter: this home only ever joined the farm.
    #[error("this home has no charter that names it as a coordinator")]
    Charterless,
    /// Mail cannot be sent as configured.
    #[error(transparent)]
    Mail(#[from] MailerError),
    /// The farm's charter is not known, and cannot be learnt.
    #[error(transparent)]
    NoCharter(#[from] LearnError),
    /// The charter is not the farm's.
    #[error(transparent)]
    Charter(#[from] CharterError),
    /// This machine cannot run builds.
    #[error(transparent)]
    Volunteer(#[from] StaffError),
}

/// The farm's log failed while the daemon served.
#[derive(Debug, thiserror::Error)]
#[error("the farm's log failed: {0}")]
pub struct LogFailed(String);

/// A daemon that serves.
#[derive(Debug)]
pub struct Node {
    base: Base,
    coordinated: Option<Coordinated>,
    volunteer: Option<Volunteer>,
    uploads: Uploads,
    ticket: watch::Receiver<Ticket>,
    charter: watch::Receiver<Option<Signed>>,
    serving: Serving,
    _lock: HomeLock,
}

/// What every role of a node stands on.
#[derive(Debug)]
struct Base {
    home: Home,
    secret: SecretKey,
    membership: Membership,
    store: Store,
    network: Network,
    clock: Clock,
    chance: Chance,
    hearsay: Hearsay,
    tracker: TaskTracker,
    /// Cancelled to end the volunteer.
    duty: CancellationToken,
    /// Cancelled to end everything else.
    service: CancellationToken,
}

/// The coordinator's part of a node.
#[derive(Debug)]
struct Coordinated {
    coordinator: Coordinator,
    replica: Replica<Farm>,
    mailer: Option<Mailer>,
}

impl Node {
    /// Starts a daemon.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub async fn start(config: NodeConfig) -> Result<Self, StartError> {
        let NodeConfig { home, farm: choice, reach, store: limit, coordinator: coordinating, volunteer: volunteering } =
            config;
        let lock = home.lock()?;
        let secret = home.key(KeyName::Node)?;
        let membership = Membership::of(&home, &choice, secret.public())?;
        let cache = if coordinating.is_some() { COORDINATOR_CACHE_BYTES } else { VOLUNTEER_CACHE_BYTES };
        let (database, store) = opening::open(&home, cache).await?;
        let (leaders, following_leaders) = watch::channel(membership.coordinators()?);
        let met = home.peers(membership.farm)?;
        let limits = if coordinating.is_some() { Limits::COORDINATOR } else { Limits::VOLUNTEER };
        let (network, inbox) = start_network(&home, &reach, &secret, &membership, &met, limits, following_leaders)?;
        home.remember_listened(&ports::own_of(&network.addresses().await.unwrap_or_default(), &reach.external))?;
        let mut base = Base::new(home, secret, membership, store, network);
        base.tracker.spawn(clocks::compare(base.network.clone(), base.clock.clone(), base.service.clone()));
        let (calls, bulk, raft) = Calls::of(inbox);

        let mut coordinated = None;
        if let Some(config) = coordinating {
            let (role, in_force) = base.coordinate(&database, raft, config).await?;
            base.membership.follow(in_force, &choice)?;
            coordinated = Some(role);
        }
        base.connect(met);
        let (coordinators, charter) = base.follow_charter(leaders).await?;
        let (news, heard) = broadcast::channel(NEWS_KEPT);
        let mut volunteer = None;
        if let Some(config) = volunteering {
            volunteer = Some(base.volunteer(config, coordinators.clone(), heard).await?);
        }
        base.greet(charter.borrow().as_ref(), volunteer.as_ref()).await;
        let ticket = base.keep_ticket(&coordinators).await;
        if let Some(coordinated) = &mut coordinated {
            base.send_mail(coordinated, ticket.clone());
        }
        let door = coordinated.as_ref().map(|coordinated| coordinated.coordinator.door().clone());
        let uploads = base.serve_blobs(bulk, coordinators.clone(), door.clone()).await?;
        base.tracker.spawn(database.look_after(base.service.clone()));
        let owned = base.look_after_store(limit, FarmTies { door: door.clone(), coordinators }).await?;
        let router = Router {
            door,
            volunteer: volunteer.clone(),
            store: base.store.clone(),
            hearsay: base.hearsay.clone(),
            charter: charter.clone(),
            ticket: ticket.clone(),
            owned: Some(owned),
        };
        base.tracker.spawn(router.run(calls, news, base.service.clone()));
        base.provide_all().await?;
        let addresses = base.network.addresses().await.unwrap_or_default();
        let addresses = ports::from_here(&addresses, &reach.external);
        let serving = base.home.serve_at(base.membership.farm, Contact { key: base.secret.public(), addresses })?;
        Ok(Self { base, coordinated, volunteer, uploads, ticket, charter, serving, _lock: lock })
    }

    /// The farm's ticket as this node writes it now.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        self.ticket.borrow().clone()
    }

    /// This node's network.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.base.network
    }

    /// Sources handed over from inside this process.
    #[must_use]
    pub fn uploads(&self) -> &Uploads {
        &self.uploads
    }

    /// The coordinator's door, if this node is one.
    #[must_use]
    pub fn door(&self) -> Option<&Door> {
        self.coordinated.as_ref().map(|coordinated| coordinated.coordinator.door())
    }

    /// How often this node has waited for its disk: the log of the farm and the store together.
    #[must_use]
    pub fn sync_rounds(&self) -> u64 {
        let log = self.coordinated.as_ref().map_or(0, |coordinated| coordinated.replica.syncs().count());
        self.base.store.sync_rounds() + log
    }

    /// What the volunteer of this node can do, if it is one.
    #[must_use]
    pub fn capability(&self) -> Option<&Capability> {
        self.volunteer.as_ref().map(|volunteer| &volunteer.capability)
    }

    /// A requester's session on this node's own network, signing as the person of this home.
    ///
    /// # Errors
    ///
    /// [`JoinError`].
    pub fn session(&self) -> Result<Session, JoinError> {
        let secret = self.base.home.key(KeyName::Requester)?;
        let charter = self.charter.borrow().clone().ok_or(JoinError::NoCharter)?;
        let Base { network, membership, clock, .. } = &self.base;
        Session::with_charter(network.clone(), membership.farm, charter, secret, clock.clone())
    }

    /// Serves until `stop` is cancelled, then ends in order.
    ///
    /// # Errors
    ///
    /// [`LogFailed`] when the farm's log could not be written any more: a coordinator that can promise nothing ends, and says so.
    pub async fn run(self, stop: CancellationToken) -> Result<(), LogFailed> {
        let failure = async {
            match &self.coordinated {
                Some(coordinated) => LogFailed(coordinated.replica.failure().await),
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            failed = failure => Err(failed),
        };
        self.end().await;
        ended
    }

    /// Ends in order, within a bound.
    pub async fn end(self) {
        // From here on no command finds its way to a node that is about to be gone.
        drop(self.serving);
        self.base.duty.cancel();
        let ending = async {
            // The volunteer hands its leases back while coordinator and network still serve.
            let handing_back = async {
                while self.volunteer.as_ref().is_some_and(|volunteer| !volunteer.running.leases().is_empty()) {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
            };
            if tokio::time::timeout(HAND_BACK_WITHIN, handing_back).await.is_err() {
                tracing::warn!("not every lease was handed back in time");
            }
            self.base.service.cancel();
            if let Some(coordinated) = &self.coordinated {
                coordinated.coordinator.ended().await;
            }
            self.base.tracker.close();
            self.base.tracker.wait().await;
            self.base.network.shut_down().await;
            if let Some(coordinated) = &self.coordinated
                && let Err(error) = coordinated.replica.close().await
            {
                tracing::warn!(%error, "the farm's log was not closed in order");
            }
        };
        if tokio::time::timeout(END_WITHIN, ending).await.is_err() {
            tracing::warn!("not everything ended in time");
        }
    }
}

impl Base {
    fn new(home: Home, secret: SecretKey, membership: Membership, store: Store, network: Network) -> Self {
        let clock = Clock::system();
        Self {
            home,
            secret,
            membership,
            store,
            network,
            hearsay: Hearsay::new(clock.clone()),
            clock,
            chance: Chance::from_os(),
            tracker: TaskTracker::new(),
            duty: CancellationToken::new(),
            service: CancellationToken::new(),
        }
    }

    async fn coordinate(
        &self,
        database: &Database,
        raft: mpsc::Receiver<IncomingRaft>,
        config: CoordinatorConfig,
    ) -> Result<(Coordinated, Signed), StartError> {
        let Membership { farm, charter, .. } = &self.membership;
        if charter.is_none() && !self.home.has_begun(*farm)? {
            return Err(StartError::Charterless);
        }
        let mailer = config.mail.map(Mailer::new).transpose()?;
        let known = (*farm, charter.as_ref());
        let (replica, in_force) = open::open(&self.home, database, &self.network, &self.clock, known).await?;
        self.tracker.spawn(open::answer(raft, replica.clone(), self.service.clone()));
        let ground = Ground {
            ledger: Ledger::Replicated(replica.clone()),
            network: self.network.clone(),
            store: self.store.clone(),
            farm: self.membership.farm,
            secret: self.secret.clone(),
            clock: self.clock.clone(),
            chance: self.chance.clone(),
            hearsay: self.hearsay.clone(),
            wall_clock: config.wall_clock,
        };
        Ok((Coordinated { coordinator: Coordinator::start(ground, &self.service), replica, mailer }, in_force))
    }

    /// Connects to everybody the ticket names, and the network goes on trying; visits some of those met before, and remembers
    /// who is met from now on.
    fn connect(&self, met: Vec<Contact>) {
        for contact in met.iter().take(VISITED).cloned() {
            let network = self.network.clone();
            self.tracker.spawn(async move {
                if let Err(error) = network.connect(contact, Keep::Once, FIRST_CONNECT).await {
                    tracing::debug!(%error, "somebody met before is not there");
                }
            });
        }
        let (home, network) = (self.home.clone(), self.network.clone());
        self.tracker.spawn(acquaintances::keep(home, self.membership.farm, network, met, self.service.clone()));
        for contact in self.membership.contacts.iter().filter(|contact| contact.key != self.secret.public()) {
            let (network, contact) = (self.network.clone(), contact.clone());
            self.tracker.spawn(async move {
                if let Err(error) = network.connect(contact, Keep::Connected, FIRST_CONNECT).await {
                    tracing::info!(%error, "not connected yet; the network goes on trying");
                }
            });
        }
    }

    /// Learns the charter where it is not known, remembers it, and follows it from now on.
    async fn follow_charter(
        &self,
        leaders: watch::Sender<BTreeSet<PeerKey>>,
    ) -> Result<(Coordinators, watch::Receiver<Option<Signed>>), StartError> {
        let signed = match &self.membership.charter {
            Some(charter) => charter.clone(),
            None => following::learn(&self.network, &self.membership).await?,
        };
        self.home.remember_charter(&signed)?;
        let charter = Charter::open(&signed, self.membership.farm)?;
        leaders.send_replace(charter.coordinators.clone());
        let coordinators = Coordinators::new(self.network.clone(), charter.coordinators);
        let (teller, watching) = watch::channel(Some(signed));
        let told = Told { home: self.home.clone(), coordinators: coordinators.clone(), charter: teller, leaders };
        let following = following::follow(self.network.clone(), self.membership.farm, told, self.service.clone());
        self.tracker.spawn(following);
        Ok((coordinators, watching))
    }

    async fn volunteer(
        &self,
        config: VolunteerConfig,
        coordinators: Coordinators,
        news: broadcast::Receiver<News>,
    ) -> Result<Volunteer, StartError> {
        let ground = staff::Ground {
            network: self.network.clone(),
            store: self.store.clone(),
            coordinators,
            farm: self.membership.farm,
            secret: self.secret.clone(),
            clock: self.clock.clone(),
            chance: self.chance.clone(),
        };
        let volunteer = staff::hire(&self.home, config, ground).await?;
        self.tracker.spawn(staff::announcer(&volunteer).run(self.duty.clone()));
        self.tracker.spawn(volunteer.clone().run(news, self.duty.clone()));
        Ok(volunteer)
    }

    /// Says from now on what this node is.
    async fn greet(&self, charter: Option<&Signed>, volunteer: Option<&Volunteer>) {
        let hello = Hello { clock: self.clock.now(), ..hello(charter, volunteer) };
        // A closed network means that the node is ending.
        let _closed = self.network.greet_with(hello).await;
    }

    async fn keep_ticket(&self, coordinators: &Coordinators) -> watch::Receiver<Ticket> {
        let Membership { farm, contacts, .. } = &self.membership;
        let first = signpost::write(&self.network, *farm, coordinators, contacts).await;
        let (teller, ticket) = watch::channel(first);
        let keeping = signpost::keep(
            self.network.clone(),
            self.membership.clone(),
            coordinators.clone(),
            teller,
            self.service.clone(),
        );
        self.tracker.spawn(keeping);
        ticket
    }

    fn send_mail(&self, coordinated: &mut Coordinated, ticket: watch::Receiver<Ticket>) {
        let Some(mailer) = coordinated.mailer.take() else { return };
        let ledger = Ledger::Replicated(coordinated.replica.clone());
        self.tracker.spawn(post::run(mailer, ledger, self.clock.clone(), ticket, self.service.clone()));
    }

    /// Serves judged artifacts to anybody, and everything else to those who have a part in it.
    async fn serve_blobs(
        &self,
        bulk: mpsc::Receiver<IncomingBulk>,
        coordinators: Coordinators,
        door: Option<Door>,
    ) -> Result<Uploads, StartError> {
        self.store.publish_judged().await?;
        let uploads = Uploads::default();
        let shelf = Arc::new(Both(self.store.clone(), uploads.clone()));
        let local = self.network.local();
        let part = move |peer: &PeerKey| match &door {
            _ if *peer == local || coordinators.includes(peer) => Part::Everything,
            Some(door) => Part::Only(door.granted_to(*peer)),
            None => Part::Only(Needed::default()),
        };
        let serving = transfer::serve(bulk, shelf, Arc::new(Sharing::new(self.store.clone(), part)));
        let service = self.service.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                biased;
                () = service.cancelled() => {}
                () = serving => {}
            }
        });
        Ok(uploads)
    }

    /// Makes room in the store and mends it from now on, and listens to its owner.
    async fn look_after_store(&self, limit: StoreLimit, ties: FarmTies) -> Result<Owned, StartError> {
        let max_bytes = match limit {
            StoreLimit::Bytes(bytes) => bytes,
            StoreLimit::OfDisk => {
                let free_bytes = opening::free_bytes(&self.home);
                free_bytes.saturating_add(self.store.stored_bytes().await?) / SHARE_OF_DISK
            }
        };
        let upkeep = Upkeep {
            store: self.store.clone(),
            network: self.network.clone(),
            ties: Arc::new(ties),
            chance: self.chance.clone(),
            max_bytes,
        };
        self.tracker.spawn(upkeep.clone().run(self.service.clone()));
        let steward = Steward::of_daemon(upkeep);
        Ok(Owned { steward, daemon: self.secret.public(), farm: self.membership.farm })
    }

    /// Says in the DHT what this node holds of judged builds.
    async fn provide_all(&self) -> Result<(), StartError> {
        for build in self.store.builds().await? {
            let complete = build.completeness == Completeness::Complete;
            if complete && self.network.provide(build.build_key).await.is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// Opens the store of a home in which no daemon runs, for as long as the lock lives.
///
/// # Errors
///
/// [`StartError::Home`] when a daemon runs there, and whatever opening fails with.
pub async fn open_store(home: &Home) -> Result<(HomeLock, Store), StartError> {
    let lock = home.lock()?;
    let (_database, store) = opening::open(home, VOLUNTEER_CACHE_BYTES).await?;
    Ok((lock, store))
}

fn start_network(
    home: &Home,
    reach: &Reach,
    secret: &SecretKey,
    membership: &Membership,
    met: &[Contact],
    limits: Limits,
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
        // The later one's addresses come first: those of the ticket.
        address_book: met.iter().chain(&membership.contacts).cloned().collect(),
        limits,
        coordinators,
        ..base
    };
    Ok(network::start(config)?)
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
