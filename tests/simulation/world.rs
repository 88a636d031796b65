//! A farm in one thread: a coordinator, volunteers and requesters, put together as the program puts them together, over a
//! network and stores in memory and the real log. Nodes crash and come back with what was durable.

use crate::checks::{Checks, NOTICED_WITHIN};
use crate::disk;
use crate::flaw::Flaw;
use crate::hours::FarmTime;
use crate::log::{Log, Telling};
use crate::net::{Exit, Net, Pace, Plug, Reach, Weather};
use crate::workload::Person;
use crate::workshop::{Nature, Pretence, Shelf};
use node::artifact::Store;
use node::artifact::index::Completeness;
use node::artifact::store::Memory;
use node::artifact::transfer::{self, Permission};
use node::artifact::upload::Uploads;
use node::chance::Chance;
use node::client::session::Session;
use node::clock::Clock;
use node::config::WallClock;
use node::coordinator::ledger::Ledger;
use node::coordinator::ledger::simulated::{Keeping, Simulated};
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
use protocol::farm::command::Command;
use protocol::id::{FarmId, PeerKey};
use protocol::platform::{Acceptance, Capability, Value};
use protocol::signed::{SecretKey, Signed};
use protocol::ticket::{Contact, Ticket};
use protocol::time::Timestamp;
use protocol::wire::{Hello, PROTOCOL_VERSION};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// When every run begins.
const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);
/// How far a clock may be off, either way: most are nearly right.
const SKEWS_MS: [u64; 4] = [60_000, 60_000, 60_000, 3_600_000];

/// How long a crash waits for something to be written.
const WRITES_WITHIN: Duration = Duration::from_secs(10);

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
    pub time: FarmTime,
    charter: Signed,
    started: Instant,
    /// Where the coordinator's log lies.
    log_folder: TempDir,
    /// Since when nothing is in anybody's way.
    calm_since: Option<Instant>,
    /// Cancelled from then on.
    fair: CancellationToken,
}

/// A node, up or down: what outlives its crashes, and its present life.
pub(crate) struct Seat {
    pub name: String,
    pub secret: SecretKey,
    /// Where its artifacts lie, whatever happens to it.
    place: Memory,
    store: Store,
    nature: Nature,
    reach: Reach,
    capability: Option<Capability>,
    /// What its clock shows in the moment in which every run begins.
    shows: Timestamp,
    life: Option<Life>,
    /// Since when it is up, or down.
    since: Instant,
}

/// One run of a node's program.
struct Life {
    /// Cancelled when it crashes: the network is dead.
    alive: CancellationToken,
    /// Cancelled when its program ends, in order or because it crashed.
    stop: CancellationToken,
    ledger: Option<Simulated>,
    running: Option<Running>,
    session: Option<(Session, Uploads)>,
}

impl Seat {
    fn new(name: &str, number: u8, chance: &Chance) -> Self {
        let place = Memory::default();
        Self {
            name: name.to_owned(),
            secret: SecretKey::from_seed(&[number; 32]),
            store: Store::reopen_in_memory(place.clone()).unwrap(),
            place,
            nature: Nature::Honest,
            reach: Reach::Open,
            capability: None,
            shows: skewed(chance),
            life: None,
            since: Instant::now(),
        }
    }

    /// The power goes: what was not synced of its artifacts is torn or gone, and sometimes the whole disk is.
    fn lose_power(&mut self, disk: Disk, chance: &Chance) {
        self.place = match disk {
            Disk::Gone => Memory::default(),
            Disk::Left => {
                let torn =
                    |len: usize| (chance.below(3) > 0).then(|| usize::try_from(chance.below(len as u64 + 1)).unwrap());
                self.place.after_power_cut(torn)
            }
        };
        // What still runs of the old life keeps the old store to itself.
        self.store = Store::reopen_in_memory(self.place.clone()).unwrap();
        self.since = Instant::now();
        if chance.below(4) == 0 {
            self.shows = skewed(chance);
        }
    }

    fn up_for(&self) -> Option<Duration> {
        self.is_up().then(|| self.since.elapsed())
    }

    fn down_for(&self) -> Option<Duration> {
        (!self.is_up()).then(|| self.since.elapsed())
    }

    fn begin(&mut self, life: Life) {
        self.life = Some(life);
        self.since = Instant::now();
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
    fn session(&self) -> Option<(Session, Uploads, CancellationToken)> {
        let life = self.life.as_ref()?;
        let (session, uploads) = life.session.clone()?;
        Some((session, uploads, life.alive.clone()))
    }
}

/// Whether a crash takes the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disk {
    Left,
    Gone,
}

/// What somebody's clock shows when a run begins.
fn skewed(chance: &Chance) -> Timestamp {
    let most = SKEWS_MS[usize::try_from(chance.below(4)).unwrap()];
    Timestamp::from_millis(START.as_millis() + chance.below(2 * most) - most)
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
    pub(crate) fn new(seed: u64, flaw: Flaw, telling: Telling) -> Self {
        let chance = Chance::seeded(seed);
        let log = Log::new(telling);
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
            Flaw::UnheardCancel => volunteers[3].nature = Nature::Idler,
            _ => {
                let odd = [Nature::Honest, Nature::Honest, Nature::Liar, Nature::Boaster, Nature::Idler];
                volunteers[3].nature = odd[usize::try_from(chance.below(5)).unwrap()];
                if chance.below(4) == 0 {
                    volunteers[2].nature = Nature::Stutterer;
                }
            }
        }
        let requesters = (0..3).map(|number| {
            let mut seat = Seat::new(&format!("r{number}"), 20 + number, &chance);
            seat.reach = Reach::DialsOnly;
            log.say(|say| say.introduce(seat.key(), &seat.name));
            seat
        });
        let requesters = requesters.collect();
        let seats = || [&coordinator].into_iter().chain(&volunteers);
        seats().for_each(|seat| log.say(|say| say.introduce(seat.key(), &seat.name)));
        seats().for_each(|seat| log.weather(|_| format!("{} is {:?}, {:?}", seat.name, seat.nature, seat.reach)));
        Self {
            net: Net::new(Chance::seeded(chance.number()), log.clone(), flaw),
            checks: Checks::new(log.clone()),
            requesters,
            charter: Signed::new(&charter, farm, &founder),
            started: Instant::now(),
            time: FarmTime::new(),
            log_folder: disk::folder(),
            calm_since: None,
            fair: CancellationToken::new(),
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

    /// Makes a volunteer that is down one of this nature.
    pub(crate) fn set_nature(&mut self, number: usize, nature: Nature) {
        self.volunteers[number].nature = nature;
    }

    fn clock(&self, seat: &Seat) -> Clock {
        Clock::set_to(seat.shows + self.started.elapsed())
    }

    fn plug(&self, seat: &Seat, clock: Clock) -> (Network, Inbox, Life) {
        let alive = CancellationToken::new();
        let (network, inbox) = self.net.join(Plug {
            key: seat.key(),
            reach: seat.reach,
            clock,
            pace: if seat.nature == Nature::Stutterer { Pace::Stalls } else { Pace::Steady },
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
        let off_s = (seat.shows.as_millis().cast_signed() - START.as_millis().cast_signed()) / 1_000;
        self.log.weather(|_| format!("{} starts; its clock is {off_s} s off", seat.name));
        let stop = CancellationToken::new();
        (network, inbox, Life { alive, stop, ledger: None, running: None, session: None })
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
            owned: None,
        }
    }

    /// Starts the coordinator with the log that its last life left.
    pub(crate) async fn start_coordinator(&mut self) {
        let clock = self.clock(&self.coordinator);
        let sync = Duration::from_millis(1 + self.chance.below(40));
        let snapshot_at = self.chance.below(self.checks.absorbed() as u64 + 1);
        let keeping = Keeping { clock: clock.clone(), sync, snapshot_at, bend: self.flaw.bend() };
        let simulated = match Simulated::open(self.log_folder.path(), keeping) {
            Ok(simulated) => simulated,
            Err(error) => return self.checks.breach(format!("the log does not open after a crash: {error}")),
        };
        self.checks.kept_in(self.coordinator.key(), self.coordinator.store.clone());
        self.checks.reopened(&simulated.entries(0));
        let (network, inbox, mut life) = self.plug(&self.coordinator, clock.clone());
        let ledger = Ledger::Simulated(simulated.clone());
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
        self.time.set(Some(clock.clone()));
        let router = Router { door: Some(running.door().clone()), ..self.router(&self.coordinator, hearsay) };
        drop(self.serve(&self.coordinator, router, inbox, &life));
        tokio::spawn(follow(ledger.clone(), simulated.clone(), self.checks.clone(), life.stop.clone()));
        let (hand, handed) = Hand::channel();
        let mailer = Mailer::by_hand(node::coordinator::mailer::mail::From::parse("farm@example.org").unwrap(), hand);
        let ticket = watch::channel(Ticket { farm: self.farm, coordinators: Vec::new(), peers: Vec::new() }).1;
        tokio::spawn(post::run(mailer, ledger, clock, ticket, life.stop.clone()));
        let server = MailServer {
            checks: self.checks.clone(),
            chance: self.chance.clone(),
            flaw: self.flaw,
            fair: self.fair.clone(),
        };
        tokio::spawn(server.take(handed, life.alive.clone()));
        life.ledger = Some(simulated);
        self.coordinator.begin(life);
    }

    /// The coordinator loses its power: at any moment, or while it writes its log.
    pub(crate) async fn crash_coordinator(&mut self, exit: Exit) {
        let Some(life) = self.coordinator.life.take() else { return };
        if self.chance.below(3) > 0 {
            let until = Instant::now() + WRITES_WITHIN;
            while Instant::now() < until && life.ledger.as_ref().is_some_and(|ledger| !ledger.is_writing()) {
                sleep(Duration::from_millis(1)).await;
            }
        }
        self.net.leave(self.coordinator.key(), exit);
        self.time.set(None);
        let ledger = life.ledger.expect("a coordinator has a ledger");
        self.checks.absorb(ledger.entries(self.checks.absorbed()));
        let torn = ledger.crash().map(|batch| disk::tear(&batch, &self.chance).unwrap());
        self.log
            .weather(|_| format!("c0 crashes, {exit:?}: {}", torn.as_deref().unwrap_or("nothing was being written")));
        if torn.is_some() {
            self.checks.count(|tally| &mut tally.torn);
        }
        if self.flaw == Flaw::ForgetfulDisk {
            disk::forget(self.log_folder.path()).unwrap();
        }
        let disk = if self.flaw == Flaw::ForgetfulShelf { Disk::Gone } else { Disk::Left };
        self.coordinator.lose_power(disk, &self.chance);
        life.stop.cancel();
    }

    /// Whoever holds the first build that is finished loses it, before anybody can ask for it.
    pub(crate) fn lose_the_first_build(&self) -> JoinHandle<()> {
        let life = self.coordinator.life.as_ref().expect("the coordinator is up");
        let ledger = Ledger::Simulated(life.ledger.clone().expect("a coordinator has a ledger"));
        let mut events = ledger.events();
        tokio::spawn(async move {
            let lost = loop {
                events.next().await.expect("the coordinator stays up");
                let lost = ledger.read(|farm| {
                    let build = farm.builds().next()?;
                    let build_key = build.verdict.build_key;
                    Some(build.holders.iter().map(|&holder| Command::Lost { build_key, holder }).collect::<Vec<_>>())
                });
                if let Some(lost) = lost {
                    break lost;
                }
            };
            let losing = lost.into_iter().map(|command| ledger.propose(command));
            futures::future::try_join_all(losing).await.expect("the farm hears of losses");
        })
    }

    /// What must hold at any moment: what the running coordinator has in memory is what its log says, and what is over was
    /// noticed by whom it concerns.
    pub(crate) fn look(&self) {
        let Some(simulated) = self.coordinator.life.as_ref().and_then(|life| life.ledger.clone()) else { return };
        self.checks.absorb(simulated.entries(self.checks.absorbed()));
        Ledger::Simulated(simulated).read(|farm| self.checks.compare(farm));
        let long = |time: Option<Duration>| time.is_some_and(|time| time > NOTICED_WITHIN);
        if !long(self.coordinator.up_for()) {
            return;
        }
        let keys = |is: &dyn Fn(&&Seat) -> bool| self.volunteers.iter().filter(is).map(Seat::key).collect::<Vec<_>>();
        self.checks.the_lost_hold_nothing(&keys(&|seat| long(seat.down_for())));
        if long(self.calm_since.map(|since| since.elapsed())) {
            self.checks.nobody_works_in_vain(&keys(&|seat| long(seat.up_for())));
        }
    }

    /// Nothing is in anybody's way from now on.
    pub(crate) fn clear_up(&mut self) {
        self.net.set_weather(Weather::CALM);
        self.net.clear();
        self.calm_since = Some(Instant::now());
        self.fair.cancel();
    }

    /// Somebody at a requester's machine, if it is up, and when that ends.
    pub(crate) fn person(&self, number: usize) -> Option<(Person, CancellationToken)> {
        let seat = &self.requesters[number];
        let (session, uploads, life) = seat.session()?;
        let person = Person {
            name: seat.name.clone(),
            session,
            uploads,
            chance: Chance::seeded(self.chance.number()),
            checks: self.checks.clone(),
            log: self.log.clone(),
            time: self.time.clone(),
            flaw: self.flaw,
        };
        Some((person, life))
    }

    /// Starts a volunteer.
    pub(crate) async fn start_volunteer(&mut self, number: usize) {
        let seat = &self.volunteers[number];
        let clock = self.clock(seat);
        let (network, inbox, mut life) = self.plug(seat, clock.clone());
        let capability = seat.capability.clone().expect("a volunteer has a capability");
        let workshop = Pretence {
            name: seat.name.clone(),
            nature: seat.nature,
            capability: capability.clone(),
            network: network.clone(),
            coordinator: self.coordinator.key(),
            store: seat.store.clone(),
            key: seat.key(),
            chance: Chance::seeded(self.chance.number()),
            checks: self.checks.clone(),
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
        self.volunteers[number].begin(life);
    }

    /// A volunteer loses its power, and by chance its disk.
    pub(crate) fn crash_volunteer(&mut self, number: usize, exit: Exit) {
        let seat = &mut self.volunteers[number];
        let Some(life) = seat.life.take() else { return };
        self.net.leave(seat.key(), exit);
        life.stop.cancel();
        let disk = if self.chance.below(4) == 0 { Disk::Gone } else { Disk::Left };
        self.log.weather(|_| format!("{} crashes, {exit:?}; its disk is {disk:?}", seat.name));
        seat.lose_power(disk, &self.chance);
    }

    /// A volunteer is told to end, and hands back what it holds.
    pub(crate) async fn end_volunteer(&mut self, number: usize) {
        let Some(life) = self.volunteers[number].life.take() else { return };
        self.log.weather(|_| format!("{} ends in order", self.volunteers[number].name));
        self.volunteers[number].since = Instant::now();
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
        let clock = self.clock(seat);
        let (network, inbox, mut life) = self.plug(seat, clock.clone());
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
        self.requesters[number].begin(life);
    }

    /// A requester closes his laptop.
    pub(crate) fn crash_requester(&mut self, number: usize, exit: Exit) {
        let seat = &mut self.requesters[number];
        let Some(life) = seat.life.take() else { return };
        self.log.weather(|_| format!("{} crashes, {exit:?}", seat.name));
        seat.since = Instant::now();
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
async fn follow(ledger: Ledger, simulated: Simulated, checks: Checks, stop: CancellationToken) {
    let mut events = ledger.events();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            told = events.next() => if told.is_none() { return },
        }
        checks.absorb(simulated.entries(checks.absorbed()));
    }
}

/// The mail server: takes mails after a while, or, as long as the weather is bad, says that it cannot. What it took may be
/// mailed twice if the coordinator crashes before it has heard so.
struct MailServer {
    checks: Checks,
    chance: Chance,
    flaw: Flaw,
    fair: CancellationToken,
}

impl MailServer {
    async fn take(self, mut handed: mpsc::Receiver<Handed>, life: CancellationToken) {
        while let Some(Handed { notice, taken, .. }) = handed.recv().await {
            let (checks, chance, life) = (self.checks.clone(), self.chance.clone(), life.clone());
            let (flaw, fair) = (self.flaw, self.fair.clone());
            tokio::spawn(async move {
                sleep(Duration::from_millis(chance.below(3_000))).await;
                if life.is_cancelled() || (chance.below(5) == 0 && !fair.is_cancelled()) {
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
}
