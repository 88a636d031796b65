//! The leader's desk: one task that owns everything soft and turns it into commands.
//!
//! Parked claims, liveness and deadlines live here, in memory only. A coordinator that restarts begins with an empty desk
//! and a full farm: volunteers claim and beat again within seconds, and every lease found in the farm gets a fresh term.
//! Grants are proposed one after the other, so two claims never race for one job; everything that takes longer than a
//! proposal (pulling an artifact, sending mail) is done by others who listen to the same events.

use super::ledger::{Ledger, LedgerError};
use super::replica::Told;
use crate::artifact::Store;
use crate::catalogue;
use crate::clock::Clock;
use crate::config::WallClock;
use protocol::farm::Farm;
use protocol::farm::command::{Command, Event, Expiry, JobState, Rejection, Reply, Witnesses};
use protocol::farm::explain::Sighting;
use protocol::farm::lease::{Bounds, OFFERED_FOR};
use protocol::farm::liveness::Liveness;
use protocol::farm::roster::{ParkedClaim, Roster};
use protocol::farm::stamp::{Clock as Trust, Stamper};
use protocol::id::{JobId, LeaseId, PeerKey};
use protocol::platform::Capability;
use protocol::progress::{Motion, Pulse};
use protocol::recipe::Recipe;
use protocol::report::Fingerprint;
use protocol::request::Request;
use protocol::time::Timestamp;
use protocol::wire::Offer;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(250);
/// Every so many ticks the farm's own deadlines are looked at.
const FARM_TICKS: u32 = 4;
/// Every so many ticks old things are pruned.
const PRUNE_TICKS: u32 = 4 * 600;
/// Words that may wait for the desk.
const WORDS: usize = 1_024;
/// Deadlines acted on in one look.
const EXPIRED_AT_ONCE: usize = 256;
/// How often a claim is tried against a farm that keeps changing under it.
const GRANT_TRIES: usize = 8;

/// What is said to the desk.
#[derive(Debug)]
pub enum Word {
    /// A volunteer wants work.
    Claim {
        /// Who.
        volunteer: PeerKey,
        /// Which of its claims.
        nonce: u64,
        /// What it can do.
        capability: Box<Capability>,
        /// Leases it says it runs.
        leases: Vec<LeaseId>,
        /// For the offer; dropped when the caller waits no more.
        reply: oneshot::Sender<Offer>,
    },
    /// The caller of a claim waits no more.
    Withdraw {
        /// Who.
        volunteer: PeerKey,
        /// Which claim.
        nonce: u64,
    },
    /// A volunteer is alive.
    Heartbeat {
        /// Who.
        volunteer: PeerKey,
        /// Every lease it runs, and how its attempt goes.
        pulses: Vec<Pulse>,
        /// For the leases it must stop.
        reply: oneshot::Sender<Vec<LeaseId>>,
    },
    /// A connection is greeted.
    Greeted {
        /// Who.
        peer: PeerKey,
        /// Its clock.
        clock: Timestamp,
        /// What it says it can do, when it is a volunteer.
        capability: Option<Box<Capability>>,
    },
    /// Is another volunteer alive that could attempt the job of this lease?
    Witnesses {
        /// The lease.
        lease: LeaseId,
        /// Who has it.
        except: PeerKey,
        /// For the answer.
        reply: oneshot::Sender<Witnesses>,
    },
    /// The last connection to a peer closed.
    Closed {
        /// Who.
        peer: PeerKey,
    },
}

/// Speaks to the desk.
#[derive(Clone, Debug)]
pub struct DeskBell(mpsc::Sender<Word>);

impl DeskBell {
    /// Says a word; `false` when the desk is closed.
    pub async fn say(&self, word: Word) -> bool {
        self.0.send(word).await.is_ok()
    }
}

/// What the desk sees of volunteers and their attempts, for whoever explains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Volunteers.
    pub sightings: Vec<Sighting>,
    /// How attempts move.
    pub motions: BTreeMap<LeaseId, Motion>,
}

/// The desk. [`Desk::run`] owns it.
#[derive(Debug)]
pub struct Desk {
    ledger: Ledger,
    store: Store,
    clock: Clock,
    /// How long the clock had run when the desk was opened.
    age_at_start: Duration,
    stamper: Stamper,
    words: mpsc::Receiver<Word>,
    roster: Roster,
    liveness: Liveness,
    /// Who waits for an offer, by volunteer and nonce.
    waiting: BTreeMap<(PeerKey, u64), oneshot::Sender<Offer>>,
    seen: watch::Sender<Arc<Seen>>,
}

impl Desk {
    /// An empty desk, the bell to ring it by, and what it sees of the volunteers.
    #[must_use]
    pub fn new(
        ledger: Ledger,
        store: Store,
        clock: Clock,
        wall_clock: WallClock,
    ) -> (Self, DeskBell, watch::Receiver<Arc<Seen>>) {
        let (bell, words) = mpsc::channel(WORDS);
        let (seen, watching) = watch::channel(Arc::default());
        let last = ledger.read(|farm| farm.last_stamp());
        let mut stamper = Stamper::start(last, clock.now());
        if wall_clock == WallClock::Trusted {
            stamper.trust();
        }
        if stamper.clock() == Trust::Doubted {
            tracing::warn!(
                "the system's clock makes no sense: time goes on from the farm's last stamp until a peer's clock agrees with it"
            );
        }
        let age_at_start = clock.elapsed();
        clock.correct(stamper.at_start() - age_at_start);
        let desk = Self {
            ledger,
            store,
            clock,
            age_at_start,
            stamper,
            words,
            roster: Roster::default(),
            liveness: Liveness::default(),
            waiting: BTreeMap::new(),
            seen,
        };
        (desk, DeskBell(bell), watching)
    }

    /// Serves until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut events = self.ledger.events();
        self.look_around();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ticks = 0u32;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                told = events.next() => match told {
                    Some(Told::Event(happened)) => self.hear(happened.event).await,
                    Some(Told::StartOver) => {
                        self.look_around();
                        self.serve_all().await;
                    }
                    None => return,
                },
                word = self.words.recv() => match word {
                    Some(word) => self.listen(word).await,
                    None => return,
                },
                _ = tick.tick() => {
                    ticks = ticks.wrapping_add(1);
                    self.check_deadlines(ticks).await;
                }
            }
        }
    }

    /// Finds in the farm what events would have told of leases: each gets a fresh spell.
    fn look_around(&mut self) {
        let now = self.clock.now();
        self.liveness = self.ledger.read(|farm| Liveness::of_new_leader(farm, now));
    }

    async fn hear(&mut self, event: Event) {
        match event {
            Event::Queued { job, .. } => self.offer_job(job).await,
            Event::Granted { lease, volunteer, .. } => {
                self.ledger.read(|farm| self.liveness.granted(farm, lease, volunteer, self.clock.now()));
                self.publish();
            }
            Event::LeaseEnded { lease, .. } => {
                self.liveness.ended(lease);
                self.publish();
            }
            Event::Keeping { .. }
            | Event::Decided { .. }
            | Event::Ended { .. }
            | Event::Notice { .. }
            | Event::Unbuilt { .. }
            | Event::Amended { .. } => {}
        }
    }

    async fn listen(&mut self, word: Word) {
        let now = self.clock.now();
        match word {
            Word::Claim { volunteer, nonce, capability, leases, reply } => {
                self.ledger.read(|farm| self.liveness.heard(farm, volunteer, &leases, now));
                if let Err(error) = self.roster.park(volunteer, nonce, &capability, now) {
                    // The dropped reply answers the claim with nothing.
                    tracing::debug!(volunteer = %volunteer.short(), %error, "a claim is not parked");
                    return;
                }
                self.waiting.insert((volunteer, nonce), reply);
                self.publish();
                if let Some(claim) = self.roster.claim(volunteer, nonce) {
                    self.serve(claim).await;
                }
            }
            Word::Withdraw { volunteer, nonce } => {
                self.waiting.remove(&(volunteer, nonce));
                self.roster.withdraw(volunteer, nonce);
            }
            Word::Heartbeat { volunteer, pulses, reply } => {
                self.roster.heard(volunteer, now);
                let leases: Vec<LeaseId> = pulses.iter().map(|pulse| pulse.lease).collect();
                let revoked = self.ledger.read(|farm| self.liveness.heard(farm, volunteer, &leases, now));
                self.liveness.told(volunteer, &pulses, now);
                // The caller may be gone; it will beat again.
                let _gone = reply.send(revoked);
            }
            Word::Greeted { peer, clock, capability } => {
                self.compare_clocks(clock);
                if let Some(capability) = capability
                    && let Err(error) = self.roster.see(peer, &capability, now)
                {
                    tracing::debug!(peer = %peer.short(), %error, "a volunteer is not seen");
                }
                self.publish();
            }
            Word::Witnesses { lease, except, reply } => {
                let witnesses = self.ledger.read(|farm| match farm.lease(lease) {
                    Some(lease) => self.roster.witnesses(farm, lease.job, &except, now),
                    None => Witnesses::Nobody,
                });
                // The caller may be gone; it will report again.
                let _gone = reply.send(witnesses);
            }
            Word::Closed { peer } => {
                self.liveness.closed(peer, now);
                self.roster.closed(peer, now);
                self.waiting.retain(|(volunteer, _), _| *volunteer != peer);
                self.publish();
            }
        }
    }

    /// A peer whose clock agrees with the system's vouches for it.
    fn compare_clocks(&mut self, peer: Timestamp) {
        if self.stamper.clock() == Trust::Trusted {
            return;
        }
        self.stamper.read_again(self.clock.wall_at_start() + self.age_at_start);
        self.stamper.heard(peer, self.clock.elapsed().saturating_sub(self.age_at_start));
        if self.stamper.clock() == Trust::Trusted {
            tracing::info!("a peer's clock agrees with the system's: it is believed");
            self.clock.correct(self.stamper.at_start() - self.age_at_start);
            // The time may have jumped: nobody has been silent for as long as it now seems.
            self.look_around();
        }
    }

    /// Looks for a parked claim that can take a job that has just come up.
    async fn offer_job(&mut self, job: JobId) {
        for _ in 0..GRANT_TRIES {
            let claim = self.ledger.read(|farm| self.roster.wake(farm, job));
            let Some(claim) = claim else { return };
            if self.serve(claim).await == Served::Nothing {
                return;
            }
            if self.ledger.read(|farm| farm.job(job).is_none_or(|job| job.state != JobState::Queued)) {
                return;
            }
        }
    }

    /// Tries every parked claim again: events that told of jobs were missed.
    async fn serve_all(&mut self) {
        let parked: Vec<_> = self.waiting.keys().copied().collect();
        for (volunteer, nonce) in parked {
            if let Some(claim) = self.roster.claim(volunteer, nonce) {
                self.serve(claim).await;
            }
        }
    }

    /// Forgets claims whose callers wait no more, though their connection lasts.
    fn drop_deserted(&mut self) {
        let deserted: Vec<_> =
            self.waiting.iter().filter(|(_, reply)| reply.is_closed()).map(|(claim, _)| *claim).collect();
        for (volunteer, nonce) in deserted {
            self.waiting.remove(&(volunteer, nonce));
            self.roster.withdraw(volunteer, nonce);
        }
    }

    /// Gives a parked claim the job that is its turn, if there is one.
    async fn serve(&mut self, claim: ParkedClaim) -> Served {
        if !self.ledger.leads() {
            return Served::Nothing;
        }
        for _ in 0..GRANT_TRIES {
            let before = |farm: &Farm| {
                farm.leases_of(claim.volunteer)
                    .find(|lease| lease.nonce == claim.nonce)
                    .map(|lease| (lease.id, lease.job))
            };
            if let Some((lease, job)) = self.ledger.read(before) {
                // The answer to this very claim was lost on its way.
                self.hand_out(&claim, lease, job);
                return Served::Offered;
            }
            let next = self.ledger.read(|farm| {
                let job = farm.candidate(&claim.volunteer, &claim.capability)?;
                Some((job, Fingerprint::of(&claim.capability, farm.job(job)?.requirement)))
            });
            let Some((job, fingerprint)) = next else { return Served::Nothing };
            let command = Command::Grant {
                job,
                volunteer: claim.volunteer,
                capability: claim.capability_id,
                fingerprint,
                nonce: claim.nonce,
                bounds: self.bounds(job).await,
            };
            match self.ledger.propose(command).await {
                Ok(Reply::Granted(granted)) => {
                    self.hand_out(&claim, granted.lease, granted.job);
                    return Served::Offered;
                }
                Ok(reply) => tracing::error!(?reply, "a grant was answered by something else"),
                // The farm changed between the look and the proposal: look again.
                Err(LedgerError::Rejected(rejection)) => tracing::debug!(%job, %rejection, "a grant was rejected"),
                Err(LedgerError::NotCommitted(error)) => {
                    tracing::warn!(%error, "a grant was not committed");
                    return Served::Nothing;
                }
            }
        }
        Served::Nothing
    }

    /// How long an attempt of a job may take, by its recipe.
    async fn bounds(&self, job: JobId) -> Bounds {
        let Some(signed) = self.ledger.read(|farm| farm.job(job).map(|job| job.signed)) else {
            return Bounds::widest();
        };
        // The farm took it in, so it was opened and checked before.
        let Ok(Request { spec, .. }) = signed.payload_unchecked() else { return Bounds::widest() };
        let limits = match catalogue::by_id(&spec.recipe) {
            Some(recipe) => recipe.limits_for(&spec).ok(),
            None => match self.store.get(&spec.recipe.0).await {
                Ok(Some(blob)) => Recipe::decode(&blob).ok().and_then(|recipe| recipe.limits_for(&spec).ok()),
                Ok(None) | Err(_) => None,
            },
        };
        // Of a recipe that nobody can read, a volunteer will say so itself.
        limits.as_ref().map_or_else(Bounds::widest, Bounds::of)
    }

    fn hand_out(&mut self, claim: &ParkedClaim, lease: LeaseId, job: JobId) {
        let now = self.clock.now();
        self.ledger.read(|farm| self.liveness.granted(farm, lease, claim.volunteer, now));
        self.roster.withdraw(claim.volunteer, claim.nonce);
        let offer = self.ledger.read(|farm| {
            let request = farm.job(job)?.signed;
            Some(Offer { lease, job, take_up_within: OFFERED_FOR, request })
        });
        let waiting = self.waiting.remove(&(claim.volunteer, claim.nonce));
        if let (Some(offer), Some(waiting)) = (offer, waiting) {
            // If the caller is gone the lease lapses as undelivered and the job is offered to the next.
            let _gone = waiting.send(offer);
        }
    }

    async fn check_deadlines(&mut self, ticks: u32) {
        if !self.ledger.leads() {
            return;
        }
        let now = self.clock.now();
        for expiry in self.liveness.due(now) {
            self.expire(expiry).await;
        }
        if ticks.is_multiple_of(FARM_TICKS) {
            for expiry in self.ledger.read(|farm| farm.expired(now).take(EXPIRED_AT_ONCE).collect::<Vec<_>>()) {
                self.expire(expiry).await;
            }
            self.roster.prune(now);
            self.drop_deserted();
            self.publish();
        }
        if ticks.is_multiple_of(PRUNE_TICKS)
            && let Err(error) = self.ledger.propose(Command::Prune).await
        {
            tracing::warn!(%error, "old entries were not pruned");
        }
    }

    async fn expire(&mut self, expiry: Expiry) {
        match self.ledger.propose(Command::Expire(expiry)).await {
            Ok(_) => tracing::info!(?expiry, "a deadline passed"),
            // It is looked at again: what is watched no more would never end.
            Err(LedgerError::Rejected(Rejection::NotDue)) => tracing::debug!(?expiry, "a deadline is not due yet"),
            Err(LedgerError::Rejected(rejection)) => {
                tracing::debug!(?expiry, %rejection, "a deadline had nothing to end");
                if let Expiry::Undelivered(lease)
                | Expiry::VolunteerLost(lease)
                | Expiry::Stuck(lease)
                | Expiry::Overdue(lease) = expiry
                {
                    self.liveness.ended(lease);
                }
            }
            Err(LedgerError::NotCommitted(error)) => tracing::warn!(%error, "a deadline was not committed"),
        }
    }

    /// Tells watchers what is seen of the volunteers, when that changed.
    fn publish(&self) {
        let now = self.clock.now();
        let fresh = Seen { sightings: self.roster.sightings(now), motions: self.liveness.motions(now) };
        self.seen.send_if_modified(|seen| {
            let changed = **seen != fresh;
            if changed {
                *seen = Arc::new(fresh);
            }
            changed
        });
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Served {
    Offered,
    Nothing,
}
