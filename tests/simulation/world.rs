//! A farm in one thread: a coordinator, volunteers and requesters, put together as the program puts them together, over a
//! network, stores and a log in memory. Nodes crash and come back with what was durable.

use crate::checks::Checks;
use crate::log::Log;
use crate::net::{Exit, Net, Plug, Reach};
use crate::workshop::{Nature, Pretence, Shelf};
use node::artifact::Store;
use node::artifact::index::Completeness;
use node::artifact::transfer::{self, Permission};
use node::artifact::upload::Uploads;
use node::chance::Chance;
use node::client::session::Session;
use node::clock::Clock;
use node::config::WallClock;
use node::coordinator::ledger::{InMemory, Ledger};
use node::coordinator::mailer::Mailer;
use node::coordinator::mailer::hand::{Hand, Handed};
use node::coordinator::{Coordinator, Ground, post};
use node::coordinators::Coordinators;
use node::hearsay::Hearsay;
use node::network::{Inbox, Keep, Network};
use node::router::{Calls, Router};
use node::volunteer::announce::Announcer;
use node::volunteer::duty::Volunteer;
use node::volunteer::running::Running;
use protocol::charter::{Charter, Policy};
use protocol::farm::command::{Command, Entry};
use protocol::id::{FarmId, PeerKey};
use protocol::platform::{Acceptance, Capability, Value};
use protocol::signed::{SecretKey, Signed};
use protocol::ticket::{Contact, Ticket};
use protocol::time::Timestamp;
use protocol::wire::{Hello, PROTOCOL_VERSION};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// When every run begins.
const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);
/// How far a node's clock may be off, either way.
const SKEW_MS: u64 = 60_000;

/// What is wrong on purpose, to see that the checks notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// Nothing.
    None,
    /// Most volunteers agree on the same lie.
    Collusion,
    /// A crash takes entries that were answered.
    ForgetfulDisk,
    /// The coordinator says that a mail was not taken when it was.
    DeafMailer,
}

/// Everything that a run stands on.
pub(crate) struct World {
    pub net: Net,
    pub log: Log,
    pub chance: Chance,
    pub checks: Checks,
    pub farm: FarmId,
    pub flaw: Flaw,
    pub coordinator: Seat,
    pub volunteers: Vec<Seat>,
    pub requesters: Vec<Seat>,
    charter: Signed,
    started: Instant,
    entries: Vec<Entry>,
}

/// A node, up or down: what outlives its crashes, and its present life.
pub(crate) struct Seat {
    pub name: String,
    pub secret: SecretKey,
    store: Store,
    nature: Nature,
    reach: Reach,
    capability: Option<Capability>,
    skew_ms: u64,
    life: Option<Life>,
}

/// One run of a node's program.
struct Life {
    /// Cancelled when it crashes: the network is dead.
    alive: CancellationToken,
    /// Cancelled when its program ends, in order or because it crashed.
    stop: CancellationToken,
    ledger: Option<InMemory>,
    running: Option<Running>,
    session: Option<(Session, Uploads)>,
}

impl Seat {
    fn new(name: &str, number: u8, chance: &Chance) -> Self {
        Self {
            name: name.to_owned(),
            secret: SecretKey::from_seed(&[number; 32]),
            store: Store::in_memory(),
            nature: Nature::Honest,
            reach: Reach::Open,
            capability: None,
            skew_ms: chance.below(2 * SKEW_MS),
            life: None,
        }
    }

    /// Its key.
    pub(crate) fn key(&self) -> PeerKey {
        self.secret.public()
    }

    /// Whether it is up.
    pub(crate) fn is_up(&self) -> bool {
        self.life.is_some()
    }

    /// A requester's session, while it is up, and when its life ends.
    pub(crate) fn session(&self) -> Option<(Session, Uploads, CancellationToken)> {
        let life = self.life.as_ref()?;
        let (session, uploads) = life.session.clone()?;
        Some((session, uploads, life.alive.clone()))
    }
}

fn capability(chance: &Chance, number: usize) -> Capability {
    let version = |text: &str| Value::Version(text.parse().unwrap());
    let mut tools = BTreeMap::from([("cc".to_owned(), version("12.2.0"))]);
    if number == 2 {
        tools.insert("rare".to_owned(), version("1.0"));
    }
    let text = |text: &str| Value::Text(text.to_owned());
    let facts = BTreeMap::from([
        ("os".to_owned(), text("linux")),
        ("arch".to_owned(), text("x86_64")),
        ("distribution".to_owned(), text("debian-12")),
        ("libc".to_owned(), text("glibc-2.36")),
        ("memory_mib".to_owned(), Value::Number(4_096)),
        ("disk_mib".to_owned(), Value::Number(8_192)),
        ("tool".to_owned(), Value::Map(tools)),
    ]);
    Capability { facts, accepts: Acceptance::Any, slots: 1 + u16::try_from(chance.below(2)).unwrap() }
}

impl World {
    /// A farm whose nodes are all down.
    pub(crate) fn new(seed: u64, flaw: Flaw) -> Self {
        let chance = Chance::seeded(seed);
        let log = Log::new();
        let founder = SecretKey::from_seed(&[200; 32]);
        let farm = FarmId::of(&founder.public());
        let coordinator = Seat::new("c0", 1, &chance);
        let charter = Charter {
            name: "simulated".parse().unwrap(),
            version: 1,
            predecessor: None,
            coordinators: [coordinator.key()].into(),
            members: [].into(),
            policy: Policy::default(),
        };
        let mut volunteers = Vec::new();
        for number in 0..4 {
            let mut seat = Seat::new(&format!("v{number}"), 10 + number, &chance);
            seat.capability = Some(capability(&chance, usize::from(number)));
            seat.reach = if chance.below(4) == 0 { Reach::DialsOnly } else { Reach::Open };
            volunteers.push(seat);
        }
        match flaw {
            Flaw::Collusion => volunteers.iter_mut().take(3).for_each(|seat| seat.nature = Nature::Colluder),
            _ if chance.below(2) == 0 => volunteers[3].nature = Nature::Liar,
            _ => {}
        }
        let requesters = (0..3).map(|number| {
            let mut seat = Seat::new(&format!("r{number}"), 20 + number, &chance);
            seat.reach = Reach::DialsOnly;
            seat
        });
        Self {
            net: Net::new(Chance::seeded(chance.number()), log.clone()),
            checks: Checks::new(log.clone()),
            requesters: requesters.collect(),
            charter: Signed::new(&charter, farm, &founder),
            started: Instant::now(),
            entries: Vec::new(),
            log,
            chance,
            farm,
            flaw,
            coordinator,
            volunteers,
        }
    }

    /// Makes a volunteer that is down one that builds one thing at a time.
    pub(crate) fn allow_one_slot(&mut self, number: usize) {
        if let Some(capability) = &mut self.volunteers[number].capability {
            capability.slots = 1;
        }
    }

    fn clock(&self, seat: &Seat) -> Clock {
        let true_ms = START.as_millis() + u64::try_from(self.started.elapsed().as_millis()).unwrap();
        Clock::set_to(Timestamp::from_millis(true_ms + seat.skew_ms - SKEW_MS))
    }

    fn plug(&self, seat: &Seat) -> (Network, Inbox, Clock, Life) {
        let (clock, alive) = (self.clock(seat), CancellationToken::new());
        let (network, inbox) = self.net.join(Plug {
            name: seat.name.clone(),
            key: seat.key(),
            reach: seat.reach,
            clock: clock.clone(),
            hello: Hello {
                program: "simulated".to_owned(),
                protocol: PROTOCOL_VERSION,
                charter: None,
                clock: Timestamp::EPOCH,
                capability: seat.capability.clone(),
                addresses: vec![seat.name.clone()],
            },
            life: alive.clone(),
        });
        self.log.note(&seat.name, "starts");
        let stop = CancellationToken::new();
        (network, inbox, clock, Life { alive, stop, ledger: None, running: None, session: None })
    }

    /// Connects to the coordinator and, for requesters, to volunteers, for as long as the node lives.
    fn connect(&self, seat: &Seat, network: &Network) {
        for key in [self.coordinator.key()].into_iter().chain(self.volunteers.iter().map(Seat::key)) {
            let network = network.clone();
            if key == seat.key() || (seat.capability.is_some() && key != self.coordinator.key()) {
                continue;
            }
            tokio::spawn(async move {
                // The network goes on trying.
                let contact = Contact { key, addresses: vec!["known".to_owned()] };
                let _later = network.connect(contact, Keep::Connected, Duration::from_secs(30)).await;
            });
        }
    }

    /// Serves calls and streams as the program does.
    fn serve(
        &self,
        seat: &Seat,
        router: Router,
        inbox: Inbox,
        life: &Life,
    ) -> broadcast::Receiver<node::network::News> {
        let (calls, bulk, _raft) = Calls::of(inbox);
        let (news, heard) = broadcast::channel(256);
        tokio::spawn(router.run(calls, news, life.stop.clone()));
        let chance = Chance::seeded(self.chance.number());
        let shelf = Shelf { store: seat.store.clone(), nature: seat.nature, chance };
        serve_bulk(transfer::serve(bulk, Arc::new(shelf), Arc::new(|_, _: &_| Permission::Granted)), life);
        heard
    }

    fn router(&self, seat: &Seat, hearsay: Hearsay) -> Router {
        let ticket = Ticket { farm: self.farm, coordinators: vec![], peers: vec![] };
        Router {
            door: None,
            volunteer: None,
            store: seat.store.clone(),
            hearsay,
            charter: watch::channel(Some(self.charter.clone())).1,
            ticket: watch::channel(ticket).1,
        }
    }

    /// Starts the coordinator with the log that its last life left.
    pub(crate) async fn start_coordinator(&mut self) {
        let (network, inbox, clock, mut life) = self.plug(&self.coordinator);
        let sync = Duration::from_millis(1 + self.chance.below(40));
        let memory = InMemory::reopen(self.entries.clone(), clock.clone(), sync);
        let ledger = Ledger::InMemory(memory.clone());
        if ledger.read(|farm| farm.charter().is_none()) {
            ledger.propose(Command::Found { charter: self.charter.clone() }).await.unwrap();
        }
        let hearsay = Hearsay::new(clock.clone());
        let ground = Ground {
            ledger: ledger.clone(),
            network: network.clone(),
            store: self.coordinator.store.clone(),
            farm: self.farm,
            secret: self.coordinator.secret.clone(),
            clock: clock.clone(),
            chance: Chance::seeded(self.chance.number()),
            hearsay: hearsay.clone(),
            wall_clock: WallClock::Checked,
        };
        let running = Coordinator::start(ground, &life.stop);
        let router = Router { door: Some(running.door().clone()), ..self.router(&self.coordinator, hearsay) };
        drop(self.serve(&self.coordinator, router, inbox, &life));
        tokio::spawn(follow(ledger.clone(), memory.clone(), self.checks.clone(), life.stop.clone()));
        let (hand, handed) = Hand::channel();
        let mailer = Mailer::by_hand(node::coordinator::mailer::mail::From::parse("farm@example.org").unwrap(), hand);
        let ticket = watch::channel(Ticket { farm: self.farm, coordinators: Vec::new(), peers: Vec::new() }).1;
        tokio::spawn(post::run(mailer, ledger, clock, ticket, life.stop.clone()));
        tokio::spawn(take_mail(handed, self.checks.clone(), self.chance.clone(), self.flaw, life.alive.clone()));
        life.ledger = Some(memory);
        self.coordinator.life = Some(life);
    }

    /// The coordinator loses its power.
    pub(crate) fn crash_coordinator(&mut self, exit: Exit) {
        let Some(life) = self.coordinator.life.take() else { return };
        self.log.note("c0", format!("crashes {exit:?}"));
        self.net.leave(self.coordinator.key(), exit);
        let ledger = life.ledger.expect("a coordinator has a ledger");
        self.checks.absorb(ledger.entries(self.checks.absorbed()));
        let kept = usize::try_from(self.chance.below(ledger.unsynced() as u64 + 1)).unwrap();
        self.entries = ledger.crash(kept);
        if self.flaw == Flaw::ForgetfulDisk {
            self.entries.truncate(self.entries.len().saturating_sub(3).max(1));
        }
        self.checks.reopened(&self.entries);
        life.stop.cancel();
    }

    /// What the running coordinator has in memory is what its log says.
    pub(crate) fn compare(&self) {
        if let Some(ledger) = self.coordinator.life.as_ref().and_then(|life| life.ledger.clone()) {
            self.checks.absorb(ledger.entries(self.checks.absorbed()));
            Ledger::InMemory(ledger).read(|farm| self.checks.compare(farm));
        }
    }

    /// Starts a volunteer; `anew` with an empty store.
    pub(crate) async fn start_volunteer(&mut self, number: usize) {
        let seat = &self.volunteers[number];
        let (network, inbox, clock, mut life) = self.plug(seat);
        let capability = seat.capability.clone().expect("a volunteer has a capability");
        let workshop = Pretence {
            name: seat.name.clone(),
            nature: seat.nature,
            capability: capability.clone(),
            network: network.clone(),
            coordinator: self.coordinator.key(),
            store: seat.store.clone(),
            chance: Chance::seeded(self.chance.number()),
            log: self.log.clone(),
        };
        let running = Running::default();
        let volunteer = Volunteer {
            network: network.clone(),
            store: seat.store.clone(),
            coordinators: Coordinators::new(network.clone(), [self.coordinator.key()].into()),
            workshop: Arc::new(workshop),
            farm: self.farm,
            secret: seat.secret.clone(),
            capability: capability.clone(),
            running: running.clone(),
            clock: clock.clone(),
            chance: Chance::seeded(self.chance.number()),
        };
        let announcer = Announcer {
            network: network.clone(),
            farm: self.farm,
            secret: seat.secret.clone(),
            capability,
            running: running.clone(),
            clock: clock.clone(),
            chance: Chance::seeded(self.chance.number()),
        };
        let router = Router { volunteer: Some(volunteer.clone()), ..self.router(seat, Hearsay::new(clock)) };
        let heard = self.serve(seat, router, inbox, &life);
        tokio::spawn(announcer.run(life.stop.clone()));
        tokio::spawn(volunteer.run(heard, life.stop.clone()));
        self.connect(seat, &network);
        for build in seat.store.builds().await.unwrap() {
            if build.completeness == Completeness::Complete {
                network.provide(build.build_key).await.unwrap();
            }
        }
        life.running = Some(running);
        self.volunteers[number].life = Some(life);
    }

    /// A volunteer loses its power, and by chance its disk.
    pub(crate) fn crash_volunteer(&mut self, number: usize, exit: Exit) {
        let seat = &mut self.volunteers[number];
        let Some(life) = seat.life.take() else { return };
        self.net.leave(seat.key(), exit);
        life.stop.cancel();
        let disk = if self.chance.below(4) == 0 { "and its disk" } else { "" };
        self.log.note(&seat.name, format!("crashes {exit:?} {disk}"));
        // What still runs of the old life keeps the old store to itself.
        if !disk.is_empty() {
            seat.store = Store::in_memory();
        }
    }

    /// A volunteer is told to end, and hands back what it holds.
    pub(crate) async fn end_volunteer(&mut self, number: usize) {
        let Some(life) = self.volunteers[number].life.take() else { return };
        self.log.note(&self.volunteers[number].name, "ends");
        life.stop.cancel();
        let running = life.running.expect("a volunteer notes what it runs");
        for _ in 0..500 {
            if running.leases().is_empty() {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
        self.net.leave(self.volunteers[number].key(), Exit::Noticed);
    }

    /// Starts a requester.
    pub(crate) fn start_requester(&mut self, number: usize) {
        let seat = &self.requesters[number];
        let (network, inbox, clock, mut life) = self.plug(seat);
        let Inbox { bulk, .. } = inbox;
        let (charter, secret) = (self.charter.clone(), seat.secret.clone());
        let session = Session::with_charter(network.clone(), self.farm, charter, secret, clock).unwrap();
        let uploads = Uploads::default();
        let coordinators = session.coordinators.clone();
        let permission = move |peer, _: &_| {
            if coordinators.includes(&peer) { Permission::Granted } else { Permission::Denied }
        };
        serve_bulk(transfer::serve(bulk, Arc::new(uploads.clone()), Arc::new(permission)), &life);
        self.connect(seat, &network);
        life.session = Some((session, uploads));
        self.requesters[number].life = Some(life);
    }

    /// A requester closes his laptop.
    pub(crate) fn crash_requester(&mut self, number: usize, exit: Exit) {
        let seat = &mut self.requesters[number];
        let Some(life) = seat.life.take() else { return };
        self.log.note(&seat.name, format!("crashes {exit:?}"));
        self.net.leave(seat.key(), exit);
        life.stop.cancel();
    }
}

fn serve_bulk(serving: impl Future<Output = ()> + Send + 'static, life: &Life) {
    let stop = life.stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = serving => {}
        }
    });
}

/// Shows every entry to the checks as soon as it has made something happen.
async fn follow(ledger: Ledger, memory: InMemory, checks: Checks, stop: CancellationToken) {
    let mut events = ledger.events();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            told = events.next() => if told.is_none() { return },
        }
        checks.absorb(memory.entries(checks.absorbed()));
    }
}

/// The mail server: takes mails after a while, or says that it cannot. What it took may be mailed twice if the coordinator
/// crashes before it has heard so.
async fn take_mail(
    mut handed: mpsc::Receiver<Handed>,
    checks: Checks,
    chance: Chance,
    flaw: Flaw,
    life: CancellationToken,
) {
    while let Some(Handed { notice, taken, .. }) = handed.recv().await {
        let (checks, chance, life) = (checks.clone(), chance.clone(), life.clone());
        tokio::spawn(async move {
            sleep(Duration::from_millis(chance.below(3_000))).await;
            if life.is_cancelled() || chance.below(5) == 0 {
                return;
            }
            checks.mailed(notice);
            sleep(Duration::from_millis(chance.below(1_000))).await;
            if flaw != Flaw::DeafMailer {
                // The coordinator may have crashed meanwhile.
                let _gone = taken.send(());
            }
        });
    }
}
