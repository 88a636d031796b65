//! The coordinator: it keeps the queue, gives out leases, judges, keeps copies and writes mail.
//!
//! ```text
//! calls ─► door ─► ledger (propose → committed → applied) ─► events ─┬─► desk    grants, deadlines
//!            │        │                                               ├─► pulls   sources, artifacts, logs
//!            └─ desk ◄┘ reads                                         ├─► herald  verdicts, DHT, gossip
//!                                                                     └─► mailer  notices
//! ```
//!
//! - [`ledger`] is the one door to the law; [`replica`] and [`wal`] make what it answers durable
//! - [`door`] answers calls; [`desk`] owns everything soft; [`pull`], [`logs`], [`herald`] and [`mailer`] act on events
//!
//! What was acknowledged survives `kill -9` and power loss, because the ledger answers after the sync. Nobody here decides by
//! itself: every change is a command, and every reader of events can find in the farm what an event would have told it.

pub mod desk;
pub mod door;
pub mod herald;
pub mod judge;
mod law;
pub mod ledger;
pub mod logs;
pub mod mailer;
mod needs;
pub mod open;
pub mod post;
pub mod pull;
pub mod replica;
pub mod wal;

use crate::artifact::Store;
use crate::chance::Chance;
use crate::clock::Clock;
use crate::config::WallClock;
use crate::hearsay::Hearsay;
use crate::network::{Network, PeerChange};
use desk::{Desk, DeskBell, Word};
use door::Door;
use herald::Herald;
use ledger::Ledger;
use logs::Logs;
use protocol::id::FarmId;
use protocol::signed::SecretKey;
use pull::Pulls;
use replica::Told;
use std::sync::Arc;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Artifacts just kept that may wait for the herald.
const KEPT: usize = 64;

/// Everything a coordinator stands on.
#[derive(Clone, Debug)]
pub struct Ground {
    /// The farm's log and state; the farm is founded.
    pub ledger: Ledger,
    /// The network.
    pub network: Network,
    /// Where artifacts are kept.
    pub store: Store,
    /// The farm.
    pub farm: FarmId,
    /// Signs verdicts; the charter names its public half.
    pub secret: SecretKey,
    /// Time.
    pub clock: Clock,
    /// Jitter.
    pub chance: Chance,
    /// What gossip says.
    pub hearsay: Hearsay,
    /// Whether the system's clock is believed although it jumped.
    pub wall_clock: WallClock,
}

/// A running coordinator.
#[derive(Debug)]
pub struct Coordinator {
    door: Door,
    tracker: TaskTracker,
}

impl Coordinator {
    /// Starts desk, pulls and herald; they end when `stop` is cancelled.
    #[must_use]
    pub fn start(ground: Ground, stop: &CancellationToken) -> Self {
        let Ground { ledger, network, store, farm, secret, clock, chance, hearsay, wall_clock } = ground;
        let tracker = TaskTracker::new();
        let (desk, bell, seen) = Desk::new(ledger.clone(), store.clone(), clock.clone(), wall_clock);
        let moved = Arc::new(Notify::new());
        let (keeper, kept) = mpsc::channel(KEPT);
        let ground = (ledger.clone(), network.clone(), store.clone());
        let pulls = Pulls::new(ground, (clock.clone(), chance), keeper, stop.clone());
        let logs = Logs::new(network.clone(), store.clone());
        let herald = Herald {
            ledger: ledger.clone(),
            network: network.clone(),
            store: store.clone(),
            farm,
            secret: secret.clone(),
            clock: clock.clone(),
        };
        tracker.spawn(desk.run(stop.clone()));
        tracker.spawn(pulls.clone().run());
        tracker.spawn(herald.run(kept, stop.clone()));
        tracker.spawn(tell_desk(network.clone(), bell.clone(), stop.clone()));
        tracker.spawn(note_moves(ledger.clone(), moved.clone(), stop.clone()));
        tracker.close();
        let door = Door { ledger, network, farm, secret, clock, desk: bell, seen, moved, pulls, logs, hearsay };
        Self { door, tracker }
    }

    /// Answers calls.
    #[must_use]
    pub fn door(&self) -> &Door {
        &self.door
    }

    /// Waits until everything has ended.
    pub async fn ended(&self) {
        self.tracker.wait().await;
    }
}

/// Tells the desk who comes and goes.
async fn tell_desk(network: Network, bell: DeskBell, stop: CancellationToken) {
    let mut changes = network.changes();
    loop {
        let change = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            change = changes.recv() => change,
        };
        let word = match change {
            Ok(PeerChange::Greeted { peer, hello }) => {
                Word::Greeted { peer, clock: hello.clock, capability: hello.capability.map(Box::new) }
            }
            Ok(PeerChange::Closed { peer }) => Word::Closed { peer },
            // What was missed is soft: silence is noticed by its deadline, presence by the next claim.
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        };
        if !bell.say(word).await {
            return;
        }
    }
}

/// Lets those who watch a request know that the farm has moved.
async fn note_moves(ledger: Ledger, moved: Arc<Notify>, stop: CancellationToken) {
    let mut events = ledger.events();
    loop {
        let told = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            told = events.next() => told,
        };
        match told {
            Some(Told::Event(_) | Told::StartOver) => moved.notify_waiters(),
            None => return,
        }
    }
}
