//! Who is alive, as the leader hears it: soft state, pure, and never part of the farm.
//!
//! A lease is *offered* until the first heartbeat that lists it, then *held* as long as its volunteer is heard, its attempt
//! moves, and it takes no longer than it may. The leader feeds in what it hears and asks [`Liveness::due`]; what comes back
//! it proposes. All times are of the leader's clock that its stamps are of.
//!
//! An attempt that does not move is the volunteer's to end first, because it sees best: only when it should have done so
//! and has not, its lease ends as *stuck*. Whoever lies about progress is left with the time that the lease has in all.

use crate::farm::Farm;
use crate::farm::command::Expiry;
use crate::farm::lease::{Bounds, Lease, OFFERED_FOR};
use crate::id::{LeaseId, PeerKey};
use crate::progress::{Motion, Phase, Progress, Pulse};
use crate::time::{Span, Timestamp};
use std::collections::BTreeMap;

/// How often a volunteer that holds leases is heard.
pub const HEARTBEAT_EVERY: Span = Span::from_secs(5);
/// How long a volunteer may be silent.
pub const SILENCE: Span = Span::from_secs(15);
/// How long a volunteer whose connection closed has to come back.
pub const AFTER_CLOSE: Span = Span::from_secs(5);
/// How long a volunteer has to end a build by itself that shows no sign of progress, and to say so.
pub const STUCK_GRACE: Span = Span::from_secs(15);
/// How long an attempt may be still while no step runs, whatever its recipe says of its steps.
pub const STILL_BESIDE_STEPS: Span = Span::from_secs(900);
/// Stillness is told in such steps, so that what is told does not change all the time.
const MINUTE: Span = Span::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grip {
    /// Granted, and not heard of since.
    Offered,
    /// The volunteer listed it.
    Held,
    /// Granted by an earlier leader, or before a restart: nobody here knows whether it was ever taken up.
    Inherited,
}

#[derive(Clone, Copy, Debug)]
struct Watch {
    volunteer: PeerKey,
    grip: Grip,
    /// What happens unless the volunteer is heard before.
    due: Timestamp,
    pace: Pace,
}

/// How an attempt moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pace {
    bounds: Bounds,
    /// When the lease ends, come what may.
    until: Timestamp,
    /// What its volunteer told last.
    progress: Option<Progress>,
    /// When something moved last.
    moved: Timestamp,
}

impl Pace {
    /// Of a lease that is watched from now on. It is not overdue before its volunteer could be heard.
    fn of(lease: Option<&Lease>, now: Timestamp) -> Self {
        let bounds = lease.map_or_else(Bounds::widest, |lease| lease.bounds);
        let until = lease.map_or(now + bounds.whole.duration(), Lease::until);
        Self { bounds, until: until.max(now + SILENCE.duration()), progress: None, moved: now }
    }

    fn see(&mut self, progress: Progress, now: Timestamp) {
        if self.progress != Some(progress) {
            (self.progress, self.moved) = (Some(progress), now);
        }
    }

    /// When it counts as stuck, if nothing moves.
    fn stuck_at(&self) -> Timestamp {
        let still = match self.progress.map(|progress| progress.phase) {
            Some(Phase::Building) => self.bounds.quiet,
            _ => self.bounds.quiet.max(STILL_BESIDE_STEPS),
        };
        self.moved + still.duration() + STUCK_GRACE.duration()
    }
}

/// The leases of living volunteers.
#[derive(Clone, Debug, Default)]
pub struct Liveness {
    watches: BTreeMap<LeaseId, Watch>,
}

impl Liveness {
    /// What a new leader knows: nothing but the farm. Everybody has a fresh spell of silence. A lease that its volunteer, once
    /// heard, does not list was never taken up: that is the coordinator's loss and never counts as the volunteer's.
    #[must_use]
    pub fn of_new_leader(farm: &Farm, now: Timestamp) -> Self {
        let due = now + SILENCE.duration();
        let watch = |lease: &Lease| {
            let pace = Pace::of(Some(lease), now);
            (lease.id, Watch { volunteer: lease.volunteer, grip: Grip::Inherited, due, pace })
        };
        Self { watches: farm.leases().map(watch).collect() }
    }

    /// A lease was granted, or offered once more to who claims under the same nonce.
    pub fn granted(&mut self, farm: &Farm, lease: LeaseId, volunteer: PeerKey, now: Timestamp) {
        let due = now + OFFERED_FOR.duration();
        let offer_again = |watch: &mut Watch| {
            if watch.grip == Grip::Offered {
                watch.due = watch.due.max(due);
            }
        };
        let pace = Pace::of(farm.lease(lease), now);
        let first = Watch { volunteer, grip: Grip::Offered, due, pace };
        self.watches.entry(lease).and_modify(offer_again).or_insert(first);
    }

    /// A lease is no more.
    pub fn ended(&mut self, lease: LeaseId) {
        self.watches.remove(&lease);
    }

    /// A heartbeat, with every lease that the volunteer holds. The answer names those that it is to stop, because the farm
    /// does not know them as its.
    ///
    /// A lease that it held and does not list any more is not kept alive.
    pub fn heard(&mut self, farm: &Farm, volunteer: PeerKey, leases: &[LeaseId], now: Timestamp) -> Vec<LeaseId> {
        let due = now + SILENCE.duration();
        let mut revoked = Vec::new();
        for (lease, watch) in &mut self.watches {
            if watch.volunteer == volunteer && watch.grip == Grip::Inherited && !leases.contains(lease) {
                // The law ends no offer before its time, and that may have stood still while there was no leader.
                let due = farm.lease(*lease).map_or(now, |lease| lease.offered_until().max(now));
                (watch.grip, watch.due) = (Grip::Offered, due);
            }
        }
        for lease in leases {
            match farm.lease(*lease) {
                Some(known) if known.volunteer == volunteer => {
                    let pace = self.watches.get(lease).map_or_else(|| Pace::of(Some(known), now), |watch| watch.pace);
                    self.watches.insert(*lease, Watch { volunteer, grip: Grip::Held, due, pace });
                }
                Some(_) => revoked.push(*lease),
                None => {
                    self.watches.remove(lease);
                    revoked.push(*lease);
                }
            }
        }
        revoked
    }

    /// How the attempts of a volunteer go, by its own word.
    pub fn told(&mut self, volunteer: PeerKey, pulses: &[Pulse], now: Timestamp) {
        for Pulse { lease, progress } in pulses {
            if let Some(watch) = self.watches.get_mut(lease).filter(|watch| watch.volunteer == volunteer) {
                watch.pace.see(*progress, now);
            }
        }
    }

    /// How the attempts move whose volunteers have told of them.
    #[must_use]
    pub fn motions(&self, now: Timestamp) -> BTreeMap<LeaseId, Motion> {
        let motion = |(lease, watch): (&LeaseId, &Watch)| {
            let phase = watch.pace.progress?.phase;
            let minutes = now.since(watch.pace.moved).as_secs() / MINUTE.duration().as_secs();
            let still_for = (minutes > 0).then(|| Span::from_secs(minutes * MINUTE.duration().as_secs()));
            Some((*lease, Motion { phase, still_for }))
        };
        self.watches.iter().filter_map(motion).collect()
    }

    /// The last connection to a volunteer closed.
    pub fn closed(&mut self, volunteer: PeerKey, now: Timestamp) {
        let due = now + AFTER_CLOSE.duration();
        for watch in
            self.watches.values_mut().filter(|watch| watch.volunteer == volunteer && watch.grip != Grip::Offered)
        {
            watch.due = watch.due.min(due);
        }
    }

    /// What is due at `now`. It stays due until [`Liveness::ended`].
    #[must_use]
    pub fn due(&self, now: Timestamp) -> Vec<Expiry> {
        self.watches.iter().filter_map(|(lease, watch)| watch.end(*lease, now)).collect()
    }

    /// When something will be due, unless somebody is heard before.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        self.watches.values().map(Watch::next).min()
    }
}

impl Watch {
    /// Why the lease ends now, if it does.
    fn end(&self, lease: LeaseId, now: Timestamp) -> Option<Expiry> {
        match self.grip {
            Grip::Offered => (self.due <= now).then_some(Expiry::Undelivered(lease)),
            _ if self.due <= now => Some(Expiry::VolunteerLost(lease)),
            _ if self.pace.until <= now => Some(Expiry::Overdue(lease)),
            Grip::Held if self.pace.stuck_at() <= now => Some(Expiry::Stuck(lease)),
            Grip::Held | Grip::Inherited => None,
        }
    }

    fn next(&self) -> Timestamp {
        match self.grip {
            Grip::Offered => self.due,
            Grip::Held => self.due.min(self.pace.until).min(self.pace.stuck_at()),
            Grip::Inherited => self.due.min(self.pace.until),
        }
    }
}
