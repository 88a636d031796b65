//! Who is alive, as the leader hears it: soft state, pure, and never part of the farm.
//!
//! A lease is *offered* until the first heartbeat that lists it, then *held* as long as its volunteer is heard. The leader
//! feeds in what it hears and asks [`Liveness::due`]; what comes back it proposes. All times are of one monotonic clock of
//! the leader, in whatever epoch it likes.

use crate::farm::Farm;
use crate::farm::command::Expiry;
use crate::farm::lease::OFFERED_FOR;
use crate::id::{LeaseId, PeerKey};
use crate::time::{Span, Timestamp};
use std::collections::BTreeMap;

/// How often a volunteer that holds leases is heard.
pub const HEARTBEAT_EVERY: Span = Span::from_secs(5);
/// How long a volunteer may be silent.
pub const SILENCE: Span = Span::from_secs(15);
/// How long a volunteer whose connection closed has to come back.
pub const AFTER_CLOSE: Span = Span::from_secs(5);

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
        let watch = |volunteer| Watch { volunteer, grip: Grip::Inherited, due };
        Self { watches: farm.leases().map(|lease| (lease.id, watch(lease.volunteer))).collect() }
    }

    /// A lease was granted, or offered once more to who claims under the same nonce.
    pub fn granted(&mut self, lease: LeaseId, volunteer: PeerKey, now: Timestamp) {
        let due = now + OFFERED_FOR.duration();
        let offer_again = |watch: &mut Watch| {
            if watch.grip == Grip::Offered {
                watch.due = watch.due.max(due);
            }
        };
        self.watches.entry(lease).and_modify(offer_again).or_insert(Watch { volunteer, grip: Grip::Offered, due });
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
                *watch = Watch { volunteer, grip: Grip::Offered, due: now };
            }
        }
        for lease in leases {
            match farm.lease(*lease) {
                Some(known) if known.volunteer == volunteer => {
                    self.watches.insert(*lease, Watch { volunteer, grip: Grip::Held, due });
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
        let due = self.watches.iter().filter(|(_, watch)| watch.due <= now);
        due.map(|(lease, watch)| match watch.grip {
            Grip::Offered => Expiry::Undelivered(*lease),
            Grip::Held | Grip::Inherited => Expiry::VolunteerLost(*lease),
        })
        .collect()
    }

    /// When something will be due, unless somebody is heard before.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        self.watches.values().map(|watch| watch.due).min()
    }
}
